"""One subscription per node: what happens in the rooms it reads, in order and without a gap.

A room is watched from its first local reader to its last. Its events go through its Tail; where that finds a gap, where
a connection was remade, and once in a while for safety's sake, history is read and the gap filled before anything newer
is given out. Probes sent to ourselves prove that the subscription is alive, which a quiet connection does not.

Who the readers are, Feed does not know: it gives out Deliveries as they come, to whoever set `on_deliveries`.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from time import perf_counter
from typing import Protocol

import structlog

from chatd.batched import batched
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
# A cluster has 16,384 slots: who holds even one in a hundred is found among so many names, in 20 ms at the worst.
PROBE_TRIES = 5000
# One gap is filled in pages of this many messages.
PAGE = 300
# Rooms whose gaps are filled at the same time; their reads share pipelines.
MENDED_AT_ONCE = 256


class ReadHistory(Protocol):
    """How the feed reads a room: (offset, publication) after an offset, oldest first, and the top in the same step."""

    async def __call__(self, room: str, after: int | None, limit: int) -> tuple[list[tuple[int, Json]], Position]: ...


class Watch:
    """A room that is read here: its tail, whether its subscription stands, and who waits for its first position."""

    __slots__ = ("_kept", "_waiting", "channel", "placed", "readers", "room", "tail")

    def __init__(self, room: str, channel: str, history: bool) -> None:
        self.room = room
        self.channel = channel
        self._kept = history
        self.readers = 0
        self.tail = Tail()
        self.tail.behind = history
        self.placed = False
        self._waiting: list[asyncio.Future[None]] | None = None

    @property
    def history(self) -> bool:
        """Whether the room keeps one: by its rules when it was first read here, or by what has come since."""
        return self._kept or self.tail.position is not None

    def until_placed(self) -> asyncio.Future[None]:
        """To be awaited; a future for each who waits, so that who is cancelled is so alone."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting = [] if self._waiting is None else self._waiting
        self._waiting.append(waiter)
        return waiter

    def place(self, failure: StoreUnavailable | None = None) -> None:
        """Tell those who wait that the subscription stands and the position is known, or that neither will be."""
        self.placed = failure is None
        waiting, self._waiting = self._waiting, None
        for waiter in waiting or ():
            if waiter.done():
                continue
            if failure is None:
                waiter.set_result(None)
            else:
                waiter.set_exception(failure)
                waiter.exception()  # seen: who waited may be cancelled before he is told


