"""The names of everything chatd keeps in Redis, in one place.

Keys that one script touches together share a hash tag, so that they live in one slot of a Redis Cluster: a room's keys
under the room, a user's under one of 64 registry shards, the nodes' under one tag of their own.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final
from zlib import crc32

# Enough to spread a large registry over a large cluster; few enough to walk in one status request.
REGISTRY_SHARDS: Final = 64


# Rooms and users whose tags are kept: a message asks for its room's eight times.
NAMES: Final = 4096

# Nodes share them; each is one loop on the node that has it.
HOOK_SHARDS: Final = 16


def hook_shard(room: str) -> int:
    """Which shard of the marks leads to the room's outbox."""
    return crc32(room.encode()) % HOOK_SHARDS


def registry_shard(name: str) -> int:
    """Which shard holds a user's connections, or lists a created room; the same on every node, for ever."""
    return crc32(name.encode()) % REGISTRY_SHARDS


@lru_cache(NAMES)
def tag(name: str) -> str:
    """The name of a room or a user as a hash tag: braces would end the tag early and scatter its keys over slots."""
    return name.replace("%", "%25").replace("{", "%7B").replace("}", "%7D")


def untagged(tagged: str) -> str:
    """The room that `tag` made this of."""
    return tagged.replace("%7B", "{").replace("%7D", "}").replace("%25", "%")


