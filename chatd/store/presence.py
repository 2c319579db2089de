"""Who is in which room, by user over all their connections and all nodes; and who was last seen when.

A room's readers are told of a user's first connection, and of the last one's going: that later, so that a page that is
loaded anew is no news. What is to be told later stands in the store, so that it survives whoever wrote it: in the room,
and in a list of rooms in which something is due, which every node looks at.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final, NamedTuple

import orjson

from chatd.batched import batched
from chatd.model import Json

from .keys import Keys, registry_shard
from .outbox import Outbox
from .scripts import Batch, Script

JOIN, PRESENT, DUE, REBOOK = map(Script, ["join", "present", "due", "rebook"])
LEAVE, LEFT = Script("leave", after=("announce",)), Script("left", after=("announce",))

# A node that announces what is due and needs longer than this has died; another does it.
CLAIM_MS: Final = 10_000
# Rooms in which one look announces what is due.
AT_ONCE: Final = 500
# Who has not been seen for longer than this was here long ago, and that is all one need know: a year.
SEEN_MS: Final = 365 * 86_400_000


class Seen(NamedTuple):
    """Whether a user is connected anywhere; and if not, until when they were, in Unix ms, None where nobody knows."""

    online: bool
    last: int | None


class DueRooms(NamedTuple):
    """Rooms in which leaves are to be announced by whoever holds this, which is until `until`, Unix ms."""

    rooms: tuple[str, ...]
    until: bytes


class Presence:
    """See the head of this file."""

    def __init__(self, batch: Batch, keys: Keys, outbox: Outbox) -> None:
        self._batch = batch
        self._keys = keys
        self._outbox = outbox

    # --- coming and going ---------------------------------------------------------------------------------------------

    async def join(self, room: str, lease: str, user: str, client: str, info: Json, announce_to: int) -> None:
        """Enter a connection among those present, and announce its user if it is the first (join.lua)."""
        told = self._outbox.length("join", room)
        args = (orjson.dumps(user), client.encode() + b"\0", lease.encode() + b"\0", info, announce_to, told)
        if await self._batch.script(JOIN, self._room(room), args) and told:
            await self._outbox.mark(room)

    async def leave(
        self, room: str, lease: str, announce_to: int, *, delay_ms: int = 0, one: tuple[str, str] | None = None
    ) -> int:
        """Take a connection, or all of a lease, out of those present, and see to the announcement (leave.lua).

        Args:
            delay_ms: how long to wait whether the user comes back.
            one: (user, connection); None: all of the lease.
        Returns:
            How many connections were there.
        """
        which = [] if one is None else [orjson.dumps(one[0]) + b"\0" + one[1].encode() + b"\0"]
        keys = [*self._room(room), self._keys.room(room)]
        told = self._outbox.length("leave", room)
        count, due = await self._batch.script(LEAVE, keys, (lease, announce_to, delay_ms, told, *which))
        if told and count and not delay_ms:
            await self._outbox.mark(room)
        if due:
            await self._batch.command("ZADD", self._keys.due, "LT", due, room)
        return int(count)

    async def due(self) -> DueRooms:
        """Rooms in which leaves are to be announced, which are now ours to see to (due.lua)."""
        until, *rooms = await self._batch.script(DUE, [self._keys.due], (CLAIM_MS, AT_ONCE))
        return DueRooms(tuple(room.decode() for room in rooms), until)

    async def announce_left(self, room: str, announce_to: int, until: bytes) -> None:
        """Announce who has left `room` and not come back in time, each once (left.lua)."""
        told = self._outbox.length("leave", room)
        due = await self._batch.script(LEFT, self._room(room), (announce_to, told))
        if told:
            await self._outbox.mark(room)
        await self._batch.script(REBOOK, [self._keys.due], (room, until, due))

    # --- asking -------------------------------------------------------------------------------------------------------

    async def of(self, room: str, most: int | None = None) -> dict[str, Json] | None:
        """Connection id to client info, of everybody present; None if they are more than `most` (None: no limit)."""
        found = await self._batch.script(PRESENT, [self._keys.present(room)], (-1 if most is None else most,))
        if isinstance(found, int):
            return None
        return {client.decode(): info for _, client, _, info in (member.split(b"\0", 3) for member in found)}

    async def stats(self, room: str) -> tuple[int, int]:
        """How many connections and how many users are present."""
        found = await self._batch.command("ZRANGE", self._keys.present(room), 0, -1)
        return len(found), len({member.partition(b"\0")[0] for member in found})

    async def among(self, room: str, users: Sequence[str]) -> set[str]:
        """Those of `users` who are present in `room`, however many others are."""
        counts = await asyncio.gather(*(self._lines(self._keys.present(room), user) for user in users))
        return {user for user, count in zip(users, counts, strict=True) if count}

    async def seen(self, users: Sequence[str]) -> list[Seen]:
        """Who of `users` is connected anywhere, and since when the others are not."""
        counts, last = await asyncio.gather(
            asyncio.gather(*(self._lines(self._keys.registry(registry_shard(user)), user) for user in users)),
            asyncio.gather(*(self._batch.command("GET", self._keys.seen(user)) for user in users)),
        )
        return [
            Seen(count > 0, None if count or ms is None else int(ms)) for count, ms in zip(counts, last, strict=True)
        ]

    def _lines(self, key: str, user: str) -> asyncio.Future[int]:
        """How many of a set's members, which begin with their user as JSON, are this user's."""
        first = orjson.dumps(user) + b"\0"
        return self._batch.command("ZLEXCOUNT", key, b"[" + first, b"(" + first + b"\xff")

    async def saw(self, users: Sequence[str], ms: int) -> None:
        """The last connection of each of `users` has gone, at Unix ms `ms`."""
        for some in batched(users, AT_ONCE):
            await asyncio.gather(
                *(self._batch.command("SET", self._keys.seen(user), ms, "PX", SEEN_MS) for user in some)
            )

    # --- for whoever clears up ----------------------------------------------------------------------------------------

    async def enter_room(self, lease: str, room: str) -> None:
        """Note that this node has somebody in `room`, before anybody is entered there: the reaper looks here."""
        await self._batch.command("SADD", self._keys.rooms(lease), room)

    async def leave_room(self, lease: str, room: str) -> None:
        await self._batch.command("SREM", self._keys.rooms(lease), room)

    async def rooms_of(self, lease: str) -> list[str]:
        return [room.decode() for room in await self._batch.command("SMEMBERS", self._keys.rooms(lease))]

    def _room(self, room: str) -> list[str]:
        """In the order in which join.lua wants it."""
        keys = self._keys
        return [keys.present(room), keys.feed(room), keys.leaving(room), keys.outbox(room)]
