"""What is said in rooms, as the store keeps it: each method is one script, which says what it holds together.

Who may speak is decided outside as far as it can be (rules, tokens); what only the store knows of a room is checked in
the script that appends, so that no node can act on what held a moment ago.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass
from itertools import count
from typing import Any, Final, NamedTuple

from chatd import errors
from chatd.errors import Reject
from chatd.model import HistoryResult, Json, Position, Published, Speaker

from .keys import Keys
from .outbox import Outbox
from .rooms import blocker
from .scripts import Argument, Batch, Script

# A repeated client id returns the first answer for this long; the promise is five minutes.
REPEAT_MS: Final = 10 * 60 * 1000
# A signature is good for 300 s before and after its time; for longer than both together it must not come again.
NONCE_MS: Final = 11 * 60 * 1000

# No message has this offset, nor any above it: at a thousand a second a room needs 3,000 years. From here on Lua writes
# its numbers as "1e+14", which no stream takes.
BEYOND: Final = 10**14

# Kinds of reactions that one message can have.
KINDS: Final = 20

# With these begin the scripts that look at a room's history, and those that write into it.
LOG: Final = ("log",)
APPEND: Final = ("log", "append")

PUBLISH: Final = Script("publish", after=APPEND, lasting=True)
SIGNAL, HISTORY = Script("signal", after=APPEND), Script("history", after=LOG)

# What publish.lua and change.lua call their refusals.
REFUSALS: Mapping[bytes, Callable[[int], Reject]] = {
    b"missing": lambda _: errors.NO_SUCH.because("there is no such message, or none any more"),
    b"deleted": lambda _: errors.DELETED.anew(),
    b"outsider": lambda _: errors.PERMISSION_DENIED.because("this room needs an invitation or membership"),
    b"lockdown": lambda _: errors.LOCKDOWN.anew(),
    b"locked": lambda _: errors.LOCKED.anew(),
    b"foreign": lambda _: errors.PERMISSION_DENIED.because("this message is somebody else's"),
    b"late": lambda _: errors.TOO_LATE.anew(),
    b"full": lambda _: errors.FULL.because(f"a message has at most {KINDS} kinds of reactions"),
    b"slow": lambda ms: errors.SLOW_MODE.because(f"this room is slow; wait {ms} ms", retry_after_ms=ms),
    b"blocked": lambda _: errors.BLOCKED.anew(),
    b"replayed": lambda _: errors.REPLAYED.anew(),
}


class Keep(NamedTuple):
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

    def __init__(self, batch: Batch, keys: Keys, outbox: Outbox) -> None:
        self._batch = batch
        self._keys = keys
        self._outbox = outbox

    def publish(
        self,
        room: str,
        head: bytes,
        keep: Keep,
        repeat: tuple[str, str] | None = None,
        *,
        by: Speaker | None = None,
        nonce: str | None = None,
        reply_to: int | None = None,
        told: bool = False,
    ) -> Coroutine[Any, Any, tuple[Published, bool]]:
        """Append a message to the room's history and tell every node, as one step (publish.lua).

        The store has been asked when this returns; what is asked next comes after. All nodes see one room's messages in
        the order of the positions returned.

        Args:
            head: the publication as JSON without closing brace, offset and time.
            repeat: (user, client's message id): said again, it returns the first answer and does nothing.
            by: who speaks; None: the server, who may always.
            nonce: of the message's signature, which may not come again; None: it is not signed.
            reply_to: offset of the message that it answers, which must be there.
            told: the application hears of it, if it wants to.
        Returns:
            To be awaited: where it stands, and whether it was new.
        Raises:
            Reject 103, 402, 404, 405, 409, 410, 412, 416: the room does not take it from this speaker now.
            StoreUnavailable: whether it was appended is not known; with `repeat` it may safely be sent again.
        """
        if reply_to is not None:
            see_offset(reply_to)
        user = by.user if by is not None else ""
        keys, args = appending_keys(self._keys, room, by), appending_args(room, head, keep, by)
        special = without_last_zeros(
            REPEAT_MS if repeat is not None else 0,
            self._outbox.length("message", room) if told else 0,
            NONCE_MS if nonce is not None else 0,
            reply_to or 0,
        )
        if special:
            author, cid = repeat or ("", "")
            repeated, signed = self._keys.repeat(room, author, cid), self._keys.nonce(room, user, nonce or "")
            keys += [repeated, self._keys.outbox(room), signed][: len(special)]
            args += special
        return self._published(self._batch.script(PUBLISH, keys, args), room, user, told)

    async def _published(self, reply: Awaitable[Any], room: str, user: str, told: bool) -> tuple[Published, bool]:
        said, fresh = published(await reply)
        if told:
            await self._outbox.said(room, said, user)
        return said, fresh

    async def signal(self, room: str, head: bytes, *, by: Speaker, pause_ms: int) -> bool:
        """Tell the room's readers something that is not kept, if `by` may speak there now (signal.lua).

        Args:
            pause_ms: how long the author's next signals are swallowed; 0: this one is told in any case, and the next.
        Returns:
            Whether it was told.
        Raises:
            Reject 103, 402, 412, 416.
        """
        keys = [*appending_keys(self._keys, room, by), self._keys.hush(room, by.user)]
        told, *why = await self._batch.script(SIGNAL, keys, (*appending_args(room, head, Keep(0, 0), by), pause_ms))
        if told < 0:
            raise REFUSALS[why[0]](0)
        return bool(told)

    async def tell(self, room: str, head: bytes) -> None:
        """The server's own signal."""
        await self._batch.command("SPUBLISH", self._keys.feed(room), b"s\n" + head + b"}")

    async def history(
        self,
        room: str,
        keep_ms: int,
        *,
        after: int | None = None,
        limit: int = 0,
        reverse: bool = False,
        floor: int = 0,
    ) -> HistoryResult:
        """At most `limit` messages after (before, with `reverse`) offset `after`, and the room's top (history.lua).

        Args:
            floor: only offsets above it.
        """
        entries, top = await self._history(room, keep_ms, after, limit, reverse, floor)
        return HistoryResult(tuple(body for _, body in entries), top)

    async def to_fold(
        self, room: str, keep_ms: int, *, after: int | None, limit: int, reverse: bool, floor: int
    ) -> tuple[list[tuple[int, Json]], Position]:
        """As history, with its offsets; events about earlier messages come without body: there may be very many."""
        return await self._history(room, keep_ms, after, limit, reverse, floor, folding=True)

    async def page(self, room: str, after: int | None, limit: int) -> tuple[list[tuple[int, Json]], Position]:
        """As feed.ReadHistory: offsets with it, whatever the age."""
        return await self._history(room, 0, after, limit, reverse=False)

    async def _history(
        self,
        room: str,
        keep_ms: int,
        after: int | None,
        limit: int,
        reverse: bool,
        floor: int = 0,
        *,
        folding: bool = False,
    ) -> tuple[list[tuple[int, Json]], Position]:
        start = -1 if after is None else min(after, BEYOND - 1)
        args = (start, limit, int(reverse), keep_ms, new_epoch(), floor, int(folding))
        epoch, top, *rest = await self._batch.script(HISTORY, self._keys.history(room), args)
        return list(zip(rest[::2], rest[1::2], strict=True)), Position(epoch.decode(), top)

    async def remove(self, room: str) -> None:
        """Remove what is kept of `room`. Its count goes on, so that who missed something learns that it is gone."""
        await self._batch.command("DEL", *self._keys.history(room)[1:], lasting=True)

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


def see_offset(offset: int) -> None:
    """Refuse what cannot be the offset of a message.

    Raises:
        Reject 404.
    """
    if not 0 < offset < BEYOND:
        raise REFUSALS[b"missing"](0)


def without_last_zeros(*args: int) -> tuple[int, ...]:
    """What a script that takes 0 for what is absent need be told; each costs it more than most of its lines."""
    return args[: max((i for i, arg in enumerate(args, 1) if arg), default=0)]


def appending_keys(keys: Keys, room: str, by: Speaker | None) -> list[str]:
    """The keys that append.lua wants."""
    quiet = keys.quiet(room, by.user if by is not None else "")
    return [*keys.history(room), keys.feed(room), keys.room(room), keys.members(room), quiet]


def appending_args(room: str, head: bytes, keep: Keep, by: Speaker | None) -> list[Argument]:
    """What append.lua wants to know; None: the server itself writes."""
    rights: list[Argument] = ["", 0, 1, "", 0]
    if by is not None:
        rights = [by.user, int(by.role), int(by.public), blocker(room, by.user), int(by.least)]
    return [head, keep.messages, keep.ms, new_epoch(), *rights]


def published(reply: Any) -> tuple[Published, bool]:
    """What publish.lua and change.lua return: where it stands, and whether it was new.

    Raises:
        Reject: it was refused.
    """
    fresh = isinstance(reply, bytes)
    if not fresh and len(reply) > 1:
        _, why, wait_ms = reply
        raise REFUSALS[why](wait_ms)
    offset, epoch, ms = (reply if fresh else reply[0]).split(b" ")
    return Published(Position(epoch.decode(), int(offset)) if epoch else None, int(ms)), fresh


_OURS: Final = secrets.token_urlsafe(6)
_numbers: Final = count(1)


def new_epoch() -> str:
    """A name for the life of a room's count, should one have to begin, which no other has: one of this process's."""
    return f"{_OURS}{next(_numbers):x}"
