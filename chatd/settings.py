"""Every setting of chatd, declared once: its default, its unit, its explanation; and the only reader of them.

A setting's TOML key is its attribute's name, its variable `CHATD_SECTION__KEY`; `config/chatd.toml`, which is also the
manual, is rendered from the declarations. Values come from, the later the stronger: the defaults, one file, systemd's
credentials, the environment, flags. What is here is judged as far as it can be without a network; what a key or an
address is good for is auth's, web's and store's to know. The log is not touched: errors are sentences for the caller.

The file reads from top to bottom: kinds of values, declarations, reading, judging, rendering.
"""

# ruff: noqa: RUF009
# option() returns a dataclass field, as field() does; ruff cannot know that where a field's type is one of our aliases.

from __future__ import annotations

import ipaddress
import json
import math
import os
import re
import textwrap
import tomllib
from collections import ChainMap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import Field, dataclass, field, fields, replace
from datetime import UTC, date, datetime
from functools import lru_cache, partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, TypeAlias, TypeVar

DEFAULT_FILE = Path("/etc/chatd/chatd.toml")

# RFC 7518, 3.2: a key must be at least as long as the hash it is used with.
HMAC_KEY_BYTES = {"HS256": 32, "HS384": 48, "HS512": 64}
ALGORITHMS = (*HMAC_KEY_BYTES, "RS256", "ES256", "EdDSA")
# What the application can be told.
HOOK_EVENTS = ("message", "join", "leave", "undelivered", "report", "ban")
# 160 bits: nobody guesses one, however fast the API answers.
API_KEY_BYTES = 20
KEY_SOURCES = ("secret", "secret_file", "public_key_file", "jwks_file", "jwks_url")

REDIS_SCHEMES = ("redis://", "rediss://", "unix://", "redis+sentinel://", "redis+cluster://")

# NGINX, the Elastic Load Balancers and many home routers wait so long; mobile networks about as long.
PATIENCE_OF_NATS_S = 60.0

# Attackers choose room names, so what is remembered of them is bounded: at 255 bytes a name about 2 MiB.
REMEMBERED_ROOMS = 4096

HEAD = """\
# The settings of chatd. Every one is here, at its default, with its explanation: delete what you do not change.
#
# chatd reads /etc/chatd/chatd.toml, or else the one file named by --config or by CHATD_CONFIG. On top of it come
#   1. systemd credentials: "chatd.jwt-secret" (a key for HS256), "chatd.redis-url", "chatd.tls-certificate" and
#      "chatd.tls-key", which systemd copies at the start and not again;
#   2. the environment: CHATD_LIMITS__FRAME=128KiB is limits.frame; lists are separated by commas; tables such as
#      [[auth.keys]] and [rooms] stand in the file only;
#   3. flags such as --port.
# `chatd config check` tells what is wrong, `chatd config show --origin` what holds and where it came from.
#
# Durations: "150ms", "25s", "10m", "12h", "30d", or a bare number of seconds. Sizes: "64KiB", "1MiB", or a bare number
# of bytes. Settings marked (reload) also change on SIGHUP (`systemctl reload chatd`); the others want a restart.

"""


class SettingsError(Exception):
    """One sentence for the operator: where, what was expected, what came, what to do. Never holds a secret."""


# --- kinds of values --------------------------------------------------------------------------------------------------

Seconds: TypeAlias = float
"""A duration: "150ms", "25s", "10m", "12h", "30d", or a bare number of seconds."""

Bytes: TypeAlias = int
"""A size: "64KiB", "1MiB", "2GiB", "100B", or a bare number of bytes."""

Rate: TypeAlias = float
"""So many a second; fractions are allowed."""

Networks: TypeAlias = tuple[str, ...]
"""Addresses and CIDR ranges, each as `ipaddress.ip_network` writes and reads it."""

Origins: TypeAlias = tuple[str, ...]
"""Origins as browsers send them (RFC 6454, 7): scheme, host and port, without a path; or "*"."""

File: TypeAlias = str
"""A path; relative ones start at the directory of the file in which they stand."""

Texts: TypeAlias = tuple[str, ...]
"""Any texts; what they are is said with each."""

Listen: TypeAlias = str
"""Where to listen: host:port, [v6]:port, unix:/path; empty: nowhere."""


Moment: TypeAlias = str
"""A date or a time in ISO 8601; a bare date is its beginning, and UTC where it names no zone. Empty: none."""


class Mode(int):
    """A file's permissions; a kind of its own, for it is written in base 8."""

    __slots__ = ()


