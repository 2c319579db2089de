"""`chatd serve`: one node (daemon.py), or several behind one address (workers.py).

What several need beside the nodes, a supervisor and a keeper of their store, runs without what a node imports.
"""

from __future__ import annotations

import asyncio
import faulthandler
import os
import sys

import click

from chatd.settings import Settings, host_and_port, in_mode, numbered, unix_path
from chatd.store.embedded import Embedded
from chatd.telemetry import configure_log
from chatd.web.sockets import address_of

from .common import BAD_CONFIGURATION, OK, fail, loaded, settings_file
from .start import Start, held_address, listening_socket, passed_socket, reread, say_hello
from .store import run as keep
from .supervisor import STORE
from .workers import supervised, taken


@click.command(help="Run a node until it is told to stop (SIGTERM drains it, SIGHUP reloads the settings).")
@click.option("--host", help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), help="Port to listen on; 0 takes a free one and says which.")
@click.option("--workers", type=click.IntRange(1), help="Run so many nodes behind that address, each in a process.")
@click.pass_context
def serve(context: click.Context, host: str | None, port: int | None, workers: int | None) -> None:
    place = taken()
    passed = passed_socket() if place is None else place.inherited()
    # A socket that is handed to us stands for the flags: whether anybody may listen there is judged as for those.
    if place is not None:
        host, port = host_and_port(place.address)
        workers = 1
    elif passed is not None:
        host, port = host_and_port(address_of(passed))
    flags: dict[str, object] = {"server.host": host, "server.port": port, "server.workers": workers}
    start = Start(settings_file(context), flags, passed, place)
    settings = loaded(context, flags)
    if place is not None:
        settings = in_mode(settings, place.mode)
    configure_log(settings.log.level, settings.log.format)
    # A watchdog's SIGABRT, or a fault in C, leaves in the log where every thread was.
    faulthandler.enable()
    sys.exit(played(settings, start))


def played(settings: Settings, start: Start) -> int:
    """Play the part that this process has, until told to stop; the exit code."""
    if settings.server.workers > 1:
        return several(settings, start)
    if start.place is not None and start.place.number == STORE:
        asyncio.run(keep(Embedded.of(settings.redis, os.environ)))
        return OK
    from .daemon import serve_node  # a node's libraries are for nodes

    serve_node(settings, start)
    return OK


def several(settings: Settings, start: Start) -> int:
    """Have that many processes be a node each; the exit code."""
    if sys.platform != "linux":
        fail(f"expected server.workers to be 1 on {sys.platform}, got {settings.server.workers}", BAD_CONFIGURATION)
    host, admin = settings.server.host, settings.admin.listen
    sock = start.passed or (listening_socket(settings) if unix_path(host) else held_address(settings))
    last = numbered(admin, settings.server.workers) if admin else ""
    return supervised(
        settings,
        sock,
        # What load cannot judge each worker judges, and says.
        may_reload=lambda: reread(settings, start, lambda _: None) is not None,
        on_ready=lambda address: say_hello(settings, start.file, address, admin, last),
    )
