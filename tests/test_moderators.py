"""What a room's moderators may do, to whom; blocking in direct rooms; reports, and what is written down of it all."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from chatd.model import ROLES, Role
from tests.conftest import Daemon
from tests.people import Person, Refused, cluster, person
from tests.test_moderation import ask, run

CONFIG = """
[rooms."*"]
create = "anybody"
[rooms."private-*"]
public = false
"""


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Daemon, ...]]:
    with cluster(tmp_path_factory.mktemp("moderators"), CONFIG) as both:
        yield both


async def refused(asking: Any) -> int:
    """The code with which it is refused; 0: it is not."""
    try:
        await asking
    except Refused as refusal:
        return refusal.code
    return 0


def as_role(role: str, room: str) -> dict[str, Any]:
    """A token's claims that give a role."""
    return {"rooms": [{"pattern": room, "role": role}]}


async def test_a_moderators_mute_holds_on_all_nodes_is_told_and_taken_back(nodes: tuple[Daemon, ...]) -> None:
    room = "mod-mute"
    async with person(nodes[0], "mia", **as_role("moderator", room)) as mia, person(nodes[1], "ana") as ana:
        before = time.time()
        until = (await mia.call("mod.mute", room=room, user="ana", for_="10m", reason="caps"))["until"]
        assert before + 599 < until < time.time() + 601
        with pytest.raises(Refused, match="muted: caps") as no:
            await ana.says(room, "HI")
        assert no.value.code == 401
        notice = await ana.hears("mute", "#ana")
        assert notice["data"] == {"room": room, "reason": "caps", "until": until, "by": "mia"}
        assert await mia.call("mod.unmute", room=room, user="ana") == {}
        assert (await ana.hears("unmute", "#ana"))["data"] == {"room": room, "by": "mia"}
        await ana.says(room, "hi")
        assert await refused(mia.call("mod.unmute", room=room, user="ana")) == 404
        assert await mia.call("mod.mute", room=room, user="ana") == {"until": None}


async def test_a_moderators_ban_puts_out_and_keeps_out(nodes: tuple[Daemon, ...]) -> None:
    room = "mod-ban"
    async with person(nodes[0], "mia", **as_role("moderator", room)) as mia, person(nodes[1], "ana") as ana:
        await ana.joins(room)
        assert (await mia.call("mod.ban", room=room, user="ana", for_=60, reason="ads"))["until"] > time.time()
        assert await ana.sees("unsubscribe", room) == {"code": 2000, "reason": "ads"}
        assert await refused(ana.joins(room)) == 403
        await mia.call("mod.unban", room=room, user="ana")
        await ana.joins(room)
        await mia.call("mod.ban", room=room, user="ana")
        assert await ana.sees("unsubscribe", room) == {"code": 2000, "reason": "banned from this room"}


async def test_a_kick_puts_out_and_for_a_while_keeps_out(nodes: tuple[Daemon, ...]) -> None:
    room = "mod-kick"
    async with (
        person(nodes[0], "mia", **as_role("moderator", room)) as mia,
        person(nodes[0], "ana") as here,
        person(nodes[1], "ana") as there,
    ):
        for ana in (here, there):
            await ana.joins(room)
        assert await mia.call("mod.kick", room=room, user="ana", reason="enough") == {"closed": 2}
        for ana in (here, there):
            assert (await ana.sees("unsubscribe", room))["reason"] == "enough"
            await ana.joins(room)
        assert await mia.call("mod.kick", room=room, user="ana", for_="1h") == {"closed": 2}
        assert await refused(there.joins(room)) == 403


async def test_a_kick_is_of_users_and_not_of_connections(nodes: tuple[Daemon, ...]) -> None:
    room = "mod-client"
    async with (
        person(nodes[0], "mia", **as_role("moderator", room)) as mia,
        person(nodes[1], "oda", **as_role("owner", room)) as oda,
    ):
        await oda.joins(room)
        [entry] = (await ask(nodes[0], "who", room))["connections"]
        assert await mia.call("mod.kick", room=room, user=entry["id"]) == {"closed": 0}


