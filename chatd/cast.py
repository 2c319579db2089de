"""One round of fan-out: a room's readers on this node, and how what the room has to say becomes writes.

A frame is made once for each codec and sent to every reader's outlet, whose number is all that is looked at of most.
The few who need more come apart: those who have just joined, the slow, and authors who do not hear themselves. Nothing
here waits. Whose turn it is, and for how long, is the hub's business.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import chain
from typing import Final, NamedTuple, TypeVar

from .errors import Disconnect
from .model import Event, Kind
from .outlets import REFUSED, send_all, send_each
from .session import Session
from .wire import Codec

Key = TypeVar("Key", int, Session)

# A room's readers are kept by shard, as the node's sessions are. One turn around the heartbeat's wheel visits each
# shard once; 64 turn a 25 s heartbeat into a tick of 0.4 s.
SHARDS: Final = 64
# Readers written to between two looks at the clock: a good millisecond's worth.
AT_ONCE: Final = 512
# A reader's offset while its history is being read: above any real one, so that everything is held for it.
JOINING: Final = 1 << 62

# Who hears what is said, and who hears of joins and leaves.
READERS: Final = 0
WATCHERS: Final = 1

# What goes to all readers of a room; the rest goes to those who asked to hear who comes and goes.
SAID: Final = (Kind.PUBLICATION, Kind.SIGNAL)


class Slice:
    """Readers of one shard in one room by one codec, in the order in which they came.

    Attributes:
        numbers: of their outlets; `sessions`: whose they are.
        others: those who have none.
    """

    __slots__ = ("numbers", "others", "sessions")

    def __init__(self) -> None:
        self.numbers = array("I")
        self.sessions: list[Session] = []
        self.others: list[Session] = []

    def __len__(self) -> int:
        return len(self.sessions) + len(self.others)

    def add(self, session: Session) -> None:
        if session.link.outlet is None:
            self.others.append(session)
        else:
            self.numbers.append(session.link.outlet.number)
            self.sessions.append(session)

    def discard(self, session: Session) -> None:
        with suppress(ValueError):  # it is none of them
            if session.link.outlet is None:
                self.others.remove(session)
            else:
                at = self.numbers.index(session.link.outlet.number)
                del self.numbers[at], self.sessions[at]


Audience = dict[Codec, dict[int, Slice]]
"""Readers of one room, by codec and shard."""


class Room:
    """One room's readers on this node.

    Attributes:
        settled: those to whom everything that comes is new.
        fresh: the others, each with the offset after which it reads on; JOINING: that is not known yet.
        watchers: of them all, those who hear who joins and leaves.
        readers: how many they are.
        pending: what has come and not yet been fanned out; `pending_since`: when the first of it came.
    """

    __slots__ = ("fresh", "name", "pending", "pending_since", "readers", "settled", "watchers")

    def __init__(self, name: str) -> None:
        self.name = name
        self.readers = 0
        self.settled: Audience = {}
        self.fresh: dict[Session, int] = {}
        self.watchers: Audience = {}
        self.pending: list[Event] = []
        self.pending_since = 0.0

    def sessions(self) -> Iterator[Session]:
        for shards in self.settled.values():
            for readers in shards.values():
                yield from readers.sessions
                yield from readers.others
        yield from self.fresh

    def join(self, session: Session, since: int, *, watches: bool) -> None:
        self.readers += 1
        self.fresh[session] = since
        if watches:
            _place(self.watchers, session)

    def leave(self, session: Session) -> None:
        self.readers -= 1
        self.fresh.pop(session, None)
        _discard(self.settled, session)
        _discard(self.watchers, session)

    def settle(self, first: int) -> None:
        """Have those read on with all the others to whom everything from offset `first` on is new."""
        for session in [session for session, since in self.fresh.items() if since < first]:
            del self.fresh[session]
            _place(self.settled, session)

    def set_apart(self, session: Session | None, since: int) -> None:
        """Have `session`, if it is a reader, hear what comes next apart from the others."""
        if session is not None and self.name in session.rooms:
            _discard(self.settled, session)
            self.fresh.setdefault(session, since)


def _place(audience: Audience, session: Session) -> None:
    by_shard = audience.setdefault(session.codec, {})
    if (readers := by_shard.get(session.shard)) is None:
        readers = by_shard[session.shard] = Slice()
    readers.add(session)


def _discard(audience: Audience, session: Session) -> None:
    by_shard = audience.get(session.codec, {})
    if (readers := by_shard.get(session.shard)) is None:
        return
    readers.discard(session)
    if not readers:
        del by_shard[session.shard]
    if not by_shard:
        del audience[session.codec]


class Part(NamedTuple):
    """Some readers of a round: `frame` is for all in `slices`; those in `apart` are looked at one by one.

    `audience` is READERS or WATCHERS, by what the events are; `readers` is how many they are.
    """

    room: Room
    slices: Sequence[Slice]
    apart: Sequence[Session]
    frame: bytes
    events: Sequence[Event]
    audience: int
    readers: int


class Cast:
    """One round: what a room had to say when its turn came, made into one frame for each codec, and who is to get it.

    It is written in steps, each for those shards that one of `windows` shows; they follow on each other in a circle.
    Rooms of a size that take their steps together, wherever each began, have the same window at the same time, so that
    what they say to the same sessions can leave together.

    Args:
        now: seconds by the clock that events arrive by.
        find: a connection of this node by its id; None: it is not here.
        start: number of the first step, in a count that all rooms share.

    Attributes:
        left: how many steps are left.
        copies: events times readers, by audience.
    """

    __slots__ = ("_next", "_voices", "arrived_at", "copies", "left", "room", "started_at", "windows")

    def __init__(self, room: Room, now: float, find: Callable[[str], Session | None], start: int) -> None:
        events, room.pending = room.pending, []
        self.room = room
        self.arrived_at = room.pending_since
        self.started_at = now
        self.copies = [0, 0]
        self.windows = self.left = _windows(room.readers)
        self._next = start
        said = [event for event in events if event.kind in SAID]
        seen = [event for event in events if event.kind not in SAID] if len(said) < len(events) else []
        first = _first(said)
        room.settle(first)
        for author in _authors(room, said):
            room.set_apart(find(author), first - 1)
        self._voices = [*_voices(room, said, READERS), *_voices(room, seen, WATCHERS)]

    def step(self) -> list[Part]:
        """The next step's parts, with the readers that there are by now."""
        window, self._next, self.left = self._next % self.windows, self._next + 1, self.left - 1
        shards = range(SHARDS * window // self.windows, SHARDS * (window + 1) // self.windows)
        parts = [part for voice in self._voices if (part := voice.to(self.room, shards)).readers]
        for part in parts:
            self.copies[part.audience] += part.readers * len(part.events)
        return parts


def _windows(readers: int) -> int:
    """A power of two, such that each shows about AT_ONCE of so many readers, or a shard."""
    return min(SHARDS, 1 << max(0, (readers - 1) // AT_ONCE).bit_length())


def _first(events: Iterable[Event]) -> int:
    """The least offset among `events`; the least there can be where none has one."""
    return min((event.position.offset for event in events if event.position is not None), default=1)


def _authors(room: Room, events: Iterable[Event]) -> set[str]:
    """Connections that must not hear all of `events`, by the languages that are spoken in the room."""
    return {author for codec in room.settled for event in events if (author := codec.author(event)) is not None}


class _Voice(NamedTuple):
    """What a round says in one language to one audience."""

    codec: Codec
    frame: bytes
    events: Sequence[Event]
    audience: int

    def to(self, room: Room, shards: range) -> Part:
        by_shard = (room.settled if self.audience == READERS else room.watchers).get(self.codec, {})
        if len(shards) == SHARDS:
            slices = list(by_shard.values())
        else:
            slices = [by_shard[shard] for shard in shards if shard in by_shard]
        apart = self._apart(room, shards)
        readers = sum(map(len, slices)) + len(apart)
        return Part(room, slices, apart, self.frame, self.events, self.audience, readers)

    def _apart(self, room: Room, shards: range) -> Sequence[Session]:
        if self.audience == WATCHERS or not room.fresh:
            return ()
        return [each for each in room.fresh if each.codec is self.codec and each.shard in shards]


def _voices(room: Room, events: Sequence[Event], audience: int) -> Iterator[_Voice]:
    codecs = [*room.settled, *(session.codec for session in room.fresh)] if audience == READERS else [*room.watchers]
    for codec in dict.fromkeys(codecs) if events else ():
        if frame := codec.frame([codec.event(room.name, event) for event in events]):
            yield _Voice(codec, frame, events, audience)


# --- writing ----------------------------------------------------------------------------------------------------------


class Outbox:
    """What a turn brings to readers from several rooms; each gets all of it in one write.

    Nobody joins or leaves before it is emptied.
    """

    __slots__ = ("_by_number", "_others", "_slices")

    def __init__(self) -> None:
        self._slices: list[Slice] = []
        self._by_number: dict[int, bytes] = {}
        self._others: dict[Session, bytes] = {}

    def __len__(self) -> int:
        return len(self._by_number) + len(self._others)

    def add(self, slices: Iterable[Slice], frame: bytes) -> None:
        longer: dict[bytes, bytes] = {}
        for readers in slices:
            self._slices.append(readers)
            _append(self._by_number, readers.numbers, frame, longer)
            _append(self._others, readers.others, frame, longer)

    def take(self, session: Session) -> bytes:
        """What is there for one reader; b"" for nothing."""
        if session.link.outlet is None:
            return self._others.pop(session, b"")
        return self._by_number.pop(session.link.outlet.number, b"")

    def empty(self) -> list[tuple[Session, Disconnect]]:
        """Write to each what is there for it; as `write`."""
        frames = list(self._by_number.values())
        goodbyes = []
        if left := _left(send_each(self._by_number, frames), list(map(len, frames))):
            whose = dict(chain.from_iterable(zip(each.numbers, each.sessions, strict=True) for each in self._slices))
            numbers = list(self._by_number)
            goodbyes = [(whose[numbers[at]], _go_on(whose[numbers[at]], frames[at], sent)) for at, sent in left]
        goodbyes += [(session, session.send(frame)) for session, frame in self._others.items()]
        for waiting in (self._slices, self._by_number, self._others):
            waiting.clear()
        return _said(goodbyes)


def _append(waiting: dict[Key, bytes], keys: Iterable[Key], frame: bytes, longer: dict[bytes, bytes]) -> None:
    """Add `frame` to what waits; those who had the same until now go on having the same, of which `longer` knows."""
    for key in keys:
        earlier = waiting.get(key, b"")
        if (all_of_it := longer.get(earlier)) is None:
            all_of_it = longer[earlier] = earlier + frame
        waiting[key] = all_of_it


def write(part: Part, outbox: Outbox | None = None) -> list[tuple[Session, Disconnect]]:
    """Write a part of a round; returns those that must be closed. It awaits nobody.

    Args:
        outbox: where the frame is left for those who can take it as it is; None: they get it now.
    """
    goodbyes = []
    if outbox is not None:
        outbox.add(part.slices, part.frame)
    else:
        goodbyes = list(_write_at_once(part))
    for session in part.apart:
        if outbox is not None and (earlier := outbox.take(session)):
            goodbyes.append((session, session.send(earlier)))
        goodbyes.append((session, _write_apart(session, part)))
    return _said(goodbyes)


def _said(goodbyes: Iterable[tuple[Session, Disconnect | None]]) -> list[tuple[Session, Disconnect]]:
    return [(session, goodbye) for session, goodbye in goodbyes if goodbye is not None]


def _write_at_once(part: Part) -> Iterator[tuple[Session, Disconnect | None]]:
    """Write the common frame. Of a session whose outlet takes it nothing is looked at: it is far from the processor."""
    size = len(part.frame)
    sent = send_all(chain.from_iterable(readers.numbers for readers in part.slices), part.frame)
    if sent.count(size) == len(sent):
        Session.traffic.bytes_out += size * len(sent)
    else:
        sessions = list(chain.from_iterable(readers.sessions for readers in part.slices))
        for at, taken in _left(sent, [size] * len(sent)):
            if taken == REFUSED:
                yield sessions[at], _write_some(sessions[at], part, part.events)
            else:
                yield sessions[at], _go_on(sessions[at], part.frame, taken)
    for readers in part.slices:
        for session in readers.others:
            yield session, _write_some(session, part, part.events)


def _left(sent: list[int], sizes: list[int]) -> list[tuple[int, int]]:
    """Those whose frame was not taken whole: their place, and the bytes that were, or REFUSED."""
    if sent == sizes:
        Session.traffic.bytes_out += sum(sizes)
        return []
    Session.traffic.bytes_out += sum(size for taken, size in zip(sent, sizes, strict=True) if taken == size)
    return [(at, taken) for at, (taken, size) in enumerate(zip(sent, sizes, strict=True)) if taken != size]


def _go_on(session: Session, frame: bytes, sent: int) -> Disconnect | None:
    """Write what an outlet did not take of a frame."""
    if sent == REFUSED:
        return session.send(frame)
    Session.traffic.bytes_out += len(frame)
    session.link.write_rest(frame, sent)
    return None


def _write_apart(session: Session, part: Part) -> Disconnect | None:
    """To those who do not get the common frame as it is: joining, joined amid these events, their author."""
    since = part.room.fresh.get(session)
    if since is None:  # it has left meanwhile
        return None
    subscription = session.rooms[part.room.name]
    if since == JOINING and subscription.held is not None:
        subscription.held.extend(event for event in part.events if event.position is not None)
        return None
    return _write_some(session, part, [event for event in part.events if _is_for(session, since, event)])


def _is_for(session: Session, since: int, event: Event) -> bool:
    new = event.position is None or event.position.offset > since
    return new and session.codec.author(event) != session.id


def _write_some(session: Session, part: Part, wanted: Sequence[Event]) -> Disconnect | None:
    """Write some of the events, or fewer to whom reads too slowly."""
    if session.link.congested:
        wanted = [event for event in wanted if event.kind is not Kind.SIGNAL]
    frame, codec = part.frame, session.codec
    if len(wanted) < len(part.events):
        frame = codec.frame([codec.event(part.room.name, event) for event in wanted])
    return session.send(frame, droppable=all(event.position is None for event in wanted))
