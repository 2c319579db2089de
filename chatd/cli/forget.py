"""`chatd forget`: take a user out of every room."""

from __future__ import annotations

import click

from chatd import steward
from chatd.control import SCHEMA_VERSION, Object
from chatd.settings import Settings
from chatd.store.messages import Keep

from .arguments import named
from .cluster import office, opened, run
from .common import NOT_FOUND, fail, loaded
from .output import json_option, plural, print_json
from .progress import bar

NOUNS = ("message", "reaction", "membership", "cursor", "report", "notice")


@click.command(
    help="Take USER out of every room: the bodies of all messages and edits, whose places stay as tombstones, "
    "reactions, memberships, cursors, open reports by or about them, and their name from what they did to rooms and "
    "people. Readers are told, as of any deletion. It cannot be undone, so see `chatd export --user`. Who is connected "
    "can write again, so ban them before. Other people's words, measures on or by the user, and the audit stream stay."
)
@click.argument("user", callback=named)
@json_option
@click.confirmation_option("--yes", prompt="All that this user wrote will be gone for ever. Go on?")
@click.pass_context
def forget(context: click.Context, user: str, as_json: bool) -> None:
    reply = run(forgotten(loaded(context), user))
    if as_json:
        print_json(reply)
    elif found(reply):
        click.echo(told(reply))
    if not found(reply):
        fail(f"expected a user of whom something is kept, got {user!r}", NOT_FOUND)


async def forgotten(settings: Settings, user: str) -> Object:
    """The reply to `chatd forget --json`."""

    def keep(room: str) -> Keep:
        return steward.keep(settings.room(room))

    async with opened(settings) as store:
        with bar(f"forgetting {user}") as advance:
            done, rooms = await office(store, settings).forget(user, keep, advance)
    return {"schema_version": SCHEMA_VERSION, "user": user, "rooms": rooms, **done._asdict()}


def found(reply: Object) -> bool:
    return bool(reply["rooms"] or reply["cursors"] or reply["reports"])


def told(reply: Object) -> str:
    counts = ", ".join(plural(reply[f"{noun}s"], noun) for noun in NOUNS)
    lost = f"; {plural(reply['ownerless'], 'room')} without an owner now" if reply["ownerless"] else ""
    return f"gone: {counts}, in {plural(reply['rooms'], 'room')}{lost}"
