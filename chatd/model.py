"""The nouns of chatd: names, positions, commands that come in, answers and pushes that go out.

Everything here is a value: frozen, comparable, without behaviour that waits or looks at a clock. Bytes that are JSON
text are passed through as they came; nobody here parses them. How a command looks on a wire is wire's business. What
every message needs is a NamedTuple, which is made in a third of the time of a frozen dataclass.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import Final, NamedTuple, TypeAlias

Json: TypeAlias = bytes
"""UTF-8 JSON text without a raw newline, exactly as its author sent it."""


class Position(NamedTuple):
    """A place in a room's history: `offset` counts 1, 2, 3 … within one `epoch`; 0 is before the first message.

    An empty epoch means "whichever is current".
    """

    epoch: str
    offset: int


NOWHERE: Final = Position("", 0)
# The end of the year 9999, the last second that calendars can write; a claim beyond it is an error, not a date.
LAST_SECOND: Final = 253_402_300_799


class Door(StrEnum):
    """By which way a client came in."""

    PLAIN = "plain"
    SDK = "sdk"


class Role(IntEnum):
    """What somebody is in a room; who is more may all that who is less may. What each may is in rules.LEAST.

    NOBODY is outside of it. GUEST came in by an open door or an invitation for the day; the others belong to it.
    """

    NOBODY = 0
    GUEST = 1
    MEMBER = 2
    MODERATOR = 3
    OWNER = 4

    @property
    def word(self) -> str:
        """As tokens, commands and answers write it."""
        return self.name.lower()


ROLES: Mapping[str, Role] = {role.word: role for role in Role if role is not Role.NOBODY}


@dataclass(frozen=True, slots=True)
class Grant:
    """What a token says about rooms: `pattern` as in the settings (`*` stands for any run of characters)."""

    pattern: str
    role: Role = Role.MEMBER


@dataclass(frozen=True, slots=True)
class Identity:
    """Who somebody is, as verified.

    Attributes:
        user: the token's `sub`; opaque, compared bytewise.
        name: the display name, already cleaned; "" when the token has none.
        info: the token's `info` claim as JSON, shown to other members; None when there is none.
        grants: rooms the token opens beyond the public ones.
        expires_at: Unix seconds; None: never (open mode only).
        token_id: the token's `jti`; None when it has none, then it can be revoked only with its user.
        issued_at: Unix seconds of `iat`; None when the token has none.
        kid: name of the key that signed the token; "" when it has none.
    """

    user: str
    name: str = ""
    info: Json | None = None
    grants: tuple[Grant, ...] = ()
    expires_at: float | None = None
    token_id: str | None = None
    issued_at: float | None = None
    kid: str = ""

    @property
    def has_token(self) -> bool:
        """Whether a token says so, each of which ends; else it was believed without one."""
        return self.expires_at is not None


class Invitation(NamedTuple):
    """What a subscription token says to its user, as verified.

    Attributes:
        expires_at: Unix seconds; None: never.
        token_id, issued_at, kid: as an Identity's.
    """

    user: str
    expires_at: float | None = None
    token_id: str | None = None
    issued_at: float | None = None
    kid: str = ""


SERVER = Identity("", grants=(Grant("*", Role.OWNER),))
"""The server itself, and the application's back end behind it: no token can name it, and it may do everything."""


@dataclass(frozen=True, slots=True)
class Standing:
    """What the store holds of a room and of one user in it.

    Attributes:
        exists: somebody created the room; else it is one by pattern only, and has no members.
        public: any verified user may come in; means nothing unless it exists.
        locked: only moderators and owners may speak.
        slow_ms: how long each user must be silent after speaking; 0: not at all.
        role: by membership; NOBODY: no member.
        since: offset at which the user became a member; 0 for those there from the beginning.
        blocked: in a direct room, the other one takes no messages from the user.
        top: how far the room has come; no epoch where nothing ever was said or read.
    """

    exists: bool = False
    public: bool = False
    locked: bool = False
    slow_ms: int = 0
    role: Role = Role.NOBODY
    since: int = 0
    blocked: bool = False
    top: Position = NOWHERE


class Speaker(NamedTuple):
    """Who wants to say something, as far as it is known outside of the store.

    Attributes:
        role: what tokens give in this room; NOBODY: nothing.
        public: the room's pattern lets any verified user in; counts where nobody created the room.
        least: what a lockdown wants of whoever speaks.
    """

    user: str
    role: Role = Role.NOBODY
    public: bool = True
    least: Role = Role.NOBODY


@dataclass(frozen=True, slots=True)
class Actor:
    """Who wants to change a room or its members; `granted` is what tokens give him there. The server has none."""

    user: str
    granted: Role = Role.NOBODY


@dataclass(frozen=True, slots=True)
class Record:
    """What is written down about a room.

    Attributes:
        topic: "" for none.
        keys: the application's own, at most RECORD_KEYS of them.
        created: Unix ms; by: who created it. 0 and "" for a room by pattern only.
        members: how many belong to it.
    """

    public: bool
    locked: bool
    slow_ms: int
    topic: str
    keys: Mapping[str, str]
    created: int
    by: str
    members: int


@dataclass(frozen=True, slots=True)
class Member:
    """One who belongs to a room. `joined` is Unix ms, `since` the room's top at that time."""

    user: str
    role: Role
    joined: int
    since: Position


class ClientInfo(NamedTuple):
    """One connection of a user, as other members see it. `conn_info` is the token's `info` claim."""

    user: str
    client: str
    conn_info: Json | None = None
    chan_info: Json | None = None


