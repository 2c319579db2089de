"""Latency: publish to delivery, at a tenth, half and four fifths of saturation, beside the floor at the same load.

Saturation is the most that is delivered: with so much under way that messages share writes. The core is full long
before it, for a message that shares with none costs far more; so there is a load as well at which the core is half
full: half of what is delivered with one message under way in each room.

Rooms of two, where it costs most to publish, and rooms of 91, where it costs most to deliver; an odd number of rooms,
so that with two nodes each is on both. Messages leave on time whatever became of the ones before, and count from when
they were due: a server that stalls does not slow its own clock. The load has a core to itself but for the store, and
does not sleep, or each delivery would pay for waking it; two nodes share the server's. The floor has the same rooms and
the same core, joins what waits for a room, and takes turns with chatd: what it needs, the machine takes by itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median

from benchmarks import server
from benchmarks.figures.cost import settle, warm_up
from benchmarks.load import Answer, Load, loading
from benchmarks.sitting import Reach, Row, Series, Sitting

FIGURE = "latency"
SHARES = (0.1, 0.5, 0.8)
REACH_P99_MS = 10.0
# Messages under way in each room where the most is delivered.
DEEP = 4
# Who takes turns at publishing in a room.
PUBLISHERS = 16


@dataclass(frozen=True, slots=True)
class Rooms:
    """`count` rooms, of `size` readers each."""

    count: int
    size: int

    def __str__(self) -> str:
        return f"rooms of {self.size}"

    @property
    def readers(self) -> int:
        return self.count * self.size

    def open(self, load: Load, setup: dict[str, object]) -> None:
        settle(load, self.readers, setup, rooms=self.count, streams=self.count * PUBLISHERS)
        warm_up(load, DEEP * self.count)


ROOMS = (Rooms(65, 2), Rooms(11, 91))


def measure(sitting: Sitting) -> None:
    for rooms in ROOMS:
        with server.floor(sitting, joins=True) as floor, loading(sitting.load_core) as load:
            rooms.open(load, floor.setup)
            lines: dict[str, list[tuple[float, float]]] = {}
            for nodes in (1, 2):
                _measure_nodes(sitting, rooms, nodes, load, lines)
        sitting.plots.append(Series(f"Latency by load, {rooms}", "% of saturation", "ms", lines))


def _measure_nodes(
    sitting: Sitting, rooms: Rooms, nodes: int, floor: Load, lines: dict[str, list[tuple[float, float]]]
) -> None:
    cores = [sitting.server_core]
    with server.chatd(sitting, nodes=nodes, cores=cores) as (chatd, directory), loading(sitting.load_core) as load:
        rooms.open(load, chatd.setup(directory, rooms.readers))
        case = f"{nodes} node{'s' * (nodes > 1)}, {rooms}"
        full = _delivers(sitting, load, rooms.count)
        _note(sitting, f"{case}, core half full: {full / 2:,.0f} messages/s", _runs(sitting, full / 2, floor, load))
        most = _delivers(sitting, load, DEEP * rooms.count)
        for share in SHARES:
            runs = _runs(sitting, share * most, floor, load)
            ours = _note(sitting, f"{case}, {share:.0%} of {most:,.0f} messages/s", runs, reaches=share == 0.5)
            for name, value in ours.items():
                lines.setdefault(f"{name}, {nodes} node{'s' * (nodes > 1)}", []).append((share * 100, value))


def _delivers(sitting: Sitting, load: Load, window: int) -> float:
    """Messages a second when so many are always under way."""
    answer = load.run(seconds=2 * sitting.scale.seconds, window=window, spin=1)[0]
    return answer.messages / answer.seconds


def _runs(sitting: Sitting, rate: float, *loads: Load) -> list[list[Answer]]:
    """What each load counted, run by run, at so many messages a second; they take turns."""
    seconds = sitting.scale.seconds
    rounds = [
        [load.run(seconds=seconds, rate=rate, spin=1)[0] for load in loads] for _ in range(sitting.scale.runs)
    ]  # fmt: skip
    return [list(answers) for answers in zip(*rounds, strict=True)]


def _percentiles(answers: list[Answer]) -> dict[str, float]:
    """Medians of the runs, in milliseconds."""
    return {
        "p50": median(answer.p50_ms for answer in answers),
        "p99": median(answer.p99_ms for answer in answers),
        "p99.9": median(answer.p999_ms for answer in answers),
    }


def _note(sitting: Sitting, case: str, runs: list[list[Answer]], *, reaches: bool = True) -> dict[str, float]:
    """Note what came of chatd's runs beside the floor's; returns chatd's percentiles."""
    floor, ours = map(_percentiles, runs)
    beside = f"p50 {ours['p50']:.2g}, p99.9 {ours['p99.9']:.2g}; floor: p50 {floor['p50']:.2g}, p99 {floor['p99']:.2g}"
    reach = Reach(f"< {REACH_P99_MS:g} ms", ours["p99"] < REACH_P99_MS) if reaches else None
    sitting.note(Row(FIGURE, f"{case}, p99", "chatd", "ms", [answer.p99_ms for answer in runs[1]], beside, reach))
    return ours
