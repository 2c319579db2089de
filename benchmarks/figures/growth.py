"""Growth: that costs are linear in deliveries and flat in everything else.

CPU per delivery with 100, 1,000 and 10,000 readers of one room; memory of a connection, and CPU of its arrival, by how
many there are; CPU per message with as many idle connections beside, with 1, 100 and 10,000 rooms of two, and with a
million messages in the store. Each beside the smallest of its kind; messages of the same kind take turns, run by run.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from statistics import median

from redis.asyncio import Redis

from benchmarks import server
from benchmarks.figures import publish
from benchmarks.figures.cost import per_delivery, settle
from benchmarks.load import loading
from benchmarks.sitting import Reach, Row, Series, Sitting, ratio

FIGURE = "growth"
# So much more than with fewest counts as flat.
FLAT = 1.25
CROWDS = (100, 1_000, 10_000)
ROOMS = (1, 100, 10_000)
STORED_ROOMS = 1_000
# Connections from which on their memory is what counts.
STEADY = 1_000
# An entry as publish.lua writes it, into as many streams as there are rooms.
FILL = """
for room = 1, tonumber(ARGV[1]) do
  local key = KEYS[1] .. room
  for offset = 1, tonumber(ARGV[2]) do
    redis.call('XADD', key, offset .. '-0', 'b', ARGV[3], 't', '1700000000000')
  end
end
return redis.call('DBSIZE')
"""


def measure(sitting: Sitting) -> None:
    crowds = [n for n in CROWDS if n <= sitting.scale.crowd]
    _note(sitting, "readers of one room", "CPU per delivery", "µs", {n: _delivery(sitting, n) for n in crowds})
    _note_arrivals(sitting, crowds)
    by_rooms = _publish(sitting, {n: _Case(n, each=max(1, n // 100)) for n in ROOMS if n <= sitting.scale.rooms})
    # In one room, what is under way travels together: what must be flat is from many rooms to very many.
    _note(sitting, "rooms of two", "CPU per message", "µs", by_rooms, against=100)
    by_stored = _publish(sitting, {n: _Case(100, stored=n) for n in (0, sitting.scale.stored)})
    _note(sitting, "messages stored before", "CPU per message, 100 rooms of two", "µs", by_stored)


def _delivery(sitting: Sitting, readers: int) -> list[float]:
    with server.chatd(sitting) as (chatd, directory), loading(sitting.load_core) as load:
        settle(load, readers, chatd.setup(directory, readers))
        return per_delivery(sitting, load, chatd.node.cpu_s, 1)


def _note_arrivals(sitting: Sitting, crowds: Sequence[int]) -> None:
    """What a connection and its arrival take, and then what a message takes with all of them beside."""
    with ExitStack() as stack:
        arrivals = {n: [_came_and_went(sitting, n) for _ in range(sitting.scale.runs - 1)] for n in crowds}
        staying = {n: _Arrival.of(sitting, stack, n) for n in crowds}
        each = {n: [*arrivals[n], staying[n]] for n in crowds}
        # Less than a thousand connections are few beside the pages that the allocator takes at a time.
        memory = {n: [one.kb for one in ones] for n, ones in each.items() if n >= STEADY}
        cpu = {n: [one.cpu_us for one in ones] for n, ones in each.items()}
        _note(sitting, "connections", "memory of a connection", "KB", memory)
        _note(sitting, "connections", "CPU of an arrival", "µs", cpu)
        beside = _in_turns(sitting, {n: one.publishers for n, one in staying.items()})
        _note(sitting, "idle connections beside", "CPU per message, 100 rooms of two", "µs", beside)


@dataclass(frozen=True, slots=True)
class _Arrival:
    """What the arrival of a crowd took of a node, for each of them; and publishers who came to it later."""

    kb: float
    cpu_us: float
    publishers: publish.Publishers

    @classmethod
    def of(cls, sitting: Sitting, stack: ExitStack, crowd: int) -> _Arrival:
        chatd, directory = stack.enter_context(server.chatd(sitting))
        load = stack.enter_context(loading(sitting.load_core))
        memory, cpu = chatd.node.rss_bytes(), chatd.node.cpu_s()
        settle(load, crowd, chatd.setup(directory, crowd), rooms=crowd // 2)
        chatd.node.until_quiet()
        memory, cpu = chatd.node.rss_bytes() - memory, chatd.node.cpu_s() - cpu
        publishers = stack.enter_context(publish.ready(sitting, chatd, directory, rooms=100))
        return cls(memory / crowd / 1024, cpu / crowd * 1e6, publishers)


def _came_and_went(sitting: Sitting, crowd: int) -> _Arrival:
    """An arrival of which nobody is left, its publishers neither."""
    with ExitStack() as stack:
        return _Arrival.of(sitting, stack, crowd)


@dataclass(frozen=True, slots=True)
class _Case:
    """Publishers in `rooms` rooms of two, each of them in `each`, with so many messages stored before they come."""

    rooms: int
    each: int = 1
    stored: int = 0


def _publish(sitting: Sitting, cases: Mapping[int, _Case]) -> dict[int, list[float]]:
    with ExitStack() as stack:
        return _in_turns(sitting, {n: stack.enter_context(_ready(sitting, case)) for n, case in cases.items()})


@contextmanager
def _ready(sitting: Sitting, case: _Case) -> Iterator[publish.Publishers]:
    with server.chatd(sitting) as (chatd, directory):
        if case.stored:
            asyncio.run(_fill(chatd.url, case.stored))
        with publish.ready(sitting, chatd, directory, rooms=case.rooms, each=case.each) as publishers:
            yield publishers


def _in_turns(sitting: Sitting, these: Mapping[int, publish.Publishers]) -> dict[int, list[float]]:
    """Microseconds of the node for each message."""
    return dict(zip(these, sitting.in_turns(*(each.node_us for each in these.values())), strict=True))


async def _fill(url: str, messages: int) -> None:
    body = b'{"data":{"text":"%b"},"info":{"user":"u","client":"c"},"offset":1,"time":1700000000000}' % (b"x" * 120)
    async with Redis.from_url(url, socket_timeout=60) as redis:
        await redis.eval(FILL, 1, "stored:", STORED_ROOMS, messages // STORED_ROOMS, body)


def _note(
    sitting: Sitting, of: str, what: str, unit: str, by: dict[int, list[float]], against: int | None = None
) -> None:
    """A row for each of `by`; the last should be as flat to that of `against`, or to the first, as FLAT says."""
    base = by[min(by) if against is None else against]
    for n, values in by.items():
        times = ratio(values, base)
        beside = f"{times:.2f} × that of {min(by) if against is None else against:,}"
        row = Row(FIGURE, f"{what}: {n:,} {of}", "chatd", unit, values, beside)
        if n == max(by):
            row.reach = Reach(f"flat: ≤ {FLAT} ×", times <= FLAT)
        sitting.note(row)
    line = [(max(n, 1), median(values)) for n, values in by.items()]
    sitting.plots.append(Series(f"{what} by {of}", of, unit, {what: line}))
