"""Storm: everybody arrives at once, with a token never seen, and subscribes to a room with messages to recover.

What counts is how many a CPU second of the node lets in, until all is written down in the store; and how long a message
in another room takes meanwhile.
"""

from __future__ import annotations

from pathlib import Path
from statistics import median

from benchmarks import server
from benchmarks.figures.cost import settle
from benchmarks.load import Faulty, Load, loading
from benchmarks.server import Chatd
from benchmarks.sitting import Reach, Row, Sitting

FIGURE = "storm"
REACH_PER_CPU_S, REACH_P99_MS = 2_000, 250
ROOMS, SAID, MISSED = 40, 30, 10


def measure(sitting: Sitting) -> None:
    rates, latencies = [], []
    with server.chatd(sitting) as (chatd, directory), loading(sitting.load_core) as others:
        settle(others, 20, chatd.setup(directory, 20))
        prefix = _prepare(sitting, chatd, directory)
        others.run(seconds=1, rate=50)
        seconds = 0.0
        for _ in range(sitting.scale.runs):
            with loading(sitting.load_core) as load:
                wish = chatd.setup(directory, sitting.scale.storm) | {"prefix": prefix}
                rate, seconds, p99 = _storm(sitting, chatd, load, others, wish, seconds)
                rates.append(rate)
                latencies.append(p99)
            chatd.node.until_quiet()
    _note(sitting, rates, latencies)


def _prepare(sitting: Sitting, chatd: Chatd, directory: Path) -> str:
    """Have messages said in the rooms; returns what their names begin with."""
    with loading(sitting.load_core) as load:
        setup = chatd.setup(directory, ROOMS)
        settle(load, ROOMS, setup, rooms=ROOMS, streams=ROOMS, depth=1)
        while load.run(seconds=0.01, window=ROOMS)[0].offset < SAID:
            pass
        return str(setup["prefix"])


def _storm(
    sitting: Sitting, chatd: Chatd, load: Load, others: Load, wish: dict[str, object], seconds: float
) -> tuple[float, float, float]:
    """Let one storm come; returns arrivals a CPU second, how long it took, and the others' p99 in milliseconds.

    Args:
        seconds: how long the last one took; 0: it is the first.
    """
    count = sitting.scale.storm
    top = _top(sitting, chatd, wish)
    load.ask("setup", **wish, count=count, rooms=ROOMS, recover=top - MISSED)
    before = chatd.node.cpu_s()
    others.begin(seconds=max(1.0, 0.8 * seconds), rate=50)
    answer = load.open(at_once=count)
    if answer.recovered != count:
        raise Faulty(f"{answer.recovered} of {count} recovered what they had missed")
    heard = others.hear().or_faulty()
    chatd.node.until_quiet()
    return count / (chatd.node.cpu_s() - before), answer.seconds, heard.p99_ms


def _top(sitting: Sitting, chatd: Chatd, wish: dict[str, object]) -> int:
    """The least offset that any of the rooms has reached: rooms stand a message apart at most."""
    with loading(sitting.load_core) as load:
        settle(load, 1, wish, rooms=ROOMS, each=1)
        return load.ask("where").offset


def _note(sitting: Sitting, rates: list[float], latencies: list[float]) -> None:
    case = f"{sitting.scale.storm:,} at once, {MISSED} messages to recover"
    met = median(rates) >= REACH_PER_CPU_S
    sitting.note(Row(FIGURE, case, "chatd", "arrivals a CPU second", rates, reach=Reach(f"≥ {REACH_PER_CPU_S:,}", met)))
    met = median(latencies) < REACH_P99_MS
    sitting.note(
        Row(FIGURE, "another room's p99 meanwhile", "chatd", "ms", latencies, reach=Reach(f"< {REACH_P99_MS} ms", met))
    )
