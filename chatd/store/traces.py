"""What there is of somebody, or of a room: read page by page to be taken away by its owner, and forgotten.

A room's history is read raw here, events and tombstones included. Who wrote something is known by its `info`, which
only the server writes.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final, NamedTuple

import orjson

from chatd.model import Json
from chatd.names import dm_members
from chatd.wire.publication import Publication, head, parse

from .keys import Keys
from .messages import APPEND, Keep, Messages, appending_args, appending_keys
from .outbox import Outbox
from .retention import Retention
from .scripts import Batch, Script

FORGET: Final = Script("forget", after=(*APPEND, "erase"), lasting=True)
UNNAME: Final = Script("unname", lasting=True)

# Publications read at a time; what a user wrote among them is forgotten in one step, which takes some milliseconds.
PAGE: Final = 500
# A room's keys that may have a user in them.
KINDS: Final = ("meta", "room", "members")


class Page(NamedTuple):
    """A part of a room's history: publications by offset, all of one epoch."""

    epoch: str
    publications: list[tuple[int, Json]]


class Forgotten(NamedTuple):
    """How much of somebody is gone.

    Attributes:
        messages: bodies, of messages and of their edits.
        notices: of what they did to rooms and to others, which are nobody's now.
        cursors: rooms in which it was known how far they had read.
        reports: open reports by them or about what they said.
        ownerless: rooms that lost their last owner.
    """

    messages: int = 0
    reactions: int = 0
    memberships: int = 0
    ownerless: int = 0
    cursors: int = 0
    reports: int = 0
    notices: int = 0

    def and_also(self, more: Forgotten) -> Forgotten:
        return Forgotten(*(one + other for one, other in zip(self, more, strict=True)))


class Traces:
    """See the head of this file."""

    def __init__(self, batch: Batch, keys: Keys, messages: Messages, retention: Retention, outbox: Outbox) -> None:
        self._batch = batch
        self._keys = keys
        self._messages = messages
        self._retention = retention
        self._outbox = outbox

    async def rooms(self) -> list[str]:
        """Every room in which there may be something of anybody."""
        return sorted({room for kind in KINDS async for found in self._retention.rooms(kind) for room in found})

    async def history(self, room: str) -> AsyncIterator[Page]:
        """All that is kept of what was said in `room` until now, oldest first."""
        kept = await self._messages.kept(room)
        after, last = 0, 0 if kept is None else kept.top.offset
        while after < last:
            publications, top = await self._messages.page(room, after, PAGE)
            if not publications:
                return
            yield Page(top.epoch, publications)
            after = publications[-1][0]

    async def forget(self, room: str, user: str, keep: Keep) -> Forgotten:
        """Take `user` out of `room` (forget.lua), and their bodies out of the store's memory (sweep.lua) and of what
        the application is still to be told."""
        done = await self._forget(room, user, keep, "", [])
        for other in dm_members(room) or ():
            await self._batch.command("SREM", self._keys.blocked_by(other), user)
        async for page in self.history(room):
            said = [(offset, parse(body)) for offset, body in page.publications]
            if offsets := [offset for offset, each in said if each.user == user]:
                done = done.and_also(await self._forget(room, user, keep, page.epoch, offsets))
            if offsets := [offset for offset, each in said if _names(each, user)]:
                done = done.and_also(await self._unname(room, user, page.epoch, offsets))
        await self._retention.sweep(room, keep)
        await self._outbox.withdraw(room, user)
        return done

    async def forget_personal(self, user: str, room: str) -> Forgotten:
        """Forget what stands under a user's own name: their personal channel `room`, their rooms and cursors."""
        cursors = await self._batch.command("HLEN", self._keys.cursors(user))
        await self._retention.sweep(room, Keep(0, 0))
        await self._batch.command("DEL", *self._keys.all_of_user(user), lasting=True)
        return Forgotten(cursors=cursors)

    async def _forget(self, room: str, user: str, keep: Keep, epoch: str, offsets: list[int]) -> Forgotten:
        event = head(b"{}", None, {"type": "delete", "of": ",".join(map(str, offsets))})
        told = self._outbox.length("delete", room)
        args = [*appending_args(room, event, keep, None), user, told, epoch, *offsets]
        keys = [*appending_keys(self._keys, room, None), self._keys.outbox(room)]
        done = Forgotten(*await self._batch.script(FORGET, keys, args))
        if offsets:
            await self._outbox.changed(room, "delete")
        # Another epoch has begun since: what was read is gone.
        return done if done.messages >= 0 else Forgotten()

    async def _unname(self, room: str, user: str, epoch: str, offsets: list[int]) -> Forgotten:
        keys = self._keys.history(room)[:3]
        return Forgotten(notices=await self._batch.script(UNNAME, keys, (epoch, _ending(user), _ending(""), *offsets)))


def _names(said: Publication, user: str) -> bool:
    """Whether the server tells here of something that `user` did."""
    return said.user is None and not said.is_message and said.members.get("by") == user


def _ending(by: str) -> bytes:
    """How the data of what the server tells ends, and its tags begin."""
    return b',"by":%b},"tags":{' % orjson.dumps(by)
