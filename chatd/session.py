"""One connected client, as everybody but the transport knows it.

A Session is small and passive: it holds what is known of a client and turns answers into writes that never wait. It has
no task and no timer. What a command does is chat's business, who else is in a room the hub's, and how bytes leave is
the transport's, which it meets only as a Link.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Coroutine
from enum import Enum
from math import inf
from typing import Any, Protocol

from .errors import NORMAL, SLOW, Disconnect, Reject
from .model import Door, Event, Identity, Invitation, Kind, Request, Result, Subscribed
from .outlets import Outlet
from .wire import Codec


class Link(Protocol):
    """What a session needs of its connection. Nothing here waits.

    Attributes:
        congested: more than half of what may wait for this client is waiting.
        outlet: where a frame leaves at once, if nothing waits before it; the same as long as the link lives. What it
            does not take of a frame must go to `write_rest` before anything else is sent, and what it refuses to
            `write`. None: what is written is not what is sent, and all must go to `write`.
    """

    @property
    def congested(self) -> bool: ...

    @property
    def outlet(self) -> Outlet | None: ...

    def write(self, frame: bytes) -> None: ...

    def write_rest(self, frame: bytes, sent: int) -> None: ...

    def buffered(self) -> int:
        """Bytes written that the client has not taken."""

    def close(self, goodbye: Disconnect) -> None: ...

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


class State(Enum):
    UNKNOWN = "unknown"  # has not said who it is
    UNUSABLE = "unusable"  # said it, and was refused; only the goodbye is left
    READY = "ready"
    LEFT = "left"  # went by itself; what it said before that still counts
    CLOSED = "closed"  # we said goodbye; nothing of it counts any more


class Subscription:
    """A session's place in one room.

    Attributes:
        join_leave: it hears who joins and leaves.
        server_side: the server subscribed it; the client cannot leave.
        invited: it came with a subscription token, or by the server's word, whatever else it may be in the room.
        invitation: what that token says; None: there was none.
        since: offset of the room's last message when it came in.
        held: what was said while its history was being read; None at all other times.
    """

    __slots__ = ("held", "invitation", "invited", "join_leave", "server_side", "since")

    def __init__(
        self,
        *,
        join_leave: bool = False,
        server_side: bool = False,
        invited: bool = False,
        invitation: Invitation | None = None,
    ) -> None:
        self.join_leave = join_leave
        self.server_side = server_side
        self.invited = invited or invitation is not None
        self.invitation = invitation
        self.since = 0
        self.held: list[Event] | None = None

    @property
    def expires_at(self) -> float | None:
        """Unix seconds at which the subscription token ends; None: never."""
        return None if self.invitation is None else self.invitation.expires_at


class Pending:
    """A request that is not answered yet: its turn is not before `due` (loop seconds); or `refusal` is its answer.

    Attributes:
        outcome: what becomes of it, where it has begun before its turn to be answered; must be awaited or closed.
        unpaid: it is a message of somebody not known yet, from whose user's allowance it was not taken.
    """

    __slots__ = ("due", "outcome", "refusal", "request", "unpaid")

    def __init__(self, request: Request, due: float, refusal: Reject | None) -> None:
        self.request = request
        self.due = due
        self.refusal = refusal
        self.outcome: Coroutine[Any, Any, Result | None] | None = None
        self.unpaid = False


class Traffic:
    """What has passed through all sessions of this process, in plain numbers.

    Attributes:
        bytes_in: of messages, inflated, without their frames' headers.
        bytes_out: of frames written: answers, events, heartbeats; not of goodbyes and pongs.
        replies: requests answered; `rejected`: refused, by code.
    """

    __slots__ = ("bytes_in", "bytes_out", "rejected", "replies")

    def __init__(self) -> None:
        self.bytes_in = self.bytes_out = self.replies = 0
        self.rejected: Counter[int] = Counter()


class Session:
    """See the head of this file.

    Attributes:
        id: unique in the cluster; clients see it as `client`.
        codec: the door's language.
        ip: the client's address, behind trusted proxies too.
        home: the room a plain client is in; "" at the SDK door.
        secret: what a client shows that speaks by requests of its own; "" where its words come through its link.
        since: Unix seconds of the handshake.
        shard: number of the hub's shard that it lives in.
        identity: who it is, None while unknown. At the handshake it may be offered, and is taken up by `connect`.
        rooms: its subscriptions by room.
        heard_at: loop seconds of the last sign of life.
        pinged_at: loop seconds of the ping that a sign of life is to follow, or has followed; 0.0: none was sent.
        pings: those sent that no pong of the door's language has answered yet.
        waiting: requests not yet answered, in order; None while there is none, and nobody works for this session.
        messages_due, bytes_due, joins_due: allowances, see rules.pace.
        strikes: refusals for speaking too fast, in a row.
    """

    __slots__ = (
        "__weakref__", "bytes_due", "codec", "goodbye", "heard_at", "home", "id", "identity", "ip", "joins_due", "link",
        "messages_due", "pinged_at", "pings", "rooms", "secret", "shard", "since", "state", "strikes", "waiting",
    )  # fmt: skip

    def __init__(
        self, id: str, codec: Codec, ip: str, *, now: float, since: float, home: str = "", secret: str = ""
    ) -> None:
        self.id = id
        self.codec = codec
        self.ip = ip
        self.home = home
        self.secret = secret
        self.since = since
        self.shard = 0
        self.heard_at = now
        self.pinged_at = 0.0
        self.pings = 0
        self.identity: Identity | None = None
        self.rooms: dict[str, Subscription] = {}
        self.state = State.UNKNOWN
        self.waiting: deque[Pending] | None = None
        self.goodbye: Disconnect | None = None
        self.messages_due = self.bytes_due = self.joins_due = 0.0
        self.strikes = 0

    def attach(self, link: Link) -> None:
        """Take the connection; before this nothing may be sent."""
        self.link = link

    @property
    def user(self) -> str:
        """Who it is; "" while unknown."""
        return self.identity.user if self.identity is not None else ""

    @property
    def door(self) -> Door:
        return self.codec.door

    @property
    def open(self) -> bool:
        return self.state not in (State.LEFT, State.CLOSED)

    def ends_at(self) -> float:
        """Unix seconds at which its token ends, or the first of its subscriptions' tokens; infinite: none does."""
        ends = [subscription.expires_at for subscription in self.rooms.values()]
        if self.identity is not None:
            ends.append(self.identity.expires_at)
        return min((end for end in ends if end is not None), default=inf)

    def send(self, frame: bytes, *, droppable: bool = False) -> Disconnect | None:
        """Write a frame, unless too much waits already. Never waits itself.

        Args:
            frame: whole frames; b"" is nothing.
            droppable: may be left out when more than half of the bound is taken.
        Returns:
            The goodbye the caller must close with when this client does not read; else None. It is returned and not
            raised, so that a fan-out needs no `try`.
        """
        if not frame or not self.open:
            return None
        if self.link.congested:
            if droppable:
                return None
            if self.link.buffered() + len(frame) > self.link_bound:
                return SLOW
        self.traffic.bytes_out += len(frame)
        self.link.write(frame)
        return None

    # Bytes that may wait for one client: limits.outbox, set by the node. The same for all, so it is not kept in each.
    link_bound = 1 << 20
    traffic = Traffic()

    def reply(self, id: int, result: Result) -> None:
        self.traffic.replies += 1
        if self.home and isinstance(result, Subscribed):
            self.subscribed(self.home, result)  # a plain client has asked for nothing, and hears what it missed
        else:
            self._say(self.codec.reply(id, result))

    def reject(self, id: int, why: Reject) -> None:
        self.traffic.rejected[why.code] += 1
        self._say(self.codec.reject(id, why))

    def unsubscribed(self, room: str, code: int, reason: str) -> None:
        self._say(self.codec.unsubscribed(room, code, reason))

    def subscribed(self, room: str, result: Subscribed) -> None:
        """The server made this client a reader of `room`; what it missed follows."""
        self._say(self.codec.subscribed(room, result.position))
        for body in result.publications:
            self._say(self.codec.event(room, Event(Kind.PUBLICATION, body)))

    def _say(self, payload: bytes) -> None:
        if (goodbye := self.send(self.codec.frame((payload,)))) is not None:
            self.close(goodbye)

    def close(self, goodbye: Disconnect = NORMAL) -> None:
        """Say goodbye; what was written before still goes out first. A second goodbye is not said."""
        if self.open:
            self.state = State.CLOSED
            self.goodbye = goodbye
            self.link.close(goodbye)
