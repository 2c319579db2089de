"""Many callers, one pipeline: scripts and commands that wait at the same time for the same server travel together.

A caller awaits a future of its own, which nobody else's reply can reach. So a caller may be cancelled at any time
without leaving a reply behind for the next user of the connection (redis-py's CVE-2023-28858 was exactly that).

What the commands mean is the store's business; here they are lists of strings and bytes.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.resources import files
from time import perf_counter
from typing import Any, NamedTuple, TypeAlias

from redis.exceptions import NoScriptError

from .connect import Servers
from .conversation import Command
from .errors import StoreUnavailable, translated
from .exchange import Outcome

Argument: TypeAlias = str | bytes | int | float

# Past this a pipeline's replies only make the first caller wait longer; 50 already share most of the cost.
BATCH = 512
# Callers waiting beyond this are refused at once: the store is not keeping up, and memory must not pay for it.
BACKLOG = 20_000

SCRIPTS: list[Script] = []
"""All there are."""


class Script:
    """One Lua file of this folder, known to the server by the digest of its text.

    Args:
        after: fragments that it goes on from; Lua in Redis has no other way to share a function.
        lasting: somebody is told that what it does is done; see Copies.
    """

    __slots__ = ("lasting", "name", "sha", "source")

    def __init__(self, name: str, *, after: Sequence[str] = (), lasting: bool = False) -> None:
        self.name = name
        self.lasting = lasting
        self.source = b"".join(files(__package__).joinpath(f"{each}.lua").read_bytes() for each in (*after, name))
        self.sha = hashlib.sha1(self.source, usedforsecurity=False).hexdigest()
        SCRIPTS.append(self)

    def by_digest(self, keys: Sequence[str], args: Sequence[Argument]) -> tuple[Argument, ...]:
        return ("EVALSHA", self.sha, len(keys), *keys, *args)

    def in_full(self, by_digest: tuple[Argument, ...]) -> tuple[Argument, ...]:
        """The same call with the text, for a server that does not know the digest."""
        return ("EVAL", self.source, *by_digest[2:])


class Copies(NamedTuple):
    """How many replicas must have what lasts before it counts as done, and how long a pipeline waits for them.

    Attributes:
        key: one of our own, which is written first: a server waits for what was last written on this connection, and
            what is sent again on a new one may have been written on the one before.
    """

    replicas: int
    within_ms: int
    key: str

    def awaited(self) -> tuple[Command, Command]:
        return ("SET", self.key, ""), ("WAIT", self.replicas, self.within_ms)

    def lack(self, written: Any, copies: Any) -> StoreUnavailable | None:
        """Why what was sent before `awaited` does not count as done, by the replies to that; None: it does."""
        for refusal in (written, copies):
            if isinstance(refusal, Exception):
                return StoreUnavailable(f"the store's replicas cannot be waited for: {translated(refusal)}")
        if copies >= self.replicas:
            return None
        return StoreUnavailable(
            f"{copies} of the store's replicas have it, where {self.replicas} must: it stands for now, and a failover "
            "may undo it; `chatd doctor` looks at the replicas"
        )


@dataclass(slots=True, eq=False)
class _Call:
    name: str
    command: tuple[Argument, ...]
    reply: asyncio.Future[Any]
    entered_at: float
    script: Script | None
    lasting: bool

    def in_full(self) -> tuple[Argument, ...]:
        return self.command if self.script is None else self.script.in_full(self.command)


class _Lane:
    """What waits for one server; nobody waits for another's, which may hang."""

    __slots__ = ("apart", "busy", "failed", "key", "sent_at", "under_way", "waiting")

    def __init__(self, key: str, *, apart: bool) -> None:
        self.key = key  # one that lies there
        self.apart = apart  # of what waits for replicas, and holds up nothing else
        self.waiting: list[_Call] = []
        self.under_way: list[_Call] = []
        self.busy = False  # something is under way, or will be in a moment
        self.sent_at = 0.0
        self.failed = False


