"""What publications are about: the values of `tags.type`, which only the server writes, and who hears each.

Joins and leaves are pushes of the protocol's own and have no type. The manual goes by this table, and a test holds it
to what the code says.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple


class EventType(NamedTuple):
    """What one type says.

    Attributes:
        audience: "room": whoever reads the room; "user": the personal channel `#<user>` of the one concerned.
        kept: it has an offset and stands in history; else it goes to who is there, and is dropped first.
        data: the members of its data.
        says: what it means, as a sentence.
    """

    audience: str
    kept: bool
    data: str
    says: str


EVENTS: Final[Mapping[str, EventType]] = {
    "message": EventType("room", True, "the author's own", "Somebody, or the server, said something."),
    "edit": EventType("room", True, "{text}", "The message at offset `tags.of` now has this text."),
    "delete": EventType(
        "room", True, "{reason?}", "The messages at the offsets in `tags.of`, which commas separate, were deleted."
    ),
    "react": EventType("room", True, "{kind, on}", "`info.user` reacted to the message at `tags.of`, or took it back."),
    "deleted": EventType(
        "room", True, "{}", "A tombstone in history: here stood a message, or with `tags.of` an event about one."
    ),
    "room": EventType("room", True, "{topic?, locked?, slow?, public?, keys?, by}", "What holds in the room changed."),
    "typing": EventType("room", False, "{on}", "`info.user` is typing, or is no more."),
    "mention": EventType("user", True, "{}", "`info.user` spoke of you in `tags.room`, at offset `tags.of`."),
    "invite": EventType("user", True, "{room, by}", "You are a member of this room now."),
    "role": EventType(
        "user", True, "{room, role, by}", "You have this role in the room now; nobody: you are no member."
    ),
    "kick": EventType("user", True, "{room, reason, by}", "You were put out of the room, and may come back."),
    "mute": EventType("user", True, "{room, reason, until, by}", "You are silent there until then; null: for ever."),
    "unmute": EventType("user", True, "{room, by}", "You may speak there again."),
    "ban": EventType("user", True, "{room, reason, until, by}", "You are kept out of it until then; null: for ever."),
    "unban": EventType("user", True, "{room, by}", "You may come in there again."),
    "read": EventType("user", False, "{room, offset}", "Another of your devices has read the room up to this offset."),
}
