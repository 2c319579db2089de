"""What the operators have put in force: bans, mutes and the lockdown. Decisions only: no waiting, no clock, no store.

Every node holds all of it and asks here at each handshake, join and message. It is loaded whole from the store, at the
start and again with each renewal of the lease, and a change is taken in before the command that made it returns.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum, StrEnum
from ipaddress import ip_network
from typing import NamedTuple

from .model import Identity, Role
from .rules import Network, within


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
    GUESTS_SILENT = 1  # who only came in by an open door does not speak
    MODERATORS_ONLY = 2  # only moderators and owners speak
    NOBODY_NEW = 3  # nobody new is let in


class Measure(NamedTuple):
    """One ban or mute, as the store carries it: text and numbers only.

    Attributes:
        room: where it holds; "" everywhere.
        until: Unix seconds at which it ends; 0: never.
        by, at: who put it in force, and when, in Unix seconds.
    """

    what: What
    on: On
    target: str
    room: str = ""
    until: float = 0.0
    reason: str = ""
    by: str = ""
    at: float = 0.0

    @property
    def id(self) -> str:
        """Names it: there is one measure of a kind on somebody in a place, and a later one replaces it."""
        return "\0".join((self.what, self.on, self.target, self.room))

    def holds(self, now: float) -> bool:
        return not self.until or now < self.until

    def seconds_left(self, now: float) -> float | None:
        """None: for ever."""
        return self.until - now if self.until else None


class Measures:
    """See the head of this file."""

    def __init__(self) -> None:
        self.lockdown = Lockdown.OPEN
        self._by_id: dict[str, Measure] = {}
        self._networks: list[tuple[Network, Measure]] = []

    def load(self, rows: Iterable[Measure], lockdown: Lockdown) -> None:
        """Replace all that was in force."""
        self._by_id = {row.id: row for row in rows}
        self.lockdown = lockdown
        self._index()

    def impose(self, measure: Measure) -> None:
        self._by_id[measure.id] = measure
        self._index()

    def lift(self, id: str) -> None:
        self._by_id.pop(id, None)
        self._index()

    def forget_ended(self, now: float) -> None:
        if ended := [id for id, measure in self._by_id.items() if not measure.holds(now)]:
            for id in ended:
                del self._by_id[id]
            self._index()

    def all(self) -> list[Measure]:
        return list(self._by_id.values())

    def covering(self, what: What, identity: Identity, address: str, room: str, now: float) -> Measure | None:
        """The measure of this kind that is in force on somebody in `room`, or everywhere; None: there is none.

        Args:
            address: where it comes from; "" where that does not matter.
            room: "" asks only for what holds everywhere.
        """
        if not self._by_id:
            return None
        targets = [(On.USER, identity.user)]
        if identity.token_id is not None:
            targets.append((On.TOKEN, identity.token_id))
        for place in {"", room}:
            for on, target in targets:
                found = self._by_id.get("\0".join((what, on, target, place)))
                if found is not None and found.holds(now):
                    return found
        return self.covering_address(what, address, room, now)

    def covering_address(self, what: What, address: str, room: str, now: float) -> Measure | None:
        """As `covering`, for an address of which nothing else is known."""
        for network, measure in self._networks:
            here = measure.what is what and measure.room in ("", room) and measure.holds(now)
            if here and address and within(address, (network,)):
                return measure
        return None

    @property
    def least_to_speak(self) -> Role:
        """What the lockdown wants of whoever speaks."""
        least = {Lockdown.OPEN: Role.NOBODY, Lockdown.GUESTS_SILENT: Role.MEMBER}
        return least.get(self.lockdown, Role.MODERATOR)

    def _index(self) -> None:
        """Networks are few, and are looked through one by one."""
        self._networks = [
            (ip_network(measure.target, strict=False), measure)
            for measure in self._by_id.values()
            if measure.on is On.ADDRESS
        ]
