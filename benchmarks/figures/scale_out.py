"""Scale-out: what two nodes deliver in the time in which one delivers one's worth.

2,000 readers in rooms of 200. A node is full when its core is: what counts is deliveries for each CPU second of the
busiest node. Rooms are spread over the nodes, each on one of them; and, as a balancer does it that knows nothing of
rooms, each on both, where both hear and encode every message. Both nodes run on the server's core, where each counts
its own time: on the load's, a node would pay for what the load does to its caches. They have that core for long at a
time, or each would find its caches full of the other's, as it never does on a core of its own. One and two take turns,
run by run.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from benchmarks import machine, server
from benchmarks.figures.cost import settle, warm_up
from benchmarks.load import Load, loading
from benchmarks.server import Chatd
from benchmarks.sitting import Reach, Row, Sitting, ratio

FIGURE = "scale-out"
UNIT = "deliveries a CPU second"
READERS = 2_000
# The load's clients take turns at the nodes and at the rooms: an even number of rooms falls apart between two nodes.
SPREAD, SHARED = 10, 11
REACH = 1.9


def measure(sitting: Sitting) -> None:
    with ExitStack() as stack:
        one = stack.enter_context(_ready(sitting, nodes=1, rooms=SPREAD))
        apart = stack.enter_context(_ready(sitting, nodes=2, rooms=SPREAD))
        both = stack.enter_context(_ready(sitting, nodes=2, rooms=SHARED))
        of_one, *of_two = sitting.in_turns(one.deliveries, apart.deliveries, both.deliveries)
    sitting.note(Row(FIGURE, "1 node", "chatd", UNIT, of_one))
    for case, reaches, found in zip(("on one", "on both"), (True, False), of_two, strict=True):
        times = ratio(found, of_one)
        reach = Reach(f"≥ {REACH} × one node", times >= REACH) if reaches else None
        sitting.note(Row(FIGURE, f"2 nodes, each room {case}", "chatd", UNIT, found, f"{times:.2f} × one node", reach))


@dataclass(frozen=True, slots=True)
class _Readers:
    """Readers who are in, and what they are connected to."""

    chatd: Chatd
    load: Load
    rooms: int

    def deliveries(self, seconds: float) -> float:
        """In a run of so many seconds, for each CPU second of the busiest node."""
        answer, before, after = self.load.run(self.chatd.cpu_s, seconds=seconds, window=self.rooms, spin=1)
        return answer.delivered / max(late - early for early, late in zip(before[1:], after[1:], strict=True))


@contextmanager
def _ready(sitting: Sitting, *, nodes: int, rooms: int) -> Iterator[_Readers]:
    cores = [sitting.server_core]
    with server.chatd(sitting, nodes=nodes, cores=cores) as (chatd, directory), loading(sitting.load_core) as load:
        for node in chatd.nodes:
            machine.take_long_turns(node.pid)
        settle(load, READERS, chatd.setup(directory, READERS), rooms=rooms, streams=rooms)
        warm_up(load, rooms)
        yield _Readers(chatd, load, rooms)
