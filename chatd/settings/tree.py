"""The sections of the settings, and Settings, which holds them all."""

# ruff: noqa: RUF009
# option() returns a dataclass field, as field() does; ruff cannot know that where a field's type is one of our aliases.

from __future__ import annotations

import os
import pwd
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from .declaring import SettingsError, option
from .keys import Api, Auth, Signatures
from .kinds import Bytes, File, Listen, Mode, Networks, Origins, Rate, Seconds, Secret, Texts, Url
from .rooms import RoomRules, Rooms, matches

# What the application can be told.
HOOK_EVENTS = ("message", "edit", "delete", "join", "leave", "undelivered", "report", "ban")
# What only an application that keeps messages itself needs to hear of.
ON_REQUEST = frozenset({"edit", "delete"})

# uvloop counts the bytes that wait in 32 bits, with a sign; who wants no limit says 0.
OUTBOX_BYTES = 2 << 30


@dataclass(frozen=True, slots=True)
class Server:
    """Where chatd listens, and whom it believes."""

    host: str = option(
        "127.0.0.1",
        "Address to listen on. Any other than a loopback address needs [[auth.keys]]. Put NGINX or HAProxy in front "
        'for TLS, or listen on "0.0.0.0" or "::" where the network is your own. "unix:/run/chatd/chatd.sock" listens '
        "on a file, for a proxy on this machine; its X-Forwarded-For is believed.",
    )
    port: int = option(8000, "Port to listen on; 0 takes a free one and says which.", most=65_535)
    workers: int = option(
        1,
        "Nodes to run here, each in a process of its own and all behind the address above: one for each core that "
        "chat may have. What is said of a node, limits.connections for one, holds for each of them. One that has "
        "crashed is started with the settings as they are by then, also those that the others take up at a restart. "
        "Only on Linux.",
        least=1,
        most=1024,
    )
    socket_mode: Mode = option(
        Mode(0o660), "Who may connect to the file of a unix socket: its owner and its group, unless you say otherwise."
    )
    origins: Origins = option(
        (),
        "Web origins whose pages may connect, as browsers send them: scheme, host and port. Empty: only pages from the "
        "very host that the request asks for, and in open mode on a loopback address only if that is localhost or such "
        'an address. "*": every page on the web. Others are answered 403, whose reason browsers '
        "do not show. Where any are named, chatd's own page can connect only if its origin is among them.",
        reload=True,
    )
    trusted_proxies: Networks = option(
        (),
        "Addresses or networks of your proxies. Only their X-Forwarded-For is believed: anybody else could write any "
        "address there, and so get around the limits and bans that go by address.",
        reload=True,
    )
    drain: Seconds = option(
        10.0,
        "On SIGTERM, the time over which clients are told to reconnect elsewhere: all at once, their return would "
        "storm the other nodes. The grace period of Kubernetes must be longer; systemd is asked for the time.",
        reload=True,
    )
    compression: bool = option(
        False,
        "Offer permessage-deflate to clients. It saves traffic and doubles the memory of a connection, so it is off.",
    )
    metrics_allow: Networks = option(
        ("127.0.0.0/8", "::1/128"),
        "Addresses or networks that may read /metrics.",
        reload=True,
    )


@dataclass(frozen=True, slots=True)
class Admin:
    """A second way in, for operators and machines, which stays open while the node drains."""

    listen: Listen = option(
        "",
        'Where: "127.0.0.1:9000", "unix:/run/chatd/admin.sock", or empty: nowhere. It serves /livez, /readyz and '
        "/metrics to whoever reaches it, and the API to who has a key, without TLS: let only your monitoring and your "
        "back end reach it. Port 0 takes a free one. Of several server.workers each has its own, at the ports after "
        "this one, or at files whose names end in .2, .3 and so on.",
    )
    socket_mode: Mode = option(Mode(0o660), "As server.socket_mode.")


@dataclass(frozen=True, slots=True)
class Tls:
    """TLS in chatd itself, for a node without a proxy in front. It takes some 50 KB a connection, a proxy less.

    So does a handshake under way, whose number only limits.handshake_timeout bounds: strangers are better met by a
    proxy.
    """

    certificate: File = option(
        "",
        "PEM file of the certificate, followed by those of its issuers; empty: no TLS. SIGHUP reads it again, so have "
        "whoever renews it send one. Paths are relative to this file's directory.",
        reload=True,
    )
    key: File = option("", "PEM file of its key, without a password.", reload=True)


