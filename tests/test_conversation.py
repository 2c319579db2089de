"""What is said on a connection that redis-py has opened, and what is heard there, by a real server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import InvalidResponse, ResponseError

from chatd.store.conversation import Conversation
from chatd.store.exchange import Exchange, Outcome
from tests.servers import Server, redis_server

TIMEOUT_S = 0.3


class Ear:
    """Keeps what it hears; `refuses` is raised at the first word."""

    def __init__(self, refuses: Exception | None = None) -> None:
        self.refuses = refuses
        self.words: asyncio.Queue[Any] = asyncio.Queue()
        self.end: asyncio.Future[Exception] = asyncio.get_running_loop().create_future()

    def heard(self, replies: list[Any]) -> None:
        for reply in replies:
            self.words.put_nowait(reply)
        if self.refuses is not None:
            raise self.refuses

    def ended(self, why: Exception) -> None:
        self.end.set_result(why)  # a second time would raise

    async def words_of(self, count: int) -> list[Any]:
        return [await self.words.get() for _ in range(count)]


@asynccontextmanager
async def conversing(directory: Path, ear: Ear) -> AsyncIterator[tuple[Conversation, Redis]]:
    """A conversation, and another client of the same server."""
    async with (
        redis_server(directory) as server,
        Redis.from_url(server.url) as other,
        Redis.from_url(server.url) as ours,
    ):
        connection = await ours.connection_pool.get_connection()
        yield Conversation(connection, ear), other
        await connection.disconnect(nowait=True)


async def test_replies_come_in_order_and_a_refusal_is_one(tmp_path: Path) -> None:
    ear = Ear()
    async with conversing(tmp_path, ear) as (conversation, _):
        conversation.say([("SET", "a", "1"), ("LPUSH", "a", "x"), ("GET", "a")])
        done, refused, value = await ear.words_of(3)
        assert (done, value) == (b"OK", b"1")
        assert isinstance(refused, ResponseError)
        assert str(refused).startswith("WRONGTYPE")


async def test_the_end_is_told_once_after_what_was_said_before_it_and_nothing_is_said_any_more(tmp_path: Path) -> None:
    ear = Ear()
    async with conversing(tmp_path, ear) as (conversation, other):
        conversation.say([("CLIENT", "ID")])
        (number,) = await ear.words_of(1)
        conversation.say([("PING",)])
        await other.ping()  # the server has answered ours before
        await other.client_kill_filter(_id=str(number))
        assert isinstance(await ear.end, ConnectionError)
        assert await ear.words_of(1) == [b"PONG"]
        assert conversation.over
        conversation.say([("PING",)])


async def test_held_nothing_comes_until_it_goes_on(tmp_path: Path) -> None:
    ear = Ear()
    async with conversing(tmp_path, ear) as (conversation, other):
        conversation.say([("SUBSCRIBE", "a")])
        assert await ear.words_of(1) == [[b"subscribe", b"a", 1]]
        conversation.hold(True)
        await other.publish("a", "x")
        await other.publish("a", "y")
        assert ear.words.empty()
        conversation.hold(False)
        assert await ear.words_of(2) == [[b"message", b"a", b"x"], [b"message", b"a", b"y"]]


async def test_what_the_hearer_raises_ends_the_conversation_and_nothing_more_is_told(tmp_path: Path) -> None:
    ear = Ear(refuses=ConnectionResetError("not like this"))
    async with conversing(tmp_path, ear) as (conversation, other):
        conversation.say([("PING",)])
        assert await ear.end is ear.refuses
        conversation.say([("PING",)])
        await other.ping()
        conversation.data_received(b"+PONG\r\n")
        assert ear.words.qsize() == 1


async def test_what_is_not_of_the_protocol_ends_it_after_what_was(tmp_path: Path) -> None:
    ear = Ear()
    async with conversing(tmp_path, ear) as (conversation, _):
        conversation.data_received(b"+OK\r\n!what\r\n")
        assert isinstance(await ear.end, InvalidResponse)
        assert await ear.words_of(1) == [b"OK"]


# --- exchanges --------------------------------------------------------------------------------------------------------


class Asking:
    """An exchange of our own, and how often it has connected."""

    def __init__(self, server: Server, timeout: float) -> None:
        self.client = Redis.from_url(server.url)
        self.exchange = Exchange(self._dial, self._hang_up, timeout)
        self.connected = 0
        self.dialling_s = 0.0

    async def _dial(self) -> Any:
        self.connected += 1
        await asyncio.sleep(self.dialling_s)
        return await self.client.connection_pool.get_connection()

    async def _hang_up(self, connection: Any) -> None:
        await connection.disconnect(nowait=True)
        await self.client.connection_pool.release(connection)

    async def ask(self, *commands: tuple[str, ...]) -> Outcome:
        outcome: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self.exchange.begin(commands, outcome.set_result)
        return await outcome

    async def id(self) -> str:
        """The server's number for our connection."""
        outcome = await self.ask(("CLIENT", "ID"))
        assert isinstance(outcome, list)
        return str(outcome[0])


