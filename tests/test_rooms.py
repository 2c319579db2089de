"""Rooms that somebody created: who may come in, what each may do there, and that it holds on every node at once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Daemon
from tests.people import Person, Refused, cluster, person, token
from tests.servers import redis_sentinel

CONFIG = """
[rooms."*"]
create = "anybody"
[rooms."fixed-*"]
create = "nobody"
[rooms."team-*"]
public = false
create = "moderator"
[rooms."brief-*"]
idle = "0.1s"
[cluster]
sweep = "0.3s"
[limits]
members = 3
rooms_per_user = 40
"""


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Daemon, ...]]:
    with cluster(tmp_path_factory.mktemp("rooms"), CONFIG) as both:
        yield both


async def refused(asking: Any) -> int:
    with pytest.raises(Refused) as refusal:
        await asking
    return refusal.value.code


async def test_a_private_room_is_entered_by_invitation_which_is_told_on_the_personal_channel(
    nodes: tuple[Daemon, ...],
) -> None:
    async with person(nodes[0], "ana") as ana, person(nodes[1], "ben") as ben, person(nodes[1], "eve") as eve:
        await ana.call("room.create", room="den", public=False, topic="ours", keys={"colour": "red"})
        assert await refused(ben.joins("den")) == 103
        await ana.call("room.invite", room="den", user="ben")
        assert (await ben.hears("invite", "#ben"))["data"] == {"room": "den", "by": "ana"}
        await ben.joins("den")
        assert await ben.says("den", "here I am") == 1
        assert await refused(eve.joins("den")) == 103
        assert await refused(eve.call("room.join", room="den")) == 103
        assert await refused(eve.call("room.info", room="den")) == 103
        info = await ben.call("room.info", room="den")
        assert {key: info[key] for key in ("public", "topic", "keys", "members", "role", "by", "offset")} == {
            "public": False, "topic": "ours", "keys": {"colour": "red"}, "members": 2, "role": "member", "by": "ana",
            "offset": 1,
        }  # fmt: skip
        assert [(m["user"], m["role"]) for m in (await ben.call("room.members", room="den"))["members"]] == [
            ("ana", "owner"),
            ("ben", "member"),
        ]


@pytest.mark.parametrize(
    ("room", "claims", "code"),
    [
        ("fixed-1", {}, 103),
        ("team-1", {}, 103),
        ("team-1", {"rooms": [{"pattern": "team-*", "role": "member"}]}, 103),
        ("team-1", {"rooms": [{"pattern": "team-*", "role": "moderator"}]}, None),
        ("team-1", {"rooms": [{"pattern": "team-*", "role": "moderator"}]}, 406),
        ("#ana", {}, 107),
        ("dm#ana,ben", {}, 107),
    ],
)
async def test_who_may_create_a_room_is_what_its_pattern_says(
    nodes: tuple[Daemon, ...], room: str, claims: dict[str, Any], code: int | None
) -> None:
    async with person(nodes[0], "ana", **claims) as ana:
        creating = ana.call("room.create", room=room, public=True)
        if code is None:
            assert await creating == {}
        else:
            assert await refused(creating) == code


async def test_nobody_takes_over_a_room_in_which_others_talk(nodes: tuple[Daemon, ...]) -> None:
    async with person(nodes[0], "ana") as ana, person(nodes[1], "eve") as eve:
        await ana.says("square", "hi")
        assert await refused(eve.call("room.create", room="square", public=False)) == 406
        await ana.joins("silent-square")
        await present(ana, "silent-square", 1)
        assert await refused(eve.call("room.create", room="silent-square", public=False)) == 406
        assert (await ana.call("room.info", room="square"))["created"] is None


async def present(somebody: Person, room: str, clients: int) -> None:
    while (await somebody.ask(presence_stats={"channel": room}))["num_clients"] != clients:
        await asyncio.sleep(0.01)


async def staffed(node: Daemon, room: str, public: bool) -> None:
    """A room of ana's with the moderator mod and the member ben."""
    async with person(node, "ana") as ana:
        await ana.call("room.create", room=room, public=public, members=["mod", "ben"])
        await ana.call("room.role", room=room, user="mod", role="moderator")


ACTS = [
    ("room.set", {"topic": "t"}, {"ana", "mod"}),
    ("room.set", {"locked": False}, {"ana", "mod"}),
    ("room.set", {"public": False}, {"ana"}),
    ("room.invite", {"user": "ben"}, {"ana", "mod", "ben"}),
    ("room.role", {"user": "ben", "role": "moderator"}, {"ana"}),
    ("room.role", {"user": "mod", "role": "owner"}, {"ana"}),
    ("room.role", {"user": "ana", "role": "nobody"}, set()),
    ("room.delete", {}, {"ana"}),
]


