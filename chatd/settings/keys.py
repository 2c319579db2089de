"""The tables of keys: those that tokens are verified with, those of the HTTP API, and those that sign messages."""

# ruff: noqa: RUF009
# option() returns a dataclass field, as field() does; ruff cannot know that where a field's type is one of our aliases.

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

from .declaring import option
from .kinds import Bytes, Moment, Seconds, Secret, Texts, Url

# RFC 7518, 3.2: a key must be at least as long as the hash it is used with.
HMAC_KEY_BYTES = {"HS256": 32, "HS384": 48, "HS512": 64}


ALGORITHMS = (*HMAC_KEY_BYTES, "RS256", "ES256", "EdDSA")


# 160 bits: nobody guesses one, however fast the API answers.
API_KEY_BYTES = 20


KEY_SOURCES = ("secret", "secret_file", "public_key_file", "jwks_file", "jwks_url")


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

    @property
    def name(self) -> str:
        """The kid; of a key set without one its file or its address, which is all that messages can call it."""
        return self.kid or self.jwks_file or self.jwks_url.shown


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
    audience: str = option(
        "", "What a token's `aud` claim must contain; empty: tokens that name one are refused.", reload=True
    )
    issuer: str = option("", "What a token's `iss` claim must be; empty: not looked at.", reload=True)
    leeway: Seconds = option(
        0.0, "How far the clock of who makes the tokens may be from ours when `exp` and `nbf` are judged.", reload=True
    )
    keys: Keys = option(
        (),
        "Keys, one table each, with exactly one of secret, secret_file, public_key_file, jwks_file and jwks_url. "
        "Several at once let you change keys: add the new one, mint with it, and remove the old one when its last "
        "token has ended. Tokens of a key that is removed sooner are refused from then on, but who is in stays until "
        "the token ends. If a key has leaked, `chatd token revoke --kid` ends all that it signed and closes who came "
        "with that; what takes its place needs another kid. Without a key left nobody comes in until others come, or "
        "a restart makes it open mode.",
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
