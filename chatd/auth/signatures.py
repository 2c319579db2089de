"""Signatures of messages: proof that the application's back end let this user say this, here, once.

The back end shares a key with us, from which each user's own is derived; it hands a user that one, who so cannot sign
for another. What is signed says where, under which client id, when and what; a nonce makes it good for one time.

    key of a user   HMAC-SHA256(secret, "chatd-sign-v1" NUL user)
    signature       kid ":" ts ":" nonce ":" hex of HMAC-SHA256(key of the user, signed)
    signed          netstring of each of: "chatd-message-v1", room, cid, ts, nonce, text

A netstring is the length in bytes of UTF-8 in decimal, ":", the bytes, ","; so no part can pass for another. `ts` is
Unix seconds in decimal. For an edit the first part is "chatd-edit-v1", and for the cid stands the message's offset.

Pure, and by the clock that is handed in; that a nonce comes once is the store's to see.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from chatd.errors import BAD_SIGNATURE
from chatd.names import printable

# Clocks of phones are off by minutes, and a message may wait for a tunnel's end.
SKEW_S: Final = 300

_SHAPE: Final = re.compile(r"([^:]+):([0-9]{1,12}):([A-Za-z0-9_-]{8,64}):([0-9a-f]{64})")


class Signed(StrEnum):
    """What a signature is for; the value is the first part of what is signed."""

    MESSAGE = "chatd-message-v1"
    EDIT = "chatd-edit-v1"


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A key shared with the application's back end; `accept_until` is Unix seconds, 0.0: no end."""

    kid: str
    secret: bytes = field(repr=False)
    accept_until: float = 0.0

    def of(self, user: str) -> bytes:
        """The key of one user."""
        return hmac.digest(self.secret, b"chatd-sign-v1\0" + user.encode(), hashlib.sha256)


class Signatures:
    """Checks signatures with one configuration's keys."""

    def __init__(self, keys: Iterable[SigningKey]) -> None:
        self._keys = {key.kid: key for key in keys}

    def check(self, sig: str, *, what: Signed, user: str, room: str, cid: str, text: str, now: float) -> str:
        """The nonce of a signature that is right at `now`, in Unix seconds.

        Args:
            cid: the client id of a message, the offset of what is edited.
        Raises:
            Reject 407, with what is wrong.
        """
        shape = _SHAPE.fullmatch(sig)
        if shape is None:
            raise BAD_SIGNATURE.because(
                "expected a signature kid:ts:nonce:hex, with Unix seconds, 8 to 64 letters, digits, - or _, and 64 "
                "hexadecimal digits in lower case"
            )
        kid, ts, nonce, given = shape.groups()
        key = self._keys.get(kid)
        if key is None or 0 < key.accept_until <= now:
            raise BAD_SIGNATURE.because(f'the signing key "{printable(kid)[:24]}" is not, or no longer, known here')
        if abs(now - int(ts)) > SKEW_S:
            raise BAD_SIGNATURE.because(f"the signature is of another time: at most {SKEW_S} s from now; see the clock")
        right = hmac.digest(key.of(user), signed(what, room, cid, ts, nonce, text), hashlib.sha256).hex()
        if not hmac.compare_digest(right, given):
            raise BAD_SIGNATURE.because("the signature is not of this text by this user, in this room, with this cid")
        return nonce


def signed(what: Signed, room: str, cid: str, ts: str, nonce: str, text: str) -> bytes:
    """The bytes that are signed, as the head of this file has it."""
    parts = (part.encode() for part in (what, room, cid, ts, nonce, text))
    return b"".join(b"%d:%b," % (len(part), part) for part in parts)
