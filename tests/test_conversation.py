"""What is said on a connection that redis-py has opened, and what is heard there, by a real server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from chatd.store.conversation import UNHEARD, Conversation
from tests.servers import redis_server


@asynccontextmanager
async def conversing(directory: Path) -> AsyncIterator[tuple[Conversation, Redis]]:
    """A conversation, and another client of the same server."""
    async with (
        redis_server(directory) as server,
        Redis.from_url(server.url) as other,
        Redis.from_url(server.url) as ours,
    ):
        connection = await ours.connection_pool.get_connection()
        yield Conversation(connection), other
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
