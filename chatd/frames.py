"""WebSocket frames as bytes, both ways (RFC 6455, 5.2; permessage-deflate: RFC 7692). Pure.

Going out, a frame is made once and written to any number of sockets. Coming in, a Parser turns whatever a read brought
into messages, and keeps nothing while a connection is quiet. We parse ourselves because websockets' Sans-I/O
ServerProtocol holds 1.9 KB for every idle connection (tracemalloc, websockets 17.4); it still judges the handshake.

What may wait, and what a message means, is not known here. The one thing from outside is websockets' masking in C.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from struct import pack
from typing import Final, NamedTuple, TypeAlias

from websockets.utils import apply_mask as slow_mask

from .errors import INVALID_UTF8, MESSAGE_TOO_BIG, PROTOCOL_ERROR

try:
    from websockets.speedups import apply_mask
except ImportError:  # websockets was built without its C part
    apply_mask = slow_mask

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
FIN, RSV1, RESERVED = 0x80, 0x40, 0x30
MASKED: Final = 0x80
# A control frame holds no more (RFC 6455, 5.5).
CONTROL_BYTES: Final = 125
# A message in more fragments than this is an attack on the bookkeeping, not a message.
FRAGMENTS: Final = 128
# Below this, deflate without context makes a frame longer as often as shorter.
WORTH_DEFLATING: Final = 256
# What RFC 7692, 7.2.1 takes off the end of a deflated message, and 7.2.2 puts back.
TAIL: Final = b"\x00\x00\xff\xff"
# Codes that a peer may send in a close frame (RFC 6455, 7.4 and the IANA registry).
_SENT_CODES: Final = frozenset({1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014})


# --- going out --------------------------------------------------------------------------------------------------------


def text(payload: bytes, *, deflate: bool = False) -> bytes:
    """Return `payload` as one whole text frame, ready for any number of sockets.

    Args:
        payload: UTF-8, any length; trusted, as it comes from our codecs.
        deflate: for sockets that negotiated permessage-deflate; compressed where that pays, without context takeover.
    """
    if deflate and len(payload) >= WORTH_DEFLATING:
        squeezer = zlib.compressobj(wbits=-15)
        squeezed = squeezer.compress(payload) + squeezer.flush(zlib.Z_SYNC_FLUSH)
        return _frame(FIN | RSV1 | TEXT, squeezed.removesuffix(TAIL))
    return _frame(FIN | TEXT, payload)


def ping(payload: bytes = b"") -> bytes:
    return _frame(FIN | PING, payload)


def pong(payload: bytes = b"") -> bytes:
    return _frame(FIN | PONG, payload)


def close(code: int, reason: str = "") -> bytes:
    """A close frame; the reason is cut to what fits. Codes that are never sent (1005, 1006) make an empty one."""
    if code in (1005, 1006):
        return _frame(FIN | CLOSE, b"")
    return _frame(FIN | CLOSE, pack("!H", code) + reason.encode()[: CONTROL_BYTES - 2])


def _frame(first: int, payload: bytes) -> bytes:
    """2, 4 or 10 header bytes (below 126 B, below 64 KiB, above), then the payload; unmasked, as a server must."""
    size = len(payload)
    if size < 126:
        return bytes((first, size)) + payload
    if size < 1 << 16:
        return pack("!BBH", first, 126, size) + payload
    return pack("!BBQ", first, 127, size) + payload


# --- coming in --------------------------------------------------------------------------------------------------------


class Message(NamedTuple):
    """A whole text or binary message, unmasked, joined and inflated."""

    data: bytes
    text: bool


class Ping(NamedTuple):
    payload: bytes


class Pong(NamedTuple):
    payload: bytes


class Close(NamedTuple):
    """The peer's goodbye; code 1005: it gave none."""

    code: int
    reason: str


Incoming: TypeAlias = Message | Ping | Pong | Close


