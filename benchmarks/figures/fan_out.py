"""Fan-out: server CPU per delivery, one room, one message of 120 bytes at a time.

chatd goes its real way: publish through the JSON door, the store with history, the feed. The floor and the peers only
pass on. Each takes turns with the floor, run by run, and is held against those runs. What a connection takes of memory
is noted on the way, for the peers' sake.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import median

from benchmarks import server
from benchmarks.figures.cost import bytes_per_connection, per_delivery, per_delivery_in_turns, settle
from benchmarks.load import Faulty, Load, loading
from benchmarks.peers import PEERS, Missing, Peer
from benchmarks.server import Server
from benchmarks.sitting import Reach, Row, Sitting, ratio

FIGURE = "fan-out"
UNIT = "µs a delivery"
REACH_OF_FLOOR = 1.30
# A peer that needs this many microseconds for one delivery is not also measured with ten times the readers.
TOO_SLOW_US = 50.0


@dataclass(frozen=True, slots=True)
class Floor:
    """The floor with so many readers, which stays for all to be held against.

    Attributes:
        costs: of all its runs.
        ratios: of all who were held against it, by name.
    """

    server: Server
    load: Load
    readers: int
    costs: list[float]
    ratios: dict[str, float] = field(default_factory=dict)

    @property
    def case(self) -> str:
        return f"{self.readers:,} readers"


def measure(sitting: Sitting) -> None:
    for readers in sitting.scale.readers:
        with server.floor(sitting) as one, loading(sitting.load_core) as load:
            settle(load, readers, one.setup)
            floor = Floor(one, load, readers, per_delivery(sitting, load, one.cpu_s, 1))
            sitting.note(Row(FIGURE, floor.case, "floor", UNIT, floor.costs))
            for peer in _peers(sitting):
                _measure_peer(sitting, floor, peer)
            with server.chatd(sitting) as (chatd, directory):
                _measure(sitting, floor, chatd.node, chatd.setup(directory, readers), "chatd")


def _peers(sitting: Sitting) -> list[Peer]:
    wanted = [peer for peer in PEERS if sitting.peers is None or peer.name in sitting.peers]
    for peer in wanted:
        try:
            sitting.versions[peer.name] = peer.install()
        except Missing as why:
            sitting.missing[peer.name] = str(why)
    return [peer for peer in wanted if peer.name not in sitting.missing]


def _measure_peer(sitting: Sitting, floor: Floor, peer: Peer) -> None:
    before = [median(row.values) for row in sitting.rows if (row.figure, row.who) == (FIGURE, peer.name) and row.values]
    if before and max(before) > TOO_SLOW_US:
        why = f"left out: {before[0]:.0f} µs a delivery with fewer readers already"
        sitting.note(Row(FIGURE, floor.case, peer.name, UNIT, [], reason=why))
        return
    try:
        with server.peer(sitting, peer) as one:
            _measure(sitting, floor, one, one.setup, peer.name)
    except Faulty as why:
        row = Row(FIGURE, floor.case, peer.name, UNIT, [], reason=f"did not deliver everything: {why}"[:200])
        sitting.note(row)


def _measure(sitting: Sitting, floor: Floor, one: Server, setup: dict[str, object], who: str) -> None:
    with loading(sitting.load_core) as load:
        memory = bytes_per_connection(one, load, floor.readers, setup)
        both = ((floor.load, floor.server.cpu_s, 1), (load, one.cpu_s, 1))
        floors, costs = per_delivery_in_turns(sitting, *both)
    floor.costs.extend(floors)
    floor.ratios[who] = ratio(costs, floors)
    row = Row(FIGURE, floor.case, who, UNIT, costs, f"{floor.ratios[who]:.2f} × floor")
    if who == "chatd":
        row.reach = _reach(floor.ratios, first=floor.readers == sitting.scale.readers[0])
    sitting.note(row)
    sitting.note(Row("idle memory", f"{floor.case}, just connected", who, "KB a connection", [memory / 1024]))


def _reach(ratios: dict[str, float], *, first: bool) -> Reach:
    below = min(ratios, key=ratios.__getitem__) == "chatd"
    if not first:
        return Reach("below every peer", below)
    return Reach(f"≤ {REACH_OF_FLOOR:.2f} × floor, below every peer", below and ratios["chatd"] <= REACH_OF_FLOOR)
