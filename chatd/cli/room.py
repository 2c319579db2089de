"""`chatd room ...`: what an operator does to one room and its members, by the same steward as clients."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import click

from chatd.control import SCHEMA_VERSION, Answers, Who, who
from chatd.errors import NO_SUCH, Reject
from chatd.model import ROLES, Member, Record, Role
from chatd.settings import Settings
from chatd.steward import Steward
from chatd.store.presence import Seen
from chatd.store.redis import Store

from .cluster import office, opened, own_up, run
from .common import FAILED, NOT_FOUND, fail, loaded, note
from .output import Column, json_option, moment, print_json, print_rows, raw
from .rooms import show

T = TypeVar("T")

COLUMNS = (
    Column("user", "USER"),
    Column("role", "ROLE"),
    Column("joined", "SINCE", lambda ms: moment(ms / 1000)),
    Column("online", "ONLINE", lambda online: "yes" if online else "no"),
    Column("seen", "LAST SEEN", lambda ms: moment(ms / 1000)),
)
# The record of a room of which nothing is written down.
BLANK = Record(public=False, locked=False, slow_ms=0, topic="", keys={}, created=0, by="", members=0)


@click.group(help="One room.")
def room() -> None:
    pass


room.add_command(show)
room_argument = click.argument("name", metavar="ROOM")


def acted(settings: Settings, act: Callable[[Steward], Awaitable[Answers | None]]) -> None:
    """Have the steward do something; when it returns it holds on every node that answered.

    Raises:
        Failure: it was refused, or not every node answered.
    """
    answers = done(settings, lambda _, steward: act(steward))
    if answers is not None:
        own_up(answers)


def done(settings: Settings, act: Callable[[Store, Steward], Awaitable[T]]) -> T:
    """
    Raises:
        Failure: it was refused.
    """

    async def acting() -> T:
        async with opened(settings) as store:
            return await act(store, Steward(office(store, settings), settings))

    try:
        return run(acting())
    except Reject as refusal:
        fail(refusal.text, NOT_FOUND if refusal == NO_SUCH else FAILED)


# --- the room ---------------------------------------------------------------------------------------------------------


def pair(_: click.Context, __: click.Parameter, texts: tuple[str, ...]) -> dict[str, str | None]:
    """KEY=VALUE; nothing behind the = takes the key out."""
    if wrong := [text for text in texts if "=" not in text]:
        raise click.BadParameter(f"expected KEY=VALUE, got {wrong[0]!r}")
    return {key: value or None for key, _, value in (text.partition("=") for text in texts)}


keys_option = click.option(
    "--key", "keys", multiple=True, callback=pair, metavar="KEY=VALUE", help="One of the application's own keys."
)


@room.command(help="Create ROOM, or give a record to one in which people talk already.")
@room_argument
@click.option("--public/--private", default=False, show_default=True, help="Whether any user may come in.")
@click.option("--owner", default="", metavar="USER", help="Who owns it; else nobody.")
@click.option("--member", "members", multiple=True, metavar="USER", help="Who belongs to it, and is told so.")
@click.option("--topic", default="", metavar="TEXT")
@keys_option
@click.pass_context
def create(
    context: click.Context,
    name: str,
    public: bool,
    owner: str,
    members: tuple[str, ...],
    topic: str,
    keys: dict[str, str | None],
) -> None:
    acted(
        loaded(context),
        lambda steward: steward.create(name, public=public, owner=owner, members=members, topic=topic, keys=keys),
    )


def changed(context: click.Context, name: str, **change: Any) -> None:
    """Change the room, and print what holds there from now on."""
    settings = loaded(context)

    async def changing(store: Store, steward: Steward) -> tuple[bool, Answers, Record]:
        fresh = await is_unheard_of(store, settings, name)
        answers = await steward.set(name, by=None, **change)
        return fresh, answers, await store.rooms.record(name)

    fresh, answers, record = done(settings, changing)
    click.echo(told(name, record))
    if fresh:
        note(f"nobody is in {name} and nothing was ever said there; is the name right?")
    own_up(answers)


async def is_unheard_of(store: Store, settings: Settings, name: str) -> bool:
    """Whether the room has no record, no history and no readers, as far as the nodes answer."""
    kept = await store.messages.kept(name)
    if (kept is not None and kept.top.offset) or await store.rooms.record(name) != BLANK:
        return False
    return not who(await office(store, settings).ask(Who(room=name)))["connections"]


def told(name: str, record: Record) -> str:
    words = [
        "locked" if record.locked else "not locked",
        *(["public" if record.public else "private"] if record.created else []),
        *([f"slow {record.slow_ms / 1000:g}s"] if record.slow_ms else []),
        *([f"topic {raw(record.topic)}"] if record.topic else []),
        *([raw(record.keys)] if record.keys else []),
    ]
    return f"{name}: {', '.join(words)}"


@room.command("set", help="Change what is named of ROOM, and say so there.")
@room_argument
@click.option("--topic", default=None, metavar="TEXT")
@click.option("--public/--private", default=None, help="Whether any user may come in.")
@keys_option
@click.pass_context
def change(
    context: click.Context, name: str, topic: str | None, public: bool | None, keys: dict[str, str | None]
) -> None:
    changed(context, name, topic=topic, public=public, keys=keys or None)


@room.command(help="Let only moderators and owners speak in ROOM.")
@room_argument
@click.pass_context
def lock(context: click.Context, name: str) -> None:
    changed(context, name, locked=True)


@room.command(help="Let all speak in ROOM again.")
@room_argument
@click.pass_context
def unlock(context: click.Context, name: str) -> None:
    changed(context, name, locked=False)


@room.command(help='Have each in ROOM be silent for DURATION, such as "10s", after speaking; "0s" ends that.')
@room_argument
@click.argument("duration")
@click.pass_context
def slow(context: click.Context, name: str, duration: str) -> None:
    changed(context, name, slow=duration)


@room.command(help="Take ROOM away, with its members and all that was said in it; who is there is put out.")
@room_argument
@click.confirmation_option("--yes", prompt="All that was said in this room will be gone for ever. Go on?")
@click.pass_context
def delete(context: click.Context, name: str) -> None:
    acted(loaded(context), lambda steward: steward.delete(name, by=None))


# --- who belongs to it ------------------------------------------------------------------------------------------------


@room.command(help="Make each USER a member of ROOM, and tell them.")
@room_argument
@click.argument("users", nargs=-1, required=True, metavar="USER...")
@click.pass_context
def invite(context: click.Context, name: str, users: tuple[str, ...]) -> None:
    async def inviting(steward: Steward) -> None:
        for user in users:
            await steward.invite(name, user, by=None)

    acted(loaded(context), inviting)


@room.command(help="Give USER a role in ROOM.")
@room_argument
@click.argument("user")
@click.argument("role", type=click.Choice(list(ROLES)))
@click.pass_context
def role(context: click.Context, name: str, user: str, role: str) -> None:
    acted(loaded(context), lambda steward: steward.set_role(name, user, ROLES[role], by=None))


@room.command(help="End USER's membership in ROOM; where that is what let them in, they are put out.")
@room_argument
@click.argument("user")
@click.pass_context
def remove(context: click.Context, name: str, user: str) -> None:
    acted(loaded(context), lambda steward: steward.set_role(name, user, Role.NOBODY, by=None))


@room.command(help="Who belongs to ROOM, as what, since when, and when they were last seen.")
@room_argument
@json_option
@click.pass_context
def members(context: click.Context, name: str, as_json: bool) -> None:
    found = run(belonging(loaded(context), name))
    if as_json:
        print_json({"schema_version": SCHEMA_VERSION, "room": name, "members": [entry(*pair) for pair in found]})
    else:
        print_rows(COLUMNS, [entry(*pair) for pair in found])


async def belonging(settings: Settings, name: str) -> list[tuple[Member, Seen]]:
    async with opened(settings) as store:
        if not (await store.rooms.standing(name, "")).exists:
            fail(f"expected a room that somebody created, got {name!r}; see `chatd rooms --all`", NOT_FOUND)
        found = await store.rooms.members(name)
        return list(zip(found, await store.presence.seen([member.user for member in found]), strict=True))


def entry(member: Member, seen: Seen) -> dict[str, object]:
    return {
        "user": member.user,
        "role": member.role.word,
        "joined": member.joined,
        "online": seen.online,
        "seen": seen.last,
    }
