"""Fan-out: server CPU per delivery, one room, one message of 120 bytes at a time.

chatd goes its real way: publish through the JSON door, the store with history, the feed. The floor and the peers only
pass on. What a connection takes of memory is noted on the way, for the peers' sake.
"""

from __future__ import annotations

from statistics import median

from benchmarks import server
from benchmarks.figures.cost import bytes_per_connection, per_delivery
from benchmarks.load import Faulty, loading
from benchmarks.peers import PEERS, Missing, Peer
from benchmarks.server import Server
from benchmarks.sitting import Reach, Row, Sitting

FIGURE = "fan-out"
UNIT = "µs a delivery"
REACH_OF_FLOOR = 1.30
# A peer that needs this many microseconds for one delivery is not also measured with ten times the readers.
TOO_SLOW_US = 50.0


def measure(sitting: Sitting) -> None:
    costs: dict[int, dict[str, float]] = {}
    for readers in sitting.scale.readers:
        costs[readers] = {}
        with server.floor(sitting) as one:
            _measure(sitting, one, one.setup, "floor", readers, costs[readers])
        for peer in _peers(sitting):
            _measure_peer(sitting, peer, readers, costs)
        with server.chatd(sitting) as (chatd, directory):
            _measure(sitting, chatd.node, chatd.setup(directory, readers), "chatd", readers, costs[readers])


def _peers(sitting: Sitting) -> list[Peer]:
    wanted = [peer for peer in PEERS if sitting.peers is None or peer.name in sitting.peers]
    for peer in wanted:
        try:
            sitting.versions[peer.name] = peer.install()
        except Missing as why:
            sitting.missing[peer.name] = str(why)
    return [peer for peer in wanted if peer.name not in sitting.missing]


def _measure_peer(sitting: Sitting, peer: Peer, readers: int, costs: dict[int, dict[str, float]]) -> None:
    before = [of[peer.name] for of in costs.values() if peer.name in of]
    if before and max(before) > TOO_SLOW_US:
        why = f"left out: {before[0]:.0f} µs a delivery with fewer readers already"
        sitting.note(Row(FIGURE, _case(readers), peer.name, UNIT, [], reason=why))
        return
    try:
        with server.peer(sitting, peer) as one:
            _measure(sitting, one, one.setup, peer.name, readers, costs[readers])
    except Faulty as why:
        row = Row(FIGURE, _case(readers), peer.name, UNIT, [], reason=f"did not deliver everything: {why}"[:200])
        sitting.note(row)


def _measure(
    sitting: Sitting, one: Server, setup: dict[str, object], who: str, readers: int, costs: dict[str, float]
) -> None:
    with loading(sitting.load_core) as load:
        memory = bytes_per_connection(one, load, readers, setup)
        runs = sitting.scale.runs if readers == sitting.scale.readers[0] else max(3, sitting.scale.runs // 2)
        values = per_delivery(sitting, load, one.cpu_s, window=1, runs=min(runs, sitting.scale.runs))
    others = {name: cost for name, cost in costs.items() if name != "floor"}
    cost = costs[who] = median(values)
    row = Row(FIGURE, _case(readers), who, UNIT, values)
    if who != "floor":
        row.beside = f"{cost / costs['floor']:.2f} × floor"
    if who == "chatd":
        row.reach = _reach(cost, costs["floor"], others, first=readers == sitting.scale.readers[0])
    sitting.note(row)
    if who != "floor":
        sitting.note(Row("idle memory", f"{_case(readers)}, just connected", who, "KB a connection", [memory / 1024]))


def _reach(cost: float, floor: float, peers: dict[str, float], *, first: bool) -> Reach:
    below = all(cost < other for other in peers.values())
    if not first:
        return Reach("below every peer", below)
    return Reach(f"≤ {REACH_OF_FLOOR:.2f} × floor, below every peer", below and cost <= REACH_OF_FLOOR * floor)


def _case(readers: int) -> str:
    return f"{readers:,} readers"
