"""Who somebody is: a token goes in, an Identity comes out, or a refusal.

A token is a JSON Web Token (RFC 7519) in compact form. pyjwt judges its signature; its claims are judged here, by the
clock that was handed in. The key decides the algorithm, never the token (RFC 8725, 3.1): a token's header only narrows
down which of our keys are tried. Where a key set must be read, that happens in a thread.

There is no question here that is answered with true or false: what comes back is what one needs to go on, so a call
that was not awaited, and a refusal that was not caught, let nobody in.

Where a token is found (header, cookie, connect command) is the doors' business; what an identity may do is rules.py's;
how revocations travel between nodes is the store's.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import math
import time
import urllib.error
import urllib.parse
import urllib.request
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path
from typing import IO, Any, NamedTuple, NoReturn, TypeAlias

import jwt
from cryptography.exceptions import UnsupportedAlgorithm

from chatd.errors import INVALID_TOKEN, PERMISSION_DENIED, TOKEN_EXPIRED
from chatd.model import ROLES, Grant, Identity, Json
from chatd.names import clean_name, printable

Claims: TypeAlias = Mapping[str, Any]
"""The members of a token's payload, as JSON has them."""

Clock: TypeAlias = Callable[[], float]
"""Returns Unix seconds."""

SYMMETRIC = frozenset({"HS256", "HS384", "HS512"})
ASYMMETRIC = frozenset({"RS256", "ES256", "EdDSA"})

# A token travels in a header or a cookie, and servers cut a header at 8 KiB (NGINX: large_client_header_buffers).
TOKEN_BYTES = 8192

# The end of the year 9999, the last second that calendars can write; beyond it a claim is an error, not a date.
LAST_SECOND = 253_402_300_799

# When a node dies its clients come back together: enough for the connections of one node, at 0.7 KB each.
CACHED_TOKENS = 16_384

# A token with an unknown key id costs its sender nothing, so it may not make us read more often than this.
UNKNOWN_KEY_S = 30.0

# How long a key that its issuer withdrew from a key set may live on here; issuers let theirs be cached 5 min to a day.
KEY_SET_FRESH_S = 300.0

KEY_SET_TIMEOUT_S = 5.0

# A set has a few keys, each below 1 KB, or 5 KB with its certificates.
KEY_SET_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class Key:
    """Key material as configured. Exactly one of the last four is set.

    Attributes:
        kid: the key id that tokens name; for a key set, what messages call it.
        algorithm: the one algorithm that tokens of this key use; "" for a key set whose keys say so themselves.
        secret: for HS256, HS384, HS512; at least as long as the hash (RFC 7518, 3.2).
        public_key: PEM, for RS256, ES256, EdDSA.
        jwks_file: path of a JWK set (RFC 7517); asymmetric keys only.
        jwks_url: http or https address of one. Plain http is for hosts of one's own: who can change the answer on its
            way can log in as anybody.
    """

    kid: str
    algorithm: str
    secret: bytes | None = field(default=None, repr=False)
    public_key: str | None = field(default=None, repr=False)
    jwks_file: str | None = None
    # Not shown: such an address can carry a password.
    jwks_url: str | None = field(default=None, repr=False)


