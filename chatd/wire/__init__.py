"""What clients say and hear, as bytes: one codec a file.

A codec is one language. It turns a message into commands, and results, refusals and events into payloads; `plain` is
the plain door's, `centrifuge_json` and `centrifuge_protobuf` are the SDK door's, the latter with its fields in
`centrifuge_schema`, and `streams` has both over plain HTTP. Beside them `publication` makes the JSON that the store
keeps, and `payload` judges the JSON that clients bring. Nothing here waits, looks at a clock or knows a socket.

Here is only what the codecs have in common, so that a hub or a session can be imported without their libraries.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from chatd.errors import Reject
from chatd.model import Door, Event, Position, Request, Result


class Codec(Protocol):
    """One client language. Each is a single object without state, which may be a key of a dict.

    A *payload* is one message without its frame; b"" where this language has nothing to say. A *frame* is what goes
    into the socket, one or several WebSocket frames.
    """

    @property
    def door(self) -> Door:
        """The way in where this language is spoken."""

    @property
    def heartbeat(self) -> bytes:
        """The frame that asks for a sign of life."""

    def decode(self, message: bytes) -> list[Request]:
        """Return the commands of one WebSocket message, in order; there may be none.

        Args:
            message: as it came, of any content: nothing is taken for granted, not even UTF-8.
        Raises:
            Disconnect: the message is not of this language; nothing of it is to be carried out.
        """

    def reply(self, id: int, result: Result) -> bytes:
        """Return the payload that answers request `id`."""

    def reject(self, id: int, why: Reject) -> bytes:
        """Return the payload that refuses request `id`."""

    def event(self, room: str, event: Event) -> bytes:
        """Return the payload that tells a reader of `room` what happened there."""

    def unsubscribed(self, room: str, code: int, reason: str) -> bytes:
        """Return the payload that tells a reader of `room` that it is one no longer (protocol section 9)."""

    def subscribed(self, room: str, position: Position | None) -> bytes:
        """Return the payload that tells a client that the server made it a reader of `room`, of all after `position`.

        None: the room has no history.
        """

    def frame(self, payloads: Sequence[bytes]) -> bytes:
        """Return what carries `payloads` in order, the empty ones left out; b"" if nothing is left."""

    def author(self, event: Event) -> str | None:
        """Return the connection that must not hear `event`, being its author; None: everybody hears it."""
