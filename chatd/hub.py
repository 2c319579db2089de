"""Who is connected to this node, and who is in which room.

A Hub is a fixed number of Shards. A session lives in the shard its id hashes to, whatever rooms it joins, so a large
room is spread evenly; a shard's part of a room is what we do between two looks at the clock, not a lock. Fan-out goes
around the rooms that have something to say, one slice each, so that a room of fifty thousand holds up nobody for long.

Here we know sessions and bytes. What a message means is chat's; how bytes leave is the transport's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from math import inf
from time import perf_counter
from typing import Final, NamedTuple

import structlog

from .errors import INSUFFICIENT_STATE, Disconnect
from .model import Delivery, Event, Kind
from .session import Link, Session, State, Subscription
from .wire import Codec

log = structlog.get_logger("chatd")

# One turn around the heartbeat's wheel visits each shard once; 64 turns a 25 s heartbeat into a tick of 0.4 s.
SHARDS: Final = 64
# After this long at fan-out we let the event loop look at its sockets: the most that delivery adds to others' latency.
TURN_S: Final = 0.005
# Readers written to between two looks at the clock: a millisecond's worth.
AT_ONCE: Final = 128
# A reader's offset while its history is being read: above any real one, so that everything is held for it.
JOINING: Final = 1 << 62

# Who hears what is said, and who hears of joins and leaves.
READERS: Final = 0
WATCHERS: Final = 1

# What goes to all readers of a room; the rest goes to those who asked to hear who comes and goes.
SAID: Final = (Kind.PUBLICATION, Kind.SIGNAL)

Slice = dict[Session, int]
"""Sessions of one shard in one room by one codec, each with the offset it had when it joined."""


class Shard:
    """A part of this node's sessions, by id.

    Attributes:
        ends_at: Unix seconds before which no token of theirs ends; see Hub.note_end.
    """

    __slots__ = ("ends_at", "sessions")

    def __init__(self) -> None:
        self.sessions: dict[str, Session] = {}
        self.ends_at = inf


class Room:
    """One room's readers on this node.

    Attributes:
        slices: by codec and shard.
        watchers: of these, those who hear who joins and leaves.
        pending: what has come and not yet been fanned out; `pending_since`: when the first of it came.
    """

    __slots__ = ("name", "pending", "pending_since", "readers", "slices", "watchers")

    def __init__(self, name: str) -> None:
        self.name = name
        self.readers = 0
        self.slices: dict[Codec, dict[int, Slice]] = {}
        self.watchers: dict[Codec, dict[int, Slice]] = {}
        self.pending: list[Event] = []
        self.pending_since = 0.0

    def sessions(self) -> Iterator[Session]:
        for shards in self.slices.values():
            for members in shards.values():
                yield from members


Outbox = dict[Session, list[bytes]]
"""What a turn brings to sessions from several rooms; each gets all of it in one write."""


class Part(NamedTuple):
    """Some slices of a round: `frame` is for each of their sessions that was there before offset `first`.

    `audience` is READERS or WATCHERS, by what the events are.
    """

    slices: list[Slice]
    room: str
    frame: bytes
    events: list[Event]
    first: int
    authors: frozenset[str]
    audience: int


class Cast:
    """One round of fan-out: what a room had to say when its turn came, made into one frame for each codec.

    `copies` counts events times readers, by audience.
    """

    __slots__ = ("_parts", "arrived_at", "copies", "started_at")

    def __init__(self, room: Room, events: list[Event], now: float) -> None:
        self.arrived_at = room.pending_since
        self.started_at = now
        self.copies = [0, 0]
        self._parts = _parts(room, events)

    def next(self) -> Part | None:
        return next(self._parts, None)


def _parts(room: Room, events: list[Event]) -> Iterator[Part]:
    said = [event for event in events if event.kind in SAID]
    seen = [event for event in events if event.kind not in SAID]
    for number, kind, audience in ((READERS, said, room.slices), (WATCHERS, seen, room.watchers)):
        first = min((event.position.offset for event in kind if event.position is not None), default=JOINING - 1)
        for codec, shards in list(audience.items()):
            frame = codec.frame([codec.event(room.name, event) for event in kind])
            if not frame:
                continue
            authors = frozenset(filter(None, (codec.author(event) for event in kind)))
            for slices in _together(list(shards.values())):
                yield Part(slices, room.name, frame, kind, first, authors, number)


def _together(slices: list[Slice]) -> Iterator[list[Slice]]:
    """Slices one after the other, small ones several at a time."""
    some, readers = list[Slice](), 0
    for members in slices:
        some.append(members)
        readers += len(members)
        if readers >= AT_ONCE:
            yield some
            some, readers = [], 0
    if some:
        yield some


def write(part: Part, outbox: Outbox | None = None) -> list[tuple[Session, Disconnect]]:
    """Write one frame to some slices; returns those that must be closed. It awaits nobody.

    Args:
        outbox: where the frame is left for those who can take it at once; None: they get it now.
    """
    _, _, frame, _, first, authors, _ = part
    leaving = []
    written = 0
    for session, since in chain.from_iterable(map(dict.items, part.slices)):
        direct = session.link.direct
        if direct is None or since >= first or session.id in authors:
            if outbox and (earlier := outbox.pop(session, None)) is not None:
                _send(session, earlier)
            if (goodbye := _write_apart(session, since, part)) is not None:
                leaving.append((session, goodbye))
        elif outbox is not None:
            if (frames := outbox.get(session)) is not None:
                frames.append(frame)
            else:
                outbox[session] = [frame]
        else:
            written += 1
            _hand_over(session.link, direct, frame)
    Session.traffic.bytes_out += len(frame) * written  # once a part; who is apart is counted in `send`
    return leaving


def _hand_over(link: Link, direct: Callable[[bytes], int], frame: bytes) -> None:
    try:
        sent = direct(frame)
    except OSError:  # its socket is full; or was reset, and we are told of it only after this turn
        sent = 0
    if sent != len(frame):
        link.write_rest(frame, sent)


def empty(outbox: Outbox) -> list[tuple[Session, Disconnect]]:
    """Write to each session what is there for it; as `write`."""
    leaving = []
    for session, frames in outbox.items():
        if (goodbye := _send(session, frames)) is not None:
            leaving.append((session, goodbye))
    outbox.clear()
    return leaving


def _send(session: Session, frames: list[bytes]) -> Disconnect | None:
    frame = frames[0] if len(frames) == 1 else b"".join(frames)
    if (direct := session.link.direct) is None:
        return session.send(frame)
    Session.traffic.bytes_out += len(frame)
    _hand_over(session.link, direct, frame)
    return None


def _write_apart(session: Session, since: int, part: Part) -> Disconnect | None:
    """The few who do not get the common frame as it is: joining, joined amid these events, authors, the slow."""
    subscription = session.rooms.get(part.room)
    if since == JOINING and subscription is not None and subscription.held is not None:
        subscription.held.extend(event for event in part.events if event.position is not None)
        return None
    codec, frame = session.codec, part.frame
    wanted = [event for event in part.events if _is_for(session, since, event)]
    if session.link.congested:
        wanted = [event for event in wanted if event.kind is not Kind.SIGNAL]
    if len(wanted) < len(part.events):
        frame = codec.frame([codec.event(part.room, event) for event in wanted])
    return session.send(frame, droppable=all(event.position is None for event in wanted))


def _is_for(session: Session, since: int, event: Event) -> bool:
    new = event.position is None or event.position.offset > since
    return new and session.codec.author(event) != session.id


class Hub:
    """This node's registry of sessions.

    Attributes:
        unknown: sessions that have not said who they are, oldest first, with the loop second at which they must have.
        delivered: readers that fan-out has written to, once for each round.
        sent: events times readers, by READERS (of publications) and WATCHERS (of joins and leaves); whole rounds.
        on_round: told the seconds that a round took, and those since the first of its events had come.
    """

    def __init__(self, clock: Callable[[], float] = perf_counter) -> None:
        self.shards = [Shard() for _ in range(SHARDS)]
        self.rooms: dict[str, Room] = {}
        self.by_network: dict[str, int] = {}
        self.unknown: dict[Session, float] = {}
        self.size = 0
        self.delivered = 0
        self.sent = [0, 0]
        self.on_round: Callable[[float, float], None] = lambda seconds, since_arrival: None
        self._clock = clock
        self._casts: dict[Room, Cast | None] = {}
        self._work = asyncio.Event()

    # --- who is here --------------------------------------------------------------------------------------------------

    def shard_of(self, session: Session) -> int:
        return hash(session.id) % SHARDS

    def add(self, session: Session, network: str, known_by: float) -> None:
        """A socket was accepted; it must say who it is by loop second `known_by`."""
        self.shards[self.shard_of(session)].sessions[session.id] = session
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
        shard = self.shards[self.shard_of(session)]
        shard.ends_at = min(shard.ends_at, session.ends_at())

    def remove(self, session: Session, network: str) -> None:
        """Its socket is gone. Its rooms are left one by one with `leave`."""
        if self.shards[self.shard_of(session)].sessions.pop(session.id, None) is None:
            return
        self.size -= 1
        self.unknown.pop(session, None)
        self.by_network[network] -= 1
        if not self.by_network[network]:
            del self.by_network[network]

    def sessions(self) -> Iterator[Session]:
        for shard in self.shards:
            yield from list(shard.sessions.values())

    def find(self, client: str) -> Session | None:
        return self.shards[hash(client) % SHARDS].sessions.get(client)

    # --- who is in which room -----------------------------------------------------------------------------------------

    def join(self, session: Session, room: str, subscription: Subscription, since: int) -> bool:
        """Make `session` a reader of `room`, of everything after offset `since`; True for the room's first reader."""
        local = self.rooms.get(room)
        if local is None:
            local = self.rooms[room] = Room(room)
        local.readers += 1
        session.rooms[room] = subscription
        if subscription.expires_at is not None:
            self.note_end(session)
        shard = self.shard_of(session)
        local.slices.setdefault(session.codec, {}).setdefault(shard, {})[session] = since
        if subscription.join_leave:
            local.watchers.setdefault(session.codec, {}).setdefault(shard, {})[session] = -1
        return local.readers == 1

    def caught_up(self, session: Session, room: str, since: int) -> list[Event]:
        """End of a join at JOINING: from `since` on the session gets everything; returns what it missed meanwhile."""
        subscription = session.rooms[room]
        held, subscription.held = subscription.held or [], None
        missed = [event for event in held if event.position is not None and event.position.offset > since]
        last = missed[-1].position if missed else None
        self.rooms[room].slices[session.codec][self.shard_of(session)][session] = last.offset if last else since
        return missed

    def leave(self, session: Session, room: str) -> bool:
        """Take `session` out of `room`; True when it was the last reader here."""
        local = self.rooms.get(room)
        if local is None or session.rooms.pop(room, None) is None:
            return False
        local.readers -= 1
        for audience in (local.slices, local.watchers):
            _discard(audience, session, self.shard_of(session))
        if local.readers == 0:
            del self.rooms[room]
            return True
        return False

    def begin_anew(self, room: str, since: int) -> None:
        """The room's count began anew: whoever is in it or joining gets what comes after `since` of the new one."""
        if (local := self.rooms.get(room)) is None:
            return
        for shards in local.slices.values():
            for members in shards.values():
                for session, at in members.items():
                    if at == JOINING:
                        session.rooms[room].held = []
                    else:
                        members[session] = since

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
        if self._casts:
            self._work.set()

    async def run(self) -> None:
        """Fan out until cancelled."""
        outbox: Outbox = {}
        while True:
            await self._work.wait()
            turn_ends = self._clock() + TURN_S
            while self._casts:
                several = len(self._casts) > 1
                for room in list(self._casts):
                    if room in self._casts:  # a loss may have ended its round while we let others go first
                        self._take_turn(room, outbox if several else None)
                    if len(outbox) >= AT_ONCE:
                        self._close(empty(outbox))
                    if self._clock() >= turn_ends:
                        self._close(empty(outbox))  # nothing waits here while others may write to the same sessions
                        await asyncio.sleep(0)
                        turn_ends = self._clock() + TURN_S
            self._close(empty(outbox))
            self._work.clear()

    def _take_turn(self, room: Room, outbox: Outbox | None = None) -> None:
        try:
            self.turn(room, outbox)
        except Exception:  # a bug in one room's round must not end delivery for all
            log.exception("fan-out failed", readers=room.readers)
            self._give_up(room)

    def _close(self, leaving: Iterable[tuple[Session, Disconnect]]) -> None:
        for session, goodbye in leaving:
            session.close(goodbye)

    def _give_up(self, room: Room) -> None:
        """Have a room's readers come back and recover, since what they have been sent is not known."""
        self._casts.pop(room, None)
        room.pending.clear()
        for session in list(room.sessions()):
            session.close(INSUFFICIENT_STATE)

    def turn(self, room: Room, outbox: Outbox | None = None) -> None:
        """One part of `room`'s current round; begins one where none is under way. Waits for nobody."""
        cast = self._casts[room]
        if cast is None:
            events, room.pending = room.pending, []
            cast = self._casts[room] = Cast(room, events, self._clock())
        part = cast.next()
        if part is not None:
            readers = sum(map(len, part.slices))
            self.delivered += readers
            cast.copies[part.audience] += readers * len(part.events)
            self._close(write(part, outbox))
        else:
            now = self._clock()
            for audience, copies in enumerate(cast.copies):
                self.sent[audience] += copies
            self.on_round(now - cast.started_at, now - cast.arrived_at)
            if room.pending:
                self._casts[room] = None
            else:
                del self._casts[room]


def _discard(audience: dict[Codec, dict[int, Slice]], session: Session, shard: int) -> None:
    shards = audience.get(session.codec, {})
    members = shards.get(shard, {})
    members.pop(session, None)
    if not members:
        shards.pop(shard, None)
    if not shards:
        audience.pop(session.codec, None)
