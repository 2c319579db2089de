"""`chatd token`: tokens by hand, for trying things out and for scripts.

Minting needs a key and no store. What is done with tokens that were issued is in issued.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping

import click
import orjson

from chatd import auth
from chatd.settings import HMAC_KEY_BYTES, Key, Settings

from . import Lazy
from .arguments import duration, named
from .common import BAD_CONFIGURATION, fail, loaded


def see_tokens(settings: Settings) -> None:
    """See that people come with tokens here, without which to revoke one would keep nobody out.

    Raises:
        Failure: they do not.
    """
    if settings.auth.effective_mode == "open" and not settings.auth.keys:
        fail("expected tokens to revoke, there are none in open mode; use `chatd ban add`")


def json_text(_: click.Context, __: click.Parameter, text: str | None) -> object:
    try:
        return None if text is None else orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise click.BadParameter(f"expected JSON, got something else: {error}") from None


@click.group(help="Mint, inspect and revoke tokens. Where a TOKEN is asked for, - reads it from stdin.")
def token() -> None:
    pass


token.add_command(
    Lazy("inspect", "chatd.cli.issued:inspect", "Show what a token says, and whether it would be let in.")
)
token.add_command(Lazy("revoke", "chatd.cli.issued:revoke", "End a token, or all of a user's."))


@token.command(help="Print a token, signed with a key of the configuration.")
@click.option("--user", required=True, callback=named, help="Whose it is.")
@click.option("--room", "rooms", multiple=True, metavar="PATTERN", help="Rooms it opens; may be given again.")
@click.option("--for", "lifetime", default="1h", show_default=True, callback=duration, help="How long it is good.")
@click.option("--name", help="Display name.")
@click.option("--kid", help="The key to sign with; else the first that can.")
@click.option("--info", metavar="JSON", callback=json_text, help="What other members may see of the user.")
@click.pass_context
def mint(
    context: click.Context,
    user: str,
    rooms: tuple[str, ...],
    lifetime: float,
    name: str | None,
    kid: str | None,
    info: object,
) -> None:
    wanted = {"sub": user, "name": name, "rooms": list(rooms) or None, "info": info}
    click.echo(minted(loaded(context), wanted, lifetime, kid))


@token.command("signing-key", help="Print the key with which a user signs messages, as hexadecimal digits.")
@click.option("--user", required=True, callback=named, help="Whose it is.")
@click.option("--kid", help="Derived from this key; else from the first that is accepted now.")
@click.pass_context
def signing_key_of(context: click.Context, user: str, kid: str | None) -> None:
    keys, now = loaded(context).signatures.keys, time.time()
    found = next((key for key in keys if kid in (None, key.kid) and not 0 < key.until <= now), None)
    if found is None:
        fail(
            f"expected a key {'' if kid is None else f'named {kid!r} '}of [[signatures.keys]] that is accepted now, "
            f"got {', '.join(key.kid for key in keys) or 'none'}",
            BAD_CONFIGURATION,
        )
    click.echo(auth.SigningKey(found.kid, found.secret_bytes).of(user).hex())


def minted(settings: Settings, wanted: Mapping[str, object], lifetime: float, kid: str | None = None) -> str:
    """A token with these claims, without those that are None, for so many seconds; signed as by `signing_key`."""
    claims = {
        **wanted,
        "jti": secrets.token_urlsafe(12),  # so that it can be revoked alone
        "aud": settings.auth.audience or None,
        "iss": settings.auth.issuer or None,
    }
    given = {claim: value for claim, value in claims.items() if value is not None}
    return auth.mint(signing_key(settings, kid), given, now=time.time(), lifetime=lifetime)


def signing_key(settings: Settings, kid: str | None) -> auth.Key:
    """The key named `kid`, or the first that can sign.

    Raises:
        Failure: there is none.
    """
    able = [key for key in settings.auth.keys if key.algorithm in HMAC_KEY_BYTES]
    found: Key | None = next((key for key in able if kid in (None, key.kid)), None)
    if found is None:
        known = ", ".join(key.kid for key in able) or "none"
        fail(
            f"expected a key of {', '.join(HMAC_KEY_BYTES)}{'' if kid is None else f' named {kid!r}'} to sign with, "
            f"got {known}; add an [[auth.keys]] table with a secret, or have your issuer make the token",
            BAD_CONFIGURATION,
        )
    return auth.Key(found.kid, found.algorithm, found.secret_bytes)
