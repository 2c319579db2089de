"""Several nodes behind one address, as real processes: people are spread, who dies comes back, all end as one."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AsyncExitStack, closing
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import connect, unix_connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from chatd.cli.supervisor import Child, Supervisor
from chatd.cli.workers import Place, environment
from chatd.settings import Settings, SettingsError, load, numbered
from tests.conftest import Daemon, running
from tests.people import KEYS
from tests.servers import free_port
from tests.test_cluster import FAST, until
from tests.test_doors import PATIENCE_S, Raw
from tests.test_listeners import ask

# All of so many connections are at one of two nodes once in two thousand million times.
ENOUGH = 32
TWO = ("--port", "0", "--workers", "2")
ADMINS = re.compile(r"health and metrics +(?:http://)?(\S+?)/? to (?:http://)?(\S+?)/?, one for each worker")
BROKEN_KEY = '[[auth.keys]]\nkid = "main"\nalgorithm = "ES256"\npublic_key_file = "key.pem"\n'


@pytest.fixture(scope="module")
def chatd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """Two workers; every test leaves it with both at work."""
    directory = tmp_path_factory.mktemp("workers")
    (directory / "chatd.toml").write_text("[limits]\nconnections = 1000\n")
    environ = {**FAST, "CHATD_SERVER__WORKERS": "2", "CHATD_ADMIN__LISTEN": f"127.0.0.1:{two_free_ports()}"}
    with running(directory, "--config", str(directory / "chatd.toml"), "--port", "0", **environ) as daemon:
        yield daemon


def two_free_ports() -> int:
    """The first of two ports that are free, one after the other."""
    while True:
        port = free_port()
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port + 1))
            except OSError:
                continue
            return port


def nodes(chatd: Daemon) -> list[dict[str, Any]]:
    """The nodes that answer, as `chatd status` has them, by name."""
    found = json.loads(chatd.cli("status", "--json", check=None))["nodes"]
    return sorted((node for node in found if "name" in node), key=lambda node: str(node["name"]))


def connections(chatd: Daemon) -> list[int]:
    """How many are at each worker, as it says itself; -1: it does not."""
    return [connections_at(address) for address in chatd.until_log(ADMINS.pattern).groups()]


def connections_at(admin: str) -> int:
    try:
        found = re.search(r"^chatd_connections (\S+)", ask(admin, "/metrics")[1], re.M)
    except ConnectionRefusedError:
        return -1
    assert found
    return int(float(found[1]))


def process_of(chatd: Daemon, which: str) -> int:
    """The latest process that was started for "worker 1", or the "store"."""
    started = [json.loads(line) for line in chatd.log if '"event": "started"' in line]
    return int([line["process"] for line in started if line["which"] == which][-1])


def lives(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def test_all_who_come_are_spread_over_the_workers_and_are_in_the_same_rooms(chatd: Daemon) -> None:
    async with AsyncExitStack() as stack:
        people = [await stack.enter_async_context(connect(f"{chatd.ws}/chat/u{n}?room=tea")) for n in range(ENOUGH)]
        await until(lambda: sum(connections(chatd)) == ENOUGH)
        assert all(connections(chatd))
        assert [node["connections"] for node in nodes(chatd)] == connections(chatd)
        await until(lambda: len(chatd.ask("who", "tea")["connections"]) == ENOUGH)
        await people[0].send("hello")
        for each in people[1:]:
            assert await asyncio.wait_for(each.recv(), PATIENCE_S) == "u0: hello"
    await until(lambda: connections(chatd) == [0, 0])


def test_each_worker_is_a_node_with_a_name_and_an_admin_listener_of_its_own(chatd: Daemon) -> None:
    first, second = nodes(chatd)
    assert first["address"] == second["address"] == chatd.address
    assert first["id"] != second["id"]
    assert [first["name"], second["name"]] == [f"{socket.gethostname()}/1", f"{socket.gethostname()}/2"]
    admins = chatd.until_log(ADMINS.pattern).groups()
    assert [ask(address, "/readyz")[0] for address in admins] == [200, 200]
    checks = {check["name"]: check["finding"] for check in chatd.ask("doctor")["checks"]}
    found = [checks["admin port"], checks["admin port of worker 2"]]
    assert found == [f"chatd answers at {address} and is ready" for address in admins]
    assert chatd.cli("drain", "nobody", check=4) == "", "the address names both"


@pytest.mark.parametrize("workers", ["1", "2"])
def test_an_address_that_workers_have_is_refused_to_another_chatd(chatd: Daemon, workers: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "chatd", "serve", "--port", str(chatd.port), "--workers", workers],
        env={**chatd.environ, "CHATD_ADMIN__LISTEN": ""},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert done.returncode == 1
    assert f"cannot listen on 127.0.0.1 port {chatd.port}: Address already in use" in done.stderr
    assert "change server.host and server.port" in done.stderr
    assert "started" not in done.stderr


async def test_a_worker_that_is_drained_gets_nobody_while_the_other_takes_all(chatd: Daemon) -> None:
    name = f"{socket.gethostname()}/1"
    await asyncio.to_thread(chatd.cli, "drain", name)
    async with AsyncExitStack() as stack:
        for n in range(8):
            await stack.enter_async_context(connect(f"{chatd.ws}/chat/u{n}?room=tea"))
        await until(lambda: connections(chatd) == [0, 8])
    await asyncio.to_thread(chatd.cli, "undrain", name)
    async with AsyncExitStack() as stack:
        for n in range(ENOUGH):
            await stack.enter_async_context(connect(f"{chatd.ws}/chat/u{n}?room=tea"))
        await until(lambda: all(connections(chatd)))


def test_a_reload_reaches_every_worker_and_a_wrong_one_none(chatd: Daemon) -> None:
    config = chatd.directory / "chatd.toml"
    config.write_text("[limits]\nconnections = 2000\n")
    chatd.signal(signal.SIGHUP)
    chatd.until_log('settings reloaded.*"worker": 1')
    chatd.until_log('settings reloaded.*"worker": 2')
    assert [node["connections_max"] for node in nodes(chatd)] == [2000, 2000]
    config.write_text("[limits]\nconections = 3000\n")
    chatd.signal(signal.SIGHUP)
    chatd.until_log("limits.conections.*not reloaded")
    config.write_text("[limits]\nconnections = 2000\n")
    assert [node["connections_max"] for node in nodes(chatd)] == [2000, 2000]
    assert len([line for line in chatd.log if "not reloaded" in line]) == 1, "it is said once"


async def test_a_worker_that_is_killed_comes_back_and_takes_nobody_of_the_others_along(chatd: Daemon) -> None:
    before = nodes(chatd)
    async with AsyncExitStack() as stack:
        people = [await stack.enter_async_context(Raw(chatd)) for _ in range(ENOUGH)]
        there = connections(chatd)
        os.kill(process_of(chatd, "worker 1"), signal.SIGKILL)
        await asyncio.to_thread(chatd.until_log, '"which": "worker 1".*"status": "SIGKILL", "pause_s"')
        await until(lambda: connections(chatd) == [0, there[1]])
        stayed = 0
        for each in people:
            try:
                stayed += "presence" in await each.ask({"presence": {"channel": "tea"}})
            except ConnectionClosed:
                continue
        assert stayed == there[1]
    await until(lambda: len(json.loads(chatd.cli("status", "--json", check=None))["nodes"]) == 2)
    assert [node["id"] == there["id"] for node, there in zip(nodes(chatd), before, strict=True)] == [False, True]


async def test_a_worker_started_again_without_the_last_key_lets_in_nobody_as_the_others(tmp_path: Path) -> None:
    config = tmp_path / "chatd.toml"
    config.write_text(KEYS)
    with running(tmp_path, "--config", str(config), *TWO, **FAST) as chatd:
        config.write_text("")
        chatd.signal(signal.SIGHUP)
        for worker in (1, 2):
            await asyncio.to_thread(chatd.until_log, f'settings reloaded.*"worker": {worker}')
        for worker in (1, 2):
            os.kill(process_of(chatd, f"worker {worker}"), signal.SIGKILL)
        await until(lambda: [times_ready(chatd, worker) for worker in (1, 2)] == [2, 2])
        with pytest.raises(InvalidStatus, match="401"):
            await connect(f"{chatd.ws}/chat/ana?room=tea")


def times_ready(chatd: Daemon, worker: int) -> int:
    return len([line for line in chatd.log if '"ready"' in line and f'"worker": {worker}' in line])


async def test_systemd_hears_from_the_supervisor_what_is_true_of_all(tmp_path: Path) -> None:
    with closing(Manager(tmp_path)) as manager, running(tmp_path, *TWO, NOTIFY_SOCKET=manager.path) as chatd:
        await asyncio.to_thread(manager.hears, "READY=1", f"STATUS=2 of 2 workers ready on {chatd.address}")
        assert not any("READY=1" in words for words in manager.heard[:-1]), "not before all are"
        await asyncio.to_thread(manager.hears, "WATCHDOG=1")
        chatd.signal(signal.SIGHUP)
        await asyncio.to_thread(manager.hears, "RELOADING=1")
        await asyncio.to_thread(manager.hears, "READY=1")
        async with Raw(chatd) as ana:
            stopping = asyncio.create_task(asyncio.to_thread(chatd.stop))
            await asyncio.to_thread(manager.hears, "STOPPING=1", "EXTEND_TIMEOUT_USEC=15000000")
            assert await ana.goodbye() == (3001, "shutdown")
        assert await stopping == 0
        assert len([line for line in chatd.log if '"stopped"' in line]) == 2
        assert not any("store_ended" in line or '"error"' in line for line in chatd.log)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", chatd.port))


async def test_systemd_hears_that_a_worker_is_away_however_soon_it_is_back(tmp_path: Path) -> None:
    with closing(Manager(tmp_path)) as manager, running(tmp_path, *TWO, NOTIFY_SOCKET=manager.path) as chatd:
        await asyncio.to_thread(manager.hears, "READY=1")
        await asyncio.to_thread(manager.hears, "WATCHDOG=1")
        os.kill(process_of(chatd, "worker 1"), signal.SIGKILL)
        await asyncio.to_thread(manager.hears, f"STATUS=1 of 2 workers ready on {chatd.address}")
        await asyncio.to_thread(manager.hears, f"STATUS=2 of 2 workers ready on {chatd.address}")


class Manager:
    """systemd's end of NOTIFY_SOCKET."""

    def __init__(self, directory: Path) -> None:
        self.path = str(directory / "notify")
        self.heard: list[set[str]] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self.path)
        self._socket.settimeout(PATIENCE_S)

    def hears(self, *words: str) -> None:
        """Wait until somebody says all of `words` at once."""
        while True:
            self.heard.append(set(self._socket.recv(4096).decode().splitlines()))
            if self.heard[-1].issuperset(words):
                return

    def close(self) -> None:
        self._socket.close()


