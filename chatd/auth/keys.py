"""The keys that tokens are verified with: configured ones, and key sets read from a file or an address.

The key decides the algorithm, never the token (RFC 8725, 3.1). Where a key set must be read, that happens in a thread.
"""

from __future__ import annotations

import asyncio
import math
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path
from typing import IO, Any, NoReturn, TypeAlias

import jwt
from cryptography.exceptions import UnsupportedAlgorithm

from chatd.basic import authorization

from .claims import Parts, members_of, text_of

Clock: TypeAlias = Callable[[], float]
"""Returns Unix seconds."""

SYMMETRIC = frozenset({"HS256", "HS384", "HS512"})
ASYMMETRIC = frozenset({"RS256", "ES256", "EdDSA"})

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


@dataclass(frozen=True, slots=True, eq=False)
class VerifyingKey:
    """A key that was checked and loaded. Each is equal to itself only: the same key read anew is a new key."""

    kid: str | None
    algorithm: str
    material: Any = field(repr=False)

    def signed(self, token: Parts) -> bool:
        """Return whether this key signed the token. That the token names our algorithm is for the caller to see."""
        # Not by pyjwt's decode: it would look at each use whether the secret is not somebody's public key.
        judge = jwt.get_algorithm_by_name(self.algorithm)
        return judge.verify(token.signing_input, self.material, token.signature)


def is_key_set(key: Key) -> bool:
    return key.jwks_file is not None or key.jwks_url is not None


def verifying_key(key: Key) -> VerifyingKey:
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
    return VerifyingKey(key.kid, key.algorithm, loaded)


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


def refuse_twins(keys: Iterable[VerifyingKey]) -> None:
    seen: set[str | None] = set()
    for key in keys:
        if key.kid in seen:
            raise ValueError(f'key "{key.kid}" is configured twice; give every key a kid of its own')
        seen.add(key.kid)


class KeySet:
    """A JWK set (RFC 7517) at a file or address, read again when somebody asks and it has become old.

    A reading that fails leaves the keys as they were. `trouble` is a sentence about the last reading; None: it went
    well, or there was none.
    """

    def __init__(self, key: Key, clock: Clock) -> None:
        _check_key_set(key)
        self.keys: tuple[VerifyingKey, ...] = ()
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
            so = "its old keys stay" if self.keys else "so nobody comes in by it"
            self.trouble = f'key set "{self._source.kid}" could not be read, {so}: {str(error) or kind}'
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


def _read_key_set(source: Key) -> tuple[bytes, tuple[VerifyingKey, ...]]:
    """Read and load a key set; blocks, so it belongs in a thread.

    Raises:
        OSError, HTTPException: the source did not give it.
        ValueError: what it gave is not a key set with a key that can be used.
    """
    text = _read_file(source.jwks_file) if source.jwks_file is not None else _read_url(source.jwks_url or "")
    if len(text) > KEY_SET_BYTES:
        raise ValueError(f"expected at most {KEY_SET_BYTES} bytes, more came")
    entries = members_of(text).get("keys")
    if not isinstance(entries, list):
        raise ValueError('expected a JSON object with a list "keys"')
    allowed = frozenset({source.algorithm}) if source.algorithm else ASYMMETRIC
    keys = tuple(key for entry in entries if (key := _published_key(entry, allowed)))
    if not keys:
        raise ValueError(f"it has no public key for {' or '.join(sorted(allowed))}")
    return text, keys


def _published_key(entry: object, allowed: frozenset[str]) -> VerifyingKey | None:
    """Return an entry of a key set as a key; None if it is not for signatures, not allowed or not sound.

    An entry with a private part ("d") is not used: who published that has given the key away.
    """
    if not isinstance(entry, dict) or entry.get("use", "sig") != "sig" or "d" in entry:
        return None
    try:
        published = jwt.PyJWK(entry)
        if published.algorithm_name not in allowed or published.Algorithm.check_key_length(published.key):
            return None
        material = published.Algorithm.prepare_key(published.key)  # which sees that the curve is the algorithm's
        kid = text_of(entry, "kid")
    except (jwt.PyJWTError, UnsupportedAlgorithm, ValueError, TypeError, KeyError, NotImplementedError):  # "none"
        return None
    return VerifyingKey(kid, published.algorithm_name, material)


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
        with urllib.request.build_opener(_NoRedirect).open(_request(url), timeout=KEY_SET_TIMEOUT_S) as response:
            text: bytes = response.read(KEY_SET_BYTES + 1)
            return text
    except urllib.error.HTTPError as refusal:
        with refusal:
            raise OSError(f"expected 200, {refusal.code} came") from None


def _request(url: str) -> urllib.request.Request:
    """A GET of `url`; user and password go from there into a header (RFC 7617), as urllib takes them for a host."""
    parts = urllib.parse.urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    request = urllib.request.Request(parts._replace(netloc=host).geturl())  # noqa: S310 -- see _check_key_set
    if (login := authorization(url)) is not None:
        request.add_header("Authorization", login)
    return request
