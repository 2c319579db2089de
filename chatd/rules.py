"""May this identity do this here, now? Decisions only: no waiting, no clock, no store.

Whatever is refused is refused by raising a Reject of errors.py; silence is consent. Who somebody is was settled in
auth; what a room's settings are comes in as an argument.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

from .errors import PERMISSION_DENIED
from .model import ROLES, SERVER, Grant, Identity, Role, Standing
from .names import dm_members

Network = IPv4Network | IPv6Network

# Sums of seconds in floats are off by less than this for years; without it the last of a burst would come too early.
ROUNDING_S: Final = 1e-6
# Bits of ::ffff:0:0/96, under which IPv6 has the addresses of IPv4.
MAPPED_BITS: Final = 96


def personal_room(user: str) -> str:
    """The channel on which `user`, and nobody else, is told things; subscribed by the server at connect."""
    return f"#{user}"


class Act(Enum):
    """What one can do in a room, as far as rights go."""

    READ = "read"
    SPEAK = "speak"  # and edit and delete one's own, react, type
    INVITE = "invite"
    MODERATE = "moderate"  # delete others', kick, mute, ban, lock, slow down, set the topic
    GOVERN = "govern"  # give roles, open or close the room to the public, delete it


# The least that somebody must be.
LEAST: Final[Mapping[Act, Role]] = {
    Act.READ: Role.GUEST,
    Act.SPEAK: Role.GUEST,
    Act.INVITE: Role.MEMBER,
    Act.MODERATE: Role.MODERATOR,
    Act.GOVERN: Role.OWNER,
}


def role_in(
    identity: Identity,
    room: str,
    *,
    public: bool,
    invited: bool = False,
    member: Role = Role.NOBODY,
    matches: Callable[[str, str], bool],
) -> Role:
    """What `identity` is in `room`: the most of what membership, tokens and an open door make it.

    Args:
        public: any verified user may come in.
        invited: a subscription token for exactly this user and room was shown, or it is in the room already.
        member: what the store says.
        matches: whether a pattern, as in the settings, covers a room.
    """
    if identity is SERVER:
        return Role.OWNER
    if room.startswith("#"):
        return Role.GUEST if room == personal_room(identity.user) else Role.NOBODY
    if room.startswith("dm#"):
        members = dm_members(room)
        return Role.MEMBER if members is not None and identity.user in members else Role.NOBODY
    return max(member, granted(identity.grants, room, matches), Role.GUEST if public or invited else Role.NOBODY)


def require(act: Act, role: Role, room: str) -> None:
    """Refuse whoever is less in `room` than `act` takes.

    Raises:
        Reject 103.
    """
    if role is Role.NOBODY:
        raise PERMISSION_DENIED.because(_closed(room))
    if role < LEAST[act]:
        raise PERMISSION_DENIED.because(f"to {act.value} here takes the role {LEAST[act].word}, yours is {role.word}")


def _closed(room: str) -> str:
    if room.startswith("#"):
        return "this is the personal channel of somebody else, and nobody else reads it"
    if room.startswith("dm#"):
        return "this direct room is between two others"
    return "this room needs an invitation: a membership, a subscription token, or a `rooms` claim"


def require_above(role: Role, target: Role) -> None:
    """Refuse whoever would act on somebody who is as much as he is, or more.

    Raises:
        Reject 103.
    """
    if role <= target:
        raise PERMISSION_DENIED.because(f"a {role.word} acts on those who are less than that in this room")


def may_speak(room: str, role: Role) -> None:
    """Refuse whoever may not say anything in `room`.

    Raises:
        Reject 103.
    """
    if room.startswith("#") and role is not Role.OWNER:
        raise PERMISSION_DENIED.because("only the server writes into personal channels")
    require(Act.SPEAK, role, room)


def granted(grants: Iterable[Grant], room: str, matches: Callable[[str, str], bool]) -> Role:
    """The most that tokens give in `room`."""
    return max((grant.role for grant in grants if matches(grant.pattern, room)), default=Role.NOBODY)


def reads_above(history_for: str, standing: Standing, role: Role, came_at: int | None) -> int:
    """The offset above which one may read a room's history; 0: all of it.

    Args:
        history_for: the setting rooms.*.history_for.
        role: by all that is known, where `standing` has what the store holds.
        came_at: offset at which this connection subscribed; None: it has not.
    """
    if history_for == "all" or role >= Role.MODERATOR:
        return 0
    if history_for == "none":
        return standing.top.offset
    if standing.role is not Role.NOBODY:
        return standing.since
    return standing.top.offset if came_at is None else came_at


def may_create(least: str, granted: Role) -> None:
    """Refuse whoever may not create rooms of a pattern.

    Args:
        least: the setting rooms.*.create.
        granted: what tokens give in such a room.
    Raises:
        Reject 103.
    """
    if least == "nobody":
        raise PERMISSION_DENIED.because("such rooms are not created by clients; the application's back end can do it")
    if least != "anybody" and granted < ROLES[least]:
        raise PERMISSION_DENIED.because(f"to create such a room takes a token that makes you {least} there")


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


# A handshake asks the same of its address several times, and everybody behind one proxy or in one house the same again.
@lru_cache(64)
def networks(texts: tuple[str, ...]) -> tuple[Network, ...]:
    """Addresses and networks of the settings, which has checked them."""
    return tuple(map(parsed_network, texts))


@lru_cache(256)
def network_of(address: str) -> str:
    """What counts as one place: the address itself, or the /64 of an IPv6 address (a customer's whole allotment)."""
    try:
        parsed = parsed_address(address)
    except ValueError:
        return address
    return str(parsed) if isinstance(parsed, IPv4Address) else str(ip_network((parsed, 64), strict=False))


def within(address: str, networks: Iterable[Network]) -> bool:
    """Whether `address` lies in one of `networks`; something that is no address (a unix socket's peer) does not."""
    try:
        parsed = parsed_address(address)
    except ValueError:
        return False
    return any(parsed in network for network in networks)


@lru_cache(256)
def parsed_address(address: str) -> IPv4Address | IPv6Address:
    """An address; one of IPv4 that came in over IPv6 (RFC 4291, 2.5.5.2) is an address of IPv4.

    Raises:
        ValueError: it is no address.
    """
    parsed = ip_address(address)
    return getattr(parsed, "ipv4_mapped", None) or parsed


def parsed_network(text: str) -> Network:
    """An address or network; one of IPv4 that is written as IPv6 is one of IPv4, as in parsed_address.

    Raises:
        ValueError: it is neither.
    """
    network = ip_network(text, strict=False)
    mapped = getattr(network.network_address, "ipv4_mapped", None)
    if mapped is None or network.prefixlen < MAPPED_BITS:
        return network
    return ip_network((mapped, network.prefixlen - MAPPED_BITS))
