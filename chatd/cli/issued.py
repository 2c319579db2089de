"""`chatd token inspect` and `chatd token revoke`: what to do with a token that somebody has.

A token can be given on stdin, as `-`, because everybody on a machine can read the arguments of a command.
"""

from __future__ import annotations

import sys
import time
from typing import Any

import click
import orjson

from chatd import auth
from chatd.control import SCHEMA_VERSION, Object, Revoke
from chatd.errors import Disconnect, Reject
from chatd.model import LAST_SECOND, Identity
from chatd.names import printable
from chatd.node import verifier
from chatd.settings import Settings
from chatd.settings import moment as unix_seconds
from chatd.store.errors import StoreError

from .arguments import named, seconds_of
from .cluster import office, opened, run
from .common import Failure, fail, loaded, note
from .output import Column, json_option, moment, plural, print_json, print_rows, span
from .token import see_tokens

# Claims that are Unix seconds (RFC 7519, 4.1).
MOMENTS = ("exp", "nbf", "iat")
FACTS = (Column("fact", "ABOUT"), Column("value", "VALUE"))


def token_text(_: click.Context, __: click.Parameter, text: str | None) -> str | None:
    return sys.stdin.readline().strip() if text == "-" else text


# --- inspect ----------------------------------------------------------------------------------------------------------


@click.command(help="Show what a token says, and whether it would be let in; exit 1 when it would not.")
@click.argument("text", metavar="TOKEN", callback=token_text)
@json_option
@click.pass_context
def inspect(context: click.Context, text: str, as_json: bool) -> None:
    settings, parts = loaded(context), taken_apart(text)
    identity, refusal = run(judged(settings, text))
    revoked = None if identity is None else run(is_revoked(settings, identity))
    reply: Object = {
        "schema_version": SCHEMA_VERSION,
        **parts,
        "verified": identity is not None,
        "refusal": refusal,
        "revoked": revoked,
    }
    if as_json:
        print_json(reply)
    else:
        print_rows(FACTS, [{"fact": fact, "value": value} for fact, value in facts(reply, time.time())])
    if identity is None or revoked:
        fail(f"this token is not let in: {refusal or 'it was revoked'}")


def taken_apart(text: str) -> Object:
    """Header and claims.

    Raises:
        Failure: it is no token, or says what we cannot print: half a character, a number beyond 64 bits.
    """
    try:
        parts = dict(auth.inspect(text))
        orjson.dumps(parts)
    except ValueError as error:
        raise Failure(str(error)) from None
    except orjson.JSONEncodeError as error:
        raise Failure(f"expected a JWT with claims of ordinary JSON, got others: {error}") from None
    return parts


async def judged(settings: Settings, text: str) -> tuple[Identity | None, str | None]:
    """Whose it is, or the sentence with which a node would refuse it."""
    try:
        return await verifier(settings).identity(text), None
    except (Reject, Disconnect) as refusal:
        return None, str(refusal)


async def is_revoked(settings: Settings, identity: Identity) -> bool | None:
    """None: the store cannot be asked, or no chatd ever ran."""
    now, revocations = time.time(), auth.Revocations()
    try:
        async with opened(settings) as store:
            revocations.load(auth.Revocation(*row) for row in await store.revocations(now))
    except (StoreError, Failure):
        return None
    return revocations.covers(identity, now)


def facts(reply: Object, now: float) -> list[tuple[str, str]]:
    """What a person wants to know of a token, line by line; `now` in Unix seconds."""
    revoked = {None: "not known: the store cannot be asked", True: "yes", False: "no"}[reply["revoked"]]
    return [
        *((f"header {name}", shown(value)) for name, value in reply["header"].items()),
        *((f"claim {name}", dated(name, value, now)) for name, value in reply["claims"].items()),
        ("verified", "yes" if reply["verified"] else f"no: {reply['refusal']}"),
        *([("revoked", revoked)] if reply["verified"] else []),
    ]


