"""Where a real chatd listens: TCP, unix sockets, and the admin listener, which outlives the public one."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import pytest
import uvloop
from starlette.applications import Starlette
from websockets.asyncio.client import unix_connect

from chatd.settings import Admin, Server, Settings, host_and_port
from chatd.web.server import ACCEPTED_A_TURN, Listener
from chatd.web.sockets import UNSENT_BYTES, address_of, bind, hold, tidy
from tests.conftest import Daemon, running
from tests.people import KEYS
from tests.test_cluster import until
from tests.test_doors import PATIENCE_S, Raw


def ask(where: str, path: str) -> tuple[int, str]:
    """Status and body of a GET at host:port or at unix:/path."""
    connection = http.client.HTTPConnection("localhost", timeout=PATIENCE_S)
    host, port = host_and_port(where)
    connection.sock = socket.socket(socket.AF_UNIX if host.startswith("unix:") else socket.AF_INET)
    try:
        connection.sock.connect(host.removeprefix("unix:") if host.startswith("unix:") else (host, port))
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


@contextmanager
def on_files(directory: Path, **environ: str) -> Iterator[tuple[Daemon, Path, str]]:
    """A chatd whose two listeners are files."""
    door, admin = directory / "chatd.sock", f"unix:{directory}/admin.sock"
    daemon = Daemon(directory, CHATD_SERVER__HOST=f"unix:{door}", CHATD_ADMIN__LISTEN=admin, **environ)
    try:
        daemon.until_log(r'"ready"')
        yield daemon, door, admin
    finally:
        daemon.close()


async def test_the_admin_listener_answers_while_the_public_one_is_closed_and_the_node_drains(tmp_path: Path) -> None:
    with running(tmp_path, "--port", "0", CHATD_ADMIN__LISTEN="127.0.0.1:0") as chatd:
        admin = chatd.until_log(r"health and metrics +http://(\S+)/")[1]
        assert ask(admin, "/livez") == (200, "ok\n")
        assert ask(admin, "/readyz")[0] == 200
        assert "chatd_connections " in ask(admin, "/metrics")[1]
        assert ask(admin, "/")[0] == 404, "nobody chats here"
        async with Raw(chatd) as deaf:
            deaf.socket.transport.pause_reading()  # so that the goodbye is not answered, and the drain waits for it
            stopping = asyncio.create_task(asyncio.to_thread(chatd.stop))
            await asyncio.to_thread(chatd.until_log, "draining")
            with pytest.raises(ConnectionRefusedError):
                while True:
                    await asyncio.to_thread(ask, chatd.address, "/livez")
            status, body = await asyncio.to_thread(ask, admin, "/readyz")
            assert (status, json.loads(body)["reason"]) == (503, "draining")
            assert "chatd_draining 1.0" in (await asyncio.to_thread(ask, admin, "/metrics"))[1]
            deaf.socket.transport.resume_reading()
            assert await stopping == 0
        with pytest.raises(ConnectionRefusedError):
            ask(admin, "/livez")


async def test_a_proxy_on_a_file_is_believed_and_is_not_one_address_among_others(tmp_path: Path) -> None:
    with on_files(tmp_path, CHATD_LIMITS__CONNECTIONS_PER_ADDRESS="1") as (chatd, door, admin):
        headers = {"X-Forwarded-For": "203.0.113.7"}
        async with (
            unix_connect(str(door), "ws://chat/chat/ana?room=tea", additional_headers=headers) as ana,
            unix_connect(str(door), "ws://chat/chat/bob?room=tea"),
            unix_connect(str(door), "ws://chat/chat/eve?room=tea") as eve,
        ):
            await until(lambda: len(chatd.ask("who", "tea")["connections"]) == 3)
            await eve.send("over a file")
            assert await asyncio.wait_for(ana.recv(), PATIENCE_S) == "eve: over a file"
            found = {entry["user"]: entry["ip"] for entry in chatd.ask("who")["connections"]}
        assert found == {"ana": "203.0.113.7", "bob": "unix", "eve": "unix"}
        assert [stat.S_IMODE(door.stat().st_mode), stat.S_IMODE(os.stat(admin[5:]).st_mode)] == [0o660, 0o660]
        assert ask(admin, "/readyz")[0] == 200
        ports = {check["name"]: check["finding"] for check in chatd.ask("doctor")["checks"] if "port" in check["name"]}
        assert ports == {
            name: f"chatd answers at {where} and is ready"
            for name, where in {"port": f"unix:{door}", "admin port": admin}.items()
        }
        assert chatd.stop() == 0
    assert not door.exists()
    assert not os.path.exists(admin[5:])


@pytest.mark.parametrize(
    ("host", "why"),
    [("192.0.2.1", "Cannot assign requested address"), ("nowhere.invalid", "Name or service not known")],
)
def test_where_nobody_listens_nobody_is_to_be_stopped(tmp_path: Path, host: str, why: str) -> None:
    (tmp_path / "chatd.toml").write_text(f'[server]\nhost = "{host}"\n{KEYS}')
    refused = subprocess.run(
        [sys.executable, "-m", "chatd", "serve", "--config", str(tmp_path / "chatd.toml")],
        env={**os.environ, "XDG_STATE_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert refused.stderr.splitlines()[-1] == (
        f"chatd: cannot listen on {host} port 8000: {why}; set server.host and server.port to what this machine has "
        "and you may use"
    )


def test_a_file_that_a_dead_node_left_is_taken_over_and_one_that_lives_is_not(tmp_path: Path) -> None:
    with on_files(tmp_path) as (first, door, _):
        refused = subprocess.run(
            [sys.executable, "-m", "chatd", "serve"], env=first.environ, capture_output=True, text=True, timeout=30
        )
        assert refused.returncode == 1
        assert refused.stderr.splitlines()[-1] == (
            f"chatd: cannot listen on unix:{door}: Address already in use; stop what is there, or change server.host"
        )
        assert ask(f"unix:{door}", "/livez")[0] == 200
        first.kill()
    assert door.exists()
    with on_files(tmp_path, CHATD_SERVER__SOCKET_MODE="0600"):
        assert ask(f"unix:{door}", "/livez")[0] == 200
        assert stat.S_IMODE(door.stat().st_mode) == 0o600


def test_what_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "chatd.sock").write_text("precious")
    with pytest.raises(FileExistsError, match="no socket"):
        bind(f"unix:{tmp_path}/chatd.sock", 0, 0o660)
    assert (tmp_path / "chatd.sock").read_text() == "precious"


def test_who_goes_leaves_the_file_of_who_came_after(tmp_path: Path) -> None:
    path = tmp_path / "chatd.sock"
    first = bind(f"unix:{path}", 0, 0o660)
    path.unlink()
    second = bind(f"unix:{path}", 0, 0o660)
    first.close()
    tidy(f"unix:{path}")
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
    second.close()
    tidy(f"unix:{path}")
    assert not path.exists()


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
@pytest.mark.parametrize("way", ["bound by us", "handed over by systemd"])
def test_a_connection_has_the_socket_options_it_needs(loop: Callable[[], asyncio.AbstractEventLoop], way: str) -> None:
    """A message is not held back to fill a packet, and the kernel does not take megabytes for who does not read."""

    async def story() -> None:
        sock = bind("127.0.0.1", 0, 0)
        if way == "handed over by systemd":
            sock = socket.socket(fileno=sock.detach())
        listener = Listener(Starlette(), Settings(), sock)
        await listener.start()
        host, port = host_and_port(listener.address)
        _, writer = await asyncio.open_connection(host, port)
        connections = listener._server.server_state.connections
        while not connections:
            await asyncio.sleep(0)
        (door,) = connections
        accepted = door.transport.get_extra_info("socket")  # type: ignore[union-attr]
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT) == UNSENT_BYTES
        writer.close()
        await writer.wait_closed()
        await listener.stop()

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(asyncio.wait_for(story(), PATIENCE_S))


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_nobody_is_sent_to_one_that_shares_a_port_before_it_accepts(
    loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    async def story() -> None:
        with hold("127.0.0.1", 0) as held:
            host, port = host_and_port(address_of(held))
            early, late = (Listener(Starlette(), Settings(), bind(host, port, 0, shared=True)) for _ in range(2))
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection((host, port))
            await early.start()
            for _ in range(16):  # the hash of each leads to one or the other
                assert (await asyncio.to_thread(ask, early.address, "/"))[0] == 404
            await late.start()
            await early.close()
            for _ in range(16):
                assert (await asyncio.to_thread(ask, early.address, "/"))[0] == 404
            await early.stop()
            await late.stop()

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(asyncio.wait_for(story(), PATIENCE_S))


def test_an_address_that_is_held_is_nobody_elses() -> None:
    with hold("127.0.0.1", 0) as held:
        host, port = host_and_port(address_of(held))
        for take in (lambda: bind(host, port, 0), lambda: hold(host, port), lambda: bind("0.0.0.0", port, 0)):
            with pytest.raises(OSError, match="Address already in use"):
                take()
        bind(host, port, 0, shared=True).close()
    bind(host, port, 0).close()


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_who_waits_to_be_accepted_when_a_listener_closes_is_answered(
    loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    async def story() -> None:
        listener = Listener(Starlette(), Settings(), bind("127.0.0.1", 0, 0))
        await listener.start()
        waiting = [socket.create_connection(host_and_port(listener.address)) for _ in range(100)]
        for client in waiting:
            client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        await listener.close()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(host_and_port(listener.address))
        for client in waiting:
            reader, writer = await asyncio.open_connection(sock=client)
            assert (await reader.read()).startswith(b"HTTP/1.1 404"), "a queue that is closed is reset"
            writer.close()
        await listener.stop()

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(asyncio.wait_for(story(), PATIENCE_S))


def test_of_those_who_wait_several_are_accepted_in_a_turn_of_the_loop() -> None:
    async def story() -> None:
        listener = Listener(Starlette(), Settings(), bind("127.0.0.1", 0, 0))
        await listener.start()
        connections = listener._server.server_state.connections
        clients = [socket.create_connection(host_and_port(listener.address)) for _ in range(3 * ACCEPTED_A_TURN)]
        counts = [0]
        while counts[-1] < len(clients):
            await asyncio.sleep(0)
            counts.append(len(connections))
        assert max(after - before for before, after in pairwise(counts)) == ACCEPTED_A_TURN
        for client in clients:
            client.close()
        await listener.stop()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(asyncio.wait_for(story(), PATIENCE_S))


@pytest.mark.parametrize("listen", ["9000", "localhost:", ":9000", "127.0.0.1:99999", "::1:9000", "unix:"])
def test_what_is_no_address_is_a_mistake_in_the_settings(listen: str) -> None:
    with pytest.raises(ValueError, match="expected host:port or unix:/path"):
        host_and_port(listen)


def test_addresses_of_all_kinds_are_read() -> None:
    assert host_and_port("127.0.0.1:9000") == ("127.0.0.1", 9000)
    assert host_and_port("[::1]:9000") == ("::1", 9000)
    assert host_and_port("unix:/run/chatd/admin.sock") == ("unix:/run/chatd/admin.sock", 0)
    assert (Server().socket_mode, Admin().listen) == (0o660, "")
