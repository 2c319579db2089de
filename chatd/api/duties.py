"""What an operator looks after, by HTTP: tokens that are to end, reports, the audit stream, and forgetting somebody."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import Final

from chatd import control
from chatd.auth import FOR_EVER_S, Revocation
from chatd.errors import BAD_REQUEST, NO_SUCH

from .shared import Caller

# Acts in one answer.
PAGE: Final = 1000


@dataclass(frozen=True, slots=True)
class Revoke:
    """Have tokens count no more; answers {closed}: connections ended for it.

    Attributes:
        user: all that this user was issued until now; or else
        token: the one with this `jti`; or else
        key: all that the key of this `kid` has signed, and will sign.
    """

    user: str = ""
    token: str = ""
    key: str = ""


@dataclass(frozen=True, slots=True)
class Forget:
    """Take `user` out of every room, for good; answers {rooms, messages, reactions, memberships, cursors, reports,
    notices, ownerless}.

    It goes through all rooms, so it takes its time; begun again after an error it does no harm. Who is connected can
    write again, so `ban` or `revoke` before.
    """

    user: str


@dataclass(frozen=True, slots=True)
class Reports:
    """What users have reported and nobody has closed, oldest first.

    Answers {reports: [{id, room, offset, user, reason, by, at}]}; `user` said it, `by` reports it.

    Attributes:
        room: of this room only.
    """

    room: str = ""


@dataclass(frozen=True, slots=True)
class CloseReport:
    """Take a report off the list; answers {}."""

    id: str


@dataclass(frozen=True, slots=True)
class Audit:
    """What operators, moderators and the back end have done, oldest first: {acts: [{id, at, by, ask, ...}]}.

    Attributes:
        after: the `id` of the last one known; from the beginning if left out.
        limit: at most so many, and at most 1,000.
    """

    after: str = ""
    limit: int = PAGE


async def revoke(caller: Caller, args: Revoke) -> control.Object:
    if sum(map(bool, (args.user, args.token, args.key))) != 1:
        raise BAD_REQUEST.because("expected exactly one of a user, a token's jti and a key's kid")
    closed, unsure = await caller.office.revoke([control.Revoke(*_revocation(args, caller.chat.now()))])
    return {"closed": closed, **({"silent": sorted(unsure)} if unsure else {})}


def _revocation(args: Revoke, now: float) -> Revocation:
    if args.user:
        return Revocation.of_user(args.user, now)
    return Revocation.of_key(args.key, now) if args.key else Revocation.of_token(args.token, now + FOR_EVER_S)


async def forget(caller: Caller, args: Forget) -> control.Object:
    if not args.user:
        raise BAD_REQUEST.because("expected the id of a user, an empty one came")
    done, rooms = await caller.office.forget(args.user, caller.chat.keep)
    return {"rooms": rooms, **done._asdict()}


async def reports(caller: Caller, args: Reports) -> control.Object:
    found = await caller.chat.store.reports.open()
    rows = [{"id": id, **asdict(each)} for id, each in found.items() if args.room in ("", each.room)]
    return {"reports": rows}


async def close_report(caller: Caller, args: CloseReport) -> control.Object:
    if not await caller.office.close_report(args.id):
        raise NO_SUCH.because("there is no such open report")
    return {}


async def audit(caller: Caller, args: Audit) -> control.Object:
    if not re.fullmatch(r"([0-9]{1,19}(-[0-9]{1,19})?)?", args.after):
        raise BAD_REQUEST.because("expected `after` to be the id of an act")
    if not 1 <= args.limit <= PAGE:
        raise BAD_REQUEST.because(f"expected a limit from 1 to {PAGE}, {args.limit} came")
    acts = await caller.chat.store.audit.read(args.after, args.limit)
    return {"acts": [{"id": act.id, **act.entry} for act in acts]}
