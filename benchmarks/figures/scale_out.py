"""Scale-out: what two nodes deliver in the time in which one delivers one's worth.

10 rooms of 200 readers, each room's readers spread over the nodes as a balancer would. A node is full when its core is:
so what counts is deliveries for each CPU second of the busiest node.
"""

from __future__ import annotations

from statistics import median

from benchmarks import server
from benchmarks.figures.cost import WARM_UP_S, settle
from benchmarks.load import loading
from benchmarks.sitting import Reach, Row, Sitting

FIGURE = "scale-out"
READERS, ROOMS = 2_000, 10
REACH = 1.9


def measure(sitting: Sitting) -> None:
    one, two = _deliveries(sitting, 1), _deliveries(sitting, 2)
    sitting.note(Row(FIGURE, "1 node", "chatd", "deliveries a CPU second", one))
    ratio = median(two) / median(one)
    sitting.note(
        Row(
            FIGURE,
            "2 nodes, every room on both",
            "chatd",
            "deliveries a CPU second",
            two,
            f"{ratio:.2f} × one node",
            Reach(f"≥ {REACH} × one node", ratio >= REACH),
        )
    )


def _deliveries(sitting: Sitting, nodes: int) -> list[float]:
    with server.chatd(sitting, nodes=nodes) as (chatd, directory), loading(sitting.load_core) as load:
        settle(load, READERS, chatd.setup(directory, READERS), rooms=ROOMS, streams=ROOMS)
        load.run(seconds=WARM_UP_S, window=ROOMS)
        found = [load.run(chatd.cpu_s, seconds=sitting.scale.seconds, window=ROOMS) for _ in range(sitting.scale.runs)]
    return [
        answer.delivered / max(late - early for early, late in zip(before[1:], after[1:], strict=True))
        for answer, before, after in found
    ]
