"""How far each user has read in each room, on whichever device."""

from __future__ import annotations

from collections.abc import Sequence

from chatd.model import NOWHERE, Position

from .keys import Keys
from .rooms import pairs
from .scripts import Batch, Script

READ = Script("read")


class Cursors:
    """The users' cursors."""

    def __init__(self, batch: Batch, keys: Keys) -> None:
        self._batch = batch
        self._keys = keys

    async def move(self, user: str, room: str, to: Position) -> tuple[int, bool]:
        """Move a cursor forward; where it is now, and whether it moved (read.lua)."""
        at, moved = await self._batch.script(READ, [self._keys.cursors(user)], (room, to.offset, to.epoch))
        return at, bool(moved)

    async def of(self, user: str, rooms: Sequence[str]) -> list[Position]:
        """Where the user's cursors are; NOWHERE where nothing was read."""
        if not rooms:
            return []
        return [_position(value) for value in await self._batch.command("HMGET", self._keys.cursors(user), *rooms)]

    async def all(self, user: str) -> dict[str, Position]:
        """Every cursor of the user, by room."""
        found = pairs(await self._batch.command("HGETALL", self._keys.cursors(user)))
        return {room.decode(): _position(value) for room, value in found}


def _position(value: bytes | None) -> Position:
    if value is None:
        return NOWHERE
    offset, _, epoch = value.decode().partition(" ")
    return Position(epoch, int(offset))
