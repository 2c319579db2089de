"""The sockets: bound by us, held by uvicorn, opened and closed as the node says.

uvicorn's own life cycle (signals, lifespan, closing every WebSocket with 1012) is not used: the node drains.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import socket
import ssl
from collections.abc import Callable, Generator
from typing import cast

import structlog
import uvicorn
from starlette.types import ASGIApp

from chatd.settings import Settings, host_and_port
from chatd.transport import CLOSING_S, Arrivals, Closing, Door, Doorway, Handshake

from .sockets import BACKLOG, address_of, bind, bound_unsent, is_shared, take_queued, tidy
from .tls import expires_at, renew

log = structlog.get_logger("chatd")

# uvloop accepts one connection in a turn for each descriptor it listens on. With several, those who come at once share
# what a turn costs and travel to the store together: a fourth of the CPU when everybody comes back.
ACCEPTED_A_TURN = 8
# HTTP requests under way at the end have this long.
LAST_REQUESTS_S = 1
# For a TLS handshake where limits.handshake_timeout sets no limit: the event loop must have one.
TLS_HANDSHAKE_S = 60.0


class _Uvicorn(uvicorn.Server):
    """uvicorn with sockets, and times for TLS, of ours; and without its signal handlers: signals are the node's."""

    def __init__(self, config: uvicorn.Config, tls: ssl.SSLContext | None, handshake_s: float) -> None:
        super().__init__(config)
        self._tls = tls
        self._handshake_s = handshake_s
        self.servers = []

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await self.lifespan.startup()
        for sock in sockets or []:
            await self.listen(sock)
        self.started = True

    async def listen(self, sock: socket.socket) -> None:
        """Accept on `sock`, which it takes over."""
        secure = self._tls is not None
        bound_unsent(sock)
        for each in (sock, *(sock.dup() for _ in range(ACCEPTED_A_TURN - 1))):
            server = await asyncio.get_running_loop().create_server(
                self._door,
                sock=each,
                backlog=BACKLOG,
                ssl=self._tls,
                ssl_handshake_timeout=self._handshake_s if secure else None,
                ssl_shutdown_timeout=CLOSING_S if secure else None,
            )
            self.servers.append(server)

    def _door(self) -> asyncio.Protocol:
        make = cast("Callable[..., asyncio.Protocol]", self.config.http_protocol_class)
        return make(config=self.config, server_state=self.server_state, app_state=self.lifespan.state)


class Listener:
    """See node.Listener.

    Args:
        sock: listens already, or is bound and shares its port.
        tls: everybody must speak TLS there; None: nobody.
        spare: another of the same queue that we do not accept on, and who holds that holds the address.
    """

    def __init__(
        self,
        app: ASGIApp,
        settings: Settings,
        sock: socket.socket,
        tls: ssl.SSLContext | None = None,
        spare: socket.socket | None = None,
    ) -> None:
        limits = settings.limits
        self._socket = sock
        self._spare = spare
        self._shared = is_shared(sock)
        self._mode = settings.server.socket_mode
        self._tls = tls
        self.certificate_ends = None if tls is None else expires_at(settings.tls.certificate).timestamp()
        self.address = address_of(sock)
        self._closing = Closing()
        self._doorway = Doorway(timeout=limits.handshake_timeout, header_bytes=limits.handshake_bytes)
        config = uvicorn.Config(
            app,
            http=functools.partial(Door, self._doorway, self._closing),  # type: ignore[arg-type]  # called like a class
            ws=functools.partial(Handshake, self._closing, Arrivals(), settings.server.compression),  # type: ignore[arg-type]
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=LAST_REQUESTS_S,
        )
        self._server = _Uvicorn(config, tls, limits.handshake_timeout or TLS_HANDSHAKE_S)
        self._serving: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._serving = asyncio.create_task(self._server.serve(sockets=[self._socket]), name="uvicorn")
        while not self._server.started:
            if self._serving.done():
                self._serving.result()
                raise RuntimeError("uvicorn ended before it had begun")
            await asyncio.sleep(0.001)

    def reload(self, settings: Settings) -> None:
        """See node.Listener."""
        self._doorway.timeout = settings.limits.handshake_timeout
        self._doorway.header_bytes = settings.limits.handshake_bytes
        if self._tls is not None and settings.tls.certificate:
            try:
                renew(self._tls, settings.tls)
                self.certificate_ends = expires_at(settings.tls.certificate).timestamp()
            except ValueError as error:
                log.error("certificate not read; the old one stays in force", problem=str(error))

    def sweep(self, now: float) -> None:
        self._doorway.sweep(now)
        self._closing.sweep(now)

    async def close(self) -> None:
        if self._server.servers and self._spare is None:
            await take_queued(self._socket)
        while self._server.servers:
            self._server.servers.pop().close()
        self._socket.close()
        for connection in list(self._server.server_state.connections):
            # Idle, or it ends with the answer that is under way. Who has only just come is still to be answered.
            if isinstance(connection, Door) and connection not in self._doorway:
                connection.shutdown()
        await asyncio.sleep(0)  # uvloop closes sockets at the end of its turn, and until then the address is taken

    async def open(self) -> None:
        host, port = host_and_port(self.address)
        self._socket = bind(host, port, self._mode, shared=self._shared) if self._spare is None else self._spare.dup()
        await self._server.listen(self._socket)

    async def stop(self) -> None:
        with contextlib.suppress(TimeoutError):  # a request may be on its way on a connection that we took
            async with asyncio.timeout(LAST_REQUESTS_S):
                while len(self._doorway):
                    await asyncio.sleep(0.005)
        self._server.should_exit = True
        if self._serving is not None:
            await self._serving
        tidy(self.address)
