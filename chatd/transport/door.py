"""uvicorn's HTTP protocol, with bounds on what may happen before a request is complete."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import Any, Final, cast

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from chatd.errors import Disconnect

from .handshake import Asked, Handshake
from .link import Closing, LinkRules, Receiver
from .stream import Stream

# Sockets that have not sent a whole request: half-open ones past this are cut, oldest first.
HALF_OPEN: Final = 4096
# Headers in a request. Browsers send about 15, proxies add a few; Apache's bound is 100.
HEADERS: Final = 64
# Requests that wait for the answer to one before them. Browsers send none; of 18 bytes each, a read brings 14,000.
PIPELINED: Final = 16
# For the client to take what has been answered, be it the page on a telephone at 1 KB/s. NGINX: send_timeout, 60 s.
UNREAD_S: Final = 60.0


_SENTENCE = (
    b'{"error":"a request has at most %d headers, and no more bytes of them than limits.handshake_bytes"}' % HEADERS
)
_HEAD_TOO_LONG: Final = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\nContent-Type: application/json\r\n"
    b"Content-Length: %d\r\nConnection: close\r\n\r\n%s" % (len(_SENTENCE), _SENTENCE)
)


class Doorway:
    """Sockets that are sending a request, and those that do not read the answer, in order of when they began.

    A connection is here from its first moment until it has sent one whole request, body and all; and again from the
    first byte of the next. In between, an idle HTTP connection is uvicorn's to close, but not before it has read.

    Args:
        timeout: seconds a request may take to arrive; 0: no limit.
        header_bytes: bytes it may have before its body; 0: no limit.
    """

    def __init__(self, *, timeout: float, header_bytes: int) -> None:
        self.timeout = timeout
        self.header_bytes = header_bytes
        self._since: dict[Door, float] = {}
        self._unread: dict[Door, float] = {}

    def enter(self, door: Door, now: float) -> None:
        """Begin to count, unless it has begun already."""
        _begin(self._since, door, now)

    def wait(self, door: Door, now: float) -> None:
        """Begin to count how long an answer lies there that the client does not read."""
        _begin(self._unread, door, now)

    def has_read(self, door: Door) -> None:
        self._unread.pop(door, None)

    def __contains__(self, door: object) -> bool:
        return door in self._since

    def __len__(self) -> int:
        return len(self._since)

    def leave(self, door: Door) -> None:
        self._since.pop(door, None)

    def forget(self, door: Door) -> None:
        """It is gone, or speaks HTTP no more."""
        self.leave(door)
        self.has_read(door)

    def is_too_long(self, header_bytes: int) -> bool:
        return 0 < self.header_bytes < header_bytes

    def sweep(self, now: float) -> None:
        """Cut those that have been at it for too long by loop second `now` (slowloris)."""
        for began, timeout in ((self._since, self.timeout), (self._unread, UNREAD_S)):
            for door, since in list(began.items()):
                if timeout <= 0 or since + timeout > now:
                    break
                door.abort()


def _begin(since: dict[Door, float], door: Door, now: float) -> None:
    """Note when it began; of more than HALF_OPEN the oldest is cut."""
    since.setdefault(door, now)
    if len(since) > HALF_OPEN:
        next(iter(since)).abort()


class _HeadTooLong(Exception):
    """Stops httptools within a request whose headers are too many or too long."""


class _TooMany(Exception):
    """Stops httptools at a request before which too many wait for their answers."""


class Door(HttpToolsProtocol):
    """uvicorn's HTTP protocol behind a Doorway: one whole request in time and within bounds, or no connection.

    An application that has begun an answer in chunks may then call
    `scope["extensions"]["chatd.takeover"]["take"](receiver, rules, farewell)`, which makes the rest of it a Stream's.
    """

    def __init__(self, doorway: Doorway, closing: Closing, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._doorway = doorway
        self._closing = closing
        self._read = b""
        self._head_bytes = 0  # of a head that is not whole yet
        self._head_is_whole = False
        self._too_long = False
        self._answering: RequestResponseCycle | None = (
            None  # of the request whose turn it is; uvicorn's is the last one's
        )

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        # So that we hear of all that the client leaves with us; behind TLS, of what exceeds 64 KiB. With 0 a transport
        # of TLS, which pauses at the mark and not above it, would never resume.
        transport.set_write_buffer_limits(1, 0)
        self._doorway.enter(self, asyncio.get_running_loop().time())

    def connection_lost(self, exc: Exception | None) -> None:
        self._doorway.forget(self)
        self._give_up()
        super().connection_lost(exc)
        self._let_go()

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
        self.scope["extensions"] = {"chatd.takeover": {"take": self._take}}

    def on_headers_complete(self) -> None:
        self._head_is_whole = True
        length = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        if len(self.headers) > HEADERS or self._doorway.is_too_long(length):
            self._too_long = True
            raise _HeadTooLong
        if len(self.pipeline) >= PIPELINED:
            self.abort()
            raise _TooMany
        super().on_headers_complete()
        if not self.pipeline:
            self._answering = self.cycle

    def on_response_complete(self) -> None:
        if self.pipeline:
            self._answering = self.pipeline[-1][0]
        super().on_response_complete()

    def on_message_complete(self) -> None:
        self._doorway.leave(self)
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """uvicorn's answer when httptools gave up, be it at our request."""
        if self._too_long:
            self._refuse()
        elif not self.transport.is_closing():
            super().send_400_response(msg)

    def pause_writing(self) -> None:
        self._doorway.wait(self, asyncio.get_running_loop().time())
        super().pause_writing()

    def resume_writing(self) -> None:
        self._doorway.has_read(self)
        super().resume_writing()

    def handle_websocket_upgrade(self) -> None:
        """Leave the connection to a Handshake, which is given what httptools has read, not the bytes to read again."""
        # uvicorn calls us while it handles httptools' HttpParserUpgrade, whose argument is where the request ended. A
        # client that does not wait for the answer has said something behind it.
        raised = sys.exception()
        early = self._read[raised.args[0] :] if isinstance(raised, httptools.HttpParserUpgrade) else b""
        self._doorway.forget(self)
        self.connections.discard(self)
        make = cast("Callable[..., Handshake]", self.ws_protocol_class)
        handshake = make(config=self.config, server_state=self.server_state, app_state=self.app_state)
        handshake.connection_made(self.transport)
        self.transport.set_protocol(handshake)
        handshake.asked(
            Asked(
                self.scope["method"],
                self.url,
                self.scope["http_version"],
                self.headers,
                self.client,
                self.server,
                secure=self.scheme == "https",
            ),
            early,
        )
        del raised
        self._let_go()

    def _take(self, receiver: Receiver, rules: LinkRules, farewell: Callable[[Disconnect], bytes]) -> Stream:
        """Make the rest of the answer a Stream's.

        Raises:
            ConnectionError: the client has gone; uvicorn, which was given the beginning, says nothing of it.
        """
        cycle = self._answering
        if cycle is not None and cycle.disconnected:
            raise ConnectionError("the client has gone")
        if cycle is None or not cycle.chunked_encoding or cycle.response_complete:
            raise RuntimeError("an answer is taken over once, after http.response.start and in chunks")
        cycle.disconnected = True  # for uvicorn it is as if the client had gone
        self._answering = None
        self._doorway.forget(self)
        self.connections.discard(self)
        self.pipeline.clear()  # who has asked for this gets nothing after it
        stream = Stream(self.transport, receiver, rules, self._closing, farewell)
        if self.transport.is_closing():
            asyncio.get_running_loop().call_soon(stream.connection_lost, None)
        else:
            self.transport.set_protocol(stream)
            self.transport.resume_reading()  # or nobody would notice that the client hangs up
        self._let_go()
        return stream

    def _let_go(self) -> None:
        """Of what holds us: without this, we wait for the garbage collector."""
        self.parser = None  # type: ignore[assignment]  # as uvicorn does
        if self.scope is not None:
            self.scope.pop("extensions", None)

    def abort(self) -> None:
        self._doorway.forget(self)
        self._give_up()
        self.transport.abort()

    def _give_up(self) -> None:
        """The client has gone, of which uvicorn tells only the last request, be it still in the queue."""
        if self._answering is not None:
            self._answering.disconnected = True

    def _refuse(self) -> None:
        self._too_long = True
        self.transport.write(_HEAD_TOO_LONG)
        self.transport.close()
