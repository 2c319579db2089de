"""A real systemd with the Debian package on it, and an operator's work there: start, reload, restart, upgrade, remove.

The tests share one boot and leave it as they found it. Where a machine cannot boot one they fail in CI.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import ssl
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from centrifuge import ClientDisconnectedError
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from chatd.cli import systemd
from tests.booted import Host, booted, missing, package
from tests.sdk import sdk_client, subscribed
from tests.test_cluster import said, until

PATIENCE_S = 15.0

CONFIGURATION = """\
[redis]
state_directory = "/var/lib/chatd"
[limits]
messages_per_second = 0
user_messages_per_second = 0
"""


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """A system on which the package has just been installed; nothing runs."""
    if lacking := missing():
        assert not os.environ.get("CI"), f"no systemd can be booted here, for want of {lacking}; in CI nothing may skip"
        pytest.skip(f"no systemd can be booted here, for want of {lacking}")
    with booted(package(tmp_path_factory.mktemp("deb"))) as host:
        host.run("dpkg", "-i", "/opt/chatd.deb")
        yield host


@pytest.fixture
def host(system: Host) -> Iterator[Host]:
    """The system with limits out of the tests' way; what a test starts or drops in is gone after it."""
    shipped = system.run("cat", "/etc/chatd/chatd.toml")
    system.write("/etc/chatd/chatd.toml", CONFIGURATION)
    with system.entered():
        yield system
    system.run("systemctl", "stop", "chatd.socket", check=None)
    system.run("systemctl", "stop", "chatd@*", "chatd.service", "chatd-store.service", "chatd.target", check=None)
    system.run("sh", "-c", "rm -rf /run/systemd/system/chatd*.d; systemctl daemon-reload; systemctl reset-failed")
    system.write("/etc/chatd/chatd.toml", shipped)


def drop_in(host: Host, unit: str, *lines: str) -> None:
    host.write(f"/run/systemd/system/{unit}.d/test.conf", "\n".join(("[Service]", *lines, "")))
    host.run("systemctl", "daemon-reload")


def door(port: int, user: str = "ana") -> str:
    return f"ws://127.0.0.1:{port}/chat/{user}?room=lobby"


# Building, booting and installing happen in the first test that asks for them.
boots = pytest.mark.timeout(240)


@boots
def test_installing_the_package_starts_nothing_and_all_that_it_names_is_there(system: Host) -> None:
    assert system.run("systemctl", "list-units", "--no-legend", "--state=active", "chatd*") == ""
    states = system.run("systemctl", "list-unit-files", "--no-legend", "chatd*")
    assert {line.split()[1] for line in states.splitlines()} == {"disabled", "static"}
    names = [line.split()[0].replace("@.", "@8001.") for line in states.splitlines()]
    assert sorted(names) == sorted(name.replace("@.", "@8001.") for name in systemd.units())
    said = system.tried("systemd-analyze", "verify", *names)
    assert said.stdout + said.stderr == "", "program and manuals are there"
    assert system.run("chatd", "config", "check") == "ok\n"


@boots
def test_every_command_and_the_settings_have_a_manual_that_reads_well(system: Host) -> None:
    pages = system.run("sh", "-c", "dpkg -L chatd | grep /man/man").split()
    names = {Path(page).name.removesuffix(".gz") for page in pages if page.endswith(".gz")}
    assert {"chatd.1", "chatd-serve.1", "chatd-room-show.1", "chatd-config-check.1", "chatd.toml.5"} <= names
    complaints = (
        'for page in $(dpkg -L chatd | grep "/man/.*gz"); do man --warnings -l -Tutf8 -Z $page >/dev/null; done'
    )
    assert system.tried("sh", "-c", complaints).stderr == ""
    manual = system.run("man", "-P", "cat", "chatd.toml")
    assert "messages_per_second = 5" in manual
    assert "[[auth.keys]]" in manual


