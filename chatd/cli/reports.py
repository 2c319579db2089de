"""`chatd reports`: what users have reported, until somebody has looked at it."""

from __future__ import annotations

from dataclasses import asdict

import click

from chatd.control import SCHEMA_VERSION, Object
from chatd.settings import Settings

from .cluster import office, opened, run
from .common import NOT_FOUND, fail, loaded
from .output import Column, json_option, moment, print_json, print_rows

COLUMNS = (
    Column("id", "REPORT"),
    Column("room", "ROOM"),
    Column("offset", "OFFSET", right=True),
    Column("user", "SAID BY"),
    Column("reason", "REASON"),
    Column("by", "REPORTED BY"),
    Column("at", "AT", moment),
)


room_option = click.option("--room", default="", help="Of this room only.")


@click.group(help="What users have reported. Without a command: list what is open.", invoke_without_command=True)
@room_option
@json_option
@click.pass_context
def reports(context: click.Context, room: str, as_json: bool) -> None:
    if context.invoked_subcommand is None:
        context.invoke(ls, room=room, as_json=as_json)
    elif room or as_json:
        raise click.UsageError(f"expected options behind {context.invoked_subcommand}, got them before it")


@reports.command(help="What is open, oldest first.")
@room_option
@json_option
@click.pass_context
def ls(context: click.Context, room: str, as_json: bool) -> None:
    found = [row for row in run(all_open(loaded(context))) if room in ("", row["room"])]
    if as_json:
        print_json({"schema_version": SCHEMA_VERSION, "reports": found})
    else:
        print_rows(COLUMNS, found)


async def all_open(settings: Settings) -> list[Object]:
    async with opened(settings) as store:
        return [{"id": id, **asdict(report)} for id, report in (await store.reports.open()).items()]


@reports.command(help="Take REPORT off the list; what it was stands in `chatd audit`.")
@click.argument("ids", metavar="REPORT...", nargs=-1, required=True)
@json_option
@click.pass_context
def close(context: click.Context, ids: tuple[str, ...], as_json: bool) -> None:
    missing = run(not_open(loaded(context), ids))
    if as_json:
        print_json({"schema_version": SCHEMA_VERSION, "closed": [id for id in ids if id not in missing]})
    if missing:
        fail(f"expected open reports, {', '.join(missing)} came; see `chatd reports`", NOT_FOUND)


async def not_open(settings: Settings, ids: tuple[str, ...]) -> list[str]:
    """Those that could not be closed, because they were not open."""
    async with opened(settings) as store:
        here = office(store, settings)
        return [id for id in ids if not await here.close_report(id)]
