"""The feed on real servers that are hurt while it runs: nothing said is lost or doubled, and the order stays.

A Reader is what a node is to the feed: it watches rooms and takes in deliveries. Each test hurts servers of its own.
"""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import AuthenticationError, NoPermissionError, RedisClusterException, RedisError, ResponseError
from redis.exceptions import ConnectionError as NoConnection

from chatd.model import Delivery, Event, Kind, Lost, Position
from chatd.store.errors import StoreError, StoreFull, StoreMisconfigured, StoreUnavailable, translated
from chatd.store.feed import SILENT_S, Feed, parse
from chatd.store.keys import Keys
from chatd.store.line import Line
from chatd.store.messages import Keep
from chatd.store.redis import Store
from tests.servers import Server, redis_cluster_servers, redis_sentinel, redis_server
from tests.servers import running as servers_running
from tests.servers import server as another_server

PATIENCE_S = 20.0
# What a node waits for a reply; short here, so that a server that hangs is given up soon.
TIMEOUT_S = 0.3
KEEP = Keep(10_000, 0)
MESSAGES = 1000
ROOM = "lobby"
LOG = "appendonlydir"


class Reader:
    """A store with its feed running, and what the feed gave out: publications by room, and losses."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.said: dict[str, list[int]] = {}
        self.lost: list[Delivery] = []
        self.changed = asyncio.Event()
        store.feed.on_deliveries = self.take_in

    def take_in(self, deliveries: Sequence[Delivery]) -> None:
        for delivery in deliveries:
            if delivery.lost is not None:
                self.lost.append(delivery)
            self.said.setdefault(delivery.room, []).extend(number(event) for event in delivery.events)
        self.changed.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not condition():
                self.changed.clear()
                await self.changed.wait()

    async def until_heard(self, count: int, room: str = ROOM) -> list[int]:
        """The numbers said in `room`, once there are `count` of them."""
        await self.until(lambda: len(self.said.get(room, ())) >= count)
        return self.said[room]


def number(event: Event) -> int:
    found = json.loads(event.body)["data"]
    assert isinstance(found, int)
    return found


def opened(url: str) -> Store:
    return Store(url, prefix="test", timeout=TIMEOUT_S)


@asynccontextmanager
async def reading(url: str, *rooms: str) -> AsyncIterator[Reader]:
    async with opened(url) as store:
        reader = Reader(store)
        feed = asyncio.create_task(store.feed.run())
        try:
            for room in rooms:
                await store.feed.watch(room, history=True)
            yield reader
        finally:
            feed.cancel()
            (ended,) = await asyncio.gather(feed, return_exceptions=True)
            assert isinstance(ended, asyncio.CancelledError), ended


async def say(store: Store, first: int, last: int, room: str = ROOM) -> None:
    """Say the numbers `first` to `last`, each until it is acknowledged, as a client with cids does."""
    for n in range(first, last + 1):
        await insist(partial(store.messages.publish, room, b'{"data":%d' % n, KEEP, ("ana", str(n))))


async def insist(attempt: Callable[[], Awaitable[Any]]) -> Any:
    async with asyncio.timeout(PATIENCE_S):
        while True:
            try:
                return await attempt()
            except StoreUnavailable:
                await asyncio.sleep(0.02)


async def subscribers(server: Server, channel: str) -> int:
    _, count = await ask(server, "PUBSUB", "SHARDNUMSUB", channel)
    return int(count)


async def ask(server: Server, *words: str | int | bytes) -> Any:
    """A command's reply from `server` itself, past the store."""
    async with Redis(port=server.port) as redis:
        untyped: Any = redis
        return await untyped.execute_command(*words)


async def cut_feeds(server: Server) -> None:
    """Cut every connection that subscribes."""
    await ask(server, "CLIENT", "KILL", "TYPE", "pubsub")


def upto(last: int) -> list[int]:
    return list(range(1, last + 1))


# --- in peace ---------------------------------------------------------------------------------------------------------


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    async with redis_server(tmp_path) as one:
        yield one


@pytest.fixture
async def speaker(server: Server) -> AsyncIterator[Store]:
    async with opened(server.url) as store:
        yield store


