"""Kinds of values: how a duration, a size, an address or a secret is written in TOML, and read from it."""

from __future__ import annotations

import ipaddress
import json
import math
import re
import sys
from collections.abc import Callable, Container, Iterable, Mapping
from datetime import UTC, date, datetime
from functools import lru_cache
from typing import Any, NamedTuple, TypeAlias
from urllib.parse import urlsplit

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


# JSON, Lua and Redis all hold whole numbers up to 2 ** 53 - 1, and not all of them any greater.
MOST_NUMBER = (1 << 53) - 1


# 2,700 years: as good as for ever, and far from where its milliseconds do not fit.
MOST_SECONDS = 1_000_000 * 86_400.0


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
        most: what a number of this kind may be, in its unit, where the setting itself names no less.
    """

    expected: str
    read: Callable[[object], object]
    show: Callable[[Any], str]
    from_text: Callable[[str], object]
    secret: bool = False
    most: float = math.inf


def _read_text(value: object) -> str:
    if not isinstance(value, str) or "\0" in value:  # no path, name or address of the system's can have that in it
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
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise ValueError
    if not abs(value) <= sys.float_info.max:  # nan, too; and a whole number in TOML may have hundreds of digits
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
    # As browsers write them (RFC 6454, 6.2): one written otherwise would be equal to none that comes.
    if not all(re.fullmatch(r"\*|[a-z][a-z0-9+.-]*://[^/?#*A-Z\s]+", origin) for origin in origins):
        raise ValueError
    if any(re.fullmatch(r"http://.*:80|https://.*:443", origin) for origin in origins):
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


def read_tables(value: object) -> tuple[Any, ...]:
    if not isinstance(value, tuple):
        raise ValueError
    return value


def show_text(text: str) -> str:
    # A JSON string is a TOML basic string but for DEL, which TOML wants escaped.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _show_secret(secret: Secret) -> str:
    return show_text(secret.shown)


def _show_mode(mode: Mode) -> str:
    return show_text(f"{mode:04o}")


def show_bool(value: bool) -> str:
    return "true" if value else "false"


def _show_number(number: float) -> str:
    return str(int(number) if number == int(number) else number)


def show_seconds(seconds: Seconds) -> str:
    ms = round(seconds * 1000, 6)
    unit = next((unit for unit, size in MS_BY_UNIT.items() if ms % size == 0), None)
    if ms == 0:
        return '"0s"'
    return f'"{ms:f}ms"' if unit is None else f'"{int(ms) // MS_BY_UNIT[unit]}{unit}"'


def show_bytes(size: Bytes) -> str:
    unit = next(unit for unit, factor in BYTES_BY_UNIT.items() if size % factor == 0)
    return str(size) if unit == "B" or size == 0 else f'"{size // BYTES_BY_UNIT[unit]}{unit}"'


def show_texts(texts: Iterable[str]) -> str:
    return f"[{', '.join(map(show_text, texts))}]"


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
    "str": Kind("text", _read_text, show_text, str),
    "File": Kind("the path of a file", _read_text, show_text, str),
    "Listen": Kind('host:port, "unix:/path", or nothing', _read_listen, show_text, str),
    "Mode": Kind('a file mode such as "0660"', _read_mode, _show_mode, str),
    "Secret": Kind("text", _read_secret, _show_secret, str, secret=True),
    "Url": Kind("text", _read_url, _show_secret, str, secret=True),
    "bool": Kind("true or false", _read_bool, show_bool, _bool_from_text),
    "int": Kind("a whole number", _read_whole, _show_number, _number_from_text, most=MOST_NUMBER),
    "Rate": Kind("a number", _read_number, _show_number, _number_from_text, most=MOST_NUMBER),
    "Seconds": Kind('a duration such as "25s"', _read_seconds, show_seconds, _number_from_text, most=MOST_SECONDS),
    "Bytes": Kind('a size such as "64KiB"', _read_bytes, show_bytes, _number_from_text, most=MOST_NUMBER),
    "Networks": Kind(
        'a list of addresses or networks such as ["10.0.0.0/8"]', _read_networks, show_texts, _texts_from_text
    ),
    "Origins": Kind(
        'a list of origins such as ["https://example.org"], in lower case, without a path, wildcard or default port, '
        'or ["*"]',
        _read_origins,
        show_texts,
        _texts_from_text,
    ),
    "Texts": Kind('a list of texts such as ["a", "b"]', _read_texts, show_texts, _texts_from_text),
    "Moment": Kind('a date such as "2026-12-31" or "2026-12-31T12:00:00Z"', _read_moment, show_text, str),
    "SigningKeys": Kind("[[signatures.keys]] tables in the file", read_tables, str, str, secret=True),
    "Keys": Kind("[[auth.keys]] tables in the file", read_tables, str, str, secret=True),
    "ApiKeys": Kind("[[api.keys]] tables in the file", read_tables, str, str, secret=True),
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


def unix_path(host: str) -> str:
    """The path in unix:/path; "" when `host` is an address or a name."""
    return host.removeprefix("unix:") if host.startswith("unix:") else ""


def is_host(host: str) -> bool:
    """Whether it can be listened on: an address, a name or unix:/path. Whether it is ours, binding will say."""
    if host.startswith("unix:") or re.fullmatch(r"[\w.-]+", host):
        return host != "unix:"
    try:
        return bool(ipaddress.ip_address(host))
    except ValueError:
        return False


def is_url(url: str, schemes: Container[str] = ("https", "http")) -> bool:
    """Whether it is an address of one of `schemes`; who cannot be asked by one is told so before it is tried."""
    try:
        parts = urlsplit(url)
        # What cannot be written so, as with an empty label in it, no resolver takes.
        host = (parts.hostname or "").encode("idna")
        return parts.scheme in schemes and bool(host) and parts.port != 0
    except ValueError:
        return False


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


def numbered(listen: Listen, number: int) -> Listen:
    """Where worker `number`, from 1, has what `listen` names: there, or on the ports or at the files after it."""
    host, port = host_and_port(listen)
    if number == 1:
        return listen
    return f"{host}.{number}" if unix_path(host) else f"{listen.rpartition(':')[0]}:{port + number - 1}"


@lru_cache(256)
def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`, an address or a name; of names only localhost is believed."""
    if unix_path(host):
        return True
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
