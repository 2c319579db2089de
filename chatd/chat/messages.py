"""What is said in a room, and what was said there before."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, Final

from chatd import errors
from chatd.auth import Signed
from chatd.methods import SendMessage
from chatd.model import SERVER, History, HistoryResult, Json, Publish, Published
from chatd.names import room_name
from chatd.session import Session
from chatd.store.messages import Keep, see_offset
from chatd.wire import payload, rpc
from chatd.wire.payload import Payload
from chatd.wire.publication import head

from . import mentions, scrutiny
from .context import Context

NO_TAGS: Final[Mapping[str, str]] = MappingProxyType({})


def publish(chat: Context, session: Session, command: Publish) -> Coroutine[Any, Any, Published]:
    room = command.room or session.home
    if not room:
        raise errors.BAD_COMMAND.because("publish needs a channel")
    return say(chat, session, room, command.data)


def send(chat: Context, session: Session, args: SendMessage) -> Coroutine[Any, Any, Mapping[str, object]]:
    """As publish, of data that is put together here; the answer says where it landed."""
    if args.reply_to is not None:
        see_offset(args.reply_to)
    return _landed(say(chat, session, args.room, rpc.encode(_members(args))))


async def _landed(saying: Awaitable[Published]) -> Mapping[str, object]:
    published = await saying
    epoch, offset = published.position or ("", 0)
    return {"offset": offset, "epoch": epoch, "time": published.time_ms}


def say(
    chat: Context,
    session: Session,
    room: str,
    data: Json,
    *,
    tags: Mapping[str, str] = NO_TAGS,
    cid: str | None = None,
    fleeting: bool = False,
) -> Coroutine[Any, Any, Published]:
    """Append `data` to `room` as a message of this client's user, if the user may, and tell every reader.

    Unless the application is asked before, the store has been asked when this returns: what is said next comes after.

    Args:
        tags: what the server says of it beside what it is.
        cid: takes the place of the data's own.
        fleeting: it goes to who is there, and not into history.
    Raises:
        Reject 107, 413: the data may not be stored. Reject 103, 401 to 417, now or when it is awaited: its author may
            not say it here, now.
    """
    room_name(room, chat.limits.room_name)
    chat.refuse_muted(session, room)
    chat_only = chat.rules(room).payload == "chat"
    said = payload.check(data, limit=chat.limits.body, depth=chat.limits.depth, chat=chat_only)
    nonce = scrutiny.proven(chat, session, room, said, Signed.MESSAGE, said.cid)
    taken = scrutiny.worded(chat, room, said)
    if taken is not said.data or cid is not None:
        said = said._replace(data=taken, cid=cid or said.cid)
    append = partial(_append, chat, session, room, said, nonce, tags, fleeting)
    if session.identity is not SERVER and chat.callout.asks:
        return _if_approved(chat, session, room, said, append)
    return append()


async def _if_approved(
    chat: Context, session: Session, room: str, said: Payload, append: Callable[[], Awaitable[Published]]
) -> Published:
    await scrutiny.approved(chat, session, room, said.data)
    chat.refuse_muted(session, room)  # an operator may have acted meanwhile, and his command have returned
    return await append()


def _append(
    chat: Context,
    session: Session,
    room: str,
    said: Payload,
    nonce: str | None,
    tags: Mapping[str, str],
    fleeting: bool,
) -> Coroutine[Any, Any, Published]:
    # No await from what was looked at to the store: it still holds.
    speaker = chat.speaker(session, room)
    repeat = (session.user, said.cid) if said.cid is not None else None
    publication = head(said.data, chat.byline(session), {**tags, "type": "message"})
    keep = Keep(0, 0) if fleeting else chat.keep(room)
    publishing = chat.store.messages.publish(
        room, publication, keep, repeat, by=speaker, nonce=nonce, reply_to=said.reply_to, told=True
    )
    return _published(chat, session, room, said, publishing)


async def _published(
    chat: Context, session: Session, room: str, said: Payload, publishing: Awaitable[tuple[Published, bool]]
) -> Published:
    published, fresh = await publishing
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
    since, most = command.since, chat.limits.history_page or kept.history
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
