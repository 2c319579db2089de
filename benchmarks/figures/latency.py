"""Latency: publish to delivery, at a tenth, half and four fifths of what the nodes can deliver at most.

And at one load that is the same whatever they can deliver at most, which is more the better messages share writes.
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
# A run is long enough for a thousand messages at a tenth of what there is, so that one in a hundred means something.
TIMES_LONGER = 3


def measure(sitting: Sitting) -> None:
    lines: dict[str, list[tuple[float, float]]] = {}
    for nodes, rooms in ROOMS.items():
        with (
            server.chatd(sitting, nodes=nodes, cores=[sitting.server_core]) as (chatd, directory),
            loading(sitting.load_core) as load,
        ):
            settle(load, READERS, chatd.setup(directory, READERS), rooms=rooms, streams=rooms * 16)
            most = _saturation(sitting, load, 4 * rooms)
            for share in SHARES:
                case = f"{share:.0%} of {most:,.0f} messages/s"
                percentiles = _measure(sitting, load, nodes, case, share * most, reaches=share == 0.5)
                for name, value in percentiles.items():
                    lines.setdefault(f"{name}, {nodes} node{'s' * (nodes > 1)}", []).append((share * 100, value))
            _measure(sitting, load, nodes, f"{LOAD:,.0f} messages/s", LOAD)
    sitting.plots.append(Series("Latency by load", "% of saturation", "ms", lines))


def _saturation(sitting: Sitting, load: Load, window: int) -> float:
    """Messages a second when there is always a next one."""
    load.run(seconds=sitting.scale.seconds, window=window, spin=1)
    answer = load.run(seconds=2 * sitting.scale.seconds, window=window, spin=1)[0]
    return answer.messages / answer.seconds


def _measure(
    sitting: Sitting, load: Load, nodes: int, case: str, rate: float, *, reaches: bool = False
) -> dict[str, float]:
    seconds = TIMES_LONGER * sitting.scale.seconds
    answers = [load.run(seconds=seconds, rate=rate, spin=1)[0] for _ in range(max(1, sitting.scale.runs // 2))]
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
