"""What is said in a room, and what was said there before."""

from __future__ import annotations

from chatd import errors
from chatd.model import History, HistoryResult, Publish, Published
from chatd.names import room_name
from chatd.session import Session
from chatd.wire import payload
from chatd.wire.publication import head

from .context import Context


async def publish(chat: Context, session: Session, command: Publish) -> Published:
    room = command.room or session.home
    if not room:
        raise errors.BAD_COMMAND.because("publish needs a channel")
    room_name(room, chat.limits.room_name)
    kept = chat.rules(room)
    speaker = chat.speaker(session, room)
    said = payload.check(command.data, limit=chat.limits.body, depth=chat.limits.depth, chat=kept.payload == "chat")
    repeat = (session.user, said.cid) if said.cid is not None else None
    publication = head(said.data, chat.info(session), {"type": "message"})
    published, fresh = await chat.store.messages.publish(room, publication, chat.keep(room), repeat, by=speaker)
    chat.messages_in += fresh
    return published


async def history(chat: Context, session: Session, command: History) -> HistoryResult:
    kept = await chat.readable(session, command.room)
    if kept.history == 0:
        raise errors.NOT_AVAILABLE.because("this room keeps no history")
    since, most = command.since, chat.limits.history_page
    if command.reverse and since is not None and since.offset == 0:
        raise errors.BAD_REQUEST.because("nothing lies before offset 0")
    limit = most if command.limit < 0 or command.limit > most else command.limit
    page = await chat.store.messages.history(
        command.room,
        chat.keep(command.room).ms,
        after=since.offset if since is not None else None,
        limit=limit,
        reverse=command.reverse,
    )
    if since is not None and since.epoch not in ("", page.top.epoch):
        raise errors.UNRECOVERABLE.because("the room's history has begun anew since")
    return page
