"""Verifying tokens, and making them by hand.

A token is a JSON Web Token (RFC 7519) in compact form. pyjwt's algorithms judge its signature; its form and its claims
are judged in claims, by the clock that was handed in. Its header only narrows down which of our keys are tried.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

import jwt

from chatd.errors import INVALID_TOKEN, PERMISSION_DENIED, TOKEN_EXPIRED
from chatd.model import Identity, Invitation

from .claims import (
    Claims,
    check_subscription,
    has_ended,
    identity_of,
    members_of,
    moment_of,
    no_key,
    segments,
    taken_apart,
    user_of,
)
from .keys import SYMMETRIC, Clock, Key, KeySet, VerifyingKey, is_key_set, refuse_twins, verifying_key

# When a node dies its clients come back together: enough for the connections of one node, at 0.7 KB each.
CACHED_TOKENS = 16_384

# A token with an unknown key id costs its sender nothing, so it may not make us read more often than this.
UNKNOWN_KEY_S = 30.0

# How long a key that its issuer withdrew from a key set may live on here; issuers let theirs be cached 5 min to a day.
KEY_SET_FRESH_S = 300.0


class Verifier:
    """Verifies tokens with one configuration's keys; when keys or rules change, make a new one.

    Tokens that were found good are remembered by their SHA-256, until they end or their key is no longer in force:
    after a node's death its clients return with the tokens they had. Measured on one core of a 2-core machine (CPython
    3.11, pyjwt 2.15): a remembered token costs 2 µs; one not seen before 15 µs with HS256 or HS512, 40 µs with RS256,
    85 µs with ES256, 125 µs with EdDSA.

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
        self._own_keys = tuple(verifying_key(key) for key in configured if not is_key_set(key))
        self._key_sets = tuple(KeySet(key, clock) for key in configured if is_key_set(key))
        refuse_twins(self._own_keys)
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
            identity = identity_of(claims, key.kid, self._leeway, self._display_name)
        except ValueError as refusal:
            raise INVALID_TOKEN.because(str(refusal)) from None
        self._refuse_ended(identity.expires_at)
        self._remember(digest, _Proven(identity, key))
        return identity

    async def subscription(self, token: str, *, user: str, client: str, room: str) -> Invitation:
        """Return what a subscription token says. Its `expires_at` is the token's `exp`, if it has one, plus the leeway.

        It must be of this `user` (claim `sub`), for this `room` (`channel`) and, if it names a connection (`client`),
        for this one. Not remembered: it is for one room of one connection.

        Raises:
            Reject: TOKEN_EXPIRED, when nothing else is wrong with it; PERMISSION_DENIED for everything else.
        """
        self._look_for_new_keys()
        try:
            claims, key = await self._verified(token)
            invitation = check_subscription(claims, key.kid, self._leeway, user=user, client=client, room=room)
        except ValueError as refusal:
            raise PERMISSION_DENIED.because(str(refusal)) from None
        self._refuse_ended(invitation.expires_at)
        return invitation

    async def read_key_sets(self) -> list[str]:
        """Read every key set that was not read just now; return a sentence for each that could not be.

        For start-up and for diagnosis; tokens that arrive cause the reading they need by themselves.
        """
        await self._read_sets()
        return [key_set.trouble for key_set in self._key_sets if key_set.trouble]

    async def _verified(self, token: str) -> tuple[Claims, VerifyingKey]:
        """Return the claims of a token whose signature, audience, issuer and beginning are right, and its key.

        Raises:
            ValueError: they are not. Whether the token has ended is not looked at.
        """
        parts = taken_apart(token)
        for key in await self._candidates(parts.header):
            if key.signed(parts):
                claims = members_of(parts.payload)
                self._check_audience(claims)
                self._check_issuer(claims)
                self._check_begun(claims)
                return claims, key
        raise ValueError(no_key(parts.header))

    async def _candidates(self, header: Claims) -> list[VerifyingKey]:
        """Return the keys that a token with this header may be signed with, reading key sets again if we know none."""
        found = self._matching(header)
        if not found:
            await self._read_sets()
            found = self._matching(header)
        return found

    def _matching(self, header: Claims) -> list[VerifyingKey]:
        kid, algorithm = header.get("kid"), header.get("alg")
        return [key for key in self._keys() if key.algorithm == algorithm and kid in (None, key.kid)]

    def _keys(self) -> Iterator[VerifyingKey]:
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
        begins = moment_of(claims, "nbf")
        if begins is not None and begins > self._clock() + self._leeway:
            raise ValueError("the token is not valid yet (nbf); compare the clocks of issuer and server")

    def _refuse_ended(self, expires_at: float | None) -> None:
        if expires_at is not None and expires_at <= self._clock():
            raise TOKEN_EXPIRED.because("the token has expired; get a new one")

    def _recall(self, digest: bytes) -> Identity | None:
        proven = self._proven.get(digest)
        if proven is None:
            return None
        if proven.key not in self._keys() or has_ended(proven.identity, self._clock()):
            del self._proven[digest]
            return None
        self._proven.move_to_end(digest)
        return proven.identity

    def _remember(self, digest: bytes, proven: _Proven) -> None:
        self._proven[digest] = proven
        if len(self._proven) > CACHED_TOKENS:
            self._proven.popitem(last=False)


class _Proven(NamedTuple):
    identity: Identity
    key: VerifyingKey


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
    user_of(claims)
    dated = {**claims, "iat": int(now), "exp": int(now + lifetime)}
    headers = {"kid": key.kid} if key.kid else None
    return jwt.encode(dated, verifying_key(key).material, algorithm=key.algorithm, headers=headers)


def inspect(token: str) -> Mapping[str, Claims]:
    """Return a token's `header` and `claims` as they stand there, without verifying anything.

    Raises:
        ValueError: it is not a JWT in compact form.
    """
    header, claims, _ = segments(token)
    return {"header": members_of(header), "claims": members_of(claims)}
