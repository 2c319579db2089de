"""`chatd lockdown`: close the cluster, step by step, while it is being flooded."""

from __future__ import annotations

import click

from chatd.control import SCHEMA_VERSION, Answers
from chatd.measures import Lockdown
from chatd.settings import Settings

from .cluster import office, opened, own_up, run, see_nobody
from .common import loaded
from .output import json_option, print_json

SENTENCES = {
    Lockdown.OPEN: "open",
    Lockdown.GUESTS_SILENT: "guests are silent, and create or join no rooms",
    Lockdown.MODERATORS_ONLY: "only moderators and owners speak",
    Lockdown.NOBODY_NEW: "nobody new is let in, and only moderators and owners speak",
}


@click.command(
    help="Show the lockdown, or set its LEVEL: 0 open; 1 whoever only came in by an open door does not speak, nor "
    "create or join rooms; 2 only moderators and owners speak; 3 nobody new is let in. Each includes those before it."
)
@click.argument("level", required=False, type=click.IntRange(0, max(Lockdown)), metavar="[LEVEL]")
@json_option
@click.pass_context
def lockdown(context: click.Context, level: int | None, as_json: bool) -> None:
    holds, answers = run(locked_down(loaded(context), level))
    if as_json:
        print_json({"schema_version": SCHEMA_VERSION, "lockdown": int(holds)})
    else:
        click.echo(f"{int(holds)}: {SENTENCES[holds]}")
    own_up(answers)


async def locked_down(settings: Settings, level: int | None) -> tuple[Lockdown, Answers]:
    """What holds, and the answers of those who were told; no answers where nothing was to be set."""
    async with opened(settings) as store:
        if level is None:
            return (await store.measures.in_force()).lockdown, Answers({})
        answers = await office(store, settings).lock_down(Lockdown(level))
        see_nobody(answers)
        return Lockdown(level), answers