# --- commands: what a client asks for ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Subscribe:
    """Join `room`, and with `recover` be sent what came after (`epoch`, `offset`).

    Attributes:
        token: a subscription token; "" when the room needs none.
        join_leave: the client wants to hear who joins and leaves.
        reject_unrecovered: answer error 112 rather than `recovered: false` (flag bit 2).
        kind: the protocol's subscription type; all but 0 are refused.
        delta: a delta format the client offers; "" for none.
        filtered: the client sent a tags filter, which chatd refuses.
    """

    room: str
    token: str = ""
    recover: bool = False
    epoch: str = ""
    offset: int = 0
    join_leave: bool = False
    reject_unrecovered: bool = False
    kind: int = 0
    delta: str = ""
    filtered: bool = False


@dataclass(frozen=True, slots=True)
class Connect:
    """Say who one is. `subs` are positions of server-side subscriptions from before, by room."""

    token: str = ""
    data: Json | None = None
    subs: Mapping[str, Subscribe] = field(default_factory=dict)
    name: str = ""
    version: str = ""


@dataclass(frozen=True, slots=True)
class Refresh:
    token: str


@dataclass(frozen=True, slots=True)
class SubRefresh:
    room: str
    token: str


@dataclass(frozen=True, slots=True)
class Unsubscribe:
    room: str


class Publish(NamedTuple):
    room: str
    data: Json


@dataclass(frozen=True, slots=True)
class Presence:
    room: str


@dataclass(frozen=True, slots=True)
class PresenceStats:
    room: str


@dataclass(frozen=True, slots=True)
class History:
    """A page of `room`: after `since` (before it with `reverse`), at most `limit`; 0 asks for the top position only."""

    room: str
    limit: int = 0
    since: Position | None = None
    reverse: bool = False


@dataclass(frozen=True, slots=True)
class Rpc:
    method: str
    data: Json | None = None


@dataclass(frozen=True, slots=True)
class Send:
    """An asynchronous message that expects no reply."""

    data: Json | None = None


@dataclass(frozen=True, slots=True)
class Ping:
    """A client's ping command, which the protocol knows and servers refuse."""


@dataclass(frozen=True, slots=True)
class Pong:
    """The answer to a server's ping."""


Command: TypeAlias = (
    Connect | Subscribe | Unsubscribe | Publish | Presence | PresenceStats | History
    | Ping | Send | Rpc | Refresh | SubRefresh | Pong
)  # fmt: skip


class Request(NamedTuple):
    """A command with the number its reply will bear; 0 for those that have no reply."""

    id: int
    command: Command


# --- results: what a command is answered with -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Subscribed:
    """The state of a fresh subscription.

    Attributes:
        position: the top of the room when not recovering, the position asked for when recovered; None: no history.
        publications: what was missed, oldest first, each a publication as JSON.
        was_recovering: the client asked for recovery.
        recovered: it got all of it.
        ttl_s: seconds until the subscription token ends and wants a refresh; None: it does not end.
    """

    position: Position | None = None
    publications: tuple[Json, ...] = ()
    was_recovering: bool = False
    recovered: bool = False
    ttl_s: int | None = None


@dataclass(frozen=True, slots=True)
class Connected:
    """The welcome. `ping_s` is the heartbeat in seconds; `ttl_s` as in Subscribed; `subs` are the server's own.

    `session` and `node` are what a client names that speaks by requests of its own; "" where it has a socket.
    """

    client: str
    version: str
    ping_s: int
    ttl_s: int | None = None
    subs: Mapping[str, Subscribed] = field(default_factory=dict)
    session: str = ""
    node: str = ""


@dataclass(frozen=True, slots=True)
class Refreshed:
    client: str
    version: str
    ttl_s: int | None


@dataclass(frozen=True, slots=True)
class SubRefreshed:
    ttl_s: int | None


@dataclass(frozen=True, slots=True)
class Unsubscribed:
    pass


class Published(NamedTuple):
    """Where and when a message landed. `position` is None in a room without history; `time_ms` is Unix time."""

    position: Position | None
    time_ms: int


@dataclass(frozen=True, slots=True)
class PresenceResult:
    """Connections in a room: connection id to its ClientInfo as JSON."""

    presence: Mapping[str, Json]


@dataclass(frozen=True, slots=True)
class PresenceStatsResult:
    num_clients: int
    num_users: int


@dataclass(frozen=True, slots=True)
class HistoryResult:
    """A page and the top of the room; `publications` are JSON, in the order asked for."""

    publications: tuple[Json, ...]
    top: Position


@dataclass(frozen=True, slots=True)
class RpcResult:
    data: Json


Result: TypeAlias = (
    Connected | Refreshed | Subscribed | SubRefreshed | Unsubscribed | Published
    | PresenceResult | PresenceStatsResult | HistoryResult | RpcResult
)  # fmt: skip


# --- events: what happens in a room, as the store's feed brings it ----------------------------------------------------


class Kind(StrEnum):
    """What an event is; the value is its mark on the feed.

    A SIGNAL is a publication that nobody will miss: it has no place in history, and is dropped first.
    """

    PUBLICATION = "p"
    JOIN = "j"
    LEAVE = "l"
    SIGNAL = "s"


class Event(NamedTuple):
    """Something that happened in a room.

    `body` is a publication as JSON (with its offset and time inside) or, for joins and leaves, a ClientInfo as JSON.
    `position` is None for what has no place in history.
    """

    kind: Kind
    body: Json
    position: Position | None = None


class Lost(NamedTuple):
    """A room's history was lost or cut: its readers cannot be brought up to date and must subscribe again."""

    top: Position


class Delivery(NamedTuple):
    """What the feed brought for one room in one go: events in order without a gap, or the news that there is one.

    `arrived_at` is when the socket was read, in seconds of perf_counter.
    """

    room: str
    events: tuple[Event, ...]
    lost: Lost | None = None
    arrived_at: float = 0.0
