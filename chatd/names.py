"""What people may be called and what rooms may be called, so that no name can pass for another or steer a terminal.

Rooms are refused when their name is not clean, since two spellings of one name would be two rooms. Display names come
from somebody else's database: they are cleaned, never refused. User ids are opaque here, as everywhere.

Everything is a pure function of text. Which names are reserved or taken is not known here.
"""

from __future__ import annotations

import re
import unicodedata

from chatd.errors import BAD_REQUEST

# What nobody sees but what changes how the rest reads. The ranges are written out, not asked of unicodedata, so that
# two nodes with different Pythons agree on a name. Left in: variation selectors, which choose how an emoji or a kanji
# looks. Taken out although they have their uses (joined emoji, soft hyphens, Persian): a name must have one spelling.
_HIDDEN = re.compile(
    "["
    "\\x00-\\x1f\\x7f-\\x9f"  # C0, DEL and C1 controls (ESC, CR, LF, CSI)
    "\\u2028\\u2029"  # line and paragraph separator
    "\\u061c\\u200e\\u200f\\u202a-\\u202e\\u2066-\\u206f"  # bidi marks, overrides and isolates (UAX #9)
    "\\xad\\u180b-\\u180f\\u200b-\\u200d\\u2060-\\u2065\\ufeff\\ufff0-\\ufffb"  # zero width, soft hyphen, annotations
    "\\u034f\\u115f\\u1160\\u17b4\\u17b5\\u3164\\uffa0"  # joiners and fillers that count as letters but show nothing
    "\\U0001bca0-\\U0001bca3\\U0001d173-\\U0001d17a\\U000e0000-\\U000e00ff"  # shorthand, music, tag characters
    "\\ud800-\\udfff"  # half a surrogate pair: not a character, and not encodable
    "]"
)

_DM = "dm#"


def clean_name(text: str, limit: int) -> str:
    """Return `text` as a display name: NFC, one line, nothing hidden; "" if none are left.

    White space of any kind becomes one space between words. Cleaning a clean name changes nothing.

    Args:
        limit: most characters; 0: no limit.
    """
    visible = _HIDDEN.sub("", " ".join(text.split()))
    composed = unicodedata.normalize("NFC", " ".join(visible.split()))
    return composed[: limit or None].rstrip()


def room_name(text: str, limit_bytes: int) -> str:
    """Return `text` if it may name a room: NFC, nothing hidden in it, not empty; and where it begins like a direct
    room, one that has two users.

    Args:
        limit_bytes: most bytes of UTF-8; 0: no limit.
    Raises:
        Reject: 107, with a sentence that says which of these it is not.
    """
    if not text:
        raise BAD_REQUEST.because("expected the name of a room, an empty one came")
    if hidden := _HIDDEN.search(text):
        found = f"U+{ord(hidden[0]):04X}"
        raise BAD_REQUEST.because(f"a room name holds visible characters only, {found} came; leave it out")
    if 0 < limit_bytes < (size := len(text.encode())):
        raise BAD_REQUEST.because(f"a room name has at most {limit_bytes} bytes of UTF-8, {size} came; shorten it")
    if not unicodedata.is_normalized("NFC", text):
        raise BAD_REQUEST.because("a room name must be in Unicode form NFC, and this one is not; normalize it")
    if text.startswith(_DM) and dm_members(text) is None:  # what is said there, nobody could read
        raise BAD_REQUEST.because(
            "a direct room is dm#<id>,<id>, the ids sorted by code point and in each `%` written %25 and `,` written "
            f"%2C; {text!r} came"
        )
    return text


def without_hidden(text: str) -> str:
    """`text` without what nobody sees; see clean_name for a name."""
    return _HIDDEN.sub("", text)


def printable(text: str) -> str:
    r"""Return `text` for a terminal or a log line: what is hidden or steers is spelled out, ESC as `\x1b`.

    A backslash stays as it is, so this is for eyes, not for reading back.
    """
    return _HIDDEN.sub(lambda hidden: hidden[0].encode("unicode_escape").decode(), text)


def is_reserved(room: str) -> bool:
    """Whether the name itself says who may be there: a personal channel, or a direct room."""
    return room.startswith(("#", _DM))


def dm_room(a: str, b: str) -> str:
    """Return the name of the direct room of users `a` and `b`, whichever is named first.

    `dm#<id>,<id>`: the ids sorted by code point as they are, then `%` written `%25` and `,` written `%2C` in each, so
    that a comma in an id cannot name somebody else's room.
    """
    return _DM + ",".join(_escape(user) for user in sorted((a, b)))


def dm_members(room: str) -> tuple[str, str] | None:
    """Return the two users of a direct room, sorted; None if `room` is not exactly what dm_room makes of two ids."""
    if not room.startswith(_DM):
        return None
    first, _, second = room.removeprefix(_DM).partition(",")
    members = _unescape(first), _unescape(second)
    return members if all(members) and dm_room(*members) == room else None


def _escape(user: str) -> str:
    return user.replace("%", "%25").replace(",", "%2C")


def _unescape(escaped: str) -> str:
    return escaped.replace("%2C", ",").replace("%25", "%")
