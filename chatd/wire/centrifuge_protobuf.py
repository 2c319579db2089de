"""The SDK door's other language: the Centrifuge client protocol, version 2, in Protocol Buffers.

It says what `centrifuge_json` says, and what the store keeps, transcribed field by field: what a command or a result is
made of stands there alone. An author's data is JSON here too, since all doors share rooms; it passes through as bytes,
both ways. A message to a room is transcribed once for all who read it in this language.

Commands come one behind the other in a message, each behind its length, and replies leave so in one binary frame
(section 1). The field numbers are in `centrifuge_schema`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from itertools import islice
from operator import attrgetter
from typing import Any, Final

import msgspec
from google.protobuf.message import DecodeError, Message

from chatd import frames
from chatd.errors import BAD_COMMAND, Reject
from chatd.model import Door, Event, Kind, Pong, Position, Request, Result
from chatd.wire import Codec
from chatd.wire.centrifuge_json import SDK_JSON, Envelope
from chatd.wire.centrifuge_schema import SCALARS, SCHEMA, fields, message_classes
from chatd.wire.payload import whole_characters

# What stands for {} in JSON: a message without fields, of length 0.
_EMPTY: Final = b"\0"
# No length that fits into a frame has more bytes (7 bits in each).
_LENGTH_BYTES: Final = 5
# Most commands of a message. Here the smallest are a byte each, and all of them are taken apart in one turn; whoever
# comes back to every room that one connection may be in sends a few hundred.
MOST_COMMANDS: Final = 1024


class CentrifugeProtobuf:
    """See the head of this file.

    Args:
        deflate: for clients that negotiated permessage-deflate.
    """

    __slots__ = ("_deflate",)

    def __init__(self, *, deflate: bool = False) -> None:
        self._deflate = deflate

    door = Door.SDK
    heartbeat = frames.binary(_EMPTY)

    def decode(self, message: bytes) -> list[Request]:
        """Return the commands of one message.

        Raises:
            Disconnect 3501: one of them is cut short, has a field that may not be, or asks for nothing we know.
        """
        if message == _EMPTY:  # what a quiet connection says, and nothing else
            return [Request(0, Pong())]
        try:
            requests = [_envelope(command).request() for command in islice(_commands(message), MOST_COMMANDS + 1)]
        except (DecodeError, UnicodeDecodeError, msgspec.ValidationError) as error:
            raise BAD_COMMAND.because(f"bad request: expected commands in Protobuf. {error}") from None
        if not 0 < len(requests) <= MOST_COMMANDS:
            raise BAD_COMMAND.because(f"bad request: expected 1 to {MOST_COMMANDS} commands in Protobuf")
        return requests

    def reply(self, id: int, result: Result) -> bytes:
        return transcribed(SDK_JSON.reply(id, result))

    def reject(self, id: int, why: Reject) -> bytes:
        """As in JSON, but for `retry_after_ms`, which this protocol's Error has no field for."""
        return transcribed(SDK_JSON.reject(id, why))

    def event(self, room: str, event: Event) -> bytes:
        """As in JSON; b"" for a body that is not what it should be, which the store may hold by mistake."""
        body, place = _EVENTS[event.kind]
        reply: Any = CLASSES["Reply"]()
        reply.push.channel = room
        try:
            _fill(place(reply), body.decode(event.body))
        except msgspec.MsgspecError:
            return b""
        return bytes(reply.SerializeToString())

    def unsubscribed(self, room: str, code: int, reason: str) -> bytes:
        return transcribed(SDK_JSON.unsubscribed(room, code, reason))

    def subscribed(self, room: str, position: Position | None) -> bytes:
        return transcribed(SDK_JSON.subscribed(room, position))

    def frame(self, payloads: Sequence[bytes]) -> bytes:
        """All of them in one binary frame."""
        message = joined(payloads)
        return frames.binary(message, deflate=self._deflate) if message else b""

    def author(self, event: Event) -> None:
        """Nobody, as in JSON."""


# --- lengths (section 1) ----------------------------------------------------------------------------------------------


def joined(payloads: Sequence[bytes]) -> bytes:
    """Each payload behind its length, the empty ones left out."""
    return b"".join(_length(payload) + payload for payload in payloads if payload)


def _length(payload: bytes) -> bytes:
    """The length of `payload` as a varint: 7 bits a byte, the lowest first; all but the last have the eighth bit."""
    left, varint = len(payload), bytearray()
    while left > 0x7F:
        varint.append(left & 0x7F | 0x80)
        left >>= 7
    varint.append(left)
    return bytes(varint)