class Batch:
    """The one way to the store's servers for everything that is a request with a reply.

    Args:
        copies: what is waited for where something is to last; None: nothing is.
    Attributes:
        round_trip_s: how long the latest pipeline took; None before the first, or while no server answers.
        reconnects: how often one answered again after it had not.
        on_reply: told a script's or command's name, and the seconds from its being asked to its reply, queue included.
        on_failure: told the name of one that was refused or not answered.
    """

    def __init__(self, servers: Servers, copies: Copies | None = None) -> None:
        self._servers = servers
        self._copies = copies
        self._lanes: dict[tuple[str, bool], _Lane] = {}
        self._closed = False
        self.round_trip_s: float | None = None
        self.reconnects = 0
        self.on_reply: Callable[[str, float], None] = lambda name, seconds: None
        self.on_failure: Callable[[str], None] = lambda name: None

    def script(self, script: Script, keys: Sequence[str], args: Sequence[Argument] = ()) -> asyncio.Future[Any]:
        """The script's reply, bytes for strings; to be awaited.

        Raises (when awaited):
            StoreUnavailable: no answer; the script may have run.
            StoreFull, StoreMisconfigured, StoreError: the server refused.
        """
        return self._enter(script.name, keys[0], script.by_digest(keys, args), script, lasting=script.lasting)

    def command(self, *command: Argument, lasting: bool = False) -> asyncio.Future[Any]:
        """A plain command's reply; errors as for `script`, `lasting` as a script's."""
        key = str(command[1]) if len(command) > 1 and command[0] != "INFO" else ""
        return self._enter(str(command[0]).lower(), key, command, None, lasting=lasting)

    def _enter(
        self, name: str, key: str, command: tuple[Argument, ...], script: Script | None, *, lasting: bool
    ) -> asyncio.Future[Any]:
        reply: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        lane = self._lane(key, apart=lasting and self._copies is not None)
        self._queue(lane, _Call(name, command, reply, perf_counter(), script, lasting))
        return reply

    def _queue(self, lane: _Lane, call: _Call) -> None:
        if self._closed or len(lane.waiting) >= BACKLOG:
            why = "this process has left it" if self._closed else "too many requests wait for it already"
            call.reply.set_exception(StoreUnavailable(f"the store is not asked: {why}"))
            return
        lane.waiting.append(call)
        if not lane.busy:
            lane.busy = True
            # Not at once: what else this turn of the loop asks for goes along.
            asyncio.get_running_loop().call_soon(self._send, lane)

    def _lane(self, key: str, *, apart: bool) -> _Lane:
        server = self._holder(key)
        if (lane := self._lanes.get((server, apart))) is None:
            lane = self._lanes[server, apart] = _Lane(key, apart=apart)
        return lane

    def _holder(self, key: str) -> str:
        try:
            return self._servers.server_of(key) if key else ""
        except StoreUnavailable:  # who holds it is found out as it is asked
            return ""

    async def carried_out(self) -> None:
        """Return when every server has done what was asked of it until now, be it cancelled since; errors as above."""
        await asyncio.gather(*(self._passed(lane) for lane in self._lanes.values() if lane.busy))

    def _passed(self, lane: _Lane) -> asyncio.Future[Any]:
        reply: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._queue(lane, _Call("exists", ("EXISTS", lane.key), reply, perf_counter(), None, lasting=False))
        return reply

    def close(self) -> None:
        """Cancel whoever waits; nobody is answered any more."""
        self._closed = True
        for lane in self._lanes.values():
            for call in (*lane.under_way, *lane.waiting):
                call.reply.cancel()
            lane.waiting.clear()

    def _send(self, lane: _Lane) -> None:
        """Send what waits, of a long queue the first. It is asked for only while nothing is under way."""
        calls = [call for call in lane.waiting[:BATCH] if not call.reply.done()]
        del lane.waiting[:BATCH]
        if calls:
            self._exchange(lane, calls, [call.command for call in calls])
        else:
            self._go_on(lane)

    def _go_on(self, lane: _Lane) -> None:
        lane.busy = bool(lane.waiting)
        if lane.busy:
            asyncio.get_running_loop().call_soon(self._send, lane)

    def _exchange(self, lane: _Lane, calls: list[_Call], commands: Sequence[Command]) -> None:
        lane.under_way = calls
        lane.sent_at = perf_counter()
        if self._copies is None or not any(call.lasting for call in calls):
            self._servers.exchange(commands, partial(self._answered, lane), apart=lane.apart)
        else:
            awaited = [*commands, *self._copies.awaited()]
            self._servers.exchange(awaited, partial(self._copied, lane, self._copies), apart=lane.apart)

    def _copied(self, lane: _Lane, copies: Copies, outcome: Outcome) -> None:
        """As `_answered`, with the replies to what `copies` awaited; without them what lasts has not been done."""
        if not isinstance(outcome, Exception):
            *outcome, written, held = outcome
            if (lack := copies.lack(written, held)) is not None:
                both = zip(lane.under_way, outcome, strict=True)
                outcome = [lack if call.lasting and not isinstance(reply, Exception) else reply for call, reply in both]
        self._answered(lane, outcome)

    def _answered(self, lane: _Lane, outcome: Outcome) -> None:
        calls, lane.under_way = lane.under_way, []
        now = perf_counter()
        if not lane.apart:  # what is known of the server by the others, without the time of its replicas
            self._note(lane, outcome, now)
        unknown = []
        replies = [outcome] * len(calls) if isinstance(outcome, Exception) else outcome
        for call, reply in zip(calls, replies, strict=True):
            if isinstance(reply, NoScriptError):
                unknown.append(call)
            else:
                self._settle(call, reply, now)
        if unknown:  # somebody has flushed them: EVAL brings the text and makes it known again
            self._exchange(lane, unknown, [call.in_full() for call in unknown])
        else:
            self._go_on(lane)

    def _note(self, lane: _Lane, outcome: Outcome, now: float) -> None:
        if isinstance(outcome, Exception):
            lane.failed = True
            self._forget_who_left()
            # What no key leads to a server with is asked too seldom to tell of any.
            named = [each for (server, apart), each in self._lanes.items() if server and not apart] or [lane]
            if all(each.failed for each in named):
                self.round_trip_s = None
        else:
            self.round_trip_s = now - lane.sent_at
            self.reconnects += lane.failed
            lane.failed = False

    def _forget_who_left(self) -> None:
        """A cluster's server that holds nothing any more is not asked again, and would count as one that answers."""
        idle = [(at, lane.key) for at, lane in self._lanes.items() if not lane.busy]
        for at, key in idle:
            if at[0] != self._holder(key):
                del self._lanes[at]

    def _settle(self, call: _Call, reply: Any, now: float) -> None:
        failed = isinstance(reply, Exception)
        if failed:
            self.on_failure(call.name)
        else:
            self.on_reply(call.name, now - call.entered_at)
        if call.reply.done():  # who asked has been cancelled
            return
        if failed:
            call.reply.set_exception(translated(reply))
        else:
            call.reply.set_result(reply)
