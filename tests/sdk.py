"""The official Python SDK, with everything it tells us put where a test can await it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from centrifuge import Client, ClientEventHandler, Subscription, SubscriptionEventHandler

PATIENCE_S = 15.0


class Heard(ClientEventHandler, SubscriptionEventHandler):
    """Events as (kind, context) in order of arrival."""

    def __init__(self) -> None:
        self.events: list[tuple[str, Any]] = []
        self._more = asyncio.Event()

    def note(self, kind: str, context: Any) -> None:
        self.events.append((kind, context))
        self._more.set()

    async def next(self, kind: str) -> Any:
        """The next event of `kind`, now or later; it is taken out, others stay."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                for event in self.events:
                    if event[0] == kind:
                        self.events.remove(event)
                        return event[1]
                self._more.clear()
                await self._more.wait()

    def texts(self) -> list[str]:
        return [context.pub.data["text"] for kind, context in self.events if kind == "publication"]


def _noting(kind: str) -> Callable[[Heard, Any], Awaitable[None]]:
    async def handler(self: Heard, context: Any) -> None:
        self.note(kind, context)

    return handler


for _kind in (
    "connecting", "connected", "disconnected", "error", "subscribed", "subscribing", "unsubscribed", "publication",
    "join", "leave", "server_subscribed", "server_publication",
):  # fmt: skip
    setattr(Heard, f"on_{_kind}", _noting(_kind))


@asynccontextmanager
async def sdk_client(url: str, **options: Any) -> AsyncIterator[tuple[Client, Heard]]:
    """A connected client, disconnected at the end."""
    heard = Heard()
    client = Client(url, events=heard, min_reconnect_delay=0.05, max_reconnect_delay=0.2, **options)
    await client.connect()
    try:
        await client.ready(PATIENCE_S)
        yield client, heard
    finally:
        await client.disconnect()
        # It does not wait for its socket to be closed; whoever leaves a loop with an open one is told so, much later.
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.gather(*client._background_tasks, return_exceptions=True)


async def subscribed(client: Client, room: str, **options: Any) -> tuple[Subscription, Heard]:
    heard = Heard()
    subscription = client.new_subscription(room, events=heard, min_resubscribe_delay=0.05, **options)
    await subscription.subscribe()
    await subscription.ready(PATIENCE_S)
    return subscription, heard