@pytest.mark.parametrize("target_by", ["token", "membership"])
@pytest.mark.parametrize("actor_by", ["token", "membership"])
async def test_who_acts_must_be_more_than_who_is_acted_on_however_they_came_to_it(
    nodes: tuple[Daemon, ...], actor_by: str, target_by: str
) -> None:
    for actor in ("guest", "member", "moderator", "owner"):
        for target in ("guest", "member", "moderator", "owner"):
            room = f"rank-{actor_by}-{target_by}-{actor}-{target}"
            async with person(nodes[0], "zoe") as creator:
                await creator.call("room.create", room=room, public=True)
                for user, by, role in (("act", actor_by, actor), ("tgt", target_by, target)):
                    if by == "membership":
                        await creator.call("room.role", room=room, user=user, role=role)
            may = ROLES[actor] >= Role.MODERATOR and ROLES[actor] > ROLES[target]
            async with (
                person(nodes[0], "act", **(as_role(actor, room) if actor_by == "token" else {})) as acting,
                person(nodes[1], "tgt", **(as_role(target, room) if target_by == "token" else {})) as acted_on,
            ):
                await acted_on.joins(room)
                codes = [
                    await refused(acting.call(method, room=room, user="tgt"))
                    for method in ("mod.mute", "mod.kick", "mod.ban", "mod.unban", "mod.unmute")
                ]
                assert codes == ([0] * 5 if may else [103] * 5), (actor, target)
                assert await refused(acting.call("mod.mute", room=room, user="act")) == 103


async def test_who_comes_later_with_a_token_of_the_same_rank_is_not_covered(nodes: tuple[Daemon, ...]) -> None:
    room = "later"
    async with person(nodes[0], "mia", **as_role("moderator", room)) as mia:
        await mia.call("mod.mute", room=room, user="pat")
    async with person(nodes[1], "pat", **as_role("moderator", room)) as pat:
        await pat.says(room, "hi")
    async with person(nodes[1], "pat", **as_role("member", room)) as pat:
        assert await refused(pat.says(room, "hi")) == 401


async def test_what_somebody_above_has_put_in_force_a_moderator_leaves_alone(nodes: tuple[Daemon, ...]) -> None:
    room = "above"
    async with (
        person(nodes[0], "mia", **as_role("moderator", room)) as mia,
        person(nodes[1], "oda", **as_role("owner", room)) as oda,
    ):
        await oda.call("mod.mute", room=room, user="ana", for_="1h")
        assert await refused(mia.call("mod.mute", room=room, user="ana", for_="1s")) == 103
        assert await refused(mia.call("mod.unmute", room=room, user="ana")) == 103
        await run(nodes[0], "ban", "add", "ana", "--room", room)
        assert await refused(oda.call("mod.unban", room=room, user="ana")) == 103
        await oda.call("mod.unmute", room=room, user="ana")


async def test_what_somebody_above_has_put_in_force_binds_no_longer_than_it_lasts(nodes: tuple[Daemon, ...]) -> None:
    room = "above-ended"
    async with (
        person(nodes[0], "mia", **as_role("moderator", room)) as mia,
        person(nodes[0], "oda", **as_role("owner", room)) as oda,
    ):
        await oda.call("mod.mute", room=room, user="ana", for_="1ms")
        await mia.call("mod.mute", room=room, user="ana")


@pytest.mark.parametrize("method", ["mod.kick", "mod.mute", "mod.ban"])
@pytest.mark.parametrize("data", [{"user": ""}, {"user": "ana", "for_": "soon"}, {"user": "ana", "for_": -1},
                                  {"user": "ana", "for_": 0}, {"user": "ana", "for_": True},
                                  {"user": "ana", "for_": 1e300}, {}])  # fmt: skip
async def test_what_is_no_act_of_a_moderator_is_refused(
    nodes: tuple[Daemon, ...], method: str, data: dict[str, Any]
) -> None:
    async with person(nodes[0], "mia", **as_role("moderator", "bad")) as mia:
        assert await refused(mia.call(method, room="bad", **data)) == 107


async def test_direct_rooms_and_personal_channels_have_no_moderators(nodes: tuple[Daemon, ...]) -> None:
    async with person(nodes[0], "ana", rooms=[{"pattern": "*", "role": "owner"}]) as ana:
        for room in ("dm#ana,ben", "dm#ben,cem", "#ana", "#ben"):
            assert await refused(ana.call("mod.mute", room=room, user="ben")) == 103


# --- blocking ---------------------------------------------------------------------------------------------------------


