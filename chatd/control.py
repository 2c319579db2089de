"""What an operator may ask of the cluster, and the answers: one vocabulary for the CLI, the HTTP API and the nodes.

A question is put to every node; each answers with a JSON object; the answers are put together here. Pure: who carries
questions and answers is the store's business, what a node does about them the node's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from enum import IntEnum
from typing import Any, TypeAlias, get_args

SCHEMA_VERSION = 1
Object: TypeAlias = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Status:
    """How are you? Answered with one entry of `nodes` in `chatd status --json`."""


@dataclass(frozen=True, slots=True)
class Alive:
    """Are you there?"""


@dataclass(frozen=True, slots=True)
class Who:
    """Who is connected? Narrowed by whichever is not empty; `address` is an address or a network."""

    room: str = ""
    user: str = ""
    address: str = ""


@dataclass(frozen=True, slots=True)
class Rooms:
    """Which rooms have readers, and how many?"""


@dataclass(frozen=True, slots=True)
class Granted:
    """What is the most that the tokens of `user`, as far as he is connected, make of him in `room`? A role's number."""

    room: str
    user: str


@dataclass(frozen=True, slots=True)
class Kick:
    """Throw out whoever matches: `target` is a user or a connection id, `address` an address or a network.

    With `room` they are put out of that room only. With `revoke` their tokens end as well. With `client` only that
    connection of theirs goes; connections in `keep` stay. `code` is the goodbye's, 0 for the usual one. `rank` is what
    a room's moderator is there: `target` is a user then, and whom a token makes as much stays; 0: an operator's.
    """

    target: str = ""
    address: str = ""
    room: str = ""
    reason: str = ""
    revoke: bool = False
    client: str = ""
    keep: tuple[str, ...] = ()
    code: int = 0
    rank: int = 0


@dataclass(frozen=True, slots=True)
class Enter:
    """Make the connections of `user`, or only `client` of them, readers of `room`; they cannot leave by themselves.

    With an `epoch` they are sent what came after `offset`, where history still has it.
    """

    user: str
    room: str
    client: str = ""
    epoch: str = ""
    offset: int = 0


@dataclass(frozen=True, slots=True)
class Revoke:
    """A token, or all tokens of a user until now, or of a key, no longer count: a row of auth.Revocations, see there.

    The asker has written it down before; each node takes it in and closes whoever it covers.
    """

    kind: str
    id: str
    until: float
    issued_before: float = 0.0


@dataclass(frozen=True, slots=True)
class Impose:
    """A measure comes into force: a row of measures.Measure, see there. Whoever may not stay because of it goes.

    `version`, here and below: the store's number of this change.
    """

    version: int
    what: str
    on: str
    target: str
    room: str = ""
    until: float = 0.0
    reason: str = ""
    by: str = ""
    at: float = 0.0
    rank: int = 0


@dataclass(frozen=True, slots=True)
class Lift:
    """A measure is in force no longer."""

    version: int
    what: str
    on: str
    target: str
    room: str = ""


@dataclass(frozen=True, slots=True)
class Lock:
    """The lockdown has this level from now on, see measures.Lockdown."""

    version: int
    level: int


@dataclass(frozen=True, slots=True)
class Recheck:
    """Rights in `room` have changed, of `user` or (with "") of all: whoever may not read it any more is put out."""

    room: str
    user: str = ""


@dataclass(frozen=True, slots=True)
class Drain:
    """The node of this id lets nobody in any more, and tells everybody to come back elsewhere over so many seconds.

    Negative: as its settings say. It is answered once nobody is let in; `Status` tells how far it has come.
    """

    node: str
    over: float = -1.0


@dataclass(frozen=True, slots=True)
class Undrain:
    """The node of this id lets people in again."""

    node: str


@dataclass(frozen=True, slots=True)
class Relay:
    """At the node of this id, a client said `data`, who has no WebSocket and whose request came to another node.

    `session` is its session's secret, `data` bytes as characters of Latin-1. Answered with `heard`, as Heard has it.
    """

    node: str
    session: str
    data: str


class Heard(IntEnum):
    """What became of a client's word that came by a request of its own."""

    NOBODY = 0  # there is no such session
    TOO_MUCH = 1  # it waits for too many answers
    YES = 2  # or a goodbye is on its way to it


Question: TypeAlias = (
    Status
    | Alive
    | Who
    | Rooms
    | Granted
    | Kick
    | Enter
    | Revoke
    | Impose
    | Lift
    | Lock
    | Recheck
    | Drain
    | Undrain
    | Relay
)
_QUESTIONS: Mapping[str, Any] = {kind.__name__.lower(): kind for kind in get_args(Question)}


def encode(question: Question) -> Object:
    return {"ask": type(question).__name__.lower(), **asdict(question)}


# What a field's annotation allows in JSON, where a whole number of seconds has no fraction.
_JSON_TYPES: Mapping[object, tuple[type, ...]] = {
    "str": (str,), "bool": (bool,), "int": (int,), "float": (float, int), "tuple[str, ...]": (list, tuple),
}  # fmt: skip