class Keys:
    """Key names under one prefix, so that several installations can share a server."""

    __slots__ = ("prefix",)

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix

    def meta(self, room: str) -> str:
        return f"{self.prefix}:{{{tag(room)}}}:meta"

    def log(self, room: str) -> str:
        return f"{self.prefix}:{{{tag(room)}}}:log"

    def every(self, kind: str) -> str:
        """What SCAN finds every room's key of this kind by, and with it what only looks like one: `room_of` tells."""
        return f"{_literal(self.prefix)}:{{*}}:{kind}"

    def room_of(self, key: str, kind: str) -> str | None:
        """The room whose key of this kind this is; None: it is none."""
        room = untagged(key.removeprefix(f"{self.prefix}:{{").removesuffix(f"}}:{kind}"))
        return room if f"{self.prefix}:{{{tag(room)}}}:{kind}" == key else None

    def gone(self, room: str) -> str:
        return f"{self.prefix}:{{{tag(room)}}}:gone"

    def notes(self, room: str) -> str:
        return f"{self.prefix}:{{{tag(room)}}}:notes"

    def history(self, room: str) -> list[str]:
        """A room's history, in the order in which log.lua wants it."""
        return [self.meta(room), self.log(room), self.gone(room), self.notes(room)]

    def feed(self, room: str) -> str:
        return f"{self.prefix}:{{{tag(room)}}}:feed"

    def present(self, room: str) -> str:
        return f"{self.prefix}:{{{tag(room)}}}:presence"

    def leaving(self, room: str) -> str:
        return f"{self.prefix}:{{{tag(room)}}}:leaving"

    def repeat(self, room: str, user: str, cid: str) -> str:
        # The length keeps ("a", "b:c") and ("a:b", "c") apart.
        return f"{self.prefix}:{{{tag(room)}}}:cid:{len(user)}:{user}:{cid}"

    def nonce(self, room: str, user: str, nonce: str) -> str:
        return f"{self.prefix}:{{{tag(room)}}}:nonce:{len(user)}:{user}:{nonce}"

    def quiet(self, room: str, user: str) -> str:
        return f"{self.prefix}:{{{tag(room)}}}:quiet:{user}"

    def room(self, room: str) -> str:
        return f"{self.prefix}:{{{tag(room)}}}:room"

    def members(self, room: str) -> str:
        return f"{self.prefix}:{{{tag(room)}}}:members"

    def hush(self, room: str, user: str) -> str:
        return f"{self.prefix}:{{{tag(room)}}}:hush:{user}"

    def all_of(self, room: str) -> list[str]:
        """What there is of a room: its record, its members, who is present, and all that goes with the room."""
        return [self.room(room), self.members(room), self.present(room), *self.history(room)]

    def outbox(self, room: str) -> str:
        """What the application is still to be told of a room."""
        return f"{self.prefix}:{{{tag(room)}}}:outbox"

    def hooked(self, shard: int) -> str:
        return f"{self.prefix}:{{hooks:{shard}}}:rooms"

    def hook_holder(self, shard: int) -> str:
        return f"{self.prefix}:{{hooks:{shard}}}:holder"

    def unread_due(self, shard: int) -> str:
        """Sorted set: message as JSON -> the Unix ms at which it is seen who has not read it."""
        return f"{self.prefix}:{{hooks:{shard}}}:unread"

    def rooms_of(self, user: str) -> str:
        """The set of rooms that `user` is a member of."""
        return f"{self.prefix}:{{u:{tag(user)}}}:rooms"

    def blocked_by(self, user: str) -> str:
        """The set of users from whom `user` takes no direct messages, mentions or invitations."""
        return f"{self.prefix}:{{u:{tag(user)}}}:blocked"

    def seen(self, user: str) -> str:
        return f"{self.prefix}:{{u:{tag(user)}}}:seen"

    def cursors(self, user: str) -> str:
        return f"{self.prefix}:{{u:{tag(user)}}}:cursors"

    def all_of_user(self, user: str) -> list[str]:
        """What there is of a user outside of rooms, besides the registry of connections."""
        return [self.rooms_of(user), self.blocked_by(user), self.cursors(user), self.seen(user)]

    def created(self, shard: int) -> str:
        """A shard of the index of created rooms."""
        return f"{self.prefix}:{{created:{shard}}}"

    def registry(self, shard: int) -> str:
        return f"{self.prefix}:{{registry:{shard}}}"

    def rooms(self, lease: str) -> str:
        """The set of rooms in which the node behind `lease` has, or is about to have, somebody present."""
        return f"{self.prefix}:{{node:{lease}}}:rooms"

    def probe(self, lease: str, line: int) -> str:
        """The channel on which a node hears itself; `line` is varied until it lies on the server to be proven."""
        return f"{self.prefix}:{{probe:{lease}:{line}}}"

    def reply(self, request: str) -> str:
        return f"{self.prefix}:{{reply:{request}}}"

    @property
    def due(self) -> str:
        """Rooms in which somebody's leave is to be announced, by the time of it."""
        return f"{self.prefix}:{{nodes}}:due"

    @property
    def copied(self) -> str:
        return f"{self.prefix}:copied"

    @property
    def leases(self) -> str:
        return f"{self.prefix}:{{nodes}}:leases"

    @property
    def nodes(self) -> str:
        return f"{self.prefix}:{{nodes}}:info"

    @property
    def claims(self) -> str:
        return f"{self.prefix}:{{nodes}}:claimed"

    @property
    def revoked(self) -> str:
        return f"{self.prefix}:{{nodes}}:revoked"

    @property
    def measures(self) -> str:
        return f"{self.prefix}:{{nodes}}:measures"

    @property
    def hits(self) -> str:
        return f"{self.prefix}:{{nodes}}:hits"

    @property
    def measured(self) -> str:
        return f"{self.prefix}:{{nodes}}:measured"

    @property
    def sweeper(self) -> str:
        return f"{self.prefix}:{{nodes}}:sweeper"

    @property
    def control(self) -> str:
        return f"{self.prefix}:{{nodes}}:control"

    @property
    def reports(self) -> str:
        return f"{self.prefix}:{{nodes}}:reports"

    @property
    def reported(self) -> str:
        return f"{self.prefix}:{{nodes}}:open"

    @property
    def audit(self) -> str:
        return f"{self.prefix}:{{nodes}}:audit"


def _literal(text: str) -> str:
    """`text` in a pattern of SCAN, standing for itself."""
    return "".join(f"\\{character}" if character in "*?[]\\^-" else character for character in text)
