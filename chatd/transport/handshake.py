"""One WebSocket handshake as an ASGI application sees it, judged by websockets' Sans-I/O ServerProtocol.

The door has read the request. Of many that come at once each waits here for its turn, and until then costs next to
nothing. When the application has taken the socket over, what is left is a Link; scope, task and protocol are freed.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from http import HTTPStatus
from typing import Any, Final, NamedTuple, cast
from urllib.parse import unquote

import structlog
from uvicorn.config import Config
from uvicorn.server import ServerState
from websockets.datastructures import Headers
from websockets.exceptions import InvalidHeaderValue, NegotiationError
from websockets.extensions import Extension
from websockets.extensions.permessage_deflate import PerMessageDeflate, ServerPerMessageDeflateFactory
from websockets.http11 import Request, Response
from websockets.server import ServerProtocol
from websockets.typing import ExtensionParameter

from chatd import frames
from chatd.errors import ABNORMAL, Disconnect

from .link import Closing, Link, LinkRules, Receiver

log = structlog.get_logger("chatd")

# Handshakes begun in one turn of the event loop: letting somebody in takes 0.3 ms, log-in and first room included.
ARRIVALS_A_TURN: Final = 8
# Bytes of the request's target, and of each header, beyond which servers commonly refuse (NGINX, Apache, websockets).
LINE_BYTES: Final = 8192
_OFFER: Final = b"sec-websocket-protocol"
# Headers that are lists, of which websockets takes 4 to 8 µs an element; and elements that all of them may have. An
# honest client has ten; 16 KiB of commas took 60 ms before anybody had logged in.
_LISTS: Final = frozenset({b"connection", b"upgrade", b"sec-websocket-extensions", _OFFER})
LIST_PARTS: Final = 64
# What is left when an application ends without having said anything: an unexpected condition (RFC 6455, 7.4.1).
ABANDONED: Final = Disconnect(1011, "unexpected condition")
# websockets logs whole requests for debugging, and with them tokens. This logger is nobody's child and says nothing.
_SILENT: Final = logging.Logger("chatd.handshake", logging.CRITICAL)


Message = dict[str, Any]


class Asked(NamedTuple):
    """A request for a WebSocket, as the door read it.

    Attributes:
        method, target, version: of the request line; "1.1" for HTTP/1.1.
        headers: names in small letters, and values, in order.
        client, server: the two ends, as ASGI has them.
        secure: it came over TLS.
    """

    method: str
    target: bytes
    version: str
    headers: list[tuple[bytes, bytes]]
    client: tuple[str, int] | None
    server: tuple[str, int | None] | None
    secure: bool


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
        try:
            for _ in range(min(ARRIVALS_A_TURN, len(self._waiting))):
                self._waiting.popleft()()
        finally:  # a bug in one must not leave all others waiting
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

    # Whole nodes' clients wait here at once, and the garbage collector looks at all that one of them is made of.
    __slots__ = (
        "_accepted", "_answered", "_app_state", "_arrivals", "_closing", "_config", "_connections", "_deflates",
        "_denial", "_denial_body", "_early", "_end", "_gone", "_judge", "_link", "_response", "_tasks", "_told",
        "_transport",
    )  # fmt: skip

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
        self._judge = _JUDGES[deflate]
        self._transport: asyncio.Transport | None = None
        self._response: Response | None = None
        self._deflates = False
        self._answered = False
        self._accepted = False
        self._denial: Message | None = None
        self._denial_body = b""
        self._early = b""
        self._link: Link | None = None
        self._told = self._gone = False
        self._end: asyncio.Event | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.discard(self)
        self._gone = True
        if self._end is not None:
            self._end.set()

    def shutdown(self) -> None:
        """uvicorn's word that the server ends."""
        self._cut()

    def data_received(self, data: bytes) -> None:
        """What a client says before it is let in waits here, and is no more than two reads."""
        self._early += data
        self._socket.pause_reading()

    @property
    def _socket(self) -> asyncio.Transport:
        assert self._transport is not None, "a handshake takes place on a connection"
        return self._transport

    def asked(self, asked: Asked, early: bytes) -> None:
        """Begin when it is our turn; `early` is what the client said behind its request."""
        if early:
            self.data_received(early)
        self._arrivals.enter(partial(self._begin, asked))

    def _begin(self, asked: Asked) -> None:
        if self._socket.is_closing():  # nobody waits for an answer any more
            return
        asked = _tidied(asked)
        self._response = self._judged(asked)
        if self._response.status_code != HTTPStatus.SWITCHING_PROTOCOLS:
            self._send(self._response)
            self._cut()
            return
        self._deflates = bool(self._judge.extensions)  # until it judges the next
        task = asyncio.get_running_loop().create_task(self._run(self._scope(asked)), name="handshake")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _judged(self, asked: Asked) -> Response:
        if len(asked.target) > LINE_BYTES:
            return self._judge.reject(HTTPStatus.REQUEST_URI_TOO_LONG, f"a target has at most {LINE_BYTES} bytes\n")
        if any(len(name) + len(value) > LINE_BYTES for name, value in asked.headers):
            too_long = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
            return self._judge.reject(too_long, f"a header has at most {LINE_BYTES} bytes\n")
        if sum(value.count(b",") + value.count(b";") for name, value in asked.headers if name in _LISTS) > LIST_PARTS:
            too_long = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
            return self._judge.reject(too_long, f"lists in headers have at most {LIST_PARTS} parts\n")
        try:
            return self._judge.accept(_request(asked))
        except (ValueError, InvalidHeaderValue) as error:
            return self._judge.reject(HTTPStatus.BAD_REQUEST, f"{error}\n")
        finally:
            self._judge.handshake_exc = None  # by its traceback it holds whoever was refused

    def _scope(self, asked: Asked) -> Message:
        path, _, query = asked.target.partition(b"?")
        root = self._config.root_path
        return {
            "type": "websocket",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "scheme": "wss" if asked.secure else "ws",
            "server": asked.server,
            "client": asked.client,
            "root_path": root,
            "path": root + unquote(path.decode("ascii")),
            "raw_path": root.encode("latin-1") + path,
            "query_string": query,
            "headers": asked.headers,
            "subprotocols": _subprotocols(asked),
            "state": self._app_state.copy(),
            "extensions": {"websocket.http.response": {}, "chatd.takeover": {"take": self._take}},
        }

    async def _receive(self) -> Message:
        """ASGI's `receive`: nothing but the beginning and the end, for what is said between goes to the Link."""
        if not self._told:
            self._told = True
            return {"type": "websocket.connect"}
        if not self._gone:
            self._end = asyncio.Event()
            await self._end.wait()
        return {"type": "websocket.disconnect", "code": ABNORMAL.code}

    async def _run(self, scope: Message) -> None:
        app = cast("Callable[..., Awaitable[None]]", self._config.loaded_app)
        try:
            await app(scope, self._receive, self._answer)
        except Exception:
            if not self._socket.is_closing():  # else it is only that the client did not wait for the answer
                log.exception("handshake failed")
        finally:
            if self._link is None:
                self._abandon()

    def _abandon(self) -> None:
        """The application has ended: close the socket, and if it said nothing, say so."""
        if self._accepted:
            self._say(ABANDONED)
        elif not self._answered:
            self._send(self._judge.reject(HTTPStatus.INTERNAL_SERVER_ERROR, "internal server error\n"))
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
                self._send(self._judge.reject(HTTPStatus.FORBIDDEN, ""))
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
        self._link = Link(self._socket, receiver, rules, self._closing, deflates=self._deflates)
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
        self._answered = True
        if not self._socket.is_closing():
            self._socket.write(response.serialize())

    def _say(self, goodbye: Disconnect) -> None:
        """The application keeps the socket no longer, having accepted it."""
        if not self._socket.is_closing():
            self._socket.write(frames.close(goodbye.code, goodbye.reason))
        self._cut()

    def _cut(self) -> None:
        if self._transport is not None:
            self._transport.close()


