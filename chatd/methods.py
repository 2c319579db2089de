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
        sig: as in SendMessage; made anew for each try.
    """

    room: str
    offset: int
    text: str
    sig: str | None = None


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


@dataclass(frozen=True, slots=True)
class CreateRoom:
    """Give `room` a record, of which you are the owner; answers {}.

    Attributes:
        public: any verified user may come in; false: only members.
        members: users who are made members at once, and told so.
        topic: one line about it, of 256 characters at most.
        keys: at most 16 small texts of the application's own.
    """

    room: str
    public: bool
    members: tuple[str, ...] = ()
    topic: str = ""
    keys: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RoomInfo:
    """What holds in `room`, and what you are there.

    Answers {room, created, by, public, locked, slow, topic, keys, members, role, offset, epoch}: created in Unix ms, or
    null where nobody created it and the configuration alone says what holds; slow in seconds; members is their number.
    """

    room: str


@dataclass(frozen=True, slots=True)
class ListRooms:
    """Created rooms that you may read, by name, from behind `after`.

    Answers {rooms: [{room, public, topic, members, role}], next}: a page may be short; go on with `next` until "".

    Attributes:
        mine: only those that you are a member of.
    """

    after: str = ""
    limit: int = 50
    mine: bool = False


@dataclass(frozen=True, slots=True)
class ListMembers:
    """Who belongs to `room`, by name, from behind `after`; for its members, and for all where it is public.

    Answers {members: [{user, role, joined, online, seen}], next}: `online` on any device; `seen` in Unix ms if not,
    null where nobody knows; both left out where the room does not say who is present; joined in Unix ms. Go on
    with `next` until "".
    """

    room: str
    after: str = ""
    limit: int = 50


@dataclass(frozen=True, slots=True)
class InviteToRoom:
    """Make `user` a member of `room`; he is told on his personal channel. Answers {}."""

    room: str
    user: str


@dataclass(frozen=True, slots=True)
class JoinRoom:
    """Become a member of `room`, which is public or opened by your token; answers {}. Subscribing is another matter."""

    room: str


@dataclass(frozen=True, slots=True)
class LeaveRoom:
    """Be a member of `room` no longer; answers {}. The last owner cannot leave."""

    room: str


@dataclass(frozen=True, slots=True)
class SetRole:
    """Give `user` a role in `room`: "owner", "moderator", "member", "guest", or "nobody" to remove him; answers {}."""

    room: str
    user: str
    role: str


@dataclass(frozen=True, slots=True)
class SetRoom:
    """Change what is named of `room`, which is announced there; answers {}.

    Attributes:
        locked: only moderators and owners speak.
        slow: how long each must be silent after speaking, editing or reacting, in seconds or as "10s"; 0: not at all.
            Deleting is free.
        keys: of the application's own; null takes one out.
        public: any verified user may come in. Only owners may change it.
    """

    room: str
    topic: str | None = None
    locked: bool | None = None
    slow: float | str | None = None
    keys: Mapping[str, str | None] | None = None
    public: bool | None = None


@dataclass(frozen=True, slots=True)
class DeleteRoom:
    """Take `room` away with all that was said in it; its members get the role "nobody". Answers {}; only owners may."""

    room: str


@dataclass(frozen=True, slots=True)
class Typing:
    """Show in `room` that you are typing, or (`on` false) no more; answers {}. Going on is told once per 3 s."""

    room: str
    on: bool


@dataclass(frozen=True, slots=True)
class Read:
    """You have read `room` up to `offset`; answers {offset}, where your cursor is now. It never goes back."""

    room: str
    offset: int


@dataclass(frozen=True, slots=True)
class Unread:
    """How much you may read after your cursor in each of `rooms`; answers {room: count}, without rooms not for you."""

    rooms: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class KickUser:
    """As a moderator, put `user` out of `room`; answers {closed}, how many of his subscriptions ended.

    Attributes:
        for_: how long he may not come back, in seconds or as "10m"; left out: he may at once.
        reason: what he is told.
    """

    room: str
    user: str
    for_: float | str | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class MuteUser:
    """As a moderator, let `user` say nothing in `room`; answers {until}, Unix seconds, null for ever.

    Attributes:
        for_: how long, in seconds or as "10m"; left out: for ever.
        reason: what he is told.
    """

    room: str
    user: str
    for_: float | str | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class BanUser:
    """As a moderator, put `user` out of `room` and keep him out; answers {until}, Unix seconds, null for ever.

    Attributes:
        for_: how long, in seconds or as "10m"; left out: for ever.
        reason: what he is told.
    """

    room: str
    user: str
    for_: float | str | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class UnmuteUser:
    """As a moderator, let `user` speak in `room` again; answers {}. What an operator did, only an operator undoes."""

    room: str
    user: str


@dataclass(frozen=True, slots=True)
class UnbanUser:
    """As a moderator, let `user` into `room` again; answers {}. What an operator did, only an operator undoes."""

    room: str
    user: str


@dataclass(frozen=True, slots=True)
class BlockUser:
    """Take no direct messages, mentions or invitations from `user` any more, or (`on` false) again; answers {}.

    He is told when he writes or invites, and not that a mention was not told. A user blocks at most 1,000 others.
    """

    user: str
    on: bool = True


@dataclass(frozen=True, slots=True)
class ListBlocked:
    """Whom you have blocked, by name, from behind `after`; answers {users, next}: go on with `next` until ""."""

    after: str = ""
    limit: int = 50


@dataclass(frozen=True, slots=True)
class ReportMessage:
    """Tell the operators that the message at `offset` in `room` should not be there; answers {id}, the report's.

    Whoever reports the same message again before it is closed has still that one. A user has at most 100 open.
    """

    room: str
    offset: int
    reason: str = ""


METHODS: Mapping[str, type] = {
    "message.send": SendMessage,
    "message.edit": EditMessage,
    "message.delete": DeleteMessage,
    "message.react": React,
    "message.history": MessageHistory,
    "typing": Typing,
    "read": Read,
    "unread": Unread,
    "room.create": CreateRoom,
    "room.info": RoomInfo,
    "room.list": ListRooms,
    "room.members": ListMembers,
    "room.invite": InviteToRoom,
    "room.join": JoinRoom,
    "room.leave": LeaveRoom,
    "room.role": SetRole,
    "room.set": SetRoom,
    "room.delete": DeleteRoom,
    "mod.kick": KickUser,
    "mod.mute": MuteUser,
    "mod.unmute": UnmuteUser,
    "mod.ban": BanUser,
    "mod.unban": UnbanUser,
    "user.block": BlockUser,
    "user.blocked": ListBlocked,
    "report": ReportMessage,
}