def test_workers_that_are_stopped_do_not_keep_their_supervisor_from_its_end(tmp_path: Path) -> None:
    with running(tmp_path, "--port", "0", "--workers", "2") as chatd:
        os.kill(process_of(chatd, "worker 2"), signal.SIGSTOP)
        os.kill(process_of(chatd, "store"), signal.SIGSTOP)
        assert chatd.stop() == 0


async def test_a_worker_that_hangs_is_aborted_and_a_supervisor_that_is_killed_leaves_nobody(tmp_path: Path) -> None:
    # As systemd has it from WatchdogSec=: after so many microseconds of silence.
    with running(tmp_path, *TWO, **FAST, WATCHDOG_USEC="3000000") as chatd:
        hanging = process_of(chatd, "worker 2")
        os.kill(hanging, signal.SIGSTOP)
        await asyncio.to_thread(chatd.until_log, '"which": "worker 2".*hangs, and is aborted')
        await asyncio.to_thread(chatd.until_log, "Fatal Python error: Aborted")
        await asyncio.to_thread(chatd.until_log, '"which": "worker 2".*"status": "SIGABRT"')
        await until(lambda: process_of(chatd, "worker 2") != hanging and len(nodes(chatd)) == 2)
        processes = [process_of(chatd, which) for which in ("store", "worker 1", "worker 2")]
        assert all(map(lives, processes))
        chatd.kill()
        try:
            await until(lambda: not any(map(lives, processes)))
        finally:
            for process in filter(lives, processes):
                os.kill(process, signal.SIGKILL)


