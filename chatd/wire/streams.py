"""The SDK door's languages for clients that get no WebSocket through: over plain HTTP (section 11).

What the server says comes in the chunks of one answer that does not end; what the client says comes as requests of its
own, which name the connection. Of a chunk's content this changes nothing but what stands between messages.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple, Protocol

import msgspec
import orjson
from google.protobuf.message import DecodeError

from chatd.errors import Disconnect
from chatd.wire import Codec
from chatd.wire.centrifuge_json import CentrifugeJson
from chatd.wire.centrifuge_protobuf import CLASSES, CentrifugeProtobuf, joined, transcribed

# Ends an answer in chunks (RFC 9112, 7.1).
LAST_CHUNK: Final = b"0\r\n\r\n"


class StreamCodec(Codec, Protocol):
    """A language that is spoken over HTTP; its frames are chunks."""

    def goodbye(self, why: Disconnect) -> bytes:
        """Return the chunks that tell a client why this is the end, and end the answer."""

    def emulated(self, body: bytes) -> Emulated:
        """Return what a request says.

        Raises:
            ValueError: it is not of this language.
        """


class Emulated(NamedTuple):
    """What a client says by a request of its own.

    Attributes:
        node, session: as the answer to its `connect` had them.
        data: commands, as they would come through a WebSocket.
    """

    node: str
    session: str
    data: bytes


def chunk(content: bytes) -> bytes:
    """A chunk of an answer (RFC 9112, 7.1); b"" for nothing, as an empty one would be the last."""
    return b"%x\r\n%b\r\n" % (len(content), content) if content else b""


class JsonStream(CentrifugeJson):
    """A message a line."""

    __slots__ = ()

    heartbeat = chunk(b"{}\n")

    def frame(self, payloads: Sequence[bytes]) -> bytes:
        return chunk(b"".join(payload + b"\n" for payload in payloads if payload))

    def goodbye(self, why: Disconnect) -> bytes:
        return self.frame((_disconnect(why),)) + LAST_CHUNK

    def emulated(self, body: bytes) -> Emulated:
        try:
            request = msgspec.json.decode(body, type=_EmulationRequest)
        except msgspec.MsgspecError as error:
            raise ValueError(f"expected {{node, session, data}} in JSON. {error}") from None
        return Emulated(request.node, request.session, request.data.encode())


class ProtobufStream(CentrifugeProtobuf):
    """Each message behind its length."""

    __slots__ = ()

    heartbeat = chunk(b"\0")

    def frame(self, payloads: Sequence[bytes]) -> bytes:
        return chunk(joined(payloads))

    def goodbye(self, why: Disconnect) -> bytes:
        return self.frame((transcribed(_disconnect(why)),)) + LAST_CHUNK

    def emulated(self, body: bytes) -> Emulated:
        try:
            request: Any = CLASSES["EmulationRequest"].FromString(body)
        except DecodeError as error:
            raise ValueError(f"expected an EmulationRequest in Protobuf. {error}") from None
        return Emulated(request.node, request.session, request.data)


def _disconnect(why: Disconnect) -> bytes:
    return orjson.dumps({"push": {"disconnect": {"code": why.code, "reason": why.reason}}})


class _EmulationRequest(msgspec.Struct):
    """As it is in JSON, where `data` is commands joined by newlines."""

    node: str = ""
    session: str = ""
    data: str = ""


STREAM_JSON: Final[StreamCodec] = JsonStream()
STREAM_PROTOBUF: Final[StreamCodec] = ProtobufStream()
