"""How one room's feed stays in order and without a gap: decisions only.

A Tail knows how far this node has delivered a room. What the subscription brings is taken in; what follows on is given
out, what was seen before is dropped, and what leaves a gap is held until history has filled it. Who reads history, and
when, is Feed's business.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from chatd.model import Event, Json, Kind, Lost, Position

# While a gap is being filled, later messages wait here; past this they are let go, for history has them as well.
HELD = 1000

# How every body ends, and no text of a user's can look like it.
_SAID_MS = re.compile(rb',"time":(\d+)(?:,"epoch":"[\w-]*")?\}$')


class Tail:
    """The end of one room, as this node has it.

    Attributes:
        position: the last message given out; None until `place` was called.
        behind: whether history must be read before anything newer may be given out.
    """

    __slots__ = ("_held", "_last", "behind", "position")

    def __init__(self) -> None:
        self.position: Position | None = None
        self.behind = True
        self._held: list[Event] = []
        self._last: Event | None = None  # the latest given out, unless some was lost since

    def place(self, top: Position) -> list[Event]:
        """Begin after `top`; returns what arrived since and follows on."""
        self.position = top
        self.behind = False
        return self._release()

    def take(self, events: Iterable[Event]) -> list[Event]:
        """Return those of `events` that may be given out now, in order; afterwards look at `behind`.

        Events without a position (joins, leaves, rooms without history) never wait.
        """
        out: list[Event] = []
        for event in events:
            if event.position is None:
                out.append(event)
            elif self.behind:
                self._hold(event)
            elif self._follows(event.position):
                self.position, self._last = event.position, event
                out.append(event)
            elif not self._seen(event.position):
                self.behind = True
                self._hold(event)
        return out

    def doubt(self) -> None:
        """The line was down: the server may be another now, which had not been told of the last messages."""
        if self._last is not None:
            self.behind = True

    def rewind(self, since: Position, page: Iterable[tuple[int, Json]], top: Position) -> bool:
        """Go back to before what was said later than the last message given out, under numbers that were given out, or
        to the top, where they are still to be given to something.

        Args:
            since: as for `fill`.
            page: (offset, publication) of what history holds up to `position`; `top` was read in the same step.
        Returns:
            Whether it went back; then there may be more before the page.
        """
        if self._last is None or self.position is None or self.position.epoch != top.epoch:
            return False
        last, last_ms = self._last.position, _said_ms(self._last.body)
        epoch, offset = self.position
        said = {number: _said_ms(body) for number, body in page if number <= offset}
        # Not only what is later took a number: a master that hung goes on for a moment, and is heard after the new one.
        taken = [number for number, ms in said.items() if ms != last_ms and last == (epoch, number)]
        below = offset  # what has come meanwhile may be above a top that was read before
        if self.position == since:  # else it may be dated before what the page has, for clocks are set back
            taken += [number for number, ms in said.items() if ms > last_ms]
            below = top.offset
        reached = min([below, offset, *(number - 1 for number in taken)])
        if reached == offset:
            return False
        self.position, self.behind = Position(epoch, reached), True
        return True

    def fill(self, since: Position, page: Sequence[tuple[int, Json]], top: Position) -> tuple[list[Event], Lost | None]:
        """Close a gap with what history holds after `since`; `top` was read in the same step.

        Args:
            since: `position` when the read began; where no gap was known, it may have moved on meanwhile.
            page: (offset, publication), oldest first; not always up to `top`, then we stay `behind`.
        Returns:
            What may be given out now, and Lost when history no longer reaches back to us: readers must subscribe
            again, and we go on from `top`.
        """
        assert self.position is not None, "a tail is placed before it is filled"
        epoch, offset = self.position
        if not _joins(since, page, top):
            self.position, self._last, self.behind = top, None, False
            return self._release(), Lost(top)
        events = [Event(Kind.PUBLICATION, body, Position(epoch, number)) for number, body in page if number > offset]
        if events:
            self._last = events[-1]
        reached = max(offset, page[-1][0]) if page else offset
        self.position = Position(epoch, reached)
        self.behind = reached < top.offset
        return events if self.behind else events + self._release(), None

    def _follows(self, position: Position) -> bool:
        if self.position is None:  # of a room that kept no history until now, nothing was missed
            return True
        return position == (self.position.epoch, self.position.offset + 1)

    def _seen(self, position: Position) -> bool:
        return (
            self.position is not None
            and position.epoch == self.position.epoch
            and position.offset <= self.position.offset
        )

    def _hold(self, event: Event) -> None:
        if len(self._held) == HELD:  # the older ones go, so that what is kept leaves a gap and we read once more
            self._held.clear()
        self._held.append(event)

    def _release(self) -> list[Event]:
        """What waited and follows on. What does not is let go: the next read of history has it, or nobody has."""
        held, self._held = self._held, []
        events = self.take(held)
        self._held.clear()
        return events


def _said_ms(body: Json) -> int:
    found = _SAID_MS.search(body)
    return int(found[1]) if found else 0


def _joins(position: Position, page: Sequence[tuple[int, Json]], top: Position) -> bool:
    """Whether `page` goes on where `position` ends, within the life of the count that `top` belongs to."""
    if position.epoch != top.epoch or position.offset > top.offset:
        return False
    return position.offset == top.offset or bool(page and page[0][0] == position.offset + 1)
