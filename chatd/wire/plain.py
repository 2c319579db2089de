"""The plain door's language: text in, `user: text` out.

A client says what it has to say; there are no commands and no replies but a line that begins with `! ` when something
was refused. Its room is the one it came for, which the session knows.

An edit is told as what the text is now, `user: text (edited)`. Of deletions, reactions and other events without a text
nothing is told here: a line can be neither taken back nor counted.

A text may have several lines and is passed on so, one message a frame. A reader who prints them below each other cannot
tell a second line from a second message; who needs to uses the SDK door.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final, NamedTuple

import orjson

from chatd import frames
from chatd.errors import INVALID_UTF8, Reject
from chatd.model import Door, Event, Json, Kind, Position, Publish, Request, Result
from chatd.wire import Codec

# Readers apart from the rest (the author, the slow) ask again about the same few events. 64 of 8 KiB are 0.5 MiB.
REMEMBERED: Final = 64

# C0, DEL and C1 are taken out: what moves a terminal's cursor or makes it speak. A text keeps its newlines and tabs.
_STEERING: Final = {*range(0x20), *range(0x7F, 0xA0)}
_IN_TEXT: Final = dict.fromkeys(_STEERING - {0x09, 0x0A})
_IN_LINE: Final = _IN_TEXT | dict.fromkeys((0x09, 0x0A), " ")


class Plain:
    """See the head of this file."""

    __slots__ = ()

    door = Door.PLAIN
    heartbeat = frames.ping()

    def decode(self, message: bytes) -> list[Request]:
        """Return the message as one to the client's own room, `{"text": …}`; nothing for an empty one.

        One newline at the end is not part of it: websocat and other tools for lines send it along.

        Raises:
            Disconnect 1007: it is not UTF-8.
        """
        try:
            text = message.decode().removesuffix("\n").removesuffix("\r")
        except UnicodeDecodeError:
            raise INVALID_UTF8.anew() from None
        return [Request(0, Publish("", orjson.dumps({"text": text})))] if text else []

    def reply(self, id: int, result: Result) -> bytes:
        return b""

    def reject(self, id: int, why: Reject) -> bytes:
        return _notice(why.text)

    def event(self, room: str, event: Event) -> bytes:
        """Return a message or an edit as its line; b"" for all else: other events, joins, leaves, no publications."""
        said = _said(event.body) if event.kind is Kind.PUBLICATION else None
        return said.line if said is not None else b""

    def unsubscribed(self, room: str, code: int, reason: str) -> bytes:
        return _notice(reason)

    def subscribed(self, room: str, position: Position | None) -> bytes:
        return b""

    def frame(self, payloads: Sequence[bytes]) -> bytes:
        """A text frame for each, so that a client gets one message at a time."""
        return b"".join(frames.text(payload) for payload in payloads if payload)

    def author(self, event: Event) -> str | None:
        """The connection that said it: people here see what they typed and need not hear it again."""
        said = _said(event.body) if event.kind is Kind.PUBLICATION else None
        return said.client if said is not None else None


class _Said(NamedTuple):
    """A publication's author, by connection, and how it reads: b"" for what is not told here."""

    client: str | None
    line: bytes


@lru_cache(REMEMBERED)
def _said(body: Json) -> _Said | None:
    """Who said a publication, and how it reads; None if this is no publication, which the store may hold by mistake."""
    try:
        publication = orjson.loads(body)
        info, text = publication.get("info"), _text(publication["data"], publication.get("tags", {}).get("type"))
        client, user = (None, None) if info is None else (str(info["client"]), str(info["user"]))
    except (ValueError, AttributeError, KeyError, TypeError):
        return None
    return _Said(client, b"" if text is None else f"{_name(user)} {text}".encode())


def _name(user: str | None) -> str:
    """`user:`, or `*` where the server itself speaks."""
    return "*" if user is None else f"{user.translate(_IN_LINE)}:"


def _text(data: Any, type: str | None) -> str | None:
    """The text of a chat message, else all of the data as JSON; None: this is an event that says nothing here.

    Other events than edits are told if they bring a text, whatever they are.
    """
    text = data.get("text") if isinstance(data, dict) else None
    if not isinstance(text, str):
        if type not in (None, "message"):
            return None
        text = orjson.dumps(data).decode()
    return text.translate(_IN_TEXT) + (" (edited)" if type == "edit" else "")


def _notice(sentence: str) -> bytes:
    return f"! {sentence.translate(_IN_LINE)}".encode()


PLAIN: Final[Codec] = Plain()