async def test_whoever_is_blocked_writes_no_direct_message_and_hears_why(nodes: tuple[Daemon, ...]) -> None:
    room = "dm#ana,eve"
    async with person(nodes[0], "ana") as ana, person(nodes[1], "eve") as eve:
        await ana.joins(room)
        first = await eve.says(room, "hi")
        assert await ana.call("user.block", user="eve", on=True) == {}
        for method, data in (
            ("message.send", {"text": "hi"}),
            ("message.edit", {"offset": first, "text": "ho"}),
            ("message.react", {"offset": first, "kind": "x"}),
            ("typing", {"on": True}),
        ):
            assert await refused(eve.call(method, room=room, **data)) == 412, method
        await ana.says(room, "I can still write")
        await eve.says("lobby", "and I elsewhere")
        assert await refused(eve.call("room.join", room=room)) in (103, 107)
        assert (await eve.call("room.list", mine=True))["rooms"] == []
        info = await eve.call("room.info", room=room)
        assert (info["created"], info["public"]) == (None, False)
        assert await ana.call("user.block", user="eve", on=False) == {}
        await eve.says(room, "thanks")


async def test_whoever_is_blocked_neither_invites_nor_is_told_of_by_mentions(nodes: tuple[Daemon, ...]) -> None:
    room = "eves-den"
    async with person(nodes[0], "kim") as kim, person(nodes[1], "eve") as eve, person(nodes[1], "ben") as ben:
        await kim.call("user.block", user="eve")
        assert await refused(eve.call("room.create", room=room, public=False, members=["kim", "ben"])) == 412
        assert await refused(eve.call("room.invite", room=room, user="kim")) == 412
        assert await refused(eve.call("room.role", room=room, user="kim", role="guest")) == 412
        assert [m["user"] for m in (await eve.call("room.members", room=room))["members"]] == ["ben", "eve"]
        assert (await kim.call("room.list", mine=True))["rooms"] == []
        await ben.call("room.invite", room=room, user="kim")
        assert (await kim.hears("invite"))["data"]["by"] == "ben"
        await eve.call("room.role", room=room, user="kim", role="guest")
        assert (await kim.hears("role"))["data"]["role"] == "guest"
        await eve.says(room, "@kim @ben", mentions=["kim", "ben"])
        assert (await ben.hears("mention"))["info"]["user"] == "eve"
        offset = await ben.says(room, "@kim", mentions=["kim"])
        heard = await kim.hears("mention")
        assert (heard["info"]["user"], heard["tags"]["of"]) == ("ben", str(offset))


async def test_whom_one_has_blocked_is_listed_to_oneself_on_any_device_until_it_ends(nodes: tuple[Daemon, ...]) -> None:
    async with person(nodes[0], "fay") as fay, person(nodes[1], "fay") as desk, person(nodes[1], "gus") as gus:
        assert await desk.call("user.blocked") == {"users": [], "next": ""}
        for user in ("hal", "gus", "ian", "gus"):
            await fay.call("user.block", user=user)
        assert await desk.call("user.blocked", limit=2) == {"users": ["gus", "hal"], "next": "hal"}
        assert await desk.call("user.blocked", after="hal") == {"users": ["ian"], "next": ""}
        assert await gus.call("user.blocked") == {"users": [], "next": ""}
        await desk.call("user.block", user="hal", on=False)
        await gus.says("lobby", "hi")
        nodes[0].ask("forget", "gus", "--yes")
        assert (await fay.call("user.blocked"))["users"] == ["ian"]
        assert await refused(fay.call("user.blocked", limit=0)) == 107


@pytest.mark.parametrize("user", ["", "ana"])
async def test_nobody_blocks_himself_or_nobody(nodes: tuple[Daemon, ...], user: str) -> None:
    async with person(nodes[0], "ana") as ana:
        assert await refused(ana.call("user.block", user=user, on=True)) == 107


# --- reports and audit ------------------------------------------------------------------------------------------------


