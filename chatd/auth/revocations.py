"""Tokens and users whose tokens no longer count, though they are signed and have not ended.

How revocations travel between nodes is the store's.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from chatd.model import Identity, Invitation

# A token without an end of its own is void for this long after it was revoked: ten years.
FOR_EVER_S = 10 * 365 * 86400.0


class Revocation(NamedTuple):
    """One row of what was revoked, as the store carries it: text and numbers only.

    Attributes:
        kind: "token", "user" or "key".
        id: the token's `jti`, the user, or the key's `kid`.
        until: Unix seconds after which nothing is left that it could cover.
        issued_before: for a user, Unix seconds: tokens issued until then are void; else 0. What is signed with a key
            that leaked may say of itself that it was issued at any time.
    """

    kind: str
    id: str
    until: float
    issued_before: float = 0.0

    @classmethod
    def of_token(cls, jti: str, until: float) -> Revocation:
        return cls("token", jti, until)

    @classmethod
    def of_user(cls, user: str, now: float) -> Revocation:
        """Of all that a user was issued until `now`, Unix seconds."""
        return cls("user", user, now + FOR_EVER_S, now)

    @classmethod
    def of_key(cls, kid: str, now: float) -> Revocation:
        """Of all that a key has signed and will sign, as seen `now`, Unix seconds."""
        return cls("key", kid, now + FOR_EVER_S)


class Revocations:
    """Tokens, and users and keys whose tokens no longer count, though they are signed and have not ended.

    Two revocations of one thing become the wider of each bound, so rows may be loaded twice and in any order.
    """

    def __init__(self) -> None:
        self._rows: dict[tuple[str, str], Revocation] = {}

    def covers(self, identity: Identity, now: float) -> bool:
        """Return whether this identity's token is void at `now`, in Unix seconds; without a token nothing is."""
        return identity.has_token and self.void(identity, now)

    def void(self, token: Identity | Invitation, now: float) -> bool:
        """Return whether the token that says this is void at `now`, in Unix seconds."""
        named = (("token", token.token_id), ("key", token.kid or None))
        rows = [row for kind, id in named if id is not None and (row := self._rows.get((kind, id))) is not None]
        if any(now < row.until for row in rows):
            return True
        user = self._rows.get(("user", token.user))
        if user is None or now >= user.until:
            return False
        return token.issued_at is None or token.issued_at <= user.issued_before

    def forget_ended(self, now: float) -> None:
        """Forget what covers nothing any more at `now`, in Unix seconds."""
        self._rows = {name: row for name, row in self._rows.items() if now < row.until}

    def load(self, entries: Iterable[tuple[str, str, float, float]]) -> bool:
        """Take rows in; whether any of them says more than was known."""
        widened = [self._add(Revocation(*entry)) for entry in entries]
        return any(widened)

    def _add(self, row: Revocation) -> bool:
        before = self._rows.get((row.kind, row.id))
        if before is not None:
            until, issued_before = max(row.until, before.until), max(row.issued_before, before.issued_before)
            row = row._replace(until=until, issued_before=issued_before)
        self._rows[row.kind, row.id] = row
        return row != before
