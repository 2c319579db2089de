"""Changing what was said: editing, deleting, reacting.

What only the store knows of the message (whose it is, how old, whether it is there at all) is decided in change.lua.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from chatd import errors
from chatd.auth import Signed
from chatd.methods import DeleteMessage, EditMessage, React
from chatd.model import SERVER, Json
from chatd.names import room_name
from chatd.session import Session
from chatd.store.changes import Change, What
from chatd.wire import payload, rpc
from chatd.wire.publication import head

from . import scrutiny
from .context import Context

# An emoji of a whole family has 25 bytes, a flag of a region 28.
KIND_BYTES: Final = 32
# What readers are told about a deletion is a line, not a message.
REASON_CHARS: Final = 200


async def edit(chat: Context, session: Session, args: EditMessage) -> Mapping[str, object]:
    data = rpc.encode({"text": args.text, **({} if args.sig is None else {"sig": args.sig})})
    said = payload.check(data, limit=chat.limits.body, depth=chat.limits.depth, chat=True)
    nonce = scrutiny.proven(chat, session, args.room, said, Signed.EDIT, str(args.offset))
    changed = scrutiny.worded(chat, args.room, said)
    if session.identity is not SERVER:
        await scrutiny.approved(chat, session, args.room, changed)
    wanted = Change(What.EDIT, args.offset, _window_ms(chat, args.room))
    return await change(chat, session, args.room, wanted, changed, nonce)


async def delete(chat: Context, session: Session, args: DeleteMessage) -> Mapping[str, object]:
    reason = scrutiny.masked(chat, args.room, args.reason[:REASON_CHARS])
    wanted = Change(What.DELETE, args.offset, _window_ms(chat, args.room))
    return await change(chat, session, args.room, wanted, rpc.encode({"reason": reason} if reason else {}))


async def react(chat: Context, session: Session, args: React) -> Mapping[str, object]:
    if not 1 <= len(args.kind.encode()) <= KIND_BYTES or "\0" in args.kind:
        raise errors.BAD_REQUEST.because(f'"kind" has 1 to {KIND_BYTES} bytes of UTF-8, {args.kind[:40]!r} came')
    if args.on and scrutiny.masked(chat, args.room, args.kind) != args.kind:
        raise errors.WORD_REFUSED.anew()
    wanted = Change(What.REACT, args.offset, kind=args.kind, on=args.on)
    return await change(chat, session, args.room, wanted, rpc.encode({"kind": args.kind, "on": args.on}))


async def change(
    chat: Context, session: Session, room: str, wanted: Change, data: Json, nonce: str | None = None
) -> Mapping[str, object]:
    """Append the event that says `data` of a message, and do what it says.

    Raises:
        Reject 108: the room keeps no history. Reject 103, 401 to 417: this may not be done here, to this message, now.
    """
    room_name(room, chat.limits.room_name)
    chat.refuse_muted(session, room)
    speaker = chat.speaker(session, room)
    keep = chat.keep(room)
    if not keep.messages:
        raise errors.NOT_AVAILABLE.because("this room keeps no history, so that nothing in it can be changed")
    event = head(data, chat.byline(session), {"type": wanted.what, "of": str(wanted.of)})
    published, fresh = await chat.store.changes.make(room, wanted, event, keep, by=speaker, nonce=nonce)
    chat.messages_in += fresh
    assert published.position is not None, "the room has a history"
    return {"offset": published.position.offset}


def _window_ms(chat: Context, room: str) -> int:
    return int(chat.rules(room).edit_window * 1000)
