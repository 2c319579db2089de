"""`chatd serve`: put the parts together, start the node, pass signals on."""

from __future__ import annotations

import asyncio
import faulthandler
import os
import resource
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import AsyncExitStack, suppress
from datetime import UTC, datetime
from pathlib import Path

import click
import structlog

from chatd.cli import notify
from chatd.cli.checks import certificate, open_files
from chatd.cli.common import BAD_CONFIGURATION, OK, fail, loaded, settings_file
from chatd.node import Node, verifier
from chatd.settings import (
    Settings,
    SettingsError,
    changed_needing_restart,
    host_and_port,
    load,
    unix_path,
    warnings,
)
from chatd.store.embedded import START_S, Embedded
from chatd.store.redis import Store
from chatd.telemetry import configure_log
from chatd.web import tls
from chatd.web.app import build, build_admin
from chatd.web.server import Listener
from chatd.web.sockets import address_of, bind

log = structlog.get_logger("chatd")


@click.command(help="Run a node until it is told to stop (SIGTERM drains it, SIGHUP reloads the settings).")
@click.option("--host", help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), help="Port to listen on; 0 takes a free one and says which.")
@click.pass_context
def serve(context: click.Context, host: str | None, port: int | None) -> None:
    # A socket from systemd stands for the flags: whether anybody may listen there is judged as for those.
    passed = passed_socket()
    if passed is not None:
        host, port = host_and_port(address_of(passed))
    flags: dict[str, object] = {"server.host": host, "server.port": port}
    settings = loaded(context, flags)
    configure_log(settings.log.level, settings.log.format)
    usable(settings)
    for sentence in (*warnings(settings), *around(settings)):
        log.warning(sentence)
    # A watchdog's SIGABRT, or a fault in C, leaves in the log where every thread was.
    faulthandler.enable()
    sock, admin = passed or listening_socket(settings), admin_socket(settings)
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(run(settings, sock, admin, settings_file(context), flags))
    sys.exit(OK)


def usable(settings: Settings) -> None:
    """A key or a certificate that cannot be used is a configuration error now, not when somebody connects."""
    verifier(settings)
    tls.context(settings.tls)


def around(settings: Settings) -> Iterator[str]:
    """What is unwise about the machine: too few open files, a certificate that ends."""
    _, allowed = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):  # macOS: the hard limit is none at all, and the soft one may not be
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, allowed))
    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    found = [open_files(allowed, settings.limits.connections)]
    if settings.tls.certificate:
        found.append(certificate(tls.expires_at(settings.tls.certificate), datetime.now(UTC)))
    yield from (f"{check.finding}; {check.remedy}" for check in found if check.remedy)


def passed_socket() -> socket.socket | None:
    """The one socket that systemd holds for us; None: it holds none."""
    count = notify.sockets_passed()
    if count > 1:
        fail(f"expected one socket from systemd, got {count}; leave one ListenStream= in the unit", BAD_CONFIGURATION)
    return socket.socket(fileno=notify.FIRST_FD) if count else None


def listening_socket(settings: Settings) -> socket.socket:
    server = settings.server
    return bound("server.host", server.host, server.port, server.socket_mode)


def admin_socket(settings: Settings) -> socket.socket | None:
    admin = settings.admin
    return bound("admin.listen", *host_and_port(admin.listen), admin.socket_mode) if admin.listen else None


def bound(setting: str, host: str, port: int, mode: int) -> socket.socket:
    """The socket, or the end of the command in one sentence."""
    try:
        return bind(host, port, mode)
    except OSError as error:
        where = host if unix_path(host) else f"{host} port {port}"
        fail(f"cannot listen on {where}: {error.strerror or error}; stop what is there, or change {setting}")


def loop_factory() -> type[asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:  # a platform without it: slower, not different
        return None
    return uvloop.Loop


async def run(
    settings: Settings,
    sock: socket.socket,
    admin_sock: socket.socket | None,
    file: Path | None,
    flags: dict[str, object],
) -> None:
    async with AsyncExitStack() as stack:
        url, watch = str(settings.redis.url), []
        if not url:
            embedded = Embedded(settings.redis.state_path(os.environ))
            await embedded.start(START_S)
            stack.push_async_callback(embedded.stop)
            url, watch = embedded.url, [embedded.watch()]
        store = await stack.enter_async_context(
            Store(url, prefix=settings.redis.prefix, timeout=settings.redis.timeout)
        )
        node = Node(settings, store)
        spare = sock.dup() if notify.sockets_passed() else None
        listener = Listener(build(node), settings, sock, tls.context(settings.tls), spare)
        admin = None if admin_sock is None else Listener(build_admin(node), settings, admin_sock)
        tell_systemd(node)
        listen_to_signals(node, file, flags)
        say_hello(settings, listener.address, "" if admin is None else admin.address, embedded=bool(watch))
        await node.run(listener, *watch, admin=admin)


def tell_systemd(node: Node) -> None:
    """Pass the node's news on."""
    node.on_news = lambda news: notify.tell(*notify.words(news, node.state, node.address, node.hub.size))


def listen_to_signals(node: Node, file: Path | None, flags: dict[str, object]) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop_or_leave, node)
    loop.add_signal_handler(signal.SIGHUP, reload, node, file, flags)


def stop_or_leave(node: Node) -> None:
    """The first signal drains; who sends a second has no patience for that."""
    if node.stopping:
        os._exit(1)
    node.stop()


def reload(node: Node, file: Path | None, flags: dict[str, object]) -> None:
    notify.reloading()
    try:
        settings = load(file, os.environ, flags)
        usable(settings)
    except (SettingsError, ValueError) as error:
        log.error("settings not reloaded; the old ones stay in force", problem=str(error))
        node.on_news("reloaded")
        return
    for name in changed_needing_restart(node.settings, settings):
        log.warning("this setting changes with a restart only", setting=name)
    configure_log(settings.log.level, settings.log.format)
    node.reload(settings)


def say_hello(settings: Settings, address: str, admin: str, *, embedded: bool) -> None:
    """Where to go and what to type next; to stderr, for a person and for whoever asked for --port 0."""
    mode = settings.auth.effective_mode
    user = "ana" if mode == "open" else "USER"
    s = "s" if settings.tls.certificate else ""
    lines = [f"chatd listens on {url(address, s)}"]
    if not unix_path(address):
        lines += [
            f"  chat in a browser    http{s}://{address}/",
            f"  chat in a terminal   websocat ws{s}://{address}/chat/{user}?room=lobby",
        ]
    if admin:
        lines.append(f"  health and metrics   {url(admin)}")
    lines.append("  who is here          chatd who")
    if mode == "open":
        lines.append("  open mode: anybody may be anybody; set [[auth.keys]] before others can reach this address")
    if embedded:
        lines.append(f"  data                 {settings.redis.state_path(os.environ)}")
    click.echo("\n".join(lines), err=True)


def url(address: str, s: str = "") -> str:
    return address if unix_path(address) else f"http{s}://{address}/"
