"""What finds the quiet, the expired and the dead: silent sockets on this node, dead nodes in the cluster.

The heartbeat is a timing wheel whose slots are the hub's shards: each tick pings one shard and looks at the answers of
another that was pinged a timeout ago. So there is no timer per connection, and nothing to keep beside the shards.

Who is silent or expired is decided in plain functions of (shard, now). What follows for the one concerned is chat's and
the store's business.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from math import ceil, inf
from typing import Final

import structlog

from .batched import batched
from .chat import Chat
from .errors import NO_PONG, STALE
from .hub import Hub, Shard
from .room import SHARDS
from .session import Session
from .store.errors import StoreError
from .store.redis import Store
from .telemetry import Meters

log = structlog.get_logger("chatd")

# Sockets written to, or looked at, between two looks at the event loop.
AT_ONCE: Final = 500
# How often is looked for leaves that are due: what one second of delay or five matters little to, as it does to people.
LEAVES_S: Final = 0.5


def silent(shard: Shard, now: float, timeout: float) -> list[Session]:
    """Those of `shard` that have given no sign of life for `timeout` seconds since they were pinged; loop seconds.

    A session that was closed and whose socket lingers is not counted again; one whose requests we are still at work on
    is not silent, for we may have stopped reading from it.
    """
    quiet = [s for s in shard.sessions if s.pinged_at and s.heard_at < s.pinged_at <= now - timeout and s.open]
    return [s for s in quiet if s.waiting is None]


def ended(shard: Shard, now: float) -> list[Session]:
    """Those of `shard` of whom a token has ended by Unix second `now`.

    They are looked at one by one only when the soonest end that was noted has come, so that a second in which nothing
    ends costs next to nothing.
    """
    if shard.ends_at > now:
        return []
    ends = {session: session.ends_at() for session in shard.sessions}
    shard.ends_at = min(ends.values(), default=inf)
    return [session for session, end in ends.items() if end <= now]


def overdue(unknown: dict[Session, float], now: float) -> list[Session]:
    """Those of `unknown`, which is in order of time, that should have said who they are by `now`."""
    late = []
    for session, known_by in unknown.items():
        if known_by > now:
            break
        late.append(session)
    return late


class Reaper:
    """See the head of this file.

    Args:
        clock: loop time in seconds; `now`: Unix time in seconds.
        held_since: loop second since which our own lease has been held without a break; None: it is not held.
    """

    def __init__(
        self,
        hub: Hub,
        chat: Chat,
        store: Store,
        meters: Meters,
        *,
        clock: Callable[[], float],
        now: Callable[[], float],
        held_since: Callable[[], float | None],
    ) -> None:
        self.hub = hub
        self.chat = chat
        self.store = store
        self.meters = meters
        self._clock = clock
        self._now = now
        self._held_since = held_since
        self._hand = 0

    # --- this node's sockets ------------------------------------------------------------------------------------------

    async def turn_wheel(self) -> None:
        """Ping every session once an interval, and close those that stay silent, until cancelled."""
        while True:
            heartbeat = self.chat.settings.heartbeat
            tick = heartbeat.interval / SHARDS
            await asyncio.sleep(tick)
            await self.tick(ceil(heartbeat.timeout / tick), heartbeat.timeout)

    async def tick(self, lag: int, timeout: float) -> None:
        """One step of the wheel: ping the shard under the hand; judge the one pinged `lag` ticks ago."""
        pinged = list(self.hub.shards[self._hand % SHARDS].sessions)
        for some in batched(pinged, AT_ONCE):
            now = self._clock()
            for session in some:
                self._ping(session, now)
            await asyncio.sleep(0)
        # With a timeout as long as the interval the two shards are the same, a whole turn apart.
        for session in silent(self.hub.shards[(self._hand - lag) % SHARDS], self._clock(), timeout):
            self.meters.reaped["silent"] += 1
            session.close(NO_PONG)
        self._hand += 1

    def _ping(self, session: Session, now: float) -> None:
        if session in self.hub.unknown or not session.open:
            return
        if session.pinged_at <= session.heard_at:  # never, or it was heard since: this ping is the one to be answered
            session.pinged_at = now
        session.pings += 1
        if (goodbye := session.send(session.codec.heartbeat)) is not None:
            session.close(goodbye)

    async def look_at_clocks(self) -> None:
        """Look once a second, until cancelled."""
        while True:
            await asyncio.sleep(1.0)
            await self.look()

    async def look(self) -> None:
        """Who should have said who they are, whose token or subscription has ended, and who has long been quiet."""
        for session in overdue(self.hub.unknown, self._clock()):
            self.meters.reaped["unknown"] += 1
            self.hub.unknown.pop(session, None)
            session.close(STALE)
        now = self._now()
        for shard in self.hub.shards:
            for session in ended(shard, now):
                self.chat.expire(session, now)
            await asyncio.sleep(0)
        self.chat.forget_quiet_speakers()

    async def announce_left(self) -> None:
        """Announce, wherever it is due, who has left and not come back, until cancelled; all nodes share in this."""
        while True:
            await asyncio.sleep(LEAVES_S)
            try:
                due = await self.store.presence.due()
                await asyncio.gather(
                    *(
                        self.store.presence.announce_left(room, self.chat.announce_to(room), due.until)
                        for room in due.rooms
                    )
                )
            except StoreError as error:
                log.warning("leaves not announced in time", error=str(error))

    # --- the cluster's nodes ------------------------------------------------------------------------------------------

    async def bury_the_dead(self) -> None:
        """Claim nodes whose lease has ended and clear up after them, until cancelled."""
        cluster = self.chat.settings.cluster
        while True:
            await asyncio.sleep(cluster.renew)
            if not may_judge(self._held_since(), self._clock(), cluster.lease):
                continue
            try:
                while (lease := await self.store.claim(self.chat.lease())) is not None:
                    log.warning("node is dead: its lease has ended", lease=lease)
                    await self.bury(lease)
                    self.meters.reaped["node"] += 1
            except StoreError as error:  # what we claimed stays ours: it comes first when the store is back
                log.warning("dead nodes not looked for", error=str(error))

    async def bury(self, lease: str, *, delay_ms: int = 0) -> None:
        """Take everything that stands under `lease` out of presence and registry; each leave is announced once.

        Args:
            delay_ms: how long to wait whether they come back; a dead node's people have had time enough.
        """
        rooms = await self.store.presence.rooms_of(lease)
        left = 0
        for room in rooms:
            left += await self.store.presence.leave(room, lease, self.chat.announce_to(room), delay_ms=delay_ms)
        connections = await self.store.purge(lease)
        await self.store.bury(lease)
        log.info("cleared up after a node", lease=lease, connections=connections, rooms=len(rooms), leaves=left)


def may_judge(held_since: float | None, now: float, lease: float) -> bool:
    """Whether a node may take others for dead: not before it has held its own lease for a whole lease without a break.

    After an outage of the store all leases have ended; whoever comes back first must not bury everybody else.
    """
    return held_since is not None and now - held_since >= lease
