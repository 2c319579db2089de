"""`chatd top`: what `chatd status` says, again and again on the same screen, until interrupted."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from shutil import get_terminal_size

import click

from chatd.settings import Settings
from chatd.store.errors import StoreError

from .arguments import duration
from .cluster import opened, silence, until_interrupted
from .common import Failure, explained, fail, loaded
from .output import on_terminal
from .status import how, in_person

# ECMA-48: the cursor to the first place (CUP), and all that stands there away (ED).
ANEW = "\x1b[H\x1b[2J"


@click.command(help="`chatd status`, again and again, until interrupted.")
@click.option("--every", default="1s", show_default=True, callback=duration, help="How often it is looked.")
@click.pass_context
def top(context: click.Context, every: float) -> None:
    settings = loaded(context)
    if not on_terminal():
        fail("expected a terminal to draw on, got none; `chatd status --json` is for programs")
    until_interrupted(watched(settings, every))


async def watched(settings: Settings, every: float) -> None:
    """What cannot be learnt now, as where a store restarts, is said in its place."""
    while True:
        try:
            async with opened(settings) as store:
                while True:
                    answers, reply = await how(store, settings)
                    seen = in_person(reply, get_terminal_size().columns)
                    draw(f"{seen}\n{silence(answers)}\n" if answers.missing else seen)
                    await asyncio.sleep(every)
        except (Failure, StoreError) as error:
            draw(f"{explained(error)}\n")
        await asyncio.sleep(every)


def draw(text: str) -> None:
    """As much as the screen has lines for, from the top; more would push the top away."""
    lines = text.splitlines()[: get_terminal_size().lines - 1]
    click.echo(f"{ANEW}{datetime.now(UTC):%H:%M:%S}Z  " + "\n".join(lines))