MS_BY_UNIT = {"d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1000, "ms": 1}
BYTES_BY_UNIT = {"GiB": 1 << 30, "MiB": 1 << 20, "KiB": 1 << 10, "B": 1}


class Secret(str):
    """Text that `repr` and `config show` do not tell."""

    __slots__ = ()

    @property
    def shown(self) -> str:
        return "***" if self else ""

    def __repr__(self) -> str:
        return repr(self.shown)


class Url(Secret):
    """An address that may hold a password, which is not shown; an address we cannot take apart is not shown at all."""

    __slots__ = ()

    @property
    def shown(self) -> str:
        if "://" not in self:
            return super().shown
        # Greedy up to the last @: a password with an unescaped / or @ in it is hidden whole.
        without_user = re.sub(r"://.*@", "://***@", self)
        return re.sub(r"(?i)(password|token|secret|key)=[^&#]*", r"\1=***", without_user)


class Kind(NamedTuple):
    """How values of one kind are read and written.

    Attributes:
        expected: what to write, for the error that says so.
        read: from a TOML value to ours; ValueError when it is something else.
        show: from ours to TOML.
        from_text: from a variable's text to what would have stood in the TOML.
        secret: what came is never repeated in an error.
    """

    expected: str
    read: Callable[[object], object]
    show: Callable[[Any], str]
    from_text: Callable[[str], object]
    secret: bool = False


def _read_text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError
    return value


def _read_secret(value: object) -> Secret:
    return Secret(_read_text(value))


def _read_url(value: object) -> Url:
    return Url(_read_text(value))


def _read_bool(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError
    return value


def _read_whole(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError
    return value


def _read_number(value: object) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        raise ValueError
    return value


def _read_quantity(text: str, units: Mapping[str, int]) -> float:
    """Return the number in `text` times its unit, which must be one of `units`."""
    found = re.fullmatch(r"([0-9]{1,15}(?:\.[0-9]{1,9})?) ?([A-Za-z]+)", text)
    if found is None or found[2] not in units:
        raise ValueError
    return float(found[1]) * units[found[2]]


def _read_seconds(value: object) -> Seconds:
    return _read_quantity(value, MS_BY_UNIT) / 1000 if isinstance(value, str) else float(_read_number(value))


def seconds_in(value: object) -> Seconds:
    """A duration as people and programs write it.

    Raises:
        ValueError: it is none.
    """
    return _read_seconds(value)


def _read_bytes(value: object) -> Bytes:
    return int(_read_quantity(value, BYTES_BY_UNIT)) if isinstance(value, str) else _read_whole(value)


def _read_texts(value: object) -> tuple[str, ...]:
    if not isinstance(value, list | tuple):
        raise ValueError
    return tuple(map(_read_text, value))


def _read_networks(value: object) -> Networks:
    # Strict: "10.0.0.1/8" may mean the one address or the whole network, and whom to believe is not ours to guess.
    return tuple(str(ipaddress.ip_network(text)) for text in _read_texts(value))


def _read_origins(value: object) -> Origins:
    origins = _read_texts(value)
    if not all(re.fullmatch(r"\*|[a-z][a-z0-9+.-]*://[^/?#\s]+", origin) for origin in origins):
        raise ValueError
    return origins


def _read_listen(value: object) -> Listen:
    text = _read_text(value)
    if text:
        host_and_port(text)
    return text


def _read_mode(value: object) -> Mode:
    text = _read_text(value)
    if not re.fullmatch(r"0?[0-7]{3}", text):
        raise ValueError
    return Mode(int(text, 8))


def _read_moment(value: object) -> str:
    if isinstance(value, datetime | date):
        return value.isoformat()
    text = _read_text(value)
    if text:
        moment(text)
    return text


def _read_tables(value: object) -> tuple[Any, ...]:
    if not isinstance(value, tuple):
        raise ValueError
    return value


def _show_text(text: str) -> str:
    # A JSON string is a TOML basic string but for DEL, which TOML wants escaped.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _show_secret(secret: Secret) -> str:
    return _show_text(secret.shown)


def _show_mode(mode: Mode) -> str:
    return _show_text(f"{mode:04o}")


def _show_bool(value: bool) -> str:
    return "true" if value else "false"


def _show_number(number: float) -> str:
    return str(int(number) if number == int(number) else number)


def _show_seconds(seconds: Seconds) -> str:
    ms = round(seconds * 1000, 6)
    unit = next((unit for unit, size in MS_BY_UNIT.items() if ms % size == 0), None)
    if ms == 0:
        return '"0s"'
    return f'"{ms:f}ms"' if unit is None else f'"{int(ms) // MS_BY_UNIT[unit]}{unit}"'


def _show_bytes(size: Bytes) -> str:
    unit = next(unit for unit, factor in BYTES_BY_UNIT.items() if size % factor == 0)
    return str(size) if unit == "B" or size == 0 else f'"{size // BYTES_BY_UNIT[unit]}{unit}"'


def _show_texts(texts: Iterable[str]) -> str:
    return f"[{', '.join(map(_show_text, texts))}]"


def _number_from_text(text: str) -> object:
    """The number in `text`, or the text itself: then it has a unit, or is wrong, which its reader will find."""
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            continue
    return text


def _bool_from_text(text: str) -> object:
    return {"true": True, "false": False}.get(text.lower(), text)


def _texts_from_text(text: str) -> object:
    return [part.strip() for part in text.split(",") if part.strip()]


# By the name of the annotation, which the future import above leaves as it is written.
KINDS: Mapping[str, Kind] = {
    "str": Kind("text", _read_text, _show_text, str),
    "File": Kind("the path of a file", _read_text, _show_text, str),
    "Listen": Kind('host:port, "unix:/path", or nothing', _read_listen, _show_text, str),
    "Mode": Kind('a file mode such as "0660"', _read_mode, _show_mode, str),
    "Secret": Kind("text", _read_secret, _show_secret, str, secret=True),
    "Url": Kind("text", _read_url, _show_secret, str, secret=True),
    "bool": Kind("true or false", _read_bool, _show_bool, _bool_from_text),
    "int": Kind("a whole number", _read_whole, _show_number, _number_from_text),
    "Rate": Kind("a number", _read_number, _show_number, _number_from_text),
    "Seconds": Kind('a duration such as "25s"', _read_seconds, _show_seconds, _number_from_text),
    "Bytes": Kind('a size such as "64KiB"', _read_bytes, _show_bytes, _number_from_text),
    "Networks": Kind(
        'a list of addresses or networks such as ["10.0.0.0/8"]', _read_networks, _show_texts, _texts_from_text
    ),
    "Origins": Kind(
        'a list of origins such as ["https://example.org"], without a path, or ["*"]',
        _read_origins,
        _show_texts,
        _texts_from_text,
    ),
    "Texts": Kind('a list of texts such as ["a", "b"]', _read_texts, _show_texts, _texts_from_text),
    "Moment": Kind('a date such as "2026-12-31" or "2026-12-31T12:00:00Z"', _read_moment, _show_text, str),
    "SigningKeys": Kind("[[signatures.keys]] tables in the file", _read_tables, str, str, secret=True),
    "Keys": Kind("[[auth.keys]] tables in the file", _read_tables, str, str, secret=True),
    "ApiKeys": Kind("[[api.keys]] tables in the file", _read_tables, str, str, secret=True),
}


# --- declarations -----------------------------------------------------------------------------------------------------

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Option:
    """What is declared about a setting beside its name, kind and default.

    Attributes:
        doc: for the operator, in the words of the manual.
        least, most: bounds of a number, in its unit, both allowed.
        choices: the only values allowed; empty: any.
        reload: whether SIGHUP may change it.
    """

    doc: str
    least: float
    most: float
    choices: tuple[str, ...]
    reload: bool


def option(
    default: T,
    doc: str,
    *,
    least: float = 0,
    most: float = math.inf,
    choices: tuple[str, ...] = (),
    reload: bool = False,
) -> T:
    """Declare a setting, as the default of a dataclass field; the arguments are those of Option."""
    return field(default=default, metadata={"option": Option(doc, least, most, choices, reload)})


def options(section: type) -> dict[str, Field[Any]]:
    """The settings declared in `section`, by key; what is derived from them is left out."""
    return {each.name: each for each in fields(section) if "option" in each.metadata}


def _kind(setting: Field[Any]) -> Kind:
    return KINDS[str(setting.type)]


def _option(setting: Field[Any]) -> Option:
    declared: Option = setting.metadata["option"]
    return declared


@dataclass(frozen=True, slots=True)
class Server:
    """Where chatd listens, and whom it believes."""

    host: str = option(
        "127.0.0.1",
        "Address to listen on. Any other than a loopback address needs [[auth.keys]]. Put NGINX or HAProxy in front "
        'for TLS, or listen on "0.0.0.0" or "::" where the network is your own. "unix:/run/chatd/chatd.sock" listens '
        "on a file, for a proxy on this machine; its X-Forwarded-For is believed.",
    )
    port: int = option(8000, "Port to listen on; 0 takes a free one and says which.", most=65_535)
    socket_mode: Mode = option(
        Mode(0o660), "Who may connect to the file of a unix socket: its owner and its group, unless you say otherwise."
    )
    origins: Origins = option(
        (),
        "Web origins whose pages may connect, as browsers send them: scheme, host and port. Empty: only pages from the "
        'very host that the request asks for. "*": every page on the web.',
        reload=True,
    )
    trusted_proxies: Networks = option(
        (),
        "Addresses or networks of your proxies. Only their X-Forwarded-For is believed: anybody else could write any "
        "address there, and so get around the limits and bans that go by address.",
        reload=True,
    )
    drain: Seconds = option(
        10.0,
        "On SIGTERM, the time over which clients are told to reconnect elsewhere: all at once, their return would "
        "storm the other nodes. The grace period of Kubernetes must be longer; systemd is asked for the time.",
        reload=True,
    )
    compression: bool = option(
        False,
        "Offer permessage-deflate to clients. It saves traffic and doubles the memory of a connection, so it is off.",
    )
    metrics_allow: Networks = option(
        ("127.0.0.0/8", "::1/128"),
        "Addresses or networks that may read /metrics.",
        reload=True,
    )


@dataclass(frozen=True, slots=True)
class Admin:
    """A second way in, for operators and machines, which stays open while the node drains."""

    listen: Listen = option(
        "",
        'Where: "127.0.0.1:9000", "unix:/run/chatd/admin.sock", or empty: nowhere. It serves /livez, /readyz and '
        "/metrics to whoever reaches it, and the API to who has a key, without TLS: let only your monitoring and your "
        "back end reach it. Port 0 takes a free one.",
    )
    socket_mode: Mode = option(Mode(0o660), "As server.socket_mode.")


@dataclass(frozen=True, slots=True)
class Tls:
    """TLS in chatd itself, for a node without a proxy in front. It takes some 50 KB a connection, a proxy less."""

    certificate: File = option(
        "",
        "PEM file of the certificate, followed by those of its issuers; empty: no TLS. SIGHUP reads it again, so have "
        "whoever renews it send one. Paths are relative to this file's directory.",
        reload=True,
    )
    key: File = option("", "PEM file of its key, without a password.", reload=True)


@dataclass(frozen=True, slots=True)
class Key:
    """One key that tokens are verified with.

    Attributes:
        secret_bytes: the HMAC secret, from `secret` or from the file; None: another source.
        public_key: what `public_key_file` held, PEM text; None: another source.
        where: the file and line, or the credential, it was declared in.
    """

    kid: str = option(
        "",
        "Name of the key, as tokens say it in their header. A token without a kid is tried against every key of its "
        "algorithm; keys of a JWKS bring names of their own.",
        reload=True,
    )
    algorithm: str = option(
        "",
        f"One of {', '.join(ALGORITHMS)}. Only this algorithm is accepted with this key, whatever a token claims. "
        "A JWKS may leave it empty: then each of its keys says.",
        choices=("", *ALGORITHMS),
        reload=True,
    )
    secret: Secret = option(
        Secret(""),
        "For HS256, HS384, HS512: the secret shared with who makes the tokens, at least 32, 48 or 64 bytes: shorter "
        "ones can be guessed from one token. `openssl rand -base64 48` makes one.",
        reload=True,
    )
    secret_file: str = option(
        "",
        "Or the file that holds it, and nothing else; a line end after it does not count. Better than `secret`: the "
        "file can be readable by chatd alone. Paths are relative to this file's directory.",
        reload=True,
    )
    public_key_file: str = option("", "For RS256, ES256, EdDSA: the public key, as PEM.", reload=True)
    jwks_file: str = option("", "Or a JSON Web Key Set (RFC 7517) of public keys, as a file.", reload=True)
    jwks_url: Url = option(
        Url(""),
        "Or such a set by https, as identity providers publish it; read again when a token names a key not known yet.",
        reload=True,
    )
    secret_bytes: bytes | None = field(default=None, repr=False)
    public_key: str | None = field(default=None, repr=False)
    where: str = field(default="", repr=False, compare=False)


Keys: TypeAlias = tuple[Key, ...]


@dataclass(frozen=True, slots=True)
class Auth:
    """Who may come in. Without keys chatd runs in open mode: anybody may be anybody, on a loopback address only."""

    mode: str = option(
        "",
        '"jwt": a verified token says who somebody is. "open": anybody may be anybody, for trying things out. Empty: '
        '"jwt" where keys are set, else "open".',
        choices=("", "open", "jwt"),
    )
    cookie: str = option(
        "chatd_token",
        "Name of the cookie that may carry the token; empty: no cookie is read. With a cookie the page's origin must "
        "be allowed, or other sites could act in a visitor's name.",
        reload=True,
    )
    audience: str = option("", "What a token's `aud` claim must contain; empty: not looked at.", reload=True)
    issuer: str = option("", "What a token's `iss` claim must be; empty: not looked at.", reload=True)
    leeway: Seconds = option(
        0.0, "How far the clock of who makes the tokens may be from ours when `exp` and `nbf` are judged.", reload=True
    )
    keys: Keys = option(
        (),
        "Keys, one table each, with exactly one of secret, secret_file, public_key_file, jwks_file and jwks_url. "
        "Several at once let you change keys: add the new one, mint with it, and remove the old one when its last "
        "token has ended.",
        reload=True,
    )

    @property
    def effective_mode(self) -> str:
        """ "open" or "jwt"."""
        return self.mode or ("jwt" if self.keys else "open")


@dataclass(frozen=True, slots=True)
class ApiKey:
    """One key by which the application's back end is known.

    Attributes:
        secret_bytes: the secret, from `secret` or from the file.
        where: the file and line it was declared in.
    """

    name: str = option("", "Who it is, for the log and the audit stream.", reload=True)
    secret: Secret = option(
        Secret(""),
        "What comes in X-API-Key, at least 20 bytes. `openssl rand -hex 24` makes one.",
        reload=True,
    )
    secret_file: str = option(
        "", "Or the file that holds it, as in [[auth.keys]]; better, since chatd alone can read it.", reload=True
    )
    scopes: Texts = option(
        (),
        'Methods it may call; `*` stands for any run of characters: ["publish", "history", "message.*"], or ["*"].',
        reload=True,
    )
    users: Texts = option(
        (),
        "Users as whom it may act (`as` in a request), with `*` as above. Empty: nobody; it speaks as the server only.",
        reload=True,
    )
    secret_bytes: bytes = field(default=b"", repr=False)
    where: str = field(default="", repr=False, compare=False)


ApiKeys: TypeAlias = tuple[ApiKey, ...]


@dataclass(frozen=True, slots=True)
class Api:
    """POST /api/<method>, for the application's back end; on the admin listener, with a key of [[api.keys]]."""

    public: bool = option(
        False,
        "Answer on the public listener too. Better not: a back end reaches the admin listener, and nobody else does.",
    )
    body: Bytes = option(1 << 20, "Size of one request; a batch or a broadcast is one.", least=1, reload=True)
    keys: ApiKeys = option(
        (),
        "Keys, one table each, with exactly one of secret and secret_file. Without any, nobody is let in.",
        reload=True,
    )


@dataclass(frozen=True, slots=True)
class Hooks:
    """Telling the application what happens, by signed POST; and asking it before a message is said."""

    url: Url = option(
        Url(""),
        "Where events are sent, http:// or https://; empty: nowhere. Each is sent until it is answered with a 2xx, "
        "a room's in their order; so it may come twice, under the same X-Chatd-Id.",
        reload=True,
    )
    secret: Secret = option(
        Secret(""),
        'What requests are signed with, at least 20 bytes: X-Chatd-Signature is "t=<Unix seconds>,v1=<hex>", the '
        'HMAC-SHA256 of "<Unix seconds>.<body>".',
        reload=True,
    )
    events: Texts = option(
        HOOK_EVENTS,
        f"Which are sent, of {', '.join(HOOK_EVENTS)}. Joins and leaves are sent as they are announced to clients.",
        reload=True,
    )
    rooms: Texts = option(
        ("*",), "Of which rooms, with `*` for any run of characters; never of users' own channels.", reload=True
    )
    undelivered_after: Seconds = option(
        60.0,
        "How long after a message it is seen which members are offline and have not read it, in rooms that have "
        "members and in direct rooms; `undelivered` names them. Rooms of more than 1,000 members are left out.",
        least=0.1,
        reload=True,
    )
    timeout: Seconds = option(5.0, "How long one request may take before it is tried again.", least=0.05, reload=True)
    keep: Seconds = option(
        86_400.0,
        "How long an event is tried; then it is dropped, so that the next can go. A room keeps 10,000 of them.",
        least=1,
        reload=True,
    )
    allow_private: bool = option(
        False,
        "Let hooks go to addresses of your own network. Else a name that leads there is refused, so that nobody who "
        "can change a DNS entry can have chatd talk to what only your network should reach.",
    )
    before_publish: Url = option(
        Url(""),
        'Asked before a message is said or edited, with {"event", "room", "user", "time", "data"}; it answers '
        '{"allow": true}, or {"allow": false, "reason": "..."}: then the author hears error 417. Empty: nobody asks.',
        reload=True,
    )
    within: Seconds = option(0.2, "How long it may take to answer that.", least=0.01, reload=True)
    failing: str = option(
        "open",
        'When it does not answer: "open": the message is said all the same; "closed": it is refused.',
        choices=("open", "closed"),
        reload=True,
    )

    def covers(self, room: str) -> bool:
        """Whether the application wants to know of this room at all; "" stands for all of them."""
        return not room.startswith("#") and any(matches(pattern, room) for pattern in self.rooms)

    def wants(self, event: str, room: str) -> bool:
        """Whether the application is to be told of an event in a room."""
        return bool(self.url) and event in self.events and self.covers(room)


@dataclass(frozen=True, slots=True)
class SigningKey:
    """One key that messages are signed with.

    Attributes:
        secret_bytes: the secret, from `secret` or from the file.
        until: Unix seconds of accept_until; 0.0: no end.
        where: the file and line it was declared in.
    """

    kid: str = option("", "Name of the key, as signatures say it; without a colon.", reload=True)
    secret: Secret = option(
        Secret(""),
        "Shared with your back end, at least 32 bytes; no client ever sees it. `openssl rand -base64 48` makes one.",
        reload=True,
    )
    secret_file: str = option(
        "", "Or the file that holds it, as in [[auth.keys]]; better, since chatd alone can read it.", reload=True
    )
    accept_until: Moment = option(
        "",
        "When signatures with this key end: a date, or a time; a bare date is its beginning, in UTC. Empty: they do "
        "not. To change keys add the new one, give the old one a date when no client has it any more, then remove it.",
        reload=True,
    )
    secret_bytes: bytes = field(default=b"", repr=False)
    until: float = field(default=0.0, repr=False)
    where: str = field(default="", repr=False, compare=False)


SigningKeys: TypeAlias = tuple[SigningKey, ...]


@dataclass(frozen=True, slots=True)
class Signatures:
    """Signed messages, for rooms that take them (rooms.*.signatures)."""

    keys: SigningKeys = option(
        (),
        "Keys, one table each, with exactly one of secret and secret_file. `chatd token signing-key` prints what a "
        "user signs with.",
        reload=True,
    )


@dataclass(frozen=True, slots=True)
class Redis:
    """Where everything is kept: Redis 7 or Valkey 8 and newer. Without a URL chatd runs a private Valkey of its own."""

    url: Url = option(
        Url(""),
        "Empty: the embedded store, for one machine. Else redis://[user:password@]host:port/0, rediss:// for TLS, "
        "unix:///path/to.sock, redis+sentinel://host:port,host:port/service, or redis+cluster://host:port. A password "
        "is better given as the credential chatd.redis-url.",
    )
    timeout: Seconds = option(
        2.0,
        "How long one command may take before the store counts as away and clients are told to try again: longer "
        "than a hiccup of the network, shorter than the patience of who just pressed Enter.",
        least=0.01,
    )
    state_directory: str = option(
        "",
        "Where the embedded store keeps its data. Empty: $STATE_DIRECTORY, which systemd sets, else "
        "$XDG_STATE_HOME/chatd, else ~/.local/state/chatd. Two chatd on one directory share its store.",
    )
    prefix: str = option(
        "chatd",
        "First part of every key and channel in the store. Clusters that share a Redis need one each.",
    )

    def state_path(self, environ: Mapping[str, str]) -> Path:
        """The directory of the embedded store; it need not exist. `environ` as in `os.environ`."""
        # systemd joins several StateDirectory= with colons; the first is the service's main one.
        given = self.state_directory or environ.get("STATE_DIRECTORY", "").partition(":")[0]
        if given:
            return Path(given)
        home = Path(environ.get("HOME") or Path.home())
        return Path(environ.get("XDG_STATE_HOME") or home / ".local" / "state") / "chatd"


@dataclass(frozen=True, slots=True)
class Cluster:
    """Life among other nodes; all nodes of a cluster should agree here."""

    lease: Seconds = option(
        10.0,
        "A node that has not renewed its sign of life for so long counts as dead, and its connections are removed. "
        "Shorter finds the dead sooner and buries the merely slow.",
        least=0.05,
    )
    renew: Seconds = option(
        3.0,
        "How often a node renews it. Less than half of the lease, so that one lost renewal harms nobody.",
        least=0.01,
    )
    name: str = option("", "What `chatd status` calls this node; empty: the host's name.")
    answer: Seconds = option(
        2.0,
        "How long a command such as `chatd who` waits for the answers of all nodes before it reports those that are "
        "missing.",
        least=0.01,
    )
    sweep: Seconds = option(
        600.0,
        "How often one of the nodes looks through all rooms for messages past their age or their room's count, and "
        "takes what was deleted out of the store's memory.",
        least=0.1,
    )


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """How silent connections are found. Proxies and NATs forget silent ones too, often after 60 s."""

    interval: Seconds = option(
        25.0,
        "How often each client is pinged. Two must fit into the 60 s after which many NATs and proxies cut a silent "
        "connection; the protocol counts it in whole seconds.",
        least=1,
    )
    timeout: Seconds = option(
        8.0,
        "How long a client may take to answer before it counts as gone; a phone that wakes its radio takes seconds.",
        least=0.01,
    )


@dataclass(frozen=True, slots=True)
class Limits:
    """What one client may take, so that it cannot take it from the others. 0: no limit."""

    connections: int = option(
        100_000,
        "Connections per node; more are refused with 503 and Retry-After. An idle one costs about 7 KB, so this is "
        "most of 1 GB. The limit on open files (LimitNOFILE) must be higher.",
        reload=True,
    )
    connections_per_user: int = option(
        10,
        "Connections per user: a few devices with a few tabs each.",
        reload=True,
    )
    connections_per_address: int = option(
        64,
        "Connections per address (per /64 in IPv6). Offices and mobile networks share one, so it is wide; loopback and "
        "trusted proxies are not counted.",
        reload=True,
    )
    connects_per_second: Rate = option(
        0, "New connections per second and node, sustained. A processor core accepts 1,000 to 2,000.", reload=True
    )
    unknown_connections: int = option(
        4096, "Connections per node that have not logged in yet; they can hold a place but nothing else.", reload=True
    )
    connect_timeout: Seconds = option(5.0, "Time to log in, once connected.", reload=True)
    handshake_timeout: Seconds = option(
        10.0, "Time to send the whole HTTP request that opens a connection: slow ones only hold sockets.", reload=True
    )
    handshake_bytes: Bytes = option(
        16 << 10,
        "Size of that request, headers included; a long token takes 2 KiB of it, cookies the rest.",
        reload=True,
    )
    frame: Bytes = option(
        64 << 10,
        "Size of one WebSocket message, put together and inflated. Official SDKs join commands up to this size; at "
        "16 MiB one client sending tiny fragments was measured to cost 200 MiB.",
        reload=True,
    )
    body: Bytes = option(8 << 10, "Size of one chat message; no more than a frame.", reload=True)
    depth: int = option(32, "Nesting of a message's JSON: deeper ones crash other people's parsers.", reload=True)
    control_frames: int = option(
        50, "Pings and other control frames a client may send in 10 s; an honest one sends a handful.", reload=True
    )
    messages_per_second: Rate = option(
        5,
        "Messages per second and connection, sustained; faster ones are delayed, then refused, then cut off.",
        reload=True,
    )
    messages_burst: int = option(20, "Messages at once, before that rate counts.", least=1, reload=True)
    user_messages_per_second: Rate = option(10, "Messages per second and user, over all connections.", reload=True)
    user_messages_burst: int = option(40, "Messages at once, before that rate counts.", least=1, reload=True)
    bytes_per_second: Bytes = option(32 << 10, "Bytes per second that a connection may send.", reload=True)
    bytes_burst: Bytes = option(
        256 << 10, "Bytes at once, before that rate counts; at least one whole frame.", least=1, reload=True
    )
    joins_per_second: Rate = option(
        5, "Rooms joined per second and connection: a join costs the store a read of history.", reload=True
    )
    joins_burst: int = option(
        20, "Joins at once, before that rate counts: what an application opens at its start.", least=1, reload=True
    )
    rooms_per_connection: int = option(128, "Rooms one connection may be in at a time.", reload=True)
    history_page: int = option(
        300, "Messages in one page of history; clients that ask for more get so many.", reload=True
    )
    recovery: int = option(
        300,
        "Missed messages that a returning client is sent by itself; who missed more is told so, and reads history.",
        reload=True,
    )
    outbox: Bytes = option(
        1 << 20,
        "Bytes waiting for a client that does not read. At half of it typing and presence are no longer queued, at all "
        "of it the client is cut off and may come back for what it missed. Times the connections, this is what the "
        "worst day costs in memory.",
        reload=True,
    )
    room_name: Bytes = option(255, "Length of a room's name, in bytes of UTF-8.", reload=True)
    leave_delay: Seconds = option(
        5.0,
        "How long after a user's last connection in a room has gone the others are told: who comes back before, with a "
        "page that is loaded anew, never left.",
        most=600,
        reload=True,
    )
    members: int = option(10_000, "Members of one created room.", reload=True)
    rooms_per_user: int = option(1_000, "Created rooms that one user is a member of.", reload=True)
    display_name: int = option(32, "Length of a display name, in characters; longer ones are cut.", reload=True)


@dataclass(frozen=True, slots=True)
class RoomRules:
    """What holds in rooms whose name fits the pattern; `*` stands for any run of characters.

    Other patterns, such as [rooms."support-*"], name only what differs. Where several fit a room, each setting comes
    from the most specific pattern that has it: the most characters besides `*`, then the fewest `*`, then the first.
    """

    public: bool = option(
        True,
        "Any verified user may join and post. false: only whom a token's `rooms` claim or a membership lets in.",
        reload=True,
    )
    history: int = option(
        1000,
        "Messages kept for those who come later or come back; 0: none, then nothing missed can be recovered either.",
        reload=True,
    )
    history_for: str = option(
        "all",
        'How far back one may read: "all" of it; "since_join", since one became a member, or for others since they '
        'subscribed; "none", nothing that one was not there for, missed messages included. Moderators and owners read '
        "all of it.",
        choices=("all", "since_join", "none"),
        reload=True,
    )
    retention: Seconds = option(2_592_000.0, "How long a message is kept at most.", least=1, reload=True)
    edit_window: Seconds = option(
        900.0,
        "How long after it was said its author may edit or delete a message; 0: not at all. Moderators may delete any "
        "message at any time, and edit nobody's.",
        reload=True,
    )
    payload: str = option(
        "any",
        '"any": any JSON. "chat": an object with a string "text". In both, "cid", "sig", "reply_to" and "mentions" are '
        "honoured where present.",
        choices=("any", "chat"),
        reload=True,
    )
    signatures: str = option(
        "off",
        'Signed messages: "off": not looked at; "optional": one that comes must be right; "required": none without. '
        "The keys stand in [[signatures.keys]].",
        choices=("off", "optional", "required"),
        reload=True,
    )
    words: Texts = option(
        (),
        "Words not taken here, as they are, without patterns. They are found as whole words in any string of a "
        "message, in capitals or not.",
        reload=True,
    )
    words_file: str = option(
        "", "Or a file of them, one a line, relative to this file's directory; both count.", reload=True
    )
    on_word: str = option(
        "refuse",
        '"refuse" a message with such a word, or "mask" the word with stars. One that stands outside of the text, or '
        "in a signed message, is refused in any case.",
        choices=("refuse", "mask"),
        reload=True,
    )
    join_leave: bool = option(True, "Announce joins and leaves to the clients that ask for them.", reload=True)
    announce_up_to: int = option(
        500,
        "With more connections in the room they are not announced any more, as n joins are n * n deliveries, and "
        "whoever asks who is there is told only how many.",
        reload=True,
    )
    presence: bool = option(True, "Members may ask who is in the room.", reload=True)
    idle: Seconds = option(
        0.0,
        "How long a created room stays in which nobody is present and nothing is said or changed, before it is taken "
        "away with its members and all that was said; 0: for ever. Rooms that do not say who is present always stay.",
        reload=True,
    )
    create: str = option(
        "nobody",
        'Which clients may create such rooms, and so become their owners: "nobody", so that only operators and the '
        "application's back end can; \"anybody\" who has logged in; or whom a token's `rooms` claim makes at least "
        '"member", "moderator" or "owner" there.',
        choices=("nobody", "anybody", "member", "moderator", "owner"),
        reload=True,
    )


@dataclass(frozen=True, slots=True)
class Rooms:
    """The patterns of the file with what each sets, in the order of the file.

    Attributes:
        rules: from a room's name to what holds there; remembers the latest REMEMBERED_ROOMS names.
    """

    overrides: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    rules: Callable[[str], RoomRules] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        first_wins = sorted(self.overrides.items(), key=lambda item: _specificity(item[0]))
        object.__setattr__(self, "rules", lru_cache(REMEMBERED_ROOMS)(partial(_room_rules, first_wins)))


@dataclass(frozen=True, slots=True)
class Log:
    """What chatd tells about itself, on stderr. Tokens and the text of messages are never in it."""

    level: str = option(
        "info",
        "The least urgent that is told: debug, info, warning or error.",
        choices=("debug", "info", "warning", "error"),
        reload=True,
    )
    format: str = option(
        "auto",
        '"human": for reading; "json": one object a line, for machines; "auto": human on a terminal, '
        "fields of their own in systemd's journal (`journalctl CHATD_EVENT=ready`), else json.",
        choices=("auto", "human", "json"),
    )


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings, as they hold. `sources` says where those came from that are not at their default."""

    server: Server = Server()
    admin: Admin = Admin()
    tls: Tls = Tls()
    auth: Auth = Auth()
    api: Api = Api()
    hooks: Hooks = Hooks()
    signatures: Signatures = Signatures()
    redis: Redis = Redis()
    cluster: Cluster = Cluster()
    heartbeat: Heartbeat = Heartbeat()
    limits: Limits = Limits()
    log: Log = Log()
    rooms: Rooms = field(default_factory=Rooms)
    sources: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)

    def room(self, name: str) -> RoomRules:
        """What holds in the room of this name. Takes names of any length, but remembers them: bound them before."""
        return self.rooms.rules(name)


SECTIONS: Mapping[str, type] = {
    "server": Server,
    "admin": Admin,
    "tls": Tls,
    "auth": Auth,
    "api": Api,
    "hooks": Hooks,
    "signatures": Signatures,
    "redis": Redis,
    "cluster": Cluster,
    "heartbeat": Heartbeat,
    "limits": Limits,
    "log": Log,
}


def moment(text: Moment) -> float:
    """Unix seconds; 0.0 for none.

    Raises:
        ValueError: it is no date.
    """
    if not text:
        return 0.0
    found = datetime.fromisoformat(text)
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()


def matches(pattern: str, name: str) -> bool:
    """Whether `name` as a whole fits `pattern`: `*` stands for any run of characters, all else for itself.

    Linear in the length of `name` for each `*`; no pattern makes it slower than that.
    """
    head, *rest = pattern.split("*")
    if not rest:
        return name == pattern
    *middle, tail = rest
    at, end = len(head), len(name) - len(tail)
    if at > end or not name.startswith(head) or not name.endswith(tail):
        return False
    for part in middle:
        found = name.find(part, at, end)
        if found < 0:
            return False
        at = found + len(part)
    return True


def _specificity(pattern: str) -> tuple[int, int]:
    """Sorts the most specific first: more literal characters, then fewer stars."""
    stars = pattern.count("*")
    return stars - len(pattern), stars


def _room_rules(first_wins: Sequence[tuple[str, Mapping[str, Any]]], name: str) -> RoomRules:
    return RoomRules(**ChainMap(*(dict(values) for pattern, values in first_wins if matches(pattern, name))))


# --- reading ----------------------------------------------------------------------------------------------------------

NO_FLAGS: Mapping[str, object] = MappingProxyType({})


def load(file: Path | None, environ: Mapping[str, str], flags: Mapping[str, object] = NO_FLAGS) -> Settings:
    """Return what file, credentials, environment and flags say together, judged; read afresh at every call.

    Args:
        file: what --config named; None: what CHATD_CONFIG names, else /etc/chatd/chatd.toml if there is one.
        environ: as in `os.environ`.
        flags: from "section.key" to a value or its text; None: the flag was not given.
    Raises:
        SettingsError: something is unknown, wrong, missing or unreadable; the first thing found.
    """
    source = _read_source(file, environ)
    values: dict[str, dict[str, Any]] = {section: {} for section in SECTIONS}
    sources: dict[str, str] = {}
    for given in (*_in_file(source), *_in_credentials(environ), *_in_environment(environ), *_in_flags(flags)):
        if given.section not in SECTIONS:
            raise _unknown(f"{given.section}.{given.key}", given.where)
        values[given.section][given.key] = _judged(SECTIONS[given.section], given.section, given)
        sources[f"{given.section}.{given.key}"] = given.where
    given_tables = {(section, key): tuple(_tables_in_file(source, section, key)) for section, key in TABLES}
    given_tables["auth", "keys"] += tuple(_keys_in_credentials(environ))
    for (section, key), rows in given_tables.items():
        if rows:
            values[section][key] = rows
            sources[f"{section}.{key}"] = ", ".join(row.where for row in rows)
    rooms = _rooms_in_file(source, sources)
    sections = {name: section(**values[name]) for name, section in SECTIONS.items()}
    settings = Settings(**sections, rooms=rooms, sources=sources)
    for key, complaint in _complaints(settings):
        raise SettingsError(f"{sources.get(key, key)}: {complaint}")
    return settings


class _Given(NamedTuple):
    """A value that somebody gave, not judged yet; `where` is what origin() tells. `is_text`: from outside of TOML."""

    section: str
    key: str
    value: object
    where: str
    is_text: bool = False


@dataclass(frozen=True, slots=True)
class _Source:
    """The file. `lines` has the line of each table and key, by path: ("server", "port"), ("auth", "keys", "0")."""

    path: Path
    document: Mapping[str, Any] = field(default_factory=dict)
    lines: Mapping[tuple[str, ...], int] = field(default_factory=dict)

    def where(self, *path: str) -> str:
        """The file and the line of `path`, or of the nearest table around it whose line is known."""
        around = (path[:length] for length in range(len(path), 0, -1))
        known = next((each for each in around if each in self.lines), None)
        return str(self.path) if known is None else f"{self.path}:{self.lines[known]}"

    def table(self, *path: str) -> Mapping[str, Any]:
        """The table at `path`; empty when there is none."""
        table: Mapping[str, Any] = self.document
        for part in path:
            inner = table.get(part, {})
            if not isinstance(inner, dict):
                raise SettingsError(
                    f"{self.where(*path)}: expected a table [{_dotted(*path)}], got {_type_name(inner)}"
                )
            table = inner
        return table


def _read_source(file: Path | None, environ: Mapping[str, str]) -> _Source:
    named = file or (Path(environ["CHATD_CONFIG"]) if environ.get("CHATD_CONFIG") else None)
    path = named or DEFAULT_FILE
    try:
        text = path.read_text("utf-8")
        return _Source(path, tomllib.loads(text), _lines(text))
    except OSError as error:
        if named is None and isinstance(error, FileNotFoundError):
            return _Source(path)
        raise SettingsError(_unreadable("the configuration", path, error)) from None
    except ValueError as error:
        # Not TOML, or not UTF-8. The text of either names a place, and at most one character.
        raise SettingsError(f"{path}: expected TOML, got something else: {error}") from None


def _unreadable(what: str, path: Path, error: OSError) -> str:
    return f"expected to read {what} from {path}, got: {error.strerror}; check the path and who may read it"


def _lines(text: str) -> dict[tuple[str, ...], int]:
    """Where each table and key stands.

    Looks at lines one by one, so a line within a multi-line value that looks like a key counts as one; such a line can
    only be named wrongly in a message.
    """
    lines: dict[tuple[str, ...], int] = {}
    table: tuple[str, ...] = ()
    for number, line in enumerate(map(str.strip, text.split("\n")), start=1):
        if line.startswith("["):
            table = _key_path(line)
            if line.startswith("[["):
                lines.setdefault(table, number)
                table = (*table, str(sum(1 for each in lines if each[:-1] == table)))
            lines.setdefault(table, number)
        elif "=" in line and not line.startswith("#"):
            lines.setdefault((*table, *_key_path(line.partition("=")[0] + "= 0")), number)
    return lines


def _key_path(line: str) -> tuple[str, ...]:
    """The path that one line of TOML alone opens or sets; () when it does not stand alone."""
    try:
        value: Any = tomllib.loads(line)
    except ValueError:
        return ()
    path = []
    while isinstance(value, dict | list) and value:
        if isinstance(value, list):
            value = value[0]
            continue
        [(key, value)] = value.items()
        path.append(key)
    return tuple(path)


def _in_file(source: _Source) -> Iterator[_Given]:
    for section in source.document:
        if section == "rooms":
            continue
        if section not in SECTIONS:
            raise _unknown(section, source.where(section))
        for key, value in source.table(section).items():
            if (section, key) not in TABLES:
                yield _Given(section, key, _placed(source, section, key, value), source.where(section, key))


def _placed(source: _Source, section: str, key: str, value: object) -> object:
    """The value, or where it is a path the path from where we are."""
    setting = options(SECTIONS[section]).get(key)
    is_path = setting is not None and setting.type == "File" and isinstance(value, str) and value
    return str(source.path.parent / str(value)) if is_path else value


def _tables_in_file(source: _Source, section: str, key: str) -> Iterator[Any]:
    table, rows = TABLES[section, key], source.table(section).get(key, [])
    name = f"{section}.{key}"
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise SettingsError(f"{source.where(section, key)}: expected [[{name}]] tables, got {_type_name(rows)}")
    for index, row in enumerate(rows):
        where = partial(source.where, section, key, str(index))
        declared = table.kind(**_judged_table(table.kind, name, row, where), where=where())
        yield table.complete(declared, source.path.parent)


def _rooms_in_file(source: _Source, sources: dict[str, str]) -> Rooms:
    """The patterns, judged; `sources` is told where each value stands."""
    overrides = {}
    for pattern in source.table("rooms"):
        title = _dotted("rooms", pattern)
        where = partial(source.where, "rooms", pattern)
        overrides[pattern] = _judged_table(RoomRules, title, source.table("rooms", pattern), where)
        sources.update({f"{title}.{key}": where(key) for key in overrides[pattern]})
        if file := overrides[pattern].get("words_file"):
            listed = _read_bytes_of("words_file", source.path.parent / file, where("words_file")).decode(
                errors="replace"
            )
            overrides[pattern]["words"] = (*overrides[pattern].get("words", ()), *listed.splitlines())
    return Rooms(overrides)


def _in_credentials(environ: Mapping[str, str]) -> Iterator[_Given]:
    for path in _credential(environ, "chatd.redis-url"):
        yield _Given("redis", "url", _read_bytes_of("redis.url", path, str(path)).decode(errors="replace"), str(path))

    for name in ("certificate", "key"):
        for path in _credential(environ, f"chatd.tls-{name}"):
            yield _Given("tls", name, str(path), str(path))


def _keys_in_credentials(environ: Mapping[str, str]) -> Iterator[Key]:
    for path in _credential(environ, "chatd.jwt-secret"):
        key = Key(kid="credential", algorithm="HS256", secret_file=str(path), where=str(path))
        yield _with_material(key, path.parent)


def _credential(environ: Mapping[str, str], name: str) -> list[Path]:
    """The file of a systemd credential (systemd.exec, LoadCredential=), if it was passed."""
    path = Path(environ.get("CREDENTIALS_DIRECTORY", ""), name)
    return [path] if environ.get("CREDENTIALS_DIRECTORY") and path.exists() else []


def _in_environment(environ: Mapping[str, str]) -> Iterator[_Given]:
    # Variables without a double underscore are not ours: beside a service named chatd, Kubernetes sets CHATD_PORT and
    # CHATD_SERVICE_HOST.
    for name, text in environ.items():
        section, double, key = name.removeprefix("CHATD_").partition("__")
        if name.startswith("CHATD_") and double:
            yield _Given(section.lower(), key.lower(), text, name, is_text=True)


def _in_flags(flags: Mapping[str, object]) -> Iterator[_Given]:
    for name, value in flags.items():
        section, _, key = name.partition(".")
        if value is not None:
            yield _Given(section, key, value, "--" + key.replace("_", "-"), is_text=isinstance(value, str))


def _with_material(key: Key, base: Path) -> Key:
    """The key with what its files hold; relative paths start at `base`."""
    if complaint := _key_complaint(key):
        raise SettingsError(f"{key.where}: {complaint}")
    files: dict[str, Any] = {
        name: str(base / getattr(key, name)) for name in KEY_SOURCES if "file" in name and getattr(key, name)
    }
    key = replace(key, **files)
    if key.public_key_file:
        content = _read_bytes_of("public_key_file", Path(key.public_key_file), key.where)
        return replace(key, public_key=content.decode(errors="replace"))
    if key.algorithm not in HMAC_KEY_BYTES:
        return key
    secret = _read_bytes_of("secret_file", Path(key.secret_file), key.where) if key.secret_file else key.secret.encode()
    if len(secret) < HMAC_KEY_BYTES[key.algorithm]:
        raise SettingsError(
            f"{key.where}: expected the secret of key {_show_text(key.kid)} to have at least "
            f"{HMAC_KEY_BYTES[key.algorithm]} bytes for {key.algorithm}, got {len(secret)}; "
            "make one with `openssl rand -base64 48`"
        )
    return replace(key, secret_bytes=secret)


def _with_api_secret(key: ApiKey, base: Path) -> ApiKey:
    """The key with its secret; a relative path starts at `base`."""
    name = f"key {_show_text(key.name)}"
    if not key.name or bool(key.secret) == bool(key.secret_file) or not key.scopes:
        raise SettingsError(
            f"{key.where}: expected {name} of [[api.keys]] to have a name, scopes, and exactly one of secret and "
            "secret_file, got something else"
        )
    file = str(base / key.secret_file) if key.secret_file else ""
    secret = _read_bytes_of("secret_file", Path(file), key.where) if file else key.secret.encode()
    if len(secret) < API_KEY_BYTES:
        raise SettingsError(
            f"{key.where}: expected the secret of {name} to have at least {API_KEY_BYTES} bytes, got {len(secret)}; "
            "make one with `openssl rand -hex 24`"
        )
    return replace(key, secret_file=file, secret_bytes=secret)


def _with_signing_secret(key: SigningKey, base: Path) -> SigningKey:
    """The key with its secret; a relative path starts at `base`."""
    name = f"key {_show_text(key.kid)}"
    if not key.kid or ":" in key.kid or bool(key.secret) == bool(key.secret_file):
        raise SettingsError(
            f"{key.where}: expected {name} of [[signatures.keys]] to have a kid without a colon, and exactly one of "
            "secret and secret_file, got something else"
        )
    file = str(base / key.secret_file) if key.secret_file else ""
    secret = _read_bytes_of("secret_file", Path(file), key.where) if file else key.secret.encode()
    if len(secret) < HMAC_KEY_BYTES["HS256"]:
        raise SettingsError(
            f"{key.where}: expected the secret of {name} to have at least {HMAC_KEY_BYTES['HS256']} bytes, got "
            f"{len(secret)}; make one with `openssl rand -base64 48`"
        )
    return replace(key, secret_file=file, secret_bytes=secret, until=moment(key.accept_until))


class Table(NamedTuple):
    """Settings that are a list of tables, such as [[auth.keys]].

    Attributes:
        kind: declares the settings of one; has a `where`.
        complete: judges one and reads its files, which lie relative to a directory.
        example: shown where there is none.
    """

    kind: type
    complete: Callable[[Any, Path], Any]
    example: Any


TABLES: Mapping[tuple[str, str], Table] = {
    ("auth", "keys"): Table(Key, _with_material, Key(kid="main", algorithm="HS256")),
    ("api", "keys"): Table(ApiKey, _with_api_secret, ApiKey(name="backend", scopes=("publish", "history"))),
    ("signatures", "keys"): Table(SigningKey, _with_signing_secret, SigningKey(kid="2026-1")),
}


def _read_bytes_of(what: str, path: Path, where: str) -> bytes:
    """What `path` holds, without the line end that editors and `echo` leave after it."""
    try:
        return path.read_bytes().rstrip(b"\r\n")
    except OSError as error:
        raise SettingsError(f"{where}: {_unreadable(what, path, error)}") from None


# --- judging ----------------------------------------------------------------------------------------------------------


def _judged_table(section: type, title: str, table: Mapping[str, object], where: Callable[..., str]) -> dict[str, Any]:
    return {key: _judged(section, title, _Given(title, key, value, where(key))) for key, value in table.items()}


def _judged(section: type, title: str, given: _Given) -> Any:
    """The value that was given, as ours; SettingsError when there is no such key, or the value cannot be its."""
    setting = options(section).get(given.key)
    if setting is None:
        raise _unknown(f"{title}.{given.key}", given.where, known=[f"{title}.{key}" for key in options(section)])
    kind = _kind(setting)
    raw = kind.from_text(given.value) if given.is_text and isinstance(given.value, str) else given.value
    try:
        value = kind.read(raw)
    except ValueError:
        value = None
    if value is None or not _allowed(_option(setting), value):
        came = "something else" if kind.secret else _came(raw)
        raise SettingsError(f"{given.where}: expected {title}.{given.key} to be {_expected(setting)}, got {came}")
    return value


def _allowed(declared: Option, value: object) -> bool:
    if isinstance(value, int | float):
        return declared.least <= value <= declared.most
    return not declared.choices or value in declared.choices


def _expected(setting: Field[Any]) -> str:
    kind, declared = _kind(setting), _option(setting)
    if declared.choices:
        return f"one of {', '.join(map(_show_text, declared.choices))}"
    if not isinstance(setting.default, int | float) or isinstance(setting.default, bool | Mode):
        return kind.expected
    most = "" if declared.most == math.inf else f" and at most {kind.show(declared.most)}"
    return f"{kind.expected}, at least {kind.show(declared.least)}{most}"


def _came(value: object) -> str:
    """A TOML value as it may stand in a sentence."""
    if isinstance(value, bool):
        return _show_bool(value)
    if isinstance(value, str):
        return _show_text(value)
    if isinstance(value, dict):
        return "a table"
    return _show_texts(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _type_name(value: object) -> str:
    """For values in a place where a whole table should be, which may hold anything, a secret too."""
    return {str: "text", bool: "true or false", int: "a number", float: "a number", list: "a list"}.get(
        type(value), "something else"
    )


def _dotted(section: str, *pattern: str) -> str:
    """A table's path as TOML writes it: a pattern is quoted, for its `*`."""
    return ".".join((section, *map(_show_text, pattern)))


def _unknown(name: str, where: str, known: Sequence[str] = ()) -> SettingsError:
    near = _nearest(name, [*SECTIONS, "rooms", *_names(), *known])
    hint = f"did you mean {near}?" if near else "`chatd config init` shows all there are"
    return SettingsError(f"{where}: expected a setting that exists, got {name}; {hint}")


def _names() -> list[str]:
    return [f"{title}.{key}" for title, section in SECTIONS.items() for key in options(section)]


def _nearest(name: str, known: Sequence[str]) -> str:
    """What is spelt most like the last part of `name`, in its own section before others; "" when nothing is near."""
    import difflib  # 5 ms that only a mistake needs to pay

    title, _, last = name.rpartition(".")
    own_section_last = sorted(known, key=lambda each: each.rpartition(".")[0] == title)
    by_last = {each.rpartition(".")[2]: each for each in own_section_last}
    close = difflib.get_close_matches(last, by_last, 1)
    return by_last[close[0]] if close else ""


def _key_complaint(key: Key) -> str:
    """What is wrong with a key in itself; "" for nothing."""
    name = f"key {_show_text(key.kid)}"
    given = [source for source in KEY_SOURCES if getattr(key, source)]
    if len(given) != 1:
        return f"expected {name} to have exactly one of {', '.join(KEY_SOURCES)}, got {' and '.join(given) or 'none'}"
    [source] = given
    wanted = (
        HMAC_KEY_BYTES if source.startswith("secret") else [each for each in ALGORITHMS if each not in HMAC_KEY_BYTES]
    )
    if key.algorithm not in wanted and (key.algorithm or not source.startswith("jwks")):
        came = key.algorithm or "none"
        return f"expected {name}, which has a {source}, to have algorithm {' or '.join(wanted)}, got {came}"
    if key.jwks_url and not key.jwks_url.startswith(("https://", "http://")):
        return f"expected jwks_url of {name} to start with https://, got something else"
    return ""


def _complaints(settings: Settings) -> Iterator[tuple[str, str]]:
    """What is wrong between values that are right by themselves: the key to look at, and a sentence."""
    yield from _auth_complaints(settings)
    yield from _api_complaints(settings.api.keys)
    yield from _hook_complaints(settings.hooks)
    yield from _signature_complaints(settings.signatures.keys)
    yield from _time_complaints(settings)
    yield from _size_complaints(settings.limits)
    if bool(settings.tls.certificate) is not bool(settings.tls.key):
        given, missing = ("certificate", "key") if settings.tls.certificate else ("key", "certificate")
        yield f"tls.{given}", f"expected tls.certificate and tls.key together, got no tls.{missing}; set it, or neither"
    url = settings.redis.url
    if url and not url.startswith(REDIS_SCHEMES):
        yield "redis.url", f"expected redis.url to start with one of {', '.join(REDIS_SCHEMES)}, got something else"


def _auth_complaints(settings: Settings) -> Iterator[tuple[str, str]]:
    auth, host = settings.auth, settings.server.host
    kids = [key.kid for key in auth.keys if key.kid]
    for kid in {kid for kid in kids if kids.count(kid) > 1}:
        yield "auth.keys", f"expected every key to have a kid of its own, got {_show_text(kid)} twice; rename one"
    if auth.mode == "jwt" and not auth.keys:
        yield (
            "auth.mode",
            'expected a key for auth.mode "jwt", got none; add an [[auth.keys]] table',
        )
    if auth.effective_mode == "open" and not is_loopback(host):
        yield (
            "server.host",
            f"expected a loopback address for server.host in open mode, where anybody may be anybody, got "
            f'{_show_text(host)}; add an [[auth.keys]] table with auth.mode = "jwt", or set server.host = "127.0.0.1"',
        )


def _hook_complaints(hooks: Hooks) -> Iterator[tuple[str, str]]:
    for key in ("url", "before_publish"):
        url = getattr(hooks, key)
        if url and not url.startswith(("https://", "http://")):
            yield f"hooks.{key}", f"expected hooks.{key} to start with https:// or http://, got something else"
        if url and len(hooks.secret.encode()) < API_KEY_BYTES:
            yield (
                "hooks.secret",
                f"expected hooks.secret to have at least {API_KEY_BYTES} bytes where hooks are on, got "
                f"{len(hooks.secret.encode())}; make one with `openssl rand -hex 24`",
            )
    for event in set(hooks.events).difference(HOOK_EVENTS):
        known = ", ".join(HOOK_EVENTS)
        yield "hooks.events", f"expected hooks.events to be some of {known}, got {_show_text(event)}"


def _api_complaints(keys: ApiKeys) -> Iterator[tuple[str, str]]:
    names, secrets = [key.name for key in keys], [key.secret_bytes for key in keys]
    if len(set(names)) < len(names) or len(set(secrets)) < len(secrets):
        yield "api.keys", "expected every key of [[api.keys]] to have a name and a secret of its own, got one twice"


def _signature_complaints(keys: SigningKeys) -> Iterator[tuple[str, str]]:
    if len({key.kid for key in keys}) < len(keys):
        yield "signatures.keys", "expected every key of [[signatures.keys]] to have a kid of its own, got one twice"


def _time_complaints(settings: Settings) -> Iterator[tuple[str, str]]:
    cluster, heartbeat = settings.cluster, settings.heartbeat
    if cluster.lease <= 2 * cluster.renew:
        yield (
            "cluster.lease",
            f"expected cluster.lease to be more than twice cluster.renew, {_show_seconds(cluster.renew)}, so that one "
            f"lost renewal harms nobody, got {_show_seconds(cluster.lease)}",
        )
    if heartbeat.timeout > heartbeat.interval:
        yield (
            "heartbeat.timeout",
            f"expected heartbeat.timeout to be at most heartbeat.interval, {_show_seconds(heartbeat.interval)}, got "
            f"{_show_seconds(heartbeat.timeout)}",
        )


def _size_complaints(limits: Limits) -> Iterator[tuple[str, str]]:
    if 0 < limits.frame < limits.body:
        yield (
            "limits.body",
            f"expected limits.body to be at most limits.frame, {_show_bytes(limits.frame)}, got "
            f"{_show_bytes(limits.body)}; raise limits.frame too",
        )
    if limits.bytes_per_second and limits.bytes_burst < limits.frame:
        yield (
            "limits.bytes_burst",
            f"expected limits.bytes_burst to be at least limits.frame, {_show_bytes(limits.frame)}, or such a frame "
            f"could never be sent, got {_show_bytes(limits.bytes_burst)}",
        )


def unix_path(host: str) -> str:
    """The path in unix:/path; "" when `host` is an address or a name."""
    return host.removeprefix("unix:") if host.startswith("unix:") else ""


def host_and_port(listen: Listen) -> tuple[str, int]:
    """What `listen` names; the port of unix:/path is 0.

    Raises:
        ValueError: it is neither host:port nor unix:/path.
    """
    if unix_path(listen):
        return listen, 0
    host, colon, port = listen.rpartition(":")
    if not colon or not host or not port.isdecimal() or int(port) > 65_535 or (":" in host and host[0] != "["):
        raise ValueError(f"expected host:port or unix:/path, got {listen!r}")
    return host.strip("[]"), int(port)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`, an address or a name; of names only localhost is believed."""
    if unix_path(host):
        return True
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def warnings(settings: Settings) -> list[str]:
    """What works, but is unwise: one sentence each. Looks at the modes of the files that hold secrets."""
    return [*_exposed_secrets(settings), *_exposed_traffic(settings), *_unbounded(settings.limits), *_cut_off(settings)]


def _exposed_secrets(settings: Settings) -> Iterator[str]:
    if settings.tls.key and _others_may_read(settings.tls.key):
        yield f"{settings.tls.key} holds the key of tls.certificate and everybody may read it; `chmod 640` it"
    keys: tuple[Key | ApiKey | SigningKey, ...] = (
        *settings.auth.keys,
        *settings.api.keys,
        *settings.signatures.keys,
    )
    for key in keys:
        path = key.secret_file or (key.where.rpartition(":")[0] if key.secret else "")
        if path and _others_may_read(path):
            yield f"{path} holds the secret of a key and everybody may read it; `chmod 640 {path}`"

    # "file:line", and no variable or flag, which have no file to be read.
    path = settings.sources.get("redis.url", "").rpartition(":")[0]
    if path and "@" in settings.redis.url and _others_may_read(path):
        yield f"{path} holds the password in redis.url and everybody may read it; `chmod 640 {path}`"


def _others_may_read(path: str) -> bool:
    try:
        return bool(os.stat(path).st_mode & 0o004)
    except OSError:
        return False


def _exposed_traffic(settings: Settings) -> Iterator[str]:
    if "*" in settings.server.origins:
        yield 'server.origins has "*": any web page may connect from the browser of whoever looks at it; list your own'
    if settings.admin.listen and not is_loopback(host_and_port(settings.admin.listen)[0]):
        yield "admin.listen can be reached from other machines, without TLS: who listens in between can read API keys"
    if any(network.endswith("/0") for network in settings.server.trusted_proxies):
        yield "server.trusted_proxies has everybody: whoever connects may write any address there; list your proxies"
    for key in settings.auth.keys:
        if key.jwks_url.startswith("http://"):
            yield f"the jwks_url of key {_show_text(key.kid)} is not https: who sits in between can make valid tokens"
    scheme, _, rest = settings.redis.url.partition("://")
    user, _, hosts = rest.partition("/")[0].rpartition("@")
    local = scheme in ("", "unix", "rediss") or all(is_loopback(_host_of(each)) for each in hosts.split(","))
    if not local and not user:
        yield "redis.url names another machine without password and without TLS; set a password, and use rediss://"


def _host_of(address: str) -> str:
    """The host of host:port, [v6]:port or host."""
    return address.rpartition("]")[0].lstrip("[") or address.partition(":")[0]


def _unbounded(limits: Limits) -> Iterator[str]:
    for name in ("frame", "outbox"):
        if getattr(limits, name) == 0:
            yield f"limits.{name} is 0, which is no limit: one client alone can use up the memory of this machine"


def _cut_off(settings: Settings) -> Iterator[str]:
    if settings.heartbeat.interval > PATIENCE_OF_NATS_S / 2:
        yield (
            f"two of heartbeat.interval, {_show_seconds(settings.heartbeat.interval)}, do not fit into the "
            f'{PATIENCE_OF_NATS_S:g} s after which many proxies and NATs cut a silent connection; set "25s"'
        )


def changed_needing_restart(old: Settings, new: Settings) -> list[str]:
    """The keys, as "section.key", that differ and that SIGHUP may not change; rooms may always change.

    auth.mode counts as changed too when keys came or went, and with them what an empty mode means; so does
    tls.certificate when there was none, or is none any more.
    """
    changed = [
        f"{title}.{key}"
        for title, section in SECTIONS.items()
        for key, setting in options(section).items()
        if not _option(setting).reload and getattr(getattr(old, title), key) != getattr(getattr(new, title), key)
    ]
    mode_flipped = old.auth.effective_mode != new.auth.effective_mode and "auth.mode" not in changed
    tls_flipped = bool(old.tls.certificate) is not bool(new.tls.certificate)
    return [*["auth.mode"] * mode_flipped, *["tls.certificate"] * tls_flipped, *changed]


def origin(settings: Settings) -> dict[str, str]:
    """Where each value came from, by "section.key" and `rooms."pattern".key`.

    "default", a file and line ("/etc/chatd/chatd.toml:12"), the file of a credential, a variable ("CHATD_…"), or a flag
    ("--port"); for auth.keys one place per key, joined with commas.
    """
    names = [*_names(), *(f'rooms."*".{key}' for key in options(RoomRules))]
    return {**dict.fromkeys(names, "default"), **settings.sources}


# --- rendering --------------------------------------------------------------------------------------------------------


def to_toml(settings: Settings) -> str:
    """Render every setting at its value, under its explanation; secrets as "***". With HEAD before it: the manual."""
    blocks = [_section_toml(title, getattr(settings, title)) for title in SECTIONS]
    for section, key in reversed(list(TABLES)):
        blocks.insert(list(SECTIONS).index(section) + 1, _tables_toml(settings, section, key))
    overrides = settings.rooms.overrides
    blocks.append(_section_toml('rooms."*"', RoomRules(**overrides.get("*", {}))))
    blocks += [_pattern_toml(pattern, values) for pattern, values in overrides.items() if pattern != "*"]
    return "\n".join(blocks)


def _section_toml(title: str, section: Any) -> str:
    return f"[{title}]\n{_comment(type(section).__doc__)}\n{_settings_toml(section)}"


def _tables_toml(settings: Settings, section: str, key: str) -> str:
    """The tables of one list; when there are none, an example in comments."""
    doc, rows = _comment(_doc(options(SECTIONS[section])[key])), getattr(getattr(settings, section), key)
    if rows:
        return doc + "\n".join(f"[[{section}.{key}]]\n{_settings_toml(row)}" for row in rows)
    return f"{doc}#[[{section}.{key}]]\n{_settings_toml(TABLES[section, key].example, mark='#')}"


def _pattern_toml(pattern: str, values: Mapping[str, Any]) -> str:
    lines = [f"{key} = {_kind(options(RoomRules)[key]).show(value)}\n" for key, value in values.items()]
    return f"[{_dotted('rooms', pattern)}]\n{''.join(lines)}"


def _settings_toml(section: Any, mark: str = "") -> str:
    """The settings of one table, each under its explanation; `mark` stands before each line that is not a comment."""
    return "\n".join(
        f"{_comment(_doc(setting))}{mark}{key} = {_kind(setting).show(getattr(section, key))}\n"
        for key, setting in options(type(section)).items()
        if _kind(setting).read is not _read_tables
    )


def _doc(setting: Field[Any]) -> str:
    declared = _option(setting)
    return f"{declared.doc} (reload)" if declared.reload else declared.doc


def _comment(text: str | None) -> str:
    """`text` as comment lines; its paragraphs stay apart."""
    paragraphs = re.split(r"\n\s*\n", text or "")
    wrapped = ("".join(f"# {line}\n" for line in textwrap.wrap(" ".join(each.split()), 116)) for each in paragraphs)
    return "#\n".join(wrapped)