@dataclass(frozen=True, slots=True)
class Hooks:
    """Telling the application what happens, by signed POST; and asking it before a message is said."""

    url: Url = option(
        Url(""),
        "Where events are sent, http:// or https://; empty: nowhere. Each is sent until it is answered with a 2xx, "
        "a room's in their order; so it may come twice, under the same X-Chatd-Id.",
        reload=True,
    )
    secret: Secret = option(
        Secret(""),
        'What requests are signed with, at least 20 bytes: X-Chatd-Signature is "t=<Unix seconds>,v1=<hex>", the '
        'HMAC-SHA256 of "<Unix seconds>.<body>".',
        reload=True,
    )
    secret_file: File = option(
        "", "Or the file that holds it, as in [[auth.keys]]; better, since chatd alone can read it.", reload=True
    )
    events: Texts = option(
        tuple(event for event in HOOK_EVENTS if event not in ON_REQUEST),
        f"Which are sent, of {', '.join(HOOK_EVENTS)}. Joins and leaves are sent as they are announced to clients. "
        "With edit and delete, what the application keeps of messages, a search index for one, stays right.",
        reload=True,
    )
    rooms: Texts = option(
        ("*",), "Of which rooms, with `*` for any run of characters; never of users' own channels.", reload=True
    )
    undelivered_after: Seconds = option(
        60.0,
        "How long after a message it is seen which members are offline and have not read it, in rooms that have "
        "members and in direct rooms; `undelivered` names them. Rooms of more than 1,000 members are left out.",
        least=0.1,
        reload=True,
    )
    timeout: Seconds = option(5.0, "How long one request may take before it is tried again.", least=0.05, reload=True)
    keep: Seconds = option(
        86_400.0,
        "How long an event is tried; then it is dropped, so that the next can go. A room keeps 10,000 of them.",
        least=1,
        reload=True,
    )
    allow_private: bool = option(
        False,
        "Let hooks go to addresses of your own network. Else a name that leads there is refused, so that nobody who "
        "can change a DNS entry can have chatd talk to what only your network should reach.",
    )
    before_publish: Url = option(
        Url(""),
        'Asked before a message is said or edited, with {"event", "room", "user", "time", "data"}; it answers '
        '{"allow": true}, or {"allow": false, "reason": "..."}: then the author hears error 417. Empty: nobody asks.',
        reload=True,
    )
    within: Seconds = option(0.2, "How long it may take to answer that.", least=0.01, reload=True)
    failing: str = option(
        "open",
        'When it does not answer: "open": the message is said all the same; "closed": it is refused, for now.',
        choices=("open", "closed"),
        reload=True,
    )
    secret_bytes: bytes = field(default=b"", repr=False)  # from `secret` or from the file

    def covers(self, room: str) -> bool:
        """Whether the application wants to know of this room at all; "" stands for all of them."""
        return not room.startswith("#") and any(matches(pattern, room) for pattern in self.rooms)

    def wants(self, event: str, room: str) -> bool:
        """Whether the application is to be told of an event in a room."""
        return bool(self.url) and event in self.events and self.covers(room)


@dataclass(frozen=True, slots=True)
class Redis:
    """Where everything is kept: Redis 7 or Valkey 8 and newer. Without a URL chatd runs a private Valkey of its own."""

    url: Url = option(
        Url(""),
        "Empty: the embedded store, for one machine. Else redis://[user:password@]host:port/0, rediss:// for TLS, "
        "unix:///path/to.sock, redis+sentinel://host:port,host:port/service, or redis+cluster://host:port. A password "
        "is better given as the credential chatd.redis-url.",
    )
    timeout: Seconds = option(
        2.0,
        "How long one command may take before the store counts as away and clients are told to try again: longer "
        "than a hiccup of the network, shorter than the patience of who just pressed Enter.",
        least=0.01,
    )
    wait_replicas: int = option(
        0,
        "How many replicas must have a message, or what else somebody is told is done, before he is told, so that a "
        "failover to one of them takes nothing back. While fewer are there, or they take longer than half of timeout, "
        "messages are refused for the time being, and the same sent again counts once. 0: nobody waits for replicas. "
        "Not with redis+cluster://.",
        least=0,
        most=100,
    )
    state_directory: str = option(
        "",
        "Where the embedded store keeps its data. Empty: $STATE_DIRECTORY, which systemd sets, else "
        "$XDG_STATE_HOME/chatd, else ~/.local/state/chatd. Two chatd on one directory share its store.",
    )
    appendfsync: str = option(
        "everysec",
        "When the embedded store writes to its disk what it has taken; a server of yours has a setting of that name. "
        '"everysec": each second, so that the last second or two are lost where the machine loses its power. "always": '
        "before the author of a message is told that it was taken. He then waits for the disk, and who else sends just "
        "then for the same write. Of several chatd on one directory, the one that started the store decides.",
        choices=("everysec", "always"),
    )
    prefix: str = option(
        "chatd",
        "First part of every key and channel in the store. Clusters that share a Redis need one each.",
    )

    def state_path(self, environ: Mapping[str, str]) -> Path:
        """The directory of the embedded store; it need not exist. `environ` as in `os.environ`.

        Raises:
            SettingsError: nothing says where.
        """
        # systemd joins several StateDirectory= with colons; the first is the service's main one.
        given = self.state_directory or environ.get("STATE_DIRECTORY", "").partition(":")[0]
        if given:
            return Path(given)
        state = environ.get("XDG_STATE_HOME") or _home(environ) / ".local" / "state"
        return Path(state) / "chatd"