class Verifier:
    """Verifies tokens with one configuration's keys; when keys or rules change, make a new one.

    Tokens that were found good are remembered by their SHA-256, until they end or their key is no longer in force:
    after a node's death its clients return with the tokens they had. Measured on one core of a 2-core machine (CPython
    3.11, pyjwt 2.15): a remembered token costs 2 µs; one not seen before 60 µs with HS256 or HS512 (pyjwt looks on
    each use whether the secret is not somebody's public key), 83 µs with RS256, 130 µs with ES256, 160 µs with EdDSA.

    Args:
        keys: what tokens may be signed with; without any, every token is refused.
        audience: what `aud` must contain. "": tokens that name an audience are refused (RFC 7519, 4.1.3).
        issuer: what `iss` must be; "" for any.
        leeway: seconds by which the issuer's clock may differ; a token is good for so much longer.
        display_name: longest display name in characters.
    Raises:
        ValueError: a key cannot be used; the sentence names it by its kid and says what to do.
    """

    def __init__(
        self,
        keys: Iterable[Key],
        *,
        audience: str = "",
        issuer: str = "",
        leeway: float = 0.0,
        display_name: int = 32,
        clock: Clock = time.time,
    ) -> None:
        configured = tuple(keys)
        self._own_keys = tuple(_verifying_key(key) for key in configured if not _is_key_set(key))
        self._key_sets = tuple(_KeySet(key, clock) for key in configured if _is_key_set(key))
        _refuse_twins(self._own_keys)
        self._audience = audience
        self._issuer = issuer
        self._leeway = leeway
        self._display_name = display_name
        self._clock = clock
        self._proven: OrderedDict[bytes, _Proven] = OrderedDict()

    async def identity(self, token: str) -> Identity:
        """Return whom a connection token speaks for. Its `expires_at` is the token's `exp` plus the leeway.

        Raises:
            Reject: TOKEN_EXPIRED, when nothing else is wrong with it.
            Disconnect: INVALID_TOKEN, with a sentence, for everything else.
        """
        self._look_for_new_keys()
        # "replace": what is not Unicode may hash like something else that is no token; only good tokens are remembered.
        digest = hashlib.sha256(token.encode(errors="replace")).digest()
        if known := self._recall(digest):
            return known
        try:
            claims, key = await self._verified(token)
            identity = _identity(claims, self._leeway, self._display_name)
        except ValueError as refusal:
            raise INVALID_TOKEN.because(str(refusal)) from None
        self._refuse_ended(identity.expires_at)
        self._remember(digest, _Proven(identity, key))
        return identity

    async def subscription(self, token: str, *, user: str, client: str, room: str) -> float | None:
        """Return when a subscription token ends, in Unix seconds with the leeway; None: never.

        It must be of this `user` (claim `sub`), for this `room` (`channel`) and, if it names a connection (`client`),
        for this one. Not remembered: it is for one room of one connection.

        Raises:
            Reject: TOKEN_EXPIRED, when nothing else is wrong with it; PERMISSION_DENIED for everything else.
        """
        self._look_for_new_keys()
        try:
            claims, _ = await self._verified(token)
            expires_at = _check_subscription(claims, self._leeway, user=user, client=client, room=room)
        except ValueError as refusal:
            raise PERMISSION_DENIED.because(str(refusal)) from None
        self._refuse_ended(expires_at)
        return expires_at

    async def read_key_sets(self) -> list[str]:
        """Read every key set that was not read just now; return a sentence for each that could not be.

        For start-up and for diagnosis; tokens that arrive cause the reading they need by themselves.
        """
        await self._read_sets()
        return [key_set.trouble for key_set in self._key_sets if key_set.trouble]

    async def _verified(self, token: str) -> tuple[Claims, _VerifyingKey]:
        """Return the claims of a token whose signature, audience, issuer and beginning are right, and its key.

        Raises:
            ValueError: they are not. Whether the token has ended is not looked at.
        """
        header = _header(token)
        for key in await self._candidates(header):
            payload = key.payload(token)
            if payload is not None:
                claims = _members(payload)
                self._check_audience(claims)
                self._check_issuer(claims)
                self._check_begun(claims)
                return claims, key
        raise ValueError(_no_key(header))

    async def _candidates(self, header: Claims) -> list[_VerifyingKey]:
        """Return the keys that a token with this header may be signed with, reading key sets again if we know none."""
        found = self._matching(header)
        if not found:
            await self._read_sets()
            found = self._matching(header)
        return found

    def _matching(self, header: Claims) -> list[_VerifyingKey]:
        kid, algorithm = header.get("kid"), header.get("alg")
        return [key for key in self._keys() if key.algorithm == algorithm and kid in (None, key.kid)]

    def _keys(self) -> Iterator[_VerifyingKey]:
        yield from self._own_keys
        for key_set in self._key_sets:
            yield from key_set.keys

    async def _read_sets(self) -> None:
        readings = [reading for each in self._key_sets if (reading := each.read_again(UNKNOWN_KEY_S))]
        if readings:
            # wait() leaves the reading alone when one of those who wait for it is cancelled.
            await asyncio.wait(readings)

    def _look_for_new_keys(self) -> None:
        """Have stale key sets read again, without waiting: what we have is good for the meantime."""
        for key_set in self._key_sets:
            key_set.read_again(KEY_SET_FRESH_S)

    def _check_audience(self, claims: Claims) -> None:
        named = claims.get("aud")
        audiences = [] if named is None else named if isinstance(named, list) else [named]
        if self._audience and self._audience not in audiences:
            raise ValueError("the token is not for this server's audience; issue it with the aud configured here")
        if audiences and not self._audience:
            raise ValueError("the token names an audience and this server has none; leave aud out or configure it")

    def _check_issuer(self, claims: Claims) -> None:
        if self._issuer and claims.get("iss") != self._issuer:
            raise ValueError("the token's iss is not the issuer that is configured here")

    def _check_begun(self, claims: Claims) -> None:
        begins = _moment(claims, "nbf")
        if begins is not None and begins > self._clock() + self._leeway:
            raise ValueError("the token is not valid yet (nbf); compare the clocks of issuer and server")

    def _refuse_ended(self, expires_at: float | None) -> None:
        if expires_at is not None and expires_at <= self._clock():
            raise TOKEN_EXPIRED.because("the token has expired; get a new one")

    def _recall(self, digest: bytes) -> Identity | None:
        proven = self._proven.get(digest)
        if proven is None:
            return None
        if proven.key not in self._keys() or _has_ended(proven.identity, self._clock()):
            del self._proven[digest]
            return None
        self._proven.move_to_end(digest)
        return proven.identity

    def _remember(self, digest: bytes, proven: _Proven) -> None:
        self._proven[digest] = proven
        if len(self._proven) > CACHED_TOKENS:
            self._proven.popitem(last=False)