@boots
def test_each_shell_reads_its_completion(system: Host) -> None:
    places = {
        "bash": "/usr/share/bash-completion/completions/chatd",
        "zsh": "/usr/share/zsh/vendor-completions/_chatd",
        "fish": "/usr/share/fish/vendor_completions.d/chatd.fish",
    }
    for shell, place in places.items():
        system.run(shell, "-n", place)
    offered = system.run("env", "_CHATD_COMPLETE=fish_complete", "COMP_WORDS=chatd st", "COMP_CWORD=st", "chatd")
    assert "status" in offered


@boots
async def test_an_instance_is_ready_talks_reloads_and_drains_with_exit_code_zero(host: Host) -> None:
    host.run("systemctl", "start", "chatd@8001")
    assert host.show("chatd@8001", "StatusText") == ["ready on 127.0.0.1:8001, 0 connections"]
    async with connect(door(8001, "ana")) as ana, connect(door(8001, "bob")) as bob:
        await ana.send("hello")
        assert await asyncio.wait_for(bob.recv(), PATIENCE_S) == "ana: hello"
        host.write("/etc/chatd/chatd.toml", CONFIGURATION + "connections = 2\n")
        host.run("systemctl", "reload", "chatd@8001")
        await until(lambda: "settings reloaded" in host.journal("CHATD_EVENT=settings reloaded"))
        await ana.send("hi")
        assert await asyncio.wait_for(bob.recv(), PATIENCE_S) == "ana: hi", "its socket has been kept"
        with pytest.raises(InvalidStatus, match="503"):
            await connect(door(8001, "joe"))
        await asyncio.to_thread(host.run, "systemctl", "stop", "chatd@8001")
        for client in (ana, bob):
            with pytest.raises(ConnectionClosed):
                await asyncio.wait_for(client.recv(), PATIENCE_S)
            assert client.close_code == 3001
    assert host.show("chatd@8001", "ActiveState", "Result", "ExecMainStatus") == ["inactive", "success", "0"]


@boots
async def test_the_journal_can_be_asked_by_what_happened_and_to_whom(host: Host) -> None:
    host.run("systemctl", "start", "chatd@8001")
    for user in ("eva", "joe"):
        async with connect(door(8001, user)):
            pass
    await until(lambda: host.journal("CHATD_EVENT=connection ended", "CHATD_USER=joe"))
    [ended] = host.journal("CHATD_EVENT=connection ended", "CHATD_USER=joe")
    assert "user=joe" in ended
    assert "code=1000" in ended
    assert host.journal("CHATD_EVENT=nothing of the kind") == []


@boots
async def test_a_process_that_hangs_is_killed_and_started_again(host: Host) -> None:
    drop_in(host, "chatd@8001.service", "WatchdogSec=2")
    host.run("systemctl", "start", "chatd@8001")
    process, fed = host.show("chatd@8001", "MainPID", "WatchdogTimestampMonotonic")
    await until(lambda: host.show("chatd@8001", "WatchdogTimestampMonotonic") != [fed])
    assert host.show("chatd@8001", "MainPID", "NRestarts") == [process, "0"], "while it turns, it says so"
    host.run("kill", "-STOP", process)
    await until(lambda: host.show("chatd@8001", "NRestarts", "ActiveState") == ["1", "active"])
    assert host.show("chatd@8001", "MainPID") != [process]
    assert any("Watchdog timeout" in line for line in host.journal("UNIT=chatd@8001.service"))
    assert any("Fatal Python error: Aborted" in line for line in host.journal("_PID=" + process)), (
        "it says where it hung"
    )
    async with connect(door(8001)) as ana:
        await ana.send("here again")


