"""Requests come in, and are worked off: in order, at their client's pace, each answered or refused.

Requests of one session are done one after the other, but messages, which are begun as they come, and answered in order;
different sessions do not wait for each other. What each does is in the table of rows.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Coroutine, Iterable
from typing import Any, Final, NoReturn

import structlog

from chatd import errors, rules
from chatd.control import Heard
from chatd.errors import Disconnect, Reject
from chatd.model import Command, Connect, Pong, Request, Result, Subscribe
from chatd.session import Pending, Session, State
from chatd.store.errors import StoreError

from .context import Context
from .entry import depart
from .rows import Row, row_of

log = structlog.get_logger("chatd")

# A request that comes too early waits up to this long for its turn; beyond, it is refused and told when to try again.
# SDKs give up on a command after 5 s.
PATIENCE_S: Final = 2.0
# Refused this often in a row for speaking too fast, a client is not listening to refusals.
STRIKES: Final = 50
# Requests waiting in one session beyond this stop us from reading its socket.
WAITING: Final = 64


def seat(chat: Context, session: Session, wish: Subscribe) -> None:
    """A plain client came in: it says nothing, but the handshake said what an SDK would."""
    _enqueue(chat, session, Pending(Request(0, Connect()), 0.0, None))
    _enqueue(chat, session, Pending(Request(0, wish), 0.0, None))


def received(chat: Context, session: Session, message: bytes) -> None:
    """A client said something: decide at once what may be done when, and have it done in order."""
    if not session.open:
        return
    now = chat.clock()
    session.heard_at = now
    session.traffic.bytes_in += len(message)
    try:
        requests = session.codec.decode(message)
        session.bytes_due, early = rules.pace(
            session.bytes_due, now, len(message), chat.limits.bytes_per_second, chat.limits.bytes_burst
        )
        for request in requests:
            _in_order(chat, session, request)
            chat.commands[type(request.command).__name__] += 1
            if isinstance(request.command, Pong):
                _ponged(session)
            else:
                _enqueue(chat, session, _admitted(chat, session, request, now, early))
    except Disconnect as goodbye:
        session.close(goodbye)


def emulated(chat: Context, secret: str, message: bytes) -> Heard:
    """A client without a WebSocket said something, by a request of its own."""
    session = chat.hub.of_secret(secret)
    if session is None:
        return Heard.NOBODY
    if not session.open:  # its goodbye, which is still on its way, says whether to come back; NOBODY says that it may
        return Heard.YES
    if session.waiting is not None and len(session.waiting) >= WAITING:
        return Heard.TOO_MUCH
    received(chat, session, message)
    return Heard.YES


def heard(chat: Context, session: Session) -> None:
    """A sign of life below the level of messages."""
    session.heard_at = chat.clock()


def _in_order(chat: Context, session: Session, request: Request) -> None:
    """The Centrifuge protocol's rules that hold for every command, in the order in which it has them."""
    _follows_no_refusal(session)
    connecting = session.state is State.READY or session.waiting is not None
    if not connecting and not isinstance(request.command, Connect):
        raise errors.BAD_COMMAND.because("the first command must be connect")


def _follows_no_refusal(session: Session) -> None:
    if session.state is State.UNUSABLE:
        raise errors.BAD_COMMAND.because("nothing may follow a refused connect")


def _ponged(session: Session) -> None:
    if not session.pings:
        raise errors.BAD_COMMAND.because("a pong came without a ping")
    session.pings -= 1


def _admitted(chat: Context, session: Session, request: Request, now: float, early: float) -> Pending:
    """When this may be done, or that it will be refused when its turn comes."""
    try:
        row = row_of(request.command)
        entry = Pending(request, now + _charge(chat, session, row, now, early), None)
        entry.unpaid = row.speaks and session.identity is None
        return entry
    except Reject as refusal:
        return Pending(request, now, refusal)


def _charge(chat: Context, session: Session, row: Row, now: float, early: float) -> float:
    """Seconds this must wait for its turn; `early`: how long its bytes must wait.

    Raises:
        Reject 111: longer than we let anything wait.
        Disconnect 3013: it has been told so too often.
    """
    limits, known = chat.limits, session.identity is not None
    messages, theirs, joins = session.messages_due, 0.0, session.joins_due
    waits = [early]
    if row.speaks:
        messages, wait = rules.pace(messages, now, 1, limits.messages_per_second, limits.messages_burst)
        waits.append(wait)
    if row.speaks and known:
        theirs, wait = _one_more(chat, session.user, now)
        waits.append(wait)
    if row.joins:
        joins, wait = rules.pace(joins, now, 1, limits.joins_per_second, limits.joins_burst)
        waits.append(wait)
    if max(waits) > PATIENCE_S:
        _strike(chat, session, max(waits))
    session.strikes = 0
    session.messages_due, session.joins_due = messages, joins
    if row.speaks and known:
        chat.speaking[session.user] = theirs
    return max(waits)


def _one_more(chat: Context, user: str, now: float) -> tuple[float, float]:
    """The user's allowance after one more message, and how much too early that is; see rules.pace."""
    limits, due = chat.limits, chat.speaking.get(user, 0.0)
    return rules.pace(due, now, 1, limits.user_messages_per_second, limits.user_messages_burst)


