"""One connection to one server, and what that server tells us on it.

A Line keeps its subscriptions over reconnects and says when each is in force, for only then is what was missed known to
be in history. What channels mean is Feed's business.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from random import uniform
from typing import Any, Protocol

import structlog
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import RedisError

from .connect import Servers, heeding_cancellation
from .conversation import Conversation
from .errors import StoreError, translated

log = structlog.get_logger("chatd.store")

# Short, for delivery stands still meanwhile; jittered, so that many nodes do not call a restarted server in step.
RETRY_S = (0.05, 1.0)


class Listener(Protocol):
    """Who hears what a line brings.

    Attributes:
        held: a line shall bring nothing for now; who changes it tells the lines there are with `Line.hold`.
    """

    @property
    def held(self) -> bool: ...

    def arrived(self, messages: list[tuple[bytes, bytes]]) -> None:
        """(channel, payload) in order, all that one read brought."""

    def in_force(self, channel: bytes) -> None:
        """The subscription stands: from here on nothing on `channel` is missed."""

    async def interrupted(self, line: Line) -> bool:
        """The line is down; take off it what lies on another server now. False: nothing is left, it may end."""


class Line:
    """A connection that only listens.

    Attributes:
        server: its name, as `Servers.server_of` gives it.
        channels: what is, or shall be, subscribed.
        heard_at: loop time of the latest probe heard on this line; None while there is none.
        unheard_since: loop time of the first probe sent since; None while there is none.
    """

    def __init__(self, servers: Servers, server: str, listener: Listener) -> None:
        self.server = server
        self.channels: set[str] = set()
        self.heard_at: float | None = None
        self.unheard_since: float | None = None
        self._servers = servers
        self._listener = listener
        self._outgoing: list[tuple[str, str]] = []
        self._leaving: Counter[bytes] = Counter()
        self._conversation: Conversation | None = None
        self._end: asyncio.Future[None]  # of the conversation

    def subscribe(self, channel: str) -> None:
        self.channels.add(channel)
        self._say("SSUBSCRIBE", channel)

    def unsubscribe(self, channel: str) -> None:
        self.channels.discard(channel)
        self._leaving[channel.encode()] += 1
        self._say("SUNSUBSCRIBE", channel)

    async def run(self) -> None:
        """Stay connected until cancelled, or until an interruption after which nothing is left to listen to."""
        failures = 0
        goes_on = True
        while goes_on:
            try:
                await self._session()
            except (RedisError, OSError, StoreError) as error:
                if failures == 0:
                    log.warning("feed interrupted", server=self.server, error=str(error))
            failures = 0 if self.heard_at is not None else failures + 1
            self.heard_at = self.unheard_since = None
            await asyncio.sleep(uniform(*RETRY_S) if failures else RETRY_S[0])
            with heeding_cancellation():
                goes_on = await self._listener.interrupted(self)

    async def reconnect(self) -> None:
        """Give up a connection that is silent though the server answers elsewhere; `run` makes a new one."""
        if self._conversation is not None:
            await self._conversation.connection.disconnect(nowait=True)

    def hold(self, on: bool) -> None:
        """Bring no more for now: what is said meanwhile waits at the server, or is found in history. Or go on."""
        if self._conversation is not None:
            self._conversation.hold(on)

    async def _session(self) -> None:
        connection = await self._dial()
        end = self._end = asyncio.get_running_loop().create_future()
        conversation = self._conversation = Conversation(connection, self)
        conversation.hold(self._listener.held)
        self._leaving.clear()
        self._outgoing.clear()
        for channel in self.channels:
            self._say("SSUBSCRIBE", channel)
        try:
            await end
        finally:
            self._conversation = None
            conversation.abort()  # its end is no longer ours to hear
            await self._servers.hang_up(connection)

    async def _dial(self) -> AbstractConnection:
        with heeding_cancellation():
            try:
                return await self._servers.dial(self.server)
            except Exception as error:  # redis-py's errors share no base
                raise translated(error) from error

    def _say(self, verb: str, channel: str) -> None:
        if self._conversation is None:
            return  # on the next one all channels are said
        if not self._outgoing:
            asyncio.get_running_loop().call_soon(self._write)
        self._outgoing.append((verb, channel))

    def _write(self) -> None:
        """Say what a turn of the loop has brought: a thousand clients may come at once, each to a room of its own."""
        commands, self._outgoing = self._outgoing, []
        if commands and self._conversation is not None:
            # A channel a command: in a cluster, several in one would have to share a slot.
            self._conversation.say(commands)

    # --- what the conversation brings ---------------------------------------------------------------------------------

    def heard(self, replies: list[Any]) -> None:
        self._sort([reply for reply in replies if not isinstance(reply, Exception)])
        for reply in replies:  # what came before it was said all the same
            if isinstance(reply, Exception):
                raise reply

    def ended(self, why: Exception) -> None:
        if not self._end.done():
            self._end.set_exception(why)

    def _sort(self, replies: list[Any]) -> None:
        if messages := [(reply[1], reply[2]) for reply in replies if reply[0] == b"smessage"]:
            self._listener.arrived(messages)
        for kind, channel, _ in replies:
            if kind == b"ssubscribe":
                self._listener.in_force(channel)
            elif kind == b"sunsubscribe":
                self._left(channel)

    def _left(self, channel: bytes) -> None:
        if self._leaving[channel] > 1:
            self._leaving[channel] -= 1
        elif self._leaving.pop(channel, 0):
            return
        elif channel.decode() in self.channels:  # so a cluster's server says that it has handed a slot over
            raise ConnectionResetError(f"{self.server} no longer holds {channel.decode()}")
