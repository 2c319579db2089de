"""What is written down about rooms, and who belongs to them.

A room's record and its members are two hashes beside its messages, in one slot with them, so that the script that
appends a message can look at them. See append.lua for their fields. Which rooms there are, and which somebody belongs
to, stands in keys of its own in other slots: these are written before a room and taken back after it, so they may name
one too many for a moment, and never one too few.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from heapq import merge
from itertools import islice
from typing import Any, Final

from chatd import errors
from chatd.batched import batched
from chatd.errors import Reject
from chatd.model import Actor, Member, Position, Record, Role, Standing
from chatd.names import dm_members

from .keys import REGISTRY_SHARDS, Keys, registry_shard
from .scripts import Batch, Script

STANDING, BELONG = Script("standing"), Script("belong")
CREATE, PLACE, ALTER = (Script(name, lasting=True) for name in ("create", "place", "alter"))
DISSOLVE = Script("dissolve")  # not lasting: a second try could not put out who reads there, so that goes before

# Keys of the application's own in a room's record.
RECORD_KEYS: Final = 16
# Members whose own lists are mended at the same time when a room goes.
AT_ONCE: Final = 500

# What the scripts call their refusals.
REFUSALS: Mapping[bytes, Reject] = {
    b"missing": errors.NO_SUCH.because("nobody has created this room; see room.create"),
    b"outsider": errors.PERMISSION_DENIED.because("this room needs an invitation"),
    b"rank": errors.PERMISSION_DENIED.because("this takes a higher role than yours in this room"),
    b"last": errors.PERMISSION_DENIED.because("a room's last owner stays; make somebody else an owner first"),
    b"full": errors.FULL.because("no more members, or keys, fit into this room"),
    b"busy": errors.EXISTS.because("the room is in use"),
}


class Rooms:
    """The records of rooms."""

    def __init__(self, batch: Batch, keys: Keys) -> None:
        self._batch = batch
        self._keys = keys

    # --- asking -------------------------------------------------------------------------------------------------------

    async def standing(self, room: str, user: str) -> Standing:
        """What holds in `room`, and what `user` is there (standing.lua)."""
        keys = [self._keys.room(room), self._keys.members(room), self._keys.meta(room)]
        reply = await self._batch.script(STANDING, keys, (user, blocker(room, user)))
        exists, public, locked, slow_ms, role, since, blocked, epoch, top = reply
        place = Position(epoch.decode(), top)
        return Standing(bool(exists), bool(public), bool(locked), slow_ms, Role(role), since, bool(blocked), place)

    async def record(self, room: str) -> Record:
        """All that is written down about `room`; what nobody wrote is at its default."""
        fields, members = await asyncio.gather(
            self._batch.command("HGETALL", self._keys.room(room)), self._batch.command("HLEN", self._keys.members(room))
        )
        had = {field.decode(): value.decode() for field, value in pairs(fields)}
        return Record(
            public=had.get("public") == "1",
            locked=had.get("locked") == "1",
            slow_ms=int(had.get("slow", 0)),
            topic=had.get("topic", ""),
            keys={field[2:]: value for field, value in sorted(had.items()) if field.startswith("k:")},
            created=int(had.get("created", 0)),
            by=had.get("by", ""),
            members=members,
        )

    async def created(self, after: str, limit: int) -> list[str]:
        """The first `limit` names of created rooms behind `after`, by code point; "" for those from the beginning."""
        start = f"({after}" if after else "-"
        shards = await asyncio.gather(
            *(
                self._batch.command("ZRANGEBYLEX", self._keys.created(n), start, "+", "LIMIT", 0, limit)
                for n in range(REGISTRY_SHARDS)
            )
        )
        return [name.decode() for name in islice(merge(*shards), limit)]

    async def rooms_of(self, user: str) -> list[str]:
        """The rooms that `user` is a member of, by name; may have one he has just left."""
        return sorted(room.decode() for room in await self._batch.command("SMEMBERS", self._keys.rooms_of(user)))

    async def members(self, room: str) -> list[Member]:
        """Everybody who belongs to `room`, by name."""
        found = pairs(await self._batch.command("HGETALL", self._keys.members(room)))
        return sorted((_member(user, value) for user, value in found), key=lambda member: member.user)

    async def members_among(self, room: str, users: Sequence[str]) -> set[str]:
        """Those of `users` who belong to `room`."""
        if not users:
            return set()
        found = await self._batch.command("HMGET", self._keys.members(room), *users)
        return {user for user, membership in zip(users, found, strict=True) if membership is not None}

    # --- changing -----------------------------------------------------------------------------------------------------

    async def create(
        self, room: str, *, by: str, owner: str, public: bool, topic: str, keys: Mapping[str, str], unused: bool
    ) -> None:
        """Give `room` a record (create.lua).

        Args:
            by: who creates it, for all to see; "" for an operator.
            owner: becomes its owner, and was noted by `belong`; "" for nobody.
            unused: not where something was said or somebody is present.
        Raises:
            Reject 406: it has one, or is in use.
        """
        await self._list(room)
        slot = [self._keys.room(room), self._keys.members(room), self._keys.meta(room), self._keys.present(room)]
        fields = [part for key, value in keys.items() for part in (f"k:{key}", value)]
        if not await self._batch.script(CREATE, slot, (by, owner, int(public), topic, int(unused), *fields)):
            if not (await self.standing(room, "")).exists:
                await self._unlist(room)
            raise errors.EXISTS.because("this room exists already, or people talk in it; take another name")
        await self._list(room)  # again: whoever saw to the end of an older one may just have taken it off

    async def belong(self, user: str, room: str, most: int) -> bool:
        """Note that `user` is about to belong to `room`; whether this is new (belong.lua).

        Raises:
            Reject 415: he belongs to `most` rooms (0: no limit).
        """
        noted: int = await self._batch.script(BELONG, [self._keys.rooms_of(user)], (room, most))
        if noted < 0:
            raise errors.FULL.because(f"{user!r} is a member of {most} rooms, and may be in no more")
        return bool(noted)

    async def belong_no_more(self, user: str, room: str) -> None:
        """Take back what `belong` noted, unless he has become a member meanwhile."""
        noted = self._keys.rooms_of(user)
        await self._batch.command("SREM", noted, room)
        if await self.members_among(room, [user]):
            await self._batch.command("SADD", noted, room)

    async def place(
        self, room: str, user: str, role: Role, *, by: Actor | None, least: Role, keep: bool = False, most: int = 0
    ) -> tuple[Role, Role]:
        """Make `user` a member of `room` with `role`, or, with NOBODY, end that (place.lua).

        Args:
            by: who does it; None: the server, who may always.
            least: what it takes to do it to somebody else.
            keep: who is a member already stays what he is.
            most: members that the room may have; 0: any number.
        Returns:
            What he was and what he is.
        Raises:
            Reject 404, 103, 415.
        """
        actor, granted = _actor(by)
        keys = [self._keys.room(room), self._keys.members(room), self._keys.meta(room)]
        args = (user, int(role), int(keep), actor, granted, int(least), most)
        before, after = _or_refused(await self._batch.script(PLACE, keys, args))
        return Role(before), Role(after)

    async def alter(
        self, room: str, fields: Mapping[str, str], *, by: Actor | None, least: Role, created: bool
    ) -> frozenset[str]:
        """Write `fields` of the record, "" to take one out; which are different now (alter.lua).

        Args:
            created: only where somebody has created the room.
        Raises:
            Reject 404, 103, 415.
        """
        actor, granted = _actor(by)
        pieces: list[str] = [part for field in fields.items() for part in field]
        args: list[str | int] = [actor, granted, int(least), int(created), RECORD_KEYS, *pieces]
        _, *changed = _or_refused(
            await self._batch.script(ALTER, [self._keys.room(room), self._keys.members(room)], args)
        )
        return frozenset(field.decode() for field in changed)

    async def block(self, by: str, user: str, room: str, *, on: bool, most: int) -> None:
        """In their direct room, let `user` say nothing to `by`, or let him again; no record comes of it.

        Raises:
            Reject 415: `by` blocks `most` users already.
        """
        noted = self._keys.blocked_by(by)
        if on and await self._batch.script(BELONG, [noted], (user, most)) < 0:
            raise errors.FULL.because(f"a user blocks at most {most} users; let another one speak again first")
        await self.alter(room, {blocker(room, user): "1" if on else ""}, by=None, least=Role.OWNER, created=False)
        if not on:
            await self._batch.command("SREM", noted, user)

    async def blocks(self, user: str, other: str) -> bool:
        """Whether `user` has shut `other` out."""
        return bool(await self._batch.command("SISMEMBER", self._keys.blocked_by(user), other))

    async def blocked_by(self, user: str) -> list[str]:
        """Whom `user` has shut out, by name; may have one he has just let in again."""
        return sorted(other.decode() for other in await self._batch.command("SMEMBERS", self._keys.blocked_by(user)))

    async def dissolve(self, room: str, *, by: Actor | None, idle_ms: int = 0) -> list[str]:
        """Take `room` away with all that was said in it (dissolve.lua); who belonged to it.

        Args:
            idle_ms: only if nobody is present and nothing happened for so long; 0: in any case.
        Raises:
            Reject 404, 103. Reject 406: it is not idle.
        """
        actor, granted = _actor(by)
        args = (actor, granted, int(Role.OWNER), idle_ms)
        _, *members = _or_refused(await self._batch.script(DISSOLVE, self._keys.all_of(room), args))
        users = [user.decode() for user in members]
        await self._unlist(room)
        for some in batched(users, AT_ONCE):
            await asyncio.gather(*(self.belong_no_more(user, room) for user in some))
        return users

    async def lasting(self, room: str) -> None:
        """Return once replicas have what was done to `room` until now, where they are waited for."""
        await self._batch.command("EXISTS", self._keys.room(room), lasting=True)

    async def _list(self, room: str) -> None:
        await self._batch.command("ZADD", self._keys.created(registry_shard(room)), 0, room)

    async def _unlist(self, room: str) -> None:
        """Take a room that is not there off the list of all, unless somebody creates it meanwhile."""
        await self._batch.command("ZREM", self._keys.created(registry_shard(room)), room)
        if (await self.standing(room, "")).exists:
            await self._list(room)


def blocker(room: str, user: str) -> str:
    """In a direct room, the field by which the other one has shut `user` out; else ""."""
    members = dm_members(room) if user else None
    return "" if members is None else f"shut:{user}"


def pairs(reply: Any) -> list[tuple[bytes, bytes]]:
    """A flat reply, or redis-py's mapping of it, as pairs."""
    if isinstance(reply, Mapping):
        return list(reply.items())
    return list(zip(reply[::2], reply[1::2], strict=True))


def _member(user: bytes, value: bytes) -> Member:
    role, since, joined, *epoch = value.decode().split(" ")
    return Member(user.decode(), Role(int(role)), int(joined), Position("".join(epoch), int(since)))


def _actor(by: Actor | None) -> tuple[str, int]:
    return ("", 0) if by is None else (by.user, int(by.granted))


def _or_refused(reply: Sequence[Any]) -> Sequence[Any]:
    """
    Raises:
        Reject: the script said no.
    """
    if reply[0] == -1:
        raise REFUSALS[reply[1]].anew()
    return reply
