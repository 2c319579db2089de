"""What people are about: who is typing, who has read how far, and what is there to be read.

Typing and reading are told by signals, which nobody misses: they are not kept, and dropped first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Final

from chatd import errors, rules
from chatd.measures import What
from chatd.methods import Read, Typing, Unread
from chatd.model import Position, Role, Standing
from chatd.names import room_name
from chatd.session import Session
from chatd.wire import rpc
from chatd.wire.publication import head

from .context import Context

# One user's typing is told to a room this often; an SDK may say it with each key.
TYPING_MS: Final = 3_000
# Rooms that one call may ask for.
UNREAD_ROOMS: Final = 128


async def typing(chat: Context, session: Session, args: Typing) -> Mapping[str, object]:
    room_name(args.room, chat.limits.room_name)
    chat.refuse_muted(session, args.room)
    signal = head(rpc.encode({"on": args.on}), chat.byline(session), {"type": "typing"})
    pause_ms = TYPING_MS if args.on else 0
    await chat.store.messages.signal(args.room, signal, by=chat.speaker(session, args.room), pause_ms=pause_ms)
    return {}


async def read(chat: Context, session: Session, args: Read) -> Mapping[str, object]:
    if args.offset < 0:
        raise errors.BAD_REQUEST.because(f"an offset is 0 or more, {args.offset} came")
    reader = _reader(session)
    await chat.readable(session, args.room)
    standing, _ = await chat.place(session, args.room)
    to = Position(standing.top.epoch, min(args.offset, standing.top.offset))
    at, moved = await chat.store.cursors.move(reader, args.room, to)
    if moved:
        news = head(rpc.encode({"room": args.room, "offset": at}), None, {"type": "read"})
        await chat.store.messages.tell(rules.personal_room(reader), news)
    return {"offset": at}


async def unread(chat: Context, session: Session, args: Unread) -> Mapping[str, object]:
    reader = _reader(session)
    rooms = list(dict.fromkeys(args.rooms))
    if len(rooms) > UNREAD_ROOMS:
        raise errors.LIMIT_EXCEEDED.because(f"at most {UNREAD_ROOMS} rooms at once, {len(rooms)} came")
    for room in rooms:
        room_name(room, chat.limits.room_name)
    # All of it is asked for before the first answer, so that it travels in one pipeline.
    cursors, places = await asyncio.gather(
        chat.store.cursors.of(reader, rooms), asyncio.gather(*(chat.place(session, room) for room in rooms))
    )
    return {
        room: unread_in(standing, cursor, chat.floor(session, room, standing, role))
        for room, cursor, (standing, role) in zip(rooms, cursors, places, strict=True)
        if role > Role.NOBODY and chat.covering(What.BAN, session, room) is None
    }


def _reader(session: Session) -> str:
    """
    Raises:
        Reject 107.
    """
    if not session.user:
        raise errors.BAD_REQUEST.because("only a user reads; say as whom")
    return session.user


def unread_in(standing: Standing, cursor: Position, floor: int) -> int:
    """How much came after the cursor, after one became a member, and above `floor`, from where on one may read.

    A cursor of another epoch counts for nothing.
    """
    read = cursor.offset if cursor.epoch == standing.top.epoch else 0
    return max(0, standing.top.offset - max(read, standing.since, floor))