async def test_a_watch_begins_at_the_top_and_brings_everything_after_it(server: Server, speaker: Store) -> None:
    await say(speaker, 1, 3)
    async with reading(server.url) as reader:
        position = await reader.store.feed.watch(ROOM, history=True)
        assert position is not None
        assert position.offset == 3
        await say(speaker, 4, 6)
        assert await reader.until_heard(3) == [4, 5, 6]
        assert reader.store.feed.position(ROOM) == Position(position.epoch, 6)


async def test_nothing_is_missed_however_a_watch_and_messages_meet(server: Server, speaker: Store) -> None:
    async with reading(server.url) as reader:
        talking = asyncio.create_task(say(speaker, 1, 300))
        for _ in range(20):
            await reader.store.feed.watch(ROOM, history=True)
            already = len(reader.said.get(ROOM, ()))
            await reader.until_heard(already + 1)
            reader.store.feed.unwatch(ROOM)
        await reader.store.feed.watch(ROOM, history=True)
        await talking
        await reader.until(lambda: reader.said[ROOM][-1] == 300)
    heard = reader.said[ROOM]
    assert heard == sorted(set(heard))
    assert not reader.lost


async def test_the_second_watch_of_a_room_is_free_and_the_last_unwatch_ends_it(server: Server, speaker: Store) -> None:
    async with reading(server.url, ROOM, ROOM) as reader:
        reader.store.feed.unwatch(ROOM)
        await say(speaker, 1, 1)
        assert await reader.until_heard(1) == [1]
        reader.store.feed.unwatch(ROOM)
        assert reader.store.feed.position(ROOM) is None
        reader.store.feed.unwatch(ROOM)
        await until_subscribers(server, speaker.keys.feed(ROOM), 0)


async def test_who_waits_for_a_watch_when_the_feed_ends_is_told_so_and_so_is_who_comes_later(server: Server) -> None:
    """A node that stops while its store hangs waits for its errands, of which somebody's entering a room is one."""
    async with reading(server.url) as reader:
        server.pause()
        waiting = [asyncio.create_task(reader.store.feed.watch(ROOM, history=True)) for _ in range(2)]
        await asyncio.sleep(0)
    try:
        async with asyncio.timeout(PATIENCE_S):
            for outcome in await asyncio.gather(*waiting, return_exceptions=True):
                assert isinstance(outcome, StoreUnavailable)
            with pytest.raises(StoreUnavailable, match="left"):
                await reader.store.feed.watch("kitchen", history=True)
    finally:
        server.resume()


