"""Rooms that somebody created, and who belongs to them; a room by pattern only is not known here.

A room's record and its members are two hashes beside its messages, in one slot with them, so that the script that
appends a message can look at them. See publish.lua for their fields.
"""

from __future__ import annotations

from collections.abc import Sequence

from chatd.model import Role, Standing

from .keys import Keys
from .scripts import Batch, Script

STANDING = Script("standing")


class Rooms:
    """The records of rooms."""

    def __init__(self, batch: Batch, keys: Keys) -> None:
        self._batch = batch
        self._keys = keys

    async def standing(self, room: str, user: str) -> Standing:
        """What holds in `room`, and what `user` is there (standing.lua)."""
        keys = [self._keys.room(room), self._keys.members(room)]
        exists, public, locked, slow_ms, role, since = await self._batch.script(STANDING, keys, (user,))
        return Standing(bool(exists), bool(public), bool(locked), slow_ms, Role(role), since)

    async def members_among(self, room: str, users: Sequence[str]) -> set[str]:
        """Those of `users` who belong to `room`."""
        if not users:
            return set()
        found = await self._batch.command("HMGET", self._keys.members(room), *users)
        return {user for user, membership in zip(users, found, strict=True) if membership is not None}
