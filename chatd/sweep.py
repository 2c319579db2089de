"""What keeps rooms as short as their rules say, also those into which nobody writes any more.

A room that is written into is trimmed with every message, and nothing past its age is shown; the sweep is for the rest:
quiet rooms, rules that have changed, and the bodies of what was deleted. One node at a time does it, in steps so small
that neither the store nor this node's own people notice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import structlog

from .store.errors import StoreError
from .store.messages import Keep
from .store.retention import Retention

log = structlog.get_logger("chatd")

# Rooms swept in one pipeline: half a millisecond of the store's time, if there is little to do.
AT_ONCE: Final = 50
# Between two such steps. A million rooms take four minutes.
PAUSE_S: Final = 0.01
# A sweep that was begun is nobody else's for so much of the period; then it may begin again.
HELD: Final = 0.9


@dataclass(slots=True)
class Tally:
    """What a sweep has done so far."""

    rooms: int = 0
    trimmed: int = 0
    rewritten: int = 0


class Sweeper:
    """See the head of this file.

    Args:
        lease: the node's current lease, under which it sweeps.
        keep: how a room is kept.
        period_s: how often there is to be a sweep in the cluster.
    """

    def __init__(
        self, retention: Retention, *, lease: Callable[[], str], keep: Callable[[str], Keep], period_s: float
    ) -> None:
        self._retention = retention
        self._lease = lease
        self._keep = keep
        self._period_s = period_s

    async def run(self) -> None:
        """Sweep when it is time and nobody else does, until cancelled."""
        while True:
            await asyncio.sleep(self._period_s)
            try:
                if await self._retention.claim(self._lease(), self._held_ms):
                    done = await self.sweep()
                    log.info("swept", rooms=done.rooms, trimmed=done.trimmed, rewritten=done.rewritten)
            except StoreError as error:
                log.warning("sweep not finished", error=str(error))

    async def sweep(self) -> Tally:
        """Go through all rooms once.

        Raises:
            StoreError: the store did not answer; the next sweep begins anew.
        """
        done = Tally()
        async for rooms in self._retention.rooms():
            await self._retention.go_on(self._lease(), self._held_ms)
            for start in range(0, len(rooms), AT_ONCE):
                await self._sweep(rooms[start : start + AT_ONCE], done)
                await asyncio.sleep(PAUSE_S)
        return done

    async def _sweep(self, rooms: list[str], done: Tally) -> None:
        for swept in await asyncio.gather(*(self._retention.sweep(room, self._keep(room)) for room in rooms)):
            done.rooms += 1
            done.trimmed += swept.trimmed
            done.rewritten += swept.rewritten

    @property
    def _held_ms(self) -> int:
        return max(1, int(self._period_s * HELD * 1000))
