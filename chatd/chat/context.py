"""What everything that a command does has in common: the parts of the node it works with, and small questions.

A Context waits for nobody and decides nothing by itself; the verbs are in the files beside this one.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from math import inf
from typing import Any, Final, Protocol

import structlog

from chatd import errors, rules, steward
from chatd.auth import Revocations, Signatures, Verifier
from chatd.batched import batched
from chatd.errors import Disconnect, Reject
from chatd.hub import Hub
from chatd.measures import Lockdown, Measure, Measures, What
from chatd.model import SERVER, Actor, ClientInfo, Identity, Invitation, Json, Role, Speaker, Standing
from chatd.names import is_reserved, room_name
from chatd.office import Office
from chatd.session import Session
from chatd.settings import Limits, RoomRules, Settings, matches
from chatd.steward import Steward
from chatd.store.errors import StoreError
from chatd.store.messages import Keep
from chatd.store.redis import Registration, Store
from chatd.wire.publication import client_info

from .living import Living
from .rights import RightsLost

log = structlog.get_logger("chatd")

# Debts paid together: one by one, those of a long outage would take longer than a lease lasts.
AT_ONCE: Final = 256


class Debts:
    """What the store must be told about connections and could not be told yet."""

    def __init__(self) -> None:
        self._owed: dict[tuple[str, str], Callable[[], Awaitable[object]]] = {}
        self._latest: dict[tuple[str, str], Callable[[], Awaitable[object]]] = {}  # of what is being told now
        self._unsure: dict[str, set[str]] = {}  # by room, of whom the store may not have heard the latest

    async def pay_or_owe(self, what: tuple[str, str], act: Callable[[], Awaitable[object]]) -> None:
        """Tell the store something now; if it cannot be told now, `settle` tells it later.

        The latest word about the same thing replaces an older one that is still owed.
        """
        self._owed.pop(what, None)
        self._latest[what] = act
        client, room = what
        self._unsure.setdefault(room, set()).add(client)
        try:
            await act()
            self._told(what, act)
        except StoreError as error:
            log.info("store will be told later", error=str(error))
            if self._latest.get(what) is act:
                self._owed[what] = act
        finally:
            if self._latest.get(what) is act:
                del self._latest[what]

    async def settle(self) -> None:
        """Tell the store what it could not be told while it was away.

        Raises:
            StoreError: it is still away.
        """
        for some in batched(list(self._owed.items()), AT_ONCE):
            paid = (self._pay(what, act) for what, act in some)
            for outcome in await asyncio.gather(*paid, return_exceptions=True):
                if outcome is not None:
                    raise outcome

    async def _pay(self, what: tuple[str, str], act: Callable[[], Awaitable[object]]) -> None:
        if self._owed.get(what) is act:  # else there is a later word
            await act()
            self._told(what, act)
            if self._owed.get(what) is act:
                del self._owed[what]

    def _told(self, what: tuple[str, str], act: Callable[[], Awaitable[object]]) -> None:
        client, room = what
        if act in (self._owed.get(what), self._latest.get(what)):  # else there is a later word
            self._unsure[room].discard(client)
            if not self._unsure[room]:
                del self._unsure[room]

    def none_but(self, client: str, room: str) -> bool:
        """Whether the store has heard the latest of everybody in `room`, but for this connection."""
        return self._unsure.get(room, set()) <= {client}


class Approver(Protocol):
    """Who is asked before something is said."""

    @property
    def asks(self) -> bool:
        """Whether anything is asked at all; what is asked about is said only after its answer, one after the other."""

    async def approve(self, room: str, user: str, data: Json) -> None:
        """Return if `user` may say `data` in `room`.

        Raises:
            Reject 417.
        """


class NobodyIsAsked:
    """An application that leaves it to the rooms' rules."""

    asks = False

    async def approve(self, room: str, user: str, data: Json) -> None:
        return