def _charge_user(chat: Context, session: Session, waiting: Iterable[Pending]) -> None:
    """Who did not wait to be let in is known now, and with it whose allowance takes what he said meanwhile."""
    now = chat.clock()
    for entry in waiting:
        if not entry.unpaid:
            continue
        entry.unpaid = False
        theirs, wait = _one_more(chat, session.user, now)
        if wait > PATIENCE_S:
            entry.refusal = _too_fast(wait)
        else:
            chat.speaking[session.user], entry.due = theirs, max(entry.due, now + wait)


def _strike(chat: Context, session: Session, wait: float) -> NoReturn:
    session.strikes += 1
    if session.strikes > STRIKES:
        raise errors.TOO_MANY_MESSAGES.anew()
    raise _too_fast(wait)


def _too_fast(wait: float) -> Reject:
    wait_ms = int(wait * 1000)
    return errors.TOO_MANY_REQUESTS.because(f"too fast; try again in {wait_ms} ms", retry_after_ms=wait_ms)


def _enqueue(chat: Context, session: Session, entry: Pending) -> None:
    if session.waiting is None:
        session.waiting = deque()
        chat.spawn(_work_off(chat, session))
    _begin_if_it_may(chat, session, session.waiting[-1] if session.waiting else None, entry)
    session.waiting.append(entry)
    if len(session.waiting) == WAITING:
        session.link.pause_reading()


def _begin_if_it_may(chat: Context, session: Session, before: Pending | None, entry: Pending) -> bool:
    """Begin a request whose turn has come, if it may be under way along with those before it: see Row.in_turn."""
    if before is not None and before.outcome is None:
        return False
    may = row_of(entry.request.command).in_turn and entry.due <= chat.clock() and not chat.callout.asks
    if may:
        entry.outcome = _begun(chat, session, entry)
    return may


def _begun(chat: Context, session: Session, entry: Pending) -> Coroutine[Any, Any, Result | None]:
    try:
        return _carry_out(chat, session, entry)
    except Exception as error:  # whatever it is, it is told when the answer's turn comes
        return _raise(error)


async def _raise(error: Exception) -> None:
    raise error


async def _work_off(chat: Context, session: Session) -> None:
    """Answer what waits in `session`, in order; the only task that ever works for it."""
    assert session.waiting is not None, "spawned with something to do"
    waiting = session.waiting
    try:
        while waiting:
            entry = waiting[0]
            if entry.outcome is None:
                if session.state is not State.CLOSED and (wait := entry.due - chat.clock()) > 0:
                    await asyncio.sleep(wait)
                _begin_together(chat, session, waiting)
            await _do(chat, session, entry, entry.outcome or _begun(chat, session, entry))
            waiting.popleft()
            if isinstance(entry.request.command, Connect) and session.identity is not None:
                _charge_user(chat, session, waiting)
            if len(waiting) == WAITING // 2:
                session.link.resume_reading()
    finally:
        session.waiting = None
        for entry in waiting:
            if entry.outcome is not None:
                entry.outcome.close()
        if not session.open:
            await depart(chat, session)


def _begin_together(chat: Context, session: Session, waiting: Iterable[Pending]) -> None:
    """Begin the first of those that wait, and what may be under way along with it, so that they travel together."""
    before = None
    for entry in waiting:
        if not _begin_if_it_may(chat, session, before, entry):
            break
        before = entry


def _carry_out(chat: Context, session: Session, entry: Pending) -> Coroutine[Any, Any, Result | None]:
    row = row_of(entry.request.command)
    if not session.open and not (session.state is State.LEFT and row.speaks and session.identity is not None):
        return _nothing()
    _follows_no_refusal(session)  # once more: it may have come along with what was refused
    if entry.refusal is not None:
        raise entry.refusal
    return row.do(chat, session, entry.request.command)


async def _nothing() -> None:
    return


async def _do(chat: Context, session: Session, entry: Pending, outcome: Awaitable[Result | None]) -> None:
    """Answer a request with what becomes of it."""
    id, command = entry.request
    row = row_of(command)
    try:
        try:
            result = await outcome
            # No await between a command's end and its reply: what is said in a room it joined comes after.
            if result is not None:
                session.reply(id, result)
            if row.then is not None and session.open:
                await row.then(chat, session, command)
        except Reject as refusal:
            chat.on_refusal(refusal)
            _refuse(chat, session, id, command, refusal)
        except Disconnect as goodbye:
            chat.on_refusal(goodbye)
            session.close(goodbye)
        except StoreError as error:
            log.warning("command not done", command=type(command).__name__, error=str(error))
            _refuse(chat, session, id, command, errors.STORE_UNAVAILABLE)
    except Exception:  # be it in the refusal
        log.exception("command failed", command=type(command).__name__, client=session.id)
        session.close(errors.INTERNAL_ERROR)


def _refuse(chat: Context, session: Session, id: int, command: Command, refusal: Reject) -> None:
    session.reject(id, refusal)
    if isinstance(command, Connect) and session.state is State.UNKNOWN:
        session.state = State.UNUSABLE
    if session.home and isinstance(command, Connect | Subscribe):
        # A plain client cannot ask again: it is in its room or it is nowhere.
        session.close(errors.FORCE_RECONNECT if refusal.temporary else errors.NO_ACCESS)
