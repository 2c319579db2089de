"""What becomes of messages after they were said: edits, deletions, reactions, and how a message stands now.

Each change is an event of its own in the room's history, with its own offset, so that whoever was away hears of it like
whoever was there. Beside the history stand notes, from which a message is folded without reading what came after it. A
deleted message leaves a tombstone at its offset; see log.lua for the keys and change.lua for who may do what.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from chatd.model import Json, Published, Speaker

from .keys import Keys
from .messages import APPEND, KINDS, LOG, NONCE_MS, Keep, appending_args, appending_keys, published, see_offset
from .outbox import Outbox
from .scripts import Batch, Script

CHANGE = Script("change", after=(*APPEND, "erase", "reactions"), lasting=True)
NOTES = Script("notes", after=(*LOG, "reactions"))


class What(StrEnum):
    """What is done to a message, and the type of the event that tells of it."""

    EDIT = "edit"
    DELETE = "delete"
    REACT = "react"


@dataclass(frozen=True, slots=True)
class Change:
    """Something to be done to the message at offset `of`.

    Attributes:
        window_ms: how long after it was said its author may edit or delete it.
        kind, on: of a reaction: which, and whether it is put there or taken back.
    """

    what: What
    of: int
    window_ms: int = 0
    kind: str = ""
    on: bool = True


class Notes(NamedTuple):
    """What changed a message: the publication of its last edit, and how many have reacted with each kind."""

    edit: Json | None
    reactions: dict[str, int]


class Changes:
    """See the head of this file."""

    def __init__(self, batch: Batch, keys: Keys, outbox: Outbox) -> None:
        self._batch = batch
        self._keys = keys
        self._outbox = outbox

    async def make(
        self, room: str, change: Change, head: bytes, keep: Keep, *, by: Speaker | None = None, nonce: str | None = None
    ) -> tuple[Published, bool]:
        """Append the event and do what it says, as one step (change.lua); of what is deleted before its turn the
        application is not told.

        Args:
            head: the event as JSON without closing brace, offset and time.
            by: who does it; None: the server, who may always.
            nonce: of the change's signature, which may not come again; None: it is not signed.
        Returns:
            Where the event stands, and whether it was new; what is so already is not done again, and the position is
            the room's top.
        Raises:
            Reject 103, 402, 404, 405, 409 to 412, 415, 416: this message may not be changed so, by this user, now.
            StoreUnavailable: whether it was done is not known; it may safely be asked again.
        """
        see_offset(change.of)
        args = (
            *appending_args(room, head, keep, by),
            change.what,
            change.of,
            change.window_ms,
            change.kind,
            int(change.on),
            KINDS,
            NONCE_MS if nonce is not None else 0,
            self._outbox.length(change.what, room),
        )
        user = by.user if by is not None else ""
        signed = self._keys.nonce(room, user, nonce or "")
        keys = [*appending_keys(self._keys, room, by), signed, self._keys.outbox(room)]
        done = published(await self._batch.script(CHANGE, keys, args))
        await self._outbox.changed(room, change.what)
        return done

    async def notes(self, room: str, offsets: Sequence[int]) -> list[Notes]:
        """What changed each of these messages (notes.lua)."""
        if not offsets:
            return []
        reply = iter(await self._batch.script(NOTES, self._keys.history(room), offsets))
        return [_notes(edit, reply) for edit in reply]


def _notes(edit: bytes, rest: Iterator[bytes]) -> Notes:
    pairs = [(next(rest), next(rest)) for _ in range(int(next(rest)))]
    return Notes(edit or None, {kind.decode(): int(count) for kind, count in pairs})
