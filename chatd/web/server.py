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

from .sockets import BACKLOG, address_of, tidy

# HTTP requests under way at the end have this long.
LAST_REQUESTS_S = 1


class _Uvicorn(uvicorn.Server):
    """uvicorn without its signal handlers: signals are the node's."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


class Listener:
    """See node.Listener. `sock` listens already."""

    def __init__(self, app: Starlette, settings: Settings, sock: socket.socket) -> None:
        self._socket = sock
        self.address = address_of(sock)
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
            backlog=BACKLOG,
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
        tidy(self.address)