@pytest.mark.parametrize(("n", "act"), list(enumerate(ACTS)))
async def test_each_role_may_do_what_is_its_own(
    nodes: tuple[Daemon, ...], n: int, act: tuple[str, dict[str, Any], set[str]]
) -> None:
    method, data, allowed = act
    room = f"acts-{n}"
    await staffed(nodes[0], room, public=False)
    for user in ("eve", "ben", "mod", "ana"):
        async with person(nodes[1], user) as somebody:
            acting = somebody.call(method, room=room, **data)
            if user in allowed:
                assert await acting == {}
            else:
                assert await refused(acting) == 103


async def test_whoever_is_removed_is_out_on_every_node_when_the_call_returns(nodes: tuple[Daemon, ...]) -> None:
    await staffed(nodes[0], "strict", public=False)
    async with person(nodes[0], "mod") as mod, person(nodes[1], "ben") as ben, person(nodes[0], "ben") as phone:
        await ben.joins("strict")
        await phone.joins("strict")
        await mod.call("room.role", room="strict", user="ben", role="nobody")
        assert await refused(ben.says("strict", "still here?")) == 103
        told = await ben.sees("unsubscribe", "strict")
        assert told == {"code": 2000, "reason": "this room is not open to you any more"}
        await phone.sees("unsubscribe", "strict")
        assert (await ben.hears("role", "#ben"))["data"] == {"room": "strict", "role": "nobody", "by": "mod"}
        assert await refused(ben.joins("strict")) == 103
        assert "strict" not in [entry["room"] for entry in (await ben.call("room.list", mine=True))["rooms"]]


async def test_a_room_made_private_keeps_members_and_those_who_showed_a_token_for_it(nodes: tuple[Daemon, ...]) -> None:
    await staffed(nodes[0], "closing", public=True)
    async with (
        person(nodes[0], "ana") as ana,
        person(nodes[1], "ben") as ben,
        person(nodes[1], "eve") as eve,
        person(nodes[0], "guest") as guest,
    ):
        await ben.joins("closing")
        await eve.joins("closing")
        await guest.joins("closing", token=token("guest", channel="closing"))
        await ana.call("room.set", room="closing", public=False)
        await eve.sees("unsubscribe", "closing")
        await ana.says("closing", "among ourselves")
        await ben.hears("message", "closing")
        await guest.hears("message", "closing")
        assert not [push for push in eve.pushes if push.get("pub", {}).get("data") == {"text": "among ourselves"}]


async def test_the_last_owner_stays_until_there_is_another(nodes: tuple[Daemon, ...]) -> None:
    await staffed(nodes[0], "owned", public=True)
    async with person(nodes[0], "ana") as ana:
        for leaving in (
            ana.call("room.leave", room="owned"),
            ana.call("room.role", room="owned", user="ana", role="member"),
            ana.call("room.role", room="owned", user="ana", role="nobody"),
        ):
            with pytest.raises(Refused, match="last owner"):
                await leaving
        await ana.call("room.role", room="owned", user="mod", role="owner")
        await ana.call("room.leave", room="owned")
        assert (await ana.call("room.info", room="owned"))["role"] == "guest"


async def test_a_public_room_is_joined_and_left_at_will_up_to_its_bound(nodes: tuple[Daemon, ...]) -> None:
    async with person(nodes[0], "ana") as ana, person(nodes[1], "ben") as ben, person(nodes[1], "eve") as eve:
        await ana.call("room.create", room="club", public=True, members=["mod"])
        await ben.call("room.join", room="club")
        await ben.call("room.join", room="club")
        assert (await ben.call("room.info", room="club"))["role"] == "member"
        assert await refused(eve.call("room.join", room="club")) == 415
        assert (await eve.call("room.list", mine=True))["rooms"] == []
        await ben.call("room.leave", room="club")
        await eve.call("room.join", room="club")
        assert await refused(ben.call("room.join", room="nowhere")) == 404


async def test_a_user_belongs_to_a_bounded_number_of_rooms(nodes: tuple[Daemon, ...]) -> None:
    async with person(nodes[0], "greedy") as greedy:
        for n in range(40):
            await greedy.call("room.create", room=f"greedy-{n:02}", public=False)
        assert await refused(greedy.call("room.create", room="greedy-40", public=False)) == 415
        await greedy.call("room.delete", room="greedy-00")
        await greedy.call("room.create", room="greedy-40", public=False)
        first = await greedy.call("room.list", mine=True, limit=30)
        rest = await greedy.call("room.list", mine=True, after=first["next"], limit=30)
        assert [entry["room"] for entry in first["rooms"] + rest["rooms"]] == [f"greedy-{n:02}" for n in range(1, 41)]
        assert rest["next"] == ""


