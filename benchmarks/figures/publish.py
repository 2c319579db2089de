"""Publish: CPU of one node, and of the store beside it, for each message published; two readers, history on.

64 messages are under way: from 64 publishers in as many rooms, or from one in one room.
"""

from __future__ import annotations

from pathlib import Path
from statistics import median

from benchmarks import server
from benchmarks.figures.cost import WARM_UP_S, settle
from benchmarks.load import loading
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


def costs(
    sitting: Sitting, chatd: Chatd, directory: Path, *, rooms: int, each: int = 1
) -> tuple[list[float], list[float]]:
    """Microseconds of the node and of the store for each message, with two readers in each of `rooms`."""
    readers = 2 * rooms // each
    shape = {"rooms": rooms, "each": each, "streams": rooms, "depth": max(1, WINDOW // rooms)}
    with loading(sitting.load_core) as load:
        settle(load, readers, chatd.setup(directory, readers), **shape)
        chatd.node.until_quiet()
        load.run(seconds=WARM_UP_S, window=WINDOW)
        found = [load.run(chatd.cpu_s, seconds=sitting.scale.seconds, window=WINDOW) for _ in range(sitting.scale.runs)]
    node = [(after[1] - before[1]) / answer.messages * 1e6 for answer, before, after in found]
    store = [(after[0] - before[0]) / answer.messages * 1e6 for answer, before, after in found]
    return node, store
