"""Busy room: fan-out with 16 messages under way at once, from one publisher and from 16, and all over 50 rooms.

Messages that are ready together should travel in one frame and one write. It is held against the floor that sends one
message at a time; the floor that joins what one turn brought stands beside it, as the least there is. Rooms of 20 have
no reach: there a twentieth of what it costs to publish is in each delivery, which no floor has.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks import server
from benchmarks.figures.cost import per_delivery, per_delivery_in_turns, settle
from benchmarks.load import Load, loading
from benchmarks.sitting import Reach, Row, Sitting, ratio

FIGURE = "busy room"
UNIT = "µs a delivery"
REACH_OF_FLOOR = 0.25


@dataclass(frozen=True, slots=True)
class Case:
    """Who reads what, and how much is under way at once.

    Attributes:
        readers, rooms, each: so many readers, each in `each` of `rooms` rooms.
        streams, depth: so many publishers' messages in one room each, each with up to `depth` of them under way.
        reaches: whether the reach holds for it.
    """

    name: str
    readers: int
    streams: int
    depth: int
    window: int = 16
    rooms: int = 1
    each: int = 1
    reaches: bool = True


CASES = (
    Case("16 under way, one publisher", 1_000, 1, 16),
    Case("16 under way, 16 publishers", 1_000, 16, 1),
    Case("16 under way all over 50 rooms, all readers in each", 1_000, 50, 1, rooms=50, each=50),
    Case("50 rooms of 20, 16 publishers in each", 1_000, 800, 1, window=800, rooms=50, reaches=False),
)


def measure(sitting: Sitting) -> None:
    with server.floor(sitting) as one, loading(sitting.load_core) as load:
        settle(load, 1_000, one.setup)
        floor = (load, one.cpu_s, 1)
        sitting.note(Row(FIGURE, "one at a time, 1,000 readers", "floor", UNIT, per_delivery(sitting, *floor)))
        with server.floor(sitting, joins=True) as joining, loading(sitting.load_core) as load:
            settle(load, 1_000, joining.setup, streams=16, depth=1)
            floors, joined = per_delivery_in_turns(sitting, floor, (load, joining.cpu_s, 16))
        beside = f"{ratio(joined, floors):.2f} × floor"
        sitting.note(Row(FIGURE, "16 under way, 16 publishers", "floor that joins", UNIT, joined, beside))
        for case in CASES:
            _measure(sitting, case, floor)


def _measure(sitting: Sitting, case: Case, floor: tuple[Load, Callable[[], float], int]) -> None:
    shape = {"rooms": case.rooms, "each": case.each, "streams": case.streams, "depth": case.depth}
    with server.chatd(sitting) as (chatd, directory), loading(sitting.load_core) as load:
        settle(load, case.readers, chatd.setup(directory, case.readers), **shape)
        chatd.node.until_quiet()
        floors, values = per_delivery_in_turns(sitting, floor, (load, chatd.node.cpu_s, case.window))
    times = ratio(values, floors)
    reach = Reach(f"≤ {REACH_OF_FLOOR} × floor", times <= REACH_OF_FLOOR) if case.reaches else None
    sitting.note(Row(FIGURE, case.name, "chatd", UNIT, values, f"{times:.2f} × floor", reach))
