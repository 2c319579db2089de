"""What is said in a room, and what was said there before."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from chatd import errors
from chatd.auth import Signed
from chatd.methods import SendMessage
from chatd.model import SERVER, History, HistoryResult, Json, Publish, Published
from chatd.names import room_name
from chatd.session import Session
from chatd.store.messages import Keep
from chatd.wire import payload, rpc
from chatd.wire.publication import head

from . import mentions, scrutiny
from .context import Context

NO_TAGS: Final[Mapping[str, str]] = MappingProxyType({})


async def publish(chat: Context, session: Session, command: Publish) -> Published:
    room = command.room or session.home
    if not room:
        raise errors.BAD_COMMAND.because("publish needs a channel")
    return await say(chat, session, room, command.data)


async def send(chat: Context, session: Session, args: SendMessage) -> Mapping[str, object]:
    """As publish, of data that is put together here; the answer says where it landed."""
    published = await say(chat, session, args.room, rpc.encode(_members(args)))
    epoch, offset = published.position or ("", 0)
    return {"offset": offset, "epoch": epoch, "time": published.time_ms}


async def say(
    chat: Context,
    session: Session,
    room: str,
    data: Json,
    *,
    tags: Mapping[str, str] = NO_TAGS,
    cid: str | None = None,
    fleeting: bool = False,
) -> Published:
    """Append `data` to `room` as a message of this client's user, if the user may, and tell every reader.

    Args:
        tags: what the server says of it beside what it is.
        cid: takes the place of the data's own.
        fleeting: it goes to who is there, and not into history.
    Raises:
        Reject 107, 413: the data may not be stored. Reject 103, 401 to 417: its author may not say it here, now.
    """
    room_name(room, chat.limits.room_name)
    chat.refuse_muted(session, room)
    chat_only = chat.rules(room).payload == "chat"
    said = payload.check(data, limit=chat.limits.body, depth=chat.limits.depth, chat=chat_only)
    nonce = scrutiny.proven(chat, session, room, said, Signed.MESSAGE, said.cid)
    worded = scrutiny.worded(chat, room, said)
    if session.identity is not SERVER and chat.callout.asks:
        await chat.callout.approve(room, session.user, worded)
        chat.refuse_muted(session, room)  # an operator may have acted meanwhile, and his command have returned
    # No await from here to the store: what was looked at still holds, and messages keep their client's order.
    speaker = chat.speaker(session, room)
    cid = cid or said.cid
    repeat = (session.user, cid) if cid is not None else None
    publication = head(worded, chat.byline(session), {**tags, "type": "message"})
    keep = Keep(0, 0) if fleeting else chat.keep(room)
    published, fresh = await chat.store.messages.publish(
        room, publication, keep, repeat, by=speaker, nonce=nonce, reply_to=said.reply_to, told=True
    )
    chat.messages_in += fresh
    if fresh and said.mentions and published.position is not None:
        chat.spawn(mentions.notify(chat, session, room, published.position.offset, said.mentions))
    return published


def _members(args: SendMessage) -> Mapping[str, object]:
    """The message's data: what chatd knows of it, beside the application's own, which cannot replace it."""
    known = {"text": args.text, "cid": args.cid, "reply_to": args.reply_to, "mentions": args.mentions, "sig": args.sig}
    return {**args.data, **{name: value for name, value in known.items() if value not in (None, ())}}


async def history(chat: Context, session: Session, command: History) -> HistoryResult:
    if not command.room:
        raise errors.BAD_COMMAND.because("history needs a channel")
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
        floor=await chat.reads_above(session, command.room),
    )
    if since is not None and since.epoch not in ("", page.top.epoch):
        raise errors.UNRECOVERABLE.because("the room's history has begun anew since")
    return page
