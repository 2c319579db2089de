"""Starlette at the door, callbacks inside: how a socket comes in through uvicorn and then leaves ASGI behind.

    Door        uvicorn's HTTP protocol, with bounds on what may happen before a request is complete
    Handshake   the WebSocket class given to uvicorn: one ASGI handshake, judged by websockets' Sans-I/O ServerProtocol
    Link        what a connection is afterwards: a small object that feeds a Receiver and writes prepared bytes

It rests on uvicorn calling `Config(http=…, ws=…)` as it does in 0.53 and 0.54; tests fail if that changes. No task, no
timer and no closure per connection remains after the handshake: what has a deadline is looked at by a sweep.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final, Protocol, cast
from urllib.parse import unquote

import structlog
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState
from websockets.datastructures import Headers
from websockets.exceptions import InvalidHandshake
from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory
from websockets.http11 import Request, Response
from websockets.server import ServerProtocol

from . import frames
from .errors import ABNORMAL, INTERNAL_ERROR, POLICY_VIOLATION, SLOW, Disconnect

log = structlog.get_logger("chatd")

# How long a peer may take to answer our close frame before the socket is cut (RFC 6455, 7.1.1 asks for patience).
CLOSING_S: Final = 5.0
# Control frames are counted over this long.
CONTROL_WINDOW_S: Final = 10.0
# Sockets that have not sent a whole request: half-open ones past this are cut, oldest first.
HALF_OPEN: Final = 4096


class Receiver(Protocol):
    """Who hears what a client says."""

    def received(self, message: bytes) -> None: ...

    def heard(self) -> None:
        """A sign of life that is no message: a ping or pong."""

    def lost(self, goodbye: Disconnect, by_peer: bool) -> None:
        """The socket is gone; called exactly once."""


@dataclass(frozen=True, slots=True)
class LinkRules:
    """Bounds of one connection.

    Attributes:
        max_message: bytes of a message; 0: no limit.
        outbox: bytes that may wait for the client; 0: no limit.
        control_frames: pings and pongs in 10 s; 0: no limit.
    """

    max_message: int
    outbox: int
    control_frames: int


# --- a connection after the handshake ---------------------------------------------------------------------------------


class Closing:
    """Links that have said goodbye, in order of time, with the loop second at which they are cut."""

    def __init__(self) -> None:
        self._until: dict[Link, float] = {}

    def add(self, link: Link, now: float) -> None:
        self._until[link] = now + CLOSING_S

    def discard(self, link: Link) -> None:
        self._until.pop(link, None)

    def sweep(self, now: float) -> None:
        """Cut those whose peers have not answered by loop second `now`."""
        for link, until in list(self._until.items()):
            if until > now:
                break
            link.abort()


class Link(asyncio.Protocol):
    """One WebSocket, open.

    Attributes:
        write: hands bytes to the socket; the transport's own method, since every delivery goes through it.
        congested: more than half of what may wait is waiting.
        deflates: permessage-deflate was negotiated.
    """

    __slots__ = (
        "_closing", "_control", "_goodbye", "_parser", "_receiver", "_rules", "_since", "_transport", "congested",
        "deflates", "write",
    )  # fmt: skip

    def __init__(
        self, transport: asyncio.Transport, receiver: Receiver, rules: LinkRules, closing: Closing, *, deflates: bool
    ) -> None:
        self._transport = transport
        self._receiver = receiver
        self._rules = rules
        self._closing = closing
        self._parser = frames.Parser(rules.max_message, inflate=deflates)
        self.deflates = deflates
        self._goodbye: Disconnect | None = None
        self._control = 0
        self._since = 0.0
        self.congested = False
        self.write = transport.write
        if rules.outbox:
            transport.set_write_buffer_limits(high=rules.outbox // 2)

    # --- what the session does ----------------------------------------------------------------------------------------

    def buffered(self) -> int:
        return 0 if self._transport.is_closing() else self._transport.get_write_buffer_size()

    def close(self, goodbye: Disconnect) -> None:
        """Say goodbye once, after all that waits, and give the peer a while to answer; then it is cut."""
        if self._goodbye is not None:
            return
        self._goodbye = goodbye
        self.write(frames.close(goodbye.code, goodbye.reason))
        self._closing.add(self, asyncio.get_running_loop().time())

    def abort(self) -> None:
        self._transport.abort()

    def pause_reading(self) -> None:
        if not self._transport.is_closing():
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        if not self._transport.is_closing():
            self._transport.resume_reading()

    # --- what the socket does -----------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        try:
            for event in self._parser.feed(data):
                self._take(event)
        except Disconnect as goodbye:
            self.close(goodbye)
        except Exception:  # a bug of ours must not cost the others their connection
            log.exception("receiver failed")
            self.close(INTERNAL_ERROR)

    def _take(self, event: frames.Incoming) -> None:
        if isinstance(event, frames.Close):
            self._answer_close(event)
        elif self._goodbye is not None:
            return  # said after our goodbye: nobody listens any more
        elif isinstance(event, frames.Message):
            self._receiver.received(event.data)
        else:
            self._count_control()
            if isinstance(event, frames.Ping):
                if self._overfull():
                    raise SLOW
                self.write(frames.pong(event.payload))
            self._receiver.heard()

    def _answer_close(self, close: frames.Close) -> None:
        if self._goodbye is None:
            self._goodbye = Disconnect(close.code, close.reason)
            self.write(frames.close(close.code))
        self._transport.close()

    def _count_control(self) -> None:
        now = asyncio.get_running_loop().time()
        if now - self._since > CONTROL_WINDOW_S:
            self._since, self._control = now, 0
        self._control += 1
        if 0 < self._rules.control_frames < self._control:
            raise POLICY_VIOLATION.because("too many control frames")

    def _overfull(self) -> bool:
        return 0 < self._rules.outbox <= self.buffered()

    def pause_writing(self) -> None:
        self.congested = True

    def resume_writing(self) -> None:
        self.congested = False

    def eof_received(self) -> bool:
        return False  # half-closed TCP is of no use to a WebSocket

    def connection_lost(self, exc: Exception | None) -> None:
        self._closing.discard(self)
        by_peer = self._goodbye is None
        self._receiver.lost(self._goodbye or ABNORMAL, by_peer)


# --- the handshake ----------------------------------------------------------------------------------------------------

Message = dict[str, Any]


class Handshake(asyncio.Protocol):
    """One WebSocket handshake as an ASGI application sees it; nothing of path or query is logged.

    The application accepts, and then calls `scope["extensions"]["chatd.takeover"]["take"](receiver, rules)`, which
    makes this socket a Link's; or it denies with an HTTP response. An application that does neither loses the socket.

    Args:
        closing: where links wait for the answer to their goodbye.
        deflate: offer permessage-deflate, without context takeover, so that one deflated frame serves all readers.
    """

    def __init__(
        self,
        closing: Closing,
        deflate: bool,
        *,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self._closing = closing
        self._config = config
        self._connections = cast("set[Any]", server_state.connections)
        self._tasks = server_state.tasks
        self._app_state = app_state
        extensions = [_NoContext()] if deflate else []
        self._protocol = ServerProtocol(extensions=extensions)
        self._transport: asyncio.Transport | None = None
        self._response: Response | None = None
        self._denial: Message | None = None
        self._early = b""
        self._link: Link | None = None
        self._events: asyncio.Queue[Message] = asyncio.Queue()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.discard(self)
        self._events.put_nowait({"type": "websocket.disconnect", "code": ABNORMAL.code})

    def shutdown(self) -> None:
        """uvicorn's word that the server ends."""
        self._cut()

    def data_received(self, data: bytes) -> None:
        if self._response is not None:
            # What a client says before it is let in waits here, and not without bound.
            self._early += data
            if len(self._early) > 1 << 16:
                self._cut()
            return
        self._protocol.receive_data(data)
        for event in self._protocol.events_received():
            if isinstance(event, Request):
                self._begin(event)
        if self._protocol.parser_exc is not None:
            self._cut()

    def _begin(self, request: Request) -> None:
        offered = [value for value in request.headers.get_all("Sec-WebSocket-Protocol") if value.strip()]
        # The Python SDK sends this header empty, which the RFC does not allow but nobody is harmed by.
        if "Sec-WebSocket-Protocol" in request.headers:
            del request.headers["Sec-WebSocket-Protocol"]
        self._response = self._protocol.accept(request)
        if self._response.status_code != HTTPStatus.SWITCHING_PROTOCOLS:
            self._send(self._response)
            self._cut()
            return
        subprotocols = [name.strip() for value in offered for name in value.split(",") if name.strip()]
        self._events.put_nowait({"type": "websocket.connect"})
        task = asyncio.get_running_loop().create_task(self._run(self._scope(request, subprotocols)), name="handshake")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _scope(self, request: Request, subprotocols: list[str]) -> Message:
        assert self._transport is not None, "a request comes on a connection"
        path, _, query = request.path.partition("?")
        peer, here = self._transport.get_extra_info("peername"), self._transport.get_extra_info("sockname")
        return {
            "type": "websocket",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "scheme": "wss" if self._transport.get_extra_info("sslcontext") else "ws",
            "server": tuple(here[:2]) if isinstance(here, tuple) else None,
            "client": tuple(peer[:2]) if isinstance(peer, tuple) else None,
            "root_path": "",
            "path": unquote(path),
            "raw_path": path.encode("latin-1"),
            "query_string": query.encode("latin-1"),
            "headers": [
                (name.lower().encode(), value.encode("latin-1")) for name, value in request.headers.raw_items()
            ],
            "subprotocols": subprotocols,
            "state": self._app_state.copy(),
            "extensions": {"websocket.http.response": {}, "chatd.takeover": {"take": self._take}},
        }

    async def _run(self, scope: Message) -> None:
        app = cast("Callable[..., Awaitable[None]]", self._config.loaded_app)
        try:
            await app(scope, self._events.get, self._answer)
        except Exception:
            log.exception("handshake failed")
            self._send(self._protocol.reject(HTTPStatus.INTERNAL_SERVER_ERROR, "internal server error\n"))
        if self._link is None:
            self._cut()

    async def _answer(self, message: Message) -> None:
        """ASGI's `send`, as far as a handshake needs it."""
        match message["type"]:
            case "websocket.accept":
                self._accept(message)
            case "websocket.close":
                self._send(self._protocol.reject(HTTPStatus.FORBIDDEN, ""))
            case "websocket.http.response.start":
                self._denial = message
            case "websocket.http.response.body" if self._denial is not None:
                self._deny(self._denial, message)
            case other:
                raise RuntimeError(f"a handshake knows no {other!r}; what comes after it goes through the Link")

    def _accept(self, message: Message) -> None:
        assert self._response is not None, "accepted after a request"
        if message.get("subprotocol"):
            self._response.headers["Sec-WebSocket-Protocol"] = message["subprotocol"]
        self._send(self._response)

    def _deny(self, start: Message, message: Message) -> None:
        headers = Headers((name.decode("latin-1"), value.decode("latin-1")) for name, value in start["headers"])
        headers["Connection"] = "close"
        status = HTTPStatus(start["status"])
        self._send(Response(status.value, status.phrase, headers, message.get("body", b"")))

    def _take(self, receiver: Receiver, rules: LinkRules) -> Link:
        """Make the socket a Link's. What the client has said already reaches it in the loop's next turn."""
        assert self._transport is not None, "taken over after it was made"
        self._connections.discard(self)
        link = Link(self._transport, receiver, rules, self._closing, deflates=bool(self._protocol.extensions))
        self._link = link
        self._transport.set_protocol(link)
        if self._transport.is_closing():
            asyncio.get_running_loop().call_soon(link.connection_lost, None)
        elif self._early:
            asyncio.get_running_loop().call_soon(link.data_received, self._early)
        return link

    def _send(self, response: Response) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._protocol.send_response(response)
            self._transport.write(b"".join(self._protocol.data_to_send()))

    def _cut(self) -> None:
        if self._transport is not None:
            self._transport.close()


