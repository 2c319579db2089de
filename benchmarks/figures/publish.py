"""Publish: CPU of one node, and of the store beside it, for each message published; two readers, history on.

64 messages are under way: from 64 publishers in as many rooms, or from one in one room.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks import server
from benchmarks.figures.cost import settle, warm_up
from benchmarks.load import Load, loading
from benchmarks.server import Chatd
from benchmarks.sitting import Reach, Row, Sitting

FIGURE = "publish"
UNIT = "µs a message"
NODE_US, STORE_US = 120.0, 25.0
WINDOW = 64


def measure(sitting: Sitting) -> None:
    with server.chatd(sitting) as (chatd, directory):
        note(sitting, "64 publishers, 64 rooms of 2", costs(sitting, chatd, directory, rooms=WINDOW))
    with server.chatd(sitting) as (chatd, directory):
        note(sitting, "1 publisher, a room of 2", costs(sitting, chatd, directory, rooms=1))


def note(sitting: Sitting, case: str, found: tuple[list[float], list[float]]) -> None:
    node, store = found
    reached = Reach(f"≤ {NODE_US:.0f} µs", median(node) <= NODE_US)
    sitting.note(Row(FIGURE, case, "chatd", UNIT, node, reach=reached))
    share = f"{median(store) / median(node):.2f} × the node's"
    reached = Reach(f"≤ {STORE_US:.0f} µs", median(store) <= STORE_US)
    sitting.note(Row(FIGURE, case, "the store", UNIT, store, share, reached))


@dataclass(frozen=True, slots=True)
class Publishers:
    """Publishers who are ready, in rooms of two readers each."""

    chatd: Chatd
    load: Load

    def costs(self, seconds: float) -> tuple[float, float]:
        """Microseconds of the node and of the store for each message of one run."""
        answer, before, after = self.load.run(self.chatd.cpu_s, seconds=seconds, window=WINDOW, spin=1)
        store, node = ((late - early) / answer.messages * 1e6 for early, late in zip(before, after, strict=True))
        return node, store

    def node_us(self, seconds: float) -> float:
        return self.costs(seconds)[0]


@contextmanager
def ready(sitting: Sitting, chatd: Chatd, directory: Path, *, rooms: int, each: int = 1) -> Iterator[Publishers]:
    readers = 2 * rooms // each
    shape = {"rooms": rooms, "each": each, "streams": rooms, "depth": max(1, WINDOW // rooms)}
    with loading(sitting.load_core) as load:
        settle(load, readers, chatd.setup(directory, readers), **shape)
        chatd.node.until_quiet()
        warm_up(load, WINDOW)
        yield Publishers(chatd, load)


def costs(sitting: Sitting, chatd: Chatd, directory: Path, *, rooms: int) -> tuple[list[float], list[float]]:
    """Microseconds of the node and of the store for each message, one number a run."""
    with ready(sitting, chatd, directory, rooms=rooms) as publishers:
        node, store = zip(*(publishers.costs(sitting.scale.seconds) for _ in range(sitting.scale.runs)), strict=True)
    return list(node), list(store)
