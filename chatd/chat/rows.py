"""A row for each command, and for each method of `rpc`: what it costs, and what does it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from chatd import errors
from chatd.model import (
    Command,
    Connect,
    History,
    Ping,
    Presence,
    PresenceStats,
    Publish,
    Refresh,
    Result,
    Rpc,
    RpcResult,
    Send,
    SubRefresh,
    Subscribe,
    Unsubscribe,
)
from chatd.session import Session
from chatd.wire import rpc

from . import changes, cursors, entry, folded, messages, moderation, reading, rooms, tokens
from .context import Context


@dataclass(frozen=True, slots=True)
class Row:
    """What a command is made of.

    Attributes:
        do: carries it out and gives the result, or None where there is no reply; awaited at once, but see `in_turn`.
        then: what follows once the reply is on its way.
        speaks: it counts as a message; `joins`: it counts as a join.
        in_turn: when `do` returns, what it gives still to be awaited, the store has been asked; and nothing that
            follows looks at what it did. So others of the kind may be begun before this is done, and their effects are
            in the order in which they were begun.
    """

    do: Callable[[Context, Session, Any], Coroutine[Any, Any, Result | None]]
    then: Callable[[Context, Session, Any], Awaitable[None]] | None = None
    speaks: bool = False
    joins: bool = False
    in_turn: bool = False


Method: TypeAlias = Callable[[Context, Session, Any], Awaitable[Mapping[str, object]]]
"""Carries out a method, whose data comes as the dataclass that methods.py has for it; returns the answer's members."""


async def no_method(chat: Context, session: Session, command: Rpc) -> Result:
    raise errors.NOT_AVAILABLE.because(f"there is no method {command.method[:64]!r}")


def method(do: Method, *, speaks: bool = False, joins: bool = False, in_turn: bool = False) -> Row:
    """The row of a method; costs as in Row. One that is none of both is free but for its bytes."""

    def call(chat: Context, session: Session, command: Rpc) -> Coroutine[Any, Any, Result]:
        return _answer(do(chat, session, rpc.decode(command.method, command.data)))

    return Row(call, speaks=speaks, joins=joins, in_turn=in_turn)


async def _answer(doing: Awaitable[Mapping[str, object]]) -> Result:
    return RpcResult(rpc.encode(await doing))


async def ping(chat: Context, session: Session, command: Ping) -> None:
    raise errors.NOT_AVAILABLE.because("clients do not ping; the server does")


async def send(chat: Context, session: Session, command: Send) -> None:
    raise errors.NO_HANDLER.because("nobody takes what is sent without asking for an answer; call rpc or publish")


ROWS: Final[dict[type, Row]] = {
    Connect: Row(entry.connect),
    Refresh: Row(tokens.refresh),
    Subscribe: Row(reading.subscribe, then=reading.announce, joins=True),
    SubRefresh: Row(tokens.sub_refresh),
    Unsubscribe: Row(reading.unsubscribe),
    Publish: Row(messages.publish, speaks=True, in_turn=True),
    Presence: Row(reading.presence, joins=True),
    PresenceStats: Row(reading.presence_stats, joins=True),
    History: Row(messages.history, joins=True),
    Rpc: Row(no_method, speaks=True),
    Ping: Row(ping),
    Send: Row(send),
}


METHOD_ROWS: Final[Mapping[str, Row]] = {
    "message.send": method(messages.send, speaks=True, in_turn=True),
    "message.edit": method(changes.edit, speaks=True),
    "message.delete": method(changes.delete, speaks=True),
    "message.react": method(changes.react, speaks=True),
    "message.history": method(folded.history, joins=True),
    "typing": method(cursors.typing, speaks=True),
    "read": method(cursors.read, speaks=True),
    "unread": method(cursors.unread, joins=True),
    "room.create": method(rooms.create, speaks=True),
    "room.info": method(rooms.info, joins=True),
    "room.list": method(rooms.listed, joins=True),
    "room.members": method(rooms.members, joins=True),
    "room.invite": method(rooms.invite, speaks=True),
    "room.join": method(rooms.join, speaks=True),
    "room.leave": method(rooms.leave, speaks=True),
    "room.role": method(rooms.set_role, speaks=True),
    "room.set": method(rooms.change, speaks=True),
    "room.delete": method(rooms.delete, speaks=True),
    "mod.kick": method(moderation.kick, speaks=True),
    "mod.mute": method(moderation.mute, speaks=True),
    "mod.unmute": method(moderation.unmute, speaks=True),
    "mod.ban": method(moderation.ban, speaks=True),
    "mod.unban": method(moderation.unban, speaks=True),
    "user.block": method(moderation.block, speaks=True),
    "user.blocked": method(moderation.blocked, joins=True),
    "report": method(moderation.report, speaks=True),
}


def row_of(command: Command) -> Row:
    if isinstance(command, Rpc):
        return METHOD_ROWS.get(command.method, ROWS[Rpc])
    return ROWS[type(command)]
