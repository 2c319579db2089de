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


METHODS: Mapping[str, type] = {
    "message.send": SendMessage,
}
