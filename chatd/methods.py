"""What can be asked by `rpc`, beyond what the protocol has commands for: a frozen dataclass for each method's data.

The table METHODS is the whole of it: the SDK door, the HTTP API, its description and the manual go by it. A field that
is called like a Python keyword has an underscore behind its name here, and none on the wire. What a method does stands
in chat; turning JSON into these is wire's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class SendMessage:
    """Say `text` in `room`; answers where it stands: {offset, epoch, time}.

    Attributes:
        cid: the author's own number for it; said again, it has no second effect and returns the first answer.
        reply_to: offset of the message it answers.
        mentions: users it speaks of; those who belong to the room get a notice on their personal channel.
        sig: "kid:ts:nonce:hex", where the room takes signatures.
        data: keys of the application's own, which stand beside the text.
    """

    room: str
    text: str
    cid: str | None = None
    reply_to: int | None = None
    mentions: tuple[str, ...] = ()
    sig: str | None = None
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class EditMessage:
    """Replace the text of one's own message at `offset`, within the room's edit window; answers {offset}, the event's.

    Attributes:
        text: all of the new text.
    """

    room: str
    offset: int
    text: str


@dataclass(frozen=True, slots=True)
class DeleteMessage:
    """Delete a message: one's own within the room's edit window, as a moderator any; answers {offset}, the event's.

    Attributes:
        reason: what readers are told.
    """

    room: str
    offset: int
    reason: str = ""


@dataclass(frozen=True, slots=True)
class React:
    """React to a message, or take it back; answers {offset}, the event's, or the room's last where nothing changed.

    Attributes:
        kind: of the reaction, such as an emoji; at most 32 bytes, and 20 kinds a message.
        on: false takes it back.
    """

    room: str
    offset: int
    kind: str
    on: bool = True


@dataclass(frozen=True, slots=True)
class MessageHistory:
    """Messages as they stand now, oldest first: {epoch, messages: [{offset, user, time, text, data, edited, deleted,
    reply_to, reactions: {kind: count}}], next}. With neither `after` nor `before` the latest.

    Attributes:
        before, after: offsets between which they lie, themselves left out.
        limit: at most so many; 0: as many as a page of history has. Where more may follow, `next` is what to ask
            `after` (or else `before`) for.
    """

    room: str
    before: int | None = None
    after: int | None = None
    limit: int = 0


METHODS: Mapping[str, type] = {
    "message.send": SendMessage,
    "message.edit": EditMessage,
    "message.delete": DeleteMessage,
    "message.react": React,
    "message.history": MessageHistory,
}
