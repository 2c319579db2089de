"""Growth: that costs are linear in deliveries and flat in everything else.

CPU per delivery with 100, 1,000 and 10,000 readers of one room; memory of a connection, and CPU of its arrival, by how
many there are; CPU per message with as many idle connections beside, with 1, 100 and 10,000 rooms of two, and with a
million messages in the store. Each beside the smallest of its kind.
"""

from __future__ import annotations

import asyncio
from statistics import median

from redis.asyncio import Redis

from benchmarks import server
from benchmarks.figures import publish
from benchmarks.figures.cost import per_delivery, settle
from benchmarks.load import loading
from benchmarks.sitting import Reach, Row, Series, Sitting

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
    arrivals = {n: _arrival(sitting, n) for n in crowds}
    # Less than a thousand connections are few beside the pages that the allocator takes at a time.
    memory = {n: kb for n, (kb, _, _) in arrivals.items() if n >= STEADY}
    _note(sitting, "connections", "memory of a connection", "KB", memory)
    _note(sitting, "connections", "CPU of an arrival", "µs", {n: cpu for n, (_, cpu, _) in arrivals.items()})
    beside = {n: cpu for n, (_, _, cpu) in arrivals.items()}
    _note(sitting, "idle connections beside", "CPU per message, 100 rooms of two", "µs", beside)
    by_rooms = {n: _publish(sitting, n) for n in ROOMS if n <= sitting.scale.rooms}
    # In one room, what is under way travels together: what must be flat is from many rooms to very many.
    _note(sitting, "rooms of two", "CPU per message", "µs", by_rooms, against=100)
    by_stored = {0: by_rooms[100], sitting.scale.stored: _publish(sitting, 100, stored=sitting.scale.stored)}
    _note(sitting, "messages stored before", "CPU per message, 100 rooms of two", "µs", by_stored)


def _delivery(sitting: Sitting, readers: int) -> float:
    with server.chatd(sitting) as (chatd, directory), loading(sitting.load_core) as load:
        settle(load, readers, chatd.setup(directory, readers))
        return median(per_delivery(sitting, load, chatd.node.cpu_s, window=1, runs=3))


def _arrival(sitting: Sitting, crowd: int) -> tuple[float, float, float]:
    """KB that a connection adds, µs of CPU that its arrival takes, and µs of CPU per message with `crowd` beside."""
    with server.chatd(sitting) as (chatd, directory), loading(sitting.load_core) as load:
        memory, cpu = chatd.node.rss_bytes(), chatd.node.cpu_s()
        settle(load, crowd, chatd.setup(directory, crowd), rooms=crowd // 2)
        chatd.node.until_quiet()
        memory, cpu = chatd.node.rss_bytes() - memory, chatd.node.cpu_s() - cpu
        node, _ = publish.costs(sitting, chatd, directory, rooms=100)
        return memory / crowd / 1024, cpu / crowd * 1e6, median(node)


def _publish(sitting: Sitting, rooms: int, stored: int = 0) -> float:
    with server.chatd(sitting) as (chatd, directory):
        if stored:
            asyncio.run(_fill(chatd.url, stored))
        node, _ = publish.costs(sitting, chatd, directory, rooms=rooms, each=max(1, rooms // 100))
        return median(node)


async def _fill(url: str, messages: int) -> None:
    body = b'{"data":{"text":"%b"},"info":{"user":"u","client":"c"},"offset":1,"time":1700000000000}' % (b"x" * 120)
    async with Redis.from_url(url, socket_timeout=60) as redis:
        await redis.eval(FILL, 1, "stored:", STORED_ROOMS, messages // STORED_ROOMS, body)


def _note(sitting: Sitting, of: str, what: str, unit: str, by: dict[int, float], against: int | None = None) -> None:
    """A row for each of `by`; the last should be as flat to that of `against`, or to the first, as FLAT says."""
    base = by[min(by) if against is None else against]
    for n, value in by.items():
        beside = f"{value / base:.2f} × that of {min(by) if against is None else against:,}"
        row = Row(FIGURE, f"{what}: {n:,} {of}", "chatd", unit, [value], beside)
        if n == max(by):
            row.reach = Reach(f"flat: ≤ {FLAT} ×", value <= FLAT * base)
        sitting.note(row)
    sitting.plots.append(Series(f"{what} by {of}", of, unit, {what: [(max(n, 1), value) for n, value in by.items()]}))