async def test_the_list_shows_each_the_rooms_they_may_read(nodes: tuple[Daemon, ...]) -> None:
    async with person(nodes[0], "ana") as ana, person(nodes[1], "ben") as ben:
        await ana.call("room.create", room="list-a", public=True, topic="open")
        await ana.call("room.create", room="list-b", public=False)
        await ana.call("room.create", room="list-c", public=False, members=["ben"])

        async def seen(by: Person) -> list[tuple[str, str]]:
            page = await by.call("room.list", after="list-", limit=3)
            assert page["next"] == "list-c"
            return [(entry["room"], entry["role"]) for entry in page["rooms"]]

        assert await seen(ana) == [("list-a", "owner"), ("list-b", "owner"), ("list-c", "owner")]
        assert await seen(ben) == [("list-a", "guest"), ("list-c", "member")]


async def test_what_is_set_holds_at_once_and_is_told_in_the_rooms_order(nodes: tuple[Daemon, ...]) -> None:
    await staffed(nodes[0], "changing", public=True)
    async with person(nodes[0], "mod") as mod, person(nodes[1], "ben") as ben:
        await ben.joins("changing")
        await mod.call("room.set", room="changing", topic=" one\nline ", locked=True, keys={"a": "1", "b": "2"})
        told = await ben.hears("room", "changing")
        assert told["data"] == {"topic": "one line", "locked": True, "keys": {"a": "1", "b": "2"}, "by": "mod"}
        assert "info" not in told
        assert await refused(ben.says("changing", "hi")) == 402
        assert await mod.says("changing", "quiet, please") == told["offset"] + 1
        await mod.call("room.set", room="changing", locked=False, slow="1h", keys={"a": None})
        assert (await ben.hears("room", "changing"))["data"] == {
            "locked": False, "slow": 3600, "keys": {"a": None}, "by": "mod",
        }  # fmt: skip
        once = await ben.says("changing", "once")
        with pytest.raises(Refused, match="slow") as slow:
            await ben.says("changing", "twice")
        assert slow.value.retry_after_ms
        assert await ben.call("message.delete", room="changing", offset=once), "what one regrets need not stand so long"
        info = await ben.call("room.info", room="changing")
        assert (info["topic"], info["slow"], info["keys"]) == ("one line", 3600, {"b": "2"})


@pytest.mark.parametrize(("slow", "held"), [("0.4ms", 0), (0.0006, 0.001), (1.001, 1.001)])
async def test_how_slow_a_room_is_said_to_be_it_is(nodes: tuple[Daemon, ...], slow: float | str, held: float) -> None:
    room = f"slowly-{held}"
    async with person(nodes[0], "owner", rooms=[{"pattern": room, "role": "owner"}]) as owner:
        await owner.joins(room)
        await owner.call("room.set", room=room, slow="1h")
        await owner.hears("room", room)
        await owner.call("room.set", room=room, slow=slow)
        assert (await owner.hears("room", room))["data"]["slow"] == held
        assert (await owner.call("room.info", room=room))["slow"] == held


@pytest.mark.parametrize(
    ("data", "code"),
    [
        ({"slow": "soon"}, 107),
        ({"slow": -1}, 107),
        ({"slow": "2d"}, 107),
        ({"keys": {"": "x"}}, 107),
        ({"keys": {"x": "y" * 300}}, 107),
        ({"keys": {f"k{n}": "v" for n in range(17)}}, 415),
        ({"locked": "yes"}, 107),
    ],
)
async def test_what_a_room_cannot_be_is_refused(nodes: tuple[Daemon, ...], data: dict[str, Any], code: int) -> None:
    async with person(nodes[0], "owner", rooms=[{"pattern": "odd", "role": "owner"}]) as owner:
        assert await refused(owner.call("room.set", room="odd", **data)) == code


@pytest.mark.parametrize(
    ("data", "bound"),
    [
        ({"slow": -1}, "from 0 to 86400 s, -1 came"),
        ({"slow": "2d"}, "from 0 to 86400 s, 172800 came"),
        ({"topic": " y" * 129}, "at most 256 characters, 257 came"),
    ],
)
async def test_what_is_past_a_bound_is_refused_and_the_bound_named(
    nodes: tuple[Daemon, ...], data: dict[str, Any], bound: str
) -> None:
    async with person(nodes[0], "owner", rooms=[{"pattern": "odd", "role": "owner"}]) as owner:
        with pytest.raises(Refused, match=bound):
            await owner.call("room.set", room="odd", **data)