def dated(claim: str, value: Any, now: float) -> str:
    """A claim; one that is a moment as a date and as how long ago."""
    if claim not in MOMENTS or type(value) not in (int, float) or not 0 <= value <= LAST_SECOND:
        return shown(value)
    away = f"in {span(value - now)}" if value > now else f"{span(now - value)} ago"
    return f"{moment(value)} ({away})"


def shown(value: object) -> str:
    return printable(value if isinstance(value, str) else orjson.dumps(value).decode())


# --- revoke -----------------------------------------------------------------------------------------------------------


def until_moment(_: click.Context, __: click.Parameter, text: str | None) -> float | None:
    """Unix seconds, from an ISO date (UTC unless it says otherwise) or a duration from now."""
    if text is None:
        return None
    try:
        ends = unix_seconds(text)
    except ValueError:
        ends = 0.0
    return ends or time.time() + seconds_of(text)


@click.command(
    help="End a token, or with --user all that a user has until now, or with --kid all that a key has signed or will "
    "sign, on every node: who came with it is closed.",
)
@click.argument("text", metavar="[TOKEN]", required=False, callback=token_text)
@click.option("--jti", callback=named, metavar="ID", help="The token's id, for want of the token.")
@click.option(
    "--until",
    callback=until_moment,
    metavar="WHEN",
    help='With --jti: when the token ends by itself, as "2026-12-31" or as a duration from now.',
)
@click.option("--user", callback=named, help="Everything this user was issued until now.")
@click.option("--kid", callback=named, help="Everything that the key of this name signs, for it has leaked.")
@json_option
@click.pass_context
def revoke(
    context: click.Context,
    text: str | None,
    jti: str | None,
    until: float | None,
    user: str | None,
    kid: str | None,
    as_json: bool,
) -> None:
    if sum(given is not None for given in (text, jti, user, kid)) != 1:
        raise click.UsageError("expected exactly one of TOKEN, --jti ID, --user U and --kid K")
    if until is not None and jti is None:
        raise click.UsageError("expected --until with --jti only: a token says itself when it ends")
    settings = loaded(context)
    see_tokens(settings)
    row = row_of(text, jti, until, user, kid, time.time(), settings.auth.leeway)
    closed, unsure = run(revoked_everywhere(settings, row))
    if as_json:
        print_json(
            {"schema_version": SCHEMA_VERSION, "kind": row.kind, "id": row.id, "until": row.until, "closed": closed}
        )
    else:
        click.echo(f"revoked {row.kind} {printable(row.id)}; closed {plural(closed, 'connection')}")
    if kid is not None and not may_be_key(settings, kid):
        note(f"no key of this configuration has the kid {printable(kid)}; see that it is not another's misspelt")
    if unsure:
        fail(f"written down, but not confirmed by {', '.join(sorted(unsure))}; a node that lives soon reads it")


def may_be_key(settings: Settings, kid: str) -> bool:
    """Whether a key is called so; what those of a key set are called is not known here."""
    return any(kid == key.kid or key.jwks_file or key.jwks_url for key in settings.auth.keys)


def row_of(
    text: str | None, jti: str | None, until: float | None, user: str | None, kid: str | None, now: float, leeway: float
) -> auth.Revocation:
    """What is to be written down of the one that is given: token, jti, user or kid. A token lives `leeway` longer."""
    if user is not None:
        return auth.Revocation.of_user(user, now)
    if kid is not None:
        return auth.Revocation.of_key(kid, now)
    if text is None:
        return auth.Revocation.of_token(str(jti), until or now + auth.FOR_EVER_S)
    claims = taken_apart(text)["claims"]
    if not isinstance(claims.get("jti"), str) or not claims["jti"]:
        fail('expected a token with an id ("jti"), got one without; revoke all of its user\'s with --user')
    ends = claims.get("exp")
    ends = ends + leeway if type(ends) in (int, float) else now + auth.FOR_EVER_S
    return auth.Revocation.of_token(claims["jti"], ends)


async def revoked_everywhere(settings: Settings, row: auth.Revocation) -> tuple[int, set[str]]:
    async with opened(settings) as store:
        return await office(store, settings).revoke([Revoke(*row)])
