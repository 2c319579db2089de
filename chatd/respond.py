"""What this node answers when an operator asks, and does when he acts: control's questions, one function each.

Nearly everything here is done at once, on what the hub knows: only who may still read a room is asked of the store, and
a listener takes a moment to close or to open. Who carries questions and answers is the store's business, and how the
nodes' answers are put together is control's.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import astuple
from math import inf
from socket import gethostname
from typing import Protocol

from . import __version__, control, errors, rules
from .auth import FOR_EVER_S, Revocation
from .batched import batched
from .chat import Chat
from .control import (
    Alive,
    Drain,
    Enter,
    Granted,
    Impose,
    Kick,
    Lift,
    Lock,
    Object,
    Recheck,
    Relay,
    Revoke,
    Rooms,
    Status,
    Undrain,
    Who,
)
from .errors import Disconnect
from .hub import Hub
from .measures import Lockdown, Measure, On, What
from .model import Door, Identity, Role, Subscribe
from .session import Session, State
from .settings import matches
from .store.redis import Store
from .telemetry import Meters, resident_bytes

# With fewer connections, most of what a node has grown by since it was ready is not theirs.
ENOUGH_TO_TELL = 1000
# Rights of which the store is asked together: a large room has more readers than may wait for it.
AT_ONCE = 500
# Who has no right to a room but that which everybody has.
STRANGER = Identity("")


class Health(Protocol):
    """What the node knows of itself."""

    @property
    def id(self) -> str: ...

    @property
    def state(self) -> str: ...

    @property
    def address(self) -> str: ...

    @property
    def bytes_alone(self) -> int:
        """Resident memory when it was ready, and nobody was there."""

    def uptime_s(self) -> float: ...

    def unready(self) -> str: ...

    async def drain(self, over_s: float) -> None: ...

    async def undrain(self) -> None: ...


class Responder:
    """Answers for one node."""

    def __init__(self, node: Health, hub: Hub, chat: Chat, store: Store, meters: Meters) -> None:
        self.node = node
        self.hub = hub
        self.chat = chat
        self.store = store
        self.meters = meters

    async def respond(self, question: control.Question) -> Object | None:
        """This node's answer; None: the question is another's."""
        match question:
            case Status():
                return self.status()
            case Alive():
                return {}
            case Who():
                return {"connections": [self.describe(session) for session in self.matching(question)]}
            case Rooms():
                return {"rooms": {name: dict(self.present(name)) for name in self.public_rooms()}}
            case Granted():
                return {"role": int(self.granted(question))}
            case Kick():
                return self.kick(question)
            case Enter():
                return {"entered": await self.enter(question)}
            case Revoke():
                return self.revoke(question)
            case Impose() | Lift() | Lock():
                return {"closed": await self.take_in(question)}
            case Recheck():
                return {"closed": await self.recheck(question)}
            case Drain():
                if question.node == self.node.id:
                    await self.node.drain(question.over)
                return {}
            case Undrain():
                return await self.undrain() if question.node == self.node.id else {}
            case Relay():
                return self.relay(question) if question.node == self.node.id else None

    async def undrain(self) -> Object:
        """Let people in again; "problem" says why that cannot be."""
        try:
            await self.node.undrain()
        except OSError as error:
            return {"state": self.node.state, "problem": f"cannot listen on {self.node.address}: {error.strerror}"}
        return {"state": self.node.state, "problem": ""}

    # --- asking -------------------------------------------------------------------------------------------------------

    def status(self) -> Object:
        meters, store = self.meters, self.store
        sessions = list(self.hub.sessions())
        rooms = list(self.public_rooms())
        rtt = store.batch.round_trip_s
        return {
            "rooms": rooms,
            "lockdown": int(self.chat.measures.lockdown),
            "node": {
                "id": self.node.id,
                "name": self.chat.settings.cluster.name or gethostname(),
                "address": self.node.address,
                "state": self.node.state,
                "version": __version__,
                "uptime_s": round(self.node.uptime_s(), 1),
                "connections": len(sessions),
                "connections_max": self.chat.settings.limits.connections,
                "users": len({session.user for session in sessions if session.identity is not None}),
                "rooms": len(rooms),
                "subscriptions": sum(len(session.rooms) for session in sessions),
                "rss_bytes": (rss := resident_bytes()),
                "bytes_per_connection": per_connection(rss - self.node.bytes_alone, len(sessions)),
                "queued_bytes": sum(session.link.buffered() for session in sessions),
                "loop_lag_p99_ms": round(meters.loop_lag.quantile(0.99) * 1000, 2),
                "fan_out_p50_ms": round(meters.fan_out.quantile(0.5) * 1000, 3),
                "fan_out_p99_ms": round(meters.fan_out.quantile(0.99) * 1000, 3),
                "messages_in_per_s": round(meters.messages_in.per_second(), 1),
                "messages_out_per_s": round(meters.messages_out.per_second(), 1),
                "closed": {str(code): count for code, count in sorted(meters.closed.items())},
                "store": {
                    "rtt_ms": None if rtt is None else round(rtt * 1000, 2),
                    "feed": self.node.unready() or "live",
                },
            },
        }

    def describe(self, session: Session) -> Object:
        return {
            "id": session.id,
            "user": session.user,
            "name": session.identity.name if session.identity is not None else "",
            "node": self.node.id,
            "ip": session.ip,
            "rooms": sorted(room for room in session.rooms if not room.startswith("#")),
            "since": round(session.since, 3),
            "door": session.door.value,
            "queued_bytes": session.link.buffered(),
        }

    def public_rooms(self) -> Iterator[str]:
        """The rooms people talk in; a user's own channel is not one."""
        return (name for name in self.hub.rooms if not name.startswith("#"))

    def present(self, room: str) -> Counter[str]:
        return Counter(session.user for session in self.hub.rooms[room].sessions())

    def granted(self, asked: Granted) -> Role:
        identities = [session.identity for session in self.hub.sessions() if session.user == asked.user]
        return max(
            (rules.granted(each.grants, asked.room, matches) for each in identities if each is not None),
            default=Role.NOBODY,
        )

    def matching(self, who: Who) -> Iterator[Session]:
        networks = [rules.parsed_network(who.address)] if who.address else []
        for session in self.hub.sessions():
            if (
                session.state is State.READY
                and (not who.room or who.room in session.rooms)
                and (not who.user or who.user == session.user)
                and (not networks or rules.within(session.ip, networks))
            ):
                yield session

    # --- acting -------------------------------------------------------------------------------------------------------

    def relay(self, relay: Relay) -> Object:
        return {"heard": int(self.chat.emulated(relay.session, relay.data.encode("latin-1")))}

    def kick(self, kick: Kick, before: float = inf) -> Object:
        """Throw out whoever matches; `tokens` are the revocations that the asker is to write down, with `revoke`.

        Args:
            before: who came later, in Unix seconds, stays.
        """
        goodbye = Disconnect(kick.code, "") if kick.code else errors.KICKED
        goodbye = goodbye.because(kick.reason or goodbye.reason)
        hit = [
            session
            for session in self.matching(Who(room=kick.room, address=kick.address))
            if self._meant(session, kick)
            and kick.client in ("", session.id)
            and session.id not in kick.keep
            and session.since < before
        ]
        for session in hit:
            if kick.room:
                self._put_out(session, kick.room, kick.reason or errors.UNSUBSCRIBED_BY_SERVER[1])
            else:
                session.close(goodbye)
        known = {self.chat.who(session) for session in hit} if kick.revoke else set()
        tokens = sorted({self._void(identity) for identity in known if identity.has_token})
        return {"closed": len(hit), "tokens": [list(row) for row in tokens]}

    async def kick_late(self, within_s: float) -> int:
        """Throw out who was to be in the last so many seconds, while we could not be asked; how many these were."""
        closed = 0
        for at, missed in await self.store.unheard(within_s):
            if isinstance(missed, Kick):
                answer = self.kick(missed, before=at)
                closed += answer["closed"]
                tokens = [Revocation(*row) for row in answer["tokens"]]
                for token in tokens:
                    await self.store.revoke(tuple(token), token.until)
                self.void(tokens)
        return closed

    def _meant(self, session: Session, kick: Kick) -> bool:
        if kick.rank == Role.NOBODY:
            return not kick.target or kick.target in (session.user, session.id)
        granted = rules.granted(self.chat.who(session).grants, kick.room, matches)
        return kick.target == session.user and granted < kick.rank

    async def enter(self, enter: Enter) -> int:
        """Make whoever matches a reader of the room; how many became one. A plain client has a room already."""
        matching = [
            session
            for session in self.matching(Who(user=enter.user))
            if enter.client in ("", session.id) and session.door is Door.SDK and enter.room not in session.rooms
        ]
        wish = Subscribe(enter.room, recover=bool(enter.epoch), epoch=enter.epoch, offset=enter.offset)
        entered = await asyncio.gather(*(self.chat.bring_in(session, wish) for session in matching))
        return sum(entered)

    async def take_in(self, change: Impose | Lift | Lock) -> int:
        """Take in a change of what is in force; how many had to go for it."""
        measures = self.chat.measures
        match change:
            case Impose():
                measure = _measure(change)
                if measures.impose(measure, change.version):
                    return self._send_away(measure)
            case Lift():
                if measures.lift(_measure(change).id, change.version):
                    return 0
            case Lock():
                if measures.lock_down(Lockdown(change.level), change.version):
                    return 0
        return await self.read_measures()

    async def read_measures(self) -> int:
        """Take in all that the store has in force; how many had to go for what is new of it."""
        measures = self.chat.measures
        asked_at = measures.version
        rows, _, lockdown, version = await self.store.measures.in_force()
        fresh = measures.load(rows, lockdown, version, asked_at=asked_at)
        return sum(self._send_away(measure) for measure in fresh)

    def _send_away(self, measure: Measure) -> int:
        """End what somebody has because a ban on him was not in force before."""
        if measure.what is What.MUTE:
            return 0
        self.chat.rights_lost.note(measure.room)
        return sum(1 for session in self.hub.sessions() if self._sent_away(session, measure))

    def _sent_away(self, session: Session, measure: Measure) -> bool:
        # Also those who are only just coming in: their ban was asked for before it was in force.
        if not session.open or session.identity is None:
            return False
        if self.chat.covering(What.BAN, session, measure.room) is not measure:
            return False
        if not measure.room:
            session.close(errors.BANNED.because(measure.reason or errors.BANNED.reason))
            return True
        return self._put_out(session, measure.room, measure.reason or errors.BANNED_HERE.text)

    def _put_out(self, session: Session, room: str, reason: str) -> bool:
        if room not in session.rooms:
            return False
        self.chat.spawn(self.chat.put_out(session, room, errors.UNSUBSCRIBED_BY_SERVER[0], reason))
        return True

    async def recheck(self, recheck: Recheck) -> int:
        """Put out of a room whoever may not read it any more; how many these were."""
        room = recheck.room
        self.chat.rights_lost.note(room)
        readers = self.hub.rooms[room].sessions() if room in self.hub.rooms else ()
        return await self._recheck([(session, room) for session in readers if recheck.user in ("", session.user)])

    async def recheck_all(self) -> None:
        """Put out of each room whoever lost it while we could not be asked."""
        self.chat.rights_lost.note()
        private = list[str]()
        for some in batched(list(self.public_rooms()), AT_ONCE):
            roles = await asyncio.gather(*(self.chat.role(STRANGER, room) for room in some))
            private += [room for room, role in zip(some, roles, strict=True) if role is Role.NOBODY]
        rooms = [self.hub.rooms[room] for room in private if room in self.hub.rooms]
        await self._recheck([(session, room.name) for room in rooms for session in room.sessions()])

    async def _recheck(self, readers: Sequence[tuple[Session, str]]) -> int:
        """Put out whoever may not read the room any more; how many these were."""
        return sum([await self._recheck_some(some) for some in batched(readers, AT_ONCE)])

    async def _recheck_some(self, readers: Sequence[tuple[Session, str]]) -> int:
        still = [(session, room) for session, room in readers if room in session.rooms]
        roles = await asyncio.gather(
            *(self.chat.role(self.chat.who(each), room, invited=each.rooms[room].invited) for each, room in still)
        )
        outside = [reader for reader, role in zip(still, roles, strict=True) if role is Role.NOBODY]
        return sum(self._put_out(session, room, errors.UNSUBSCRIBED_NO_ACCESS[1]) for session, room in outside)

    def _void(self, identity: Identity) -> Revocation:
        until = identity.expires_at or self.chat.now() + FOR_EVER_S
        if identity.token_id is not None:
            return Revocation.of_token(identity.token_id, until)
        return Revocation.of_user(identity.user, self.chat.now())._replace(until=until)

    def revoke(self, revoke: Revoke) -> Object:
        """Take the revocation in and close whoever it covers."""
        return {"closed": self.void([Revocation(revoke.kind, revoke.id, revoke.until, revoke.issued_before)])}

    def void(self, rows: Iterable[Revocation]) -> int:
        """Take revocations in; how many connections had to be closed for them."""
        if not self.chat.revocations.load(rows):
            return 0
        self.chat.rights_lost.note()
        now, closed = self.chat.now(), 0
        for session in self.hub.sessions():
            if session.identity is not None and session.open and self.chat.revocations.covers(session.identity, now):
                session.close(errors.REVOKED)
                closed += 1
            for room in self._invited_in_vain(session, now):
                self._put_out(session, room, "the subscription token was revoked")
        return closed

    def _invited_in_vain(self, session: Session, now: float) -> list[str]:
        """The rooms that a client is in by a subscription token that is void."""
        if not session.open:
            return []
        shown = ((room, subscription.invitation) for room, subscription in session.rooms.items())
        return [room for room, said in shown if said is not None and self.chat.revocations.void(said, now)]


def per_connection(grown: int, connections: int) -> int | None:
    """Bytes that a connection takes, of those by which the node has grown; None: there are too few to tell."""
    return max(0, grown) // connections if connections >= ENOUGH_TO_TELL else None


def _measure(change: Impose | Lift) -> Measure:
    _, what, on, *rest = astuple(change)
    return Measure(What(what), On(on), *rest)
