"""One round of fan-out: how what a room has to say becomes writes to its readers on this node.

A frame is made once for each codec and sent to every reader's outlet, which is all that is looked at of most.
The few who need more come apart: those who have just joined, the slow, and authors who do not hear themselves. Nothing
here waits. Whose turn it is, and for how long, is the hub's business.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from typing import Final, NamedTuple, TypeVar

from .errors import Disconnect
from .model import Event, Kind
from .outlets import REFUSED, Outlet, send_all, send_each
from .room import JOINING, NOBODY, Room, Slice
from .session import Session
from .wire import Codec

Key = TypeVar("Key", Outlet, Session)

# Who hears what is said, and who hears of joins and leaves.
READERS: Final = 0
WATCHERS: Final = 1

# Readers for whom frames of several rooms may wait when others of another room come: half a turn's worth. More of them,
# where rooms have few readers in common, would only have what is read meanwhile wait.
MOST_WAITING: Final = 64

# What goes to all readers of a room; the rest goes to those who asked to hear who comes and goes.
SAID: Final = (Kind.PUBLICATION, Kind.SIGNAL)


class Part(NamedTuple):
    """Some readers of a round: `frame` is for all in `slice`; those in `apart` are looked at one by one.

    `audience` is READERS or WATCHERS, by what the events are; `readers` is how many they are.
    """

    room: Room
    slice: Slice
    apart: Sequence[Session]
    frame: bytes
    events: Sequence[Event]
    audience: int
    readers: int


class Cast:
    """One round: what a room had to say when its turn came, made into one frame for each codec, and who is to get it.

    It is written in steps, each for one of the room's windows; they follow on each other in a circle. Rooms of a size
    that take their steps together, wherever each began, have the same window at the same time, so that what they say to
    the same sessions can leave together.

    Args:
        now: seconds by the clock that events arrive by.
        find: a connection of this node by its id; None: it is not here.
        start: number of the first step, in a count that all rooms share.

    Attributes:
        next: number of the next step; left: how many are left.
        copies: events times readers, by audience.
    """

    __slots__ = ("_voices", "_windows", "arrived_at", "copies", "left", "next", "room", "started_at")

    def __init__(self, room: Room, now: float, find: Callable[[str], Session | None], start: int) -> None:
        events, room.pending = room.pending, []
        self.room = room
        self.arrived_at = room.pending_since
        self.started_at = now
        self.copies = [0, 0]
        self._windows = self.left = room.fit()
        self.next = start
        said = [event for event in events if event.kind in SAID]
        seen = [event for event in events if event.kind not in SAID] if len(said) < len(events) else []
        first = _first(said)
        room.settle(first)
        for author in _authors(room, said):
            room.set_apart(find(author), first - 1)
        self._voices = [*_voices(room, said, READERS), *_voices(room, seen, WATCHERS)]

    def step(self) -> list[Part]:
        """The next step's parts, with the readers that there are by now."""
        window, self.next, self.left = self.next % self._windows, self.next + 1, self.left - 1
        parts = [part for voice in self._voices if (part := voice.to(self.room, window)).readers]
        for part in parts:
            self.copies[part.audience] += part.readers * len(part.events)
        return parts


def _first(events: Iterable[Event]) -> int:
    """The least offset among `events`; the least there can be where none has one."""
    return min((event.position.offset for event in events if event.position is not None), default=1)


def _authors(room: Room, events: Iterable[Event]) -> set[str]:
    """Connections that must not hear all of `events`, by the languages that are spoken in the room."""
    return {author for codec in room.settled.codecs for event in events if (author := codec.author(event)) is not None}


class _Voice(NamedTuple):
    """What a round says in one language to one audience."""

    codec: Codec
    frame: bytes
    events: Sequence[Event]
    audience: int

    def to(self, room: Room, window: int) -> Part:
        readers = (room.settled if self.audience == READERS else room.watchers).slice(self.codec, window)
        apart = self._apart(room, window)
        return Part(room, readers, apart, self.frame, self.events, self.audience, len(readers) + len(apart))

    def _apart(self, room: Room, window: int) -> Sequence[Session]:
        if self.audience == WATCHERS or not room.fresh:
            return ()
        return [each for each in room.fresh if each.codec is self.codec and room.settled.window_of(each) == window]