def _commands(message: bytes) -> Iterator[Message]:
    """The commands of a message, in order.

    Raises:
        DecodeError: it ends amid one, or one is none.
    """
    at = 0
    while at < len(message):
        start, length = _length_at(message, at)
        at = start + length
        if at > len(message):
            raise DecodeError(f"A command of {length} bytes was announced, {len(message) - start} came.")
        yield CLASSES["Command"].FromString(message[start:at])


def _length_at(message: bytes, at: int) -> tuple[int, int]:
    """Where a command begins whose length is at `at`, and that length."""
    length = 0
    for place, byte in enumerate(message[at : at + _LENGTH_BYTES]):
        length |= (byte & 0x7F) << 7 * place
        if byte <= 0x7F:
            return at + place + 1, length
    raise DecodeError("The length of a command has no end.")


# --- commands, from messages of Protobuf to what JSON has -------------------------------------------------------------


def _envelope(command: Message) -> Envelope:
    return msgspec.convert(_members(command), Envelope)


def _members(message: Message) -> dict[str, Any]:
    """The fields that are there; those without a message of their own are if they are not zero."""
    return {field.name: _member(value) for field, value in message.ListFields()}


def _member(value: Any) -> Any:
    match value:
        case bytes():
            return msgspec.Raw(whole_characters(value))
        case Message():
            return _members(value)
        case Mapping():
            return {key: _members(each) for key, each in value.items()}
    return value


# --- replies, from JSON to messages of Protobuf -----------------------------------------------------------------------


def transcribed(payload: bytes) -> bytes:
    """A reply in JSON as one in Protobuf; b"" for b""."""
    reply = CLASSES["Reply"]()
    if payload:
        _fill(reply, _REPLY.decode(payload))
    return bytes(reply.SerializeToString())


def _fill(message: Any, struct: msgspec.Struct) -> None:
    """Set what there is, in its place: what a constructor is given it copies, which takes three times as long."""
    for name in struct.__struct_fields__:
        if value := getattr(struct, name):
            _FILL[type(value)](message, name, value)


def _fill_bytes(message: Any, name: str, value: msgspec.Raw) -> None:
    setattr(message, name, bytes(value))


def _fill_message(message: Any, name: str, value: msgspec.Struct) -> None:
    inner = getattr(message, name)
    inner.SetInParent()  # it is there, though it may be empty
    _fill(inner, value)


def _fill_list(message: Any, name: str, value: list[msgspec.Struct]) -> None:
    for each in value:
        _fill(getattr(message, name).add(), each)


def _fill_map(message: Any, name: str, value: dict[str, Any]) -> None:
    entries = getattr(message, name)
    for key, each in value.items():
        if isinstance(each, str):
            entries[key] = each
        else:
            _fill(entries[key], each)


@cache
def _struct(name: str) -> type[msgspec.Struct]:
    """Into what a message of SCHEMA is read from JSON."""
    return msgspec.defstruct(name, [_typed(*field) for field in fields(name)], gc=False)


def _typed(many: str, kind: str, name: str, number: int) -> tuple[str, Any, Any]:
    """A field's name, type and default: zero, but None for a message that is not there."""
    if kind in SCHEMA:
        one: Any = _struct(kind)
    else:
        one = msgspec.Raw if kind == "bytes" else SCALARS[kind]
    if many:
        return (name, list[one], []) if many == "list" else (name, dict[str, one], {})
    return (name, one | None, None) if kind in SCHEMA else (name, one, one())


CLASSES: Final = message_classes()
# How a member is set, by its type.
_FILL: Final[Mapping[type, Callable[[Any, str, Any], None]]] = {
    **dict.fromkeys(SCALARS.values(), setattr),
    msgspec.Raw: _fill_bytes,
    list: _fill_list,
    dict: _fill_map,
    **{_struct(name): _fill_message for name in SCHEMA},
}
_PUBLICATION: Final = msgspec.json.Decoder(_struct("Publication"))
_INFO: Final = msgspec.json.Decoder(_struct("ClientInfo"))
# How an event's body is read, and where in a reply it goes.
_EVENTS: Final[Mapping[Kind, tuple[msgspec.json.Decoder[msgspec.Struct], Callable[[Any], Any]]]] = {
    Kind.PUBLICATION: (_PUBLICATION, attrgetter("push.pub")),
    Kind.SIGNAL: (_PUBLICATION, attrgetter("push.pub")),
    Kind.JOIN: (_INFO, attrgetter("push.join.info")),
    Kind.LEAVE: (_INFO, attrgetter("push.leave.info")),
}
_REPLY: Final = msgspec.json.Decoder(_struct("Reply"))

SDK_PROTOBUF: Final[Codec] = CentrifugeProtobuf()
SDK_PROTOBUF_DEFLATED: Final[Codec] = CentrifugeProtobuf(deflate=True)
