"""Delivers what stands in the store's outboxes: at least once, and each room's in order.

The marks that lead to outboxes lie in shards. Each node holds a fair share of them, each by a lock that ends by itself;
when a node dies, others take its shards over and go on where it was. Within a shard a room that is not taken now waits
for its next try alone; the others go on.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable
from hashlib import sha256
from math import ceil
from random import uniform
from time import time
from typing import TYPE_CHECKING, Final

import orjson
import structlog

from chatd.model import Position
from chatd.names import dm_members
from chatd.settings import Hooks
from chatd.store.errors import StoreError, StoreFull, StoreUnavailable
from chatd.store.keys import HOOK_SHARDS, hook_shard
from chatd.store.outbox import Entry, Watched
from chatd.store.redis import Store
from chatd.wire.publication import parse

from .signing import HookFailed, signature

if TYPE_CHECKING:
    from .client import Client

log = structlog.get_logger("chatd.hooks")

# How often shards are looked at; what this node itself marks it sees at once.
LOOK_S: Final = 0.25
# What is marked within this time is looked at together.
GATHER_S: Final = 0.01
# Requests under way at once.
AT_ONCE: Final = 32
# Entries read of one outbox at a time.
PAGE: Final = 50
# The first retry, and what it doubles up to.
RETRY_S: Final = (0.25, 300.0)
# Members looked at for one message; a larger room tells nobody.
MEMBERS: Final = 1000


def pause(failures: int) -> float:
    """Seconds until the next try after so many failures; jittered, so that rooms do not come back in step."""
    first, most = RETRY_S
    return min(most, first * 2.0 ** min(failures - 1, 32)) * uniform(0.5, 1.0)


class Retry:
    """A room whose next entry was not taken: how often, and the loop second of the next try."""

    __slots__ = ("due", "failures")

    def __init__(self) -> None:
        self.failures = 0
        self.due = 0.0


class Courier:
    """Delivers for one node.

    Args:
        hooks: the settings as they are now; client: how the application is reached under them.
        lease: under which we hold shards; hold_s: for how long we hold them without a word.
        banned: whether a user may not be in a room.
        results: counts "delivered", "retried" and "dropped".
        clock: loop time in seconds.
    """

    def __init__(
        self,
        store: Store,
        hooks: Callable[[], Hooks],
        client: Callable[[], Client],
        *,
        lease: Callable[[], str],
        hold_s: float,
        banned: Callable[[str, str], bool],
        results: Counter[str],
        clock: Callable[[], float],
    ) -> None:
        self._store = store
        self._hooks = hooks
        self._client = client
        self._lease = lease
        self._hold_s = hold_s
        self._banned = banned
        self._results = results
        self._clock = clock
        self._held: dict[int, float] = {}
        self._retries: dict[str, Retry] = {}
        self._busy: set[str] = set()
        self._turn = asyncio.Semaphore(AT_ONCE)
        self._wake = asyncio.Event()

    # --- the story ----------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Hold shards and deliver, until cancelled."""
        self._store.outbox.on_mark = lambda shard: self._wake.set()
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._keep_shards(), name="hook shards")
                while True:
                    await self._until_something_may_be_due()
                    try:
                        await asyncio.gather(*(self._look_at(shard, tasks) for shard in self._ours()))
                    except StoreError as error:
                        log.warning("outboxes not read", error=str(error))
        finally:
            await self._let_go(list(self._held))

    async def _until_something_may_be_due(self) -> None:
        try:
            async with asyncio.timeout(LOOK_S):
                await self._wake.wait()
                await asyncio.sleep(GATHER_S)
        except TimeoutError:
            pass
        self._wake.clear()

    async def _look_at(self, shard: int, tasks: asyncio.TaskGroup) -> None:
        for message in await self._store.outbox.due(shard, AT_ONCE):
            await self._see_who_has_not_read(message)
        for room, state in (await self._store.outbox.marked(shard)).items():
            retry = self._retries.get(room)
            if room not in self._busy and (retry is None or retry.due <= self._clock()):
                self._busy.add(room)
                tasks.create_task(self._empty(shard, room, state), name="hook room")

    # --- shards -------------------------------------------------------------------------------------------------------

    def _ours(self) -> list[int]:
        """The shards we hold; one whose lock may have ended is not ours any more, whatever we were doing."""
        now = self._clock()
        return [shard for shard, until in self._held.items() if now < until]

    async def _keep_shards(self) -> None:
        while True:
            try:
                await self._take_shards() if self._hooks().url else await self._let_go(list(self._held))
            except StoreError as error:
                log.warning("shards of the outboxes not held", error=str(error))
            await asyncio.sleep(self._hold_s / 3)

    async def _take_shards(self) -> None:
        """Keep what we have up to our share, and take what nobody has until we have it."""
        share = ceil(HOOK_SHARDS / max(1, len(await self._store.nodes())))
        ours = self._ours()
        await self._let_go(ours[share:])
        for shard in [*ours[:share], *(each for each in range(HOOK_SHARDS) if each not in ours)]:
            if shard not in self._held and len(self._ours()) >= share:
                continue
            asked_at = self._clock()
            if await self._store.outbox.hold(shard, self._lease(), int(self._hold_s * 1000)):
                self._held[shard] = asked_at + self._hold_s
            else:
                self._held.pop(shard, None)
        self._retries = {room: retry for room, retry in self._retries.items() if hook_shard(room) in self._held}

    async def _let_go(self, shards: Iterable[int]) -> None:
        for shard in shards:
            self._held.pop(shard, None)
            try:
                await self._store.outbox.hold(shard, self._lease(), 0)
            except StoreError:
                return  # it ends by itself

    # --- delivering ---------------------------------------------------------------------------------------------------

    async def _empty(self, shard: int, room: str, state: bytes) -> None:
        """Deliver what waits in a room, and forget it when nothing does; stops at the first that is not taken."""
        try:
            async with self._turn:
                while entries := await self._store.outbox.waiting(room, PAGE):
                    for entry in entries:
                        if shard not in self._ours() or not await self._done_with(room, entry):
                            return
                await self._store.outbox.unmark(room, state)
                self._retries.pop(room, None)
        except StoreError as error:
            log.warning("outbox not emptied", error=str(error))
        except Exception:  # a bug in one room's hooks must not end those of all
            log.exception("hook failed")
            self._not_taken(room)
        finally:
            self._busy.discard(room)

    async def _done_with(self, room: str, entry: Entry) -> bool:
        """Deliver one entry; False when it is to be tried again later."""
        hooks = self._hooks()
        result = "delivered"
        if entry.at / 1000 + hooks.keep < time():
            result = "dropped"
            log.error("hook dropped: it was not taken for as long as hooks.keep says", hook=entry.event, id=entry.id)
        else:
            try:
                await self._deliver(hooks, room, entry)
            except HookFailed as error:
                self._results["retried"] += 1
                wait = self._not_taken(room)
                log.warning("hook not taken", problem=str(error), hook=entry.event, retry_in_s=round(wait, 2))
                return False
        self._results[result] += 1
        self._retries.pop(room, None)
        await self._store.outbox.delivered(room, entry.id)
        return True

    def _not_taken(self, room: str) -> float:
        retry = self._retries.setdefault(room, Retry())
        retry.failures += 1
        wait = pause(retry.failures)
        retry.due = self._clock() + wait
        return wait

    async def _deliver(self, hooks: Hooks, room: str, entry: Entry) -> None:
        id = f"{sha256(room.encode()).hexdigest()[:16]}-{entry.id}"
        known = orjson.dumps({"id": id, "event": entry.event, "room": room, "time": entry.at})
        body = b'%b,"data":%b}' % (known[:-1], entry.body)
        headers = {
            "X-Chatd-Event": entry.event,
            "X-Chatd-Id": id,
            "X-Chatd-Signature": signature(hooks.secret_bytes, int(time()), body),
        }
        answer = await self._client().post(hooks.url, body, headers, within=hooks.timeout)
        if not 200 <= answer.status < 300:
            raise HookFailed(f"expected a status of 2xx, got {answer.status}")

    # --- undelivered --------------------------------------------------------------------------------------------------

    async def _see_who_has_not_read(self, message: Watched) -> None:
        """Write down for the application who is offline and has not read a message.

        Raises:
            StoreUnavailable, StoreFull: it is to be tried again.
        """
        try:
            if users := await self._unaware(message):
                what = {"offset": message.offset, "epoch": message.epoch, "user": message.author, "users": users}
                await self._store.outbox.add("undelivered", message.room, what)
        except (StoreUnavailable, StoreFull):
            raise
        except Exception:  # a bug over one message, or what the store refuses to say of it, must not end or hold up all
            log.exception("not found out who has not read a message, which is given up", offset=message.offset)
        await self._store.outbox.seen_to(message)

    async def _unaware(self, message: Watched) -> list[str]:
        store, room = self._store, message.room
        others = [user for user in await self._audience(message) if user != message.author]
        if not others or len(others) > MEMBERS:
            return []
        seen = await store.presence.seen(others)
        offline = [user for user, each in zip(others, seen, strict=True) if not each.online]
        cursors = await asyncio.gather(*(store.cursors.of(user, [room]) for user in offline))
        unaware = [user for user, [at] in zip(offline, cursors, strict=True) if not _has(at, message)]
        may_read = [user for user in unaware if not self._banned(user, room)]
        return [] if not may_read or await self._is_gone(message) else may_read

    async def _audience(self, message: Watched) -> list[str]:
        """Whom a message was for: those who belonged to the room when it was said."""
        if (pair := dm_members(message.room)) is not None:
            return list(pair)
        members = await self._store.rooms.members(message.room)
        return [member.user for member in members if not _has(member.since, message)]

    async def _is_gone(self, message: Watched) -> bool:
        """Whether it was deleted, or the whole room; one that only fell out of the history was not."""
        page = await self._store.messages.history(message.room, 0, after=message.offset - 1, limit=1)
        stands = [each for each in map(parse, page.publications) if each.offset == message.offset]
        return page.top.epoch != message.epoch or any(each.type == "deleted" for each in stands)


def _has(at: Position, message: Watched) -> bool:
    """Whether a message comes no later than a position."""
    return at.epoch == message.epoch and at.offset >= message.offset
