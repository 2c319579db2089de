"""Storm: everybody arrives at once, with a token never seen, and subscribes to a room with messages to recover.

What counts is how many a CPU second of the node lets in, until all is written down in the store; and how long a message
in another room takes meanwhile. Of the floor, which takes turns with it, nobody asks more than the handshake.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks import server
from benchmarks.figures.cost import settle
from benchmarks.load import Faulty, Load, loading
from benchmarks.server import Chatd, Server
from benchmarks.sitting import Reach, Row, Sitting, ratio

FIGURE = "storm"
UNIT = "arrivals a CPU second"
REACH_PER_CPU_S, REACH_P99_MS = 2_000, 250
ROOMS, SAID, MISSED = 40, 30, 10
# Those who are there already, in a room where none of the storm's are, and the messages a second that they hear.
OTHERS, RATE = 20, 50


@dataclass(slots=True)
class Target:
    """Where a storm comes.

    Attributes:
        others: those who are there already.
        setup: the load's words for those of the next storm; missed: messages that each of them is to recover.
        seconds: how long the last one took; 0: it is the first.
    """

    server: Server
    others: Load
    setup: Callable[[], dict[str, object]]
    missed: int
    seconds: float = 0.0

    def storm(self, sitting: Sitting) -> tuple[float, float]:
        """Let one come; returns arrivals a CPU second, and the others' p99 in milliseconds."""
        count = sitting.scale.storm
        with loading(sitting.load_core) as load:
            load.ask("setup", **self.setup(), count=count, rooms=ROOMS)
            before = self.server.cpu_s()
            self.others.begin(seconds=max(1.0, 0.8 * self.seconds), rate=RATE)
            answer = load.open(at_once=count)
            if self.missed and answer.recovered != count:
                raise Faulty(f"{answer.recovered} of {count} recovered what they had missed")
            heard = self.others.hear().or_faulty()
            self.server.until_quiet()
            taken = self.server.cpu_s() - before
        self.seconds = answer.seconds
        self.server.until_quiet()
        return count / taken, heard.p99_ms


def measure(sitting: Sitting) -> None:
    with ExitStack() as stack:
        targets = (_floor(sitting, stack), _chatd(sitting, stack))
        turns = [[target.storm(sitting) for target in targets] for _ in range(sitting.scale.runs)]
    floor, ours = ([list(values) for values in zip(*of, strict=True)] for of in zip(*turns, strict=True))
    _note(sitting, floor, ours)


def _floor(sitting: Sitting, stack: ExitStack) -> Target:
    floor, others = stack.enter_context(server.floor(sitting)), stack.enter_context(loading(sitting.load_core))
    settle(others, OTHERS, floor.setup | {"path": f"/?room={ROOMS}&"})  # the first room named counts
    others.run(seconds=1, rate=RATE)
    return Target(floor, others, lambda: floor.setup, missed=0)


def _chatd(sitting: Sitting, stack: ExitStack) -> Target:
    chatd, directory = stack.enter_context(server.chatd(sitting))
    others = stack.enter_context(loading(sitting.load_core))
    settle(others, OTHERS, chatd.setup(directory, OTHERS))
    prefix = _prepare(sitting, chatd, directory)
    others.run(seconds=1, rate=RATE)

    def setup() -> dict[str, object]:
        wish = chatd.setup(directory, sitting.scale.storm) | {"prefix": prefix}
        return wish | {"recover": _top(sitting, wish) - MISSED}

    return Target(chatd.node, others, setup, MISSED)


def _prepare(sitting: Sitting, chatd: Chatd, directory: Path) -> str:
    """Have messages said in the rooms; returns what their names begin with."""
    with loading(sitting.load_core) as load:
        setup = chatd.setup(directory, ROOMS)
        settle(load, ROOMS, setup, rooms=ROOMS, streams=ROOMS, depth=1)
        while load.run(seconds=0.01, window=ROOMS)[0].offset < SAID:
            pass
        return str(setup["prefix"])


def _top(sitting: Sitting, wish: dict[str, object]) -> int:
    """The least offset that any of the rooms has reached: rooms stand a message apart at most."""
    with loading(sitting.load_core) as load:
        settle(load, 1, wish, rooms=ROOMS, each=1)
        return load.ask("where").offset


def _note(sitting: Sitting, floor: list[list[float]], ours: list[list[float]]) -> None:
    """Arrivals a CPU second and the others' p99, run by run, of each."""
    case, (rates, p99s) = f"{sitting.scale.storm:,} at once", ours
    sitting.note(Row(FIGURE, f"{case}, nothing asked", "floor", UNIT, floor[0]))
    met = Reach(f"≥ {REACH_PER_CPU_S:,}", median(rates) >= REACH_PER_CPU_S)
    beside = f"{ratio(rates, floor[0]):.2f} × floor"
    sitting.note(Row(FIGURE, f"{case}, {MISSED} messages to recover", "chatd", UNIT, rates, beside, met))
    met = Reach(f"< {REACH_P99_MS} ms", median(p99s) < REACH_P99_MS)
    sitting.note(Row(FIGURE, "another room's p99 meanwhile", "floor", "ms", floor[1]))
    sitting.note(Row(FIGURE, "another room's p99 meanwhile", "chatd", "ms", p99s, reach=met))
