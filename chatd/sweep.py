"""What keeps rooms as short as their rules say, also those into which nobody writes, and ends those nobody needs.

A room that is written into is trimmed with every message, and nothing past its age is shown; the sweep is for the rest:
quiet rooms, rules that have changed, the bodies of what was deleted, and cursors in rooms that are gone. One node at a
time does it, in steps so small that neither the store nor this node's own people notice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Final

import structlog

from .batched import batched
from .errors import Reject
from .store.errors import StoreError
from .store.messages import Keep
from .store.retention import Retention
from .store.rooms import Rooms

log = structlog.get_logger("chatd")

# Rooms swept in one pipeline: half a millisecond of the store's time, if there is little to do.
AT_ONCE: Final = 50
# Users whose cursors are looked at together; of each, as many rooms as retention.ROOMS_AT_ONCE.
READERS_AT_ONCE: Final = 10
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
    collected: int = 0
    cursors: int = 0


class Sweeper:
    """See the head of this file.

    Args:
        lease: the node's current lease, under which it sweeps.
        keep: how a room is kept.
        idle: after how many milliseconds of idleness a created room is taken away; 0: never.
        period_s: how often there is to be a sweep in the cluster.
    """

    def __init__(
        self,
        retention: Retention,
        rooms: Rooms,
        *,
        lease: Callable[[], str],
        keep: Callable[[str], Keep],
        idle: Callable[[str], int],
        period_s: float,
    ) -> None:
        self._retention = retention
        self._rooms = rooms
        self._idle = idle
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
                    await self.collect(done)
                    await self.tidy(done)
                    log.info("swept", **asdict(done))
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
            for some in batched(rooms, AT_ONCE):
                await self._sweep(some, done)
                await asyncio.sleep(PAUSE_S)
        return done

    async def _sweep(self, rooms: Sequence[str], done: Tally) -> None:
        for swept in await asyncio.gather(*(self._retention.sweep(room, self._keep(room)) for room in rooms)):
            done.rooms += 1
            done.trimmed += swept.trimmed
            done.rewritten += swept.rewritten

    async def collect(self, done: Tally) -> None:
        """Take away the created rooms that have been idle for too long.

        Raises:
            StoreError: as for `sweep`.
        """
        after = ""
        while names := await self._rooms.created(after, AT_ONCE):
            await self._retention.go_on(self._lease(), self._held_ms)
            done.collected += sum(await asyncio.gather(*(self._collected(room) for room in names)))
            after = names[-1]
            await asyncio.sleep(PAUSE_S)

    async def tidy(self, done: Tally) -> None:
        """Forget how far people have read in rooms that are gone.

        Raises:
            StoreError: as for `sweep`.
        """
        async for users in self._retention.readers():
            await self._retention.go_on(self._lease(), self._held_ms)
            for some in batched(users, READERS_AT_ONCE):
                done.cursors += sum(await asyncio.gather(*map(self._retention.forget_cursors, some)))
                await asyncio.sleep(PAUSE_S)

    async def _collected(self, room: str) -> bool:
        if not (idle_ms := self._idle(room)):
            return False
        try:
            await self._rooms.dissolve(room, by=None, idle_ms=idle_ms)
        except Reject:  # it is in use, or was taken away meanwhile
            return False
        log.info("idle room taken away", room=room)
        return True

    @property
    def _held_ms(self) -> int:
        return max(1, int(self._period_s * HELD * 1000))
