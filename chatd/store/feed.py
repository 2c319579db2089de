"""One subscription per node: what happens in the rooms it reads, in order and without a gap.

A room is watched from its first local reader to its last. Its events go through its Tail; where that finds a gap, where
a connection was remade, and once in a while for safety's sake, history is read and the gap filled before anything newer
is given out. Probes sent to ourselves prove that the subscription is alive, which a quiet connection does not.

Who the readers are, Feed does not know: it gives out Deliveries to whoever awaits them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from itertools import count
from typing import Protocol

import structlog

from chatd.model import Delivery, Event, Json, Kind, Lost, Position

from .connect import Servers
from .errors import StoreError, StoreUnavailable
from .keys import Keys
from .line import Line
from .scripts import Batch
from .tail import Tail

log = structlog.get_logger("chatd.store")

# A message that nobody noticed missing, because none came after it, is found within this time (Centrifugo: 40 s).
RECHECK_S = 40.0
# A line that has not heard its own probe for this long is remade; half of it already shows in /readyz.
SILENT_S = 6.0
# One gap is filled in pages of this many messages.
PAGE = 300
# Rooms whose gaps are filled at the same time; their reads share pipelines.
MENDED_AT_ONCE = 256
# Deliveries waiting to be fanned out; beyond this the lines stop reading until the node has caught up.
WAITING = 4096


class ReadHistory(Protocol):
    """How the feed reads a room: (offset, publication) after an offset, oldest first, and the top in the same step."""

    async def __call__(self, room: str, after: int | None, limit: int) -> tuple[list[tuple[int, Json]], Position]: ...


class Watch:
    """A room that is read here: its tail, whether its subscription stands, and who waits for its first position."""

    __slots__ = ("channel", "history", "placed", "readers", "room", "tail")

    def __init__(self, room: str, channel: str, history: bool) -> None:
        self.room = room
        self.channel = channel
        self.history = history
        self.readers = 0
        self.tail = Tail()
        self.placed: asyncio.Future[Position | None] = asyncio.get_running_loop().create_future()


class Feed:
    """See the head of this file.

    Args:
        read: how to read history.
        patience: seconds that `watch` waits for a subscription to stand.
        clock: loop time in seconds.
    """

    def __init__(
        self,
        servers: Servers,
        batch: Batch,
        keys: Keys,
        read: ReadHistory,
        patience: float,
        clock: Callable[[], float],
    ) -> None:
        self._servers = servers
        self._batch = batch
        self._keys = keys
        self._read = read
        self._patience = patience
        self._clock = clock
        self._lines: dict[str, Line] = {}
        self._watched: dict[str, Watch] = {}
        self._by_channel: dict[bytes, Watch] = {}
        self._handlers: dict[bytes, Callable[[bytes], None]] = {}
        self._waiting: list[Delivery] = []
        self._ready = asyncio.Event()
        self._consumed = asyncio.Event()
        self._broken: dict[str, None] = {}
        self._mend = asyncio.Event()
        self._tasks: asyncio.TaskGroup | None = None
        self._probes: dict[str, str] = {}

    # --- what the node asks for ---------------------------------------------------------------------------------------

    async def watch(self, room: str, *, history: bool) -> Position | None:
        """Read `room` from now on, once more for each call.

        Returns:
            How far the room has been given out here: everything later will be. None for a room without history.
        Raises:
            StoreUnavailable: the store does not answer; the room is not watched.
        """
        watch = self._watched.get(room) or self._begin(room, history)
        watch.readers += 1
        try:
            async with asyncio.timeout(self._patience):
                # Others may wait for the same position: cancelling one of them must not cancel it for all.
                await asyncio.shield(watch.placed)
        except TimeoutError:
            self._release(watch)
            raise StoreUnavailable("the store does not confirm the subscription") from None
        except BaseException:
            self._release(watch)
            raise
        return watch.tail.position

    def unwatch(self, room: str) -> None:
        """Take back one `watch`; with the last the subscription ends."""
        if (watch := self._watched.get(room)) is not None:
            self._release(watch)

    def position(self, room: str) -> Position | None:
        """How far `room` has been given out here; None when it is not watched or has no history."""
        watch = self._watched.get(room)
        return watch.tail.position if watch else None

    def listen(self, channel: str, handler: Callable[[bytes], None]) -> None:
        """Call `handler` with every payload on `channel`."""
        self._handlers[channel.encode()] = handler
        self._line(channel).subscribe(channel)

    async def deliveries(self) -> list[Delivery]:
        """Wait for the next events; all that has come since the last call, a room's in order."""
        await self._ready.wait()
        self._ready.clear()
        waiting, self._waiting = self._waiting, []
        self._consumed.set()
        return waiting

    def silent_for(self, now: float) -> float:
        """Seconds since the least lively line last heard our own probe; infinite before the first."""
        if not self._lines:
            return float("inf")
        return max(float("inf") if line.heard_at is None else now - line.heard_at for line in self._lines.values())

    # --- tasks --------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Keep the lines, fill gaps and recheck, until cancelled."""
        try:
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                for line in self._lines.values():
                    tasks.create_task(line.run(), name=f"feed line {line.server}")
                tasks.create_task(self._mend_gaps(), name="feed mender")
                tasks.create_task(self._recheck(), name="feed recheck")
        finally:
            self._tasks = None

    async def probe(self, lease: str) -> None:
        """Send ourselves a word over every line, and remake a line that has been deaf too long.

        Raises:
            StoreUnavailable: the store does not answer, so that a silent line proves nothing.
        """
        for server, line in list(self._lines.items()):
            if server not in self._probes:
                self._probes[server] = self._probe_channel(lease, server)
                self._handlers[self._probes[server].encode()] = lambda _, line=line: self._heard(line)  # type: ignore[misc]
                line.subscribe(self._probes[server])
            await self._batch.command("SPUBLISH", self._probes[server], b"")
            if line.heard_at is not None and self._clock() - line.heard_at > SILENT_S:
                await line.reconnect()

    def _probe_channel(self, lease: str, server: str) -> str:
        """A channel that lies on `server`: of a cluster's slots some belong to each, so trying finds one soon."""
        names = (self._keys.probe(lease, i) for i in count())
        return next(name for name in names if self._servers.server_of(name) == server)

    def _heard(self, line: Line) -> None:
        line.heard_at = self._clock()

    async def _recheck(self) -> None:
        while True:
            rooms = [watch.room for watch in self._watched.values() if watch.history]
            step = max(1, len(rooms) // int(RECHECK_S))
            for start in range(0, len(rooms), step):
                await asyncio.sleep(RECHECK_S * step / len(rooms))
                self._distrust(rooms[start : start + step])
            if not rooms:
                await asyncio.sleep(1.0)

    async def _mend_gaps(self) -> None:
        while True:
            await self._mend.wait()
            rooms = list(self._broken)[:MENDED_AT_ONCE]
            for room in rooms:
                del self._broken[room]
            if not self._broken:
                self._mend.clear()
            await asyncio.gather(*(self._mend_room(self._watched[room]) for room in rooms if room in self._watched))

    async def _mend_room(self, watch: Watch) -> None:
        try:
            position = watch.tail.position
            page, top = await self._read(watch.room, position.offset if position else None, PAGE if position else 0)
        except StoreError as error:
            if not watch.placed.done():
                watch.placed.set_exception(StoreUnavailable(str(error)))
                watch.placed.exception()  # seen: those who waited may all have gone
                self._end(watch)
            else:  # whoever reads on must not miss anything: try again until the store is back
                self._distrust([watch.room])
                await asyncio.sleep(0.1)
            return
        if position is None:
            self._give(watch, watch.tail.place(top))
        else:
            self._give(watch, *watch.tail.fill(page, top))
        if not watch.placed.done():
            watch.placed.set_result(None)
        if watch.tail.behind:
            self._distrust([watch.room])

    # --- rooms and lines ----------------------------------------------------------------------------------------------

    def _begin(self, room: str, history: bool) -> Watch:
        watch = Watch(room, self._keys.feed(room), history)
        self._watched[room] = watch
        self._by_channel[watch.channel.encode()] = watch
        self._line(watch.channel).subscribe(watch.channel)
        return watch

    def _release(self, watch: Watch) -> None:
        watch.readers -= 1
        if watch.readers <= 0:
            self._end(watch)

    def _end(self, watch: Watch) -> None:
        if self._watched.get(watch.room) is watch:
            del self._watched[watch.room]
            del self._by_channel[watch.channel.encode()]
            self._line(watch.channel).unsubscribe(watch.channel)

    def _line(self, channel: str) -> Line:
        server = self._servers.server_of(channel)
        line = self._lines.get(server)
        if line is None:
            line = self._lines[server] = Line(self._servers, server, self)
            if self._tasks is not None:
                self._tasks.create_task(line.run(), name=f"feed line {server}")
        return line

    # --- what lines tell us -------------------------------------------------------------------------------------------

    def arrived(self, messages: list[tuple[bytes, bytes]]) -> Awaitable[None] | None:
        """A line read these; see Listener."""
        by_room: dict[Watch, list[Event]] = {}
        for channel, payload in messages:
            if (watch := self._by_channel.get(channel)) is not None:
                if (event := parse(payload)) is not None:
                    by_room.setdefault(watch, []).append(event)
            elif (handler := self._handlers.get(channel)) is not None:
                handler(payload)
        for watch, events in by_room.items():
            self._give(watch, watch.tail.take(events))
            if watch.tail.behind:
                self._distrust([watch.room])
        return self._room_to_wait() if len(self._waiting) > WAITING else None

    def in_force(self, channel: bytes) -> None:
        """A subscription stands; see Listener. What was said before is in history: read it."""
        watch = self._by_channel.get(channel)
        if watch is None:
            return
        if watch.history:
            self._distrust([watch.room])
        elif not watch.placed.done():
            watch.tail.behind = False
            watch.placed.set_result(None)

    def moved(self, line: Line) -> None:
        """Some of `line`'s channels lie elsewhere now; see Listener."""
        assert self._tasks is not None, "lines speak only while the feed runs"
        self._tasks.create_task(self._reroute(line), name=f"feed reroute {line.server}")

    async def _reroute(self, line: Line) -> None:
        try:
            await self._servers.look_again()
        except Exception as error:  # whatever the cluster's discovery raises: the line's own retries go on
            log.warning("cluster topology not learnt", error=str(error))
            return
        for channel in [c for c in line.channels if self._servers.server_of(c) != line.server]:
            line.unsubscribe(channel)
            if channel not in self._probes.values():
                self._line(channel).subscribe(channel)

    async def _room_to_wait(self) -> None:
        while len(self._waiting) > WAITING:
            self._consumed.clear()
            await self._consumed.wait()

    def _give(self, watch: Watch, events: list[Event], lost: Lost | None = None) -> None:
        if events or lost:
            self._waiting.append(Delivery(watch.room, tuple(events), lost))
            self._ready.set()

    def _distrust(self, rooms: list[str]) -> None:
        self._broken.update(dict.fromkeys(rooms))
        if self._broken:
            self._mend.set()


def parse(payload: bytes) -> Event | None:
    """One message of a room's channel as publish.lua, join.lua and leave.lua send it; None if it is not of theirs."""
    header, newline, body = payload.partition(b"\n")
    kind, *place = header.decode("utf-8", "replace").split(" ")
    if not newline or kind not in _KINDS or (place and not (len(place) == 2 and place[0].isdecimal())):
        log.warning("not understood on the feed, dropped", header=header[:64])
        return None
    position = Position(place[1], int(place[0])) if place and place[0] != "0" else None
    return Event(_KINDS[kind], body, position)


_KINDS = {str(kind): kind for kind in Kind}