def _tidied(asked: Asked) -> Asked:
    """Without white space around values (RFC 9110, 5.5), and without an empty offer of subprotocols.

    The Python SDK sends that, which RFC 6455 does not allow but nobody is harmed by.
    """
    headers = [(name, value.strip(b" \t")) for name, value in asked.headers]
    return asked._replace(headers=[header for header in headers if header != (_OFFER, b"")])


def _request(asked: Asked) -> Request:
    """What was asked, as websockets has requests.

    Raises:
        ValueError, InvalidHeaderValue: it can be none for a WebSocket.
    """
    headers = Headers()
    for name, value in asked.headers:
        headers[name.decode("ascii")] = value.decode("latin-1")
    if "Transfer-Encoding" in headers or not set(headers.get_all("Content-Length")) <= {"0"}:
        raise ValueError("a handshake has no body")
    return Request(asked.target.decode("ascii"), headers, asked.method, f"HTTP/{asked.version}")


def _subprotocols(asked: Asked) -> list[str]:
    offers = b",".join(value for name, value in asked.headers if name == _OFFER)
    return [name for each in offers.decode("latin-1").split(",") if (name := each.strip())]


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


# Of a ServerProtocol we use what it says of a request, which it finds in nothing but the request: so one does for all.
_JUDGES: Final = {
    deflate: ServerProtocol(extensions=[_NoContext()] if deflate else [], logger=_SILENT) for deflate in (False, True)
}
