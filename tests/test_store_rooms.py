"""What every store promises of rooms and of who is in them, on servers of every kind."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import pytest

from chatd.errors import EXISTS, FULL, NO_SUCH, PERMISSION_DENIED, Reject
from chatd.model import Actor, Role
from chatd.names import dm_room
from chatd.office import Office
from chatd.settings import Settings
from chatd.settings.rooms import Rooms
from chatd.steward import Steward
from chatd.store.redis import Store
from chatd.store.rooms import RECORD_KEYS, REFUSALS
from tests.stores import FOR_EVER, head, in_milliseconds
from tests.test_store import ROOMS

OWNER = Role.OWNER


async def created(store: Store, room: str = "den", *, owner: str = "ana", public: bool = False) -> None:
    await store.rooms.belong(owner, room, 0)
    await store.rooms.create(room, by=owner, owner=owner, public=public, topic="", keys={}, unused=True)


async def placed(store: Store, user: str, role: Role, *, by: str = "", least: Role = OWNER) -> tuple[Role, Role]:
    return await store.rooms.place("den", user, role, by=Actor(by) if by else None, least=least)


@pytest.mark.parametrize("room", ROOMS)
async def test_a_room_of_any_name_is_created_changed_and_taken_away(store: Store, room: str) -> None:
    await created(store, room)
    await store.rooms.belong("ben", room, 1)
    await store.rooms.place(room, "ben", Role.MEMBER, by=None, least=OWNER)
    await store.rooms.alter(room, {"topic": "t", "k:a": "1"}, by=Actor("ana"), least=OWNER, created=True)
    record = await store.rooms.record(room)
    assert (record.topic, record.keys, record.members, record.by) == ("t", {"a": "1"}, 2, "ana")
    assert await store.rooms.created("", 10) == [room]
    assert await store.rooms.rooms_of("ben") == [room]
    assert await store.rooms.dissolve(room, by=Actor("ana")) == ["ana", "ben"]
    assert await store.rooms.created("", 10) == await store.rooms.rooms_of("ben") == []
    assert not (await store.rooms.standing(room, "ana")).exists


async def test_a_room_is_created_once_and_not_over_a_history(store: Store) -> None:
    await created(store)
    with pytest.raises(Reject) as refusal:
        await created(store, owner="eve")
    assert refusal.value == EXISTS
    await store.messages.publish("square", head("hi"), FOR_EVER)
    with pytest.raises(Reject):
        await created(store, "square")
    assert await store.rooms.created("", 10) == ["den"]
    assert (await store.rooms.standing("den", "ana")).role is OWNER


async def test_a_room_that_is_created_anew_as_the_old_one_goes_is_found(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = store.batch.script

    async def created_behind_it(*call: Any) -> Any:
        monkeypatch.undo()
        reply = await script(*call)
        await created(store, owner="ben")
        return reply

    await created(store)
    monkeypatch.setattr(store.batch, "script", created_behind_it)
    await store.rooms.dissolve("den", by=None)
    assert await store.rooms.created("", 10) == ["den"]


async def test_a_room_whose_elder_goes_as_it_is_created_is_found(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    script = store.batch.script

    async def gone_before_it(*call: Any) -> Any:
        monkeypatch.undo()
        await store.rooms.dissolve("den", by=None)
        return await script(*call)

    await created(store)
    await store.rooms.belong("ben", "den", 0)
    monkeypatch.setattr(store.batch, "script", gone_before_it)
    await store.rooms.create("den", by="ben", owner="ben", public=False, topic="", keys={}, unused=True)
    assert await store.rooms.created("", 10) == ["den"]


async def test_of_two_owners_who_leave_at_once_one_stays(store: Store) -> None:
    await created(store)
    await placed(store, "ben", OWNER)
    left = await asyncio.gather(
        *(placed(store, user, Role.NOBODY, by=user) for user in ("ana", "ben")), return_exceptions=True
    )
    assert sorted(type(each).__name__ for each in left) == ["Reject", "tuple"]
    assert len(await store.rooms.members("den")) == 1


async def test_a_moderator_acts_on_lesser_ones_only_and_lifts_nobody_above_himself(store: Store) -> None:
    await created(store)
    for user, role in (("mod", Role.MODERATOR), ("other", Role.MODERATOR), ("ben", Role.MEMBER)):
        await placed(store, user, role)
    for user in ("ana", "other"):
        with pytest.raises(Reject) as refusal:
            await placed(store, user, Role.NOBODY, by="mod", least=Role.MODERATOR)
        assert refusal.value == PERMISSION_DENIED
    with pytest.raises(Reject):
        await placed(store, "ben", OWNER, by="mod", least=Role.MODERATOR)
    assert await placed(store, "ben", Role.NOBODY, by="mod", least=Role.MODERATOR) == (Role.MEMBER, Role.NOBODY)


async def test_by_oneself_one_comes_in_where_one_may_and_becomes_only_less(store: Store) -> None:
    async def eve(role: Role, granted: Role = Role.NOBODY, *, room: str = "den", keep: bool = False) -> object:
        try:
            return await store.rooms.place(room, "eve", role, by=Actor("eve", granted), least=OWNER, keep=keep)
        except Reject as refusal:
            return refusal.code

    refused = PERMISSION_DENIED.code
    await created(store)
    await created(store, "square", public=True)
    assert await eve(Role.MEMBER) == await eve(Role.MODERATOR, OWNER) == refused
    assert await eve(Role.MODERATOR, room="square") == refused
    assert await eve(Role.MEMBER, room="square") == (Role.NOBODY, Role.MEMBER)
    assert await eve(Role.MODERATOR, OWNER, room="square") == refused, "a token opens the room, for a member"
    assert await eve(Role.MEMBER, Role.MEMBER) == (Role.NOBODY, Role.MEMBER)
    await placed(store, "eve", Role.MODERATOR)
    assert await eve(Role.MEMBER, keep=True) == (Role.MODERATOR, Role.MODERATOR)
    assert await eve(Role.MEMBER) == (Role.MODERATOR, Role.MEMBER)
    assert await eve(Role.NOBODY) == (Role.MEMBER, Role.NOBODY)


async def test_who_invites_must_be_enough_for_it_and_changes_nobody(store: Store) -> None:
    await created(store)
    await placed(store, "ben", Role.MEMBER)

    async def invited(user: str, least: Role) -> tuple[Role, Role]:
        return await store.rooms.place("den", user, Role.MEMBER, by=Actor("ben"), least=least, keep=True)

    with pytest.raises(Reject) as refusal:
        await invited("eve", Role.MODERATOR)
    assert refusal.value == PERMISSION_DENIED
    assert await invited("eve", Role.MEMBER) == (Role.NOBODY, Role.MEMBER)
    assert await invited("ana", Role.MEMBER) == (OWNER, OWNER)


@pytest.mark.parametrize("first", ["invite", "remove"])
async def test_who_is_removed_and_invited_at_once_finds_the_room_among_his(
    store: Store, monkeypatch: pytest.MonkeyPatch, first: str
) -> None:
    steward = Steward(Office(store, patience=0.1, by="root"), Settings())
    remove = partial(steward.set_role, "den", "ben", Role.NOBODY, by=None)
    invite = partial(steward.invite, "den", "ben", by=None)
    await created(store)
    await invite()
    whole, halved, step = (remove, invite, "place") if first == "invite" else (invite, remove, "belong_no_more")
    rest = getattr(store.rooms, step)

    async def meanwhile(*args: Any, **kwargs: Any) -> Any:
        monkeypatch.undo()
        await whole()
        return await rest(*args, **kwargs)

    monkeypatch.setattr(store.rooms, step, meanwhile)
    await halved()
    assert (await store.rooms.standing("den", "ben")).role is Role.MEMBER
    assert await store.rooms.rooms_of("ben") == ["den"]


async def test_strangers_refused_again_and_again_do_not_make_a_refusal_grow(store: Store) -> None:
    hidden = Settings(rooms=Rooms({"*": {"public": False}}))
    steward = Steward(Office(store, patience=0.1, by="root"), hidden)
    for _ in range(3):
        with pytest.raises(Reject, match="higher role"):
            await steward.invite("nowhere", "ben", by=Actor("eve"))
    assert REFUSALS[b"rank"].__traceback__ is None


async def test_a_member_is_there_since_the_offset_at_which_they_came_in_this_epoch(store: Store) -> None:
    await created(store)
    for _ in range(3):
        await store.messages.publish("den", head("hi"), FOR_EVER)
    await placed(store, "ben", Role.MEMBER)
    await placed(store, "ben", Role.MODERATOR)
    assert [(await store.rooms.standing("den", user)).since for user in ("ana", "ben")] == [0, 3]
    await store.batch.command("DEL", store.keys.meta("den"))
    assert (await store.rooms.standing("den", "ben")).since == 0


async def test_what_is_full_takes_no_more(store: Store) -> None:
    await created(store)
    for act in (
        store.rooms.place("den", "ben", Role.MEMBER, by=None, least=OWNER, most=1),
        store.rooms.alter("den", {f"k:{n}": "x" for n in range(17)}, by=None, least=OWNER, created=True),
        store.rooms.belong("ana", "other", 1),
    ):
        with pytest.raises(Reject) as refusal:
            await act
        assert refusal.value == FULL
    with pytest.raises(Reject) as refusal:
        await store.rooms.place("nowhere", "ben", Role.MEMBER, by=None, least=OWNER)
    assert refusal.value == NO_SUCH


async def test_nobody_blocks_without_end(store: Store) -> None:
    async def block(user: str, *, on: bool = True) -> None:
        await store.rooms.block("ana", user, dm_room("ana", user), on=on, most=2)

    for user in ("ben", "eve", "eve"):
        await block(user)
    with pytest.raises(Reject, match="blocks at most 2 users") as refusal:
        await block("fay")
    assert refusal.value == FULL
    assert not (await store.rooms.standing(dm_room("ana", "fay"), "fay")).blocked
    await block("ben", on=False)
    await block("fay")
    assert (await store.rooms.standing(dm_room("ana", "fay"), "fay")).blocked


async def test_only_what_changed_is_named_and_a_room_by_pattern_can_be_locked(store: Store) -> None:
    lock = {"locked": "1"}
    assert await store.rooms.alter("lobby", lock, by=None, least=OWNER, created=False) == {"locked"}
    assert await store.rooms.alter("lobby", lock, by=None, least=OWNER, created=False) == set()
    standing = await store.rooms.standing("lobby", "ana")
    assert (standing.exists, standing.locked) == (False, True)


async def test_created_rooms_are_listed_page_by_page_in_order(store: Store) -> None:
    names = [f"r{n:03}" for n in range(100)]
    await asyncio.gather(*(created(store, name) for name in names))
    page = await store.rooms.created("", 60)
    assert page + await store.rooms.created(page[-1], 60) == names


async def test_an_idle_room_goes_and_one_in_use_stays(store: Store) -> None:
    await created(store)
    await store.messages.publish("den", head("hi"), FOR_EVER)
    with pytest.raises(Reject) as refusal:
        await store.rooms.dissolve("den", by=None, idle_ms=60_000)
    assert refusal.value == EXISTS
    await in_milliseconds(2)
    assert await store.rooms.dissolve("den", by=None, idle_ms=1) == ["ana"]
    assert await store.messages.kept("den") is None


@pytest.mark.parametrize("sign", ["created", "joined", "left", "said"])
async def test_whatever_happens_is_a_sign_of_life(store: Store, sign: str) -> None:
    async def since_long_ago() -> None:
        await store.batch.command("HSET", store.keys.room("den"), "created", 1)
        await store.batch.command("HDEL", store.keys.room("den"), "alive")

    await created(store)
    if sign == "joined":
        await since_long_ago()
        await placed(store, "ben", Role.MEMBER)
    if sign == "left":
        await store.presence.join("den", "n.1", "ben", "c-1", b"{}", 10)
        await since_long_ago()
        await store.presence.leave("den", "n.1", 10, one=("ben", "c-1"))
    if sign == "said":
        await since_long_ago()
        await store.messages.publish("den", head("hi"), FOR_EVER)
    with pytest.raises(Reject) as refusal:
        await store.rooms.dissolve("den", by=None, idle_ms=60_000)
    assert refusal.value == EXISTS
    await since_long_ago()
    await store.presence.leave("den", "n.1", 10, one=("ben", "c-1"))  # once more, when he has long been gone
    assert await store.rooms.dissolve("den", by=None, idle_ms=60_000)


async def test_who_never_belonged_to_a_room_is_no_sign_of_life_by_leaving_it(store: Store) -> None:
    await created(store)
    await store.batch.command("HSET", store.keys.room("den"), "created", 1)
    await store.batch.command("HDEL", store.keys.room("den"), "alive")
    assert await placed(store, "eve", Role.NOBODY, by="eve") == (Role.NOBODY, Role.NOBODY)
    assert await store.rooms.dissolve("den", by=None, idle_ms=60_000) == ["ana"]


@pytest.mark.parametrize("by", ["a history", "somebody"])
async def test_a_name_in_use_is_not_taken_over(store: Store, by: str) -> None:
    if by == "somebody":
        await store.presence.join("den", "n.1", "ben", "c-1", b"{}", 10)
    else:
        await store.messages.publish("den", head("hi"), FOR_EVER)
    with pytest.raises(Reject) as refusal:
        await created(store)
    assert refusal.value == EXISTS


async def test_a_room_has_as_many_keys_as_it_may_and_one_goes_for_another(store: Store) -> None:
    async def alter(**keys: str) -> frozenset[str]:
        fields = {f"k:{key}": value for key, value in keys.items()}
        return await store.rooms.alter("den", fields, by=None, least=OWNER, created=True)

    await created(store)
    await alter(**{f"n{n}": "x" for n in range(RECORD_KEYS)})
    with pytest.raises(Reject):
        await alter(more="x")
    assert await alter(n0="", more="x") == {"k:n0", "k:more"}
