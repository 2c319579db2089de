"""`chatd rooms` and `chatd room show`: which rooms there are, and all about one. What is done to one is in room.py."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import click

from chatd import control
from chatd.control import SCHEMA_VERSION, Answers, Object, Rooms, Who
from chatd.settings import RoomRules, Settings, options
from chatd.store.messages import Kept

from .cluster import ask, opened, own_up, run
from .common import NOT_FOUND, fail, loaded
from .output import Column, json_option, listed, on_terminal, print_json, print_rows, raw, span

# Names of created rooms asked for at a time.
PAGE = 1000

COLUMNS = (
    Column("room", "ROOM"),
    Column("connections", "CONNECTIONS", right=True),
    Column("users", "USERS", right=True),
)
FACTS = (Column("fact", "ABOUT"), Column("value", "VALUE", raw))
MEMBERS = (
    Column("user", "USER"),
    Column("connections", "CONNECTIONS", right=True),
    Column("nodes", "NODES", listed),
)


@click.command(help="Which rooms have people in them, the fullest first.")
@click.option("--all", "everything", is_flag=True, help="Also created rooms in which nobody is now.")
@json_option
@click.pass_context
def rooms(context: click.Context, everything: bool, as_json: bool) -> None:
    answers, created = run(there(loaded(context), everything))
    reply = control.rooms(answers)
    full = {entry["room"] for entry in reply["rooms"]}
    reply["rooms"] += [{"room": room, "connections": 0, "users": 0} for room in created if room not in full]
    if as_json:
        print_json(reply)
    else:
        print_rows(COLUMNS, reply["rooms"])
    own_up(answers)


async def there(settings: Settings, everything: bool) -> tuple[Answers, list[str]]:
    """What the nodes say of rooms with people in them; and the created rooms by name, if `everything` is wanted."""
    async with opened(settings) as store:
        answers = await ask(store, settings, Rooms())
        created: list[str] = []
        while everything and (page := await store.rooms.created(created[-1] if created else "", PAGE)):
            created += page
        return answers, created


@click.command(help="Who is in ROOM, on which nodes; what is kept of it; which rules hold there.")
@click.argument("name", metavar="ROOM")
@json_option
@click.pass_context
def show(context: click.Context, name: str, as_json: bool) -> None:
    settings = loaded(context)
    answers, kept = run(looked_at(settings, name))
    reply = about(name, answers, kept, settings.room(name))
    if not answers.missing and not reply["connections"] and (kept is None or not kept.top.offset):
        fail(f"expected a room that somebody is in or that has a history, got {name!r}; see `chatd rooms`", NOT_FOUND)
    if as_json:
        print_json(reply)
    else:
        in_person(reply)
    own_up(answers)


async def looked_at(settings: Settings, name: str) -> tuple[Answers, Kept | None]:
    async with opened(settings) as store:
        return await ask(store, settings, Who(room=name)), await store.messages.kept(name)


def about(name: str, answers: Answers, kept: Kept | None, rules: RoomRules) -> Object:
    """The reply to `chatd room show --json`; "history" is null when nobody ever was there."""
    present = control.who(answers)
    return {
        "schema_version": SCHEMA_VERSION,
        "room": name,
        "connections": len(present["connections"]),
        "members": members(present["connections"]),
        "history": None if kept is None else history(kept),
        "rules": asdict(rules),
        **({"silent": present["silent"]} if "silent" in present else {}),
    }


def members(connections: list[Object]) -> list[Object]:
    """The users among these connections, with how many each has, and on which nodes."""
    by_user: dict[str, list[str]] = {}
    for entry in connections:
        by_user.setdefault(entry["user"], []).append(entry["node"])
    return [
        {"user": user, "connections": len(nodes), "nodes": sorted(set(nodes))}
        for user, nodes in sorted(by_user.items())
    ]


def history(kept: Kept) -> Object:
    return {"epoch": kept.top.epoch, "first": kept.first, "last": kept.top.offset, "messages": kept.messages}


def in_person(reply: Object) -> None:
    """Facts and members; on a pipe, two blocks with an empty line between."""
    facts: dict[str, Any] = {
        "room": reply["room"],
        "connections": reply["connections"],
        **{f"history {key}": value for key, value in (reply["history"] or {}).items()},
        **{f"rule {key}": value for key, value in reply["rules"].items()},
    }
    if on_terminal():
        durations = [key for key, setting in options(RoomRules).items() if setting.type == "Seconds"]
        facts |= {f"rule {key}": span(reply["rules"][key]) for key in durations}
    print_rows(FACTS, [{"fact": fact, "value": value} for fact, value in facts.items()])
    if reply["members"]:
        click.echo()
        print_rows(MEMBERS, reply["members"])
