"""Who is connected to this node, who is in which room, and whose turn it is in fan-out.

A Hub is a fixed number of Shards. A session lives in one of them, whatever rooms it joins, so a large room is spread
evenly over its windows, which are some shards each; a window of a room is what we do between two looks at the clock,
not a lock. Rooms that have something to say stand in a line, and each goes back to its end after a part of its readers,
so that a room of fifty thousand holds up nobody for long.

Here we know sessions. How a room's readers are laid out is room's; what a round is, and how it is written, is cast's;
what a message means is chat's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from math import inf
from time import perf_counter
from typing import Final

import structlog

from .cast import Cast, Outbox, write
from .errors import INSUFFICIENT_STATE, Disconnect
from .model import Delivery, Event
from .room import JOINING, SHARDS, Room
from .session import Session, State, Subscription

log = structlog.get_logger("chatd")

# After this long at fan-out we let the event loop look at its sockets, a step later at most: what delivery adds to
# others' latency. What it reads then still joins what its room has to say.
TURN_S: Final = 0.0005
# Connections that came one after the other and share a shard: they lie side by side in memory, ours and the kernel's,
# and so are written to in that order. In any other, a frame to each of 8,000 readers costs a fifth more.
SIDE_BY_SIDE: Final = 16
# Events that wait for their rooms' turns; with more, nothing new is wanted until half of these have gone.
MOST_PENDING: Final = 4096


class Shard:
    """A part of this node's sessions.

    Attributes:
        sessions: in the order in which they came.
        ends_at: Unix seconds before which no token of theirs ends; see Hub.note_end.
    """

    __slots__ = ("ends_at", "sessions")

    def __init__(self) -> None:
        self.sessions: dict[Session, None] = {}
        self.ends_at = inf


class Hub:
    """This node's registry of sessions.

    Attributes:
        unknown: sessions that have not said who they are, oldest first, with the loop second at which they must have.
        delivered: readers that fan-out has written to, once for each round.
        sent: events times readers, by READERS (of publications) and WATCHERS (of joins and leaves); whole rounds.
        on_round: told the seconds that a round took, and those since the first of its events had come.
        on_behind: told True when nothing more should be delivered for now, False when it may again.
    """

    def __init__(self, clock: Callable[[], float] = perf_counter) -> None:
        self.shards = [Shard() for _ in range(SHARDS)]
        self.rooms: dict[str, Room] = {}
        self.by_network: dict[str, int] = {}
        self.unknown: dict[Session, float] = {}
        self.size = 0
        self._by_id: dict[str, Session] = {}
        self._by_secret: dict[str, Session] = {}
        self._came = 0
        self.delivered = 0
        self.sent = [0, 0]
        self.on_round: Callable[[float, float], None] = lambda seconds, since_arrival: None
        self.on_behind: Callable[[bool], None] = lambda behind: None
        self._pending = 0
        self._behind = False
        self._held = False
        self._clock = clock
        self._casts: dict[Room, Cast | None] = {}  # who has waited longest comes first; None: not begun
        self._step = 0  # which one the rooms that have something to say are at
        self._outbox = Outbox()
        self._work = asyncio.Event()

    # --- who is here --------------------------------------------------------------------------------------------------

    def add(self, session: Session, network: str, known_by: float) -> None:
        """A socket was accepted; it must say who it is by loop second `known_by`."""
        session.shard = self._came // SIDE_BY_SIDE % SHARDS
        self._came += 1
        self.shards[session.shard].sessions[session] = None
        self._by_id[session.id] = session
        if session.secret:
            self._by_secret[session.secret] = session
        self.by_network[network] = self.by_network.get(network, 0) + 1
        self.unknown[session] = known_by
        self.size += 1

    def welcome(self, session: Session) -> None:
        """It has said who it is."""
        self.unknown.pop(session, None)
        session.state = State.READY
        self.note_end(session)

    def note_end(self, session: Session) -> None:
        """A token of its may end sooner than before."""
        shard = self.shards[session.shard]
        shard.ends_at = min(shard.ends_at, session.ends_at())

    def remove(self, session: Session, network: str) -> None:
        """Its socket is gone. Its rooms are left one by one with `leave`."""
        if self._by_id.pop(session.id, None) is None:
            return
        self._by_secret.pop(session.secret, None)
        del self.shards[session.shard].sessions[session]
        self.size -= 1
        self.unknown.pop(session, None)
        self.by_network[network] -= 1
        if not self.by_network[network]:
            del self.by_network[network]

    def sessions(self) -> Iterator[Session]:
        for shard in self.shards:
            yield from list(shard.sessions)

    def find(self, client: str) -> Session | None:
        return self._by_id.get(client)

    def of_secret(self, secret: str) -> Session | None:
        return self._by_secret.get(secret)

    # --- who is in which room -----------------------------------------------------------------------------------------

    def join(self, session: Session, room: str, subscription: Subscription, since: int) -> None:
        """Make `session` a reader of `room`, of everything after offset `since`."""
        local = self.rooms.get(room)
        if local is None:
            local = self.rooms[room] = Room(room)
        # Whoever reads history does not know yet that it is in the room, and is to hear nothing of it.
        local.join(session, since, watches=subscription.join_leave and subscription.held is None)
        session.rooms[room] = subscription
        if subscription.expires_at is not None:
            self.note_end(session)

    def caught_up(self, session: Session, room: str, since: int) -> list[Event]:
        """End of a join at JOINING: from `since` on the session gets everything; returns what it missed meanwhile."""
        local, subscription = self.rooms[room], session.rooms[room]
        held, subscription.held = subscription.held or [], None
        missed = [event for event in held if event.position is not None and event.position.offset > since]
        last = missed[-1].position if missed else None
        local.fresh[session] = last.offset if last else since
        if subscription.join_leave:
            local.watchers.add(session)
        return missed

    def leave(self, session: Session, room: str) -> None:
        """Take `session`, which is a reader of it, out of `room`."""
        del session.rooms[room]
        local = self.rooms[room]
        local.leave(session)
        if local.readers == 0:
            del self.rooms[room]

    def begin_anew(self, room: str, since: int) -> None:
        """The room's count began anew: whoever is in it or joining gets what comes after `since` of the new one."""
        if (local := self.rooms.get(room)) is None:
            return
        for session, at in local.fresh.items():
            if at == JOINING:
                session.rooms[room].held = []
            else:
                local.fresh[session] = since

    # --- fan-out ------------------------------------------------------------------------------------------------------

    def deliver(self, deliveries: Iterable[Delivery]) -> None:
        """Take in what the feed brought; `run` fans it out. What comes while a room's turn lasts goes out together."""
        for delivery in deliveries:
            room = self.rooms.get(delivery.room)
            if room is not None and delivery.lost is not None:
                while room in self._casts:  # what was said before the loss, while its numbers still mean something
                    self._take_turn(room)
                self.begin_anew(room.name, delivery.lost.top.offset)
            if room is not None and delivery.events:
                if not room.pending:
                    room.pending_since = delivery.arrived_at
                room.pending.extend(delivery.events)
                self._casts.setdefault(room, None)
                self._count(len(delivery.events))
        self._begin()

    def hold(self, on: bool) -> None:
        """Write nothing for now of what is delivered; or go on."""
        self._held = on
        self._begin()

    def _begin(self) -> None:
        """Have `run` fan out, if there is anything, and it may be."""
        if self._casts and not self._held:
            self._work.set()
        else:
            self._work.clear()

    def _count(self, pending: int) -> None:
        """So many events more wait for their turn, or fewer."""
        self._pending += pending
        behind = self._pending > (MOST_PENDING // 2 if self._behind else MOST_PENDING)
        if behind is not self._behind:
            self._behind = behind
            self.on_behind(behind)

    async def run(self) -> None:
        """Fan out until cancelled."""
        while True:
            await self._work.wait()
            if not self._held:  # since we were woken
                self._take_turns()
            self._begin()
            if self._casts:
                await _let_others_go()

    def _take_turns(self) -> None:
        """Step after step, each of the room that has waited longest, until others should go first."""
        ends_at = self._clock() + TURN_S
        while self._casts:
            room, cast = next(iter(self._casts.items()))
            if self._outbox.is_full_for(room.settled.some_of(self._step if cast is None else cast.next)):
                self._empty()
            if self._clock() >= ends_at:
                break
            self._take_turn(room, self._outbox if self._outbox or len(self._casts) > 1 else None)
        self._empty()  # nothing waits here while others may write to the same sessions

    def _empty(self) -> None:
        if self._outbox:
            self._close(self._outbox.empty())

    def _take_turn(self, room: Room, outbox: Outbox | None = None) -> None:
        try:
            self.turn(room, outbox)
        except Exception:  # a bug in one room's round must not end delivery for all
            log.exception("fan-out failed", readers=room.readers)
            self.give_up(room)

    def _close(self, leaving: Iterable[tuple[Session, Disconnect]]) -> None:
        for session, goodbye in leaving:
            session.close(goodbye)

    def give_up(self, room: Room) -> None:
        """Have a room's readers come back and recover, since what they have been sent is not known."""
        self._casts.pop(room, None)
        self._count(-len(room.pending))
        room.pending.clear()
        for session in list(room.sessions()):
            session.close(INSUFFICIENT_STATE)

    def turn(self, room: Room, outbox: Outbox | None = None) -> None:
        """One step of `room`'s current round; begins one where none is under way. Waits for nobody."""
        cast = self._casts.pop(room)
        if cast is None:
            self._count(-len(room.pending))
            cast = Cast(room, self._clock(), self.find, self._step)
        self._step = max(self._step, cast.next)
        for part in cast.step():
            self.delivered += part.readers
            self._close(write(part, outbox))
        if cast.left:
            self._casts[room] = cast  # behind all others
        else:
            self._end(room, cast)

    def _end(self, room: Room, cast: Cast) -> None:
        now = self._clock()
        for audience, copies in enumerate(cast.copies):
            self.sent[audience] += copies
        self.on_round(now - cast.started_at, now - cast.arrived_at)
        if room.pending:
            self._casts[room] = None


async def _let_others_go() -> None:
    """Let the loop read what has come, and then those who were told of it act: ask the store, before our next turn.

    As uvloop does it, which reads between two rounds of callbacks; asyncio's own loop reads as one of them, and who is
    told there acts a turn of ours later.
    """
    await asyncio.sleep(0)
    await asyncio.sleep(0)
