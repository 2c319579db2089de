"""How a `chatd serve` has been started: with which flags, by whom, on which sockets; and what it says then."""

from __future__ import annotations

import errno
import os
import shlex
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import click
import structlog

from chatd.settings import (
    HMAC_KEY_BYTES,
    Settings,
    SettingsError,
    changed_needing_restart,
    host_and_port,
    load,
    reloaded,
    unix_path,
)
from chatd.telemetry import configure_log
from chatd.web.sockets import bind, hold

from . import notify
from .common import BAD_CONFIGURATION, fail
from .workers import Place

log = structlog.get_logger("chatd")

# An address, in a remedy.
USABLE = "what this machine has and you may use"


class Start(NamedTuple):
    """How this process has been started.

    Attributes:
        file, flags: what the settings are loaded from; see settings.load.
        passed: listens already, and whoever gave it to us holds its address; None: we have to.
        place: ours among several workers; None: we are alone, or their supervisor.
    """

    file: Path | None
    flags: dict[str, object]
    passed: socket.socket | None
    place: Place | None


def passed_socket() -> socket.socket | None:
    """The one socket that systemd holds for us; None: it holds none."""
    count = notify.sockets_passed()
    if count > 1:
        fail(f"expected one socket from systemd, got {count}; leave one ListenStream= in the unit", BAD_CONFIGURATION)
    return socket.socket(fileno=notify.FIRST_FD) if count else None


def listening_socket(settings: Settings, *, shared: bool = False) -> socket.socket:
    server = settings.server
    with addressed(where_set(server.host), server.host, server.port):
        return bind(server.host, server.port, server.socket_mode, shared=shared)


def held_address(settings: Settings) -> socket.socket:
    server = settings.server
    with addressed(where_set(server.host), server.host, server.port):
        return hold(server.host, server.port)


def admin_socket(settings: Settings) -> socket.socket | None:
    admin = settings.admin
    if not admin.listen:
        return None
    host, port = host_and_port(admin.listen)
    with addressed("admin.listen", host, port):
        return bind(host, port, admin.socket_mode)


def where_set(host: str) -> str:
    """The settings that say where the public comes in; a file has no port."""
    return "server.host" if unix_path(host) else "server.host and server.port"


@contextmanager
def addressed(setting: str, host: str, port: int) -> Iterator[None]:
    """An address that cannot be had is the end of the command, in one sentence."""
    try:
        yield
    except OSError as error:
        where = host if unix_path(host) else f"{host} port {port}"
        taken = error.errno == errno.EADDRINUSE
        remedy = f"stop what is there, or change {setting}" if taken else f"set {setting} to {USABLE}"
        fail(f"cannot listen on {where}: {error.strerror or error}; {remedy}")


def reread(before: Settings, start: Start, usable: Callable[[Settings], None]) -> Settings | None:
    """The settings as they are now, but for what needs a restart; None: they cannot be used, and the log has why.

    Args:
        usable: raises ValueError for what settings.load cannot judge.
    """
    try:
        settings = load(start.file, os.environ, start.flags)
        usable(settings)
    except (SettingsError, ValueError) as error:
        log.error("settings not reloaded; the old ones stay in force", problem=str(error))
        return None
    for name in changed_needing_restart(before, settings):
        log.warning("this setting changes with a restart only", setting=name)
    settings = reloaded(before, settings)
    configure_log(settings.log.level, settings.log.format)
    return settings


def say_hello(settings: Settings, file: Path | None, address: str, admin: str, last_admin: str = "") -> None:
    """Where to go and what to type next; to stderr, for a person and for whoever asked for --port 0.

    `file` is what --config named, and what is typed next is to name it as well; None: it named none.
    """
    s = "s" if settings.tls.certificate else ""
    config = f" --config {shlex.quote(str(file))}" if file is not None else ""
    lines = [f"chatd listens on {url(address, s)}"]
    if not unix_path(address):
        lines += [
            f"  chat in a browser    {page(settings, f'http{s}://{address}')}",
        ]
    lines.append(f"  chat in a terminal   {typed_to_chat(settings, config)}")
    if admin:
        to = f" to {url(last_admin)}, one for each worker" if last_admin else ""
        lines.append(f"  health and metrics   {url(admin)}{to}")
    lines.append(f"  who is here          chatd who{config}")
    if settings.auth.effective_mode == "open":
        lines.append("  open mode: anybody may be anybody; set [[auth.keys]] before others can reach this address")
    if not settings.redis.url:
        lines.append(f"  data                 {settings.redis.state_path(os.environ)}")
    click.echo("\n".join(lines), err=True)


def page(settings: Settings, origin: str) -> str:
    """Where chatd's own page is, or why it could not connect from there."""
    origins = settings.server.origins
    return f"{origin}/" if {"*", origin} & {*origins} or not origins else f"not here: server.origins lacks {origin}"


def typed_to_chat(settings: Settings, config: str) -> str:
    """The command that joins the lobby; the words in capitals are for whoever has a token that we cannot make."""
    if settings.auth.effective_mode == "open" or any(key.algorithm in HMAC_KEY_BYTES for key in settings.auth.keys):
        return f"chatd chat ana{config}"
    return f"chatd chat USER --token-file FILE{config}"


def url(address: str, s: str = "") -> str:
    return address if unix_path(address) else f"http{s}://{address}/"