class Context:
    """See the head of this file.

    Args:
        lease: the node's current lease, under which everything it writes about its connections stands.
        spawn: makes a task that somebody owns.
        clock: loop time in seconds; `now`: Unix time in seconds.

    Attributes:
        measures: what operators have put in force; `met`: how often each, by id, has refused somebody, for the store.
        informed_until: loop second until which whatever an operator's command put in force is known here, or the
            command named this node among those that did not answer.
        rights_lost: when somebody here may have lost a right to a room.
        messages_in: messages accepted here.
        commands: what was asked for, by the name of the command's class, or of the API's method after "api ".
        on_end: told of each session whose socket is gone.
        on_refusal: told of each command that was refused.
        callout: asks the application before something is said.
        debts: what the store is still to be told.
        speaking: users' allowances, see rules.pace.
        entered: rooms in which this node has told the store that it has somebody.
        living: which nodes answer, for whoever meets a limit that the dead may fill.
    """

    def __init__(
        self,
        settings: Settings,
        hub: Hub,
        store: Store,
        verifier: Verifier,
        signatures: Signatures,
        revocations: Revocations,
        *,
        lease: Callable[[], str],
        spawn: Callable[[Coroutine[Any, Any, None]], object],
        clock: Callable[[], float],
        now: Callable[[], float],
    ) -> None:
        self.settings = settings
        self.hub = hub
        self.store = store
        self.verifier = verifier
        self.signatures = signatures
        self.revocations = revocations
        self.lease = lease
        self.spawn = spawn
        self.clock = clock
        self.now = now
        self.measures = Measures()
        self.met: Counter[str] = Counter()
        self.informed_until = inf
        self.rights_lost = RightsLost()
        self.messages_in = 0
        self.commands: Counter[str] = Counter()
        self.on_end: Callable[[Session], None] = lambda session: None
        self.on_refusal: Callable[[Reject | Disconnect], None] = lambda why: None
        self.callout: Approver = NobodyIsAsked()
        self.debts = Debts()
        self.speaking: dict[str, float] = {}
        self.entered: set[str] = set()
        self.living = Living(store)

    @property
    def limits(self) -> Limits:
        return self.settings.limits

    def rules(self, room: str) -> RoomRules:
        return self.settings.room(room)

    def keep(self, room: str) -> Keep:
        return steward.keep(self.rules(room))

    def who(self, session: Session) -> Identity:
        assert session.identity is not None, "commands other than connect come from known sessions only"
        return session.identity

    def info(self, session: Session) -> Json:
        """Who somebody is, as the others see it."""
        identity = self.who(session)
        return client_info(ClientInfo(identity.user, session.id, identity.info))

    def byline(self, session: Session) -> Json | None:
        """Who says something, as the others see it; None: the server."""
        return None if session.identity is SERVER else self.info(session)

    def ttl(self, expires_at: float | None) -> int | None:
        return None if expires_at is None else max(1, int(expires_at - self.now()))

    def registration(self, session: Session) -> Registration:
        return Registration(session.user, session.id, self.lease(), session.ip, session.since, session.door)

    def refuse_newcomer(self, identity: Identity, ip: str) -> None:
        """Keep out whoever is banned everywhere, and in a lockdown everybody.

        Raises:
            Disconnect 4502, 4000.
        """
        self.refuse_outcast(identity, ip)
        if self.measures.lockdown >= Lockdown.NOBODY_NEW:
            raise errors.CLOSED_FOR_NOW.anew()

    def refuse_outcast(self, identity: Identity, ip: str) -> None:
        """Keep out whoever is banned everywhere.

        Raises:
            Disconnect 4502.
        """
        if (ban := self.measures.covering(What.BAN, identity, ip, "", self.now())) is not None:
            self.met[ban.id] += 1
            raise errors.BANNED.because(ban.reason or errors.BANNED.reason)

    def refuse_banned(self, session: Session, room: str) -> None:
        """Keep whoever is banned from `room` out of it.

        Raises:
            Reject 403, 400.
        """
        self._refuse(What.BAN, errors.BANNED_HERE, session, room)
        self.refuse_uninformed()

    def refuse_muted(self, session: Session, room: str) -> None:
        """Keep whoever is muted in `room` silent.

        Raises:
            Reject 403, 401, 400.
        """
        self.refuse_banned(session, room)
        self._refuse(What.MUTE, errors.MUTED, session, room)

    def refuse_uninformed(self) -> None:
        """Let nobody do what may have been forbidden while we were given up for dead, until we have read what was.

        Raises:
            Reject 400.
        """
        if self.clock() >= self.informed_until:
            raise errors.STORE_UNAVAILABLE.because("this node was away from the store; send the same message again")

    def _refuse(self, what: What, refusal: Reject, session: Session, room: str) -> None:
        measure = self.covering(what, session, room)
        if measure is not None:
            self.met[measure.id] += 1
            raise _measured(refusal, measure, self.now())

    def covering(self, what: What, session: Session, room: str) -> Measure | None:
        """The measure that is in force on `session` in `room`, or everywhere; None: there is none."""
        if not self.measures:
            return None
        identity = self.who(session)
        role = rules.granted(identity.grants, room, matches)
        return self.measures.covering(what, identity, session.ip, room, self.now(), role=role)

    def banned(self, user: str, room: str) -> bool:
        """Whether a user is banned from `room`, wherever he is, by his name alone."""
        return self.measures.covering(What.BAN, Identity(user), "", room, self.now()) is not None

    def refuse_in_lockdown(self, role: Role) -> None:
        """Keep whoever is less than the lockdown wants from doing what takes as much as speaking.

        Raises:
            Reject 416.
        """
        if role < self.measures.least_to_speak:
            raise errors.LOCKDOWN.anew()

    def opens_by_rule(self, room: str) -> bool:
        """Whether anybody may come into `room` where nobody created it."""
        return self.rules(room).public and not is_reserved(room)

    def presence_kept(self, room: str) -> bool:
        return not room.startswith("#") and self.rules(room).presence

    def announce_to(self, room: str) -> int:
        """Up to how many present joins and leaves are announced in `room`; -1: not at all."""
        kept = self.rules(room)
        return kept.announce_up_to if kept.join_leave else -1

    def idle_ms(self, room: str) -> int:
        """After how long a created room in which nothing happens is taken away; 0: never, or nobody could tell."""
        kept = self.rules(room)
        return int(kept.idle * 1000) if kept.presence else 0

    @property
    def leave_delay_ms(self) -> int:
        return int(self.limits.leave_delay * 1000)

    async def role(self, identity: Identity, room: str, *, invited: bool = False) -> Role:
        """What `identity` is in `room`, by all that is known.

        Args:
            invited: it showed a subscription token for the room, or is in it already.
        """
        standing = Standing() if is_reserved(room) else await self.store.rooms.standing(room, identity.user)
        return self._role(identity, room, standing, invited=invited)

    async def place(self, session: Session, room: str) -> tuple[Standing, Role]:
        """What the store holds of this client's user in `room`, and what that and all else make of him there."""
        identity = self.who(session)
        standing = await self.store.rooms.standing(room, identity.user)
        return standing, self._role(identity, room, standing, invited=room in session.rooms)

    def _role(self, identity: Identity, room: str, standing: Standing, *, invited: bool) -> Role:
        public = standing.public if standing.exists else self.rules(room).public
        return rules.role_in(identity, room, public=public, invited=invited, member=standing.role, matches=matches)

    def refuse_void(self, invitation: Invitation) -> None:
        """Keep out whoever has shown a subscription token that was revoked.

        Raises:
            Reject 103.
        """
        if self.revocations.void(invitation, self.now()):
            raise errors.PERMISSION_DENIED.because("the subscription token was revoked")

    def actor(self, session: Session, room: str) -> Actor | None:
        """Who wants to change `room`; the store, which knows its members, has the last word. None: the server."""
        identity = self.who(session)
        return None if identity is SERVER else Actor(identity.user, rules.granted(identity.grants, room, matches))

    def office(self, session: Session) -> Office:
        """Where this client's user acts on the cluster, once it is known that he may."""
        return Office(self.store, patience=self.settings.cluster.answer, by=session.user or session.id)

    def steward(self, session: Session) -> Steward:
        """Where this client's user acts on rooms."""
        return Steward(self.office(session), self.settings)

    def speaker(self, session: Session, room: str) -> Speaker:
        """Who wants to speak in `room`; the store, which knows its members, has the last word.

        Raises:
            Reject 103: nothing that the store may know could allow it.
        """
        identity = self.who(session)
        role = rules.role_in(identity, room, public=False, invited=room in session.rooms, matches=matches)
        if is_reserved(room):
            rules.may_speak(room, role)
        return Speaker(identity.user, role, self.opens_by_rule(room), self.measures.least_to_speak)

    async def readable(self, session: Session, room: str) -> RoomRules:
        """What holds in `room`, for somebody who may read it.

        Raises:
            Reject 107, 103, 403.
        """
        room_name(room, self.limits.room_name)
        await self.may_read(session, room, invited=room in session.rooms)
        return self.rules(room)

    async def may_read(self, session: Session, room: str, *, invited: bool) -> None:
        """Keep out of `room` whoever may not read it.

        Raises:
            Reject 103, 403.
        """
        self.refuse_banned(session, room)
        rules.require(rules.Act.READ, await self.role(self.who(session), room, invited=invited), room)

    async def reads_above(self, session: Session, room: str) -> int:
        """The offset above which this client may read the history of `room`; 0: all of it."""
        if self.rules(room).history_for == "all" or is_reserved(room):
            return 0
        return self.floor(session, room, *await self.place(session, room))

    def floor(self, session: Session, room: str, standing: Standing, role: Role) -> int:
        """As reads_above, for whom it is known what he is in `room`."""
        if is_reserved(room):
            return 0
        history_for, subscription = self.rules(room).history_for, session.rooms.get(room)
        return rules.reads_above(history_for, standing, role, None if subscription is None else subscription.since)

    def forget_quiet_speakers(self) -> None:
        """Let go of users' allowances that are full again."""
        now = self.clock()
        self.speaking = {user: due for user, due in self.speaking.items() if due > now}


def _measured(refusal: Reject, measure: Measure, now: float) -> Reject:
    """The refusal as the one concerned hears it: why, and when it ends."""
    left = measure.seconds_left(now)
    sentence = refusal.text + (f": {measure.reason}" if measure.reason else "")
    return refusal.because(sentence, retry_after_ms=None if left is None else int(left * 1000))