# --- keys -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class _VerifyingKey:
    """A key that was checked and loaded. Each is equal to itself only: the same key read anew is a new key."""

    kid: str | None
    algorithm: str
    material: Any = field(repr=False)

    def payload(self, token: str) -> bytes | None:
        """Return what the token says, if this key signed it; None if another did.

        Raises:
            ValueError: it is no token, or one that asks for something we do not know.
        """
        try:
            return bytes(_JWS.decode_complete(token, self.material, algorithms=[self.algorithm])["payload"])
        except jwt.InvalidSignatureError:
            return None
        except jwt.PyJWTError as error:
            raise ValueError(f"expected a signed JWT in compact form: {error}") from None


class _Proven(NamedTuple):
    identity: Identity
    key: _VerifyingKey


_JWS = jwt.PyJWS()


def _is_key_set(key: Key) -> bool:
    return key.jwks_file is not None or key.jwks_url is not None


def _verifying_key(key: Key) -> _VerifyingKey:
    """Load a configured secret or public key.

    Raises:
        ValueError: it does not go with its algorithm, is too short, or is a private key.
    """
    material = _material(key)
    if key.algorithm not in SYMMETRIC | ASYMMETRIC:
        known = ", ".join(sorted(SYMMETRIC | ASYMMETRIC))
        raise ValueError(f'key "{key.kid}": expected an algorithm out of {known}, "{key.algorithm}" came')
    algorithm = jwt.get_algorithm_by_name(key.algorithm)
    try:
        loaded = algorithm.prepare_key(material)
    except (jwt.PyJWTError, UnsupportedAlgorithm, ValueError, TypeError):
        raise ValueError(f'key "{key.kid}": what is configured is no key for {key.algorithm}; check it') from None
    if too_short := algorithm.check_key_length(loaded):
        raise ValueError(f'key "{key.kid}" is too weak for {key.algorithm}: {too_short}')
    return _VerifyingKey(key.kid, key.algorithm, loaded)


def _material(key: Key) -> bytes | str:
    """Return the secret of a symmetric key or the PEM of an asymmetric one; never the one for the other."""
    if key.algorithm in SYMMETRIC:
        if key.secret is None or key.public_key is not None:
            raise ValueError(f'key "{key.kid}": {key.algorithm} wants a secret and nothing else')
        return key.secret
    if key.public_key is None or key.secret is not None:
        raise ValueError(f'key "{key.kid}": {key.algorithm} wants a public key and nothing else')
    if "PRIVATE KEY" in key.public_key:
        raise ValueError(f'key "{key.kid}": expected a public key, a private one came; keep that with the issuer')
    return key.public_key


def _refuse_twins(keys: Iterable[_VerifyingKey]) -> None:
    seen: set[str | None] = set()
    for key in keys:
        if key.kid in seen:
            raise ValueError(f'key "{key.kid}" is configured twice; give every key a kid of its own')
        seen.add(key.kid)


