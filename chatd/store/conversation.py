"""What is said on one connection to a server, once redis-py has opened it.

redis-py connects: address, TLS, log-in, database, Sentinel's master. After that its streams, a lock, a timer and a
coroutine for each reply cost several times what a message needs that comes alone; so the transport is given a protocol
of ours, which hands what came to hiredis and to whoever listens or waits. Which commands go out, and what their replies
mean, is not known here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any, Final, TypeAlias

from hiredis import Reader, pack_command
from redis.asyncio.connection import AbstractConnection, DefaultParser
from redis.exceptions import InvalidResponse

# Replies that may wait to be heard; past this nothing more is read until they are.
UNHEARD: Final = 1024
_NOTHING: Final = object()

Command: TypeAlias = tuple[str | bytes | int | float, ...]


class Conversation(asyncio.Protocol):
    """See the head of this file.

    Args:
        connection: open just now, and nothing is under way on it: an end that redis-py has heard of is not heard again.
            Who has it closes it, as redis-py does; what was said until then may still be heard.
        listener: told the replies that one read brought, as soon as it did; what it raises ends the conversation. None:
            they wait for `hear`.
    """

    def __init__(self, connection: AbstractConnection, listener: Callable[[list[Any]], None] | None = None) -> None:
        self.connection = connection
        self._listener = listener
        # redis-py has no public way to its transport.
        self._transport: asyncio.Transport = connection._writer.transport  # type: ignore[assignment,union-attr]
        self._former = self._transport.get_protocol()
        self._reader: Any = Reader(
            protocolError=InvalidResponse, replyError=DefaultParser.parse_error, notEnoughData=_NOTHING
        )
        self._unheard: list[Any] = []
        self._waiter: asyncio.Future[None] | None = None
        self._lost: Exception | None = None
        self._transport.set_protocol(self)

    def say(self, commands: Iterable[Command]) -> None:
        if not self._transport.is_closing():  # else whoever listens hears of it
            self._transport.write(b"".join(pack_command(command) for command in commands))  # type: ignore[arg-type]

    async def hear(self) -> list[Any]:
        """All replies that have come since the last call, in order; waits for the first. A refusal is a reply, too.

        One may wait at a time; with a listener, only the end is heard here.

        Raises:
            ConnectionError: no more will come.
            redis-py's InvalidResponse: what came is not of this protocol.
        """
        while not self._unheard:
            if self._lost is not None:
                raise self._lost
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        heard, self._unheard = self._unheard, []
        self.hold(False)
        return heard

    def hold(self, on: bool) -> None:
        """Read no more for now, so that what is said waits at the server; or go on."""
        if on is self._transport.is_reading() and not self._transport.is_closing():
            (self._transport.pause_reading if on else self._transport.resume_reading)()

    @property
    def spent(self) -> bool:
        """Nothing more can be asked on it: it was closed, or something came that nobody had asked for."""
        return self._lost is not None or bool(self._unheard) or self._transport.is_closing()

    # --- what the transport does --------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        if self._lost is not None:
            return
        try:
            self._reader.feed(data)
            while (reply := self._reader.gets()) is not _NOTHING:
                self._unheard.append(reply)
        except InvalidResponse as error:
            self._end(error)
        if self._listener is not None:
            self._tell(self._listener)
        elif len(self._unheard) > UNHEARD:
            self.hold(True)
        self._wake()

    def _tell(self, listener: Callable[[list[Any]], None]) -> None:
        heard, self._unheard = self._unheard, []
        try:
            listener(heard)
        except Exception as error:
            self._end(error)

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(ConnectionError(f"the connection to the store was closed{f': {exc}' if exc else ''}"))
        self._former.connection_lost(exc)  # redis-py's streams wait for it when they close
        self._wake()

    def _end(self, why: Exception) -> None:
        self._lost = self._lost or why

    def _wake(self) -> None:
        """Tell who waits in `hear`, if there is something to hear: what a listener was told is not."""
        if (self._unheard or self._lost) and self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
