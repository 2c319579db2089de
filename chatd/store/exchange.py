"""Commands for replies on one connection, which is kept: one exchange at a time, each by its deadline.

Nothing here waits but for a connection to be opened. What is asked is written at once, and who asked is told within the
read that brings the last reply. What the commands mean, and which wait meanwhile, is not known here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeAlias

from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ReadOnlyError

from .conversation import Command, Conversation

Outcome: TypeAlias = list[Any] | Exception
"""Replies in order, as the server gave them, of which a refusal is one; or why there are none: what was sent may have
been done."""

Then: TypeAlias = Callable[[Outcome], None]


class Exchange:
    """See the head of this file; hears what its conversation brings.

    Args:
        dial: opens a connection; hang_up: takes it back.
        timeout: seconds to wait for the replies, once a connection is open.
    """

    def __init__(
        self,
        dial: Callable[[], Awaitable[AbstractConnection]],
        hang_up: Callable[[AbstractConnection], Awaitable[None]],
        timeout: float,
    ) -> None:
        self._dial = dial
        self._hang_up = hang_up
        self._timeout = timeout
        self._conversation: Conversation | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._then: Then | None = None
        self._wanted = 0
        self._replies: list[Any] = []
        self._until = 0.0
        self._deadline: asyncio.TimerHandle | None = None

    def begin(self, commands: Sequence[Command], then: Then) -> None:
        """Send these together, and tell `then` what became of it; not before the last one has ended."""
        self._then, self._wanted, self._replies = then, len(commands), []
        if self._conversation is None or self._conversation.over:
            self._give_up()  # its end, of which we may not have been told yet, is not this one's
            if self._deadline is not None:  # it is of an earlier exchange; this one's time begins when it is said
                self._deadline.cancel()
                self._deadline = None
            self._connecting = asyncio.create_task(self._connect(commands), name="store connecting")
        else:
            self._say(self._conversation, commands)

    async def close(self) -> None:
        """End what is under way, of which nobody is told, and give the connection back."""
        self._then = None
        if self._deadline is not None:
            self._deadline.cancel()
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.gather(self._connecting, return_exceptions=True)
        await self._part()

    async def _connect(self, commands: Sequence[Command]) -> None:
        try:
            await self._part()
            conversation = self._conversation = Conversation(await self._dial(), self)
        except Exception as error:  # redis-py's errors share no base
            self._end(error)
        else:
            self._say(conversation, commands)

    async def _part(self) -> None:
        conversation, self._conversation = self._conversation, None
        if conversation is not None:
            await self._hang_up(conversation.connection)

    def _say(self, conversation: Conversation, commands: Sequence[Command]) -> None:
        loop = asyncio.get_running_loop()
        self._until = loop.time() + self._timeout
        if self._deadline is None:  # it stays for the next exchanges: one for each would cost as much as a command
            self._deadline = loop.call_at(self._until, self._look)
        try:
            conversation.say(commands)
        except Exception as error:  # one of them is no command; nothing was sent
            self._end(error)

    def _look(self) -> None:
        """See whether what is under way has had its time."""
        self._deadline = None
        if self._then is None:
            return
        loop = asyncio.get_running_loop()
        if loop.time() < self._until:
            self._deadline = loop.call_at(self._until, self._look)
        else:
            self._give_up()
            self._end(TimeoutError())

    # --- what the conversation brings ---------------------------------------------------------------------------------

    def heard(self, replies: list[Any]) -> None:
        self._replies += replies
        if len(self._replies) < self._wanted:
            return
        replies, wanted = self._replies, self._wanted
        # What nobody asked for would be taken for the next one's; and of a master no longer, Sentinel knows the next.
        if len(replies) > wanted or any(isinstance(reply, ReadOnlyError) for reply in replies):
            self._give_up()
        self._end(replies[:wanted])

    def ended(self, why: Exception) -> None:
        self._end(why)

    def _give_up(self) -> None:
        """Have the next exchange on a new connection: on this one it is not known what comes."""
        if self._conversation is not None:
            self._conversation.abort()

    def _end(self, outcome: Outcome) -> None:
        then, self._then, self._wanted, self._replies = self._then, None, 0, []
        if then is not None:
            then(outcome)
