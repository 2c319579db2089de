"""The sockets: bound by us, held by uvicorn, opened and closed as the node says.

uvicorn's own life cycle (signals, lifespan, closing every WebSocket with 1012) is not used: the node drains.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import socket
from collections.abc import Generator

import uvicorn
from starlette.applications import Starlette

from chatd.settings import Settings
from chatd.transport import Closing, Door, Doorway, Handshake

# Connections that the kernel holds for us while we are busy: a whole node's clients may come back at once.
BACKLOG = 4096
# HTTP requests under way at the end have this long.
LAST_REQUESTS_S = 1


class _Uvicorn(uvicorn.Server):
    """uvicorn without its signal handlers: signals are the node's."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


class Listener:
    """See node.Listener.

    Args:
        sock: a socket that listens already (socket activation); None: `bind` one.
    """

    def __init__(self, app: Starlette, settings: Settings, sock: socket.socket) -> None:
        self._socket = sock
        self.address = _address(sock)
        self._closing = Closing()
        self._doorway = Doorway(timeout=settings.limits.handshake_timeout, header_bytes=settings.limits.handshake_bytes)
        config = uvicorn.Config(
            app,
            http=functools.partial(Door, self._doorway),  # type: ignore[arg-type]  # called like a class
            ws=functools.partial(Handshake, self._closing, settings.server.compression),  # type: ignore[arg-type]
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=LAST_REQUESTS_S,
        )
        self._server = _Uvicorn(config)
        self._serving: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._serving = asyncio.create_task(self._server.serve(sockets=[self._socket]), name="uvicorn")
        while not self._server.started:
            if self._serving.done():
                self._serving.result()
                raise RuntimeError("uvicorn ended before it had begun")
            await asyncio.sleep(0.001)

    def sweep(self, now: float) -> None:
        self._doorway.sweep(now)
        self._closing.sweep(now)

    async def close(self) -> None:
        for server in self._server.servers:
            server.close()
        self._socket.close()

    async def stop(self) -> None:
        self._server.should_exit = True
        if self._serving is not None:
            await self._serving


def _address(sock: socket.socket) -> str:
    if sock.family == socket.AF_UNIX:
        return f"unix:{sock.getsockname()}"
    host, port = sock.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def bind(host: str, port: int) -> socket.socket:
    """A listening socket.

    Raises:
        OSError: the address cannot be had.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, kind, proto, _, address = found[0]
    sock = socket.socket(family, kind, proto)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        sock.listen(BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock
