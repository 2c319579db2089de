"""Latency: publish to delivery, at a tenth, half and four fifths of the rate at which the nodes' core is full.

It is full when in each room one message is always under way, and each so has its writes for itself: that rate counts as
saturation. With more under way messages share writes, and more are delivered in the same time; half of the most that we
deliver so is measured, too: there the core is full, and a message waits while all rooms are written to once. And one
load that is the same whatever we can deliver.

1,000 readers in 10 rooms; with two nodes in 11, so that each room is on both. Messages leave on time whatever became of
the ones before, and count from when they were due: a server that stalls does not slow its own clock. The load has a
core to itself but for the store, and does not sleep, or each delivery would pay for waking it; two nodes share the
server's.
"""

from __future__ import annotations

from statistics import median

from benchmarks import server
from benchmarks.figures.cost import settle
from benchmarks.load import Load, loading
from benchmarks.sitting import Reach, Row, Series, Sitting

FIGURE = "latency"
READERS = 1_000
# By nodes: the load's clients take turns at nodes and at rooms, so that an odd number of rooms is on both of two nodes.
ROOMS = {1: 10, 2: 11}
SHARES = (0.1, 0.5, 0.8)
# Messages a second, to a hundred readers each.
LOAD = 500.0
REACH_P99_MS = 10.0
# Messages under way in each room where the most is delivered.
DEEP = 4
# A run is long enough for some hundred messages, each to a hundred readers, at a tenth of what there is.
TIMES_LONGER = 2


def measure(sitting: Sitting) -> None:
    lines: dict[str, list[tuple[float, float]]] = {}
    for nodes, rooms in ROOMS.items():
        with (
            server.chatd(sitting, nodes=nodes, cores=[sitting.server_core]) as (chatd, directory),
            loading(sitting.load_core) as load,
        ):
            settle(load, READERS, chatd.setup(directory, READERS), rooms=rooms, streams=rooms * 16)
            full = _delivers(sitting, load, rooms)
            for share in SHARES:
                case = f"{share:.0%} of {full:,.0f} messages/s"
                percentiles = _measure(sitting, load, nodes, case, share * full, reaches=share == 0.5)
                for name, value in percentiles.items():
                    lines.setdefault(f"{name}, {nodes} node{'s' * (nodes > 1)}", []).append((share * 100, value))
            _measure(sitting, load, nodes, f"{LOAD:,.0f} messages/s", LOAD)
            most = _delivers(sitting, load, DEEP * rooms)
            _measure(
                sitting, load, nodes, f"half of {most:,.0f} messages/s, with writes shared", most / 2, reaches=True
            )
    sitting.plots.append(Series("Latency by load", "% of saturation", "ms", lines))


def _delivers(sitting: Sitting, load: Load, window: int) -> float:
    """Messages a second when so many are always under way."""
    load.run(seconds=sitting.scale.seconds, window=window, spin=1)
    answer = load.run(seconds=2 * sitting.scale.seconds, window=window, spin=1)[0]
    return answer.messages / answer.seconds


def _measure(
    sitting: Sitting, load: Load, nodes: int, case: str, rate: float, *, reaches: bool = False
) -> dict[str, float]:
    seconds = TIMES_LONGER * sitting.scale.seconds
    answers = [load.run(seconds=seconds, rate=rate, spin=1)[0] for _ in range(sitting.scale.runs)]
    percentiles = {
        "p50": [answer.p50_ms for answer in answers],
        "p99": [answer.p99_ms for answer in answers],
        "p99.9": [answer.p999_ms for answer in answers],
    }
    medians = {}
    for name, values in percentiles.items():
        medians[name] = median(values)
        row = Row(FIGURE, f"{nodes} node{'s' * (nodes > 1)}, {case}, {name}", "chatd", "ms", values)
        if name == "p99" and reaches:
            row.reach = Reach(f"< {REACH_P99_MS:g} ms", medians[name] < REACH_P99_MS)
        sitting.note(row)
    return medians
