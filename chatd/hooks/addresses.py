"""Which addresses a hook may go to: the internet's, not those of our own network, unless the settings allow it.

A hook's URL comes from the operator, but what its name leads to is said by whoever runs its DNS. Without this, that
could be the cloud's metadata service or the database next door.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Final

# RFC 6052: the IPv4 address stands in the last four bytes, and a gateway speaks to it for us.
NAT64: Final = ip_network("64:ff9b::/96")


def is_public(address: str) -> bool:
    """Whether `address` is one of the internet's; so is what an IPv4 address within an IPv6 one must be."""
    parsed = ip_address(address.partition("%")[0])
    inner = [] if isinstance(parsed, IPv4Address) else _within(parsed)
    return all(each.is_global and not each.is_multicast for each in (parsed, *inner) if each is not None) and (
        "%" not in address
    )


def _within(address: IPv6Address) -> list[IPv4Address | None]:
    """IPv4 addresses that an IPv6 one leads to (RFC 4291, 2.5.5.2; RFC 3056; RFC 4380; RFC 6052)."""
    server, client = address.teredo or (None, None)
    translated = IPv4Address(int(address) & 0xFFFFFFFF) if address in NAT64 else None
    return [address.ipv4_mapped, address.sixtofour, server, client, translated]
