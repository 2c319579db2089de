"""One node as a process: the parts put together, the node started, signals passed on to it."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import socket
from contextlib import AsyncExitStack, suppress
from datetime import UTC, datetime

import structlog

from chatd.node import Node, verifier
from chatd.settings import Settings, warnings
from chatd.store.embedded import START_S, Embedded
from chatd.store.redis import Store
from chatd.web import tls
from chatd.web.app import build, build_admin
from chatd.web.server import Listener

from . import notify
from .checks import OWN_FILES, certificate, open_files
from .common import BAD_CONFIGURATION, fail
from .start import Start, admin_socket, listening_socket, reread, say_hello

log = structlog.get_logger("chatd")


def serve_node(settings: Settings, start: Start) -> None:
    """Be a node until it is told to stop."""
    usable(settings)
    found = around(settings)
    if start.place is None or start.place.number == 1:  # the others would say the same
        for sentence in (*warnings(settings, os.environ), *found):
            log.warning(sentence)
    sock = start.passed or listening_socket(settings, shared=start.place is not None)
    admin = admin_socket(settings)
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(run(settings, sock, admin, start))


def usable(settings: Settings) -> None:
    """A key or a certificate that cannot be used is a configuration error now, not when somebody connects."""
    verifier(settings)
    tls.context(settings.tls)


def around(settings: Settings) -> list[str]:
    """Take what open files we may, and tell what is unwise about the machine: too few of them, a certificate's end."""
    _, allowed = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):  # macOS: the hard limit is none at all, and the soft one may not be
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, allowed))
    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= allowed < OWN_FILES:  # -1: no limit
        fail(f"expected {OWN_FILES} open files to be allowed, got {allowed}; raise `ulimit -n`", BAD_CONFIGURATION)
    found = [open_files(allowed, settings.limits.connections)]
    if settings.tls.certificate:
        found.append(certificate(tls.expires_at(settings.tls.certificate), datetime.now(UTC)))
    return [f"{check.finding}; {check.remedy}" for check in found if check.remedy]


def loop_factory() -> type[asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:  # a platform without it: slower, not different
        return None
    return uvloop.Loop


async def run(settings: Settings, sock: socket.socket, admin_sock: socket.socket | None, start: Start) -> None:
    async with AsyncExitStack() as stack:
        embedded = None if settings.redis.url else Embedded.of(settings.redis, os.environ)
        if embedded is not None:
            await embedded.start(START_S)
            stack.push_async_callback(embedded.stop)
        url = str(settings.redis.url) if embedded is None else embedded.url
        store = await stack.enter_async_context(Store.of(settings.redis, url))
        node = Node(settings, store)
        spare = sock.dup() if start.passed is not None else None
        listener = Listener(build(node), settings, sock, tls.context(settings.tls), spare)
        admin = None if admin_sock is None else Listener(build_admin(node), settings, admin_sock)
        tell_systemd(node)
        listen_to_signals(node, start)
        if start.place is None:
            say_hello(settings, start.file, listener.address, "" if admin is None else admin.address)
        watch = [] if embedded is None else [embedded.watch()]
        await node.run(listener, *watch, admin=admin)


def tell_systemd(node: Node) -> None:
    """Pass the node's news on."""
    node.on_news = lambda news: notify.tell(*notify.words(news, node.state, node.address, node.hub.size))


def listen_to_signals(node: Node, start: Start) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop_or_leave, node)
    loop.add_signal_handler(signal.SIGHUP, reload, node, start)


def stop_or_leave(node: Node) -> None:
    """The first signal drains; who sends a second has no patience for that."""
    if node.stopping:
        os._exit(1)
    node.stop()


def reload(node: Node, start: Start) -> None:
    notify.reloading()
    settings = reread(node.settings, start, usable)
    if settings is None:
        node.on_news("reloaded")
    else:
        node.reload(settings)
