"""Stores of every kind to test on: one server, a cluster of three, a Sentinel group; and what a room's readers hear.

The servers are started once a file for each kind; every test has its own key prefix, so that none sees another's. The
fixtures are known everywhere (conftest): a test that takes `store` runs on every kind.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from chatd.model import Delivery, Kind
from chatd.node import Node
from chatd.settings import Settings
from chatd.store.messages import Keep
from chatd.store.redis import Store
from tests.servers import redis_cluster, redis_sentinel, redis_server

PATIENCE_S = 10.0
FOR_EVER = Keep(1000, 0)


@asynccontextmanager
async def standalone(directory: Path) -> AsyncIterator[str]:
    async with redis_server(directory) as server:
        yield server.url


@asynccontextmanager
async def sentinel(directory: Path) -> AsyncIterator[str]:
    async with redis_sentinel(directory) as group:
        yield group.url


KINDS: dict[str, Callable[[Path], AbstractAsyncContextManager[str]]] = {
    "standalone": standalone,
    "cluster": redis_cluster,
    "sentinel": sentinel,
}


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=KINDS)
async def url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    async with KINDS[request.param](tmp_path_factory.mktemp(request.param)) as found:
        yield found


@pytest.fixture
def prefix() -> str:
    return secrets.token_hex(4)


def opened(url: str, prefix: str = "test") -> Store:
    return Store(url, prefix=prefix, timeout=PATIENCE_S)


@pytest.fixture
async def store(url: str, prefix: str) -> AsyncIterator[Store]:
    async with opened(url, prefix) as one:
        yield one


@asynccontextmanager
async def listening(store: Store) -> AsyncIterator[None]:
    """`store` with its feed running."""
    feed = asyncio.create_task(store.feed.run())
    try:
        yield
    finally:
        feed.cancel()
        await asyncio.gather(feed, return_exceptions=True)


@asynccontextmanager
async def heard(store: Store, room: str, *, history: bool = True) -> AsyncIterator[list[tuple[Kind, Any]]]:
    """What a reader of `room` has heard by the end: (kind, body as parsed), the last of them being `over`."""
    events: list[tuple[Kind, Any]] = []
    over = asyncio.Event()

    def hear(deliveries: Sequence[Delivery]) -> None:
        events.extend((event.kind, json.loads(event.body)) for each in deliveries for event in each.events)
        if events and events[-1][1].get("data") == "over":
            over.set()

    store.feed.on_deliveries = hear
    async with listening(store):
        await store.feed.watch(room, history=history)
        yield events
        await store.messages.publish(room, b'{"data":"over"', FOR_EVER if history else Keep(0, 0))
        async with asyncio.timeout(PATIENCE_S):
            await over.wait()
        events.pop()


def head(text: str) -> bytes:
    return b'{"data":%b' % json.dumps(text).encode()


def texts(bodies: Any) -> list[str]:
    return [json.loads(body)["data"] for body in bodies]


async def in_milliseconds(ms: int) -> None:
    """Let the servers' own clock go on by `ms`."""
    await asyncio.sleep(ms / 1000)


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    """A node that hears its store, and whose own tasks do not run."""
    async with redis_server(tmp_path) as server, opened(server.url) as store:
        one = Node(Settings(), store)
        one.chat.spawn = asyncio.ensure_future
        feed = asyncio.create_task(store.feed.run())
        yield one
        feed.cancel()
        await asyncio.gather(feed, return_exceptions=True)
