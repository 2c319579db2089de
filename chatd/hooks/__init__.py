"""Telling the application what happens, by HTTP, and asking it before something is said.

courier    delivers what stands in the store's outbox: at least once, each room's in order
callout    asks whether a message may be said
signing    what a receiver checks
client     POST to an address that was checked, signed
addresses  which addresses may be spoken to; pure

What is to be told is written into the outbox by the store (store.outbox), in the same step as what it is about.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from chatd.settings import Settings
from chatd.store.redis import Store

from .callout import Callout
from .courier import Courier

if TYPE_CHECKING:
    from .client import Client


class Home(Protocol):
    """What hooks need of the node they live in."""

    id: str
    settings: Settings
    store: Store
    clock: Callable[[], float]

    @property
    def lease(self) -> str: ...


class Hooks:
    """The hooks of one node.

    Args:
        banned: whether a user may not be in a room.
        results: counts what became of the hooks.
    """

    def __init__(self, node: Home, banned: Callable[[str, str], bool], results: Counter[str]) -> None:
        self._node = node
        self._client: Client | None = None
        self.callout = Callout(lambda: node.settings.hooks, self.client, results)
        self.courier = Courier(
            node.store,
            lambda: node.settings.hooks,
            self.client,
            lease=lambda: node.lease,
            hold_s=node.settings.cluster.lease,
            banned=banned,
            results=results,
            clock=node.clock,
        )

    async def run(self) -> None:
        """Deliver until cancelled."""
        try:
            await self.courier.run()
        finally:
            if self._client is not None:
                await self._client.close()

    def client(self) -> Client:
        """How the application is reached; made when it is needed, for most installations have no hooks."""
        if self._client is None:
            from .client import Client

            self._client = Client(allow_private=self._node.settings.hooks.allow_private, node=self._node.id)
        return self._client
