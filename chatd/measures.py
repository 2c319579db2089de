"""What the operators have put in force: bans, mutes and the lockdown. Decisions only: no waiting, no clock, no store.

Every node holds all of it and asks here at each handshake, join and message. It is loaded whole from the store, at the
start and whenever a renewal of the lease shows that we missed something, and a change is taken in before the command
that made it returns.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from enum import IntEnum, StrEnum
from ipaddress import ip_network
from typing import Final, NamedTuple

from .model import Identity, Role
from .rules import Network, parsed_address, parsed_network

# Seconds that a measure may last, a hundred years; what is to last longer lasts for ever. Who meets one is told in
# milliseconds how much of it is left, and neither JSON nor calendars have room for any number.
LONGEST_S: Final = 100 * 365.25 * 86400
# What nobody means as a user: four numbers with dots between, numbers with a slash, hexadecimal digits and two colons.
LIKE_A_NETWORK: Final = re.compile(
    r"\d+(\.\d+){3}|[\d.]+/[\d.]*|[\da-f.]*:[\da-f.]*:[\da-f.:]*(/\d*)?", re.ASCII | re.IGNORECASE
)


class What(StrEnum):
    """What a measure forbids: being there, or speaking."""

    BAN = "ban"
    MUTE = "mute"


class On(StrEnum):
    """Whom a measure is on: a user, an address or network, or a token's `jti`."""

    USER = "user"
    ADDRESS = "address"
    TOKEN = "token"  # noqa: S105


class Lockdown(IntEnum):
    """How far the operators have closed the cluster; each level includes those before it."""

    OPEN = 0
    GUESTS_SILENT = 1  # who only came in by an open door does not speak, nor becomes more than that
    MODERATORS_ONLY = 2  # only moderators and owners speak
    NOBODY_NEW = 3  # nobody new is let in


class Measure(NamedTuple):
    """One ban or mute, as the store carries it: text and numbers only.

    Attributes:
        room: where it holds; "" everywhere.
        until: Unix seconds at which it ends; 0: never.
        by, at: who put it in force, and when, in Unix seconds.
        rank: what its author was in the room; whom a token makes as much there it does not cover. 0: an operator's.
    """

    what: What
    on: On
    target: str
    room: str = ""
    until: float = 0.0
    reason: str = ""
    by: str = ""
    at: float = 0.0
    rank: int = Role.NOBODY

    @property
    def id(self) -> str:
        """Names it: there is one measure of a kind on somebody in a place, and a later one replaces it."""
        return "\0".join((self.what, self.on, self.target, self.room))

    def holds(self, now: float) -> bool:
        return not self.until or now < self.until

    def covers(self, role: Role) -> bool:
        """Whether it reaches somebody whose tokens give this role in its room."""
        return self.rank == Role.NOBODY or role < self.rank

    def seconds_left(self, now: float) -> float | None:
        """None: for ever."""
        return self.until - now if self.until else None


def target_of(text: str) -> tuple[On, str]:
    """Whom an operator means: `token:JTI`, an address or network, else a user; `user:` before any id says so.

    Raises:
        ValueError: nobody is named, or what looks like an address or a network is none.
    """
    kind, colon, rest = text.partition(":")
    if colon and kind in (On.USER, On.TOKEN):
        on, target = On(kind), rest
    else:
        network = _network(text)
        if network is None and LIKE_A_NETWORK.fullmatch(text):
            raise ValueError(f"expected an address or a network, got {text!r}; a user of this name is user:{text}")
        on, target = (On.USER, text) if network is None else (On.ADDRESS, str(network))
    if not target:
        raise ValueError(f"expected a user, an address or network, or token:JTI, got {text!r}")
    return on, target


