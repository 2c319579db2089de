"""Where a handshake comes from: which address, which page, with which token. Pure: headers in, answers out.

Nothing is decided here on the request's URL, which the Host header can make up.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from typing import NamedTuple
from urllib.parse import SplitResult, urlsplit

from chatd.rules import Network, within
from chatd.settings import is_loopback

# A client that cannot set headers, a browser, offers this subprotocol and then the token.
BEARER = "chatd.bearer"


class Token(NamedTuple):
    """A token and how it came: a cookie is sent by browsers unasked, so it counts only with an allowed origin."""

    text: str
    by_cookie: bool


def client_address(peer: str | None, forwarded: Sequence[str], trusted: Iterable[Network]) -> str:
    """The client's address: the peer's, or what the nearest trusted proxies say of it.

    Args:
        peer: address of the TCP peer; None on a unix socket, whose file modes say who may connect: it is trusted.
        forwarded: values of X-Forwarded-For, in order.
        trusted: networks whose word is believed.
    Returns:
        The rightmost address that no trusted proxy vouches to be another proxy: everything left of it anybody could
        have written. Of the client's port, which some proxies say too, nothing is left: each connection has another.
    """
    networks = list(trusted)
    hops = [_without_port(hop.strip()) for value in forwarded for hop in value.split(",") if hop.strip()]
    address = peer or "unix"
    while hops and (address == "unix" or within(address, networks)):
        address = hops.pop()
    return address


def _without_port(hop: str) -> str:
    """The address of 192.0.2.1:4711, [2001:db8::1]:4711 or [2001:db8::1]; anything else as it is."""
    if hop.startswith("["):
        return hop[1:].partition("]")[0]
    host, _, port = hop.partition(":")
    return host if port.isdecimal() else hop


def origin_allowed(
    origin: str | None, host: str | None, allowed: Sequence[str], *, mandatory: bool, here: bool = False
) -> bool:
    """Whether a page may connect (RFC 6455, 10.2; a page of another site must not act with a visitor's cookie).

    Args:
        origin: the Origin header; None for programs that are no browsers.
        allowed: exact origins, or "*"; empty: only pages of the host asked for.
        mandatory: a cookie speaks for the visitor, so somebody must say where the page is from.
        here: only pages of this very machine, where none are allowed by name: a site can have its own name lead to a
            visitor's loopback address (DNS rebinding), and so be of the host asked for.
    """
    if origin is None:
        return not mandatory
    if not allowed:
        page = _page(origin)
        if page is None or host is None or page.netloc.lower() != host.lower():
            return False
        return not here or is_loopback(page.hostname or "")
    return origin in allowed or ("*" in allowed and not mandatory)


def _page(origin: str) -> SplitResult | None:
    """Where a page came from; None: from nowhere, as with the Origin "null", or from what is no address."""
    try:
        page = urlsplit(origin)
    except ValueError:
        return None
    return page if page.netloc else None


def token_of(headers: Mapping[str, str], subprotocols: Sequence[str], cookie: str) -> Token | None:
    """The token that came with a handshake: Authorization, else the subprotocol pair, else the cookie."""
    scheme, _, credentials = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and credentials.strip():
        return Token(credentials.strip(), by_cookie=False)
    if BEARER in subprotocols:
        after = subprotocols[subprotocols.index(BEARER) + 1 :]
        return Token(after[0], by_cookie=False) if after else None
    if cookie and (found := _cookie(headers.get("cookie", ""), cookie)):
        return Token(found, by_cookie=True)
    return None


def subprotocol(offered: Sequence[str], supported: Container[str]) -> str | None:
    """The first of the client's subprotocols that we speak; None: none, which is no reason to refuse."""
    return next((name for name in offered if name in supported), None)


def _cookie(header: str, name: str) -> str:
    """The value of the last cookie of this name; "" if there is none.

    Not by http.cookies: one pair that it does not like, which may be another application's, makes it pass over all of
    them; and undoing escapes, which no token has, took it 0.4 s for 8 KiB (CPython before 3.11.10 and 3.12.6).
    """
    pairs = (pair.partition("=") for pair in header.split(";"))
    values = [value.strip() for found, _, value in pairs if found.strip() == name]
    return values[-1].strip('"') if values else ""
