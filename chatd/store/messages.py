"""What is said in rooms, as the store keeps it: each method is one script, which says what it holds together.

Who may speak is decided outside as far as it can be (rules, tokens); what only the store knows of a room is checked in
the script that appends, so that no node can act on what held a moment ago.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from chatd import errors
from chatd.errors import Reject
from chatd.model import HistoryResult, Json, Position, Published, Speaker
from chatd.names import dm_members

from .keys import Keys
from .scripts import Batch, Script

# A repeated client id returns the first answer for this long; the promise is five minutes.
REPEAT_MS: Final = 10 * 60 * 1000
# A signature is good for 300 s before and after its time; for longer than both together it must not come again.
NONCE_MS: Final = 11 * 60 * 1000

PUBLISH, HISTORY = map(Script, ["publish", "history"])

# What publish.lua calls its refusals.
REFUSALS: Mapping[bytes, Callable[[int], Reject]] = {
    b"outsider": lambda _: errors.PERMISSION_DENIED.because("this room needs an invitation or membership"),
    b"lockdown": lambda _: errors.LOCKDOWN.anew(),
    b"locked": lambda _: errors.LOCKED.anew(),
    b"slow": lambda ms: errors.SLOW_MODE.because(f"this room is slow; wait {ms} ms", retry_after_ms=ms),
    b"blocked": lambda _: errors.BLOCKED.anew(),
    b"replayed": lambda _: errors.REPLAYED.anew(),
}


@dataclass(frozen=True, slots=True)
class Keep:
    """How a room is kept: at most `messages` (0: no history), for `ms` milliseconds (0: for ever)."""

    messages: int
    ms: int


@dataclass(frozen=True, slots=True)
class Kept:
    """What is kept of a room: its top, the offset of its oldest message (None: none is left), how many there are."""

    top: Position
    first: int | None
    messages: int


class Messages:
    """The rooms' histories."""

    def __init__(self, batch: Batch, keys: Keys) -> None:
        self._batch = batch
        self._keys = keys

    async def publish(
        self,
        room: str,
        head: bytes,
        keep: Keep,
        repeat: tuple[str, str] | None = None,
        *,
        by: Speaker | None = None,
        nonce: str | None = None,
    ) -> tuple[Published, bool]:
        """Append a message to the room's history and tell every node, as one step (publish.lua).

        All nodes see one room's messages in the order of the positions returned.

        Args:
            head: the publication as JSON without closing brace, offset and time.
            repeat: (user, client's message id): said again, it returns the first answer and does nothing.
            by: who speaks; None: the server, who may always.
            nonce: of the message's signature, which may not come again; None: it is not signed.
        Returns:
            Where it stands, and whether it was new.
        Raises:
            Reject 103, 402, 405, 409, 412, 416: the room does not take it from this speaker now.
            StoreUnavailable: whether it was appended is not known; with `repeat` it may safely be sent again.
        """
        author, cid = repeat or ("", "")
        user = by.user if by is not None else ""
        keys = [
            self._keys.meta(room),
            self._keys.log(room),
            self._keys.feed(room),
            self._keys.room(room),
            self._keys.members(room),
            self._keys.repeat(room, author, cid),
            self._keys.nonce(room, user, nonce or ""),
            self._keys.quiet(room, user),
        ]
        args = (
            head,
            keep.messages,
            keep.ms,
            new_epoch(),
            REPEAT_MS if repeat is not None else 0,
            user,
            int(by.role) if by is not None else 0,
            int(by.public) if by is not None else 1,
            NONCE_MS if nonce is not None else 0,
            _blocker(room, user),
            int(by.least) if by is not None else 0,
        )
        offset, epoch, ms, *fresh = await self._batch.script(PUBLISH, keys, args)
        if offset < 0:
            raise REFUSALS[epoch](ms)
        return Published(Position(epoch.decode(), offset) if offset else None, ms), bool(fresh[0])

    async def history(
        self, room: str, keep_ms: int, *, after: int | None = None, limit: int = 0, reverse: bool = False
    ) -> HistoryResult:
        """At most `limit` messages after (before, with `reverse`) offset `after`, and the room's top (history.lua)."""
        entries, top = await self._history(room, keep_ms, after, limit, reverse)
        return HistoryResult(tuple(body for _, body in entries), top)

    async def page(self, room: str, after: int | None, limit: int) -> tuple[list[tuple[int, Json]], Position]:
        """As feed.ReadHistory: offsets with it, whatever the age."""
        return await self._history(room, 0, after, limit, reverse=False)

    async def _history(
        self, room: str, keep_ms: int, after: int | None, limit: int, reverse: bool
    ) -> tuple[list[tuple[int, Json]], Position]:
        keys = [self._keys.meta(room), self._keys.log(room)]
        args = (-1 if after is None else after, limit, int(reverse), keep_ms, new_epoch())
        epoch, top, *rest = await self._batch.script(HISTORY, keys, args)
        return list(zip(rest[::2], rest[1::2], strict=True)), Position(epoch.decode(), top)

    async def kept(self, room: str) -> Kept | None:
        """What is kept of `room`, to the last trimming; None: nobody ever was there. Only looks, unlike `history`."""
        replies: tuple[Any, Any, Any] = await asyncio.gather(
            self._batch.command("HMGET", self._keys.meta(room), "epoch", "offset"),
            self._batch.command("XLEN", self._keys.log(room)),
            self._batch.command("XRANGE", self._keys.log(room), "-", "+", "COUNT", 1),
        )
        (epoch, top), messages, oldest = replies
        if epoch is None:
            return None
        first = int(oldest[0][0].partition(b"-")[0]) if oldest else None
        return Kept(Position(epoch.decode(), int(top)), first, messages)


def _blocker(room: str, user: str) -> str:
    """In a direct room, the field by which the other one has shut `user` out."""
    members = dm_members(room) if user else None
    return "" if members is None else f"shut:{user}"


def new_epoch() -> str:
    """A name for the life of a room's count, should one have to begin: 48 random bits are never met twice."""
    return secrets.token_urlsafe(6)
