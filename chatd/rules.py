"""May this identity do this here, now? Decisions only: no waiting, no clock, no store.

Whatever is refused is refused by raising a Reject of errors.py; silence is consent. Who somebody is was settled in
auth.py; what a room's settings are comes in as an argument.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

from .errors import PERMISSION_DENIED
from .model import Grant, Identity
from .names import dm_members

Network = IPv4Network | IPv6Network

# Sums of seconds in floats are off by less than this for years; without it the last of a burst would come too early.
ROUNDING_S: Final = 1e-6


def personal_room(user: str) -> str:
    """The channel on which `user`, and nobody else, is told things; subscribed by the server at connect."""
    return f"#{user}"


def may_enter(
    identity: Identity, room: str, *, public: bool, invited: bool, matches: Callable[[str, str], bool]
) -> None:
    """Refuse whoever may not read `room`.

    Args:
        public: the room's settings let any verified user in.
        invited: a subscription token for exactly this user and room was shown.
        matches: whether a pattern, as in the settings, covers a room.
    Raises:
        Reject 103.
    """
    if room.startswith("#"):
        allowed = room == personal_room(identity.user)
    elif room.startswith("dm#"):
        members = dm_members(room)
        allowed = members is not None and identity.user in members
    else:
        allowed = public or invited or granted(identity.grants, room, matches)
    if not allowed:
        raise PERMISSION_DENIED.because("this room needs an invitation: a subscription token, or a `rooms` claim")


def may_post(identity: Identity, room: str, *, public: bool, joined: bool, matches: Callable[[str, str], bool]) -> None:
    """Refuse whoever may not write into `room`; `joined`: this connection is in the room already.

    Raises:
        Reject 103.
    """
    if room.startswith("#"):
        raise PERMISSION_DENIED.because("only the server writes into personal channels")
    may_enter(identity, room, public=public, invited=joined, matches=matches)


def granted(grants: Iterable[Grant], room: str, matches: Callable[[str, str], bool]) -> bool:
    return any(matches(grant.pattern, room) for grant in grants)


def pace(due: float, now: float, cost: float, rate: float, burst: float) -> tuple[float, float]:
    """Charge `cost` to an allowance of `rate` a second with bursts of `burst` (the generic cell rate algorithm).

    The whole state is one number, so that a connection that says nothing costs nothing: the time at which the allowance
    would be full again.

    Args:
        due: that time, in the seconds of `now`; 0.0 for somebody new.
        rate: 0 for no limit.
    Returns:
        The new state, and how many seconds too early this was: 0.0 when it is allowed at once. A caller that refuses
        keeps the old state.
    """
    if rate <= 0:
        return due, 0.0
    full_at = max(due, now) + cost / rate
    early = full_at - now - max(burst, cost) / rate
    return full_at, early if early > ROUNDING_S else 0.0


@lru_cache(64)
def networks(texts: tuple[str, ...]) -> tuple[Network, ...]:
    """Addresses and networks of the settings, which has checked them; remembered, as each handshake asks."""
    return tuple(ip_network(text) for text in texts)


def network_of(address: str) -> str:
    """What counts as one place: the address itself, or the /64 of an IPv6 address (a customer's whole allotment)."""
    try:
        parsed = _parsed(address)
    except ValueError:
        return address
    return str(parsed) if isinstance(parsed, IPv4Address) else str(ip_network((parsed, 64), strict=False))


def within(address: str, networks: Iterable[Network]) -> bool:
    """Whether `address` lies in one of `networks`; something that is no address (a unix socket's peer) does not."""
    try:
        parsed = _parsed(address)
    except ValueError:
        return False
    return any(parsed in network for network in networks)


def _parsed(address: str) -> IPv4Address | IPv6Address:
    """An address; one of IPv4 that came in over IPv6 (RFC 4291, 2.5.5.2) is an address of IPv4."""
    parsed = ip_address(address)
    return getattr(parsed, "ipv4_mapped", None) or parsed
