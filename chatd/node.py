"""Node: one daemon. It owns every task and tells the story: start, run, drain, stop.

The parts do the work and do not know the Node; it puts them together, and has the hub hear what the feed brings.
Signals, files and sockets are for whoever starts it.
"""

from __future__ import annotations

import asyncio
import gc
import secrets
import sys
from collections.abc import Callable, Coroutine, Sequence
from time import time
from typing import Any, Final, Protocol

import structlog

from . import __version__, auth, drain
from .auth import Revocations, Signatures, SigningKey, Verifier
from .chat import Chat
from .errands import Errands
from .errors import ABNORMAL
from .hooks import Hooks
from .hub import Hub
from .membership import Membership
from .model import Delivery
from .reaper import Reaper
from .respond import Responder
from .session import Session
from .settings import Settings
from .store.errors import StoreError
from .store.redis import Store
from .sweep import Sweeper
from .telemetry import Meters, resident_bytes

log = structlog.get_logger("chatd")

# A probe a second; after three unheard the feed is not live, and /readyz says so.
PROBE_S: Final = 1.0
DEAF_S: Final = 3.0
# Objects made and kept before the garbage collector looks at the young, and its rounds before it looks at older ones.
# At Python's 700, every third connection of a storm would have all that came before it looked through: a sixth of the
# CPU. Sessions hold no cycles, so what is garbage goes without the collector; see Door.
COLLECTED_AT: Final = (20_000, 20, 20)
# How often the event loop's lateness is measured: often enough to meet a stall of 100 ms.
LAG_S: Final = 0.1
# Who is told to stop has less patience than who empties a node: systemd counts from the signal.
LAST_FAREWELL_S: Final = 3.0


class Listener(Protocol):
    """The sockets people come in by."""

    @property
    def address(self) -> str: ...

    @property
    def certificate_ends(self) -> float | None:
        """When the certificate that is shown there ends, in Unix seconds; None: none is shown."""

    async def start(self) -> None: ...

    def reload(self, settings: Settings) -> None:
        """Take over new limits and the certificate as it is now."""

    def sweep(self, now: float) -> None:
        """Cut what has been shaking hands, or saying goodbye, for too long by loop second `now`."""

    async def close(self) -> None:
        """Accept nobody any more; who is in stays."""

    async def open(self) -> None:
        """Accept again after `close`, at the same address.

        Raises:
            OSError: it cannot be had any more.
        """

    async def stop(self) -> None: ...