class _NoContext(ServerPerMessageDeflateFactory):
    """permessage-deflate in the one form in which a frame made once fits everybody."""

    def __init__(self) -> None:
        super().__init__(server_no_context_takeover=True, client_no_context_takeover=True)

    def process_request_params(self, params: Any, accepted_extensions: Any) -> Any:
        if any(name == "server_max_window_bits" and value != "15" for name, value in params):
            raise InvalidHandshake("another window would need frames of its own")
        return super().process_request_params(params, accepted_extensions)


# --- before the handshake ---------------------------------------------------------------------------------------------


class Doorway:
    """Sockets that have not sent a whole request, in order of arrival.

    Args:
        timeout: seconds a request may take to arrive; 0: no limit.
        header_bytes: bytes it may have before its body; 0: no limit.
    """

    def __init__(self, *, timeout: float, header_bytes: int) -> None:
        self.timeout = timeout
        self.header_bytes = header_bytes
        self._since: dict[Door, float] = {}

    def enter(self, door: Door, now: float) -> None:
        self._since[door] = now
        if len(self._since) > HALF_OPEN:
            next(iter(self._since)).abort()

    def leave(self, door: Door) -> None:
        self._since.pop(door, None)

    def sweep(self, now: float) -> None:
        """Cut those that have been at it for too long by loop second `now` (slowloris)."""
        for door, since in list(self._since.items()):
            if self.timeout <= 0 or since + self.timeout > now:
                break
            door.abort()


class Door(HttpToolsProtocol):
    """uvicorn's HTTP protocol behind a Doorway: one whole request in time and within bounds, or no connection."""

    def __init__(self, doorway: Doorway, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._doorway = doorway
        self._bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        self._doorway.enter(self, asyncio.get_running_loop().time())

    def connection_lost(self, exc: Exception | None) -> None:
        self._doorway.leave(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._bytes += len(data)
        if 0 < self._doorway.header_bytes < self._bytes:
            # Our routes take no bodies, so whatever is this long is not a request of anybody we serve.
            self.transport.write(b"HTTP/1.1 431 Request Header Fields Too Large\r\nConnection: close\r\n\r\n")
            self.transport.close()
            return
        super().data_received(data)

    def on_headers_complete(self) -> None:
        self._bytes = 0
        self._doorway.leave(self)
        super().on_headers_complete()

    def handle_websocket_upgrade(self) -> None:
        self._doorway.leave(self)
        super().handle_websocket_upgrade()

    def abort(self) -> None:
        self._doorway.leave(self)
        self.transport.abort()
