"""What a connection is after its handshake: a Link, which feeds a Receiver and writes prepared bytes.

A Link has no task and no timer. What has a deadline is looked at by a sweep, see Closing.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Protocol

import structlog

from chatd import frames
from chatd.errors import ABNORMAL, INTERNAL_ERROR, POLICY_VIOLATION, SLOW, Disconnect
from chatd.outlets import Outlet

log = structlog.get_logger("chatd")

# How long a peer may take to answer our close frame before the socket is cut (RFC 6455, 7.1.1 asks for patience).
CLOSING_S: Final = 5.0
# Control frames are counted over this long.
CONTROL_WINDOW_S: Final = 10.0


class Receiver(Protocol):
    """Who hears what a client says."""

    def received(self, message: bytes) -> None: ...

    def heard(self) -> None:
        """A sign of life that is no message: a ping or pong."""

    def lost(self, goodbye: Disconnect) -> None:
        """Nothing more will be heard, and nothing may be said; called exactly once, never from within `close`.

        Args:
            goodbye: the first that was said, by whomever; ABNORMAL: none was.
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
    costs a sixth less. What it does not take waits in the transport, and everything after it behind it.

    Attributes:
        congested: more than half of what may wait is waiting; or the end has begun, when nothing may be written.
        deflates: permessage-deflate was negotiated.
        outlet: see session.Link.
    """

    __slots__ = (
        "_closing", "_control", "_goodbye", "_parser", "_receiver", "_rules", "_since", "_transport", "congested",
        "deflates", "outlet",
    )  # fmt: skip

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
        self.outlet = _outlet(transport)
        if not transport.is_closing():
            # Where there is no bound, the loop's own: the Door has left one of a single byte.
            transport.set_write_buffer_limits(high=rules.outbox // 2 or None)

    # --- what the session does ----------------------------------------------------------------------------------------

    def buffered(self) -> int:
        return 0 if self._transport.is_closing() else self._transport.get_write_buffer_size()

    def write(self, frame: bytes) -> None:
        """Hand over a frame. It knows nothing of goodbyes: who writes must look at `congested` first."""
        if self.outlet is None or self._goodbye is not None or self.buffered():
            self.write_rest(frame, 0)
            return
        try:
            self.outlet.open()
            sent = self.outlet.send(frame)
        except OSError:
            sent = 0
        if sent < len(frame):
            self.write_rest(frame, sent)

    def write_rest(self, frame: bytes, sent: int) -> None:
        """Have wait what the kernel did not take of `frame`, and all that comes later behind it."""
        self._shut()
        with suppress(RuntimeError):  # uvloop: the socket was reset, and we are told of it only after this turn
            self._transport.write(frame[sent:])

    def _shut(self) -> None:
        if self.outlet is not None:
            self.outlet.shut()

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

    def resume_writing(self) -> None:
        self.congested = self._goodbye is not None

    def eof_received(self) -> bool:
        return False  # half-closed TCP is of no use to a WebSocket

    def connection_lost(self, exc: Exception | None) -> None:
        self._closing.discard(self)
        self._goodbye = self._goodbye or ABNORMAL
        self.congested = True
        self._shut()
        self._part()

    # --- the end ------------------------------------------------------------------------------------------------------

    def _begin_end(self, goodbye: Disconnect, frame: bytes) -> None:
        """Write the last frame; from here on the peer has CLOSING_S."""
        self._goodbye = goodbye
        self.congested = True
        self._shut()
        if not self._transport.is_closing():
            self.write(frame)
            self._closing.add(self, asyncio.get_running_loop().time())

    def _answer_close(self, close: frames.Close) -> None:
        """The peer says goodbye, or answers ours: either way it is ours to end TCP (RFC 6455, 7.1.1)."""
        if self._goodbye is None:
            self._begin_end(Disconnect(close.code, close.reason), frames.close(close.code))
        self._parser = None
        self._transport.close()
        self._part()

    def _fail(self, goodbye: Disconnect) -> None:
        """End a connection that cannot be listened to any longer.

        We say that nothing follows, but go on reading what we throw away: closing at once with bytes unread would make
        the kernel reset the connection, and the peer lose the goodbye. TLS cannot say it: there the sweep ends this.
        """
        self.close(goodbye)
        self._parser = None
        if self._transport.can_write_eof() and not self._transport.is_closing():
            self._transport.write_eof()
        self._part()

    def _part(self) -> None:
        receiver, self._receiver = self._receiver, None
        if receiver is not None:
            receiver.lost(self._goodbye or ABNORMAL)


def _outlet(transport: asyncio.Transport) -> Outlet | None:
    """None where what is written is not what is sent, or nothing is sent any more: others may have the descriptor."""
    if transport.get_extra_info("sslcontext") is not None or transport.is_closing():
        return None
    return Outlet(transport.get_extra_info("socket").fileno())
