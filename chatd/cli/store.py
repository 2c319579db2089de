"""`chatd store`: the embedded store by itself, for several instances on one host that come and go around it."""

from __future__ import annotations

import asyncio
import os
import signal

import click
import structlog

from chatd.store.embedded import START_S, Embedded, answers
from chatd.telemetry import configure_log

from . import notify
from .common import BAD_CONFIGURATION, fail, loaded

log = structlog.get_logger("chatd")

# How often the server is asked whether it lives.
PING_S = 1.0


@click.command(help="Run the embedded store without a node, until told to stop; `chatd serve` beside it uses it.")
@click.pass_context
def store(context: click.Context) -> None:
    settings = loaded(context)
    configure_log(settings.log.level, settings.log.format)
    if settings.redis.url:
        fail(
            "expected no redis.url for a store of our own, got one; empty it, or do without this command "
            "(`systemctl disable --now chatd-store`)",
            BAD_CONFIGURATION,
        )
    asyncio.run(run(Embedded.of(settings.redis, os.environ)))


async def run(embedded: Embedded) -> None:
    """Keep the store until SIGTERM or SIGINT."""
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    await embedded.start(START_S)
    try:
        notify.tell("READY=1", f"STATUS=serving {embedded.socket}")
        log.info("store ready", socket=str(embedded.socket), ours=embedded.owner)
        async with asyncio.TaskGroup() as tasks:
            jobs = [tasks.create_task(job) for job in (embedded.watch(), tell_alive(embedded))]
            await stopping.wait()
            for job in jobs:
                job.cancel()
    finally:
        notify.tell("STOPPING=1")
        await embedded.stop()
    log.info("store stopped")


async def tell_alive(embedded: Embedded) -> None:
    """Feed systemd's watchdog while the server answers, whoever owns it."""
    while True:
        if await answers(embedded.socket):
            notify.tell("WATCHDOG=1")
        await asyncio.sleep(PING_S)
