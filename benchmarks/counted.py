"""`python -m benchmarks.counted`: what chatd does in instructions, which no neighbour on the machine changes.

Time differs by a fifth from one hour to the next on a machine that others use too; what valgrind's callgrind counts
differs by less than a hundredth. So this tells whether a change made something dearer where the benchmarks cannot. It
is not time: what the kernel does in a system call is not counted, nor whether memory is far.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from shutil import which
from statistics import median
from tempfile import TemporaryDirectory

import click

from . import machine, server
from .figures.cost import settle, warm_up
from .load import Load, loading
from .server import Chatd
from .sitting import QUICK, Sitting

HOUSE = Path(__file__).parents[1]
RUNS = 3
SECONDS = 2.0
READERS = 200
# Under valgrind all takes fifty times as long, and nobody is to be taken for dead.
PATIENT = """
[cluster]
lease = "600s"
renew = "200s"
"""


class Counted:
    """A chatd whose instructions are counted."""

    def __init__(self, chatd: Chatd, directory: Path, dumps: Path) -> None:
        self.chatd = chatd
        self.directory = directory
        self._dumps = dumps

    def begin(self) -> None:
        self._control("-i", "on")

    def since_last(self) -> int:
        """Instructions since this was asked last, or since it began."""
        before = set(self._dumps.iterdir())
        self._control("--dump")
        return sum(total(dump.read_text()) for dump in set(self._dumps.iterdir()) - before)

    def _control(self, *what: str) -> None:
        subprocess.run(["callgrind_control", *what, str(self.chatd.node.pid)], check=True, capture_output=True)


def total(dump: str) -> int:
    """Of one of callgrind's dumps, all instructions.

    Raises:
        ValueError: it says nothing of that.
    """
    found = re.search(r"^(?:totals|summary): (\d+)", dump, re.MULTILINE)
    if found is None:
        raise ValueError(f"expected a line `totals: N` in callgrind's dump, got {dump[:200]!r}")
    return int(found[1])


# --- what is counted --------------------------------------------------------------------------------------------------


def a_message(counted: Counted, load: Load) -> float:
    settle(load, 2 * 64, counted.chatd.setup(counted.directory, 2 * 64), rooms=64, streams=64, depth=1)
    return _by_run(counted, load, 64, lambda answer: answer.messages)


def a_delivery(counted: Counted, load: Load) -> float:
    settle(load, READERS, counted.chatd.setup(counted.directory, READERS), rooms=1, streams=1, depth=1)
    return _by_run(counted, load, 1, lambda answer: answer.delivered)


def an_arrival(counted: Counted, load: Load) -> float:
    settle(load, 20, counted.chatd.setup(counted.directory, 20))
    found = []
    counted.begin()
    for _ in range(RUNS):
        load.ask("close")
        counted.chatd.node.until_quiet()
        counted.since_last()
        settle(load, READERS, counted.chatd.setup(counted.directory, READERS), rooms=1)
        counted.chatd.node.until_quiet()
        found.append(counted.since_last() / READERS)
    return median(found)


def _by_run(counted: Counted, load: Load, window: int, units: Callable[..., int]) -> float:
    warm_up(load, window)
    counted.begin()
    found = []
    for _ in range(RUNS):
        answer, _, after = load.run(counted.since_last, seconds=SECONDS, window=window)
        found.append(after / units(answer))
    return median(found)


FIGURES: Mapping[str, Callable[[Counted, Load], float]] = {
    "a message, 64 rooms of two": a_message,
    f"a delivery, one room of {READERS}": a_delivery,
    f"an arrival, {READERS} at once": an_arrival,
}


@contextmanager
def counting(house: Path) -> Iterator[tuple[Counted, Load]]:
    """The chatd of a checkout under callgrind, and a load for it."""
    sitting = Sitting(QUICK, ())
    with TemporaryDirectory(prefix="chatd-counted-") as dumps:
        under = ["valgrind", "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={dumps}/out"]
        settings = {"heartbeat_s": 600, "extra": PATIENT, "under": under, "house": house}
        with server.chatd(sitting, **settings) as (chatd, directory), loading(sitting.load_core) as load:  # type: ignore[arg-type]
            yield Counted(chatd, directory, Path(dumps)), load


@click.command()
@click.option(
    "--against", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Another checkout of chatd."
)
def main(against: Path | None) -> None:
    """Count chatd's instructions, and those of another checkout beside them; wants valgrind."""
    if which("callgrind_control") is None:
        raise click.ClickException("expected valgrind to be installed, found none; it brings callgrind_control")
    machine.allow_open_files()
    for name, figure in FIGURES.items():
        counts = []
        for house in (HOUSE, against):
            if house is not None:
                with counting(house.resolve()) as (counted, load):
                    counts.append(figure(counted, load))
        beside = f"  {counts[0] / counts[1]:.3f} × {counts[1]:,.0f} there" if len(counts) > 1 else ""
        print(f"{name}: {counts[0]:,.0f} instructions{beside}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
