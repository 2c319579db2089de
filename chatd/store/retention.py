"""Keeping rooms as short as their rules say, and finding them: for the sweep, for export and for forgetting.

Rooms stand in no list, so whoever wants them all walks over the store's keys, in steps so small that nobody notices.
"""

from __future__ import annotations

from asyncio import gather
from collections.abc import AsyncIterator
from typing import Final, NamedTuple

from redis.exceptions import RedisError

from chatd.batched import batched

from .connect import Servers
from .errors import translated
from .keys import Keys
from .messages import LOG, Keep
from .scripts import Batch, Script

SWEEP: Final = Script("sweep", after=LOG)

# Entries of one room looked at for their age in one step: a millisecond of the store's time.
STEP: Final = 1000
# Rooms of one user's cursors that are looked for in one step.
ROOMS_AT_ONCE: Final = 50
# A log of as many messages is rewritten in 20 ms, in which the store does nothing else. Bodies erased in a longer one
# stay in the store's memory until the messages around them have gone.
REWRITTEN: Final = 10_000


class Swept(NamedTuple):
    """What a sweep of a room did: how many messages went, and whether erased bodies were."""

    trimmed: int
    rewritten: bool


class Retention:
    """See the head of this file."""

    def __init__(self, batch: Batch, keys: Keys, servers: Servers) -> None:
        self._batch = batch
        self._keys = keys
        self._servers = servers

    async def claim(self, lease: str, ms: int) -> bool:
        """Whether the node behind `lease` is the one to sweep; for so long nobody else is."""
        return bool(await self._batch.command("SET", self._keys.sweeper, lease, "NX", "PX", ms))

    async def go_on(self, lease: str, ms: int) -> None:
        """The sweep takes longer than was thought."""
        await self._batch.command("SET", self._keys.sweeper, lease, "PX", ms)

    async def rooms(self, kind: str = "meta") -> AsyncIterator[list[str]]:
        """Every room that has a key of this kind, in handfuls; one that changes meanwhile may come twice."""
        try:
            async for found in self._servers.scan(self._keys.every(kind)):
                yield [room for key in found if (room := self._keys.room_of(key.decode(), kind)) is not None]
        except RedisError as error:
            raise translated(error) from error

    async def readers(self) -> AsyncIterator[list[str]]:
        """Every user who has read somewhere, as `rooms`."""
        async for found in self.rooms("cursors"):  # a user's keys are named like those of a room "u:<user>"
            yield [name.removeprefix("u:") for name in found]

    async def forget_cursors(self, user: str) -> int:
        """Forget how far `user` has read in rooms that are gone: a count that begins anew is another. In how many?"""
        cursors, forgotten = self._keys.cursors(user), 0
        rooms = await self._batch.command("HKEYS", cursors)
        for some in batched(rooms, ROOMS_AT_ONCE):
            there = await gather(*(self._batch.command("EXISTS", self._keys.meta(room.decode())) for room in some))
            if gone := [room for room, is_there in zip(some, there, strict=True) if not is_there]:
                forgotten += await self._batch.command("HDEL", cursors, *gone)
        return forgotten

    async def sweep(self, room: str, keep: Keep) -> Swept:
        """Trim a room to what is to be kept, and rewrite its log where bodies were erased (sweep.lua)."""
        trimmed, rewritten = 0, False
        while True:
            args = (keep.messages, keep.ms, STEP, REWRITTEN)
            step, anew = await self._batch.script(SWEEP, self._keys.history(room), args)
            trimmed, rewritten = trimmed + step, rewritten or bool(anew)
            if step < STEP:
                return Swept(trimmed, rewritten)
