"""A row for each command: what it costs, and what does it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

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
    Send,
    SubRefresh,
    Subscribe,
    Unsubscribe,
)
from chatd.session import Session

from . import entry, messages, reading, tokens
from .context import Context


@dataclass(frozen=True, slots=True)
class Row:
    """What a command is made of.

    Attributes:
        do: carries it out and returns the result, or None where there is no reply.
        then: what follows once the reply is on its way.
        speaks: it counts as a message; `joins`: it counts as a join.
    """

    do: Callable[[Context, Session, Any], Awaitable[Result | None]]
    then: Callable[[Context, Session, Any], Awaitable[None]] | None = None
    speaks: bool = False
    joins: bool = False


async def rpc(chat: Context, session: Session, command: Rpc) -> Result:
    raise errors.NOT_AVAILABLE.because(f"there is no method {command.method[:64]!r}")


async def ping(chat: Context, session: Session, command: Ping) -> None:
    raise errors.NOT_AVAILABLE.because("clients do not ping; the server does")


async def send(chat: Context, session: Session, command: Send) -> None:
    raise errors.NO_HANDLER.anew()


ROWS: Final[dict[type, Row]] = {
    Connect: Row(entry.connect),
    Refresh: Row(tokens.refresh),
    Subscribe: Row(reading.subscribe, then=reading.announce, joins=True),
    SubRefresh: Row(tokens.sub_refresh),
    Unsubscribe: Row(reading.unsubscribe),
    Publish: Row(messages.publish, speaks=True),
    Presence: Row(reading.presence, joins=True),
    PresenceStats: Row(reading.presence_stats, joins=True),
    History: Row(messages.history, joins=True),
    Rpc: Row(rpc, speaks=True),
    Ping: Row(ping),
    Send: Row(send),
}


def row_of(command: Command) -> Row:
    return ROWS[type(command)]
