"""Publish: CPU of one node, and of the store beside it, for each message published; two readers, history on.

64 messages are under way: from 64 publishers in as many rooms, or from one in one room. The floor, which receives a
message and sends it twice, takes turns with the node.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks import server
from benchmarks.figures.cost import settle, warm_up
from benchmarks.load import Load, loading
from benchmarks.server import Chatd, Server
from benchmarks.sitting import Reach, Row, Sitting, ratio

FIGURE = "publish"
UNIT = "µs a message"
NODE_US, STORE_US = 120.0, 25.0
WINDOW = 64


def measure(sitting: Sitting) -> None:
    _measure(sitting, "64 publishers, 64 rooms of 2", rooms=WINDOW)
    _measure(sitting, "1 publisher, a room of 2", rooms=1)


def _measure(sitting: Sitting, case: str, *, rooms: int) -> None:
    floor, store, node = costs(sitting, rooms=rooms)
    sitting.note(Row(FIGURE, case, "floor", UNIT, floor))
    reached = Reach(f"≤ {NODE_US:.0f} µs", median(node) <= NODE_US)
    sitting.note(Row(FIGURE, case, "chatd", UNIT, node, f"{ratio(node, floor):.1f} × floor", reached))
    reached = Reach(f"≤ {STORE_US:.0f} µs", median(store) <= STORE_US)
    sitting.note(Row(FIGURE, case, "the store", UNIT, store, f"{ratio(store, node):.2f} × the node's", reached))


@dataclass(frozen=True, slots=True)
class Publishers:
    """Publishers who are ready, in rooms of two readers each.

    Attributes:
        cpu_s: CPU seconds so far of each process that has to do with their messages; the node last.
    """

    cpu_s: Callable[[], Sequence[float]]
    load: Load

    def costs(self, seconds: float) -> list[float]:
        """Microseconds of each process for each message of one run."""
        answer, before, after = self.load.run(self.cpu_s, seconds=seconds, window=WINDOW, spin=1)
        return [(late - early) / answer.messages * 1e6 for early, late in zip(before, after, strict=True)]

    def node_us(self, seconds: float) -> float:
        return self.costs(seconds)[-1]


@contextmanager
def ready(sitting: Sitting, chatd: Chatd, directory: Path, *, rooms: int, each: int = 1) -> Iterator[Publishers]:
    setup = chatd.setup(directory, 2 * rooms // each)
    with _ready(sitting, chatd.node, setup, rooms=rooms, each=each) as load:
        yield Publishers(chatd.cpu_s, load)


@contextmanager
def _ready(sitting: Sitting, one: Server, setup: Mapping[str, object], *, rooms: int, each: int = 1) -> Iterator[Load]:
    shape = {"rooms": rooms, "each": each, "streams": rooms, "depth": max(1, WINDOW // rooms)}
    with loading(sitting.load_core) as load:
        settle(load, 2 * rooms // each, {**setup}, **shape)
        one.until_quiet()
        warm_up(load, WINDOW)
        yield load


def costs(sitting: Sitting, *, rooms: int) -> list[list[float]]:
    """Microseconds a message of the floor, of the store and of the node, one number a run; they take turns."""
    with (
        server.floor(sitting) as floor,
        _ready(sitting, floor, floor.setup, rooms=rooms) as load,
        server.chatd(sitting) as (chatd, directory),
        ready(sitting, chatd, directory, rooms=rooms) as publishers,
    ):
        least = Publishers(lambda: [floor.cpu_s()], load)
        each = (least, publishers)
        turns = [[us for of in each for us in of.costs(sitting.scale.seconds)] for _ in range(sitting.scale.runs)]
    return [list(values) for values in zip(*turns, strict=True)]