def _voices(room: Room, events: Sequence[Event], audience: int) -> Iterator[_Voice]:
    if audience == READERS:
        codecs = [*room.settled.codecs, *(session.codec for session in room.fresh)]
    else:
        codecs = [*room.watchers.codecs]
    for codec in dict.fromkeys(codecs) if events else ():
        if frame := codec.frame([codec.event(room.name, event) for event in events]):
            yield _Voice(codec, frame, events, audience)


# --- writing ----------------------------------------------------------------------------------------------------------


class Outbox:
    """What a turn brings to readers from several rooms; each gets all of it in one write.

    As long as the rooms have the same readers, all of them wait for the same frame. Nobody joins or leaves before it is
    emptied.
    """

    __slots__ = ("_all", "_by_outlet", "_frame", "_others", "_slices")

    def __init__(self) -> None:
        self._all = NOBODY  # those who wait for the same, `_frame`; NOBODY: each has a frame of his own
        self._frame = b""
        self._slices: list[Slice] = []
        self._by_outlet: dict[Outlet, bytes] = {}
        self._others: dict[Session, bytes] = {}

    def __len__(self) -> int:
        return len(self._all) + len(self._by_outlet) + len(self._others)

    def is_full_for(self, readers: Slice) -> bool:
        """Whether it should be emptied before; as far as the first of `readers` tells, who have much in common."""
        if len(self) < MOST_WAITING:
            return False
        if readers.outlets:
            return readers.outlets[0] not in (self._all.outlets or self._by_outlet)
        return bool(readers.others) and readers.others[0] not in (self._all.others or self._others)

    def add(self, readers: Slice, frame: bytes) -> None:
        if not self:
            self._all = readers
        elif self._all and not self._all.has_same(readers):
            self._tell_apart()
        if self._all:
            self._frame += frame
        else:
            self._add_to_each(readers, frame)

    def _tell_apart(self) -> None:
        self._add_to_each(*self._take_all())

    def _take_all(self) -> tuple[Slice, bytes]:
        """Those who wait for the same, and what it is; nobody waits for it any more."""
        taken = self._all, self._frame
        self._all, self._frame = NOBODY, b""
        return taken

    def _add_to_each(self, readers: Slice, frame: bytes) -> None:
        self._slices.append(readers)
        _append(self._by_outlet, readers.outlets, frame)
        _append(self._others, readers.others, frame)

    def take(self, session: Session) -> bytes:
        """What is there for one reader; b"" for nothing."""
        self._tell_apart()
        if session.link.outlet is None:
            return self._others.pop(session, b"")
        return self._by_outlet.pop(session.link.outlet, b"")

    def empty(self) -> list[tuple[Session, Disconnect]]:
        """Write to each what is there for it; as `write`."""
        goodbyes = [*self._empty_all(), *self._empty_each()]
        goodbyes += [(session, session.send(frame)) for session, frame in self._others.items()]
        for waiting in (self._slices, self._by_outlet, self._others):
            waiting.clear()
        return _said(goodbyes)

    def _empty_all(self) -> Iterator[tuple[Session, Disconnect | None]]:
        readers, frame = self._take_all()
        sent = send_all(readers.outlets, frame)
        for at, taken in _left(sent, [len(frame)] * len(sent)):
            yield readers.sessions[at], _go_on(readers.sessions[at], frame, taken)
        for session in readers.others:
            yield session, session.send(frame)

    def _empty_each(self) -> Iterator[tuple[Session, Disconnect | None]]:
        frames = list(self._by_outlet.values())
        if left := _left(send_each(self._by_outlet, frames), list(map(len, frames))):
            whose = dict(chain.from_iterable(zip(each.outlets, each.sessions, strict=True) for each in self._slices))
            outlets = list(self._by_outlet)
            yield from ((whose[outlets[at]], _go_on(whose[outlets[at]], frames[at], sent)) for at, sent in left)


def _append(waiting: dict[Key, bytes], keys: Iterable[Key], frame: bytes) -> None:
    """Add `frame` to what waits; those who had the same until now go on having the same."""
    longer: dict[bytes, bytes] = {}
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
        outbox.add(part.slice, part.frame)
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
    readers = part.slice
    sent = send_all(readers.outlets, part.frame)
    for at, taken in _left(sent, [len(part.frame)] * len(sent)):
        session = readers.sessions[at]
        if taken == REFUSED:
            yield session, _write_some(session, part, part.events)
        else:
            yield session, _go_on(session, part.frame, taken)
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
