"""What is said on a connection that redis-py has opened, and what is heard there, by a real server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from chatd.store.conversation import UNHEARD, Conversation
from tests.servers import redis_server


@asynccontextmanager
async def conversing(
    directory: Path, listener: Callable[[list[Any]], None] | None = None
) -> AsyncIterator[tuple[Conversation, Redis]]:
    """A conversation, and another client of the same server."""
    async with (
        redis_server(directory) as server,
        Redis.from_url(server.url) as other,
        Redis.from_url(server.url) as ours,
    ):
        connection = await ours.connection_pool.get_connection()
        yield Conversation(connection, listener), other
        await connection.disconnect(nowait=True)


async def hear(conversation: Conversation, count: int) -> list[object]:
    heard: list[object] = []
    while len(heard) < count:
        heard += await conversation.hear()
    return heard


async def test_replies_come_in_order_and_a_refusal_is_one(tmp_path: Path) -> None:
    async with conversing(tmp_path) as (conversation, _):
        conversation.say([("SET", "a", "1"), ("LPUSH", "a", "x"), ("GET", "a")])
        done, refused, value = await hear(conversation, 3)
        assert (done, value) == (b"OK", b"1")
        assert isinstance(refused, ResponseError)
        assert str(refused).startswith("WRONGTYPE")


async def test_replies_that_nobody_hears_wait_and_none_is_lost(tmp_path: Path) -> None:
    async with conversing(tmp_path) as (conversation, other):
        count = 20 * UNHEARD
        conversation.say(("ECHO", str(n)) for n in range(count))
        await other.ping()
        assert await hear(conversation, count) == [str(n).encode() for n in range(count)]


async def test_the_end_is_heard_after_what_was_said_before_it_and_nothing_is_said_any_more(tmp_path: Path) -> None:
    async with conversing(tmp_path) as (conversation, other):
        conversation.say([("CLIENT", "ID")])
        (number,) = await conversation.hear()
        conversation.say([("PING",)])
        await other.ping()  # the server has answered ours before
        await other.client_kill_filter(_id=str(number))
        assert await conversation.hear() == [b"PONG"]
        with pytest.raises(ConnectionError):
            await conversation.hear()
        assert conversation.spent
        conversation.say([("PING",)])
        with pytest.raises(ConnectionError):
            await conversation.hear()


async def test_a_conversation_in_which_something_came_unasked_is_spent(tmp_path: Path) -> None:
    async with conversing(tmp_path) as (conversation, _):
        assert not conversation.spent
        conversation.say([("PING",), ("PING",)])
        await hear(conversation, 2)
        assert not conversation.spent
        conversation.data_received(b"+what nobody asked for\r\n")
        assert conversation.spent


async def test_a_listener_is_told_as_it_comes_and_held_nothing_comes(tmp_path: Path) -> None:
    told: asyncio.Queue[list[Any]] = asyncio.Queue()
    async with conversing(tmp_path, told.put_nowait) as (conversation, other):
        conversation.say([("SUBSCRIBE", "a")])
        end = asyncio.ensure_future(conversation.hear())
        await asyncio.sleep(0)
        waiter = conversation._waiter
        assert await told.get() == [[b"subscribe", b"a", 1]]
        conversation.hold(True)
        await other.publish("a", "x")
        await other.publish("a", "y")
        assert told.empty()
        conversation.hold(False)
        assert await told.get() == [[b"message", b"a", b"x"], [b"message", b"a", b"y"]]
        await asyncio.sleep(0)
        assert conversation._waiter is waiter, "who waits for the end is left alone until then"
        end.cancel()


async def test_what_a_listener_raises_ends_the_conversation_and_nothing_more_is_told(tmp_path: Path) -> None:
    told: list[Any] = []

    def refuse(replies: list[Any]) -> None:
        told.extend(replies)
        raise ConnectionResetError("not like this")

    async with conversing(tmp_path, refuse) as (conversation, other):
        conversation.say([("PING",)])
        with pytest.raises(ConnectionResetError, match="not like this"):
            await conversation.hear()
        conversation.say([("PING",)])
        await other.ping()
        conversation.data_received(b"+PONG\r\n")
        assert told == [b"PONG"]