async def test_a_report_is_listed_until_it_is_closed_and_then_stands_in_the_audit(nodes: tuple[Daemon, ...]) -> None:
    async with person(nodes[0], "eve") as eve, person(nodes[1], "ana") as ana:
        offset = await eve.says("reported", "buy!")
        id = (await ana.call("report", room="reported", offset=offset, reason="spam"))["id"]
        assert await ana.call("report", room="reported", offset=offset, reason="spam!") == {"id": id}
    [row] = (await ask(nodes[0], "reports", "ls", "--room", "reported"))["reports"]
    expected = {"id": id, "room": "reported", "offset": offset, "user": "eve", "reason": "spam", "by": "ana"}
    assert {**row, "at": None} == {**expected, "at": None}
    assert id in await run(nodes[1], "reports")
    assert (await ask(nodes[1], "reports", "--room", "reported"))["reports"] == [row]
    await run(nodes[1], "reports", "--json", "close", id, code=2)
    assert await ask(nodes[1], "reports", "close", id) == {"schema_version": 1, "closed": [id]}
    await run(nodes[1], "reports", "close", id, code=4)
    assert (await ask(nodes[0], "reports", "ls", "--room", "reported"))["reports"] == []
    assert any(act["ask"] == "report.close" and act["id"] == id for act in await audited(nodes[0]))


async def audited(node: Daemon) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (await run(node, "audit", "--json", "--since", "1h")).splitlines()]


@pytest.mark.parametrize(("room", "offset", "code"), [
    ("reported", 1 << 60, 404),
    ("nothing-here", 1, 404), ("nothing-here", 0, 404), ("nothing-here", -5, 404), ("private-1", 1, 103),
    ("", 1, 107),
])  # fmt: skip
async def test_only_what_one_may_read_can_be_reported(
    nodes: tuple[Daemon, ...], room: str, offset: int, code: int
) -> None:
    async with person(nodes[0], "ana") as ana:
        assert await refused(ana.call("report", room=room, offset=offset)) == code


async def test_every_act_says_who_did_what(nodes: tuple[Daemon, ...]) -> None:
    room = "written-down"
    async with person(nodes[0], "mia", **as_role("moderator", room)) as mia:
        await mia.call("mod.mute", room=room, user="ana", reason="caps")
        await mia.call("mod.unmute", room=room, user="ana")
        await mia.call("mod.kick", room=room, user="ana")
    acts = [act for act in await audited(nodes[1]) if act.get("room") == room]
    assert [(act["ask"], act["by"], act["target"]) for act in acts] == [
        ("impose", "mia", "ana"), ("lift", "mia", "ana"), ("kick", "mia", "ana"),
    ]  # fmt: skip
    assert acts[0]["reason"] == "caps"
    assert "impose\twhat=mute on=user target=ana" in await run(nodes[0], "audit")


async def test_a_lift_that_lifted_nothing_is_no_act(nodes: tuple[Daemon, ...]) -> None:
    await run(nodes[0], "ban", "rm", "never-banned", code=4)
    await run(nodes[0], "mute", "add", "once-muted")
    await run(nodes[1], "mute", "rm", "once-muted")
    lifted = [act["target"] for act in await audited(nodes[1]) if act["ask"] == "lift"]
    assert "never-banned" not in lifted
    assert "once-muted" in lifted


async def test_the_audit_can_be_followed(nodes: tuple[Daemon, ...]) -> None:
    arguments = [sys.executable, "-m", "chatd", *nodes[0].arguments[:2], "audit", "--since", "1h", "--follow"]
    with subprocess.Popen(arguments, env=nodes[0].environ, stdout=subprocess.PIPE, text=True) as following:
        assert following.stdout is not None
        try:
            for target in ("before", "after"):
                await run(nodes[1], "mute", "add", target)
                async with asyncio.timeout(20):
                    while f"target={target}" not in await asyncio.to_thread(following.stdout.readline):
                        pass
        finally:
            following.terminate()
            assert following.wait(20) == 0, "to be told to end is no failure"


async def hears_nothing_of(somebody: Person, kind: str) -> bool:
    return not any(push.get("pub", {}).get("tags", {}).get("type") == kind for push in somebody.pushes)


async def test_a_moderators_act_is_told_to_the_one_concerned_alone(nodes: tuple[Daemon, ...]) -> None:
    room = "discreet"
    async with (
        person(nodes[0], "mia", **as_role("moderator", room)) as mia,
        person(nodes[1], "ana") as ana,
        person(nodes[1], "ben") as ben,
    ):
        await ben.joins(room)
        await mia.call("mod.mute", room=room, user="ana")
        await ana.hears("mute")
        await mia.says(room, "over")
        await ben.hears("message")
        assert await hears_nothing_of(ben, "mute")
