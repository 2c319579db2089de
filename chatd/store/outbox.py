"""What the application is still to be told: an outbox a room, in one slot with it, and marks that say where to look.

An entry is written in the same step as what it is about, so an outbox has a room's events in their order. The mark,
which lies elsewhere, follows before whoever acted is answered. One node at a time delivers what a shard of marks leads
to, as long as it holds the shard; an entry goes only when it was delivered, so it may be delivered twice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

import orjson
import structlog

from chatd.model import Json, Published
from chatd.settings import Hooks
from chatd.wire.publication import parse

from .keys import Keys, hook_shard
from .rooms import pairs
from .scripts import Batch, Script

log = structlog.get_logger("chatd.store")

# Entries of one room that wait while the application is away; the oldest go first.
OUTBOX_LENGTH: Final = 10_000
# Events that bear somebody's words, which are not told any more when he is forgotten.
WORDS: Final = ("message", "edit")
# Entries looked at in one step, when somebody's are looked for.
PAGE: Final = 200

HOLD, DELIVERED, UNMARK = map(Script, ["hold", "delivered", "unmark"])


class Entry(NamedTuple):
    """Something to be told: `id` is unique in its room, `at` Unix ms."""

    id: str
    event: str
    at: int
    body: Json


class Watched(NamedTuple):
    """A message of which somebody may have to be told that it was not read."""

    room: str
    offset: int
    epoch: str
    author: str


class Outbox:
    """The outboxes.

    Attributes:
        hooks: what the application wants to be told; set by whoever has the settings.
        on_mark: told the shard in which this process has just marked a room.
    """

    def __init__(self, batch: Batch, keys: Keys) -> None:
        self._batch = batch
        self._keys = keys
        self.hooks = Hooks()
        self.on_mark: Callable[[int], None] = lambda shard: None

    # --- what happens -------------------------------------------------------------------------------------------------

    def length(self, event: str, room: str) -> int:
        """For a script that writes an entry: how many may wait; 0: nobody wants to know of it."""
        return OUTBOX_LENGTH if self.hooks.wants(event, room) else 0

    async def said(self, room: str, said: Published, author: str) -> None:
        """See that a message is told, and later who has not read it, where that is wanted.

        It is done before the message is acknowledged; and again when it is repeated, since whoever appended it may have
        died before it got here.
        """
        if self.hooks.wants("message", room):
            await self.mark(room)
        if said.position is not None and self.hooks.wants("undelivered", room):
            await self._watch(Watched(room, said.position.offset, said.position.epoch, author), said.time_ms)

    async def changed(self, room: str, event: str) -> None:
        """See that what became of a message is told, where that is wanted; when and why as for `said`."""
        if self.hooks.wants(event, room):
            await self.mark(room)

    async def mark(self, room: str) -> None:
        """Have the room's outbox looked at."""
        shard = hook_shard(room)
        await self._batch.command("HINCRBY", self._keys.hooked(shard), room, 1)
        self.on_mark(shard)

    async def add(self, event: str, room: str, what: Mapping[str, Any]) -> None:
        """Write an entry that belongs to no other step, if it is wanted; `room` is "" for what holds everywhere."""
        if not self.hooks.wants(event, room):
            return
        at = await self._now_ms()
        entry = ("e", event, "b", orjson.dumps(what), "t", at)
        await self._batch.command("XADD", self._keys.outbox(room), "MAXLEN", "~", OUTBOX_LENGTH, "*", *entry)
        await self.mark(room)

    async def _watch(self, message: Watched, said_ms: int) -> None:
        """Have it seen, when it is time, who has not read a message; said again, it has no second effect."""
        key, due_ms = (
            self._keys.unread_due(hook_shard(message.room)),
            said_ms + int(self.hooks.undelivered_after * 1000),
        )
        await self._batch.command("ZADD", key, "NX", due_ms, orjson.dumps(tuple(message)))

    # --- who delivers -------------------------------------------------------------------------------------------------

    async def hold(self, shard: int, lease: str, ttl_ms: int) -> bool:
        """Take or keep a shard for so long (0: let it go); False: another node has it (hold.lua)."""
        return bool(await self._batch.script(HOLD, [self._keys.hook_holder(shard)], (lease, ttl_ms)))

    async def marked(self, shard: int) -> dict[str, bytes]:
        """Rooms to look at, each with the state of its mark."""
        found = await self._batch.command("HGETALL", self._keys.hooked(shard))
        return {room.decode(): state for room, state in pairs(found)}

    async def waiting(self, room: str, most: int) -> list[Entry]:
        """The oldest entries of a room's outbox; what is none is dropped, for all others wait behind it."""
        outbox, entries = self._keys.outbox(room), list[Entry]()
        while not entries and (rows := await self._batch.command("XRANGE", outbox, "-", "+", "COUNT", most)):
            found = {id: _entry(id, fields) for id, fields in rows}
            for id in [id for id, entry in found.items() if entry is None]:
                log.warning("not understood in an outbox, dropped", id=id.decode())
                await self._batch.command("XDEL", outbox, id)
            entries = [entry for entry in found.values() if entry is not None]
        return entries

    async def delivered(self, room: str, id: str) -> None:
        await self._batch.script(DELIVERED, [self._keys.outbox(room)], (id,))

    async def withdraw(self, room: str, user: str) -> None:
        """Do not tell any more what `user` has said."""
        last = "-"
        while rows := await self._batch.command("XRANGE", self._keys.outbox(room), last, "+", "COUNT", PAGE):
            entries = [entry for id, fields in rows if (entry := _entry(id, fields)) is not None]
            theirs = [each.id for each in entries if each.event in WORDS and parse(each.body).user == user]
            if theirs:
                await self._batch.command("XDEL", self._keys.outbox(room), *theirs)
            last = f"({rows[-1][0].decode()}"

    async def unmark(self, room: str, state: bytes) -> None:
        """The outbox was empty after the mark had this state: it need not be looked at until somebody marks it."""
        await self._batch.script(UNMARK, [self._keys.hooked(hook_shard(room))], (room, state))

    async def due(self, shard: int, most: int) -> list[Watched]:
        """Messages of which it is time to see who has not read them."""
        key = self._keys.unread_due(shard)
        rows = await self._batch.command("ZRANGEBYSCORE", key, "-inf", await self._now_ms(), "LIMIT", 0, most)
        found = {row: _watched(row) for row in rows}
        for row in [row for row, message in found.items() if message is None]:
            log.warning("not understood among unread messages, dropped", begins=row[:64])
            await self._batch.command("ZREM", key, row)
        return [message for message in found.values() if message is not None]

    async def seen_to(self, message: Watched) -> None:
        await self._batch.command("ZREM", self._keys.unread_due(hook_shard(message.room)), orjson.dumps(tuple(message)))

    async def _now_ms(self) -> int:
        seconds, micros = await self._batch.command("TIME")
        return int(seconds) * 1000 + int(micros) // 1000


def _watched(row: bytes) -> Watched | None:
    """One message as `_watch` wrote it; None if it is not of this chatd's."""
    try:
        message = Watched(*orjson.loads(row))
    except (TypeError, ValueError):
        return None
    return message if [type(part) for part in message] == [str, int, str, str] else None


def _entry(id: bytes, fields: Any) -> Entry | None:
    """One entry as `add` and append.lua wrote it; None if it is not of this chatd's."""
    parts = dict(pairs(fields))
    try:
        return Entry(id.decode(), parts[b"e"].decode(), int(parts[b"t"]), parts[b"b"])
    except (KeyError, ValueError):
        return None
