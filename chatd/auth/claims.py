"""What a token says: its segments and claims, judged one by one, and put together as an Identity.

Pure: whether a key signed it was judged before, and whether it has ended is judged after, by who has a clock.
"""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple, TypeAlias

from chatd.model import LAST_SECOND, ROLES, Grant, Identity, Invitation, Json
from chatd.names import clean_name, printable

Claims: TypeAlias = Mapping[str, Any]
"""The members of a token's payload, as JSON has them."""

# A token travels in a header or a cookie, and servers cut a header at 8 KiB (NGINX: large_client_header_buffers).
TOKEN_BYTES = 8192


class Parts(NamedTuple):
    """A token taken apart: nothing of it is verified.

    Attributes:
        header: what it says of itself.
        signing_input: what was signed (RFC 7515, 5.1).
        payload: what that says; `signature`: who says so.
    """

    header: Claims
    signing_input: bytes
    payload: bytes
    signature: bytes


def taken_apart(token: str) -> Parts:
    """Return the parts of a token.

    Raises:
        ValueError: it is no token, not for us to read (RFC 7515, 4.1.11), or too long.
    """
    if len(token) > TOKEN_BYTES or not token.isascii():
        raise ValueError(f"expected a JWT of at most {TOKEN_BYTES} ASCII characters")
    header, payload, signature = segments(token)
    return Parts(_header(header), token.rpartition(".")[0].encode(), payload, signature)


# An issuer writes the same header into every token of a key: 64 keys are many, and have at most half a megabyte.
@lru_cache(maxsize=64)
def _header(text: bytes) -> Claims:
    header = members_of(text)
    if "crit" in header:
        raise ValueError('the token\'s header has "crit", and no extension is known here; issue it without')
    if header.get("b64", True) is not True:
        raise ValueError('the token\'s header has "b64", and its payload is base64url here; issue it without')
    if "kid" in header and text_of(header, "kid") is None:
        raise ValueError('"kid" must be a string')
    return header


def no_key(header: Claims) -> str:
    kid = text_of(header, "kid")
    named = "without a kid" if kid is None else f'with kid "{printable(kid)[:24]}"'
    return f'no key here for this token {named} and alg "{printable(str(header.get("alg")))[:12]}"'


def segments(token: str) -> list[bytes]:
    """Return a token's header, payload and signature, their base64url undone (RFC 7515, 7.1).

    Raises:
        ValueError: it has not that shape.
    """
    segments = token.split(".")
    if len(segments) != 3:
        raise ValueError(f"expected a JWT, three segments with dots between; {len(segments)} came")
    try:
        return [_plain(segment.encode()) for segment in segments]
    except ValueError:
        raise ValueError("expected a JWT, whose segments are base64url") from None


def _plain(segment: bytes) -> bytes:
    """Undo base64url, of which bytes have one spelling, with all of its padding or, as they should, with none."""
    decoded = urlsafe_b64decode(segment + b"=" * (-len(segment) % 4))
    # Python passes over what is not of the alphabet. It is found so, as are bits that belong to no byte.
    padded = urlsafe_b64encode(decoded)
    if segment not in (padded, padded.rstrip(b"=")):
        raise ValueError("another spelling")
    return decoded


def members_of(text: bytes) -> Claims:
    """Return a JSON object's members.

    Raises:
        ValueError: it is not one, or it has two members of one name, which two readers may read differently.
    """
    try:
        members = _JSON.decode(text.decode())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"expected a JSON object: {error}") from None
    if not isinstance(members, dict):
        raise ValueError("expected a JSON object, other JSON came")
    return members


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) < len(pairs):
        raise ValueError("two members have the same name")
    return members


_JSON = json.JSONDecoder(object_pairs_hook=_unique)


def text_of(claims: Claims, name: str) -> str | None:
    """Return a claim that is text if it is there at all; null counts as not there."""
    value = claims.get(name)
    if value is None:
        return None
    if not isinstance(value, str):
        raise ValueError(f'"{name}" must be a string')
    # Half a surrogate pair can be written in JSON but not in UTF-8.
    value.encode()
    return value


def moment_of(claims: Claims, name: str) -> float | None:
    """Return a claim that is Unix seconds if it is there at all; null counts as not there."""
    value = claims.get(name)
    if value is None:
        return None
    if type(value) not in (int, float) or not 0 <= value <= LAST_SECOND:
        raise ValueError(f'"{name}" must be a number of Unix seconds')
    return float(value)


def user_of(claims: Claims) -> str:
    user = text_of(claims, "sub")
    if not user:
        raise ValueError('the token must say whose it is; issue it with "sub", a string that is not empty')
    return user


def identity_of(claims: Claims, kid: str | None, leeway: float, display_name: int) -> Identity:
    """Return what the verified claims of a connection token say; whether it has ended is not looked at.

    Args:
        kid: of the key that verified them.
    Raises:
        ValueError: a claim is missing or not what it should be.
    """
    expires_at = moment_of(claims, "exp")
    if expires_at is None:
        raise ValueError('the token must end; issue it with "exp"')
    if "channel" in claims:
        raise ValueError("expected a connection token, a subscription token came (it has a channel)")
    return Identity(
        user=user_of(claims),
        name=clean_name(text_of(claims, "name") or "", display_name),
        info=_compact(claims.get("info")),
        grants=_grants(claims.get("rooms")),
        expires_at=expires_at + leeway,
        token_id=text_of(claims, "jti") or None,
        issued_at=moment_of(claims, "iat"),
        kid=kid or "",
    )


def check_subscription(
    claims: Claims, kid: str | None, leeway: float, *, user: str, client: str, room: str
) -> Invitation:
    if user_of(claims) != user:
        raise ValueError("the subscription token is another user's")
    if text_of(claims, "channel") != room:
        raise ValueError("the subscription token is not for this channel")
    if text_of(claims, "client") not in (None, client):
        raise ValueError("the subscription token is another connection's")
    expires_at = moment_of(claims, "exp")
    return Invitation(
        user=user,
        expires_at=None if expires_at is None else expires_at + leeway,
        token_id=text_of(claims, "jti") or None,
        issued_at=moment_of(claims, "iat"),
        kid=kid or "",
    )


def _compact(value: object) -> Json | None:
    if value is None:
        return None
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
    except (ValueError, RecursionError):
        raise ValueError('"info" must be JSON: finite numbers, whole characters') from None


def _grants(rooms: object) -> tuple[Grant, ...]:
    if rooms is None:
        return ()
    if not isinstance(rooms, list):
        raise ValueError('"rooms" must be a list')
    return tuple(_grant(room) for room in rooms)


def _grant(room: object) -> Grant:
    """Return one entry of `rooms`: a pattern, or an object of `pattern` and perhaps `role`, and nothing else."""
    claims = {"pattern": room} if isinstance(room, str) else room
    if not isinstance(claims, dict) or not claims.keys() <= {"pattern", "role"}:
        raise ValueError('each of "rooms" must be a pattern, or an object with "pattern" and "role"')
    pattern, role = text_of(claims, "pattern"), text_of(claims, "role")
    if not pattern or (role is not None and role not in ROLES):
        raise ValueError(f'each of "rooms" needs a pattern, and a role, if any, of {", ".join(ROLES)}')
    return Grant(pattern) if role is None else Grant(pattern, ROLES[role])


def has_ended(identity: Identity, now: float) -> bool:
    return identity.expires_at is not None and identity.expires_at <= now
