"""Membership: how a node stays a part of its cluster, by a lease in the store that it renews.

Whose lease ends is given up for dead, and what stood under it is cleared away: that is the reaper's part. Here is what
a node does to hold its own, to come back under another, and to know what was put in force while nobody could tell it.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from time import time
from typing import Final

import structlog

from .auth import Revocation
from .chat import Chat
from .respond import Responder
from .store.errors import StoreError, StoreFull
from .store.redis import Store

log = structlog.get_logger("chatd")

# Without a lease nobody may speak here: it is asked for as often as whether the store is back.
AGAIN_S: Final = 1.0


class Membership:
    """One node's place in the cluster.

    Args:
        node: its id.
        card: what the others can read of it without asking.

    Attributes:
        held_since: loop second from which the lease has been held without a break; None: it is not.
        refusal: why it could not be renewed when that was last tried, without names and addresses; "": it was.
    """

    def __init__(
        self,
        node: str,
        chat: Chat,
        responder: Responder,
        store: Store,
        *,
        card: Callable[[], dict[str, object]],
        clock: Callable[[], float],
    ) -> None:
        self.node = node
        self.chat = chat
        self.responder = responder
        self.store = store
        self.held_since: float | None = None
        self.refusal = ""
        self._card = card
        self._clock = clock
        self._life = 1
        self._forgotten = False  # our lease had ended, and not all who are here have been registered anew
        self._unasked = False  # we may have missed that somebody here was to be put out
        self._news = asyncio.Event()

    @property
    def lease(self) -> str:
        """Under which we stand in the cluster; another after we have been given up for dead."""
        return f"{self.node}.{self._life}"

    async def begin(self) -> None:
        """Become part of the cluster.

        Raises:
            StoreError: the store could not be reached.
        """
        enrolled_at = self._clock()
        await self.enroll()
        await self._take_in_what_is_in_force(enrolled_at)

    async def keep(self) -> None:
        """Renew the lease until cancelled."""
        while True:
            await self._until_it_is_time()
            try:
                await self._renew()
            except StoreError as error:
                self.held_since, self.refusal = None, str(error).partition(": ")[0]
                log.warning("lease not renewed", error=str(error))

    async def _until_it_is_time(self) -> None:
        renew = self.chat.settings.cluster.renew
        with suppress(TimeoutError):
            async with asyncio.timeout(renew if self.held_since is not None else min(renew, AGAIN_S)):
                await self._news.wait()
        self._news.clear()

    def may_have_missed_something(self) -> None:
        """Operators and moderators may have acted, and we could not be told; now we can be again."""
        self._unasked = True
        self._news.set()

    async def _renew(self) -> None:
        """Stay in the cluster, take in what we missed, and tell the store what it missed of us.

        Raises:
            StoreError: not all of it was done.
        """
        asked_at = self._clock()
        try:
            if not await self.store.renew(self.lease, self._lease_ms, self._card()):
                await self.come_back()
        except StoreFull:  # then operators cannot put anything in force either, and whoever only reads may go on
            await self._take_in_what_is_in_force(asked_at)
            raise
        await self._take_in_what_is_in_force(asked_at)
        if self._forgotten:
            await self.chat.register_anew()
            self._forgotten = False
        self.held_since, self.refusal = self.held_since or self._clock(), ""
        await self.chat.debts.settle()

    async def come_back(self) -> None:
        """We were away longer than our lease: go on under a new one, so that burying the old one harms nobody."""
        log.warning("lease had ended; registering anew", node=self.node)
        self._life += 1
        self._forgotten = self._unasked = True
        await self.enroll()

    async def enroll(self) -> None:
        await self.store.enroll(self.lease, self._lease_ms, self._card())
        self.held_since = self._clock()

    async def _take_in_what_is_in_force(self, listed_at: float) -> None:
        """What operators have done; a node hears of it as it happens, and reads it here if it was away.

        Args:
            listed_at: loop second from which on we are among those that a command asks, for a lease.
        """
        await self._load_measures()
        self.chat.revocations.forget_ended(time())
        rows = [Revocation(*row) for row in await self.store.revocations(time())]
        if closed := self.responder.void(rows):
            log.warning("connections closed for revocations heard of late", closed=closed)
        await self._do_what_we_were_not_asked_for()
        self.chat.informed_until = listed_at + self.chat.settings.cluster.lease
        self.chat.hub.hold(False)

    async def _do_what_we_were_not_asked_for(self) -> None:
        """Put out who was kicked, or has lost a room. Neither is numbered as measures are, so it is looked for only if
        some of it may have been missed.
        """
        if not self._unasked:
            return
        self._unasked = False  # first: we may miss something again meanwhile
        # From a lease before we were last informed: the line may have been dead before that was noticed.
        uninformed_s = max(0.0, self._clock() - self.chat.informed_until)
        try:
            if closed := await self.responder.kick_late(uninformed_s + 2 * self.chat.settings.cluster.lease):
                log.warning("connections closed for kicks heard of late", closed=closed)
            await self.responder.recheck_all()
        except StoreError:
            self._unasked = True
            raise

    async def _load_measures(self) -> None:
        """Bans, mutes and the lockdown; read only if we missed a change, or if some have ended and are to be swept."""
        measures, met = self.chat.measures, self.chat.met
        if met:
            self.chat.met = Counter()
            await self.store.measures.count({id: times for id, times in met.items() if measures.get(id) is not None})
        ended = measures.forget_ended(time())
        behind = bool(ended) or await self.store.measures.version() != measures.version
        if behind and (closed := await self.responder.read_measures()):
            log.warning("connections closed for bans heard of late", closed=closed)

    @property
    def _lease_ms(self) -> int:
        return int(self.chat.settings.cluster.lease * 1000)
