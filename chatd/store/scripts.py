"""Many callers, one pipeline: scripts and commands that wait at the same time travel together.

A caller awaits its own reply; one task (`run`) does the sending. So a caller may be cancelled at any time without
leaving a reply behind for the next user of the connection (redis-py's CVE-2023-28858 was exactly that).

What the commands mean is the store's business; here they are lists of strings and bytes.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from time import perf_counter
from typing import Any, TypeAlias

from redis.asyncio.sentinel import MasterNotFoundError
from redis.exceptions import ClusterDownError, NoScriptError, ReadOnlyError, ResponseError, TryAgainError

from .connect import Servers, heeding_cancellation
from .errors import StoreError, StoreUnavailable

Argument: TypeAlias = str | bytes | int | float

# Past this a pipeline's replies only make the first caller wait longer; 50 already share most of the cost.
BATCH = 512
# Callers waiting beyond this are refused at once: the store is not keeping up, and memory must not pay for it.
BACKLOG = 20_000


class Script:
    """One Lua file of this folder, known to the server by the digest of its text.

    Args:
        after: fragments that it goes on from; Lua in Redis has no other way to share a function.
    """

    __slots__ = ("name", "sha", "source")

    def __init__(self, name: str, *, after: Sequence[str] = ()) -> None:
        self.name = name
        self.source = b"".join(files(__package__).joinpath(f"{each}.lua").read_bytes() for each in (*after, name))
        self.sha = hashlib.sha1(self.source, usedforsecurity=False).hexdigest()

    def by_digest(self, keys: Sequence[str], args: Sequence[Argument]) -> tuple[Argument, ...]:
        return ("EVALSHA", self.sha, len(keys), *keys, *args)

    def in_full(self, by_digest: tuple[Argument, ...]) -> tuple[Argument, ...]:
        """The same call with the text, for a server that does not know the digest."""
        return ("EVAL", self.source, *by_digest[2:])


@dataclass(slots=True, eq=False)
class _Call:
    name: str
    command: tuple[Argument, ...]
    reply: asyncio.Future[Any]
    entered_at: float
    script: Script | None

    def in_full(self) -> tuple[Argument, ...]:
        return self.command if self.script is None else self.script.in_full(self.command)


class Batch:
    """The one way to the store's servers for everything that is a request with a reply.

    Attributes:
        round_trip_s: how long the latest pipeline took; None before the first, or after one that failed.
        reconnects: how often it answered again after it had not.
        on_reply: told a script's or command's name, and the seconds from its being asked to its reply, queue included.
        on_failure: told the name of one that was refused or not answered.
    """

    def __init__(self, servers: Servers) -> None:
        self._servers = servers
        self._waiting: list[_Call] = []
        self._wake = asyncio.Event()
        self.round_trip_s: float | None = None
        self.reconnects = 0
        self.on_reply: Callable[[str, float], None] = lambda name, seconds: None
        self.on_failure: Callable[[str], None] = lambda name: None
        self._failed = False

    def script(self, script: Script, keys: Sequence[str], args: Sequence[Argument] = ()) -> asyncio.Future[Any]:
        """The script's reply, bytes for strings; to be awaited.

        Raises (when awaited):
            StoreUnavailable: no answer; the script may have run.
            StoreError: the server refused, e.g. out of memory.
        """
        return self._enter(script.name, script.by_digest(keys, args), script)

    def command(self, *command: Argument) -> asyncio.Future[Any]:
        """A plain command's reply; errors as for `script`."""
        return self._enter(str(command[0]).lower(), command, None)

    def _enter(self, name: str, command: tuple[Argument, ...], script: Script | None) -> asyncio.Future[Any]:
        reply: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        if len(self._waiting) >= BACKLOG:
            reply.set_exception(StoreUnavailable("too many requests wait for the store already"))
            return reply
        self._waiting.append(_Call(name, command, reply, perf_counter(), script))
        self._wake.set()
        return reply

    async def run(self) -> None:
        """Send what waits, batch after batch, until cancelled."""
        try:
            while True:
                await self._wake.wait()
                calls, self._waiting = self._waiting[:BATCH], self._waiting[BATCH:]
                if not self._waiting:
                    self._wake.clear()
                with heeding_cancellation():
                    await self._send([call for call in calls if not call.reply.done()])
        finally:
            for call in self._waiting:
                call.reply.cancel()
            self._waiting.clear()

    async def _send(self, calls: list[_Call]) -> None:
        if not calls:
            return
        try:
            replies = await self._exchange([call.command for call in calls])
            unknown = [i for i, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
            if unknown:  # a server that was restarted, or is new: EVAL brings the text and makes it known again
                texts = [calls[i].in_full() for i in unknown]
                for i, reply in zip(unknown, await self._exchange(texts), strict=True):
                    replies[i] = reply
        except asyncio.CancelledError:
            for call in calls:
                call.reply.cancel()
            raise
        except Exception as error:  # redis-py's errors share no base, and without us nobody would be answered any more
            self.round_trip_s = None
            self._failed = True
            replies = [error] * len(calls)
        now = perf_counter()
        for call, reply in zip(calls, replies, strict=True):
            if isinstance(reply, BaseException):
                self.on_failure(call.name)
            else:
                self.on_reply(call.name, now - call.entered_at)
            _settle(call.reply, reply)

    async def _exchange(self, commands: Sequence[tuple[Argument, ...]]) -> list[Any]:
        started = perf_counter()
        replies = await self._servers.exchange(commands)
        self.round_trip_s = perf_counter() - started
        self.reconnects += self._failed
        self._failed = False
        return replies


def _settle(future: asyncio.Future[Any], reply: Any) -> None:
    if future.done():
        return
    if isinstance(reply, BaseException):
        future.set_exception(translated(reply))
    else:
        future.set_result(reply)


def translated(error: BaseException) -> StoreError:
    """redis-py's error as ours. A replica after a failover, or half a cluster, answers, but not usefully."""
    if isinstance(error, ClusterDownError | ReadOnlyError | TryAgainError) or str(error).startswith("BUSY "):
        return StoreUnavailable(f"the store is not ready: {error}")
    if isinstance(error, ResponseError):
        return StoreError(f"the store refused: {error}")
    if isinstance(error, MasterNotFoundError):  # its text lists the insides of every client
        return StoreUnavailable("no Sentinel knows a master of the service that redis.url names; see that they run")
    return StoreUnavailable(f"the store does not answer: {error or type(error).__name__}")