@pytest.mark.parametrize(
    ("method", "members"),
    [
        ("room.join", {}),
        ("room.leave", {}),
        ("room.invite", {"user": "tam"}),
        ("room.role", {"user": "tam", "role": "member"}),
        ("room.set", {"public": True}),
        ("room.set", {"topic": "t"}),
        ("room.delete", {}),
        ("room.info", {}),
    ],
)
async def test_a_stranger_does_not_learn_whether_there_is_a_private_room_of_that_name(
    nodes: tuple[Daemon, ...], method: str, members: dict[str, Any]
) -> None:
    here = f"team-{method}-{len(members)}"
    await asyncio.to_thread(nodes[0].cli, "room", "create", here, check=None)
    heard = []
    async with person(nodes[0], "eve") as eve:
        for room in (here, "team-nowhere"):
            try:
                heard.append(await eve.call(method, room=room, **members))
            except Refused as refusal:
                heard.append((refusal.code, str(refusal)))
    assert heard[0] == heard[1]


async def test_a_deleted_room_is_left_by_all_and_begins_anew(nodes: tuple[Daemon, ...]) -> None:
    await staffed(nodes[0], "doomed", public=False)
    async with person(nodes[0], "ana") as ana, person(nodes[1], "ben") as ben:
        first = await ben.joins("doomed")
        await ben.says("doomed", "hello")
        await ana.call("room.delete", room="doomed")
        assert (await ben.sees("unsubscribe", "doomed"))["reason"] == "the room was deleted"
        assert "doomed" not in [entry["room"] for entry in (await ben.call("room.list", mine=True))["rooms"]]
        await ana.call("room.create", room="doomed", public=True)
        anew = await ben.joins("doomed", recover=True, epoch=first["epoch"], offset=0)
        assert not anew.get("recovered")
        assert (await ana.call("room.info", room="doomed"))["offset"] == 0


async def test_a_users_other_devices_hear_that_he_has_come_and_gone(nodes: tuple[Daemon, ...]) -> None:
    async with person(nodes[0], "ana") as ana, person(nodes[0], "ben") as phone, person(nodes[1], "ben") as desk:
        await ana.call("room.create", room="open-door", public=True)
        for method, role in (("room.join", "member"), ("room.leave", "nobody")):
            for _ in range(2):
                await phone.call(method, room="open-door")
            for each in (phone, desk):
                assert (await each.hears("role", "#ben"))["data"] == {"room": "open-door", "role": role, "by": "ben"}
        await desk.call("room.list")
        assert not [push for push in desk.pushes if push.get("pub", {}).get("tags", {}).get("type") == "role"]


async def test_who_belonged_to_a_deleted_room_hears_of_it_wherever_he_is(nodes: tuple[Daemon, ...]) -> None:
    await staffed(nodes[0], "dropped", public=True)
    async with (
        person(nodes[0], "ana") as phone,
        person(nodes[1], "ana") as desk,
        person(nodes[1], "ben") as ben,
        person(nodes[1], "eve") as eve,
    ):
        await phone.call("room.delete", room="dropped")
        for each, user in ((phone, "ana"), (desk, "ana"), (ben, "ben")):
            told = {"room": "dropped", "role": "nobody", "by": "ana"}
            assert (await each.hears("role", f"#{user}"))["data"] == told
        await phone.call("room.create", room="dropped", public=True, members=["ben"])
        await ben.hears("invite", "#ben")
        nodes[1].cli("room", "delete", "dropped", "--yes")
        assert (await ben.hears("role", "#ben"))["data"] == {"room": "dropped", "role": "nobody", "by": ""}
        await eve.call("room.list")
        assert not [push for push in eve.pushes if push.get("pub")]


async def test_an_idle_room_is_taken_away_by_itself_and_one_with_a_reader_is_not(nodes: tuple[Daemon, ...]) -> None:
    async with person(nodes[0], "ana") as ana, person(nodes[1], "ben") as ben:
        await ben.joins("brief-read")
        await present(ben, "brief-read", 1)
        nodes[0].cli("room", "create", "brief-read", "--public")
        await ana.call("room.create", room="brief-empty", public=True)
        while (await ana.call("room.info", room="brief-empty"))["created"]:
            await asyncio.sleep(0.05)
        assert (await ana.call("room.info", room="brief-read"))["created"]


