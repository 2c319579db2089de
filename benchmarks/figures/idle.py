"""Idle: memory and CPU of connections that only live. Each logged in with a token of its own; one room, presence on.

Memory and CPU are measured over the second heartbeat of 25 s; that memory does not grow, over many short ones on a
second node at the same time, which costs the first nothing: CPU time is counted for each process. So is that of the
floor, which pings as many in the same 25 s.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from statistics import median

from benchmarks import server
from benchmarks.figures.cost import settle
from benchmarks.load import Load, loading
from benchmarks.server import Server
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
        floor = _floor(sitting, stack)
        calm = _crowd(sitting, stack, heartbeat_s)
        brisk = _crowd(sitting, stack, SHORT_HEARTBEAT_S)
        brisk.load.ask("idle", seconds=2.5 * SHORT_HEARTBEAT_S)
        early = brisk.taken_bytes()
        brisk.load.tell("idle", seconds=SHORT_HEARTBEAT_S * (sitting.scale.heartbeats - 2))
        calm.load.ask("idle", seconds=heartbeat_s)
        beats = [crowd.tell_heartbeat(heartbeat_s) for crowd in (floor, calm)]
        least, ours = [hear() for hear in beats]
        brisk.load.hear().or_faulty()
        _note_memory(sitting, calm.taken_bytes(), early, brisk.taken_bytes())
        _note_cpu(sitting, least, ours)


@dataclass(frozen=True, slots=True)
class Beat:
    """A heartbeat of a crowd.

    Attributes:
        alone: CPU seconds a second of the server before they came; `theirs`: those it takes more with them.
        ping_us: microseconds of a ping and its pong.
    """

    alone: float
    theirs: float
    ping_us: float

    def cores(self, sitting: Sitting) -> float:
        """What CROWD would take. What the server costs alone counts once, whatever the crowd."""
        return self.alone + self.theirs * CROWD / sitting.scale.crowd


@dataclass(frozen=True, slots=True)
class Crowd:
    """A server with a crowd on it.

    Attributes:
        alone: CPU seconds a second, and `base`: resident bytes, of the server before they came.
    """

    server: Server
    load: Load
    alone: float
    base: int

    def taken_bytes(self) -> int:
        return self.server.rss_bytes() - self.base

    def tell_heartbeat(self, seconds: int) -> Callable[[], Beat]:
        """Let one begin; what is returned waits for its end."""
        self.load.tell("idle", seconds=seconds)
        before = self.server.cpu_s()

        def hear() -> Beat:
            pings = self.load.hear().or_faulty().pings
            theirs = (self.server.cpu_s() - before) / seconds - self.alone
            return Beat(self.alone, theirs, theirs * seconds / pings * 1e6)

        return hear


def _floor(sitting: Sitting, stack: ExitStack) -> Crowd:
    floor = stack.enter_context(server.floor(sitting, heartbeat_s=sitting.scale.heartbeat_s))
    return _gather(sitting, stack, floor, floor.setup)


def _crowd(sitting: Sitting, stack: ExitStack, heartbeat_s: int) -> Crowd:
    chatd, directory = stack.enter_context(server.chatd(sitting, heartbeat_s=heartbeat_s))
    return _gather(sitting, stack, chatd.node, chatd.setup(directory, sitting.scale.crowd))


def _gather(sitting: Sitting, stack: ExitStack, one: Server, setup: dict[str, object]) -> Crowd:
    load = stack.enter_context(loading(sitting.load_core))
    crowd = Crowd(one, load, median(_of_a_second(one) for _ in range(ALONE_S)), one.rss_bytes())
    settle(load, sitting.scale.crowd, setup)
    return crowd


def _of_a_second(one: Server) -> float:
    before = one.cpu_s()
    time.sleep(1)
    return one.cpu_s() - before


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


def _note_cpu(sitting: Sitting, floor: Beat, ours: Beat) -> None:
    heartbeat_s, cores = sitting.scale.heartbeat_s, ours.cores(sitting)
    case = f"{CROWD:,} connections at {heartbeat_s} s, from {sitting.scale.crowd:,}"
    beside = f"{floor.ping_us:.0f} µs a ping and its pong"
    sitting.note(Row("idle CPU", case, "floor", "cores", [floor.cores(sitting)], beside))
    beside = f"{ours.ping_us:.0f} µs, {ours.ping_us / floor.ping_us:.1f} × floor; a node alone: {ours.alone:.3f} cores"
    reach = Reach(f"≤ {REACH_CORES} cores", cores <= REACH_CORES) if heartbeat_s == REACH_AT_S else None
    sitting.note(Row("idle CPU", case, "chatd", "cores", [cores], beside, reach))