class Measures:
    """See the head of this file.

    The store numbers changes in their order. What is here has all changes up to `version`, so that one that comes late,
    or before those ahead of it, is noticed; then whoever holds this reads all anew.
    """

    def __init__(self) -> None:
        self.version = 0
        self.lockdown = Lockdown.OPEN
        self._by_id: dict[str, Measure] = {}
        self._by_network: dict[int, dict[Network, list[Measure]]] = {}

    # --- changes ------------------------------------------------------------------------------------------------------

    def load(self, rows: Iterable[Measure], lockdown: Lockdown, version: int, *, asked_at: int) -> list[Measure]:
        """Replace all that was in force by what the store said; returns what is new.

        Args:
            version: the store's at its answer; `asked_at`: ours when we asked. An answer that we have got beyond since
                then is left alone. One below where we were is not late: the store has lost something.
        """
        if asked_at <= version < self.version:
            return []
        before, self._by_id = self._by_id, {row.id: row for row in rows}
        self.lockdown, self.version = lockdown, version
        self._index()
        return [row for id, row in self._by_id.items() if before.get(id) != row]

    def impose(self, measure: Measure, version: int) -> bool:
        """Take in the change of this number; False: it is not the next, and all must be read anew."""
        if not self._next(version):
            return False
        self._by_id[measure.id] = measure
        self._index()
        return True

    def lift(self, id: str, version: int) -> bool:
        """As impose."""
        if not self._next(version):
            return False
        self._by_id.pop(id, None)
        self._index()
        return True

    def lock_down(self, level: Lockdown, version: int) -> bool:
        """As impose."""
        if not self._next(version):
            return False
        self.lockdown = level
        return True

    def _next(self, version: int) -> bool:
        if version != self.version + 1:
            return False
        self.version = version
        return True

    def forget_ended(self, now: float) -> int:
        """Let go of what has ended; how many these were."""
        ended = [id for id, measure in self._by_id.items() if not measure.holds(now)]
        for id in ended:
            del self._by_id[id]
        if ended:
            self._index()
        return len(ended)

    def _index(self) -> None:
        """Networks by the length of their prefix: an address is looked up once for each length there is."""
        self._by_network = {}
        for measure in self._by_id.values():
            network = _network(measure.target) if measure.on is On.ADDRESS else None
            if network is not None:
                self._by_network.setdefault(network.prefixlen, {}).setdefault(network, []).append(measure)

    # --- questions ----------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._by_id)

    def all(self) -> list[Measure]:
        return list(self._by_id.values())

    def get(self, id: str) -> Measure | None:
        return self._by_id.get(id)

    def covering(
        self, what: What, identity: Identity, address: str, room: str, now: float, *, role: Role = Role.NOBODY
    ) -> Measure | None:
        """The measure of this kind that is in force on somebody in `room`, or everywhere; None: there is none.

        Args:
            address: where it comes from; "" where that does not matter.
            room: "" asks only for what holds everywhere.
            role: what tokens make it in `room`.
        """
        if not self._by_id:
            return None
        targets = [(On.USER, identity.user)]
        if identity.token_id is not None:
            targets.append((On.TOKEN, identity.token_id))
        for place in ("", room):
            for on, target in targets:
                found = self._by_id.get("\0".join((what, on, target, place)))
                if found is not None and found.holds(now) and found.covers(role):
                    return found
        return self.covering_address(what, address, room, now, role=role)

    def covering_address(
        self, what: What, address: str, room: str, now: float, *, role: Role = Role.NOBODY
    ) -> Measure | None:
        """As `covering`, for an address of which nothing else is known."""
        for measure in self._at(address) if address and self._by_network else ():
            if measure.what is what and measure.room in ("", room) and measure.holds(now) and measure.covers(role):
                return measure
        return None

    def _at(self, address: str) -> Iterator[Measure]:
        try:
            parsed = parsed_address(address)
        except ValueError:  # a unix socket's peer
            return
        for length, networks in self._by_network.items():
            if length <= parsed.max_prefixlen:
                yield from networks.get(ip_network((parsed, length), strict=False), ())

    @property
    def least_to_speak(self) -> Role:
        """What the lockdown wants of whoever speaks."""
        least = {Lockdown.OPEN: Role.NOBODY, Lockdown.GUESTS_SILENT: Role.MEMBER}
        return least.get(self.lockdown, Role.MODERATOR)


def _network(text: str) -> Network | None:
    """None: it is neither an address nor a network."""
    try:
        return parsed_network(text)
    except ValueError:
        return None