@asynccontextmanager
async def asking(directory: Path, timeout: float = 5.0) -> AsyncIterator[tuple[Asking, Redis, Server]]:
    async with redis_server(directory) as server, Redis.from_url(server.url) as other:
        ours = Asking(server, timeout)
        try:
            yield ours, other, server
        finally:
            await ours.exchange.close()
            await ours.client.aclose()


async def test_one_exchange_after_the_other_goes_over_one_connection(tmp_path: Path) -> None:
    async with asking(tmp_path) as (ours, _, _):
        for n in range(3):
            assert await ours.ask(("ECHO", f"{n}"), ("ECHO", "x" * 200_000)) == [f"{n}".encode(), b"x" * 200_000]
        assert ours.connected == 1


async def test_an_exchange_that_is_cut_is_told_so_and_the_next_connects_anew(tmp_path: Path) -> None:
    async with asking(tmp_path) as (ours, other, _):
        number = await ours.id()
        waiting = asyncio.ensure_future(ours.ask(("BLPOP", "never", "0")))
        while not (await other.info("clients"))["blocked_clients"]:
            await asyncio.sleep(0)
        await other.client_kill_filter(_id=number)
        assert isinstance(await waiting, ConnectionError)
        assert await ours.ask(("PING",)) == [b"PONG"]
        assert ours.connected == 2


async def test_a_connection_that_ended_between_two_exchanges_is_nobodys_failure(tmp_path: Path) -> None:
    async with asking(tmp_path) as (ours, other, _):
        await other.client_kill_filter(_id=await ours.id())
        conversation = ours.exchange._conversation
        assert conversation is not None
        while not conversation.over:
            await asyncio.sleep(0)
        assert await ours.ask(("PING",)) == [b"PONG"]


async def test_who_is_not_answered_in_time_is_told_so_and_a_late_answer_reaches_nobody(tmp_path: Path) -> None:
    async with asking(tmp_path, TIMEOUT_S) as (ours, other, _):
        assert await ours.ask(("PING",)) == [b"PONG"]
        assert isinstance(await ours.ask(("BLPOP", "late", "0")), TimeoutError)
        await other.rpush("late", "too late")
        for n in range(3):
            assert await ours.ask(("ECHO", f"{n}")) == [f"{n}".encode()]
        assert ours.connected == 2


async def test_who_connects_slowly_is_not_answered_with_what_an_earlier_one_asked(tmp_path: Path) -> None:
    async with asking(tmp_path, TIMEOUT_S) as (ours, other, _):
        number = await ours.id()  # from here on a deadline is watched
        conversation = ours.exchange._conversation
        assert conversation is not None
        await other.client_kill_filter(_id=number)
        while not conversation.over:
            await asyncio.sleep(0)
        ours.dialling_s = 2 * TIMEOUT_S
        assert await ours.ask(("ECHO", "first")) == [b"first"], "its time begins when it is said"
        assert await ours.ask(("ECHO", "second")) == [b"second"]


async def test_what_nobody_asked_for_is_not_taken_for_the_next_answer(tmp_path: Path) -> None:
    async with asking(tmp_path) as (ours, _, _):
        assert await ours.ask(("PING",)) == [b"PONG"]
        conversation = ours.exchange._conversation
        assert conversation is not None
        conversation.data_received(b"+unasked\r\n")
        assert await ours.ask(("ECHO", "mine")) == [b"mine"]
        assert ours.connected == 2


async def test_a_master_no_longer_is_left_after_its_answer(tmp_path: Path) -> None:
    async with asking(tmp_path) as (ours, other, _):
        await other.execute_command("REPLICAOF", "127.0.0.1", "1")
        replies = await ours.ask(("SET", "a", "1"), ("PING",))
        assert isinstance(replies, list)
        assert [str(replies[0]).split(" ")[0], replies[1]] == ["You", b"PONG"]
        await ours.ask(("PING",))
        assert ours.connected == 2


async def test_what_is_no_command_is_refused_and_what_follows_is_not(tmp_path: Path) -> None:
    async with asking(tmp_path) as (ours, _, _):
        for _ in range(2):
            assert isinstance(await ours.ask(("SET", "a", None)), Exception)  # type: ignore[arg-type]
            assert await ours.ask(("PING",)) == [b"PONG"]
        assert ours.connected == 1


async def test_who_cannot_connect_is_told_why(tmp_path: Path) -> None:
    async with asking(tmp_path) as (ours, _, server):
        server.kill()
        assert isinstance(await ours.ask(("PING",)), RedisConnectionError)
        await server.start()
        assert await ours.ask(("PING",)) == [b"PONG"]


async def test_of_what_is_under_way_at_the_close_nobody_is_told(tmp_path: Path) -> None:
    async with asking(tmp_path) as (ours, other, _):
        waiting = asyncio.ensure_future(ours.ask(("BLPOP", "never", "0")))
        while not (await other.info("clients"))["blocked_clients"]:
            await asyncio.sleep(0)
        await ours.exchange.close()
        assert not waiting.done()
        waiting.cancel()