async def test_workers_on_a_file_take_turns_at_one_queue(tmp_path: Path) -> None:
    door = tmp_path / "chatd.sock"
    listens = {"CHATD_SERVER__HOST": f"unix:{door}", "CHATD_ADMIN__LISTEN": f"unix:{tmp_path}/admin.sock"}
    chatd = Daemon(tmp_path, "--workers", "2", **listens)
    try:
        await asyncio.to_thread(chatd.until_log, "chatd listens on unix:")
        async with AsyncExitStack() as stack:
            for n in range(2 * ENOUGH):
                await stack.enter_async_context(unix_connect(str(door), f"ws://chat/chat/u{n}?room=tea"))
            await until(lambda: sum(connections(chatd)) == 2 * ENOUGH)
            there = connections(chatd)
            assert all(there)
            first = f"{socket.gethostname()}/1"
            await asyncio.to_thread(chatd.cli, "drain", first)
            for n in range(8):
                await stack.enter_async_context(unix_connect(str(door), f"ws://chat/chat/v{n}?room=tea"))
            assert connections(chatd) == [0, there[1] + 8]
            await asyncio.to_thread(chatd.cli, "undrain", first)
        os.killpg(chatd.process.pid, signal.SIGINT)  # as Ctrl-C in a terminal does
        assert chatd.process.wait(PATIENCE_S) == 0
    finally:
        chatd.close()
    assert not list(tmp_path.glob("*.sock*"))


