"""Where a handshake comes from, as tables: address, origin, token. And the JSON that is made once for all."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from chatd.model import ClientInfo
from chatd.web.origin import Token, client_address, origin_allowed, subprotocol, token_of
from chatd.wire.publication import client_info, head

PROXIES = [ip_network("10.0.0.0/8"), ip_network("fd00::/8")]


@pytest.mark.parametrize(
    ("peer", "forwarded", "address"),
    [
        ("203.0.113.9", [], "203.0.113.9"),
        ("203.0.113.9", ["198.51.100.1"], "203.0.113.9"),  # a stranger's word is worth nothing
        ("10.0.0.1", ["198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", ["127.0.0.1, 198.51.100.1"], "198.51.100.1"),  # what stands left the client wrote itself
        ("10.0.0.1", ["198.51.100.1", "10.0.0.2"], "198.51.100.1"),
        ("fd00::1", ["2001:db8::5"], "2001:db8::5"),
        ("10.0.0.1", ["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        ("10.0.0.1", ["198.51.100.1:4711"], "198.51.100.1"),  # with the client's port, as load balancers may say it
        ("10.0.0.1", ["198.51.100.1", "10.0.0.2:4711"], "198.51.100.1"),
        ("10.0.0.1", ["[2001:db8::5]:4711"], "2001:db8::5"),
        ("10.0.0.1", ["[2001:db8::5]"], "2001:db8::5"),
        (None, ["198.51.100.1"], "198.51.100.1"),
        (None, [], "unix"),
    ],
)
def test_a_client_is_where_the_nearest_trusted_proxy_says(peer: str | None, forwarded: list[str], address: str) -> None:
    assert client_address(peer, forwarded, PROXIES) == address


@pytest.mark.parametrize(
    ("origin", "host", "allowed", "mandatory", "may"),
    [
        (None, "chat.example", (), False, True),
        (None, "chat.example", (), True, False),
        ("https://chat.example", "chat.example", (), True, True),
        ("https://CHAT.example", "chat.EXAMPLE", (), True, True),
        ("https://chat.example:8443", "chat.example", (), True, False),
        ("https://chat.example.evil", "chat.example", (), True, False),
        ("https://evil.example", "chat.example", (), False, False),
        ("null", "null", (), False, False),
        ("null", "", (), False, False),
        ("", "", (), False, False),
        ("http://[::1", "chat.example", (), False, False),
        ("https://[2001:db8::1]:8443", "[2001:db8::1]:8443", (), False, True),
        ("https://chat.example", None, (), False, False),
        ("https://app.example", "chat.example", ("https://app.example",), True, True),
        ("http://app.example", "chat.example", ("https://app.example",), True, False),
        ("https://any.example", "chat.example", ("*",), False, True),
        ("https://any.example", "chat.example", ("*",), True, False),  # a cookie wants the exact origin
    ],
)
def test_a_page_may_connect_when_its_origin_may(
    origin: str | None, host: str | None, allowed: tuple[str, ...], mandatory: bool, may: bool
) -> None:
    assert origin_allowed(origin, host, allowed, mandatory=mandatory) is may


@pytest.mark.parametrize(
    ("origin", "host", "allowed", "may"),
    [
        (None, "evil.example:8000", (), True),  # no browser
        ("http://localhost:8000", "localhost:8000", (), True),
        ("http://127.0.0.1:8000", "127.0.0.1:8000", (), True),
        ("http://[::1]:8000", "[::1]:8000", (), True),
        ("http://evil.example:8000", "evil.example:8000", (), False),  # which its DNS has lead to 127.0.0.1
        ("http://localhost.evil.example:8000", "localhost.evil.example:8000", (), False),
        ("http://chat.local:8000", "chat.local:8000", ("http://chat.local:8000",), True),
    ],
)
def test_where_anybody_may_be_anybody_a_page_of_another_name_may_not_connect(
    origin: str | None, host: str, allowed: tuple[str, ...], may: bool
) -> None:
    assert origin_allowed(origin, host, allowed, mandatory=False, here=True) is may


@pytest.mark.parametrize(
    ("headers", "subprotocols", "token"),
    [
        ({}, [], None),
        ({"authorization": "Bearer abc"}, [], Token("abc", by_cookie=False)),
        ({"authorization": "bearer  abc"}, [], Token("abc", by_cookie=False)),
        ({"authorization": "Basic abc"}, [], None),
        ({}, ["chatd.bearer", "abc"], Token("abc", by_cookie=False)),
        ({}, ["chatd.bearer"], None),
        ({"cookie": "a=1; t=abc"}, [], Token("abc", by_cookie=True)),
        ({"cookie": 't="abc"'}, [], Token("abc", by_cookie=True)),
        (
            {"cookie": 'prefs={"x": 1, "y": [2]}; é; =;; t=abc;u=t=no'},
            [],
            Token("abc", by_cookie=True),
        ),  # others' cookies
        ({"cookie": 't="' + 4000 * "\\0" + '"'}, [], Token(4000 * "\\0", by_cookie=True)),  # no token has escapes
        ({"cookie": "t="}, [], None),
        ({"cookie": "nt=abc"}, [], None),
        ({"authorization": "Bearer abc", "cookie": "t=other"}, [], Token("abc", by_cookie=False)),
    ],
)
def test_a_token_comes_by_header_subprotocol_or_cookie(
    headers: dict[str, str], subprotocols: list[str], token: Token | None
) -> None:
    assert token_of(headers, subprotocols, "t") == token
    assert token_of({"cookie": "t=abc"}, [], "") is None, "no cookie is read when none is named"


def test_the_first_subprotocol_that_we_speak_is_taken() -> None:
    assert subprotocol(["other", "b", "a"], ("a", "b")) == "b"
    assert subprotocol(["other"], ("a",)) is None


def test_a_publication_carries_its_authors_json_untouched_and_who_said_it() -> None:
    info = client_info(ClientInfo('an"a', "c1", conn_info=b'{"x":1}', chan_info=b"2"))
    assert info == b'{"user":"an\\"a","client":"c1","conn_info":{"x":1},"chan_info":2}'
    assert head(b'{"n": 1.50}', info, {"type": "message"}) == (
        b'{"data":{"n": 1.50},"info":' + info + b',"tags":{"type":"message"}'
    )
    assert head(b"1", None, {}) == b'{"data":1'
