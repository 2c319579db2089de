"""CPU per delivery: what several figures measure, of chatd, of the floor and of peers alike."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from benchmarks.load import Load
from benchmarks.server import Server
from benchmarks.sitting import Sitting

# What a server has to do for the first time (an import, a cache, a JIT) is done before it counts.
WARM_UP_S = 0.3


def settle(load: Load, readers: int, setup: dict[str, object], **more: object) -> None:
    """Connect `readers` clients and wait until all are in."""
    load.ask("setup", count=readers, **(setup | more))
    load.open(at_once=256)


def warm_up(load: Load, window: int) -> None:
    load.run(seconds=WARM_UP_S, window=window, spin=1)


def per_delivery(sitting: Sitting, load: Load, cpu_s: Callable[[], float], window: int) -> list[float]:
    """Microseconds of CPU for each delivery, one number a run; the streams are as they were set up."""
    warm_up(load, window)
    return [_one(load, cpu_s, window, sitting.scale.seconds) for _ in range(sitting.scale.runs)]


def per_delivery_in_turns(sitting: Sitting, *these: tuple[Load, Callable[[], float], int]) -> list[list[float]]:
    """As `per_delivery`, of several that take turns, run by run; each a load, its server's CPU and a window."""
    for load, _, window in these:
        warm_up(load, window)
    return sitting.in_turns(*(partial(_one, *each) for each in these))


def _one(load: Load, cpu_s: Callable[[], float], window: int, seconds: float) -> float:
    answer, before, after = load.run(cpu_s, seconds=seconds, window=window, spin=1)
    return (after - before) / answer.delivered * 1e6


def bytes_per_connection(server: Server, load: Load, readers: int, setup: dict[str, object]) -> float:
    """Connect `readers` clients; returns what each added to the server's resident memory."""
    before = server.rss_bytes()
    settle(load, readers, setup)
    server.until_quiet()
    return (server.rss_bytes() - before) / readers
