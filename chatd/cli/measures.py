"""`chatd ban` and `chatd mute`: who may not come, or not speak; everywhere or in a room, for a while or for ever.

Both have the same commands, made here once.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import click

from chatd import control
from chatd.control import SCHEMA_VERSION, Answers, Object
from chatd.measures import LONGEST_S, Measure, On, What, target_of
from chatd.office import as_measure
from chatd.settings import Settings

from .arguments import seconds_of
from .cluster import office, opened, own_up, run, see_nobody
from .common import NOT_FOUND, fail, loaded
from .output import Column, json_option, moment, plural, print_json, print_rows, span

COLUMNS = (
    Column("on", "ON"),
    Column("target", "TARGET"),
    Column("room", "ROOM"),
    Column("until", "ENDS IN", lambda until: span(max(0.0, until - time.time())), right=True),
    Column("reason", "REASON"),
    Column("by", "BY"),
    Column("at", "SINCE", moment),
    Column("hits", "HITS", right=True),
)
FACTS = (Column("fact", "ABOUT"), Column("value", "VALUE"))

# What is done, for the sentence that says so.
DONE = {What.BAN: "banned", What.MUTE: "muted"}


def target(_: click.Context, __: click.Parameter, text: str) -> tuple[On, str]:
    try:
        return target_of(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def lasting(_: click.Context, __: click.Parameter, text: str | None) -> float:
    """Seconds; 0 for ever."""
    seconds = 0.0 if text is None else seconds_of(text)
    if seconds > LONGEST_S:
        raise click.BadParameter(f"expected at most {LONGEST_S / 86400:.0f}d, got {text!r}; leave it out for ever")
    return seconds


target_argument = click.argument("target", callback=target)
room_option = click.option("--room", default="", help="In this room only; else everywhere.")


def family(what: What, line: str) -> click.Group:
    """`add`, `rm`, `ls` and `info` for one kind of measure."""
    group = click.Group(what.value, help=line)
    for make in (_add, _rm, _ls, _info):
        group.add_command(make(what))
    return group


def _add(what: What) -> click.Command:
    @click.command(
        "add",
        help="TARGET is a user, an address or network, or token:JTI; whoever has an id that reads like one of these is "
        "user:ID. It need not be here yet. A second one on the same TARGET replaces the first.",
    )
    @target_argument
    @room_option
    @click.option("--for", "lasts", callback=lasting, metavar="DURATION", help="For so long; else for ever.")
    @click.option("--reason", default="", metavar="TEXT", help="What they are told.")
    @json_option
    @click.pass_context
    def add(
        context: click.Context, target: tuple[On, str], room: str, lasts: float, reason: str, as_json: bool
    ) -> None:
        measure = Measure(what, *target, room, reason=reason)
        measure, answers = run(imposed(loaded(context), measure, lasts))
        if as_json:
            print_json({**control.kicked(answers), **as_measure(measure)})
        else:
            click.echo(told(measure, control.kicked(answers)))
        see_nobody(answers)
        own_up(answers)

    return add


async def imposed(settings: Settings, measure: Measure, lasts: float) -> tuple[Measure, Answers]:
    async with opened(settings) as store:
        return await office(store, settings).impose(measure, lasts)


def told(measure: Measure, reply: Object) -> str:
    where = f"in {measure.room!r}" if measure.room else "everywhere"
    until = f"until {moment(measure.until)}" if measure.until else "for ever"
    gone = f"; closed {plural(reply['closed'], 'connection')}" if measure.what is What.BAN else ""
    return f"{DONE[measure.what]} {measure.on} {measure.target!r} {where} {until}{gone}"


def _rm(what: What) -> click.Command:
    @click.command("rm", help=f"End a {what.value}; --room as it was given.")
    @target_argument
    @room_option
    @json_option
    @click.pass_context
    def rm(context: click.Context, target: tuple[On, str], room: str, as_json: bool) -> None:
        measure = Measure(what, *target, room)
        lifted, answers = run(ended(loaded(context), measure))
        if as_json:
            print_json({"schema_version": SCHEMA_VERSION, "lifted": lifted})
        own_up(answers)
        if not lifted:
            unknown(measure)

    return rm


async def ended(settings: Settings, measure: Measure) -> tuple[bool, Answers]:
    async with opened(settings) as store:
        return await office(store, settings).lift(measure)


def _ls(what: What) -> click.Command:
    @click.command("ls", help="All in force, the latest first.")
    @click.option("--room", default=None, help="Those of this room only; an empty one: those that hold everywhere.")
    @json_option
    @click.pass_context
    def ls(context: click.Context, room: str | None, as_json: bool) -> None:
        found = [row for row in run(in_force(loaded(context), what)) if room in (None, row["room"])]
        if as_json:
            print_json({"schema_version": SCHEMA_VERSION, f"{what.value}s": found})
        else:
            print_rows(COLUMNS, found)

    return ls


async def in_force(settings: Settings, what: What) -> list[Object]:
    async with opened(settings) as store:
        rows, hits, *_ = await store.measures.in_force()
    shown = [as_measure(row, count) for row, count in zip(rows, hits, strict=True) if row.what is what]
    return sorted(shown, key=lambda row: -row["at"])


def _info(what: What) -> click.Command:
    @click.command("info", help="Who put it in force, when and why, until when, and how often it has refused somebody.")
    @target_argument
    @room_option
    @json_option
    @click.pass_context
    def info(context: click.Context, target: tuple[On, str], room: str, as_json: bool) -> None:
        measure = Measure(what, *target, room)
        rows = run(in_force(loaded(context), what))
        row = next((row for row in rows if (row["on"], row["target"], row["room"]) == (*target, room)), None)
        if row is None:
            unknown(measure)
        elif as_json:
            print_json({"schema_version": SCHEMA_VERSION, **row})
        else:
            print_rows(FACTS, [{"fact": fact, "value": value} for fact, value in in_person(row).items()])

    return info


def in_person(row: Object) -> Object:
    shown: dict[str, Callable[[float], str]] = {"until": moment, "at": moment}
    return {key: shown[key](value) if key in shown and value else value for key, value in row.items()}


def unknown(measure: Measure) -> None:
    where = f"in {measure.room!r}" if measure.room else "everywhere"
    fail(
        f"expected a {measure.what} of {measure.on} {measure.target!r} {where}, there is none; "
        f"see `chatd {measure.what} ls`",
        NOT_FOUND,
    )


ban = family(What.BAN, "Who may not come in, or not into a room.")
mute = family(What.MUTE, "Who may not speak.")