async def test_an_operator_does_the_same_from_the_command_line_without_being_named(nodes: tuple[Daemon, ...]) -> None:
    there, here = nodes
    async with person(there, "ana"), person(here, "ben") as ben, person(there, "mod") as mod:
        here.cli("room", "create", "fixed-cli", "--owner", "ana", "--member", "ben", "--topic", "t", "--key", "a=1")
        assert (await ben.hears("invite", "#ben"))["data"] == {"room": "fixed-cli", "by": "ana"}
        await ben.joins("fixed-cli")
        here.cli("room", "invite", "fixed-cli", "mod")
        assert (await mod.hears("invite", "#mod"))["data"] == {"room": "fixed-cli", "by": ""}
        here.cli("room", "role", "fixed-cli", "mod", "moderator")
        here.cli("room", "lock", "fixed-cli")
        assert (await ben.hears("room", "fixed-cli"))["data"] == {"locked": True, "by": ""}
        assert await refused(ben.says("fixed-cli", "hi")) == 402
        await mod.says("fixed-cli", "locked")
        here.cli("room", "unlock", "fixed-cli")
        here.cli("room", "slow", "fixed-cli", "1h")
        here.cli("room", "set", "fixed-cli", "--topic", "new", "--key", "a=", "--key", "b=2")
        info = await ben.call("room.info", room="fixed-cli")
        assert (info["locked"], info["slow"], info["topic"], info["keys"]) == (False, 3600, "new", {"b": "2"})
        shown = here.ask("room", "members", "fixed-cli")["members"]
        assert [(entry["user"], entry["role"], entry["online"]) for entry in shown] == [
            ("ana", "owner", True),
            ("ben", "member", True),
            ("mod", "moderator", True),
        ]
        assert "fixed-cli\t1\t1\n" in here.cli("rooms", "--all")
        here.cli("room", "remove", "fixed-cli", "ben")
        await ben.sees("unsubscribe", "fixed-cli")
        here.cli("room", "remove", "fixed-cli", "ana", check=1)
        here.cli("room", "lock", "fixed-cli")
        here.cli("room", "delete", "fixed-cli", "--yes")
        here.cli("room", "delete", "fixed-cli", "--yes", check=4)
        here.cli("room", "members", "fixed-cli", check=4)
        assert "fixed-cli" not in here.cli("rooms", "--all")


async def test_what_comes_with_a_new_room_is_checked_before_and_who_is_in_too_many_is_named(
    nodes: tuple[Daemon, ...],
) -> None:
    async with person(nodes[0], "ana") as ana:
        assert await refused(ana.call("room.create", room="crowded", public=True, members=["b", "c", "d"])) == 415
        assert await refused(ana.call("room.create", room="crowded", public=True, members=[""])) == 107
        assert (await ana.call("room.info", room="crowded"))["created"] is None
        async with person(nodes[1], "busy") as busy:
            mine = len((await busy.call("room.list", mine=True))["rooms"])
            for n in range(mine, 40):
                await busy.call("room.create", room=f"busy-{n}", public=False)
        with pytest.raises(Refused, match="busy"):
            await ana.call("room.create", room="crowded", public=True, members=["busy", "ben"])
        assert [m["user"] for m in (await ana.call("room.members", room="crowded"))["members"]] == ["ana", "ben"]


async def test_the_muted_put_neither_words_nor_people_into_a_room(nodes: tuple[Daemon, ...]) -> None:
    await staffed(nodes[0], "hushed", public=True)
    nodes[1].cli("mute", "add", "mod", "--room", "hushed")
    async with person(nodes[0], "mod") as mod:
        for asking in (
            mod.call("room.set", room="hushed", topic="shouting"),
            mod.call("room.invite", room="hushed", user="eve"),
            mod.call("typing", room="hushed", on=True),
        ):
            assert await refused(asking) == 401
        await mod.call("room.role", room="hushed", user="ben", role="nobody")


async def test_a_room_that_is_deleted_without_a_replica_puts_its_readers_out_all_the_same(tmp_path: Path) -> None:
    async with redis_sentinel(tmp_path) as group:
        environ = {"CHATD_REDIS__URL": group.master.url, "CHATD_REDIS__WAIT_REPLICAS": "1"}
        with cluster(tmp_path, nodes=1, **environ) as (node,):
            node.cli("room", "create", "club", "--public")
            async with person(node, "ana") as ana:
                await ana.joins("club")
                group.replica.pause()
                await asyncio.to_thread(node.cli, "room", "delete", "club", "--yes", check=75)
                assert await ana.sees("unsubscribe", "club")
