"""A row for each command: what it needs, what it costs, what it does.

A message's way goes through here once: what a client asked for is checked against the rules, carried out on the store,
and answered. Requests of one session are worked off one after the other; different sessions do not wait for each other.

Chat knows sessions, the hub, the store and the rules. It knows no wire format and no socket.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final, NoReturn

import structlog

from . import __version__, errors, rules
from .auth import Revocations, Verifier
from .errors import Disconnect, Reject
from .hub import JOINING, Hub
from .model import (
    ClientInfo,
    Command,
    Connect,
    Connected,
    Delivery,
    History,
    HistoryResult,
    Identity,
    Json,
    Ping,
    Pong,
    Position,
    Presence,
    PresenceResult,
    PresenceStats,
    PresenceStatsResult,
    Publish,
    Published,
    Refresh,
    Refreshed,
    Request,
    Result,
    Rpc,
    Send,
    SubRefresh,
    SubRefreshed,
    Subscribe,
    Subscribed,
    Unsubscribe,
    Unsubscribed,
)
from .names import room_name
from .session import Pending, Session, State, Subscription
from .settings import Limits, RoomRules, Settings, matches
from .store.errors import StoreError, StoreUnavailable
from .store.redis import Keep, Registration, Store
from .wire import payload
from .wire.publication import client_info, head

log = structlog.get_logger("chatd")

# A request that comes too early waits up to this long for its turn; beyond, it is refused and told when to try again.
# SDKs give up on a command after 5 s.
PATIENCE_S: Final = 2.0
# Refused this often in a row for speaking too fast, a client is not listening to refusals.
STRIKES: Final = 50
# Requests waiting in one session beyond this stop us from reading its socket.
WAITING: Final = 64
# Connections said anew to the store at the same time, when it had forgotten them.
AT_ONCE: Final = 256
# A token's holder has this long after its end to bring a new one (the protocol's own grace, wire section 5).
GRACE_S: Final = 25.0


@dataclass(frozen=True, slots=True)
class Row:
    """What a command is made of.

    Attributes:
        do: carries it out and returns the result, or None where there is no reply.
        then: what follows once the reply is on its way.
        speaks: it counts as a message; `joins`: it counts as a join.
    """

    do: Callable[[Chat, Session, Any], Awaitable[Result | None]]
    then: Callable[[Chat, Session, Any], Awaitable[None]] | None = None
    speaks: bool = False
    joins: bool = False


class Chat:
    """What clients can do. One object per node.

    Args:
        lease: the node's current lease, under which everything it writes about its connections stands.
        spawn: makes a task that somebody owns.
        clock: loop time in seconds; `now`: Unix time in seconds.
    """

    def __init__(
        self,
        settings: Settings,
        hub: Hub,
        store: Store,
        verifier: Verifier,
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
        self.revocations = revocations
        self.lease = lease
        self.clock = clock
        self.now = now
        self.messages_in = 0
        self.on_end: Callable[[Session], None] = lambda session: None
        self.spawn = spawn
        self._speaking: dict[str, float] = {}
        self._owed: dict[tuple[str, str], Callable[[], Awaitable[object]]] = {}
        self._entered: set[str] = set()

    # --- requests come in ---------------------------------------------------------------------------------------------

    def seat(self, session: Session) -> None:
        """A plain client came in: it says nothing, but the handshake said what an SDK would."""
        self._enqueue(session, Pending(Request(0, Connect()), 0.0, None))
        self._enqueue(session, Pending(Request(0, Subscribe(session.home)), 0.0, None))

    def received(self, session: Session, message: bytes) -> None:
        """A client said something: decide at once what may be done when, and have it done in order."""
        if not session.open:
            return
        now = self.clock()
        session.heard_at = now
        try:
            requests = session.codec.decode(message)
            session.bytes_due, early = rules.pace(
                session.bytes_due, now, len(message), self._limits.bytes_per_second, self._limits.bytes_burst
            )
            for request in requests:
                self._in_order(session, request)
                if isinstance(request.command, Pong):
                    self._ponged(session)
                else:
                    self._enqueue(session, self._admitted(session, request, now, early))
        except Disconnect as goodbye:
            session.close(goodbye)

    def heard(self, session: Session) -> None:
        """A sign of life below the level of messages."""
        session.heard_at = self.clock()
        session.pinged_at = 0.0

    def _in_order(self, session: Session, request: Request) -> None:
        """The protocol's rules that hold for every command, in its order (wire section 2)."""
        if session.state is State.UNUSABLE:
            raise errors.BAD_COMMAND.because("nothing may follow a refused connect")
        connecting = session.state is State.READY or session.waiting is not None
        if not connecting and not isinstance(request.command, Connect):
            raise errors.BAD_COMMAND.because("the first command must be connect")

    def _ponged(self, session: Session) -> None:
        if not session.pinged_at:
            raise errors.BAD_COMMAND.because("a pong came without a ping")
        session.pinged_at = 0.0

    def _admitted(self, session: Session, request: Request, now: float, early: float) -> Pending:
        """When this may be done, or that it will be refused when its turn comes."""
        try:
            return Pending(request, now + self._charge(session, ROWS[type(request.command)], now, early), None)
        except Reject as refusal:
            return Pending(request, now, refusal)

    def _charge(self, session: Session, row: Row, now: float, early: float) -> float:
        """Seconds this must wait for its turn; `early`: how long its bytes must wait.

        Raises:
            Reject 111: longer than we let anything wait.
            Disconnect 3013: it has been told so too often.
        """
        limits, user = self._limits, session.user
        messages, theirs, joins = session.messages_due, self._speaking.get(user, 0.0), session.joins_due
        waits = [early]
        if row.speaks:
            messages, wait = rules.pace(messages, now, 1, limits.messages_per_second, limits.messages_burst)
            theirs, longer = rules.pace(theirs, now, 1, limits.user_messages_per_second, limits.user_messages_burst)
            waits += [wait, longer]
        if row.joins:
            joins, wait = rules.pace(joins, now, 1, limits.joins_per_second, limits.joins_burst)
            waits.append(wait)
        if max(waits) > PATIENCE_S:
            self._strike(session, max(waits))
        session.strikes = 0
        session.messages_due, session.joins_due = messages, joins
        if row.speaks:
            self._speaking[user] = theirs
        return max(waits)

    def _strike(self, session: Session, wait: float) -> NoReturn:
        session.strikes += 1
        if session.strikes > STRIKES:
            raise errors.TOO_MANY_MESSAGES.anew()
        wait_ms = int(wait * 1000)
        raise errors.TOO_MANY_REQUESTS.because(f"too fast; try again in {wait_ms} ms", retry_after_ms=wait_ms)

    def _enqueue(self, session: Session, entry: Pending) -> None:
        if session.waiting is None:
            session.waiting = deque((entry,))
            self.spawn(self._work_off(session))
        else:
            session.waiting.append(entry)
            if len(session.waiting) == WAITING:
                session.link.pause_reading()

    async def _work_off(self, session: Session) -> None:
        """Do what waits in `session`, one after the other; the only task that ever works for it."""
        assert session.waiting is not None, "spawned with something to do"
        try:
            while session.waiting:
                entry = session.waiting.popleft()
                if len(session.waiting) == WAITING // 2:
                    session.link.resume_reading()
                if session.state is not State.CLOSED and (wait := entry.due - self.clock()) > 0:
                    await asyncio.sleep(wait)
                await self._do(session, entry)
        finally:
            session.waiting = None
            if not session.open:
                await self._depart(session)

    async def _do(self, session: Session, entry: Pending) -> None:
        id, command = entry.request
        row = ROWS[type(command)]
        if not session.open and not (session.state is State.LEFT and row.speaks and session.identity is not None):
            return
        try:
            if entry.refusal is not None:
                raise entry.refusal
            result = await row.do(self, session, command)
            # No await between a command's end and its reply: what is said in a room it joined comes after.
            if result is not None:
                session.reply(id, result)
            if row.then is not None and session.open:
                await row.then(self, session, command)
        except Reject as refusal:
            self._refuse(session, id, command, refusal)
        except Disconnect as goodbye:
            session.close(goodbye)
        except StoreUnavailable as error:
            log.warning("store unavailable", command=type(command).__name__, error=str(error))
            self._refuse(session, id, command, errors.STORE_UNAVAILABLE)
        except StoreError as error:
            log.error("store refused", command=type(command).__name__, error=str(error))
            self._refuse(session, id, command, errors.INTERNAL)
        except Exception:
            log.exception("command failed", command=type(command).__name__, client=session.id)
            session.close(errors.INTERNAL_ERROR)

    def _refuse(self, session: Session, id: int, command: Command, refusal: Reject) -> None:
        session.reject(id, refusal)
        if isinstance(command, Connect) and session.state is State.UNKNOWN:
            session.state = State.UNUSABLE
        if session.home and isinstance(command, Connect | Subscribe):
            # A plain client cannot ask again: it is in its room or it is nowhere.
            session.close(errors.FORCE_RECONNECT if refusal.temporary else errors.NO_ACCESS)

    # --- coming and going ---------------------------------------------------------------------------------------------

    async def connect(self, session: Session, command: Connect) -> Connected:
        if session.state is not State.UNKNOWN:
            raise errors.BAD_COMMAND.because("connect was said before")
        identity = await self.identify(session, command)
        await self.admit(session, identity)
        subs = {} if session.home else await self._enter_personal(session, command, identity)
        if session.open:
            self.hub.welcome(session)
        return Connected(
            client=session.id,
            version=__version__,
            ping_s=int(self.settings.heartbeat.interval) or 1,
            ttl_s=self._ttl(identity.expires_at),
            subs=subs,
        )

    async def _enter_personal(self, session: Session, command: Connect, identity: Identity) -> dict[str, Subscribed]:
        """Subscribe a client to its user's own channel; a plain client reads its one room and nothing else."""
        personal = rules.personal_room(identity.user)
        wish = command.subs.get(personal) or Subscribe(personal)
        return {personal: await self._enter(session, wish, Subscription(server_side=True))}

    async def identify(self, session: Session, command: Connect) -> Identity:
        """Who this is: by the token given now, by what the handshake brought, or in open mode by its own word.

        Raises:
            Reject 109: the token has ended. Disconnect 3500: it is not valid; 3501: there is none.
        """
        if command.token:
            return await self.verifier.identity(command.token)
        if session.identity is not None:
            return session.identity
        if self.settings.auth.effective_mode != "open":
            raise errors.BAD_COMMAND.because("a token is needed, and none came")
        return Identity(payload.claimed_user(command.data) or f"guest-{secrets.token_hex(4)}")

    async def admit(self, session: Session, identity: Identity) -> None:
        """Let `identity` in on `session`, if it may come and its user has not too many connections already.

        Raises:
            Disconnect 4501, 3504.
        """
        if self.revocations.covers(identity, self.now()):
            raise errors.REVOKED.anew()
        session.identity = identity
        if not await self.store.register(self._registration(session), self._limits.connections_per_user):
            raise errors.CONNECTION_LIMIT.because(f"more than {self._limits.connections_per_user} connections")

    def lost(self, session: Session, goodbye: Disconnect, network: str) -> None:
        """The socket is gone: nothing more is delivered, and what the cluster knows of it is taken back."""
        if session.open:
            session.state, session.goodbye = State.LEFT, goodbye
        self.hub.remove(session, network)
        self.on_end(session)
        if session.waiting is None:  # else the task that works for it sees to this when it is done
            self.spawn(self._depart(session))

    async def _depart(self, session: Session) -> None:
        for room in list(session.rooms):
            await self._leave(session, room)
        if session.identity is not None:
            user, client = session.user, session.id
            await self._do_or_owe((client, ""), lambda: self.store.unregister(user, client))

    async def _do_or_owe(self, what: tuple[str, str], act: Callable[[], Awaitable[object]]) -> None:
        """Tell the store something about a connection; if it cannot be told now, `settle` tells it later.

        The latest word about the same thing replaces an older one that is still owed.
        """
        self._owed.pop(what, None)
        try:
            await act()
        except StoreError as error:
            log.info("store will be told later", error=str(error))
            self._owed.setdefault(what, act)

    async def settle(self) -> None:
        """Tell the store what it could not be told while it was away.

        Raises:
            StoreError: it is still away.
        """
        for what, act in list(self._owed.items()):
            await act()
            if self._owed.get(what) is act:
                del self._owed[what]

    async def register_anew(self) -> None:
        """Our lease had ended, and others may have taken us for dead: say again who is here, and where."""
        self._entered.clear()
        here = [session for session in self.hub.sessions() if session.state is State.READY]
        for start in range(0, len(here), AT_ONCE):
            await asyncio.gather(*(self._register_anew(session) for session in here[start : start + AT_ONCE]))

    async def _register_anew(self, session: Session) -> None:
        await self.store.unregister(session.user, session.id)
        await self.store.register(self._registration(session), 0)
        for room in list(session.rooms):
            await self.announce(session, Subscribe(room))

    # --- rooms --------------------------------------------------------------------------------------------------------

    async def subscribe(self, session: Session, command: Subscribe) -> Subscribed:
        room = command.room
        if not room:
            raise errors.BAD_COMMAND.because("subscribe needs a channel")
        room_name(room, self._limits.room_name)
        if room in session.rooms:
            raise errors.ALREADY_SUBSCRIBED.anew()
        if 0 < self._limits.rooms_per_connection <= len(session.rooms):
            raise errors.LIMIT_EXCEEDED.because(f"at most {self._limits.rooms_per_connection} rooms a connection")
        if command.delta not in ("", "fossil"):
            raise errors.BAD_COMMAND.because("unknown delta type")
        if command.kind != 0:
            raise errors.PERMISSION_DENIED.because("map subscriptions are not offered")
        if command.filtered:
            raise errors.BAD_REQUEST.because("tag filters are not offered")
        expires_at = await self._invitation(session, command)
        self._may_enter(session, room, invited=bool(command.token))
        return await self._enter(session, command, Subscription(join_leave=command.join_leave, expires_at=expires_at))

    async def _invitation(self, session: Session, command: Subscribe) -> float | None:
        """When the subscription token ends, in Unix seconds; None: never, or there is none."""
        if not command.token:
            return None
        return await self.verifier.subscription(command.token, user=session.user, client=session.id, room=command.room)

    async def _enter(self, session: Session, wish: Subscribe, subscription: Subscription) -> Subscribed:
        """Become a reader of a room: first the feed, then what was missed, and nothing is lost in between."""
        room, kept = wish.room, self._rules(wish.room)
        top = await self.store.feed.watch(room, history=kept.history > 0)
        if not session.open:
            self.store.feed.unwatch(room)
            raise errors.ABNORMAL.anew()
        ttl_s = self._ttl(subscription.expires_at)
        if top is None or not wish.recover:
            self.hub.join(session, room, subscription, top.offset if top else 0)
            return Subscribed(position=top, ttl_s=ttl_s)
        subscription.held = []
        self.hub.join(session, room, subscription, JOINING)
        try:
            missed, top = await self._missed(wish, kept)
        except BaseException:
            self._out(session, room)
            raise
        if missed is None and wish.reject_unrecovered:
            self._out(session, room)
            raise errors.UNRECOVERABLE.anew()
        if not session.open:
            raise errors.ABNORMAL.anew()
        if room not in session.rooms:
            raise errors.INTERNAL.because("put out of the room while its history was read; subscribe again")
        late = tuple(event.body for event in self.hub.caught_up(session, room, top.offset))
        if missed is None:
            # `late` stands in history too, above the position that the client is told to go on from.
            last = Position(top.epoch, top.offset + len(late))
            return Subscribed(position=last, was_recovering=True, ttl_s=ttl_s)
        return Subscribed(
            position=Position(top.epoch, wish.offset),
            publications=missed + late,
            was_recovering=True,
            recovered=True,
            ttl_s=ttl_s,
        )

    async def _missed(self, wish: Subscribe, kept: RoomRules) -> tuple[tuple[Json, ...] | None, Position]:
        """What came after the client's position, and the room's top; None when it cannot be given (wire section 7)."""
        limit = self._limits.recovery
        page = await self.store.history(wish.room, _ms(kept.retention), after=wish.offset, limit=limit)
        whole = wish.offset + len(page.publications) == page.top.offset
        if wish.epoch not in ("", page.top.epoch) or not whole:
            return None, page.top
        return page.publications, page.top

    async def announce(self, session: Session, command: Subscribe) -> None:
        """Enter a fresh reader among those present. It follows the reply, for its own join comes back to it."""
        room = command.room
        if self._presence_kept(room):
            await self._do_or_owe((session.id, room), lambda: self._be_present(session, room))

    async def _be_present(self, session: Session, room: str) -> None:
        if not session.open or room not in session.rooms:
            return
        lease = self.lease()
        if room not in self._entered:
            await self.store.enter_rooms(lease, [room])
            self._entered.add(room)
            if room not in session.rooms:  # put out meanwhile
                return
        await self.store.join(room, lease, session.user, session.id, self._info(session), self.announce_to(room))

    async def unsubscribe(self, session: Session, command: Unsubscribe) -> Unsubscribed:
        if not command.room:
            raise errors.BAD_COMMAND.because("unsubscribe needs a channel")
        subscription = session.rooms.get(command.room)
        if subscription is not None and not subscription.server_side:
            await self._leave(session, command.room)
        return Unsubscribed()

    async def put_out(self, session: Session, room: str, code: int, reason: str) -> None:
        """End a subscription from the server's side. A plain client has no other room to be in, and is closed."""
        session.unsubscribed(room, code, reason)
        await self._leave(session, room)
        if session.home == room:
            session.close(errors.KICKED.because(reason))

    async def _leave(self, session: Session, room: str) -> None:
        self._out(session, room)
        if self._presence_kept(room):
            await self._do_or_owe((session.id, room), lambda: self._be_gone(session, room))

    async def _be_gone(self, session: Session, room: str) -> None:
        lease = self.lease()
        await self.store.leave(room, lease, self.announce_to(room), session.id)
        if room not in self.hub.rooms:
            # No await between these two lines: whoever joins next notes the room anew, and after this in the pipeline.
            self._entered.discard(room)
            await self.store.leave_rooms(lease, [room])

    def _out(self, session: Session, room: str) -> None:
        """Stop reading, here and now."""
        if room in session.rooms:
            self.hub.leave(session, room)
            self.store.feed.unwatch(room)

    def lost_history(self, delivery: Delivery) -> None:
        """A room's readers cannot be brought up to date: SDKs are told to subscribe again and so recover."""
        assert delivery.lost is not None, "called for such deliveries only"
        room = self.hub.rooms.get(delivery.room)
        if room is None:
            return
        for session in list(room.sessions()):
            subscription = session.rooms[delivery.room]
            if subscription.server_side:
                session.close(errors.INSUFFICIENT_STATE)
            elif not session.home:
                self.spawn(self.put_out(session, delivery.room, *errors.UNSUBSCRIBED_INSUFFICIENT_STATE))

    # --- messages -----------------------------------------------------------------------------------------------------

    async def publish(self, session: Session, command: Publish) -> Published:
        room = command.room or session.home
        if not room:
            raise errors.BAD_COMMAND.because("publish needs a channel")
        room_name(room, self._limits.room_name)
        kept = self._rules(room)
        rules.may_post(self._who(session), room, public=kept.public, joined=room in session.rooms, matches=matches)
        said = payload.check(
            command.data, limit=self._limits.body, depth=self._limits.depth, chat=kept.payload == "chat"
        )
        repeat = (session.user, said.cid) if said.cid is not None else None
        publication = head(said.data, self._info(session), {"type": "message"})
        published, fresh = await self.store.publish(room, publication, Keep(kept.history, _ms(kept.retention)), repeat)
        self.messages_in += fresh
        return published

    async def history(self, session: Session, command: History) -> HistoryResult:
        kept = self._readable(session, command.room)
        if kept.history == 0:
            raise errors.NOT_AVAILABLE.because("this room keeps no history")
        since, most = command.since, self._limits.history_page
        if command.reverse and since is not None and since.offset == 0:
            raise errors.BAD_REQUEST.because("nothing lies before offset 0")
        limit = most if command.limit < 0 or command.limit > most else command.limit
        page = await self.store.history(
            command.room,
            _ms(kept.retention),
            after=since.offset if since is not None else None,
            limit=limit,
            reverse=command.reverse,
        )
        if since is not None and since.epoch not in ("", page.top.epoch):
            raise errors.UNRECOVERABLE.because("the room's history has begun anew since")
        return page

    async def presence(self, session: Session, command: Presence) -> PresenceResult:
        self._presence_readable(session, command.room)
        return PresenceResult(await self.store.presence(command.room))

    async def presence_stats(self, session: Session, command: PresenceStats) -> PresenceStatsResult:
        self._presence_readable(session, command.room)
        return PresenceStatsResult(*await self.store.presence_stats(command.room))

    async def rpc(self, session: Session, command: Rpc) -> Result:
        raise errors.NOT_AVAILABLE.because(f"there is no method {command.method[:64]!r}")

    async def ping(self, session: Session, command: Ping) -> None:
        raise errors.NOT_AVAILABLE.because("clients do not ping; the server does")

    async def send(self, session: Session, command: Send) -> None:
        raise errors.NO_HANDLER.anew()

    # --- tokens that end ----------------------------------------------------------------------------------------------

    async def refresh(self, session: Session, command: Refresh) -> Refreshed:
        identity = self._who(session)
        if not command.token or identity.expires_at is None:
            raise errors.BAD_COMMAND.because("refresh needs a token, and a connection whose token ends")
        try:
            fresh = await self.verifier.identity(command.token)
        except Reject:
            raise errors.CONNECTION_EXPIRED.anew() from None
        if fresh.user != identity.user:
            raise errors.INVALID_TOKEN.because("the new token is another user's")
        if self.revocations.covers(fresh, self.now()):
            raise errors.REVOKED.anew()
        session.identity = fresh
        return Refreshed(session.id, __version__, self._ttl(fresh.expires_at))

    async def sub_refresh(self, session: Session, command: SubRefresh) -> SubRefreshed:
        if not command.room:
            raise errors.BAD_COMMAND.because("sub_refresh needs a channel")
        subscription = session.rooms.get(command.room)
        if subscription is None:
            raise errors.PERMISSION_DENIED.because("not subscribed")
        if subscription.expires_at is None:
            raise errors.BAD_COMMAND.because("this subscription does not end")
        if not command.token:
            raise errors.BAD_REQUEST.because("sub_refresh needs a token")
        try:
            expires_at = await self.verifier.subscription(
                command.token, user=session.user, client=session.id, room=command.room
            )
        except Reject as refusal:
            if refusal == errors.TOKEN_EXPIRED:
                # Temporary: the SDK fetches another token and keeps its subscription meanwhile (wire section 5).
                raise Reject(refusal.code, refusal.text, temporary=True) from None
            raise errors.INVALID_TOKEN.anew() from None
        subscription.expires_at = expires_at
        return SubRefreshed(self._ttl(expires_at))

    def expire(self, session: Session, now: float) -> None:
        """End what has ended by Unix second `now`: the connection, or single subscriptions."""
        identity = session.identity
        grace = GRACE_S if not session.home else 0.0
        if identity is not None and identity.expires_at is not None and identity.expires_at + grace <= now:
            session.close(errors.CONNECTION_EXPIRED)
            return
        for room, subscription in list(session.rooms.items()):
            if subscription.expires_at is not None and subscription.expires_at + GRACE_S <= now:
                self.spawn(self.put_out(session, room, *errors.UNSUBSCRIBED_EXPIRED))

    def forget_quiet_speakers(self) -> None:
        """Let go of users' allowances that are full again."""
        now = self.clock()
        self._speaking = {user: due for user, due in self._speaking.items() if due > now}

    # --- small questions ----------------------------------------------------------------------------------------------

    @property
    def _limits(self) -> Limits:
        return self.settings.limits

    def _rules(self, room: str) -> RoomRules:
        return self.settings.room(room)

    def _who(self, session: Session) -> Identity:
        assert session.identity is not None, "commands other than connect come from known sessions only"
        return session.identity

    def _info(self, session: Session) -> Json:
        identity = self._who(session)
        return client_info(ClientInfo(identity.user, session.id, identity.info))

    def _ttl(self, expires_at: float | None) -> int | None:
        return None if expires_at is None else max(1, int(expires_at - self.now()))

    def _registration(self, session: Session) -> Registration:
        return Registration(session.user, session.id, self.lease(), session.ip, session.since, session.door)

    def _presence_kept(self, room: str) -> bool:
        return not room.startswith("#") and self._rules(room).presence

    def announce_to(self, room: str) -> int:
        """Up to how many present joins and leaves are announced in `room`; -1: not at all."""
        rules_ = self._rules(room)
        return rules_.announce_up_to if rules_.join_leave else -1

    def _may_enter(self, session: Session, room: str, *, invited: bool) -> None:
        public = self._rules(room).public
        rules.may_enter(self._who(session), room, public=public, invited=invited, matches=matches)

    def _readable(self, session: Session, room: str) -> RoomRules:
        if not room:
            raise errors.BAD_COMMAND.because("a channel is needed")
        room_name(room, self._limits.room_name)
        self._may_enter(session, room, invited=room in session.rooms)
        return self._rules(room)

    def _presence_readable(self, session: Session, room: str) -> None:
        if not self._readable(session, room).presence:
            raise errors.NOT_AVAILABLE.because("this room does not say who is present")


ROWS: Final[dict[type, Row]] = {
    Connect: Row(Chat.connect),
    Refresh: Row(Chat.refresh),
    Subscribe: Row(Chat.subscribe, then=Chat.announce, joins=True),
    SubRefresh: Row(Chat.sub_refresh),
    Unsubscribe: Row(Chat.unsubscribe),
    Publish: Row(Chat.publish, speaks=True),
    Presence: Row(Chat.presence, joins=True),
    PresenceStats: Row(Chat.presence_stats, joins=True),
    History: Row(Chat.history, joins=True),
    Rpc: Row(Chat.rpc, speaks=True),
    Ping: Row(Chat.ping),
    Send: Row(Chat.send),
}


def _ms(seconds: float) -> int:
    return int(seconds * 1000)