class _KeySet:
    """A JWK set (RFC 7517) at a file or address, read again when somebody asks and it has become old.

    A reading that fails leaves the keys as they were. `trouble` is a sentence about the last reading; None: it went
    well, or there was none.
    """

    def __init__(self, key: Key, clock: Clock) -> None:
        _check_key_set(key)
        self.keys: tuple[_VerifyingKey, ...] = ()
        self.trouble: str | None = None
        self._source = key
        self._clock = clock
        self._text = b""
        self._tried_at = -math.inf
        self._reading: asyncio.Task[None] | None = None

    def read_again(self, older_than_s: float) -> asyncio.Task[None] | None:
        """Return the reading under way, or a new one if the last began `older_than_s` ago or more, else None."""
        age = self._clock() - self._tried_at
        # A negative age: the clock was set back. Then we do not know the age.
        if self._reading is None and not 0 <= age < older_than_s:
            self._tried_at = self._clock()
            self._reading = asyncio.create_task(self._read(), name=f"read key set {self._source.kid}")
        return self._reading

    async def _read(self) -> None:
        try:
            # The thread may outlive this wait, if the source drips: at most one a reading, at one reading in 30 s.
            async with asyncio.timeout(2 * KEY_SET_TIMEOUT_S):
                text, keys = await asyncio.to_thread(_read_key_set, self._source)
        except (OSError, HTTPException, ValueError) as error:
            kind = type(error).__name__
            self.trouble = f'key set "{self._source.kid}" could not be read, its old keys stay: {error or kind}'
        else:
            # Unchanged text leaves the very same keys, and with them the identities they have proven.
            if text != self._text:
                self._text, self.keys = text, keys
            self.trouble = None
        finally:
            self._reading = None


def _check_key_set(key: Key) -> None:
    if key.algorithm and key.algorithm not in ASYMMETRIC:
        known = ", ".join(sorted(ASYMMETRIC))
        raise ValueError(f'key set "{key.kid}": expected one of {known} or no algorithm, "{key.algorithm}" came')
    if key.secret is not None or key.public_key is not None or None not in (key.jwks_file, key.jwks_url):
        raise ValueError(f'key set "{key.kid}": configure one source: a file, an address, a secret or a public key')
    if key.jwks_url is not None and urllib.parse.urlsplit(key.jwks_url).scheme not in ("https", "http"):
        raise ValueError(f'key set "{key.kid}": expected an address that begins with https:// or http://')


def _read_key_set(source: Key) -> tuple[bytes, tuple[_VerifyingKey, ...]]:
    """Read and load a key set; blocks, so it belongs in a thread.

    Raises:
        OSError, HTTPException: the source did not give it.
        ValueError: what it gave is not a key set with a key that can be used.
    """
    text = _read_file(source.jwks_file) if source.jwks_file is not None else _read_url(source.jwks_url or "")
    if len(text) > KEY_SET_BYTES:
        raise ValueError(f"expected at most {KEY_SET_BYTES} bytes, more came")
    entries = _members(text).get("keys")
    if not isinstance(entries, list):
        raise ValueError('expected a JSON object with a list "keys"')
    allowed = frozenset({source.algorithm}) if source.algorithm else ASYMMETRIC
    keys = tuple(key for entry in entries if (key := _published_key(entry, allowed)))
    if not keys:
        raise ValueError(f"it has no public key for {' or '.join(sorted(allowed))}")
    return text, keys


def _published_key(entry: object, allowed: frozenset[str]) -> _VerifyingKey | None:
    """Return an entry of a key set as a key; None if it is not for signatures, not allowed or not sound.

    An entry with a private part ("d") is not used: who published that has given the key away.
    """
    if not isinstance(entry, dict) or entry.get("use", "sig") != "sig" or "d" in entry:
        return None
    try:
        published = jwt.PyJWK(entry)
        if published.algorithm_name not in allowed or published.Algorithm.check_key_length(published.key):
            return None
        kid = _text(entry, "kid")
    except (jwt.PyJWTError, UnsupportedAlgorithm, ValueError, TypeError, KeyError):
        return None
    return _VerifyingKey(kid, published.algorithm_name, published.key)


