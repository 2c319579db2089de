"""One run of the suite: how much of it, on which cores, and what was found."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from . import machine
from .reasons import reason

RESULTS = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is measured.

    Attributes:
        runs: of each case; the median counts.
        seconds: of a run.
        turns: runs of cases that take turns, each of `turn_s` seconds.
        crowd: connections where many are wanted; `readers`: of the fan-out's rooms.
        heartbeat_s: of idle connections; `heartbeats`: short ones, over which their memory is watched.
        stored: messages in the store for the figure of growth.
    """

    runs: int = 5
    seconds: float = 1.0
    turns: int = 15
    turn_s: float = 0.5
    readers: tuple[int, ...] = (1_000, 10_000)
    crowd: int = 10_000
    heartbeat_s: int = 25
    heartbeats: int = 20
    storm: int = 4_000
    stored: int = 1_000_000
    rooms: int = 10_000


FULL = Scale()
QUICK = Scale(
    runs=2,
    seconds=0.25,
    turns=2,
    turn_s=0.2,
    readers=(1_000,),
    crowd=1_000,
    heartbeat_s=2,
    heartbeats=4,
    storm=500,
    stored=50_000,
    rooms=1_000,
)


def ratio(these: Sequence[float], those: Sequence[float]) -> float:
    """The median of what each of `these` is to the one of `those` that was measured in the same turn."""
    return median(this / that for this, that in zip(these, those, strict=True))


@dataclass(frozen=True, slots=True)
class Reach:
    """What a figure should be, in words, and whether it is."""

    text: str
    met: bool


@dataclass(slots=True)
class Row:
    """One line of the table.

    Attributes:
        figure, case, who: what was measured, how, and of whom.
        unit: of `values`, one a run; none: it was not measured, and `reason` says why.
        beside: the same as a ratio to the floor or to what else it is held against.
        reason: why the reach is not met, where it is not.
    """

    figure: str
    case: str
    who: str
    unit: str
    values: list[float]
    beside: str = ""
    reach: Reach | None = None
    reason: str = ""

    @property
    def median(self) -> float | None:
        return median(self.values) if self.values else None


@dataclass(slots=True)
class Series:
    """A line of a plot: (x, y) by name."""

    title: str
    x: str
    y: str
    lines: dict[str, list[tuple[float, float]]]


@dataclass(slots=True)
class Sitting:
    """What all figures share.

    Attributes:
        server_core, load_core: where what is measured runs, and where everything else does.
        missing: peers that could not be had, with the reason.
        versions: of the peers that could.
        laps: what the same work took before each figure, on average and at its fastest, in seconds; see
            `machine.seconds_of_the_same`.
    """

    scale: Scale
    peers: tuple[str, ...] | None = None
    rows: list[Row] = field(default_factory=list)
    plots: list[Series] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    laps: list[tuple[float, float]] = field(default_factory=list)
    begun: float = field(default_factory=time.monotonic)

    @property
    def server_core(self) -> int:
        return machine.cores()[0]

    @property
    def load_core(self) -> int:
        return machine.cores()[-1]

    def in_turns(self, *these: Callable[[float], float]) -> list[list[float]]:
        """What each measures in a run of so many seconds, one number a run.

        They take turns, and short ones: a machine that others use as well is not as fast in one second as in the next.
        So what one is to another is the `ratio` of what they measured in the same turn.
        """
        rounds = [[measure(self.scale.turn_s) for measure in these] for _ in range(self.scale.turns)]
        return [list(values) for values in zip(*rounds, strict=True)]

    def note(self, row: Row) -> Row:
        if row.reach is not None and not row.reach.met:
            row.reason = row.reason or reason(row.figure, row.case, row.who)
        self.rows.append(row)
        verdict = "" if row.reach is None else f"  {'met' if row.reach.met else 'NOT met'}: {row.reach.text}"
        measured = f"{median(row.values):.4g} {row.unit}" if row.values else row.reason
        self.say(f"{row.figure}, {row.case}, {row.who}: {measured} {row.beside}{verdict}")
        return row

    def say(self, text: str) -> None:
        print(f"[{time.monotonic() - self.begun:6.1f} s] {text}", file=sys.stderr, flush=True)

    def facts(self) -> dict[str, str]:
        """The machine, the versions, and how steady the machine was."""
        fastest = min((least for _, least in self.laps), default=1.0)
        times = sorted(mean / fastest for mean, _ in self.laps) or [1.0]
        steady = f"the same code, before each figure, took {times[0]:.2f} to {times[-1]:.2f} × its fastest"
        return machine.facts() | {"steadiness": steady}

    def run(self, name: str, figure: Callable[[Sitting], None]) -> None:
        self.laps.append(machine.seconds_of_the_same(self.server_core, self.scale.turn_s))
        begun = time.monotonic()
        try:
            figure(self)
        except Exception as error:
            # One figure that fails is shown as failed; the others are still worth having.
            self.note(Row(name, "failed", "-", "", [], reach=Reach("runs", False), reason=f"{error}"[:300]))
        self.seconds[name] = time.monotonic() - begun

    def as_json(self) -> dict[str, Any]:
        return {
            "machine": self.facts(),
            "scale": asdict(self.scale),
            "rows": [asdict(row) | {"median": row.median} for row in self.rows],
            "peers": self.versions,
            "missing": self.missing,
            "seconds": self.seconds,
        }
