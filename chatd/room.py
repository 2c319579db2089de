"""A room's readers on this node, laid out as fan-out goes through them.

What is said to a large room is written in steps, and who is written to in the same step stands in one slice. Nothing is
written here, and nothing decides who may read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Final

from .model import Event
from .outlets import Outlet
from .session import Session
from .wire import Codec

# A node's sessions are kept in so many shards. One turn around the heartbeat's wheel visits each once; 64 turn a 25 s
# heartbeat into a tick of 0.4 s.
SHARDS: Final = 64
# Readers written to between two looks at the clock: two or three milliseconds' worth.
AT_ONCE: Final = 512
# A reader's offset while its history is being read: above any real one, so that everything is held for it.
JOINING: Final = 1 << 62


class Slice:
    """Some readers of one codec, in the order in which they came.

    Attributes:
        outlets: theirs; `sessions`: whose they are.
        others: those who have none.
    """

    __slots__ = ("others", "outlets", "sessions")

    def __init__(self) -> None:
        self.outlets: list[Outlet] = []
        self.sessions: list[Session] = []
        self.others: list[Session] = []

    def __len__(self) -> int:
        return len(self.sessions) + len(self.others)

    def __iter__(self) -> Iterator[Session]:
        yield from self.sessions
        yield from self.others

    def has_same(self, others: Slice) -> bool:
        """Whether it is the same readers, and they came in the same order."""
        return self.outlets == others.outlets and self.others == others.others

    def add(self, session: Session) -> None:
        if session.link.outlet is None:
            self.others.append(session)
        else:
            self.outlets.append(session.link.outlet)
            self.sessions.append(session)

    def discard(self, session: Session) -> None:
        with suppress(ValueError):  # it is none of them
            if session.link.outlet is None:
                self.others.remove(session)
            else:
                at = self.outlets.index(session.link.outlet)
                del self.outlets[at], self.sessions[at]


NOBODY: Final = Slice()


class Audience:
    """Readers by codec, and by window: so many equal parts of the node's shards.

    Rooms with as many windows have the same session in the same window.

    Attributes:
        windows: a power of two, up to SHARDS.
    """

    __slots__ = ("_by_codec", "windows")

    def __init__(self) -> None:
        self.windows = 1
        self._by_codec: dict[Codec, list[Slice]] = {}

    def __iter__(self) -> Iterator[Session]:
        for slices in self._by_codec.values():
            for readers in slices:
                yield from readers

    @property
    def codecs(self) -> Iterable[Codec]:
        return self._by_codec

    def window_of(self, session: Session) -> int:
        return session.shard * self.windows // SHARDS

    def slice(self, codec: Codec, window: int) -> Slice:
        slices = self._by_codec.get(codec)
        return NOBODY if slices is None else slices[window]

    def some_of(self, step: int) -> Slice:
        """Readers of one codec, of those who have their turn in step `step` of a round."""
        for slices in self._by_codec.values():
            return slices[step % self.windows]
        return NOBODY

    def add(self, session: Session) -> None:
        slices = self._by_codec.get(session.codec)
        if slices is None:
            slices = self._by_codec[session.codec] = [Slice() for _ in range(self.windows)]
        slices[self.window_of(session)].add(session)

    def discard(self, session: Session) -> None:
        slices = self._by_codec.get(session.codec)
        if slices is None:
            return
        readers = slices[self.window_of(session)]
        readers.discard(session)
        if not readers and not any(slices):
            del self._by_codec[session.codec]

    def cut(self, windows: int) -> None:
        """Have so many windows."""
        if windows != self.windows:
            sessions = list(self)
            self.windows = windows
            self._by_codec.clear()
            for session in sessions:
                self.add(session)


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
        self.settled = Audience()
        self.fresh: dict[Session, int] = {}
        self.watchers = Audience()
        self.pending: list[Event] = []
        self.pending_since = 0.0

    def sessions(self) -> Iterator[Session]:
        yield from self.settled
        yield from self.fresh

    def join(self, session: Session, since: int, *, watches: bool) -> None:
        self.readers += 1
        self.fresh[session] = since
        if watches:
            self.watchers.add(session)

    def leave(self, session: Session) -> None:
        self.readers -= 1
        self.fresh.pop(session, None)
        self.settled.discard(session)
        self.watchers.discard(session)

    def settle(self, first: int) -> None:
        """Have those read on with all the others to whom everything from offset `first` on is new."""
        for session in [session for session, since in self.fresh.items() if since < first]:
            del self.fresh[session]
            self.settled.add(session)

    def set_apart(self, session: Session | None, since: int) -> None:
        """Have `session`, if it is a reader, hear what comes next apart from the others."""
        if session is not None and self.name in session.rooms:
            self.settled.discard(session)
            self.fresh.setdefault(session, since)

    def fit(self) -> int:
        """Have about AT_ONCE readers in a window, and not many fewer; returns how many windows there are.

        Not while a round is under way, which goes from window to window.
        """
        wanted, windows = _windows(self.readers), self.settled.windows
        if not wanted <= windows <= 2 * wanted:
            windows = wanted
            self.settled.cut(windows)
            self.watchers.cut(windows)
        return windows


def _windows(readers: int) -> int:
    """A power of two, such that each window has at most AT_ONCE of so many readers, or is a shard."""
    return min(SHARDS, 1 << max(0, (readers - 1) // AT_ONCE).bit_length())