def test_what_all_workers_would_fail_at_is_said_once_and_ends_them(tmp_path: Path) -> None:
    (tmp_path / "key.pem").write_text("no key at all")
    (tmp_path / "chatd.toml").write_text(BROKEN_KEY)
    chatd = Daemon(tmp_path, "--config", str(tmp_path / "chatd.toml"), *TWO)
    assert chatd.process.wait(PATIENCE_S) == 78
    chatd.close()
    assert len([line for line in chatd.log if line.startswith("chatd: ")]) == 1
    assert "worker 2" not in "".join(chatd.log)


def test_workers_that_are_all_dead_and_cannot_be_started_again_end_it(tmp_path: Path) -> None:
    config = tmp_path / "chatd.toml"
    config.write_text("[limits]\nconnections = 1000\n")
    with running(tmp_path, "--config", str(config), *TWO) as chatd:
        config.write_text("[limits]\nconections = 1000\n")
        for which in ("worker 1", "worker 2"):
            os.kill(process_of(chatd, which), signal.SIGKILL)
        assert chatd.process.wait(PATIENCE_S) == 78
        assert not lives(process_of(chatd, "store"))


def test_a_second_signal_ends_it_without_a_drain(tmp_path: Path) -> None:
    with (
        running(tmp_path, *TWO, CHATD_SERVER__DRAIN="10m") as chatd,
        socket.create_connection(("127.0.0.1", chatd.port)) as client,
    ):
        client.sendall(
            b"GET /chat/deaf?room=lobby HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        assert b"101" in client.recv(4096)
        chatd.signal(signal.SIGTERM)
        chatd.until_log('"draining"')
        chatd.signal(signal.SIGTERM)
        assert chatd.process.wait(PATIENCE_S) == 1


# --- deciding ---------------------------------------------------------------------------------------------------------


def test_what_a_worker_finds_says_which_it_is_and_nothing_of_systemds() -> None:
    settings = load(None, {"CHATD_ADMIN__LISTEN": "127.0.0.1:9000", "CHATD_CLUSTER__NAME": "tea"})
    around = {"NOTIFY_SOCKET": "/run/systemd/notify", "LISTEN_FDS": "1", "WATCHDOG_USEC": "1", "PATH": "/bin"}
    found = environment(Place(7, 2, -1, "open", "[::1]:8000"), settings, "@inbox", around)
    assert found == {
        "PATH": "/bin",
        "NOTIFY_SOCKET": "@inbox",
        "CHATD_WORKER": "7 2 -1 open [::1]:8000",
        "CHATD_CLUSTER__NAME": "tea/2",
        "CHATD_ADMIN__LISTEN": "127.0.0.1:9001",
    }
    assert "CHATD_ADMIN__LISTEN" not in environment(Place(7, 0, -1, "open", "[::1]:8000"), Settings(), "@inbox", around)


def test_admin_listeners_are_counted_from_the_one_that_is_named() -> None:
    assert [numbered("[::1]:9000", number) for number in (1, 3)] == ["[::1]:9000", "[::1]:9002"]
    assert [numbered("unix:/run/a.sock", number) for number in (1, 2)] == ["unix:/run/a.sock", "unix:/run/a.sock.2"]


@pytest.mark.parametrize("port", [0, 65_534])
def test_ports_that_several_admin_listeners_cannot_have_are_a_mistake(port: int) -> None:
    environ = {"CHATD_SERVER__WORKERS": "3", "CHATD_ADMIN__LISTEN": f"127.0.0.1:{port}"}
    with pytest.raises(SettingsError, match=re.escape("name one from 1 to 65533")):
        load(None, environ)
    load(None, environ | {"CHATD_SERVER__WORKERS": "1"})


def test_only_one_that_is_at_work_can_hang() -> None:
    child = Child(1)
    child.state = "starting"
    assert not child.hangs(100.0, 20.0), "a store may load for long"
    child.hear({"READY=1"}, 100.0)
    assert not child.hangs(120.0, 20.0)
    assert child.hangs(120.1, 20.0)
    child.hear({"WATCHDOG=1", "STATUS=ready"}, 120.1)
    assert not child.hangs(140.0, 20.0)
    child.hear({"STOPPING=1"}, 140.0)
    assert not child.hangs(200.0, 20.0)


class Process:
    """Of a child: which signals it was sent."""

    pid = 7

    def __init__(self) -> None:
        self.sent: list[int] = []
        self.ended: int | None = None

    def send_signal(self, number: int) -> None:
        self.sent.append(number)

    def poll(self) -> int | None:
        return self.ended


@pytest.fixture
def supervisor() -> Iterator[Supervisor]:
    """Of one worker, which has just been started."""
    made = Supervisor(
        1,
        store=False,
        start=lambda number, inbox: Process(),  # type: ignore[arg-type, return-value]
        may_reload=lambda: True,
        on_ready=lambda: None,
        address="[::1]:8000",
    )
    made._tend(0.0)
    yield made
    made._inbox._socket.close()


def test_a_worker_that_is_told_to_reload_while_it_starts_is_told_when_it_can_hear(supervisor: Supervisor) -> None:
    process: Any = supervisor.workers[0].process
    supervisor._obey(signal.SIGHUP)
    assert process.sent == [], "it would end by it"
    supervisor._hear(Process.pid, {"READY=1"}, 1.0)
    assert process.sent == [signal.SIGHUP]
    supervisor._hear(Process.pid, {"READY=1"}, 2.0)
    assert process.sent == [signal.SIGHUP], "once"


def test_systemd_hears_that_a_long_drain_goes_on(supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr("chatd.cli.notify.tell", lambda *words: told.extend(words))
    supervisor._hear(Process.pid, {"READY=1"}, 1.0)
    supervisor._obey(signal.SIGTERM)
    told.clear()
    supervisor._hear(Process.pid, {"STOPPING=1", "EXTEND_TIMEOUT_USEC=15000000"}, 2.0)
    assert told == ["STOPPING=1", "EXTEND_TIMEOUT_USEC=15000000"]


def test_who_was_held_up_himself_takes_nobody_for_one_that_hangs(supervisor: Supervisor) -> None:
    process: Any = supervisor.workers[0].process
    supervisor._hear(Process.pid, {"READY=1"}, 1.0)
    supervisor._tend(1.0)
    for now in range(500, 520):
        supervisor._tend(float(now))
    assert process.sent == []
    supervisor._tend(521.0)
    assert process.sent == [signal.SIGABRT, signal.SIGCONT], "one that is stopped would not end"


@pytest.mark.parametrize(
    ("news", "status", "code"),
    [("READY=1", 0, 0), ("READY=1", 1, 1), ("READY=1", -signal.SIGKILL, 1), ("", -signal.SIGTERM, 0), ("", 1, 1)],
)
def test_the_end_is_as_good_as_the_workers(supervisor: Supervisor, news: str, status: int, code: int) -> None:
    process: Any = supervisor.workers[0].process
    supervisor._hear(Process.pid, {news}, 1.0)
    supervisor._obey(signal.SIGTERM)
    process.ended = status
    supervisor._reap(2.0)
    assert supervisor.code == code
