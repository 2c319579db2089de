"""What clients bring as data: whether it may be stored, and the few members that the server itself reads.

Data is an author's own JSON. It is judged here and passed on as the bytes that came, since a signature is over those
bytes. Everybody who lets data in asks here, whichever door it came by. What a cid or a signature is for is not known
here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import accumulate
from typing import Any, Final, NamedTuple, TypeVar

import msgspec
import orjson

from chatd.errors import BAD_REQUEST, TOO_LARGE
from chatd.model import Json

T = TypeVar("T")

# A UUID with a prefix fits well; the store keeps every cid for minutes.
CID_CHARS: Final = 64
# Each is a notice of its own.
MENTIONS: Final = 50
# Nesting that all of our parsers take, wherever they are called from; msgspec gives up near 1000.
DEEPEST: Final = 512
# "kid:ts:nonce:hex" with a SHA-512 is about 200.
SIG_CHARS: Final = 512


class Payload(NamedTuple):
    """Data that may be stored.

    Attributes:
        data: as it came, byte for byte, but for raw newlines between its tokens.
        cid: the author's own number for it, by which a repeated send is recognised; None: it has none.
        text: the "text" of an object where that is a string; else None.
        sig: the signature as sent; None: it has none.
        reply_to: offset of the message that it answers; None: of none.
        mentions: the users it speaks of, each once.
    """

    data: Json
    cid: str | None
    text: str | None
    sig: str | None
    reply_to: int | None = None
    mentions: tuple[str, ...] = ()


def check(data: bytes, *, limit: int, depth: int, chat: bool) -> Payload:
    """Return `data` as what may be stored.

    JSON as RFC 8259 has it, in UTF-8, without half a surrogate pair. Where an object names a key twice the last one
    counts, as in every browser.

    Args:
        data: anything.
        limit: most bytes; 0: no limit.
        depth: most objects and arrays within each other; 0, or more than DEEPEST: that many.
        chat: it must be an object with a string "text", and where it has "reply_to" or "mentions", they must be a whole
            number and users; elsewhere something else under these names is the application's own.
    Raises:
        Reject 413: it is longer than `limit`.
        Reject 107: it is not JSON, nested deeper than `depth`, or has a text, cid, sig, reply_to or mentions
            of the wrong shape.
    """
    if 0 < limit < len(data):
        raise TOO_LARGE.because(f"data has at most {limit} bytes, {len(data)} came; send less")
    value = _parsed(data)
    most = min(depth or DEEPEST, DEEPEST)
    if most < (found := _depth_at_most(data, most)):
        raise BAD_REQUEST.because(f"data is nested at most {most} deep, {found} came; make it flatter")
    members = value if isinstance(value, dict) else {}
    text = members.get("text")
    if chat and not isinstance(text, str):
        raise BAD_REQUEST.because('this room takes objects with a string "text", and this is none')
    cid, sig = _word(members, "cid", CID_CHARS), _word(members, "sig", SIG_CHARS)
    reply_to, mentions = _reply_to(members, strict=chat), _mentions(members, strict=chat)
    return Payload(_one_line(data), cid, text if isinstance(text, str) else None, sig, reply_to, mentions)


def forgiving(parse: Callable[[bytes], T], json: bytes) -> T:
    """What `parse` makes of JSON; where half a surrogate pair in it is all that is wrong, of JSON without.

    Text that was cut within an emoji has one, and msgspec refuses it.
    """
    try:
        return parse(json)
    except msgspec.MsgspecError:
        if (whole := whole_characters(json)) == json:
            raise
        return parse(whole)


def whole_characters(json: bytes) -> bytes:
    """JSON with U+FFFD, which is what browsers make of it in UTF-8, where it writes half a surrogate pair."""
    return _ESCAPE.sub(lambda escape: escape[1] or rb"\ufffd", json) if rb"\u" in json else json


# An escape of JSON: its first group is a whole character; without it, half a surrogate pair.
_ESCAPE: Final = re.compile(
    rb"(\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\(?!u[dD][89a-fA-F]).)|\\u[dD][89a-fA-F][0-9a-fA-F]{2}"
)


def strings(data: Json) -> Iterator[str]:
    """Every string in data that was checked, wherever it stands; names of members too."""
    waiting = [orjson.loads(data)]
    while waiting:
        match waiting.pop():
            case str() as text:
                yield text
            case list() as items:
                waiting += items
            case dict() as members:
                yield from members
                waiting += members.values()


def with_text(data: Json, text: str) -> Json:
    """Data that was checked and is an object, with another "text"."""
    return msgspec.json.encode({**members(data), "text": text})


def members(data: Json) -> dict[str, msgspec.Raw]:
    """The members of data that was checked and is an object, each as it came: a number may be one of any size."""
    return msgspec.json.decode(data, type=dict[str, msgspec.Raw])


def claimed_user(data: Json | None) -> str | None:
    """Return the "user" that a client without a token calls itself in its connect data; None if it names nobody."""
    try:
        value = orjson.loads(data or b"null")
    except orjson.JSONDecodeError:
        return None
    user = value.get("user") if isinstance(value, dict) else None
    return user if isinstance(user, str) and user else None


def _parsed(data: bytes) -> Any:
    if not data:
        raise BAD_REQUEST.because("expected data, none came")
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise BAD_REQUEST.because(f"expected data in JSON: {error.msg} at character {error.pos}") from None


def _word(members: dict[str, Any], name: str, limit: int) -> str | None:
    if name not in members:
        return None
    word = members[name]
    if not isinstance(word, str) or not 1 <= len(word) <= limit:
        raise BAD_REQUEST.because(f'"{name}" is a string of 1 to {limit} characters, and this is none')
    return word


def _reply_to(members: dict[str, Any], *, strict: bool) -> int | None:
    offset = members.get("reply_to")
    if isinstance(offset, float):
        offset = whole(offset)
    if type(offset) is int:
        return offset
    if strict and offset is not None:
        raise BAD_REQUEST.because('"reply_to" is the offset of a message, and this is none')
    return None


def _mentions(members: dict[str, Any], *, strict: bool) -> tuple[str, ...]:
    users = members.get("mentions")
    if isinstance(users, list) and all(isinstance(user, str) for user in users):
        if len(users) > MENTIONS:
            raise BAD_REQUEST.because(f'"mentions" has at most {MENTIONS} users, {len(users)} came; name fewer')
        return tuple(dict.fromkeys(users))
    if strict and users is not None:
        raise BAD_REQUEST.because('"mentions" is a list of users, and this is none')
    return ()


def whole(number: float) -> int | float:
    """5 for 5.0; what is no whole number, or too large for a float to be a certain one, stays as it is."""
    return int(number) if number.is_integer() and abs(number) < 2**53 else number


# What is not a bracket that counts: strings, and all between strings and brackets.
_FLAT: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+"|[^"{}\[\]]++')


def _depth_at_most(data: Json, enough: int) -> int:
    """How deep valid JSON is nested, or any number up to `enough` when it is no deeper than that.

    The bytes are looked at and not the parsed value, where one of two equal keys is missing.
    """
    opened = data.count(b"{") + data.count(b"[")
    if opened <= enough:
        return opened
    return max(accumulate(1 if bracket in b"{[" else -1 for bracket in _FLAT.sub(b"", data)), default=0)


def _one_line(data: Json) -> Json:
    """Valid JSON without raw newlines. Inside a string there is none (RFC 8259, 7), and between tokens none matters."""
    return data.translate(None, b"\r\n") if b"\n" in data or b"\r" in data else data