def _read_file(path: str) -> bytes:
    with Path(path).open("rb") as file:
        return file.read(KEY_SET_BYTES + 1)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Keys come from the address that was configured: a redirect could lead from https to http."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> NoReturn:
        fp.close()
        raise OSError(f"expected 200, {code} came, a redirect; configure the address where the keys are")


def _read_url(url: str) -> bytes:
    try:
        with urllib.request.build_opener(_NoRedirect).open(url, timeout=KEY_SET_TIMEOUT_S) as response:
            text: bytes = response.read(KEY_SET_BYTES + 1)
            return text
    except urllib.error.HTTPError as refusal:
        with refusal:
            raise OSError(f"expected 200, {refusal.code} came") from None


# --- claims -----------------------------------------------------------------------------------------------------------


def _header(token: str) -> Claims:
    """Return a token's header, which nobody has verified.

    Raises:
        ValueError: there is none, it is not for us to read (RFC 7515, 4.1.11), or the token is too long.
    """
    if len(token) > TOKEN_BYTES or not token.isascii():
        raise ValueError(f"expected a JWT of at most {TOKEN_BYTES} ASCII characters")
    header = _members(_segments(token)[0])
    if "crit" in header:
        raise ValueError('the token\'s header has "crit", and no extension is known here; issue it without')
    _text(header, "kid")
    return header


def _no_key(header: Claims) -> str:
    kid = _text(header, "kid")
    named = "without a kid" if kid is None else f'with kid "{printable(kid)[:24]}"'
    return f'no key here for this token {named} and alg "{printable(str(header.get("alg")))[:12]}"'


def _segments(token: str) -> list[bytes]:
    """Return a token's header, payload and signature, their base64url undone (RFC 7515, 7.1).

    Raises:
        ValueError: it has not that shape. Junk among the base64url is passed over here, and found by pyjwt.
    """
    segments = token.split(".")
    if len(segments) != 3:
        raise ValueError(f"expected a JWT, three segments with dots between; {len(segments)} came")
    try:
        return [base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4)) for segment in segments]
    except ValueError:
        raise ValueError("expected a JWT, whose segments are base64url") from None


def _members(text: bytes) -> Claims:
    """Return a JSON object's members.

    Raises:
        ValueError: it is not one, or it has two members of one name, which two readers may read differently.
    """
    try:
        members = json.loads(text.decode(), object_pairs_hook=_unique)
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


def _text(claims: Claims, name: str) -> str | None:
    """Return a claim that is text if it is there at all; null counts as not there."""
    value = claims.get(name)
    if value is None:
        return None
    if not isinstance(value, str):
        raise ValueError(f'"{name}" must be a string')
    # Half a surrogate pair can be written in JSON but not in UTF-8.
    value.encode()
    return value


def _moment(claims: Claims, name: str) -> float | None:
    """Return a claim that is Unix seconds if it is there at all; null counts as not there."""
    value = claims.get(name)
    if value is None:
        return None
    if type(value) not in (int, float) or not 0 <= value <= LAST_SECOND:
        raise ValueError(f'"{name}" must be a number of Unix seconds')
    return float(value)


def _user(claims: Claims) -> str:
    user = _text(claims, "sub")
    if not user:
        raise ValueError('the token must say whose it is; issue it with "sub", a string that is not empty')
    return user


def _identity(claims: Claims, leeway: float, display_name: int) -> Identity:
    """Return what the verified claims of a connection token say; whether it has ended is not looked at.

    Raises:
        ValueError: a claim is missing or not what it should be.
    """
    expires_at = _moment(claims, "exp")
    if expires_at is None:
        raise ValueError('the token must end; issue it with "exp"')
    if "channel" in claims:
        raise ValueError("expected a connection token, a subscription token came (it has a channel)")
    return Identity(
        user=_user(claims),
        name=clean_name(_text(claims, "name") or "", display_name),
        info=_compact(claims.get("info")),
        grants=_grants(claims.get("rooms")),
        expires_at=expires_at + leeway,
        token_id=_text(claims, "jti") or None,
        issued_at=_moment(claims, "iat"),
    )


