"""Idle: memory and CPU of connections that only live. Each logged in with a token of its own; one room, presence on.

Memory and CPU are measured over heartbeats of 25 s, from the second one on; that memory does not grow, over many short
ones on a second node at the same time, which costs the first nothing: CPU time is counted for each process. So is that
of the floor, which pings as many in the same 25 s.
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
from benchmarks.sitting import Reach, Row, Sitting, ratio

SHORT_HEARTBEAT_S = 2
CROWD = 100_000
# Seconds for which a node without anybody is measured, one by one: in its first it may still have to do with its start.
ALONE_S = 2
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
        second = _beat(heartbeat_s, floor, calm)
        brisk.load.hear().or_faulty()
        grown = brisk.taken_bytes() / early
        beats = [second, *(_beat(heartbeat_s, floor, calm) for _ in range(sitting.scale.runs - 1))]
    least, ours = ([both[whose] for both in beats] for whose in (0, 1))
    _note_memory(sitting, [beat.taken_bytes for beat in ours], grown)
    _note_cpu(sitting, least, ours)


@dataclass(frozen=True, slots=True)
class Beat:
    """A heartbeat of a crowd.

    Attributes:
        alone: CPU seconds a second of the server before they came; `theirs`: those it takes more with them.
        ping_us: microseconds of a ping and its pong.
        taken_bytes: by which the server has grown with them.
    """

    alone: float
    theirs: float
    ping_us: float
    taken_bytes: int

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
            return Beat(self.alone, theirs, theirs * seconds / pings * 1e6, self.taken_bytes())

        return hear


def _beat(seconds: int, *crowds: Crowd) -> list[Beat]:
    """A heartbeat of each, at the same time."""
    return [hear() for hear in [crowd.tell_heartbeat(seconds) for crowd in crowds]]


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


def _note_memory(sitting: Sitting, taken: list[int], grown: float) -> None:
    crowd = sitting.scale.crowd
    kb = [each / crowd / 1024 for each in taken]
    case = f"{crowd:,} connections, after 2 to {1 + len(kb)} heartbeats"
    reach = Reach(f"≤ {REACH_KB:g} KB", median(kb) <= REACH_KB)
    sitting.note(Row("idle memory", case, "chatd", "KB a connection", kb, reach=reach))
    case = f"after {sitting.scale.heartbeats} heartbeats, to after 2"
    sitting.note(Row("idle memory", case, "chatd", "×", [grown], reach=Reach("no growth", grown <= GROWTH)))


def _note_cpu(sitting: Sitting, floor: list[Beat], ours: list[Beat]) -> None:
    """The floor's heartbeats and chatd's, one by one."""
    heartbeat_s, cores = sitting.scale.heartbeat_s, [beat.cores(sitting) for beat in ours]
    case = f"{CROWD:,} connections at {heartbeat_s} s, from {sitting.scale.crowd:,}"
    least, pings = [beat.ping_us for beat in floor], [beat.ping_us for beat in ours]
    beside = f"{median(least):.0f} µs a ping and its pong"
    sitting.note(Row("idle CPU", case, "floor", "cores", [beat.cores(sitting) for beat in floor], beside))
    times, alone = ratio(pings, least), ours[0].alone
    beside = f"{median(pings):.0f} µs, {times:.1f} × floor; a node alone: {alone:.3f} cores"
    reach = Reach(f"≤ {REACH_CORES} cores", median(cores) <= REACH_CORES) if heartbeat_s == REACH_AT_S else None
    sitting.note(Row("idle CPU", case, "chatd", "cores", cores, beside, reach))
