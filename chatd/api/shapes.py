"""Requests and results in the shapes of Centrifugo's server API, for the methods that chatd has too.

The official `cent` libraries speak it. A member of theirs that would ask for something chatd does not do is in
NOT_OFFERED, and refused rather than left out; what it does not name at all is left out, as everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from msgspec import UNSET, UnsetType

from chatd.wire.centrifuge_json import Offset

# Members that would change what a request means, where its method has no such member itself.
NOT_OFFERED: Final = frozenset({"b64data", "b64info", "data", "info", "override", "session", "delta", "version"})


@dataclass(frozen=True, slots=True)
class Position:
    """A place in a channel's history."""

    offset: Offset = 0
    epoch: str = ""


@dataclass(frozen=True, slots=True)
class Goodbye:
    """What a client that is disconnected is told: a close code from 3000 to 4999, and a reason."""

    code: int = 0
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Publish:
    """Say `data` in `channel`, as the server.

    Attributes:
        skip_history: it goes to who is there, and is not kept.
        tags: stand beside the data; `type` is the server's own.
        idempotency_key: said again within ten minutes, it has no second effect and returns the first answer.
    """

    channel: str
    data: Any
    skip_history: bool = False
    tags: Mapping[str, str] = field(default_factory=dict)
    idempotency_key: str = ""


@dataclass(frozen=True, slots=True)
class Published:
    offset: int
    epoch: str


@dataclass(frozen=True, slots=True)
class Broadcast:
    """Say the same `data` in several channels; see publish."""

    channels: tuple[str, ...]
    data: Any
    skip_history: bool = False
    tags: Mapping[str, str] = field(default_factory=dict)
    idempotency_key: str = ""


@dataclass(frozen=True, slots=True)
class Broadcasted:
    """For each channel, in order, {result} as of publish, or {error}."""

    responses: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True, slots=True)
class Presence:
    """Who is in `channel`: connection id to {user, client, conn_info}."""

    channel: str


@dataclass(frozen=True, slots=True)
class Present:
    presence: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class PresenceStats:
    """How many connections and users are in `channel`."""

    channel: str


@dataclass(frozen=True, slots=True)
class Counted:
    num_clients: int
    num_users: int


@dataclass(frozen=True, slots=True)
class History:
    """A page of `channel`: after `since` (before it with `reverse`), at most `limit`; 0 asks for the top only."""

    channel: str
    limit: int = 0
    since: Position | None = None
    reverse: bool = False


@dataclass(frozen=True, slots=True)
class Page:
    publications: tuple[Any, ...]
    offset: int
    epoch: str


@dataclass(frozen=True, slots=True)
class HistoryRemove:
    """Remove what is kept of `channel`; its count goes on."""

    channel: str


@dataclass(frozen=True, slots=True)
class Subscribe:
    """Make the connections of `user`, or one of them, readers of `channel`, for as long as they last; answers {}, and
    `silent` names nodes that did not answer.

    What is others' by its name, their personal channels and direct rooms, is refused.
    """

    user: str
    channel: str
    client: str = ""
    recover_since: Position | None = None


@dataclass(frozen=True, slots=True)
class Unsubscribe:
    """Put the connections of `user`, or one of them, out of `channel`; answers as subscribe."""

    user: str
    channel: str
    client: str = ""


@dataclass(frozen=True, slots=True)
class Disconnect:
    """Close the connections of `user`, or one of them; those in `whitelist` stay. Answers as subscribe."""

    user: str
    client: str = ""
    whitelist: tuple[str, ...] = ()
    disconnect: Goodbye | None = None


@dataclass(frozen=True, slots=True)
class Info:
    """How the nodes are; `silent` names those that did not answer."""


@dataclass(frozen=True, slots=True)
class Nodes:
    """Of each node how it is; `silent` names nodes that did not answer."""

    nodes: tuple[Mapping[str, Any], ...]
    silent: tuple[str, ...] | UnsetType = UNSET


@dataclass(frozen=True, slots=True)
class Channels:
    """Which channels have readers, and how many; `silent` names nodes that did not answer.

    Attributes:
        pattern: with `*` for any run of characters.
    """

    pattern: str = ""


@dataclass(frozen=True, slots=True)
class ChannelList:
    """Channels of the nodes that answered; `silent` names those that did not."""

    channels: Mapping[str, Mapping[str, int]]
    silent: tuple[str, ...] | UnsetType = UNSET


@dataclass(frozen=True, slots=True)
class Done:
    """It is done on the nodes that answered; `silent` names those that did not."""

    silent: tuple[str, ...] | UnsetType = UNSET


@dataclass(frozen=True, slots=True)
class Nothing:
    """It is done."""