class Feed:
    """See the head of this file.

    Args:
        read: how to read history.
        patience: seconds that `watch` waits for a subscription to stand.
        clock: loop time in seconds.
    Attributes:
        interruptions: how often a line had to be made anew.
        held: nothing is brought for now; see `hold`.
        on_deliveries: told the next events, all that one read brought, a room's in order. Set it before `run`.
        on_lag: told the seconds that a word to ourselves took through the store and back.
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
        self.interruptions = 0
        self.on_deliveries: Callable[[Sequence[Delivery]], None] = lambda deliveries: None
        self.on_lag: Callable[[float], None] = lambda seconds: None
        self._lines: dict[str, Line] = {}
        self._watched: dict[str, Watch] = {}
        self._by_channel: dict[bytes, Watch] = {}
        self._unplaced: dict[Watch, float] = {}
        self._handlers: dict[bytes, Callable[[bytes], None]] = {}
        self._stands: dict[bytes, Callable[[], None]] = {}
        self.held = False
        self._broken: dict[str, None] = {}
        self._mend = asyncio.Event()
        self._tasks: asyncio.TaskGroup | None = None
        self._over = False
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
        if not watch.placed:
            try:
                await watch.until_placed()
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

    def listen(self, channel: str, handler: Callable[[bytes], None], stands: Callable[[], None] = lambda: None) -> None:
        """Call `handler` with every payload on `channel`, and `stands` each time that its subscription does.

        What was said between one such time and the next may have been missed.
        """
        self._handlers[channel.encode()], self._stands[channel.encode()] = handler, stands
        self._line(channel).subscribe(channel)

    def hold(self, on: bool) -> None:
        """Bring nothing more for now, for want of room to keep it; or go on. Nothing is missed by it."""
        self.held = on
        for line in self._lines.values():
            line.hold(on)

    def silent_for(self, now: float) -> float:
        """Seconds since the least lively line last heard our own probe; infinite before the first."""
        if not self._lines:
            return float("inf")
        return max(float("inf") if line.heard_at is None else now - line.heard_at for line in self._lines.values())

    # --- tasks --------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Keep the lines, fill gaps and recheck, until cancelled; from then on nothing is watched."""
        self._over = False
        try:
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                for line in self._lines.values():
                    tasks.create_task(line.run(), name=f"feed line {line.server}")
                tasks.create_task(self._mend_gaps(), name="feed mender")
                tasks.create_task(self._recheck(), name="feed recheck")
                tasks.create_task(self._lose_patience(), name="feed patience")
        finally:
            self._tasks = None
            self._over = True
            for watch in [each for each in self._unplaced if not each.placed]:
                self._give_up(watch, _left())

    async def probe(self, lease: str) -> None:
        """Send ourselves a word over every line, and remake a line that has been deaf too long.

        Raises:
            StoreUnavailable: the store does not answer, so that a silent line proves nothing.
        """
        await asyncio.gather(*(self._probe(lease, line) for line in self._lines.values()))

    async def _probe(self, lease: str, line: Line) -> None:
        if line.server not in self._probes:
            channel = self._probes[line.server] = self._probe_channel(lease, line.server)
            self._handlers[channel.encode()] = partial(self._heard, line)
            line.subscribe(channel)
        await self._say_probe(self._probes[line.server])
        if line.unheard_since is None:
            line.unheard_since = self._clock()
        elif self._clock() - line.unheard_since > SILENT_S:
            await line.reconnect()

    async def _say_probe(self, channel: str) -> None:
        await self._batch.command("SPUBLISH", channel, perf_counter().hex())

    async def _say_probe_again(self, channel: str) -> None:
        """For a line that has only now begun to listen: what was said before reached nobody."""
        with suppress(StoreError):  # the next one will tell
            await self._say_probe(channel)

    def _probe_channel(self, lease: str, server: str) -> str:
        """A channel that lies on `server`: of a cluster's slots some belong to each, so trying finds one soon."""
        for name in (self._keys.probe(lease, i) for i in range(PROBE_TRIES)):
            if self._servers.server_of(name) == server:
                return name
        raise StoreUnavailable(f"{server} holds no slots of the cluster")

    def _heard(self, line: Line, said_at: bytes) -> None:
        line.heard_at = self._clock()
        line.unheard_since = None
        with suppress(ValueError, OverflowError):  # somebody else's word on our channel
            self.on_lag(max(0.0, perf_counter() - float.fromhex(said_at.decode())))

    async def _lose_patience(self) -> None:
        """Give up the watches that have waited for too long, which is looked at four times meanwhile.

        No timer each: when a whole node's clients come at once, each waits for its user's own channel.
        """
        while True:
            await asyncio.sleep(self._patience / 4)
            now = self._clock()
            for watch, until in list(self._unplaced.items()):
                if not watch.placed:
                    if until > now:
                        break
                    self._give_up(watch, StoreUnavailable("the store does not confirm the subscription"))
                del self._unplaced[watch]

    def _give_up(self, watch: Watch, why: StoreUnavailable) -> None:
        watch.place(why)
        self._end(watch)

    async def _recheck(self) -> None:
        while True:
            rooms = [watch.room for watch in self._watched.values() if watch.history]
            step = max(1, len(rooms) // int(RECHECK_S))
            for some in batched(rooms, step):
                await asyncio.sleep(RECHECK_S * step / len(rooms))
                self._distrust(some)
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
            position, page, top = await self._beyond(watch)
        except StoreError as error:
            if not watch.placed:
                self._give_up(watch, StoreUnavailable(str(error)))
            else:  # whoever reads on must not miss anything: try again until the store is back
                self._distrust([watch.room])
                await asyncio.sleep(0.1)
            return
        if self._watched.get(watch.room) is not watch:  # it ended meanwhile; a new one speaks for itself
            return
        if position is None:
            self._give(delivery(watch, watch.tail.place(top)))
        else:
            self._give(delivery(watch, *watch.tail.fill(position, page, top)))
        if not watch.placed:
            watch.place()
        if watch.tail.behind:
            self._distrust([watch.room])

    async def _beyond(self, watch: Watch) -> tuple[Position | None, list[tuple[int, Json]], Position]:
        """How far a room was given out, and what its history holds beyond.

        After a failover others may have said something under numbers that were given out: then it is less far.
        """
        room, tail, position = watch.room, watch.tail, watch.tail.position
        if position is None:
            return None, *await self._read(room, None, 0)
        page, top = await self._read(room, max(0, position.offset - 1), PAGE)
        if tail.rewind(position, page, top):
            page, top = await self._read(room, max(0, position.offset - PAGE), PAGE)
            assert tail.position is not None, "it was rewound"
            tail.rewind(tail.position, page, top)
            position = tail.position
        return position, [(offset, body) for offset, body in page if offset > position.offset], top

    # --- rooms and lines ----------------------------------------------------------------------------------------------

    def _begin(self, room: str, history: bool) -> Watch:
        if self._over:
            raise _left()
        watch = Watch(room, self._keys.feed(room), history)
        line = self._line(watch.channel)  # first, for there may be none: then the room is not watched
        self._unplaced[watch] = self._clock() + self._patience
        self._watched[room] = watch
        self._by_channel[watch.channel.encode()] = watch
        line.subscribe(watch.channel)
        return watch

    def _release(self, watch: Watch) -> None:
        watch.readers -= 1
        if watch.readers <= 0:
            self._end(watch)

    def _end(self, watch: Watch) -> None:
        if self._watched.get(watch.room) is watch:
            del self._watched[watch.room]
            del self._by_channel[watch.channel.encode()]
            for line in self._lines.values():
                if watch.channel in line.channels:
                    line.unsubscribe(watch.channel)

    def _line(self, channel: str) -> Line:
        server = self._servers.server_of(channel)
        line = self._lines.get(server)
        if line is None:
            line = self._lines[server] = Line(self._servers, server, self)
            if self._tasks is not None:
                self._tasks.create_task(line.run(), name=f"feed line {server}")
        return line

    # --- what lines tell us -------------------------------------------------------------------------------------------

    def arrived(self, messages: list[tuple[bytes, bytes]]) -> None:
        """A line read these; see Listener."""
        by_room: dict[Watch, list[Event]] = {}
        for channel, payload in messages:
            if (watch := self._by_channel.get(channel)) is not None:
                if (event := parse(payload)) is not None:
                    by_room.setdefault(watch, []).append(event)
            elif (handler := self._handlers.get(channel)) is not None:
                handler(payload)
        self._give(*(delivery(watch, watch.tail.take(events)) for watch, events in by_room.items()))
        self._distrust([watch.room for watch in by_room if watch.tail.behind])

    def in_force(self, channel: bytes) -> None:
        """A subscription stands; see Listener. What was said before is in history: read it."""
        watch = self._by_channel.get(channel)
        if watch is None:
            if (stands := self._stands.get(channel)) is not None:
                stands()
            if self._tasks is not None and channel.decode() in self._probes.values():
                self._tasks.create_task(self._say_probe_again(channel.decode()), name="feed probe")
            return
        if watch.history:
            watch.tail.doubt()
            self._distrust([watch.room])
        elif not watch.placed:
            watch.place()

    async def interrupted(self, line: Line) -> bool:
        """Move what lies on another server now to that server's line; see Listener."""
        self.interruptions += 1
        for channel in line.channels:  # history may be asked for, and answer, before the line stands again
            if (watch := self._by_channel.get(channel.encode())) is not None:
                watch.tail.doubt()
        try:
            await self._servers.look_again()
            elsewhere = [channel for channel in line.channels if self._servers.server_of(channel) != line.server]
        except Exception as error:  # whatever the cluster's discovery raises: the line's own retries go on
            log.warning("cluster topology not learnt", error=str(error))
            return True
        for channel in elsewhere:
            line.unsubscribe(channel)
            if channel == self._probes.get(line.server):
                del self._probes[line.server], self._handlers[channel.encode()]
            else:
                self._line(channel).subscribe(channel)
        if line.channels:
            return True
        del self._lines[line.server]
        return False

    def _give(self, *deliveries: Delivery) -> None:
        if worth_telling := [each for each in deliveries if each.events or each.lost]:
            self.on_deliveries(worth_telling)

    def _distrust(self, rooms: Sequence[str]) -> None:
        self._broken.update(dict.fromkeys(rooms))
        if self._broken:
            self._mend.set()


def _left() -> StoreUnavailable:
    return StoreUnavailable("the room is not watched: this process has left the store")


def delivery(watch: Watch, events: Sequence[Event], lost: Lost | None = None) -> Delivery:
    return Delivery(watch.room, tuple(events), lost, perf_counter())


def parse(payload: bytes) -> Event | None:
    """One message of a room's channel as the scripts of this folder send it; None if it is not of theirs."""
    message = _MESSAGE.fullmatch(payload)
    if message is None:
        log.warning("not understood on the feed, dropped", begins=payload[:64])
        return None
    kind, offset, epoch, body = message.groups()
    position = Position(epoch.decode(), int(offset)) if offset and offset != b"0" else None
    return Event(_KINDS[kind], body, position)


_KINDS = {kind.value.encode(): kind for kind in Kind}
# A JSON object follows, on one line: more lines would be more messages at the SDK door.
_MESSAGE = re.compile(rb"([pjls])(?: (\d{1,18}) ([\w-]*))?\n(\{[^\n]*\})")
