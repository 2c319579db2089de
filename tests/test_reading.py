"""Typing, reading and what is unread: told to those it concerns, on every node, and never in anybody's way."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from chatd.chat.cursors import TYPING_MS, UNREAD_ROOMS, unread_in
from chatd.model import NOWHERE, Position, Role, Standing
from chatd.rules import reads_above
from chatd.settings import Limits, options
from tests.conftest import Daemon
from tests.people import Person, Refused, cluster, person

CONFIG = """
[rooms."*"]
create = "anybody"
[rooms."private-*"]
public = false
[rooms."later-*"]
history_for = "since_join"
[rooms."now-*"]
history_for = "none"
"""


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Daemon, ...]]:
    with cluster(tmp_path_factory.mktemp("reading"), CONFIG) as both:
        yield both


def heard(somebody: Person, kind: str) -> list[Any]:
    """What has come until now, without what was awaited."""
    pubs = [push["pub"] for push in somebody.pushes if "pub" in push]
    return [pub["data"] for pub in pubs if pub.get("tags", {}).get("type") == kind]


# --- typing -----------------------------------------------------------------------------------------------------------


async def test_typing_is_told_to_readers_on_every_node_once_in_a_while_and_kept_by_nobody(
    nodes: tuple[Daemon, ...],
) -> None:
    assert TYPING_MS == 3_000
    async with person(nodes[0], "ana") as ana, person(nodes[1], "ana") as phone, person(nodes[1], "ben") as ben:
        await ben.joins("typed")
        for device in (ana, phone, ana):
            assert await device.call("typing", room="typed", on=True) == {}
        told = await ben.hears("typing", "typed")
        assert (told["data"], told["info"]["user"]) == ({"on": True}, "ana")
        assert "offset" not in told
        await phone.call("typing", room="typed", on=False)
        assert (await ben.hears("typing", "typed"))["data"] == {"on": False}
        await ana.says("typed", "done")
        assert (await ben.hears("message", "typed"))["offset"] == 1
        assert heard(ben, "typing") == []


async def test_who_stops_typing_and_begins_anew_is_seen_at_it_again(nodes: tuple[Daemon, ...]) -> None:
    async with person(nodes[0], "ana") as ana, person(nodes[1], "ben") as ben:
        await ben.joins("typed-anew")
        for on in True, False, True, True:
            await ana.call("typing", room="typed-anew", on=on)
        await ana.says("typed-anew", "done")
        await ben.hears("message", "typed-anew")
        assert heard(ben, "typing") == [{"on": True}, {"on": False}, {"on": True}]


async def test_only_who_may_speak_is_seen_typing(nodes: tuple[Daemon, ...]) -> None:
    async with person(nodes[0], "ana") as ana, person(nodes[1], "ben") as ben, person(nodes[0], "eve") as eve:
        await ana.call("room.create", room="private-typing", public=False, members=["ben"])
        await ben.joins("private-typing")
        with pytest.raises(Refused, match="103"):
            await eve.call("typing", room="private-typing", on=True)
        with pytest.raises(Refused, match="103"):
            await eve.call("typing", room="#ana", on=True)
        with pytest.raises(Refused, match="103"):
            await eve.call("typing", room="dm#ana,ben", on=True)
        await ana.call("room.set", room="private-typing", locked=True)
        with pytest.raises(Refused, match="402"):
            await ben.call("typing", room="private-typing", on=True)
        await ana.says("private-typing", "hi")
        await ben.hears("message", "private-typing")
        assert heard(ben, "typing") == []


async def test_a_slow_room_does_not_count_typing(nodes: tuple[Daemon, ...]) -> None:
    async with person(nodes[0], "ana") as ana, person(nodes[1], "ben") as ben:
        await ana.call("room.create", room="slow", public=True)
        await ana.call("room.set", room="slow", slow=3600)
        await ben.call("typing", room="slow", on=True)
        await ben.says("slow", "my one word")


# --- reading ----------------------------------------------------------------------------------------------------------


async def test_a_cursor_goes_forward_only_and_no_further_than_the_room_and_other_devices_hear_of_it(
    nodes: tuple[Daemon, ...],
) -> None:
    async with person(nodes[0], "ana") as ana, person(nodes[1], "ana") as phone:
        for text in ("one", "two", "three"):
            await ana.says("read", text)
        assert await ana.call("read", room="read", offset=2) == {"offset": 2}
        told = await phone.hears("read", "#ana")
        assert (told["data"], "offset" in told) == ({"room": "read", "offset": 2}, False)
        assert await phone.call("read", room="read", offset=1) == {"offset": 2}
        assert await phone.call("read", room="read", offset=99) == {"offset": 3}
        assert (await phone.hears("read", "#ana"))["data"] == {"room": "read", "offset": 3}
        assert heard(phone, "read") == []


async def test_unread_is_counted_for_many_rooms_at_once(nodes: tuple[Daemon, ...]) -> None:
    async with person(nodes[0], "ana") as ana, person(nodes[1], "ben") as ben:
        for room, messages in (("unread-a", 3), ("unread-b", 1)):
            for n in range(messages):
                await ana.says(room, f"{n}")
        await ana.call("room.create", room="private-unread", public=False)
        await ben.call("read", room="unread-a", offset=2)
        counts = await ben.call("unread", rooms=["unread-a", "unread-b", "unread-c", "private-unread", "#ana"])
        assert counts == {"unread-a": 1, "unread-b": 1, "unread-c": 0}
        await ana.says("private-unread", "before")
        await ana.call("room.invite", room="private-unread", user="ben")
        await ana.says("private-unread", "after")
        assert await ben.call("unread", rooms=["private-unread"]) == {"private-unread": 1}
        assert await ana.call("unread", rooms=["private-unread"]) == {"private-unread": 2}


async def test_unread_leaves_out_what_one_may_not_read(nodes: tuple[Daemon, ...]) -> None:
    async with person(nodes[0], "ana") as ana, person(nodes[1], "ben") as ben, person(nodes[1], "eve") as eve:
        rooms = ["later-unread", "now-unread"]
        for room in rooms:
            await ana.call("room.create", room=room, public=True)
            await ana.says(room, "one")
            await ana.call("room.invite", room=room, user="ben")
            await ana.says(room, "two")
        assert await ana.call("unread", rooms=rooms) == {"later-unread": 2, "now-unread": 2}
        assert await ben.call("unread", rooms=rooms) == {"later-unread": 1, "now-unread": 0}
        assert await eve.call("unread", rooms=rooms) == {"later-unread": 0, "now-unread": 0}
        await eve.joins("later-unread")
        await ana.says("later-unread", "three")
        assert await eve.call("unread", rooms=rooms) == {"later-unread": 1, "now-unread": 0}


@pytest.mark.parametrize(
    ("method", "data", "code"),
    [
        ("unread", {"rooms": [f"r{n}" for n in range(UNREAD_ROOMS + 1)]}, 106),
        ("unread", {"rooms": [""]}, 107),
        ("read", {"room": "x", "offset": -1}, 107),
        ("read", {"room": "private-x", "offset": 1}, 103),
        ("typing", {"room": "", "on": True}, 107),
        ("typing", {"room": "x", "on": "yes"}, 107),
    ],
)
async def test_what_cannot_be_is_refused(
    nodes: tuple[Daemon, ...], method: str, data: dict[str, Any], code: int
) -> None:
    async with person(nodes[0], "ana") as ana:
        with pytest.raises(Refused) as refused:
            await ana.call(method, **data)
        assert refused.value.code == code


@pytest.mark.parametrize(
    ("since", "cursor", "floor", "unread"),
    [
        (0, NOWHERE, 0, 9),
        (0, Position("e", 4), 0, 5),
        (6, Position("e", 4), 0, 3),
        (0, Position("e", 4), 7, 2),
        (0, Position("other", 8), 0, 9),
        (0, Position("e", 12), 0, 0),
    ],
)
def test_unread_is_what_came_after_the_cursor_in_this_epoch(
    since: int, cursor: Position, floor: int, unread: int
) -> None:
    assert unread_in(Standing(since=since, top=Position("e", 9)), cursor, floor) == unread


# --- who may read what was said before --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("history_for", "member", "role", "came_at", "floor"),
    [
        ("all", Role.NOBODY, Role.GUEST, None, 0),
        ("since_join", Role.MEMBER, Role.MEMBER, 8, 5),
        ("since_join", Role.NOBODY, Role.GUEST, 8, 8),
        ("since_join", Role.NOBODY, Role.MEMBER, 8, 8),
        ("since_join", Role.NOBODY, Role.GUEST, None, 9),
        ("since_join", Role.MODERATOR, Role.MODERATOR, None, 0),
        ("none", Role.MEMBER, Role.MEMBER, 8, 9),
        ("none", Role.NOBODY, Role.MODERATOR, 8, 0),
    ],
)
def test_how_far_back_one_reads(history_for: str, member: Role, role: Role, came_at: int | None, floor: int) -> None:
    standing = Standing(exists=True, role=member, since=5, top=Position("e", 9))
    assert reads_above(history_for, standing, role, came_at) == floor


async def offsets(somebody: Person, room: str) -> list[list[int]]:
    """What history shows, in all three ways of asking, each without what the room says of itself."""
    forward = (await somebody.ask(history={"channel": room, "limit": 50})).get("publications", [])
    back = (await somebody.ask(history={"channel": room, "limit": 50, "reverse": True})).get("publications", [])
    folded = (await somebody.call("message.history", room=room))["messages"]
    return [[m["offset"] for m in page] for page in (forward, back[::-1], folded)]


async def test_a_member_reads_what_was_said_since_they_came_and_a_guest_since_they_subscribed(
    nodes: tuple[Daemon, ...],
) -> None:
    async with person(nodes[0], "ana") as ana, person(nodes[1], "ben") as ben, person(nodes[1], "eve") as eve:
        await ana.call("room.create", room="later-1", public=True)
        await ana.says("later-1", "one")
        await ana.call("room.invite", room="later-1", user="ben")
        await ana.says("later-1", "two")
        place = await eve.joins("later-1")
        assert await offsets(eve, "later-1") == [[]] * 3
        await ana.says("later-1", "three")
        await eve.hears("message", "later-1")
        assert await offsets(ana, "later-1") == [[1, 2, 3]] * 3
        assert await offsets(ben, "later-1") == [[2, 3]] * 3
        assert await offsets(eve, "later-1") == [[3]] * 3
        again = {"recover": True, "epoch": place["epoch"]}
        assert (await ben.joins("later-1", offset=1, **again))["recovered"] is True
        async with person(nodes[0], "ben") as phone, person(nodes[0], "eve") as elsewhere:
            assert "recovered" not in await phone.joins("later-1", offset=0, **again)
            assert "recovered" not in await elsewhere.joins("later-1", offset=2, **again)


async def test_where_history_is_for_nobody_only_moderators_read_it(nodes: tuple[Daemon, ...]) -> None:
    async with person(nodes[0], "ana") as ana, person(nodes[1], "ben") as ben:
        await ana.call("room.create", room="now-1", public=True, members=["ben"])
        place = await ben.joins("now-1")
        await ana.says("now-1", "one")
        await ben.hears("message", "now-1")
        assert await offsets(ana, "now-1") == [[1]] * 3
        assert await offsets(ben, "now-1") == [[]] * 3
        async with person(nodes[0], "ben") as phone:
            assert "recovered" not in await phone.joins("now-1", recover=True, epoch=place["epoch"], offset=0)


# --- without limits ---------------------------------------------------------------------------------------------------


async def test_where_every_limit_is_0_there_is_none(tmp_path: Path) -> None:
    zeros = "\n".join(f"{name} = 0" for name, limit in options(Limits).items() if not limit.metadata["option"].least)
    with cluster(tmp_path, f"[limits]\n{zeros}", nodes=1) as (node,):
        async with person(node, "ana", name="Ana Lima") as ana:
            place = await ana.joins("unbounded")
            for text in ("one", "two"):
                await ana.says("unbounded", text)
            assert await offsets(ana, "unbounded") == [[1, 2]] * 3
            page = await ana.ask(history={"channel": "unbounded", "limit": -1})
            assert len(page["publications"]) == 2
            async with person(node, "ana") as again:
                assert (await again.joins("unbounded", recover=True, epoch=place["epoch"], offset=0))["recovered"]
            assert [each["name"] for each in node.ask("who")["connections"]] == ["Ana Lima"]
