"""Starlette at the door, callbacks inside: how a socket comes in through uvicorn and then leaves ASGI behind.

    Door        uvicorn's HTTP protocol, with bounds on what may happen before a request is complete
    Handshake   the WebSocket class given to uvicorn: one ASGI handshake, judged by websockets' Sans-I/O ServerProtocol
    Link        what a connection is afterwards: a small object that feeds a Receiver and writes prepared bytes

It rests on uvicorn calling `Config(http=…, ws=…)` as it does in 0.53 and 0.54; tests fail if that changes. No task, no
timer and no closure per connection remains after the handshake: what has a deadline is looked at by a sweep. Only the
TLS handshake, which comes before any of this, is timed by the event loop itself.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import Any, Final, Protocol, cast
from urllib.parse import unquote

import httptools
import structlog
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState
from websockets.datastructures import Headers
from websockets.exceptions import NegotiationError
from websockets.extensions import Extension
from websockets.extensions.permessage_deflate import PerMessageDeflate, ServerPerMessageDeflateFactory
from websockets.http11 import Request, Response
from websockets.protocol import CONNECTING
from websockets.server import ServerProtocol
from websockets.typing import ExtensionParameter

from . import frames
from .errors import ABNORMAL, INTERNAL_ERROR, POLICY_VIOLATION, SLOW, Disconnect

log = structlog.get_logger("chatd")

# How long a peer may take to answer our close frame before the socket is cut (RFC 6455, 7.1.1 asks for patience).
CLOSING_S: Final = 5.0
# Control frames are counted over this long.
CONTROL_WINDOW_S: Final = 10.0
# Sockets that have not sent a whole request: half-open ones past this are cut, oldest first.
HALF_OPEN: Final = 4096
# Handshakes begun in one turn of the event loop: letting somebody in takes 0.5 ms, log-in and first room included.
ARRIVALS_A_TURN: Final = 8
# Headers in a request. Browsers send about 15, proxies add a few; Apache's bound is 100.
HEADERS: Final = 64
# What is left when an application ends without having said anything: an unexpected condition (RFC 6455, 7.4.1).
ABANDONED: Final = Disconnect(1011, "unexpected condition")

# websockets logs whole requests for debugging, and with them tokens. This logger is nobody's child and says nothing.
_SILENT: Final = logging.Logger("chatd.handshake", logging.CRITICAL)


class Receiver(Protocol):
    """Who hears what a client says."""

    def received(self, message: bytes) -> None: ...

    def heard(self) -> None:
        """A sign of life that is no message: a ping or pong."""

    def lost(self, goodbye: Disconnect, by_peer: bool) -> None:
        """Nothing more will be heard, and nothing may be said; called exactly once, never from within `close`.

        Args:
            goodbye: the first that was said, by whomever; ABNORMAL: none was.
            by_peer: the client said it or vanished; else it was us.
        """


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

    Most deliveries pass by the transport: where nothing waits, the kernel's own send() takes a frame at once, which
    costs a sixth less. What it does not take waits in the transport, and everything after it behind it. The socket is
    the transport's to close; both event loops call `connection_lost` before they do, and from then on it is not used.

    Attributes:
        direct: hands a frame to the kernel and returns how many of its bytes were taken; it may raise OSError. Whatever
            it did not take must at once be given to `write_rest`. None: something waits, or the end has begun.
        congested: more than half of what may wait is waiting; or the end has begun, when nothing may be written.
        deflates: permessage-deflate was negotiated.
    """

    __slots__ = (
        "_closing", "_control", "_goodbye", "_parser", "_plain", "_receiver", "_rules", "_since", "_transport",
        "congested", "deflates", "direct",
    )  # fmt: skip

    _plain: socket.socket | None  # None: what is written is not what is sent, as over TLS; or it is over
    direct: Callable[[bytes], int] | None

    _parser: frames.Parser | None  # None: what still comes is thrown away
    _receiver: Receiver | None  # None: it has been told that this is over

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
        self._plain = _plain_socket(transport)
        self.direct = self._plain.send if self._plain is not None else self._pass_on
        if rules.outbox:
            transport.set_write_buffer_limits(high=rules.outbox // 2)

    # --- what the session does ----------------------------------------------------------------------------------------

    def buffered(self) -> int:
        return 0 if self._transport.is_closing() else self._transport.get_write_buffer_size()

    def write(self, frame: bytes) -> None:
        """Hand over a frame. It knows nothing of goodbyes: who writes must look at `congested` first."""
        if self._plain is None or self.buffered():
            self.write_rest(frame, 0)
            return
        try:
            sent = self._plain.send(frame)
        except OSError:
            sent = 0
        if sent < len(frame):
            self.write_rest(frame, sent)
        elif not self.congested:
            self.direct = self._plain.send

    def write_rest(self, frame: bytes, sent: int) -> None:
        """Have wait what the kernel did not take of `frame`, and all that comes later behind it."""
        if self._plain is not None:
            self.direct = None
        with suppress(RuntimeError):  # uvloop: the socket was reset, and we are told of it only after this turn
            self._transport.write(frame[sent:])

    def _pass_on(self, frame: bytes) -> int:
        self.write_rest(frame, 0)
        return len(frame)

    def close(self, goodbye: Disconnect) -> None:
        """Say goodbye once, after all that waits, and give the peer a while to answer; then it is cut."""
        if self._goodbye is None:
            self._begin_end(goodbye, frames.close(goodbye.code, goodbye.reason))

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
        if self._parser is None:
            return
        try:
            for event in self._parser.feed(data):
                self._take(event)
        except Disconnect as goodbye:
            self._fail(goodbye)
        except Exception:  # a bug of ours must not cost the others their connection
            log.exception("receiver failed")
            self._fail(INTERNAL_ERROR)

    def _take(self, event: frames.Incoming) -> None:
        if isinstance(event, frames.Close):
            self._answer_close(event)
        elif self._goodbye is not None or self._receiver is None:
            return  # said after our goodbye: nobody listens any more
        elif isinstance(event, frames.Message):
            self._receiver.received(event.data)
        elif self._is_control_flood():
            self._fail(POLICY_VIOLATION.because("too many control frames"))
        elif isinstance(event, frames.Ping) and 0 < self._rules.outbox <= self.buffered():
            self._fail(SLOW)
        else:
            if isinstance(event, frames.Ping):
                self.write(frames.pong(event.payload))
            self._receiver.heard()

    def _is_control_flood(self) -> bool:
        now = asyncio.get_running_loop().time()
        if now - self._since > CONTROL_WINDOW_S:
            self._since, self._control = now, 0
        self._control += 1
        return 0 < self._rules.control_frames < self._control

    def pause_writing(self) -> None:
        self.congested = True
        self.direct = None

    def resume_writing(self) -> None:
        self.congested = self._goodbye is not None
        if self._plain is None and not self.congested:
            self.direct = self._pass_on

    def eof_received(self) -> bool:
        return False  # half-closed TCP is of no use to a WebSocket

    def connection_lost(self, exc: Exception | None) -> None:
        self._closing.discard(self)
        by_peer = self._goodbye is None
        self._goodbye = self._goodbye or ABNORMAL
        self.congested = True
        self.direct = None
        if self._plain is not None:
            self._plain.detach()
            self._plain = None
        self._part(by_peer)

    # --- the end ------------------------------------------------------------------------------------------------------

    def _begin_end(self, goodbye: Disconnect, frame: bytes) -> None:
        """Write the last frame; from here on the peer has CLOSING_S."""
        self._goodbye = goodbye
        self.congested = True
        self.direct = None
        if not self._transport.is_closing():
            self.write(frame)
            self._closing.add(self, asyncio.get_running_loop().time())

    def _answer_close(self, close: frames.Close) -> None:
        """The peer says goodbye, or answers ours: either way it is ours to end TCP (RFC 6455, 7.1.1)."""
        by_peer = self._goodbye is None
        if by_peer:
            self._begin_end(Disconnect(close.code, close.reason), frames.close(close.code))
        self._parser = None
        self._transport.close()
        self._part(by_peer)

    def _fail(self, goodbye: Disconnect) -> None:
        """End a connection that cannot be listened to any longer.

        We say that nothing follows, but go on reading what we throw away: closing at once with bytes unread would make
        the kernel reset the connection, and the peer lose the goodbye. TLS cannot say it: there the sweep ends this.
        """
        self.close(goodbye)
        self._parser = None
        if self._transport.can_write_eof() and not self._transport.is_closing():
            self._transport.write_eof()
        self._part(by_peer=False)

    def _part(self, by_peer: bool) -> None:
        receiver, self._receiver = self._receiver, None
        if receiver is not None:
            receiver.lost(self._goodbye or ABNORMAL, by_peer)


def _plain_socket(transport: asyncio.Transport) -> socket.socket | None:
    """The socket of `transport`, to be given back with `detach`; None where bytes are not sent as they are written."""
    if transport.get_extra_info("sslcontext") is not None:
        return None
    held = transport.get_extra_info("socket")
    return socket.socket(held.family, held.type, held.proto, fileno=held.fileno())


# --- the handshake ----------------------------------------------------------------------------------------------------

Message = dict[str, Any]


class Arrivals:
    """Handshakes that have not begun: some do each time the event loop comes round.

    When a whole node's clients come at once, all their handshakes and log-ins would stand in one turn of the loop,
    before anybody else's message. So it gets them a few at a time, and no faster than it is done with the ones before.
    """

    def __init__(self) -> None:
        self._waiting: deque[Callable[[], None]] = deque()

    def enter(self, begin: Callable[[], None]) -> None:
        self._waiting.append(begin)
        if len(self._waiting) == 1:
            asyncio.get_running_loop().call_soon(self._admit)

    def _admit(self) -> None:
        for _ in range(min(ARRIVALS_A_TURN, len(self._waiting))):
            self._waiting.popleft()()
        if self._waiting:
            asyncio.get_running_loop().call_soon(self._admit)


class Handshake(asyncio.Protocol):
    """One WebSocket handshake as an ASGI application sees it; nothing of path or query is logged.

    The application accepts, and then calls `scope["extensions"]["chatd.takeover"]["take"](receiver, rules)`, which
    makes this socket a Link's; or it denies with an HTTP response. An application that does neither loses the socket.

    Args:
        closing: where links wait for the answer to their goodbye.
        arrivals: where it waits for its turn to begin.
        deflate: offer permessage-deflate, without context takeover, so that one deflated frame serves all readers.
    """

    def __init__(
        self,
        closing: Closing,
        arrivals: Arrivals,
        deflate: bool,
        *,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self._closing = closing
        self._arrivals = arrivals
        self._config = config
        self._connections = cast("set[asyncio.Protocol]", server_state.connections)
        self._tasks = server_state.tasks
        self._app_state = app_state
        extensions = [_NoContext()] if deflate else []
        self._protocol = ServerProtocol(extensions=extensions, logger=_SILENT)
        self._transport: asyncio.Transport | None = None
        self._response: Response | None = None
        self._accepted = False
        self._denial: Message | None = None
        self._denial_body = b""
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
            # What a client says before it is let in waits here, and is no more than one read.
            self._early += data
            self._socket.pause_reading()
            return
        self._protocol.receive_data(data)
        for event in self._protocol.events_received():
            if isinstance(event, Request):
                self._begin(event)
        if self._response is None:  # not a request that can be read; the answer that says so is ready
            self._flush()
            self._cut()

    @property
    def _socket(self) -> asyncio.Transport:
        assert self._transport is not None, "a handshake takes place on a connection"
        return self._transport

    def _begin(self, request: Request) -> None:
        # The Python SDK sends this header empty, which the RFC does not allow but nobody is harmed by.
        offered = [value for value in request.headers.get_all("Sec-WebSocket-Protocol") if value.strip()]
        if "Sec-WebSocket-Protocol" in request.headers:
            del request.headers["Sec-WebSocket-Protocol"]
        for value in offered:
            request.headers["Sec-WebSocket-Protocol"] = value
        self._response = self._protocol.accept(request)
        if self._response.status_code != HTTPStatus.SWITCHING_PROTOCOLS:
            self._send(self._response)
            self._cut()
            return
        subprotocols = [name.strip() for value in offered for name in value.split(",") if name.strip()]
        self._events.put_nowait({"type": "websocket.connect"})
        self._arrivals.enter(partial(self._start, request, subprotocols))

    def _start(self, request: Request, subprotocols: list[str]) -> None:
        task = asyncio.get_running_loop().create_task(self._run(self._scope(request, subprotocols)), name="handshake")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _scope(self, request: Request, subprotocols: list[str]) -> Message:
        path, _, query = request.path.partition("?")
        root = self._config.root_path
        peer, here = self._socket.get_extra_info("peername"), self._socket.get_extra_info("sockname")
        return {
            "type": "websocket",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "scheme": "wss" if self._socket.get_extra_info("sslcontext") else "ws",
            "server": tuple(here[:2]) if isinstance(here, tuple) else None,
            "client": tuple(peer[:2]) if isinstance(peer, tuple) else None,
            "root_path": root,
            "path": root + unquote(path),
            "raw_path": (root + path).encode("latin-1"),
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
            if not self._socket.is_closing():  # else it is only that the client did not wait for the answer
                log.exception("handshake failed")
        finally:
            # The parser of websockets' is a generator that holds its owner: without this, the two of every handshake
            # wait for the garbage collector.
            self._protocol.parser.close()
            if self._link is None:
                self._abandon()

    def _abandon(self) -> None:
        """The application has ended: close the socket, and if it said nothing, say so."""
        if self._accepted:
            self._say(ABANDONED)
        elif self._protocol.state is CONNECTING and not self._socket.is_closing():
            self._send(self._protocol.reject(HTTPStatus.INTERNAL_SERVER_ERROR, "internal server error\n"))
        self._cut()

    async def _answer(self, message: Message) -> None:
        """ASGI's `send`, as far as a handshake needs it.

        Raises:
            ConnectionError: the client has gone.
        """
        if self._socket.is_closing():
            raise ConnectionError("the client has gone")
        match message["type"]:
            case "websocket.accept" if not self._accepted:
                self._accept(message)
            case "websocket.close" if self._accepted:
                self._say(Disconnect(message.get("code", 1000), message.get("reason") or ""))
            case "websocket.close":
                self._send(self._protocol.reject(HTTPStatus.FORBIDDEN, ""))
                self._cut()
            case "websocket.http.response.start":
                self._denial = message
            case "websocket.http.response.body" if self._denial is not None:
                self._deny(self._denial, message)
            case other:
                raise RuntimeError(f"a handshake knows no {other!r} now; what comes after accept goes through the Link")

    def _accept(self, message: Message) -> None:
        assert self._response is not None, "accepted after a request"
        for name, value in message.get("headers") or ():
            self._response.headers[name.decode("latin-1")] = value.decode("latin-1")
        if message.get("subprotocol"):
            self._response.headers["Sec-WebSocket-Protocol"] = message["subprotocol"]
        self._accepted = True
        self._send(self._response)

    def _deny(self, start: Message, message: Message) -> None:
        self._denial_body += message.get("body", b"")
        if message.get("more_body"):
            return
        headers = Headers((name.decode("latin-1"), value.decode("latin-1")) for name, value in start["headers"])
        headers["Connection"] = "close"
        status = HTTPStatus(start["status"])
        self._send(Response(status.value, status.phrase, headers, self._denial_body))
        self._cut()

    def _take(self, receiver: Receiver, rules: LinkRules) -> Link:
        """Make the socket a Link's. What the client has said already reaches it in the loop's next turn."""
        if not self._accepted or self._link is not None:
            raise RuntimeError("a socket is taken over once, after websocket.accept")
        self._connections.discard(self)
        self._link = Link(self._socket, receiver, rules, self._closing, deflates=bool(self._protocol.extensions))
        if self._socket.is_closing():
            asyncio.get_running_loop().call_soon(self._link.connection_lost, None)
        else:
            self._socket.set_protocol(self._link)
            if self._early:
                asyncio.get_running_loop().call_soon(self._catch_up, self._link)
        return self._link

    def _catch_up(self, link: Link) -> None:
        """Nothing was read since the first early bytes, so that nothing overtakes them."""
        link.resume_reading()
        link.data_received(self._early)

    def _send(self, response: Response) -> None:
        self._protocol.send_response(response)
        self._flush()

    def _flush(self) -> None:
        if not self._socket.is_closing():
            self._socket.write(b"".join(self._protocol.data_to_send()))

    def _say(self, goodbye: Disconnect) -> None:
        """The application keeps the socket no longer, having accepted it."""
        if not self._socket.is_closing():
            self._socket.write(frames.close(goodbye.code, goodbye.reason))
        self._cut()

    def _cut(self) -> None:
        if self._transport is not None:
            self._transport.close()


class _NoContext(ServerPerMessageDeflateFactory):
    """permessage-deflate in the one form in which a frame made once fits everybody; any other offer is declined."""

    def __init__(self) -> None:
        super().__init__(server_no_context_takeover=True, client_no_context_takeover=True)

    def process_request_params(
        self, params: Sequence[ExtensionParameter], accepted_extensions: Sequence[Extension]
    ) -> tuple[list[ExtensionParameter], PerMessageDeflate]:
        if any(name == "server_max_window_bits" and value != "15" for name, value in params):
            raise NegotiationError("another window would need frames of its own")
        return super().process_request_params(params, accepted_extensions)


# --- before the handshake ---------------------------------------------------------------------------------------------

_SENTENCE = (
    b'{"error":"a request has at most %d headers, and no more bytes of them than limits.handshake_bytes"}' % HEADERS
)
_HEAD_TOO_LONG: Final = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\nContent-Type: application/json\r\n"
    b"Content-Length: %d\r\nConnection: close\r\n\r\n%s" % (len(_SENTENCE), _SENTENCE)
)


class Doorway:
    """Sockets that are sending a request, in order of when they began.

    A connection is here from its first moment until it has sent one whole request, body and all; and again from the
    first byte of the next. In between, an idle HTTP connection is uvicorn's to close.

    Args:
        timeout: seconds a request may take to arrive; 0: no limit.
        header_bytes: bytes it may have before its body; 0: no limit.
    """

    def __init__(self, *, timeout: float, header_bytes: int) -> None:
        self.timeout = timeout
        self.header_bytes = header_bytes
        self._since: dict[Door, float] = {}

    def enter(self, door: Door, now: float) -> None:
        """Begin to count, unless it has begun already."""
        self._since.setdefault(door, now)
        if len(self._since) > HALF_OPEN:
            next(iter(self._since)).abort()

    def leave(self, door: Door) -> None:
        self._since.pop(door, None)

    def is_too_long(self, header_bytes: int) -> bool:
        return 0 < self.header_bytes < header_bytes

    def sweep(self, now: float) -> None:
        """Cut those that have been at it for too long by loop second `now` (slowloris)."""
        for door, since in list(self._since.items()):
            if self.timeout <= 0 or since + self.timeout > now:
                break
            door.abort()


class _HeadTooLong(Exception):
    """Stops httptools within a request whose headers are too many or too long."""


class Door(HttpToolsProtocol):
    """uvicorn's HTTP protocol behind a Doorway: one whole request in time and within bounds, or no connection."""

    def __init__(self, doorway: Doorway, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._doorway = doorway
        self._read = b""
        self._head_bytes = 0  # of a head that is not whole yet
        self._head_is_whole = False
        self._too_long = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        self._doorway.enter(self, asyncio.get_running_loop().time())

    def connection_lost(self, exc: Exception | None) -> None:
        self._doorway.leave(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._too_long:
            return
        self._head_bytes += len(data)
        self._read = data
        super().data_received(data)
        self._read = b""
        if self._head_is_whole:
            self._head_bytes = 0
        elif self._doorway.is_too_long(self._head_bytes) and not self._too_long:
            self._refuse()

    def on_message_begin(self) -> None:
        self._doorway.enter(self, asyncio.get_running_loop().time())
        self._head_is_whole = False
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._head_is_whole = True
        length = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        if len(self.headers) > HEADERS or self._doorway.is_too_long(length):
            self._too_long = True
            raise _HeadTooLong
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._doorway.leave(self)
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """uvicorn's answer when httptools gave up, be it at our request."""
        if self._too_long:
            self._refuse()
        else:
            super().send_400_response(msg)

    def handle_websocket_upgrade(self) -> None:
        # uvicorn calls us while it handles httptools' HttpParserUpgrade, whose argument is where the request ended. It
        # forgets what came behind it in the same read; a client that does not wait for the answer would go unheard.
        raised = sys.exception()
        rest = self._read[raised.args[0] :] if isinstance(raised, httptools.HttpParserUpgrade) else b""
        self._doorway.leave(self)
        super().handle_websocket_upgrade()
        del raised, self.parser  # each holds its holder: without this, they wait for the garbage collector
        handshake = self.transport.get_protocol()
        if rest and isinstance(handshake, Handshake):
            handshake.data_received(rest)

    def abort(self) -> None:
        self._doorway.leave(self)
        self.transport.abort()

    def _refuse(self) -> None:
        self._too_long = True
        self.transport.write(_HEAD_TOO_LONG)
        self.transport.close()
