"""Rooms by method: creating them, who belongs to them, what holds in them.

What is done to a room goes through the steward, as it does for operators; here stands only who may ask. Whoever is
muted may not put words into it, or people, either. Being in a room is reading's business: a member need not be there,
and a guest who is need not be a member.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Final

from chatd import errors, rules
from chatd.control import Answers
from chatd.measures import What
from chatd.methods import (
    CreateRoom,
    DeleteRoom,
    InviteToRoom,
    JoinRoom,
    LeaveRoom,
    ListMembers,
    ListRooms,
    RoomInfo,
    SetRole,
    SetRoom,
)
from chatd.model import ROLES, SERVER, Member, Role
from chatd.session import Session
from chatd.store.presence import Seen

from .context import Context

Answer = Mapping[str, object]

# One page of rooms or members.
PAGE: Final = 100
# Members that come with a new room; more are invited one by one.
FIRST_MEMBERS: Final = 100


async def create(chat: Context, session: Session, args: CreateRoom) -> Answer:
    actor = chat.actor(session, args.room)
    chat.refuse_muted(session, args.room)
    if actor is not None:
        chat.refuse_in_lockdown(actor.granted)
        rules.may_create(chat.rules(args.room).create, actor.granted)
    if len(args.members) > FIRST_MEMBERS:
        raise errors.LIMIT_EXCEEDED.because(f"a room begins with at most {FIRST_MEMBERS} members; invite the others")
    await chat.steward(session).create(
        args.room,
        public=args.public,
        owner=session.user,
        topic=args.topic,
        keys=args.keys,
        members=args.members,
        unused=actor is not None,
    )
    return {}


async def info(chat: Context, session: Session, args: RoomInfo) -> Answer:
    await chat.readable(session, args.room)
    record = await chat.store.rooms.record(args.room)
    standing, role = await chat.place(session, args.room)
    return {
        "room": args.room,
        "created": record.created or None,
        "by": record.by,
        "public": record.public if standing.exists else chat.opens_by_rule(args.room),
        "locked": record.locked,
        "slow": record.slow_ms / 1000,
        "topic": record.topic,
        "keys": record.keys,
        "members": record.members,
        "role": role.word,
        "offset": standing.top.offset,
        "epoch": standing.top.epoch,
    }


async def listed(chat: Context, session: Session, args: ListRooms) -> Answer:
    limit = page(args.limit)
    if args.mine:
        names = [room for room in await chat.store.rooms.rooms_of(session.user) if room > args.after][:limit]
    else:
        names = await chat.store.rooms.created(args.after, limit)
    entries = await asyncio.gather(*(_entry(chat, session, room, mine=args.mine) for room in names))
    return {"rooms": [entry for entry in entries if entry is not None], "next": next_after(names, limit)}


async def _entry(chat: Context, session: Session, room: str, *, mine: bool) -> Answer | None:
    """A room as the list shows it; None where it is not for this user to see."""
    (standing, role), record = await asyncio.gather(chat.place(session, room), chat.store.rooms.record(room))
    if (standing.role if mine else role) is Role.NOBODY or not standing.exists:
        return None
    if chat.covering(What.BAN, session, room) is not None:
        return None
    return {
        "room": room,
        "public": record.public,
        "topic": record.topic,
        "members": record.members,
        "role": role.word,
    }


async def members(chat: Context, session: Session, args: ListMembers) -> Answer:
    await chat.readable(session, args.room)
    limit = page(args.limit)
    shown = [member for member in await chat.store.rooms.members(args.room) if member.user > args.after][:limit]
    users = [member.user for member in shown]
    seen = await chat.store.presence.seen(users) if chat.rules(args.room).presence else [None] * len(shown)
    entries = [_as_member(member, last) for member, last in zip(shown, seen, strict=True)]
    return {"members": entries, "next": next_after(users, limit)}


def _as_member(member: Member, seen: Seen | None) -> Answer:
    known = {} if seen is None else {"online": seen.online, "seen": seen.last}
    return {"user": member.user, "role": member.role.word, "joined": member.joined, **known}


async def invite(chat: Context, session: Session, args: InviteToRoom) -> Answer:
    chat.refuse_muted(session, args.room)
    if chat.measures.lockdown:
        _, role = await chat.place(session, args.room)
        chat.refuse_in_lockdown(role)
    await chat.steward(session).invite(args.room, args.user, by=chat.actor(session, args.room))
    return {}


async def join(chat: Context, session: Session, args: JoinRoom) -> Answer:
    actor = chat.actor(session, args.room)
    chat.refuse_banned(session, args.room)
    if actor is not None:
        chat.refuse_in_lockdown(actor.granted)
    await chat.steward(session).join(args.room, actor)
    return {}


async def leave(chat: Context, session: Session, args: LeaveRoom) -> Answer:
    await chat.steward(session).leave(args.room, chat.actor(session, args.room))
    return {}


async def set_role(chat: Context, session: Session, args: SetRole) -> Answer:
    chat.refuse_banned(session, args.room)
    role = ROLES.get(args.role, Role.NOBODY)
    if role is Role.NOBODY and args.role != Role.NOBODY.word:
        raise errors.BAD_REQUEST.because(f"a role is one of {', '.join(ROLES)} or nobody; {args.role[:64]!r} came")
    actor = chat.actor(session, args.room)
    return unheard(session, await chat.steward(session).set_role(args.room, args.user, role, by=actor))


async def change(chat: Context, session: Session, args: SetRoom) -> Answer:
    chat.refuse_muted(session, args.room)
    answers = await chat.steward(session).set(
        args.room,
        by=chat.actor(session, args.room),
        topic=args.topic,
        locked=args.locked,
        slow=args.slow,
        keys=args.keys,
        public=args.public,
    )
    return unheard(session, answers)


async def delete(chat: Context, session: Session, args: DeleteRoom) -> Answer:
    chat.refuse_banned(session, args.room)
    return unheard(session, await chat.steward(session).delete(args.room, by=chat.actor(session, args.room)))


def unheard(session: Session, answers: Answers) -> Answer:
    """Which nodes did not answer, so that somebody may still be there: for the server; no client knows of nodes."""
    return answers.silent if session.identity is SERVER else {}


def page(limit: int) -> int:
    """
    Raises:
        Reject 107.
    """
    if not 1 <= limit <= PAGE:
        raise errors.BAD_REQUEST.because(f"a page has 1 to {PAGE} entries, {limit} came")
    return limit


def next_after(names: Sequence[str], limit: int) -> str:
    """After what to go on; "" when that was all."""
    return names[-1] if len(names) == limit else ""