def decode(question: object) -> Question:
    """The question that `encode` made.

    Raises:
        ValueError: of no known kind, with unknown parts (a newer chatd asked), or with a part of the wrong type.
    """
    parts = dict(question) if isinstance(question, Mapping) else {}
    kind = _QUESTIONS.get(str(parts.pop("ask", None)))
    if kind is None:
        raise ValueError(f"expected a question of this version's control, {question!r:.100} came")
    for field in fields(kind):
        if field.name in parts and type(parts[field.name]) not in _JSON_TYPES[field.type]:
            raise ValueError(f"{kind.__name__}.{field.name} must be {field.type}, {parts[field.name]!r:.100} came")
    given: dict[str, Any] = {name: tuple(part) if isinstance(part, list) else part for name, part in parts.items()}
    try:
        asked: Question = kind(**given)
        return asked
    except TypeError as error:
        raise ValueError(str(error)) from None


def changes_something(question: Question) -> bool:
    """Whether the question is an act, to be written into the audit stream."""
    return isinstance(question, Kick | Revoke | Impose | Lift | Lock | Drain | Undrain)


def must_be_heard(question: Question) -> bool:
    """Whether an act changes nothing that is in force, by which a node that did not hear of it would learn of it."""
    return isinstance(question, Kick | Enter)


def only_looks(question: Question) -> bool:
    """Whether nobody relies, once it is answered, on what the answering node sends no more."""
    return isinstance(question, Status | Alive | Who | Rooms | Granted | Relay)


@dataclass(frozen=True, slots=True)
class Answers:
    """What the nodes said: node id to its answer.

    Attributes:
        missing: the ids of those alive that did not answer in time; and where one had to hear it, as `must_be_heard`
            says, of those too that may be alive and only cut off from the store.
    """

    by_node: Mapping[str, Object]
    missing: tuple[str, ...] = ()

    @property
    def closed(self) -> int:
        """How many connections went, of answers that count them."""
        return sum(answer["closed"] for answer in self.by_node.values())

    @property
    def silent(self) -> Object:
        """What a reply says of the missing: nothing where there are none, so that no part is taken for the whole."""
        return {"silent": sorted(self.missing)} if self.missing else {}


def node_of(lease: str) -> str:
    """The id of the node behind a lease: a node that was given up for dead goes on under another lease."""
    return lease.rpartition(".")[0] or lease


def status(answers: Answers, registered: Iterable[tuple[str, str]]) -> Object:
    """The reply to `chatd status --json`.

    Args:
        registered: (user, node id) of each connection that the registry holds on nodes alive; users are counted over
            all of it, the silent nodes' included, so that a node that hangs does not make its users vanish.
    """
    entries = list(registered)
    nodes = [dict(answer["node"]) for answer in answers.by_node.values()]
    silent = [
        {"id": node, "state": "silent", "connections": sum(1 for _, n in entries if n == node)}
        for node in answers.missing
    ]
    rooms = {room for answer in answers.by_node.values() for room in answer["rooms"]}
    return {
        "schema_version": SCHEMA_VERSION,
        "cluster": {
            "nodes": len(nodes) + len(silent),
            "connections": sum(node["connections"] for node in [*nodes, *silent]),
            "users": len({user for user, _ in entries}),
            "rooms": len(rooms),
            "lockdown": max((answer.get("lockdown", 0) for answer in answers.by_node.values()), default=0),
        },
        "nodes": sorted([*nodes, *silent], key=lambda node: str(node["id"])),
    }


def who(answers: Answers) -> Object:
    """The reply to `chatd who --json`, longest connected first."""
    connections = [entry for answer in answers.by_node.values() for entry in answer["connections"]]
    return {
        "schema_version": SCHEMA_VERSION,
        "connections": sorted(connections, key=lambda entry: (entry["since"], entry["id"])),
        **answers.silent,
    }


def rooms(answers: Answers) -> Object:
    """The reply to `chatd rooms --json`: readers and users summed over the nodes, fullest first."""
    connections: dict[str, int] = {}
    users: dict[str, set[str]] = {}
    for answer in answers.by_node.values():
        for room, present in answer["rooms"].items():
            connections[room] = connections.get(room, 0) + sum(present.values())
            users.setdefault(room, set()).update(present)
    listed = [{"room": room, "connections": n, "users": len(users[room])} for room, n in connections.items()]
    listed.sort(key=lambda entry: (-int(str(entry["connections"])), str(entry["room"])))
    return {"schema_version": SCHEMA_VERSION, "rooms": listed, **answers.silent}


def kicked(answers: Answers) -> Object:
    """The reply to `chatd kick --json`: how many sockets, on which nodes; nodes without any are left out."""
    by_node = {node: answer["closed"] for node, answer in answers.by_node.items() if answer["closed"]}
    return {
        "schema_version": SCHEMA_VERSION,
        "closed": answers.closed,
        "nodes": by_node,
        **answers.silent,
    }
