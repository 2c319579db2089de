"""A room's messages as they stand now: the last revision of each, its reactions counted, the deleted as they were.

Events are in history for those who follow it; here they are passed over, for what they did is in the store's notes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from chatd import errors
from chatd.methods import MessageHistory
from chatd.session import Session
from chatd.store.changes import Notes
from chatd.wire import payload, rpc
from chatd.wire.publication import Publication, parse

from .context import Context

# One answer reads no more than so many pages, each of what was asked for and a few events more; `next` says where to
# look on.
PAGES: Final = 10
SPARE: Final = 20

Object = dict[str, Any]


class Stretch(NamedTuple):
    """What lies between two offsets. Going back, `start` is the end; `stop` is only looked at going forward.

    `floor` is the offset above which the asker may read.
    """

    start: int | None
    stop: int | None
    back: bool
    floor: int


class Found(NamedTuple):
    """Messages in the order in which they were met, and from where to look on; None: there is no more."""

    epoch: str
    messages: list[Publication]
    next: int | None


async def history(chat: Context, session: Session, args: MessageHistory) -> Mapping[str, object]:
    before, after = args.before, args.after
    if (before is not None and before < 1) or (after is not None and after < 0):
        raise errors.BAD_REQUEST.because("before and after are offsets: 1, 2, 3 and so on")
    kept = await chat.readable(session, args.room)
    if kept.history == 0:
        raise errors.NOT_AVAILABLE.because("this room keeps no history")
    most = chat.limits.history_page or kept.history
    limit = args.limit if 0 < args.limit < most else most
    back = after is None
    floor = await chat.reads_above(session, args.room)
    found = await find(chat, args.room, Stretch(before if back else after, before, back, floor), limit)
    messages = found.messages[::-1] if back else found.messages
    notes = await chat.store.changes.notes(args.room, [message.offset for message in messages])
    folded = [fold(*pair) for pair in zip(messages, notes, strict=True)]
    return {"epoch": found.epoch, "messages": folded, "next": found.next}


async def find(chat: Context, room: str, stretch: Stretch, limit: int) -> Found:
    """The first `limit` messages of a stretch, without the events between them."""
    found: list[Publication] = []
    at, epoch = stretch.start, ""
    for _ in range(PAGES):
        entries, top = await chat.store.messages.to_fold(
            room, chat.keep(room).ms, after=at, limit=limit + SPARE, reverse=stretch.back, floor=stretch.floor
        )
        epoch = top.epoch
        for offset, body in entries:
            if not stretch.back and stretch.stop is not None and offset >= stretch.stop:
                return Found(epoch, found, None)
            message = parse(body) if body else None
            if message is not None and message.is_message:
                if len(found) == limit:
                    return Found(epoch, found, at)
                found.append(message)
            at = offset
        if len(entries) < limit + SPARE:
            return Found(epoch, found, None)
    return Found(epoch, found, at)


def fold(message: Publication, notes: Notes) -> Object:
    """A message as it stands now; of a deleted one nothing but that it was there, and whose it was."""
    deleted = message.type == "deleted"
    edit = None if notes.edit is None else parse(notes.edit)
    members = message.members if edit is None else {**message.members, **edit.members}
    return {
        "offset": message.offset,
        "user": message.user,
        "time": message.time,
        "text": members.get("text"),
        "data": None if deleted and edit is None else _data(message, edit),
        "edited": edit is not None,
        "deleted": deleted,
        "reply_to": message.members.get("reply_to"),
        "reactions": notes.reactions,
    }


def _data(message: Publication, edit: Publication | None) -> object:
    """The author's own, byte for byte, but for what an edit replaces."""
    if edit is None:
        return rpc.raw(message.raw)
    said = payload.members(message.raw) if isinstance(message.data, dict) else {}
    return {**said, **payload.members(edit.raw)}