async def test_whoever_gives_up_waiting_for_a_watch_ends_it_for_nobody_else(server: Server, speaker: Store) -> None:
    async with reading(server.url) as reader:
        waiting = [asyncio.create_task(reader.store.feed.watch(ROOM, history=True)) for _ in range(3)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        first, second = await asyncio.gather(*waiting[1:])
        assert first == second
        await say(speaker, 1, 1)
        assert await reader.until_heard(1) == [1]
        reader.store.feed.unwatch(ROOM)
        reader.store.feed.unwatch(ROOM)
        assert reader.store.feed.position(ROOM) is None


async def until_subscribers(server: Server, channel: str, count: int) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while (await ask(server, "PUBSUB", "SHARDNUMSUB", channel))[1] != count:
            await asyncio.sleep(0.01)


# --- hurt -------------------------------------------------------------------------------------------------------------


async def test_a_connection_cut_again_and_again_loses_nothing_and_keeps_the_order(
    server: Server, speaker: Store
) -> None:
    async with reading(server.url, ROOM, "kitchen") as reader:
        talking = asyncio.create_task(say(speaker, 1, MESSAGES))
        for share in range(1, 10):
            await reader.until_heard(share * MESSAGES // 10)
            await cut_feeds(server)
        await talking
        assert await reader.until_heard(MESSAGES) == upto(MESSAGES)
        await say(speaker, 1, 1, "kitchen")
        assert await reader.until_heard(1, "kitchen") == [1]
        assert not reader.lost


async def test_a_line_that_cannot_be_remade_for_whatever_reason_is_tried_again(
    server: Server, speaker: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """redis-py's errors share no base, and uvloop's of a transport that was reset a moment ago is none of them."""
    async with reading(server.url, ROOM) as reader:
        servers = reader.store._servers
        dial, failures = servers.dial, [RuntimeError("unable to perform operation"), RedisClusterException("no slots")]

        async def dial_at_last(name: str) -> AbstractConnection:
            if failures:
                raise failures.pop()
            return await dial(name)

        monkeypatch.setattr(servers, "dial", dial_at_last)
        await cut_feeds(server)
        await say(speaker, 1, 3)
        assert await reader.until_heard(3) == upto(3)
        assert not failures


async def test_a_server_killed_and_started_again_loses_nothing_acknowledged(tmp_path: Path) -> None:
    async with redis_server(tmp_path) as server, opened(server.url) as speaker, reading(server.url, ROOM) as reader:
        # Else what was acknowledged may wait for a busy disk, up to 2 s, and dies with the server.
        await ask(server, "CONFIG", "SET", "appendfsync", "always")
        talking = asyncio.create_task(say(speaker, 1, MESSAGES))
        await reader.until_heard(MESSAGES // 2)
        server.kill()
        await server.start()
        await talking
        assert await reader.until_heard(MESSAGES) == upto(MESSAGES)
        assert not reader.lost


async def test_a_server_that_hangs_for_longer_than_our_patience_loses_nothing(server: Server, speaker: Store) -> None:
    async with reading(server.url, ROOM) as reader:
        talking = asyncio.create_task(say(speaker, 1, MESSAGES))
        await reader.until_heard(MESSAGES // 2)
        server.pause()
        with pytest.raises(StoreUnavailable):
            await reader.store.ping()
        with pytest.raises(StoreUnavailable):
            await reader.store.feed.watch("kitchen", history=True)
        server.resume()
        await talking
        assert await reader.until_heard(MESSAGES) == upto(MESSAGES)
        assert reader.store.feed.position("kitchen") is None
        assert not reader.lost


async def test_all_who_wait_for_a_watch_that_is_not_confirmed_are_told_and_may_try_again(
    server: Server, speaker: Store
) -> None:
    async with reading(server.url) as reader:
        server.pause()
        waiting = [asyncio.create_task(reader.store.feed.watch(ROOM, history=True)) for _ in range(3)]
        for outcome in await asyncio.gather(*waiting, return_exceptions=True):
            assert isinstance(outcome, StoreUnavailable)
        server.resume()
        await say(speaker, 1, 1)
        position = await insist(partial(reader.store.feed.watch, ROOM, history=True))
        await say(speaker, 2, 2)
        assert position.offset == 1
        assert await reader.until_heard(1) == [2]


async def test_a_server_that_forgot_all_scripts_is_told_them_again(server: Server, speaker: Store) -> None:
    async with reading(server.url, ROOM) as reader:
        for n in range(1, 20):
            await ask(server, "SCRIPT", "FLUSH", "SYNC")
            await say(speaker, n, n)
        assert await reader.until_heard(19) == upto(19)


async def test_history_that_was_lost_is_said_to_be_and_the_new_count_is_followed(
    server: Server, speaker: Store
) -> None:
    async with reading(server.url, ROOM) as reader:
        await say(speaker, 1, 5)
        await reader.until_heard(5)
        before = reader.store.feed.position(ROOM)
        await ask(server, "FLUSHALL")
        await say(speaker, 6, 7)
        await reader.until(lambda: bool(reader.lost))
        await say(speaker, 8, 8)
        await reader.until(lambda: reader.said[ROOM][-1] == 8)
        after = reader.store.feed.position(ROOM)
        assert before is not None
        assert after is not None
        assert after.offset == 3
        assert after.epoch != before.epoch
        lost = [delivery.lost for delivery in reader.lost]
        assert [each.top.epoch for each in lost if each is not None] == [after.epoch]


async def test_what_was_trimmed_away_while_we_were_deaf_is_said_to_be_lost(server: Server, speaker: Store) -> None:
    async with reading(server.url, ROOM) as reader, Redis(port=server.port) as redis:
        await say(speaker, 1, 5)
        await reader.until_heard(5)
        async with redis.pipeline() as at_once:
            at_once.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
            at_once.hincrby(speaker.keys.meta(ROOM), "offset", 20)
            at_once.delete(speaker.keys.log(ROOM))
            await at_once.execute()
        await reader.until(lambda: bool(reader.lost))
        epoch = reader.lost[0].lost.top.epoch if reader.lost[0].lost else ""
        assert [delivery.lost for delivery in reader.lost] == [Lost(Position(epoch, 25))]
        await say(speaker, 6, 6)
        assert await reader.until_heard(6) == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(
    "poison",
    [
        b"",
        b"\xff\xfe\x00",
        b"p 1",
        b"p one epoch\n{}",
        b"p -1 epoch\n{}",
        b"p 1 epoch extra\n{}",
        b"p " + b"9" * 5000 + b" epoch\n{}",
        "p \u0661 epoch\n{}".encode(),
        b"x\n{}",
        b"j\n",
        b"p 1 epoch\nno object",
        b'p 1 epoch\n{"data":1}\n{"data":2}',
        b"p 1 \xff\n{}",
        b"\x80\x04\x95\x1e\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94\x8c\x06system\x94\x93\x94.",
    ],
)
def test_what_our_scripts_did_not_send_is_no_event(poison: bytes) -> None:
    assert parse(poison) is None


@pytest.mark.parametrize(
    ("payload", "event"),
    [
        (b'p 7 ep-o_ch\n{"data":1}', Event(Kind.PUBLICATION, b'{"data":1}', Position("ep-o_ch", 7))),
        (b'p 0 \n{"data":1}', Event(Kind.PUBLICATION, b'{"data":1}')),
        (b'j\n{"user":"a"}', Event(Kind.JOIN, b'{"user":"a"}')),
        (b'l\n{"user":"a"}', Event(Kind.LEAVE, b'{"user":"a"}')),
    ],
)
def test_what_our_scripts_send_is_an_event(payload: bytes, event: Event) -> None:
    assert parse(payload) == event


async def test_a_poisoned_message_on_the_bus_harms_nobody(server: Server, speaker: Store) -> None:
    async with reading(server.url, ROOM) as reader:
        await say(speaker, 1, 1)
        position = reader.store.feed.position(ROOM)
        assert position is not None
        forged = [b"\xff", b"p " + b"9" * 5000 + b" e\n{}", b'p 77 %b\n{"data":77}' % position.epoch.encode()]
        for poison in [*forged, b'p 1 other\n{"data":66}']:
            await ask(server, "SPUBLISH", speaker.keys.feed(ROOM), poison)
        await say(speaker, 2, 4)
        assert await reader.until_heard(4) == upto(4)
        assert not reader.lost


async def test_a_message_that_never_reached_us_is_found_by_the_recheck(
    server: Server, speaker: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chatd.store.feed.RECHECK_S", 1.0)
    async with reading(server.url, ROOM) as reader:
        await say(speaker, 1, 1)
        await reader.until_heard(1)
        monkeypatch.setattr("chatd.store.feed.parse", lambda payload: None)
        await say(speaker, 2, 2)
        assert await reader.until_heard(2) == [1, 2]


async def test_what_took_the_number_of_a_lost_message_before_the_line_was_found_dead_is_found_by_the_recheck(
    server: Server, speaker: Store
) -> None:
    async with reading(server.url, ROOM) as reader, Redis(port=server.port) as redis:
        await say(speaker, 1, 3)
        await reader.until_heard(3)
        log = speaker.keys.log(ROOM)
        *before, (id, said) = await redis.xrange(log)
        async with redis.pipeline() as at_once:
            at_once.delete(log)
            for kept, entry in before:
                at_once.xadd(log, entry, kept)
            ms = int(said[b"t"]) + 1
            at_once.xadd(log, {"b": b'{"data":4,"offset":3,"time":%d}' % ms, "t": ms}, id)
            await at_once.execute()
        reader.store.feed._distrust([ROOM])
        await reader.until_heard(4)
        await say(speaker, 5, 5)
        assert await reader.until_heard(5) == upto(5)


async def test_a_node_that_does_not_keep_up_reads_no_more_for_a_while_and_misses_nothing(
    server: Server, speaker: Store
) -> None:
    async with reading(server.url, ROOM) as reader:
        await say(speaker, 1, 1)
        await reader.until_heard(1)
        reader.store.feed.hold(True)
        await say(speaker, 2, 100)
        assert reader.said == {ROOM: [1]}
        reader.store.feed.hold(False)
        assert await reader.until_heard(100) == upto(100)


async def test_a_line_remade_while_it_may_bring_nothing_brings_nothing(server: Server, speaker: Store) -> None:
    async with reading(server.url, ROOM) as reader:
        feed = reader.store.feed
        feed.hold(True)
        (line,) = feed._lines.values()
        await line.reconnect()
        async with asyncio.timeout(PATIENCE_S):
            while not feed.interruptions or not await subscribers(server, speaker.keys.feed(ROOM)):
                await asyncio.sleep(0)
        await say(speaker, 1, 3)
        assert reader.said == {}
        feed.hold(False)
        assert await reader.until_heard(3) == upto(3)
        assert feed.interruptions == 1


# --- signs of life ----------------------------------------------------------------------------------------------------


class Clock:
    """Loop time that stands still until the test moves it."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@asynccontextmanager
async def probed(url: str, clock: Clock) -> AsyncIterator[Store]:
    """A store whose feed runs by `clock` and reads one room."""
    async with Store(url, prefix="test", timeout=TIMEOUT_S, clock=clock) as store:
        feed = asyncio.create_task(store.feed.run())
        try:
            await store.feed.watch(ROOM, history=True)
            yield store
        finally:
            feed.cancel()
            await asyncio.gather(feed, return_exceptions=True)


async def test_a_probe_proves_that_the_feed_is_live(server: Server) -> None:
    clock = Clock()
    async with probed(server.url, clock) as store:
        assert store.feed.silent_for(clock.now) == float("inf"), "nothing is proven before the first probe"
        await until_live(store, clock)
        clock.now += 3.0
        assert store.feed.silent_for(clock.now) == 3.0
        await until_live(store, clock)


async def test_a_probe_that_was_said_before_the_line_stood_is_said_again_when_it_does(server: Server) -> None:
    clock = Clock()
    async with Store(server.url, prefix="test", timeout=TIMEOUT_S, clock=clock) as store:
        store.feed.listen("told", lambda payload: None)
        heard = asyncio.Event()
        store.feed.on_lag = lambda seconds: heard.set()
        await store.feed.probe("n")  # as at a node's start, whose line may be slower than its requests
        feed = asyncio.create_task(store.feed.run())
        try:
            await asyncio.wait_for(heard.wait(), PATIENCE_S)
        finally:
            feed.cancel()
            await asyncio.gather(feed, return_exceptions=True)


@pytest.mark.parametrize("was_live", [True, False])
async def test_a_line_that_is_deaf_though_the_server_answers_is_remade(
    server: Server, monkeypatch: pytest.MonkeyPatch, was_live: bool
) -> None:
    clock = Clock()
    async with probed(server.url, clock) as store:
        if was_live:
            await until_live(store, clock)
        before = await subscriber(server)
        with monkeypatch.context() as deaf:
            deaf.setattr(Feed, "arrived", lambda self, messages: None)
            for _ in range(3):
                await store.feed.probe("n")
                clock.now += SILENT_S * 0.6
            async with asyncio.timeout(PATIENCE_S):
                while await subscriber(server) in (before, ""):
                    await asyncio.sleep(0.01)
        await until_live(store, clock)


async def test_a_feed_whose_server_does_not_answer_is_not_remade_but_waited_for(server: Server) -> None:
    clock = Clock()
    async with probed(server.url, clock) as store:
        await until_live(store, clock)
        before = await subscriber(server)
        server.pause()
        for _ in range(3):
            clock.now += SILENT_S
            with pytest.raises(StoreUnavailable):
                await store.feed.probe("n")
        server.resume()
        await until_live(store, clock)
        assert await subscriber(server) == before


async def subscriber(server: Server) -> str:
    """The id of the one connection that subscribes; "" while there is none."""
    clients: bytes = await ask(server, "CLIENT", "LIST", "TYPE", "pubsub")
    return clients.decode().partition(" ")[0]


async def until_live(store: Store, clock: Clock) -> None:
    """Until a probe sent now has come back."""
    async with asyncio.timeout(PATIENCE_S):
        await insist(lambda: store.feed.probe("n"))
        while store.feed.silent_for(clock.now) > 0:
            await asyncio.sleep(0.01)
            await insist(lambda: store.feed.probe("n"))


async def test_a_room_that_begins_to_keep_history_while_it_is_read_loses_nothing(tmp_path: Path) -> None:
    async with redis_server(tmp_path) as server, reading(server.url) as reader, opened(server.url) as other:
        await reader.store.feed.watch(ROOM, history=False)  # the settings are reloaded after this
        await say(other, 1, 3)
        assert await reader.until_heard(3) == [1, 2, 3]


def known_nowhere(channel: str) -> str:
    raise StoreUnavailable(f"no server of the cluster holds {channel}")


async def test_a_room_whose_server_was_not_known_is_not_watched_until_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with redis_server(tmp_path) as server, reading(server.url, "other") as reader, opened(server.url) as other:
        with monkeypatch.context() as patched:
            patched.setattr(reader.store._servers, "server_of", known_nowhere)
            with pytest.raises(StoreUnavailable):
                await reader.store.feed.watch(ROOM, history=True)
        await reader.store.feed.watch(ROOM, history=True)
        await say(other, 1, 1)
        assert await reader.until_heard(1) == [1]


class Listening:
    """Who hears a line, and cares for nothing."""

    held = False

    def arrived(self, messages: list[tuple[bytes, bytes]]) -> None: ...

    def in_force(self, channel: bytes) -> None: ...

    async def interrupted(self, line: Line) -> bool:
        return False


def test_a_channel_that_was_left_is_forgotten() -> None:
    nobody: Any = None
    line = Line(nobody, "", Listening())
    for n in range(3):
        line.subscribe(f"room{n}")
        line.unsubscribe(f"room{n}")
        line.heard([[b"sunsubscribe", b"room%d" % n, 0]])
    assert not line._leaving


def test_a_word_on_our_channel_that_is_no_time_of_ours_harms_nobody() -> None:
    nobody: Any = None
    feed = Feed(nobody, nobody, Keys("x"), nobody, 1.0, lambda: 5.0)
    line = Line(nobody, "", feed)
    for word in (b"hello", b"0x1p99999", b"nan"):
        feed._heard(line, word)
    assert line.heard_at == 5.0


# --- servers that answer, but not usefully ----------------------------------------------------------------------------


async def test_a_server_that_became_a_replica_is_unavailable_and_not_a_refusal(server: Server, speaker: Store) -> None:
    await say(speaker, 1, 1)
    await ask(server, "REPLICAOF", "127.0.0.1", 1)
    with pytest.raises(StoreUnavailable):
        await speaker.messages.publish(ROOM, b'{"data":2', KEEP)
    await ask(server, "REPLICAOF", "NO", "ONE")
    await say(speaker, 2, 2)


async def test_a_server_out_of_memory_is_full_and_says_what_helps(server: Server, speaker: Store) -> None:
    await say(speaker, 1, 1)
    await ask(server, "CONFIG", "SET", "maxmemory", 1)
    for room in (ROOM, "a new room"):
        with pytest.raises(
            StoreFull, match=r"no memory left to write to; raise its maxmemory, or have rooms keep less$"
        ):
            await speaker.messages.publish(room, b'{"data":2', KEEP)


@pytest.mark.parametrize(
    ("error", "kind", "sentence"),
    [
        (
            ResponseError("MISCONF Errors writing to the AOF file: No space left on device script: 8c1, on @user:1."),
            StoreFull,
            "the store cannot write to its disk: Errors writing to the AOF file: No space left on device",
        ),
        (
            ResponseError("MISCONF Valkey is configured to save, but unable to. Please check the Valkey logs."),
            StoreFull,
            "the store cannot write to its disk: Valkey is configured to save, but unable to",
        ),
        (
            NoPermissionError("User chatd has no permissions to run the 'evalsha' command"),
            StoreMisconfigured,
            "the store does not let the user in redis.url do what chatd needs: "
            "User chatd has no permissions to run the 'evalsha' command",
        ),
        (
            AuthenticationError("invalid username-password pair or user is disabled."),
            StoreMisconfigured,
            "the store does not accept the user or password in redis.url: "
            "invalid username-password pair or user is disabled.",
        ),
        (
            NoConnection("Error 111 connecting to 127.0.0.1:6399. Connect call failed ('127.0.0.1', 6399)."),
            StoreUnavailable,
            "the store does not answer: Connection refused at 127.0.0.1:6399",
        ),
        (
            NoConnection("Error -2 connecting to nowhere:6379. Name or service not known."),
            StoreUnavailable,
            "the store does not answer: Name or service not known at nowhere:6379",
        ),
        (ResponseError("WRONGTYPE x script: 8c1, on @user:1."), StoreError, "the store refused: WRONGTYPE x"),
    ],
)
def test_what_a_server_says_becomes_a_sentence_for_an_operator(
    error: RedisError, kind: type[StoreError], sentence: str
) -> None:
    found = translated(error)
    assert (type(found), str(found)) == (kind, sentence)


async def test_a_database_that_is_not_there_or_a_cluster_that_is_none_is_misconfigured(server: Server) -> None:
    for url, says in (
        (f"{server.url}/99", "database that the store does not have"),
        (server.url.replace("redis://", "redis+cluster://"), "the server is none of a cluster"),
    ):
        with pytest.raises(StoreMisconfigured, match=says):
            async with opened(url):
                pass


async def test_a_server_that_is_not_there_is_unavailable(tmp_path: Path) -> None:
    async with redis_server(tmp_path) as server:
        server.kill()
        with pytest.raises(StoreUnavailable, match="does not answer"):
            async with opened(server.url):
                pass


async def test_a_server_older_than_we_can_stand_on_is_refused(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chatd.store.redis.OLDEST", (99, 1, 0))
    with pytest.raises(StoreMisconfigured, match=r"needs Redis 99\.1\.0 or newer, or Valkey; the server is [78]"):
        async with opened(server.url):
            pass


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("http://localhost", "begins with 'http'"),
        ("localhost:6379", "must begin with one of redis://"),
        ("redis+sentinel://localhost:26379", "must look like"),
        ("redis+sentinel:///chatd", "must look like"),
    ],
)
async def test_a_url_of_no_kind_is_refused_in_a_sentence(url: str, sentence: str) -> None:
    with pytest.raises(StoreMisconfigured, match=sentence):
        opened(url)


async def test_a_sentinel_group_that_fails_over_loses_nothing_its_new_master_has(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        group = await stack.enter_async_context(redis_sentinel(tmp_path))
        speaker = await stack.enter_async_context(opened(group.url))
        reader = await stack.enter_async_context(reading(group.url, ROOM))
        await say(speaker, 1, 50)
        await reader.until_heard(50)
        assert await ask(group.master, "WAIT", 1, 5000) == 1
        group.master.kill()
        await say(speaker, 51, 60)
        assert await reader.until_heard(60) == upto(60)
        assert not reader.lost


@pytest.mark.parametrize("before_we_are_back", [True, False])
async def test_what_takes_the_numbers_of_what_a_failover_lost_is_heard(
    tmp_path: Path, before_we_are_back: bool
) -> None:
    async with AsyncExitStack() as stack:
        master, behind = (another_server(tmp_path / name, "--appendfsync", "always") for name in ("master", "behind"))
        await stack.enter_async_context(servers_running(master))
        speaker = await stack.enter_async_context(opened(master.url))
        reader = await stack.enter_async_context(reading(master.url, ROOM))
        await say(speaker, 1, 3)
        shutil.copytree(master.directory / LOG, behind.directory / LOG)
        await say(speaker, 4, 6)
        await reader.until_heard(6)
        master.kill()
        async with servers_running(behind), opened(behind.url) as elsewhere:
            if before_we_are_back:
                await say(elsewhere, 7, 8)
        shutil.rmtree(master.directory / LOG)
        shutil.copytree(behind.directory / LOG, master.directory / LOG)
        async with servers_running(master):
            if not before_we_are_back:
                async with asyncio.timeout(PATIENCE_S):
                    while not await subscribers(master, speaker.keys.feed(ROOM)):
                        await asyncio.sleep(0.01)
                await say(speaker, 7, 8)
            await say(speaker, 9, 12)
            assert await reader.until_heard(12) == upto(12)
            assert not reader.lost


async def test_one_server_of_a_cluster_gone_stops_its_own_rooms_alone(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        cluster = await stack.enter_async_context(redis_cluster_servers(tmp_path))
        speaker = await stack.enter_async_context(opened(cluster.url))
        rooms = [f"room {n}" for n in range(12)]
        reader = await stack.enter_async_context(reading(cluster.url, *rooms))
        # By the second, an acknowledged message may not be on disk yet when its server is killed.
        await ask(cluster.servers[2], "CONFIG", "SET", "appendfsync", "always")
        for room in rooms:
            await say(speaker, 1, 1, room)
        dead = cluster.servers[2].port
        cluster.servers[2].kill()
        gone = [speaker._servers.server_of(speaker.keys.feed(room)).endswith(f":{dead}") for room in rooms]
        for _ in ("cut", "not to be reached"):
            tried = await asyncio.gather(
                *(speaker.messages.publish(room, b'{"data":2', KEEP, ("ana", "2")) for room in rooms),
                return_exceptions=True,
            )
            assert [type(each) for each in tried] == [StoreUnavailable if away else tuple for away in gone]
        await cluster.servers[2].start()
        for room in rooms:
            await say(speaker, 2, 3, room)
        for room in rooms:
            assert await reader.until_heard(3, room) == [1, 2, 3]
        assert not reader.lost


async def test_nobody_waits_for_a_server_of_a_cluster_that_hangs_but_who_asked_it(tmp_path: Path) -> None:
    async with (
        redis_cluster_servers(tmp_path) as cluster,
        Store(cluster.url, prefix="test", timeout=PATIENCE_S) as store,
    ):
        hanging = cluster.servers[2]
        rooms = {store._servers.server_of(store.keys.feed(f"room {n}")): f"room {n}" for n in range(40)}
        there = rooms.pop(f"127.0.0.1:{hanging.port}")
        hanging.pause()
        waiting = asyncio.ensure_future(store.messages.publish(there, b'{"data":1', KEEP))
        await asyncio.sleep(0)
        all_before = asyncio.ensure_future(store.batch.carried_out())
        for room in rooms.values():
            await say(store, 1, 3, room)
        assert not (waiting.done() or all_before.done())
        hanging.resume()
        await asyncio.gather(waiting, all_before)


async def test_a_server_of_a_cluster_that_could_not_be_reached_for_long_is_reached_again(tmp_path: Path) -> None:
    async with redis_cluster_servers(tmp_path) as cluster, opened(cluster.url) as store:
        server, servers = cluster.servers[0], store._servers
        name = f"127.0.0.1:{server.port}"
        server.kill()
        for _ in range(110):  # more than redis-py makes to a server; the first may not know yet that it ended
            with suppress(NoConnection):
                await servers.hang_up(await servers.dial(name))
        await server.start()
        await servers.hang_up(await servers.dial(name))


async def test_a_slot_that_moves_to_another_server_takes_its_readers_along(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        cluster = await stack.enter_async_context(redis_cluster_servers(tmp_path))
        speaker = await stack.enter_async_context(opened(cluster.url))
        reader = await stack.enter_async_context(reading(cluster.url, ROOM))
        await say(speaker, 1, 3)
        await reader.until_heard(3)
        slot = await ask(cluster.servers[0], "CLUSTER", "KEYSLOT", speaker.keys.meta(ROOM))
        await move_slot(slot, cluster.servers)
        await say(speaker, 4, 6)
        assert await reader.until_heard(6) == upto(6)
        assert not reader.lost


async def move_slot(slot: int, servers: tuple[Server, Server, Server]) -> None:
    """Hand `slot` with all its keys from whoever has it to the next server, as `redis-cli --cluster reshard` does."""
    names = [(await ask(each, "CLUSTER", "MYID")).decode() for each in servers]
    at = slot * 3 // 16384
    holder, target, name = servers[at], servers[(at + 1) % 3], names[(at + 1) % 3]
    await ask(target, "CLUSTER", "SETSLOT", slot, "IMPORTING", names[at])
    await ask(holder, "CLUSTER", "SETSLOT", slot, "MIGRATING", name)
    keys = await ask(holder, "CLUSTER", "GETKEYSINSLOT", slot, 1000)
    await ask(holder, "MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", *keys)
    for each in (target, holder, *servers):
        await ask(each, "CLUSTER", "SETSLOT", slot, "NODE", name)
