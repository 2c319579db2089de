"""Rooms are kept as short as their rules say, whether anybody writes into them or not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from chatd.store.changes import Change, What
from chatd.store.messages import Keep
from chatd.store.redis import Store
from chatd.store.retention import Swept
from chatd.sweep import Sweeper, Tally
from tests.people import cluster, person
from tests.stores import FOR_EVER, in_milliseconds


def sweeper(store: Store, *, period_s: float = 60.0, lease: str = "n.1") -> Sweeper:
    """One that keeps three messages of rooms called short, and all of others."""

    def keep(room: str) -> Keep:
        return Keep(3, 0) if room.startswith("short") else FOR_EVER

    def idle(room: str) -> int:
        return 1 if room.startswith("short") else 0

    return Sweeper(store.retention, store.rooms, lease=lambda: lease, keep=keep, idle=idle, period_s=period_s)


async def kept(store: Store, room: str) -> list[int]:
    page = await store.messages.history(room, 0, after=0, limit=100)
    return [json.loads(body)["offset"] for body in page.publications]


async def test_a_sweep_goes_through_all_rooms_by_the_rules_of_each(store: Store) -> None:
    rooms = [f"{kind} {n}" for kind in ("short", "long") for n in range(120)]
    for room in rooms:
        for _ in range(4):
            await store.messages.publish(room, b'{"data":"hi"', FOR_EVER)
    await store.changes.make("long 7", Change(What.DELETE, 2), b'{"data":{}', FOR_EVER)
    done = await sweeper(store).sweep()
    assert (done.rooms >= len(rooms), done.trimmed, done.rewritten) == (True, 120, 1)
    assert {tuple(await kept(store, room)) for room in rooms if room.startswith("short")} == {(2, 3, 4)}
    assert await kept(store, "long 7") == [1, 2, 3, 4, 5]


async def test_a_log_that_was_rewritten_counts_though_the_room_took_more_than_one_step(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chatd.store.retention.STEP", 2)
    for _ in range(5):
        await store.messages.publish("short", b'{"data":"hi"', FOR_EVER)
    await store.changes.make("short", Change(What.DELETE, 4), b'{"data":{}', FOR_EVER)
    assert await store.retention.sweep("short", Keep(3, 0)) == Swept(trimmed=3, rewritten=True)


async def test_created_rooms_in_which_nothing_happens_are_taken_away_and_those_in_use_stay(store: Store) -> None:
    rooms = [f"{kind} {n}" for kind in ("short", "long") for n in range(60)]
    for room in rooms:
        await store.rooms.create(room, by="", owner="", public=True, topic="", keys={}, unused=False)
    await store.presence.join("short 7", "n.1", "ana", "c1", b"{}", 0)
    await in_milliseconds(5)
    await sweeper(store).collect(done := Tally())
    assert (done.collected, await store.rooms.created("", 1000)) == (59, sorted(["short 7", *rooms[60:]]))


async def test_how_far_somebody_read_is_forgotten_with_the_room_and_kept_where_there_is_one(store: Store) -> None:
    for user in ("ana", "with {braces}"):
        for room in ("long 1", *(f"gone {n}" for n in range(60))):
            said = await store.messages.publish(room, b'{"data":"hi"', FOR_EVER)
            assert said[0].position is not None
            await store.cursors.move(user, room, said[0].position)
    for n in range(60):
        await store.rooms.create(f"gone {n}", by="", owner="", public=True, topic="", keys={}, unused=False)
        await store.rooms.dissolve(f"gone {n}", by=None)
    await sweeper(store).tidy(done := Tally())
    assert done.cursors == 120
    assert [list(await store.cursors.all(user)) for user in ("ana", "with {braces}")] == [["long 1"], ["long 1"]]


async def test_one_node_at_a_time_sweeps(store: Store) -> None:
    assert [await store.retention.claim(lease, 60_000) for lease in ("n.1", "m.1")] == [True, False]
    await store.retention.go_on("n.1", 60_000)
    assert not await store.retention.claim("n.1", 60_000), "it has swept; the next sweep is after the period"


async def test_a_node_sweeps_by_itself(tmp_path: Path) -> None:
    with cluster(tmp_path, nodes=1, CHATD_CLUSTER__SWEEP="0.2s") as (node,):
        async with person(node, "ana") as ana:
            said = await ana.says("lobby", "secret")
            await ana.call("message.delete", room="lobby", offset=said)
            node.until_log(r'"swept".*"rewritten": ?1|"rewritten": ?1.*"swept"')
