"""Scale-out: what two nodes deliver in the time in which one delivers one's worth.

2,000 readers in rooms of 200. A node is full when its core is: what counts is deliveries for each CPU second of the
busiest node. Rooms are spread over the nodes, each on one of them; and, as a balancer does it that knows nothing of
rooms, each on both, where both hear and encode every message. Both nodes run on the server's core, where each counts
its own time: on the load's, a node would pay for what the load does to its caches.
"""

from __future__ import annotations

from statistics import median

from benchmarks import server
from benchmarks.figures.cost import WARM_UP_S, settle
from benchmarks.load import loading
from benchmarks.sitting import Reach, Row, Sitting

FIGURE = "scale-out"
UNIT = "deliveries a CPU second"
READERS = 2_000
# The load's clients take turns at the nodes and at the rooms: an even number of rooms falls apart between two nodes.
SPREAD, SHARED = 10, 11
REACH = 1.9


def measure(sitting: Sitting) -> None:
    one = _deliveries(sitting, nodes=1, rooms=SPREAD)
    sitting.note(Row(FIGURE, "1 node", "chatd", UNIT, one))
    for case, rooms in (("2 nodes, each room on one", SPREAD), ("2 nodes, each room on both", SHARED)):
        two = _deliveries(sitting, nodes=2, rooms=rooms)
        ratio = median(two) / median(one)
        reach = Reach(f"≥ {REACH} × one node", ratio >= REACH) if rooms == SPREAD else None
        sitting.note(Row(FIGURE, case, "chatd", UNIT, two, f"{ratio:.2f} × one node", reach))


def _deliveries(sitting: Sitting, *, nodes: int, rooms: int) -> list[float]:
    cores = [sitting.server_core]
    with server.chatd(sitting, nodes=nodes, cores=cores) as (chatd, directory), loading(sitting.load_core) as load:
        settle(load, READERS, chatd.setup(directory, READERS), rooms=rooms, streams=rooms)
        load.run(seconds=WARM_UP_S, window=rooms)
        found = [load.run(chatd.cpu_s, seconds=sitting.scale.seconds, window=rooms) for _ in range(sitting.scale.runs)]
    return [
        answer.delivered / max(late - early for early, late in zip(before[1:], after[1:], strict=True))
        for answer, before, after in found
    ]
