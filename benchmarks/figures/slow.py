"""Slow readers: a tenth of a large room stops reading while messages of 8 KB go on.

The others must not notice: their p99 stays below twice what it was. Memory stays below the bound that the settings give
for each slow one. Each of them hears 3008 when it reads again, comes back, and recovers without a gap.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from benchmarks import server
from benchmarks.figures.cost import settle
from benchmarks.load import Faulty, Load, loading
from benchmarks.server import Chatd, Server
from benchmarks.sitting import Reach, Row, Sitting, ratio
from chatd.control import Who
from chatd.store.redis import Store

FIGURE = "slow readers"
OUTBOX_KB = 64
SETTINGS = f'outbox = "{OUTBOX_KB}KiB"\nbody = "16KiB"\n'
TEXT_BYTES = 8_000
# A reader's own kernel holds twice this; a small one ends the wait sooner, for those who read there is room for eight.
RECEIVE_BYTES = 32_768
# Messages a second for a room of 10,000: about a third of what a core can deliver. Not above the second in a small one,
# or the slow would miss more than a client may recover before they are let read again.
RATE, MOST_RATE = 3.0, 40.0
# Longest that it may take until every slow one is cut off, in seconds; the kernel's own buffers fill first.
PATIENCE_S = 60.0
LONG_S = 600
# Its socket is cut if it does not answer the goodbye within 5 s; by then it must read again, or it never hears why.
ALL_TOLD_S = 1.0


class Run(NamedTuple):
    """What one crowd met: the others' p99 in milliseconds, before and while a tenth did not read; KB for each of these,
    and how many of them were told why.
    """

    before: float
    after: float
    kb: float
    told: int


def measure(sitting: Sitting) -> None:
    slow = sitting.scale.crowd // 10
    _note(sitting, slow, [_run(sitting, slow) for _ in range(sitting.scale.runs)])


def _run(sitting: Sitting, slow: int) -> Run:
    crowd = sitting.scale.crowd
    rate = min(RATE * 10_000 / crowd, MOST_RATE)
    with server.chatd(sitting, extra=SETTINGS) as (chatd, directory), loading(sitting.load_core) as load:
        setup = chatd.setup(directory, crowd)
        settle(load, crowd, setup, size=TEXT_BYTES, receive=RECEIVE_BYTES, depth=4_000)
        before = load.run(seconds=20 / rate, rate=rate)[0].p99_ms
        load.ask("pause", count=slow)
        base = chatd.node.rss_bytes()
        with _peak(chatd.node) as peak:
            after = _stall(load, chatd, rate, f"user-{crowd - 1}")
        told = _come_back(load, slow)
    return Run(before, after, (peak[0] - base) / slow / 1024, told)


def _stall(load: Load, chatd: Chatd, rate: float, last: str) -> float:
    """Publish on until the node has cut off who does not read; returns the others' p99.

    Args:
        last: the user who reads no more as the last of all; all have the same waiting.
    """
    load.begin(seconds=LONG_S, rate=rate)
    asyncio.run(_until_gone(chatd.url, last))
    time.sleep(ALL_TOLD_S)
    load.tell("enough")
    return load.hear().p99_ms


async def _until_gone(url: str, user: str) -> None:
    async with asyncio.timeout(PATIENCE_S), Store(url, prefix="chatd", timeout=2.0) as store:
        while any(a["connections"] for a in (await store.request(Who(user=user), patience=2, by="")).by_node.values()):
            await asyncio.sleep(0.1)


def _come_back(load: Load, slow: int) -> int:
    """Let the slow ones read again, hear the goodbye, come back and catch up; returns how many were told why."""
    load.tell("resume", count=slow)
    load.hear()
    for _ in range(40):
        load.tell("idle", seconds=0.25)
        if (cut := load.hear()).closed_3008 == slow:
            break
    back = load.open(at_once=256)
    if back.recovered < slow:
        raise Faulty(f"{back.recovered} of {slow} recovered without a gap")
    return cut.closed_3008


@contextmanager
def _peak(node: Server) -> Iterator[list[int]]:
    """The node's greatest memory while this lasts."""
    found, over = [0], threading.Event()

    def look() -> None:
        while not over.wait(0.05):
            found[0] = max(found[0], node.rss_bytes())

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        yield found
    finally:
        over.set()
        watcher.join()


def _note(sitting: Sitting, slow: int, runs: list[Run]) -> None:
    crowd = f"{slow:,} of {10 * slow:,} do not read"
    before, after, kb, told = (list(values) for values in zip(*runs, strict=True))
    times = ratio(after, before)
    met = Reach("< 2 × before", times < 2)
    sitting.note(Row(FIGURE, f"{crowd}: the others' p99", "chatd", "ms", after, f"{times:.2f} × before", met))
    met = Reach(f"≤ {OUTBOX_KB} KB each", max(kb) <= OUTBOX_KB)
    sitting.note(Row(FIGURE, f"{crowd}: memory for each", "chatd", "KB", kb, reach=met))
    case = f"{crowd}: told 3008; all recovered without a gap"
    sitting.note(Row(FIGURE, case, "chatd", "of them", told, reach=Reach("all", min(told) == slow)))
