"""What is said on one connection to a server, once redis-py has opened it.

redis-py connects: address, TLS, log-in, database, Sentinel's master. After that its streams, a lock, a timer and a
coroutine for each reply cost several times what a message needs that comes alone; so the transport is given a protocol
of ours, which hands what came to hiredis and the replies to whoever hears them. Which commands go out, and what their
replies mean, is not known here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, Final, Protocol, TypeAlias

from hiredis import Reader, pack_command
from redis.asyncio.connection import AbstractConnection, DefaultParser
from redis.exceptions import InvalidResponse

_NOTHING: Final = object()

Command: TypeAlias = tuple[str | bytes | int | float, ...]


class Hearer(Protocol):
    """Who hears what a server says, as soon as it is read."""

    def heard(self, replies: list[Any]) -> None:
        """The replies that one read brought, in order; a refusal is one, too. What is raised ends the conversation."""

    def ended(self, why: Exception) -> None:
        """Nothing more will be heard; told once.

        Args:
            why: ConnectionError; redis-py's InvalidResponse: what came is not of this protocol; or what `heard` raised.
        """


class Conversation(asyncio.Protocol):
    """See the head of this file.

    Args:
        connection: open just now, and nothing is under way on it: an end that redis-py has heard of is not heard again.
            Who has it closes it, as redis-py does; what was said until then may still be heard.
    """

    def __init__(self, connection: AbstractConnection, hearer: Hearer) -> None:
        self.connection = connection
        self._hearer = hearer
        # redis-py has no public way to its transport.
        self._transport: asyncio.Transport = connection._writer.transport  # type: ignore[assignment,union-attr]
        self._former = self._transport.get_protocol()
        self._reader: Any = Reader(
            protocolError=InvalidResponse, replyError=DefaultParser.parse_error, notEnoughData=_NOTHING
        )
        self._over = False
        self._transport.set_protocol(self)

    def say(self, commands: Iterable[Command]) -> None:
        if not self._transport.is_closing():  # else the hearer is told
            self._transport.write(b"".join(pack_command(command) for command in commands))  # type: ignore[arg-type]

    def hold(self, on: bool) -> None:
        """Read no more for now, so that what is said waits at the server; or go on."""
        if on is self._transport.is_reading() and not self._transport.is_closing():
            (self._transport.pause_reading if on else self._transport.resume_reading)()

    def abort(self) -> None:
        """Hear nothing more, and have the connection cut; it is still to be closed."""
        self._over = True
        self._transport.abort()

    @property
    def over(self) -> bool:
        """Nothing more can be asked on it."""
        return self._over or self._transport.is_closing()

    # --- what the transport does --------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        if self._over:
            return
        replies: list[Any] = []
        broken: Exception | None = None
        try:
            self._reader.feed(data)
            while (reply := self._reader.gets()) is not _NOTHING:
                replies.append(reply)
        except InvalidResponse as error:
            broken = error
        try:
            self._hearer.heard(replies)
        except Exception as error:
            broken = broken or error
        if broken is not None:
            self._end(broken)

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(ConnectionError(f"the connection to the store was closed{f': {exc}' if exc else ''}"))
        self._former.connection_lost(exc)  # redis-py's streams wait for it when they close

    def _end(self, why: Exception) -> None:
        if not self._over:
            self._over = True
            self._hearer.ended(why)
