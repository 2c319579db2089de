"""What an operator does, by HTTP: the same acts, through the same office, as at the command line."""

from __future__ import annotations

from dataclasses import dataclass

from chatd import control
from chatd.chat.moderation import lasting
from chatd.errors import BAD_REQUEST
from chatd.measures import Lockdown, Measure, On, What
from chatd.names import room_name
from chatd.office import as_measure
from chatd.rules import parsed_network

from .shared import Caller


@dataclass(frozen=True, slots=True)
class Kick:
    """Throw out whoever matches; answers {closed, nodes}, and `silent` names nodes that did not answer.

    Attributes:
        target: a user or a connection; `address`: an address or a network; exactly one of both.
        room: put them out of this room only.
        reason: what they are told.
        revoke: their tokens end as well.
    """

    target: str = ""
    address: str = ""
    room: str = ""
    reason: str = ""
    revoke: bool = False


@dataclass(frozen=True, slots=True)
class Ban:
    """Keep somebody out; answers {closed, until}.

    Attributes:
        target: a user, an address or network, or a token's `jti`, as `on` says: "user", "address" or "token".
        room: where; everywhere if left out.
        for_: how long, in seconds or as "10m"; for ever if left out.
        reason: what they are told.
    """

    target: str
    on: On = On.USER
    room: str = ""
    for_: float | str | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Mute(Ban):
    """Keep somebody silent; as ban."""


@dataclass(frozen=True, slots=True)
class Unban:
    """End a ban; answers {lifted}: whether there was one."""

    target: str
    on: On = On.USER
    room: str = ""


@dataclass(frozen=True, slots=True)
class Unmute(Unban):
    """End a mute; as unban."""


@dataclass(frozen=True, slots=True)
class Measures:
    """The bans and mutes in force, with how often each was met, and the lockdown's level."""


@dataclass(frozen=True, slots=True)
class LockDown:
    """Close the cluster: 0 not at all, 1 guests are silent, 2 only moderators speak, 3 nobody new is let in."""

    level: int


async def kick(caller: Caller, args: Kick) -> control.Object:
    if bool(args.target) == bool(args.address):
        raise BAD_REQUEST.because("expected a target, or else an address")
    if args.address:
        _network(args.address)
    question = control.Kick(args.target, args.address, args.room, args.reason, args.revoke)
    return _without_version(control.kicked(await caller.office.kick(question)))


async def ban(caller: Caller, args: Ban) -> control.Object:
    return await _impose(caller, What.BAN, args)


async def mute(caller: Caller, args: Mute) -> control.Object:
    return await _impose(caller, What.MUTE, args)


async def _impose(caller: Caller, what: What, args: Ban) -> control.Object:
    lasts = lasting(args.for_)
    wanted = Measure(what, args.on, _whom(caller, args), args.room, reason=args.reason)
    imposed, answers = await caller.office.impose(wanted, lasts)
    return {"closed": answers.closed, "until": imposed.until or None, **answers.silent}


async def unban(caller: Caller, args: Unban) -> control.Object:
    return await _lift(caller, What.BAN, args)


async def unmute(caller: Caller, args: Unmute) -> control.Object:
    return await _lift(caller, What.MUTE, args)


async def _lift(caller: Caller, what: What, args: Unban) -> control.Object:
    lifted, answers = await caller.office.lift(Measure(what, args.on, _whom(caller, args), args.room))
    return {"lifted": lifted, **answers.silent}


async def measures(caller: Caller, args: Measures) -> control.Object:
    found = await caller.chat.store.measures.in_force()
    rows = [as_measure(row, hits) for row, hits in zip(found.rows, found.hits, strict=True)]
    return {"lockdown": int(found.lockdown), "measures": rows}


async def lockdown(caller: Caller, args: LockDown) -> control.Object:
    try:
        level = Lockdown(args.level)
    except ValueError:
        raise BAD_REQUEST.because(f"expected a level from 0 to {max(Lockdown)}, {args.level} came") from None
    return {"level": int(level), **(await caller.office.lock_down(level)).silent}


def _whom(caller: Caller, args: Ban | Unban) -> str:
    """The target as measures have it."""
    if args.room:
        room_name(args.room, caller.chat.limits.room_name)
    if not args.target:
        raise BAD_REQUEST.because("expected a target, an empty one came")
    return _network(args.target) if args.on is On.ADDRESS else args.target


def _network(text: str) -> str:
    try:
        return str(parsed_network(text))
    except ValueError:
        raise BAD_REQUEST.because(f"expected an address or a network such as 10.0.0.0/8, got {text[:64]!r}") from None


def _without_version(reply: control.Object) -> control.Object:
    return {name: value for name, value in reply.items() if name != "schema_version"}
