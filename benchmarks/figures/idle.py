"""Idle: memory and CPU of connections that only live. Each logged in with a token of its own; one room, presence on.

Memory and CPU are measured over the second heartbeat of 25 s; that memory does not grow, over many short ones on a
second node at the same time, which costs the first nothing: CPU time is counted for each process.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from statistics import median

from benchmarks import server
from benchmarks.figures.cost import settle
from benchmarks.load import loading
from benchmarks.sitting import Reach, Row, Sitting

SHORT_HEARTBEAT_S = 2
CROWD = 100_000
# Seconds for which a node without anybody is measured, one by one: in its first it may still have to do with its start.
ALONE_S = 3
REACH_KB, REACH_CORES, REACH_AT_S = 8.0, 0.2, 25
# Pages that an allocator keeps for later may be so much of what the connections take.
GROWTH = 1.02


def measure(sitting: Sitting) -> None:
    heartbeat_s = sitting.scale.heartbeat_s
    with ExitStack() as stack:
        calm = _Crowd(sitting, stack, heartbeat_s)
        brisk = _Crowd(sitting, stack, SHORT_HEARTBEAT_S)
        brisk.load.ask("idle", seconds=2.5 * SHORT_HEARTBEAT_S)
        early = brisk.taken_bytes()
        brisk.load.tell("idle", seconds=SHORT_HEARTBEAT_S * (sitting.scale.heartbeats - 2))
        calm.load.ask("idle", seconds=heartbeat_s)
        before = calm.node.cpu_s()
        answer = calm.load.ask("idle", seconds=heartbeat_s)
        a_second = (calm.node.cpu_s() - before) / heartbeat_s
        brisk.load.hear().or_faulty()
        _note_memory(sitting, calm.taken_bytes(), early, brisk.taken_bytes())
        _note_cpu(sitting, calm.alone_a_second, a_second, answer.pings / heartbeat_s)


class _Crowd:
    """A node with a crowd on it.

    Attributes:
        alone_a_second: CPU seconds a second of the node before they came.
    """

    def __init__(self, sitting: Sitting, stack: ExitStack, heartbeat_s: int) -> None:
        chatd, directory = stack.enter_context(server.chatd(sitting, heartbeat_s=heartbeat_s))
        self.node = chatd.node
        self.load = stack.enter_context(loading(sitting.load_core))
        self.alone_a_second = median(self._of_a_second() for _ in range(ALONE_S))
        self._base = self.node.rss_bytes()
        settle(self.load, sitting.scale.crowd, chatd.setup(directory, sitting.scale.crowd))

    def _of_a_second(self) -> float:
        before = self.node.cpu_s()
        time.sleep(1)
        return self.node.cpu_s() - before

    def taken_bytes(self) -> int:
        return self.node.rss_bytes() - self._base


def _note_memory(sitting: Sitting, taken: int, early: int, late: int) -> None:
    crowd = sitting.scale.crowd
    kb = taken / crowd / 1024
    case = f"{crowd:,} connections, after 2 heartbeats"
    sitting.note(
        Row("idle memory", case, "chatd", "KB a connection", [kb], reach=Reach(f"≤ {REACH_KB:g} KB", kb <= REACH_KB))
    )
    grown = late / early
    case = f"after {sitting.scale.heartbeats} heartbeats, to after 2"
    sitting.note(Row("idle memory", case, "chatd", "×", [grown], reach=Reach("no growth", grown <= GROWTH)))


def _note_cpu(sitting: Sitting, alone: float, together: float, pings: float) -> None:
    """What the node costs alone counts once, whatever the crowd; arguments are of one second."""
    theirs = together - alone
    cores = alone + theirs * CROWD / sitting.scale.crowd
    sitting.note(
        Row(
            "idle CPU",
            f"{CROWD:,} connections at {sitting.scale.heartbeat_s} s, from {sitting.scale.crowd:,}",
            "chatd",
            "cores",
            [cores],
            f"{theirs / pings * 1e6:.0f} µs a ping and its pong; a node alone: {alone:.3f} cores",
            Reach(f"≤ {REACH_CORES} cores", cores <= REACH_CORES) if sitting.scale.heartbeat_s == REACH_AT_S else None,
        )
    )