@boots
async def test_of_several_workers_only_the_one_that_hangs_is_started_again(host: Host) -> None:
    host.write("/etc/chatd/chatd.toml", CONFIGURATION + "[server]\nworkers = 2\n")
    drop_in(host, "chatd.service", "WatchdogSec=3")
    host.run("systemctl", "start", "chatd.socket", "chatd.service")
    all_ready = ["2 of 2 workers ready on 127.0.0.1:8000"]
    assert host.show("chatd.service", "StatusText") == all_ready
    supervisor = host.show("chatd.service", "MainPID")
    worker = host.run("pgrep", "-n", "-P", *supervisor).strip()
    host.run("kill", "-STOP", worker)
    await until(lambda: host.show("chatd.service", "StatusText") != all_ready)
    await until(lambda: host.show("chatd.service", "StatusText") == all_ready)
    assert host.show("chatd.service", "MainPID", "NRestarts", "ActiveState") == [*supervisor, "0", "active"]
    assert host.journal("CHATD_EVENT=hangs, and is aborted"), "by its supervisor"
    assert any("Fatal Python error: Aborted" in line for line in host.journal("_PID=" + worker))
    assert host.journal("CHATD_EVENT=ready", "CHATD_WORKER=1"), "a line says whose it is"
    assert await answers(8000)
    host.run("systemctl", "reload", "chatd.service")
    await until(lambda: len(host.journal("CHATD_EVENT=settings reloaded", "CHATD_WORKER=2")) == 1)
    await asyncio.to_thread(host.run, "systemctl", "stop", "chatd.socket", "chatd.service")
    assert host.show("chatd.service", "ActiveState", "Result", "ExecMainStatus") == ["inactive", "success", "0"]


@boots
def test_a_wrong_configuration_fails_once_and_says_why(host: Host) -> None:
    host.write("/etc/chatd/chatd.toml", "[server]\nprot = 8000\n")
    assert host.tried("systemctl", "start", "chatd.service").returncode != 0
    state = ["failed", "exit-code", "78", "0"]
    assert host.show("chatd.service", "ActiveState", "Result", "ExecMainStatus", "NRestarts") == state
    [sentence] = [line for line in host.journal("-u", "chatd.service", "SYSLOG_IDENTIFIER=chatd") if "prot" in line]
    assert sentence.startswith("chatd: /etc/chatd/chatd.toml:2: ")


@boots
async def test_a_drain_that_takes_longer_than_the_stops_time_is_waited_for(host: Host) -> None:
    drop_in(host, "chatd@8001.service", "TimeoutStopSec=1")
    host.run("systemctl", "start", "chatd@8001")
    async with deaf(8001):
        await until(lambda: host.show("chatd@8001", "StatusText") == ["ready on 127.0.0.1:8001, 1 connection"])
        await asyncio.to_thread(host.run, "systemctl", "stop", "chatd@8001")
    assert host.journal("CHATD_EVENT=drained", "CHATD_CONNECTIONS=1"), "it was given up on, after seconds"
    assert not host.journal("-u", "chatd@8001", "CHATD_EVENT=store_ended"), "its store has been there for the goodbyes"
    assert host.show("chatd@8001", "Result", "ExecMainStatus") == ["success", "0"]


