"""`chatd audit`: what operators, moderators and the back end have done to the cluster."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import click

from chatd.control import SCHEMA_VERSION
from chatd.model import LAST_SECOND
from chatd.settings import Settings
from chatd.store.audit import Act

from .arguments import seconds_of
from .cluster import opened, run, until_interrupted
from .common import loaded
from .output import json_option, moment, print_json, raw

# Acts read at once, and how often --follow looks for new ones.
PAGE = 1000
LOOK_S = 0.5
# What a line says first, or what says nothing to a person.
TOLD = ("at", "by", "ask", "request", "version")
# What says something also where it is nothing: a lockdown that ended, a room that was opened or unlocked.
TELLING = ("level", "locked", "public", "slow", "topic")
# Unix seconds; 0: for ever, or no matter.
MOMENTS = ("until", "issued_before")


def since_id(_: click.Context, __: click.Parameter, text: str | None) -> str:
    """The place in the stream from which to read; "" the beginning."""
    return "" if text is None else str(max(0, int((time.time() - seconds_of(text)) * 1000)))


@click.command(help="What was done to the cluster, oldest first: a line each, or with --json an object a line.")
@click.option("--since", "after", callback=since_id, metavar="DURATION", help='Only the last "1h"; else all there is.')
@click.option("--follow", is_flag=True, help="Go on with what is done from now on, until interrupted.")
@json_option
@click.pass_context
def audit(context: click.Context, after: str, follow: bool, as_json: bool) -> None:
    go = until_interrupted if follow else run
    go(told(loaded(context), after, follow=follow, as_json=as_json))


async def told(settings: Settings, after: str, *, follow: bool, as_json: bool) -> None:
    async for act in acts(settings, after, follow=follow):
        if as_json:
            print_json({"schema_version": SCHEMA_VERSION, "id": act.id, **act.entry})
        else:
            click.echo(line(act))


async def acts(settings: Settings, after: str, *, follow: bool) -> AsyncIterator[Act]:
    async with opened(settings) as store:
        while True:
            page = await store.audit.read(after, PAGE)
            for act in page:
                yield act
                after = act.id
            if not page and not follow:
                return
            if not page:
                await asyncio.sleep(LOOK_S)


def line(act: Act) -> str:
    """When, who, what, and of the rest what says something; with tabs between."""
    details = (f"{key}={shown(key, value)}" for key, value in act.entry.items() if says_something(key, value))
    return "\t".join([moment(act.entry["at"]), raw(act.entry["by"]), raw(act.entry["ask"]), " ".join(details)])


def says_something(key: str, value: Any) -> bool:
    if key in TOLD or (key == "over" and value < 0):  # as the node's settings say
        return False
    return key in TELLING or value not in ("", 0, False, None, [])


def shown(key: str, value: Any) -> str:
    """A value for a person; a revoked token may have claimed to end when no calendar goes on."""
    return moment(value) if key in MOMENTS and 0 < value <= LAST_SECOND else raw(value)