def _home(environ: Mapping[str, str]) -> Path:
    """Not by Path.home(): where HOME is set and empty, that is the root of everything."""
    try:
        return Path(environ.get("HOME") or pwd.getpwuid(os.getuid()).pw_dir)
    except KeyError:
        raise SettingsError("expected a home directory, got none; set redis.state_directory") from None


@dataclass(frozen=True, slots=True)
class Cluster:
    """Life among other nodes; all nodes of a cluster should agree here."""

    lease: Seconds = option(
        10.0,
        "A node that has not renewed its sign of life for so long counts as dead, and its connections are removed. "
        "Shorter finds the dead sooner and buries the merely slow.",
        least=0.05,
    )
    renew: Seconds = option(
        3.0,
        "How often a node renews it. Less than half of the lease, so that one lost renewal harms nobody.",
        least=0.01,
    )
    name: str = option("", "What `chatd status` calls this node; empty: the host's name.")
    answer: Seconds = option(
        2.0,
        "How long a command such as `chatd who` waits for the answers of all nodes before it reports those that are "
        "missing.",
        least=0.01,
    )
    sweep: Seconds = option(
        600.0,
        "How often one of the nodes looks through all rooms for messages past their age or their room's count, and "
        "takes what was deleted out of the store's memory.",
        least=0.1,
    )


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """How silent connections are found. Proxies and NATs forget silent ones too, often after 60 s."""

    interval: Seconds = option(
        25.0,
        "How often each client is pinged. Two must fit into the 60 s after which many NATs and proxies cut a silent "
        "connection; the protocol counts it in whole seconds.",
        least=1,
    )
    timeout: Seconds = option(
        8.0,
        "How long a client may take to answer before it counts as gone; a phone that wakes its radio takes seconds.",
        least=0.01,
    )