class Parser:
    """Frames of one client.

    Args:
        max_message: most bytes of a message, also after joining and inflating; 0: no limit.
        inflate: permessage-deflate was negotiated.
    """

    __slots__ = ("_fragments", "_inflate", "_kind", "_rest", "_size", "max_message")

    def __init__(self, max_message: int, *, inflate: bool = False) -> None:
        self.max_message = max_message or (1 << 62)
        self._inflate = inflate
        self._rest = b""
        self._kind = 0  # first byte of the message whose fragments are coming; 0: none
        self._fragments: list[bytes] | None = None
        self._size = 0

    def feed(self, data: bytes) -> Iterator[Incoming]:
        """Yield what `data` completes; take it all, for the rest of `data` is kept only then.

        Raises:
            Disconnect 1002: not as RFC 6455 has it. 1007: text that is not UTF-8. 1009: longer than may be.
        """
        if self._rest:
            data = self._rest + data
        start, size = 0, len(data)
        while size - start >= 2:
            first, second = data[start], data[start + 1]
            head, length = self._head(data, start, second)
            self._judge(first, second, length)
            end = start + head + length
            if end > size or head == 0:
                break
            payload = apply_mask(data[start + head : end], data[start + head - 4 : start + head])
            start = end
            event = self._control(first, payload) if first & 0x08 else self._data(first, payload)
            if event is not None:
                yield event
        self._rest = data[start:] if start < size else b""

    @staticmethod
    def _head(data: bytes, start: int, second: int) -> tuple[int, int]:
        """Bytes of header, mask included, and of payload; (0, 0) while the length itself is not there yet."""
        length = second & 0x7F
        if length < 126:
            return 6, length
        width = 2 if length == 126 else 8
        if len(data) - start < 2 + width:
            return 0, 0
        return 6 + width, int.from_bytes(data[start + 2 : start + 2 + width], "big")

    def _judge(self, first: int, second: int, length: int) -> None:
        """Refuse a frame by its header, before a byte of its payload is waited for."""
        opcode = first & 0x0F
        if not second & MASKED:
            raise PROTOCOL_ERROR.because("a client must mask its frames")
        if first & RESERVED or (first & RSV1 and not (self._inflate and opcode in (TEXT, BINARY))):
            raise PROTOCOL_ERROR.because("reserved bits are set")
        if opcode & 0x08:
            if opcode > PONG or not first & FIN or length > CONTROL_BYTES:
                raise PROTOCOL_ERROR.because("not a control frame that exists")
        elif opcode > BINARY or (opcode == CONTINUATION) != (self._fragments is not None):
            raise PROTOCOL_ERROR.because("not a data frame that may come now")
        elif self._size + length > self.max_message:
            raise MESSAGE_TOO_BIG.because(f"a message has at most {self.max_message} bytes")

    def _control(self, first: int, payload: bytes) -> Incoming:
        opcode = first & 0x0F
        if opcode == PING:
            return Ping(payload)
        if opcode == PONG:
            return Pong(payload)
        return _goodbye(payload)

    def _data(self, first: int, payload: bytes) -> Message | None:
        if self._fragments is None and first & FIN:
            return self._message(first, payload)
        if self._fragments is None:
            self._kind, self._fragments = first, []
        self._fragments.append(payload)
        self._size += len(payload)
        if len(self._fragments) > FRAGMENTS:
            raise MESSAGE_TOO_BIG.because(f"a message has at most {FRAGMENTS} fragments")
        if not first & FIN:
            return None
        whole, self._fragments, self._size = b"".join(self._fragments), None, 0
        return self._message(self._kind, whole)

    def _message(self, first: int, payload: bytes) -> Message:
        if first & RSV1:
            payload = self._inflated(payload)
        if first & 0x0F == BINARY:
            return Message(payload, text=False)
        try:
            payload.decode()
        except UnicodeDecodeError:
            raise INVALID_UTF8 from None
        return Message(payload, text=True)

    def _inflated(self, payload: bytes) -> bytes:
        """Inflate no more than one message may have, however much there is."""
        inflater = zlib.decompressobj(wbits=-15)
        try:
            whole = inflater.decompress(payload + TAIL, min(self.max_message + 1, 1 << 31))
        except zlib.error:
            raise PROTOCOL_ERROR.because("what should inflate does not") from None
        if len(whole) > self.max_message or inflater.unconsumed_tail:
            raise MESSAGE_TOO_BIG.because(f"a message has at most {self.max_message} bytes")
        return whole


def _goodbye(payload: bytes) -> Close:
    if not payload:
        return Close(1005, "")
    code = int.from_bytes(payload[:2], "big")
    if len(payload) < 2 or not (code in _SENT_CODES or 3000 <= code < 5000):
        raise PROTOCOL_ERROR.because("a close code that may not be sent")
    try:
        return Close(code, payload[2:].decode())
    except UnicodeDecodeError:
        raise INVALID_UTF8 from None