def _check_subscription(claims: Claims, leeway: float, *, user: str, client: str, room: str) -> float | None:
    if _user(claims) != user:
        raise ValueError("the subscription token is another user's")
    if _text(claims, "channel") != room:
        raise ValueError("the subscription token is not for this channel")
    if _text(claims, "client") not in (None, client):
        raise ValueError("the subscription token is another connection's")
    expires_at = _moment(claims, "exp")
    return None if expires_at is None else expires_at + leeway


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
    pattern, role = _text(claims, "pattern"), _text(claims, "role")
    if not pattern or (role is not None and role not in ROLES):
        raise ValueError(f'each of "rooms" needs a pattern, and a role, if any, of {", ".join(ROLES)}')
    return Grant(pattern) if role is None else Grant(pattern, ROLES[role])


def _has_ended(identity: Identity, now: float) -> bool:
    return identity.expires_at is not None and identity.expires_at <= now


# --- revoking ---------------------------------------------------------------------------------------------------------


class Revocation(NamedTuple):
    """One row of what was revoked, as the store carries it: text and numbers only.

    Attributes:
        kind: "token" or "user".
        id: the token's `jti`, or the user.
        until: Unix seconds after which nothing is left that it could cover.
        issued_before: for a user, Unix seconds: tokens issued until then are void; 0 for a token.
    """

    kind: str
    id: str
    until: float
    issued_before: float = 0.0


class Revocations:
    """Tokens and users whose tokens no longer count, though they are signed and have not ended.

    Two revocations of one thing become the wider of each bound, so rows may be loaded twice and in any order.
    """

    def __init__(self) -> None:
        self._rows: dict[tuple[str, str], Revocation] = {}

    def revoke_token(self, token_id: str, until: float) -> None:
        """Void the token with this `jti`; `until` is when it ends by itself, in Unix seconds."""
        self._add(Revocation("token", token_id, until))

    def revoke_user(self, user: str, issued_before: float, until: float) -> None:
        """Void every token of `user` issued at or before `issued_before`, or without a date; both in Unix seconds."""
        self._add(Revocation("user", user, until, issued_before))

    def covers(self, identity: Identity, now: float) -> bool:
        """Return whether this identity's token is void at `now`, in Unix seconds."""
        token = self._rows.get(("token", identity.token_id)) if identity.token_id is not None else None
        if token is not None and now < token.until:
            return True
        user = self._rows.get(("user", identity.user))
        if user is None or now >= user.until:
            return False
        return identity.issued_at is None or identity.issued_at <= user.issued_before

    def forget_expired(self, now: float) -> None:
        self._rows = {name: row for name, row in self._rows.items() if now < row.until}

    def load(self, entries: Iterable[tuple[str, str, float, float]]) -> None:
        for entry in entries:
            self._add(Revocation(*entry))

    def entries(self) -> list[Revocation]:
        return list(self._rows.values())

    def _add(self, row: Revocation) -> None:
        before = self._rows.get((row.kind, row.id), row)
        until, issued_before = max(row.until, before.until), max(row.issued_before, before.issued_before)
        self._rows[row.kind, row.id] = row._replace(until=until, issued_before=issued_before)


# --- tokens by hand ---------------------------------------------------------------------------------------------------


def mint(key: Key, claims: Mapping[str, object], *, now: float, lifetime: float) -> str:
    """Return a token with these claims, issued at `now` (Unix seconds) for `lifetime` seconds.

    `iat` and `exp` are set here, whatever the claims say of them; `sub` must be among them.

    Raises:
        ValueError: the key cannot sign, or the token would be refused.
    """
    if key.algorithm not in SYMMETRIC:
        raise ValueError(f'key "{key.kid}" can verify but not sign; mint with a key of HS256, HS384 or HS512')
    if lifetime <= 0:
        raise ValueError(f"expected a lifetime of more than 0 s, {lifetime:g} s came")
    _user(claims)
    dated = {**claims, "iat": int(now), "exp": int(now + lifetime)}
    headers = {"kid": key.kid} if key.kid else None
    return jwt.encode(dated, _verifying_key(key).material, algorithm=key.algorithm, headers=headers)


def inspect(token: str) -> Mapping[str, Claims]:
    """Return a token's `header` and `claims` as they stand there, without verifying anything.

    Raises:
        ValueError: it is not a JWT in compact form.
    """
    header, claims, _ = _segments(token)
    return {"header": _members(header), "claims": _members(claims)}
