"""What a room's moderators do to those in it, and what anybody does about somebody else: blocking, reporting.

A moderator acts through the office, as operators do, but on who is less than he in the room, by membership and by
token: the nodes, which alone know the tokens, are asked before, and leave out whoever comes with such a token later.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Final

from chatd import errors, rules
from chatd.control import Answers, Granted, Kick
from chatd.measures import LONGEST_S, Measure, On, What
from chatd.methods import BanUser, BlockUser, KickUser, ListBlocked, MuteUser, ReportMessage, UnbanUser, UnmuteUser
from chatd.model import SERVER, Role
from chatd.names import dm_room, room_name
from chatd.session import Session
from chatd.settings import seconds_in
from chatd.store.reports import Report
from chatd.wire import rpc
from chatd.wire.publication import head, parse

from .context import Context
from .rooms import next_after, page, unheard

Answer = Mapping[str, object]

# What somebody is told, or an operator reads, is a line and not a message.
REASON_CHARS: Final = 200

# Users that one user blocks at a time: each is kept for ever.
BLOCKED: Final = 1_000

# What the one concerned is told, see events.
IMPOSED: Final = {What.BAN: "ban", What.MUTE: "mute"}
LIFTED: Final = {What.BAN: "unban", What.MUTE: "unmute"}


# --- moderators -------------------------------------------------------------------------------------------------------


async def kick(chat: Context, session: Session, args: KickUser) -> Answer:
    lasts, rank = lasting(args.for_), await _rank_over(chat, session, args.room, args.user)
    reason = args.reason[:REASON_CHARS]
    if lasts:
        _, answers = await _impose(chat, session, What.BAN, args, rank)
    else:
        answers = await chat.office(session).ask(Kick(args.user, room=args.room, reason=reason, rank=rank))
        await _tell(chat, session, "kick", args.user, {"room": args.room, "reason": reason})
    return {"closed": answers.closed, **unheard(session, answers)}


async def mute(chat: Context, session: Session, args: MuteUser) -> Answer:
    rank = await _rank_over(chat, session, args.room, args.user)
    measure, answers = await _impose(chat, session, What.MUTE, args, rank)
    return {"until": measure.until or None, **unheard(session, answers)}


async def ban(chat: Context, session: Session, args: BanUser) -> Answer:
    rank = await _rank_over(chat, session, args.room, args.user)
    measure, answers = await _impose(chat, session, What.BAN, args, rank)
    return {"until": measure.until or None, **unheard(session, answers)}


async def unmute(chat: Context, session: Session, args: UnmuteUser) -> Answer:
    return await _lift(chat, session, What.MUTE, args)


async def unban(chat: Context, session: Session, args: UnbanUser) -> Answer:
    return await _lift(chat, session, What.BAN, args)


async def _impose(
    chat: Context, session: Session, what: What, args: KickUser | MuteUser | BanUser, rank: Role
) -> tuple[Measure, Answers]:
    """The measure as it is in force, and what the nodes said, who count the subscriptions that ended for it."""
    lasts, reason = lasting(args.for_), args.reason[:REASON_CHARS]
    wanted = Measure(what, On.USER, args.user, args.room, reason=reason, rank=rank)
    _see_rank(chat, wanted)
    measure, answers = await chat.office(session).impose(wanted, lasts)
    await _tell(
        chat, session, IMPOSED[what], args.user, {"room": args.room, "reason": reason, "until": measure.until or None}
    )
    return measure, answers


async def _lift(chat: Context, session: Session, what: What, args: UnmuteUser | UnbanUser) -> Answer:
    rank = await _rank_over(chat, session, args.room, args.user)
    measure = Measure(what, On.USER, args.user, args.room, rank=rank)
    _see_rank(chat, measure)
    lifted, answers = await chat.office(session).lift(measure)
    if not lifted:
        raise errors.NO_SUCH.because(f"there is no {what} of this user in this room")
    await _tell(chat, session, LIFTED[what], args.user, {"room": args.room})
    return unheard(session, answers)


async def _rank_over(chat: Context, session: Session, room: str, user: str) -> Role:
    """What this client is in `room`, for the acts of a moderator on `user`; NOBODY: the server, who is above all.

    Raises:
        Reject 107. Reject 403, 103: the client may not do this, or not to this user.
    """
    room_name(room, chat.limits.room_name)
    if not user:
        raise errors.BAD_REQUEST.because("expected a user, none came")
    if session.identity is SERVER:
        return Role.NOBODY
    chat.refuse_banned(session, room)
    _, role = await chat.place(session, room)
    rules.require(rules.Act.MODERATE, role, room)
    standing = await chat.store.rooms.standing(room, user)
    answers = await chat.office(session).ask(Granted(room, user))
    theirs = max([standing.role, *(Role(answer["role"]) for answer in answers.by_node.values())])
    rules.require_above(role, Role.OWNER if user == session.user else theirs)
    return role


def _see_rank(chat: Context, wanted: Measure) -> None:
    """Leave alone what an operator, or somebody who is more in the room, has put in force.

    Raises:
        Reject 103.
    """
    holds = chat.measures.get(wanted.id)
    if holds is None or not holds.holds(chat.now()) or wanted.rank == Role.NOBODY:
        return
    if holds.rank == Role.NOBODY or holds.rank > wanted.rank:
        raise errors.PERMISSION_DENIED.because(f"this {wanted.what} is by somebody above you; only they can change it")


async def _tell(chat: Context, session: Session, kind: str, user: str, news: Mapping[str, object]) -> None:
    """Say it to the one concerned, on his own channel; by "" where it was the server."""
    personal = rules.personal_room(user)
    notice = head(rpc.encode({**news, "by": session.user}), None, {"type": kind})
    await chat.store.messages.publish(personal, notice, chat.keep(personal))


def lasting(given: float | str | None) -> float:
    """Seconds; 0.0 for ever.

    Raises:
        Reject 107.
    """
    if given is None:
        return 0.0
    try:
        seconds = seconds_in(given)
    except ValueError:
        seconds = 0.0
    if seconds <= 0:
        raise errors.BAD_REQUEST.because('"for" is a duration such as "10m", or a number of seconds, more than 0')
    if seconds > LONGEST_S:
        raise errors.BAD_REQUEST.because(f'"for" is at most {LONGEST_S:.0f} seconds; leave it out for ever')
    return seconds


# --- everybody --------------------------------------------------------------------------------------------------------


async def block(chat: Context, session: Session, args: BlockUser) -> Answer:
    if not args.user or args.user == session.user or session.identity is SERVER:
        raise errors.BAD_REQUEST.because("one user blocks another; expected somebody else's id")
    room = room_name(dm_room(session.user, args.user), chat.limits.room_name)
    await chat.store.rooms.block(session.user, args.user, room, on=args.on, most=BLOCKED)
    return {}


async def blocked(chat: Context, session: Session, args: ListBlocked) -> Answer:
    limit = page(args.limit)
    users = [user for user in await chat.store.rooms.blocked_by(session.user) if user > args.after][:limit]
    return {"users": users, "next": next_after(users, limit)}


async def report(chat: Context, session: Session, args: ReportMessage) -> Answer:
    await chat.readable(session, args.room)
    floor = await chat.reads_above(session, args.room)
    page = await chat.store.messages.history(
        args.room, chat.keep(args.room).ms, after=max(args.offset, 1) - 1, limit=1, floor=floor
    )
    found = [message for message in map(parse, page.publications) if message.offset == args.offset]
    if not found or not found[0].is_message:
        raise errors.NO_SUCH.because("there is no such message in this room")
    filed = Report(
        room=args.room,
        offset=args.offset,
        user=found[0].user or "",
        reason=args.reason[:REASON_CHARS],
        by=session.user,
        at=round(chat.now(), 3),
    )
    id, fresh = await chat.store.reports.file(filed, page.top.epoch)
    if fresh:
        await chat.store.outbox.add("report", args.room, {"id": id, **asdict(filed)})
    return {"id": id}