@contextlib.asynccontextmanager
async def deaf(port: int) -> AsyncIterator[None]:
    """A client that answers nothing, not even a goodbye."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(
        b"GET /chat/deaf?room=lobby HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    assert b"101" in await asyncio.wait_for(reader.readline(), PATIENCE_S)
    try:
        yield
    finally:
        writer.close()


# The SDK leaves the sockets of attempts that a stopped node cut short to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@boots
async def test_restarting_two_instances_and_the_store_in_turn_loses_nothing_acknowledged(host: Host) -> None:
    host.run("systemctl", "start", "chatd-store", "chatd@8001", "chatd@8002")
    doors = [f"ws://127.0.0.1:{port}/connection/websocket" for port in (8001, 8002)]
    async with (
        sdk_client(doors[0], data={"user": "one"}) as (one, _),
        sdk_client(doors[1], data={"user": "two"}) as (two, _),
    ):
        heard = [(await subscribed(client, "lobby", recoverable=True))[1] for client in (one, two)]
        over = asyncio.Event()
        talking = [asyncio.create_task(talk(client, name, over)) for client, name in ((one, "one"), (two, "two"))]
        for unit in ("chatd@8001", "chatd@8002", "chatd-store"):
            await asyncio.to_thread(host.run, "systemctl", "restart", unit)
        over.set()
        acknowledged = {text for texts in await asyncio.gather(*talking) for text in texts}
        await said(one, "the last")
        for each in heard:
            texts = [(await each.next("publication")).pub.data["text"]]
            while texts[-1] != "the last":
                texts.append((await each.next("publication")).pub.data["text"])
            assert acknowledged <= set(texts)
            assert len(texts) == len(set(texts)), "none twice"
    for unit in ("chatd@8001", "chatd@8002", "chatd-store"):
        assert host.show(unit, "ActiveState", "NRestarts") == ["active", "0"]
    gc.collect()  # here, where such warnings are expected


async def talk(client: Any, name: str, over: asyncio.Event) -> list[str]:
    """Say one thing after the other until it is over; what was acknowledged."""
    texts: list[str] = []
    while not over.is_set():
        # Cut off amid it, we do not know whether it was heard, and say it again: its cid has it count once.
        with contextlib.suppress(ClientDisconnectedError):
            await said(client, f"{name} {len(texts)}")
            texts.append(f"{name} {len(texts)}")
        await asyncio.sleep(0.01)
    return texts


@boots
async def test_a_restart_behind_its_socket_refuses_no_connection(host: Host) -> None:
    host.run("systemctl", "start", "chatd.socket")
    assert await answers(8000), "the first one starts the service"
    restarting = asyncio.create_task(asyncio.to_thread(host.run, "systemctl", "restart", "chatd.service"))
    asked = 0
    while not restarting.done():
        assert await answers(8000)
        asked += 1
    await restarting
    assert asked > 1
    assert host.show("chatd.service", "ActiveState", "ExecMainStatus") == ["active", "0"]


async def answers(port: int) -> bool:
    """Whether who connects now is answered, however late."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    answer = await asyncio.wait_for(reader.read(), PATIENCE_S)
    writer.close()
    return answer.startswith(b"HTTP/1.1 200")


@boots
async def test_secrets_are_handed_over_from_where_root_alone_may_read(host: Host) -> None:
    host.run("install", "-d", "-m", "700", "/etc/credstore")
    store = ("-keyout", "/etc/credstore/chatd.tls-key", "-out", "/etc/credstore/chatd.tls-certificate")
    host.run(
        "openssl", "req", "-x509", "-nodes", "-newkey", "rsa:2048", "-days", "30", "-subj", "/CN=localhost", *store
    )
    host.run("sh", "-c", "openssl rand -base64 48 > /etc/credstore/chatd.jwt-secret; chmod 600 /etc/credstore/*")
    host.run("systemctl", "start", "chatd.service")
    token = host.run("env", "CREDENTIALS_DIRECTORY=/etc/credstore", "chatd", "token", "mint", "--user", "ana").strip()
    trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    url = door(8000).replace("ws:", "wss:")
    async with connect(url, ssl=trusting, additional_headers={"Authorization": f"Bearer {token}"}) as ana:
        await ana.send("hello")
    with pytest.raises(InvalidStatus, match="401"):
        await connect(url, ssl=trusting)
    host.run("rm", "-r", "/etc/credstore")


@boots
async def test_debians_nginx_takes_the_site_as_printed_and_its_group_reaches_instances_on_files(host: Host) -> None:
    drop_in(host, "chatd@.service", "Group=www-data", "Environment=CHATD_SERVER__HOST=unix:/run/chatd-%i/chatd.sock")
    host.run("systemctl", "start", "chatd-store", "chatd@8001", "chatd@8002")
    files = [f"unix:/run/chatd-{port}/chatd.sock" for port in (8001, 8002)]
    upstreams = [word for file in files for word in ("--upstream", file)]
    site = host.run("chatd", "nginx", "print", "--no-tls", "--server-name", "127.0.0.1", *upstreams)
    host.write("/etc/nginx/conf.d/chatd.conf", site)
    host.run("systemctl", "start", "nginx")
    async with connect(door(80, "ana"), local_addr=("127.0.0.9", 0)) as ana, connect(door(80, "bob")) as bob:
        await until(lambda: len(json.loads(host.run("chatd", "who", "lobby", "--json"))["connections"]) == 2)
        who = {each["user"]: each for each in json.loads(host.run("chatd", "who", "--json"))["connections"]}
        assert who["ana"]["ip"] == "127.0.0.9"
        assert who["ana"]["node"] != who["bob"]["node"]
        await ana.send("hello")
        assert await asyncio.wait_for(bob.recv(), PATIENCE_S) == "ana: hello"
    host.run("systemctl", "stop", "nginx")
    host.run("rm", "/etc/nginx/conf.d/chatd.conf")