class Node:
    """One running chatd.

    Attributes:
        id: unique in the cluster, and new at every start.
        state: "starting", "ready", "draining", "drained" or "stopped". A drained node lives, and lets nobody in.
        stopping: it has been told to stop.
        bytes_alone: resident memory when it was ready, and nobody was there.
        on_news: told each new state, "reloaded", "stopping" once a second from when it is to stop, and "alive" once a
            second while the loop turns.
    """

    def __init__(self, settings: Settings, store: Store) -> None:
        loop = asyncio.get_running_loop()
        self.id = secrets.token_hex(4)
        self.state = "starting"
        self.settings = settings
        bound_outboxes(settings)
        self.store = store
        self.meters = Meters()
        self.hub = Hub()
        self.clock: Callable[[], float] = loop.time
        self.errands = Errands()
        self.chat = Chat(
            settings,
            self.hub,
            store,
            verifier(settings),
            signatures(settings),
            Revocations(),
            lease=lambda: self.lease,
            spawn=self.errands.begin,
            clock=self.clock,
            now=time,
        )
        self.reaper = Reaper(
            self.hub,
            self.chat,
            store,
            self.meters,
            clock=self.clock,
            now=time,
            held_since=lambda: self.membership.held_since,
        )
        self.sweeper = Sweeper(
            store.retention,
            store.rooms,
            lease=lambda: self.lease,
            keep=self.chat.keep,
            idle=self.chat.idle_ms,
            period_s=settings.cluster.sweep,
        )
        self.responder = Responder(self, self.hub, self.chat, store, self.meters)
        self.membership: Membership = Membership(
            self.id, self.chat, self.responder, store, card=self._card, clock=self.clock
        )
        self.hooks = Hooks(self, self.chat.banned, self.meters.hooks)
        self._introduce()
        self.listener: Listener | None = None
        self.listeners: list[Listener] = []
        self.on_news: Callable[[str], None] = lambda news: None
        self.bytes_alone = 0
        self._started_at = self.clock()
        self._stop = asyncio.Event()
        self._tasks: asyncio.TaskGroup | None = None
        self._emptying: asyncio.Task[None] | None = None
        self._turning = asyncio.Lock()  # closing to newcomers, or opening again: one at a time

    def _introduce(self) -> None:
        """Have the parts tell each other what they do not know of each other to ask for."""
        self.chat.callout = self.hooks.callout
        self.store.outbox.hooks = self.settings.hooks
        self.chat.on_end = self._ended
        self.chat.on_refusal = self.meters.auth_failed
        self.hub.on_round = self.meters.round_done
        self.store.batch.on_reply, self.store.batch.on_failure = self.meters.store_answered, self.meters.store_failed
        self.hub.on_behind = self.store.feed.hold
        self.store.feed.on_deliveries = self._deliver
        self.store.feed.on_lag = self.meters.feed_lag.observe

    # --- the story ----------------------------------------------------------------------------------------------------

    async def run(self, listener: Listener, *also: Coroutine[Any, Any, None], admin: Listener | None = None) -> None:
        """Serve until `stop` is called; returns when everybody has been told to come back elsewhere.

        Args:
            admin: where operators come in, who are answered to the very end.
            also: what must run as long as we do, such as watching over an embedded store.
        Raises:
            StoreError: the store could not be reached at the start.
        """
        self.listener = listener
        self.listeners = [listener] if admin is None else [listener, admin]
        async with self.errands, asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            lease = tasks.create_task(self.membership.keep(), name="lease")
            running = [lease, *(tasks.create_task(job, name=name) for name, job in self._jobs(also))]
            try:
                await self._begin()
                for each in self.listeners:
                    await each.start()
                self._settle_down()
                await self._stop.wait()
                await self._leave(listener, lease)
                for each in self.listeners:
                    await each.stop()
            finally:
                for task in running:
                    task.cancel()
                self.state = "stopped"

    def _jobs(self, also: tuple[Coroutine[Any, Any, None], ...]) -> list[tuple[str, Coroutine[Any, Any, None]]]:
        return [
            ("feed", self.store.feed.run()),
            ("fan-out", self.hub.run()),
            ("probe", self._probe()),
            ("lag", self._measure_lag()),
            ("hooks", self.hooks.run()),
            ("seconds", self._each_second()),
            ("wheel", self.reaper.turn_wheel()),
            ("clocks", self.reaper.look_at_clocks()),
            ("undertaker", self.reaper.bury_the_dead()),
            ("leaves", self.reaper.announce_left()),
            ("sweeper", self.sweeper.run()),
            *(("also", job) for job in also),
        ]

    async def _begin(self) -> None:
        """Become part of the cluster, and hear ourselves, before anybody is let in."""
        self.store.serve(
            lambda: self.lease, self.responder.respond, self.errands.begin, self.membership.may_have_missed_something
        )
        await self.membership.begin()
        for sentence in await self.chat.verifier.read_key_sets():
            log.error("keys not read", problem=sentence)
        await self.store.feed.probe(self.id)
        while self.unready():
            await asyncio.sleep(0.005)

    def _enter(self, state: str) -> None:
        self.state = state
        self.on_news(state)
        log.info(state, node=self.id, address=self.address, version=__version__, connections=self.hub.size)

    def _settle_down(self) -> None:
        # What has been made until now lives as long as we do: the collector need not look at it again and again.
        gc.collect()
        gc.freeze()
        gc.set_threshold(*COLLECTED_AT)
        self.bytes_alone = resident_bytes()
        self._enter("ready")

    def stop(self) -> None:
        """Begin to drain; a second call changes nothing."""
        self._stop.set()

    @property
    def stopping(self) -> bool:
        return self._stop.is_set()

    async def _leave(self, listener: Listener, lease: asyncio.Task[None]) -> None:
        """Empty this node in the time that the settings give, whatever an operator had begun, and leave the cluster."""
        self.on_news("stopping")
        async with self._turning:  # or it would listen again behind us
            await self._end_emptying()
        await self._close(listener)
        await self._empty(self.settings.server.drain, LAST_FAREWELL_S)
        lease.cancel()  # it would find its lease gone, and come back under a new one
        await asyncio.gather(lease, return_exceptions=True)
        try:
            await self.reaper.bury(self.lease, delay_ms=self.chat.leave_delay_ms)
        except StoreError as error:
            log.warning("left without notice; another node will clear up", error=str(error))
        log.info("stopped", node=self.id)

    async def _close(self, listener: Listener) -> None:
        """Let nobody in."""
        await listener.close()
        self._enter("draining")

    async def _empty(self, over_s: float, patience_s: float) -> None:
        """Tell everybody to come back elsewhere over `over_s` seconds, and see them off."""
        await drain.say_goodbye(self.hub, over_s)
        await drain.farewell(self.hub, lambda: bool(self.errands), patience_s)
        self._enter("drained")

    # --- what operators do --------------------------------------------------------------------------------------------

    async def drain(self, over_s: float) -> None:
        """Begin to empty this node over so many seconds, or as the settings say where it is negative; it lives on.

        Nobody is let in any more when this returns. Without effect on a node that is emptying itself, or has.
        """
        assert self._tasks is not None, "asked of a node that runs"
        assert self.listener is not None, "and listens"
        async with self._turning:
            if self.state == "ready" and not self.stopping:
                await self._close(self.listener)
                emptying = self._empty(self.settings.server.drain if over_s < 0 else over_s, drain.FAREWELL_S)
                self._emptying = self._tasks.create_task(emptying, name="drain")

    async def undrain(self) -> None:
        """Let people in again.

        Raises:
            OSError: the address is somebody else's by now; the node stays drained.
        """
        async with self._turning:
            if self.listener is None or self.stopping or self.state not in ("draining", "drained"):
                return
            await self.listener.open()  # first: where it cannot, it goes on emptying itself
            await self._end_emptying()
            if not self.stopping:
                self._enter("ready")

    async def _end_emptying(self) -> None:
        emptying, self._emptying = self._emptying, None
        if emptying is not None:
            emptying.cancel()
            await asyncio.gather(emptying, return_exceptions=True)

    def reload(self, settings: Settings) -> None:
        """Take over new limits, keys, certificates, origins and room rules; what needs a restart stays as it is."""
        self.settings = self.chat.settings = settings
        bound_outboxes(settings)
        self.store.outbox.hooks = settings.hooks
        self.chat.verifier = verifier(settings)
        self.chat.signatures = signatures(settings)
        for listener in self.listeners:
            listener.reload(settings)
        self.on_news("reloaded")
        log.info("settings reloaded")

    # --- tasks --------------------------------------------------------------------------------------------------------

    def _deliver(self, deliveries: Sequence[Delivery]) -> None:
        if self.clock() >= self.chat.informed_until:
            self.hub.hold(True)  # until we know again who may hear it
        try:
            self.hub.deliver(deliveries)
            for delivery in deliveries:
                if delivery.lost is not None:
                    self.chat.lost_history(delivery)
        except Exception:  # a bug in what is done for one room must not end the feed of all
            log.exception("delivery failed", rooms=len(deliveries))
            for room in [self.hub.rooms[each.room] for each in deliveries if each.room in self.hub.rooms]:
                self.hub.give_up(room)

    async def _probe(self) -> None:
        while True:
            await asyncio.sleep(PROBE_S)
            try:
                await self.store.feed.probe(self.id)
            except StoreError as error:
                log.warning("store does not answer", error=str(error))

    async def _measure_lag(self) -> None:
        while True:
            due = self.clock() + LAG_S
            await asyncio.sleep(LAG_S)
            self.meters.loop_lag.observe(max(0.0, self.clock() - due))

    async def _each_second(self) -> None:
        while True:
            await asyncio.sleep(1.0)
            now = self.clock()
            self.meters.messages_in.sample(now, self.chat.messages_in)
            self.meters.messages_out.sample(now, self.hub.delivered)
            for listener in self.listeners:
                listener.sweep(now)
            if self.state == "draining":
                log.info("still draining", connections=self.hub.size)
            self.on_news("alive")
            if self.stopping:
                self.on_news("stopping")

    # --- what others ask ----------------------------------------------------------------------------------------------

    @property
    def lease(self) -> str:
        """Under which we stand in the cluster; another after we have been given up for dead."""
        return self.membership.lease

    @property
    def address(self) -> str:
        return self.listener.address if self.listener is not None else ""

    def uptime_s(self) -> float:
        return self.clock() - self._started_at

    def unready(self) -> str:
        """Why nobody should be sent here now; "" when all is well."""
        if self.state in ("draining", "drained", "stopped"):
            return self.state
        if self.store.batch.round_trip_s is None:
            return "the store does not answer"
        if self.membership.refusal:
            return self.membership.refusal
        if self.clock() >= self.chat.informed_until:
            return "what is in force has not been read anew since the store was away"
        deaf = self.store.feed.silent_for(self.clock())
        return "" if deaf < DEAF_S else "the feed from the store is silent"

    def _card(self) -> dict[str, object]:
        """What the others can read of us without asking."""
        return {"id": self.id, "address": self.address, "version": __version__, "state": self.state}

    def _ended(self, session: Session) -> None:
        goodbye = session.goodbye
        code = goodbye.code if goodbye is not None else ABNORMAL.code
        self.meters.closed_with(code)
        log.info(
            "connection ended",
            client=session.id,
            user=session.user,
            ip=session.ip,
            door=session.door.value,
            code=code,
            reason=goodbye.reason if goodbye is not None else "",
            seconds=round(time() - session.since, 3),
        )


def bound_outboxes(settings: Settings) -> None:
    """Hold every session to limits.outbox; 0: no bound."""
    Session.link_bound = settings.limits.outbox or sys.maxsize


def verifier(settings: Settings) -> Verifier:
    """The verifier that the settings describe.

    Raises:
        ValueError: a key cannot be used.
    """
    keys = [
        auth.Key(k.name, k.algorithm, k.secret_bytes, k.public_key, k.jwks_file or None, k.jwks_url or None)
        for k in settings.auth.keys
    ]
    return Verifier(
        keys,
        audience=settings.auth.audience,
        issuer=settings.auth.issuer,
        leeway=settings.auth.leeway,
        display_name=settings.limits.display_name,
    )


def signatures(settings: Settings) -> Signatures:
    """What checks messages with the keys that the settings name."""
    return Signatures(SigningKey(key.kid, key.secret_bytes, key.until) for key in settings.signatures.keys)
