"""What is done to rooms and to who belongs to them, whoever does it: a client by method, the API, or the command line.

Each act is carried out in the store, which has the last word on who may, and is then told: to the room's readers, in
their order with what is said there; to the user concerned; and to the nodes, so that whoever may not be there any more
is out when the act returns. Reading about rooms needs none of this and is asked of the store itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

from . import errors, rules
from .batched import batched
from .control import Answers, Kick
from .errors import Reject
from .model import Actor, Role
from .names import clean_name, is_reserved, room_name
from .office import Office
from .rules import LEAST, Act
from .settings import RoomRules, Settings, seconds_in
from .store.messages import Keep
from .store.rooms import RECORD_KEYS, REFUSALS
from .wire import rpc
from .wire.publication import head

TOPIC_CHARS: Final = 256
# The application's own keys are for a colour or a number in another system, not for documents.
KEY_CHARS: Final = 64
VALUE_CHARS: Final = 256
# A slow mode longer than a day is a lock.
SLOWEST_S: Final = 86_400.0
# Members who are told at the same time that their room is gone.
AT_ONCE: Final = 100
NOBODY_ASKED: Final = Answers({})


def keep(kept: RoomRules) -> Keep:
    """How the store is to keep a room of these rules."""
    return Keep(kept.history, int(kept.retention * 1000))


class Steward:
    """Acts on rooms.

    Args:
        office: in whose name, and how the nodes are reached.
    """

    def __init__(self, office: Office, settings: Settings) -> None:
        self._office = office
        self._settings = settings
        self._messages = office.store.messages
        self._rooms = office.store.rooms

    # --- a room -------------------------------------------------------------------------------------------------------

    async def create(
        self,
        room: str,
        *,
        public: bool,
        owner: str = "",
        topic: str = "",
        keys: Mapping[str, str | None] | None = None,
        members: Sequence[str] = (),
        unused: bool = False,
    ) -> None:
        """Give `room` a record, an owner (if not "") and members.

        Args:
            unused: not where something was said or somebody is present, as that would be taking over others' room.
        Raises:
            Reject 406: there is one. Reject 107, 412, 415: it was not created; or, where that is said, not all are
                members.
        """
        self._named(room)
        own = {key: value for key, value in _checked_keys(keys or {}).items() if value}
        if len(own) > RECORD_KEYS:
            raise errors.FULL.because(f"a room has at most {RECORD_KEYS} keys, {len(own)} came")
        if not all(members):
            raise errors.BAD_REQUEST.because("expected users as members, an empty one came")
        topic, limits = _topic(topic), self._settings.limits
        if 0 < limits.members < len({owner, *members} - {""}):
            raise errors.FULL.because(f"a room has at most {limits.members} members, {len(members)} came with it")
        fresh = bool(owner) and await self._rooms.belong(owner, room, limits.rooms_per_user)
        try:
            await self._rooms.create(room, by=owner, owner=owner, public=public, topic=topic, keys=own, unused=unused)
        except Reject:
            if fresh:
                await self._rooms.belong_no_more(owner, room)
            raise
        if owner and not fresh:
            await self._see_noted(owner, room)
        await self._office.write_down("room.create", room=room, public=public, owner=owner)
        if not public:
            await self._office.recheck(room)
        await self._invite_all(room, members, Actor(owner, Role.OWNER) if owner else None)

    async def set(
        self,
        room: str,
        *,
        by: Actor | None,
        topic: str | None = None,
        locked: bool | None = None,
        slow: float | str | None = None,
        keys: Mapping[str, str | None] | None = None,
        public: bool | None = None,
    ) -> Answers:
        """Change what is not None, and say so in the room; `slow` in seconds or with a unit, keys with None go.

        Raises:
            Reject 404, 103, 107, 415.
        """
        self._named(room)
        wanted: dict[str, Any] = {
            "topic": None if topic is None else _topic(topic),
            "locked": locked,
            "slow": None if slow is None else _seconds(slow),
            "keys": None if keys is None else _checked_keys(keys),
            "public": public,
        }
        wanted = {name: value for name, value in wanted.items() if value is not None}
        act = Act.MODERATE if public is None else Act.GOVERN
        with self._unseen(room, by):
            changed = await self._rooms.alter(
                room, _fields(wanted), by=by, least=LEAST[act], created=public is not None
            )
        news = {name: value for name, value in wanted.items() if _is_among(name, changed)}
        if news:
            await self._office.write_down("room.set", room=room, **news)
            await self._tell(room, "room", news, by)
        # Though it was so before: whoever is told that the store went away asks again, and nobody was put out yet.
        return await self._office.recheck(room) if public is False else NOBODY_ASKED

    async def delete(self, room: str, *, by: Actor | None) -> Answers:
        """Take a created room away with all that was said in it; its readers are put out, its members told.

        Raises:
            Reject 404, 103.
        """
        with self._unseen(room, by):
            members = await self._rooms.dissolve(room, by=by)
        await self._office.write_down("room.delete", room=room, members=len(members))
        answers = await self._office.ask(Kick(room=room, reason="the room was deleted"))
        await self._office.recheck(room)  # whoever was on the way in has been let in by what is there no more
        for told in batched(members, AT_ONCE):
            await asyncio.gather(*(self._tell_role(room, user, Role.NOBODY, by) for user in told))
        await self._rooms.lasting(room)
        return answers

    # --- who belongs to it --------------------------------------------------------------------------------------------

    async def invite(self, room: str, user: str, *, by: Actor | None) -> None:
        """Make `user` a member and tell him; who is a member already stays what he is.

        Raises:
            Reject 404, 103, 412, 415.
        """
        with self._unseen(room, by):
            before, _ = await self._place(room, user, Role.MEMBER, by, LEAST[Act.INVITE], keep=True)
        if before is Role.NOBODY:
            await self._office.write_down("room.invite", room=room, user=user)
            await self._tell(rules.personal_room(user), "invite", {"room": room}, by)

    async def _invite_all(self, room: str, users: Sequence[str], by: Actor | None) -> None:
        """
        Raises:
            Reject 415, 412: some are members of too many rooms already, or have blocked `by`; the others are members.
        """
        left_out = {}
        for user in dict.fromkeys(users):
            try:
                await self.invite(room, user, by=by)
            except Reject as refusal:
                if refusal not in (errors.FULL, errors.BLOCKED):
                    raise
                left_out[user] = refusal
        for why in left_out.values():
            raise why.because(
                f"the room is there, without those who are in too many already or have blocked you: {[*left_out]}"
            )

    async def set_role(self, room: str, user: str, role: Role, *, by: Actor | None) -> Answers:
        """Make `user` what `role` says, tell him, and see that he is out if he may not be there any more.

        Args:
            role: NOBODY ends the membership.
        Raises:
            Reject 404, 103, 412, 415.
        """
        least = LEAST[Act.MODERATE if role is Role.NOBODY else Act.GOVERN]
        with self._unseen(room, by):
            before, after = await self._place(room, user, role, by, least)
        if before is not after:
            await self._office.write_down("room.role", room=room, user=user, role=after.word, before=before.word)
            await self._tell_role(room, user, after, by)
        may_have_to_go = after < before or role is Role.NOBODY  # also where it was so before: as in `set`
        return await self._office.recheck(room, user) if may_have_to_go else NOBODY_ASKED

    async def join(self, room: str, by: Actor | None) -> None:
        """Somebody becomes a member by himself; his devices are told.

        Raises:
            Reject 404, 103, 415. Reject 107: it is the server, who is no member of anything.
        """
        by = _somebody(by)
        with self._unseen(room, by, b"outsider"):
            before, after = await self._place(room, by.user, Role.MEMBER, by, Role.OWNER, keep=True)
        if before is not after:
            await self._tell_role(room, by.user, after, by)

    async def leave(self, room: str, by: Actor | None) -> None:
        """Somebody is a member no longer, by his own will; his devices are told.

        Raises:
            Reject 404. Reject 103: he is the last owner. Reject 107, as for `join`.
        """
        by = _somebody(by)
        try:
            before, after = await self._place(room, by.user, Role.NOBODY, by, Role.OWNER)
        except Reject as refusal:
            if refusal == errors.NO_SUCH and self._is_hidden(room, by):
                return
            raise
        if before is not after:
            await self._office.recheck(room, by.user)
            await self._tell_role(room, by.user, after, by)

    async def _place(
        self, room: str, user: str, role: Role, by: Actor | None, least: Role, *, keep: bool = False
    ) -> tuple[Role, Role]:
        self._named(room)
        if not user:
            raise errors.BAD_REQUEST.because("expected a user, none came")
        limits = self._settings.limits
        fresh = role is not Role.NOBODY and await self._rooms.belong(user, room, limits.rooms_per_user)
        try:
            if fresh and by is not None and await self._rooms.blocks(user, by.user):
                raise errors.BLOCKED.because(f"{user!r} does not take invitations from you")
            placed = await self._rooms.place(room, user, role, by=by, least=least, keep=keep, most=limits.members)
        except Reject:
            if fresh:
                await self._rooms.belong_no_more(user, room)
            raise
        if role is Role.NOBODY:
            await self._rooms.belong_no_more(user, room)
        elif placed[0] is Role.NOBODY and not fresh:
            await self._see_noted(user, room)
        return placed

    async def _see_noted(self, user: str, room: str) -> None:
        """What had been noted before somebody became a member is from an earlier time, and may just be taken back."""
        await self._rooms.belong(user, room, 0)

    # --- the telling --------------------------------------------------------------------------------------------------

    async def _tell_role(self, room: str, user: str, role: Role, by: Actor | None) -> None:
        await self._tell(rules.personal_room(user), "role", {"room": room, "role": role.word}, by)

    async def _tell(self, room: str, kind: str, news: Mapping[str, Any], by: Actor | None) -> None:
        """The server itself says something, and whose doing it is; operators are not named to the public."""
        said = head(rpc.encode({**news, "by": "" if by is None else by.user}), None, {"type": kind})
        await self._messages.publish(room, said, keep(self._settings.room(room)))

    @contextmanager
    def _unseen(self, room: str, by: Actor | None, why: bytes = b"rank") -> Iterator[None]:
        """Have a stranger hear of a room that is not there what he would hear if it were; `why` as in REFUSALS."""
        try:
            yield
        except Reject as refusal:
            if refusal == errors.NO_SUCH and self._is_hidden(room, by):
                raise REFUSALS[why].anew() from None
            raise

    def _is_hidden(self, room: str, by: Actor | None) -> bool:
        """Whether it is not for him to know if somebody created the room; where rooms are open by rule, all may."""
        return by is not None and by.granted is Role.NOBODY and not self._settings.room(room).public

    def _named(self, room: str) -> None:
        """
        Raises:
            Reject 107: this cannot be a room that somebody creates.
        """
        room_name(room, self._settings.limits.room_name)
        if is_reserved(room):
            raise errors.BAD_REQUEST.because("personal channels and direct rooms belong to their users as they are")


def _somebody(by: Actor | None) -> Actor:
    """
    Raises:
        Reject 107.
    """
    if by is None:
        raise errors.BAD_REQUEST.because("only a user joins or leaves; say as whom")
    return by


def _topic(text: str) -> str:
    """
    Raises:
        Reject 107.
    """
    topic = clean_name(text, 0)
    if len(topic) > TOPIC_CHARS:
        raise errors.BAD_REQUEST.because(f"a topic has at most {TOPIC_CHARS} characters, {len(topic)} came")
    return topic


def _seconds(slow: float | str) -> float:
    """
    Raises:
        Reject 107.
    """
    try:
        seconds = seconds_in(slow)
    except ValueError:
        raise errors.BAD_REQUEST.because(
            f'"slow" is a duration such as "10s", or a number of seconds; {slow!r} came'
        ) from None
    if not 0 <= seconds <= SLOWEST_S:
        raise errors.BAD_REQUEST.because(f'"slow" is from 0 to {SLOWEST_S:g} s, {seconds:g} came; a lock does more')
    return round(seconds, 3)  # as the store counts it, so that what is told is what holds


def _checked_keys(keys: Mapping[str, str | None]) -> Mapping[str, str | None]:
    """
    Raises:
        Reject 107.
    """
    for key, value in keys.items():
        if not 1 <= len(key) <= KEY_CHARS or len(value or "") > VALUE_CHARS:
            raise errors.BAD_REQUEST.because(
                f"a room's keys have 1 to {KEY_CHARS} characters and their values at most {VALUE_CHARS}; "
                f"{len(key)} and {len(value or '')} came"
            )
    return keys


def _fields(wanted: Mapping[str, Any]) -> dict[str, str]:
    """As the record in the store has it, see append.lua."""
    fields = {f"k:{key}": value or "" for key, value in wanted.get("keys", {}).items()}
    if "topic" in wanted:
        fields["topic"] = wanted["topic"]
    if "slow" in wanted:
        fields["slow"] = str(round(wanted["slow"] * 1000) or "")
    if "locked" in wanted:
        fields["locked"] = "1" if wanted["locked"] else ""
    if "public" in wanted:
        fields["public"] = str(int(wanted["public"]))
    return fields


def _is_among(name: str, changed: frozenset[str]) -> bool:
    return any(field.startswith("k:") for field in changed) if name == "keys" else name in changed