@dataclass(frozen=True, slots=True)
class Limits:
    """What one client may take, so that it cannot take it from the others. 0: no limit."""

    connections: int = option(
        100_000,
        "Connections per node; more are refused with 503 and Retry-After. An idle one costs about 6 KB, so this is "
        "most of 1 GB. The limit on open files (LimitNOFILE) must be higher.",
        reload=True,
    )
    connections_per_user: int = option(
        10,
        "Connections per user: a few devices with a few tabs each.",
        reload=True,
    )
    connections_per_address: int = option(
        64,
        "Connections per address (per /64 in IPv6) and node: of several nodes or workers each counts its own. As many "
        "requests of clients without a WebSocket may be under way. Offices and mobile networks share one, so it is "
        "wide; loopback and trusted proxies are not counted.",
        reload=True,
    )
    connects_per_second: Rate = option(
        0, "New connections per second and node, sustained. A processor core accepts 1,000 to 2,000.", reload=True
    )
    unknown_connections: int = option(
        4096, "Connections per node that have not logged in yet; they can hold a place but nothing else.", reload=True
    )
    connect_timeout: Seconds = option(5.0, "Time to log in, once connected.", reload=True)
    handshake_timeout: Seconds = option(
        10.0, "Time to send the whole HTTP request that opens a connection: slow ones only hold sockets.", reload=True
    )
    handshake_bytes: Bytes = option(
        16 << 10,
        "Size of that request, headers included; a long token takes 2 KiB of it, cookies the rest.",
        reload=True,
    )
    frame: Bytes = option(
        64 << 10,
        "Size of one WebSocket message, put together and inflated. Official SDKs join commands up to this size; at "
        "16 MiB one client sending tiny fragments was measured to cost 200 MiB.",
        reload=True,
    )
    body: Bytes = option(8 << 10, "Size of one chat message; no more than a frame.", reload=True)
    depth: int = option(
        32, "Nesting of a message's JSON: deeper ones crash other people's parsers. Never more than 512.", reload=True
    )
    control_frames: int = option(
        50, "Pings and other control frames a client may send in 10 s; an honest one sends a handful.", reload=True
    )
    messages_per_second: Rate = option(
        5,
        "Messages per second and connection, sustained; faster ones are delayed, then refused, then cut off. Edits, "
        "reactions, typing, cursors and whatever else changes something count as messages.",
        reload=True,
    )
    messages_burst: int = option(20, "Messages at once, before that rate counts.", least=1, reload=True)
    user_messages_per_second: Rate = option(10, "Messages per second and user, over all connections.", reload=True)
    user_messages_burst: int = option(40, "Messages at once, before that rate counts.", least=1, reload=True)
    bytes_per_second: Bytes = option(32 << 10, "Bytes per second that a connection may send.", reload=True)
    bytes_burst: Bytes = option(
        256 << 10, "Bytes at once, before that rate counts; at least one whole frame.", least=1, reload=True
    )
    joins_per_second: Rate = option(
        5,
        "Rooms joined per second and connection: a join costs the store a read of history. So what is asked of rooms "
        "counts as well: history, presence, unread, members, lists.",
        reload=True,
    )
    joins_burst: int = option(
        20, "Joins at once, before that rate counts: what an application opens at its start.", least=1, reload=True
    )
    rooms_per_connection: int = option(128, "Rooms one connection may be in at a time.", reload=True)
    history_page: int = option(
        300, "Messages in one page of history; clients that ask for more get so many.", reload=True
    )
    recovery: int = option(
        300,
        "Missed messages that a returning client is sent by itself; who missed more is told so, and reads history.",
        reload=True,
    )
    outbox: Bytes = option(
        1 << 20,
        "Bytes waiting for a client that does not read. At half of it typing and presence are no longer queued, at all "
        "of it the client is cut off and may come back for what it missed. Times the connections, this is what the "
        "worst day costs in memory.",
        most=OUTBOX_BYTES,
        reload=True,
    )
    room_name: Bytes = option(255, "Length of a room's name, in bytes of UTF-8.", reload=True)
    leave_delay: Seconds = option(
        5.0,
        "How long after a user's last connection in a room has gone the others are told: who comes back before, with a "
        "page that is loaded anew, never left.",
        most=600,
        reload=True,
    )
    members: int = option(10_000, "Members of one created room.", reload=True)
    rooms_per_user: int = option(1_000, "Created rooms that one user is a member of.", reload=True)
    display_name: int = option(32, "Length of a display name, in characters; longer ones are cut.", reload=True)


@dataclass(frozen=True, slots=True)
class Log:
    """What chatd tells about itself, on stderr. Tokens and the text of messages are never in it."""

    level: str = option(
        "info",
        "The least urgent that is told: debug, info, warning or error.",
        choices=("debug", "info", "warning", "error"),
        reload=True,
    )
    format: str = option(
        "auto",
        '"human": for reading; "json": one object a line, for machines; "auto": human on a terminal, '
        "fields of their own in systemd's journal (`journalctl CHATD_EVENT=ready`), else json.",
        choices=("auto", "human", "json"),
    )


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings, as they hold. `sources` says where those came from that are not at their default."""

    server: Server = Server()
    admin: Admin = Admin()
    tls: Tls = Tls()
    auth: Auth = Auth()
    api: Api = Api()
    hooks: Hooks = Hooks()
    signatures: Signatures = Signatures()
    redis: Redis = Redis()
    cluster: Cluster = Cluster()
    heartbeat: Heartbeat = Heartbeat()
    limits: Limits = Limits()
    log: Log = Log()
    rooms: Rooms = field(default_factory=Rooms)
    sources: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)

    def room(self, name: str) -> RoomRules:
        """What holds in the room of this name. Takes names of any length, but remembers them: bound them before."""
        return self.rooms.rules(name)


SECTIONS: Mapping[str, type] = {
    "server": Server,
    "admin": Admin,
    "tls": Tls,
    "auth": Auth,
    "api": Api,
    "hooks": Hooks,
    "signatures": Signatures,
    "redis": Redis,
    "cluster": Cluster,
    "heartbeat": Heartbeat,
    "limits": Limits,
    "log": Log,
}
