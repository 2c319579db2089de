"""Who is there: by user over all devices and nodes, without flapping, and without ghosts."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Daemon
from tests.people import Person, Refused, cluster, person

CONFIG = """
[rooms."*"]
create = "anybody"
announce_up_to = 20
[rooms."small-*"]
announce_up_to = 2
[rooms."shy-*"]
presence = false
"""


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Daemon, ...]]:
    with cluster(tmp_path_factory.mktemp("presence"), CONFIG) as both:
        yield both


async def present(somebody: Person, room: str) -> tuple[int, int]:
    stats = await somebody.ask(presence_stats={"channel": room})
    return stats["num_clients"], stats["num_users"]


async def until_present(somebody: Person, room: str, clients: int, users: int) -> None:
    while await present(somebody, room) != (clients, users):
        await asyncio.sleep(0.01)


def coming_and_going(somebody: Person, room: str) -> list[tuple[str, str]]:
    """All that came and was not awaited."""
    return [
        (what, push[what]["info"]["user"])
        for push in somebody.pushes
        for what in ("join", "leave")
        if what in push and push["channel"] == room
    ]


async def joined(watcher: Person, room: str, user: str) -> None:
    assert (await watcher.sees("join", room))["info"]["user"] == user


async def test_a_user_comes_with_the_first_device_and_goes_with_the_last(nodes: tuple[Daemon, ...]) -> None:
    async with person(nodes[0], "watcher") as watcher:
        await watcher.joins("devices", join_leave=True)
        await joined(watcher, "devices", "watcher")
        async with person(nodes[0], "ana") as ana, person(nodes[1], "ana") as phone:
            await ana.joins("devices")
            await joined(watcher, "devices", "ana")
            await phone.joins("devices")
            await until_present(watcher, "devices", 3, 2)
            await ana.leaves()
            await until_present(watcher, "devices", 2, 2)
        assert (await watcher.sees("leave", "devices"))["info"]["user"] == "ana"
        assert await present(watcher, "devices") == (1, 1)
        assert coming_and_going(watcher, "devices") == []


async def test_who_loads_the_page_anew_never_left(nodes: tuple[Daemon, ...]) -> None:
    async with person(nodes[0], "watcher") as watcher, person(nodes[0], "ben") as ben:
        await watcher.joins("reload", join_leave=True)
        await joined(watcher, "reload", "watcher")
        await ben.joins("reload")
        await joined(watcher, "reload", "ben")
        for node in (1, 0, 1):
            async with person(nodes[node], "ana") as ana:
                await ana.joins("reload")
                await until_present(watcher, "reload", 3, 3)
            await until_present(watcher, "reload", 2, 2)
        await joined(watcher, "reload", "ana")
        assert (await watcher.sees("leave", "reload"))["info"]["user"] == "ana"
        assert coming_and_going(watcher, "reload") == []


async def test_above_the_bound_counts_are_told_and_no_names(nodes: tuple[Daemon, ...]) -> None:
    async with person(nodes[0], "watcher") as watcher, AsyncExitStack() as crowd:
        await watcher.joins("small-1", join_leave=True)
        await joined(watcher, "small-1", "watcher")
        for n in range(2):
            member = await crowd.enter_async_context(person(nodes[1], f"u{n}"))
            await member.joins("small-1")
            await until_present(watcher, "small-1", n + 2, n + 2)
        with pytest.raises(Refused, match="presence_stats") as refused:
            await watcher.ask(presence={"channel": "small-1"})
        assert refused.value.code == 108
        assert coming_and_going(watcher, "small-1") == [("join", "u0")]


async def test_members_are_shown_online_on_any_node_and_else_when_they_were_seen(nodes: tuple[Daemon, ...]) -> None:
    async def member(asker: Person, room: str, user: str) -> dict[str, Any]:
        found = (await asker.call("room.members", room=room))["members"]
        return next(entry for entry in found if entry["user"] == user)

    async with person(nodes[0], "ana") as ana:
        for room in ("seen", "shy-seen"):
            await ana.call("room.create", room=room, public=True, members=["new", "late"])
        async with person(nodes[1], "late"):
            late = await member(ana, "seen", "late")
            assert (late["online"], late["seen"]) == (True, None)
        while (late := await member(ana, "seen", "late"))["online"]:
            await asyncio.sleep(0.01)
        while (late := await member(ana, "seen", "late"))["seen"] is None:
            await asyncio.sleep(0.01)
        assert late["seen"] >= late["joined"]
        new = await member(ana, "seen", "new")
        assert (new["online"], new["seen"]) == (False, None)
        assert "online" not in await member(ana, "shy-seen", "late")


async def test_a_dead_nodes_people_leave_when_it_is_buried_and_those_elsewhere_stay(tmp_path: Path) -> None:
    with cluster(tmp_path, CONFIG, CHATD_LIMITS__LEAVE_DELAY="600s") as (staying, dying):
        async with (
            person(staying, "watcher") as watcher,
            person(dying, "ana") as ana,
            person(dying, "ben") as ben,
            person(staying, "ben") as phone,
        ):
            await watcher.joins("grave", join_leave=True)
            await joined(watcher, "grave", "watcher")
            for somebody, user in ((ana, "ana"), (ben, "ben")):
                await somebody.joins("grave")
                await joined(watcher, "grave", user)
            await phone.joins("grave")
            await until_present(watcher, "grave", 4, 3)
            dying.kill()
            assert (await watcher.sees("leave", "grave"))["info"]["user"] == "ana"
            await until_present(watcher, "grave", 2, 2)
            assert coming_and_going(watcher, "grave") == []


async def test_a_leave_that_waits_survives_the_node_that_noted_it(tmp_path: Path) -> None:
    with cluster(tmp_path, CONFIG, CHATD_LIMITS__LEAVE_DELAY="1s") as (staying, dying):
        async with person(staying, "watcher") as watcher:
            await watcher.joins("noted", join_leave=True)
            await joined(watcher, "noted", "watcher")
            async with person(dying, "ana") as ana:
                await ana.joins("noted")
                await joined(watcher, "noted", "ana")
            await until_present(watcher, "noted", 1, 1)
            dying.kill()
            assert (await watcher.sees("leave", "noted"))["info"]["user"] == "ana"
            assert coming_and_going(watcher, "noted") == []


async def test_whoever_changes_over_from_a_node_that_stops_never_left(tmp_path: Path) -> None:
    with cluster(tmp_path, CONFIG, CHATD_LIMITS__LEAVE_DELAY="3s") as (staying, stopping):
        async with person(staying, "watcher") as watcher, person(stopping, "ana") as ana:
            await watcher.joins("deploy", join_leave=True)
            await joined(watcher, "deploy", "watcher")
            await ana.joins("deploy")
            await joined(watcher, "deploy", "ana")
            await asyncio.to_thread(stopping.stop)
            async with person(staying, "ana") as again:
                await again.joins("deploy")
                await until_present(watcher, "deploy", 2, 1 + 1)
                await again.says("deploy", "still here")
                await watcher.hears("message", "deploy")
                assert coming_and_going(watcher, "deploy") == []