@boots
def test_a_socket_for_everybody_is_refused_in_open_mode(host: Host) -> None:
    host.write("/run/systemd/system/chatd.socket.d/test.conf", "[Socket]\nListenStream=\nListenStream=0.0.0.0:8000\n")
    host.run("systemctl", "daemon-reload")
    host.run("systemctl", "start", "chatd.socket")
    assert host.tried("systemctl", "start", "chatd.service").returncode != 0
    assert host.show("chatd.service", "ExecMainStatus") == ["78"]


@boots
async def test_units_are_put_in_place_and_taken_away_by_the_command(host: Host) -> None:
    planned = host.run("chatd", "systemd", "install", "--instances", "8001,8002", "--dry-run").splitlines()
    assert not host.run("sh", "-c", "ls /etc/systemd/system | grep chatd", check=None)
    assert host.run("chatd", "systemd", "install", "--instances", "8001,8002").splitlines() == planned
    assert "write /etc/systemd/system/chatd-store.service" in planned
    assert not any("/etc/chatd" in step for step in planned), "a configuration that is there stays as it is"
    host.run("systemctl", "start", "chatd.target")
    for port in (8001, 8002):
        async with connect(door(port)) as ana:
            await ana.send("hello")
    host.run("systemctl", "stop", "chatd.target")
    await until(lambda: running(host) == [])
    host.run("systemctl", "start", "chatd.target")
    assert running(host) == ["chatd-store.service", "chatd@8001.service", "chatd@8002.service"]
    host.run("chatd", "systemd", "uninstall")
    assert not host.run("sh", "-c", "find /etc/systemd/system | grep chatd | grep -v target.wants$", check=None)
    assert running(host) == []


def running(host: Host) -> list[str]:
    """The services that run."""
    lines = host.run("systemctl", "list-units", "--plain", "--no-legend", "--state=active", "chatd*.service")
    return [line.split()[0] for line in lines.splitlines()]


@boots
async def test_the_target_stops_what_was_started_without_it(host: Host) -> None:
    host.run("systemctl", "start", "chatd.service")
    host.run("systemctl", "stop", "chatd.target")
    await until(lambda: running(host) == [])


@boots
def test_units_can_be_put_into_a_system_that_does_not_run(host: Host) -> None:
    host.run("chatd", "systemd", "install", "--prefix", "/opt/image")
    wants = "/opt/image/etc/systemd/system/multi-user.target.wants"
    assert host.run("ls", wants).split() == ["chatd.service", "chatd.target"]
    assert "state_directory" in host.run("cat", "/opt/image/etc/chatd/chatd.toml")
    host.run("chatd", "systemd", "uninstall", "--prefix", "/opt/image")
    assert host.run("find", "/opt/image/etc/systemd", "-name", "chatd*", "!", "-type", "d") == ""


@boots
def test_purging_the_package_stops_what_runs_and_leaves_nothing(host: Host) -> None:
    host.run("systemctl", "enable", "--now", "chatd-store", "chatd@8001")
    host.run("dpkg", "-i", "/opt/chatd.deb")
    assert host.show("chatd@8001", "ActiveState") == ["active"], "an upgrade brings back what ran"
    host.run("dpkg", "-P", "chatd")
    try:
        assert host.run("systemctl", "list-units", "--no-legend", "--all", "chatd*.service") == ""
        left = "ls -d /opt/chatd /etc/chatd /var/lib/chatd /var/lib/private/chatd /usr/bin/chatd"
        assert host.run("sh", "-c", f"{left} /etc/systemd/system/*/chatd* 2>/dev/null", check=None) == ""
    finally:
        host.run("dpkg", "-i", "/opt/chatd.deb")
