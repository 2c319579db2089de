"""What every store promises of who is where, on servers of every kind."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from chatd.model import Json, Kind
from chatd.store.errors import StoreUnavailable
from chatd.store.presence import Seen
from chatd.store.redis import Registration, Store
from tests.servers import redis_cluster_servers, redis_server
from tests.stores import PATIENCE_S, heard, in_milliseconds, opened
from tests.test_store import ROOMS, registration

ANYBODY = 1000
LONG_MS = 60_000


def info(client: str) -> Json:
    return json.dumps({"client": client}).encode()


async def join(
    store: Store, user: str, client: str, *, room: str = "lobby", lease: str = "n.1", announce_to: int = ANYBODY
) -> None:
    await store.presence.join(room, lease, user, client, info(client), announce_to)


async def leave(store: Store, user: str, client: str, *, delay_ms: int = 0, announce_to: int = ANYBODY) -> int:
    return await store.presence.leave("lobby", "n.1", announce_to, delay_ms=delay_ms, one=(user, client))


async def announce(store: Store) -> list[str]:
    """Announce what is due, and name the rooms."""
    due = await store.presence.due()
    for room in due.rooms:
        await store.presence.announce_left(room, ANYBODY, due.until)
    return list(due.rooms)


def told(events: list[tuple[Kind, dict[str, str]]]) -> list[tuple[Kind, str]]:
    return [(kind, body["client"]) for kind, body in events]


async def test_a_user_is_announced_with_the_first_connection_and_the_last_ones_going(store: Store) -> None:
    async with heard(store, "lobby") as events:
        for client in ("c1", "c2", "c1"):
            await join(store, "ana", client)
        await join(store, "an", "c3")
        assert [await leave(store, "ana", client) for client in ("c1", "c2", "c2")] == [1, 1, 0]
    assert told(events) == [(Kind.JOIN, "c1"), (Kind.JOIN, "c3"), (Kind.LEAVE, "c2")]


async def test_a_leave_is_held_back_and_whoever_returns_was_never_away(store: Store) -> None:
    async with heard(store, "lobby") as events:
        await join(store, "ana", "c1")
        await join(store, "ben", "c2")
        await leave(store, "ana", "c1", delay_ms=50)
        await leave(store, "ben", "c2", delay_ms=50)
        await join(store, "ana", "c3")
        assert await announce(store) == []
        await in_milliseconds(60)
        assert [await announce(store) for _ in range(2)] == [["lobby"], []]
    assert told(events) == [(Kind.JOIN, "c1"), (Kind.JOIN, "c2"), (Kind.LEAVE, "c2")]
    assert await store.batch.command("EXISTS", store.keys.due) == 0


async def test_many_nodes_announce_what_is_due_once(store: Store, url: str, prefix: str) -> None:
    async with opened(url, prefix) as other, heard(store, "lobby") as events:
        for n in range(20):
            await join(store, f"u{n}", f"c{n}")
            await leave(store, f"u{n}", f"c{n}", delay_ms=1)
        await in_milliseconds(10)
        await asyncio.gather(*(announce(each) for each in (store, other) for _ in range(5)))
    assert Counter(kind for kind, _ in events) == {Kind.JOIN: 20, Kind.LEAVE: 20}


async def test_a_later_leave_waits_its_own_time_and_is_not_forgotten(store: Store) -> None:
    await join(store, "ana", "c1")
    await join(store, "ben", "c2")
    await join(store, "cem", "c3")
    await leave(store, "ana", "c1", delay_ms=1)
    await leave(store, "ben", "c2", delay_ms=80)
    await leave(store, "cem", "c3", delay_ms=60_000)
    await in_milliseconds(10)
    async with heard(store, "lobby") as events:
        assert await announce(store) == ["lobby"]
        assert await announce(store) == []
        await in_milliseconds(80)
        assert await announce(store) == ["lobby"]
    assert told(events) == [(Kind.LEAVE, "c1"), (Kind.LEAVE, "c2")]


async def test_what_a_node_took_on_and_did_not_do_is_done_by_the_next(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chatd.store.presence.CLAIM_MS", 20)
    await join(store, "ana", "c1")
    await leave(store, "ana", "c1", delay_ms=1)
    await in_milliseconds(5)
    assert (await store.presence.due()).rooms == ("lobby",)
    assert (await store.presence.due()).rooms == ()
    await in_milliseconds(30)
    async with heard(store, "lobby") as events:
        assert await announce(store) == ["lobby"]
    assert told(events) == [(Kind.LEAVE, "c1")]


async def test_a_leave_that_was_noted_in_the_room_only_is_found_by_whoever_clears_up(store: Store) -> None:
    await join(store, "ana", "c1")
    await leave(store, "ana", "c1", delay_ms=1)
    await store.batch.command("DEL", store.keys.due)  # the node died between the two
    assert await announce(store) == []
    assert await store.presence.leave("lobby", "n.1", ANYBODY) == 0
    await in_milliseconds(5)
    assert await announce(store) == ["lobby"]


async def test_a_leave_noted_while_the_room_was_seen_to_keeps_its_place_in_the_list(store: Store) -> None:
    for user, client in (("ana", "c1"), ("ben", "c2")):
        await join(store, user, client)
    await leave(store, "ana", "c1", delay_ms=1)
    await in_milliseconds(5)
    due = await store.presence.due()
    await leave(store, "ben", "c2", delay_ms=1)
    await store.presence.announce_left("lobby", ANYBODY, due.until)
    await in_milliseconds(5)
    await announce(store)
    assert await store.batch.command("EXISTS", store.keys.leaving("lobby")) == 0


async def test_a_room_noted_just_after_it_was_seen_to_stays_in_the_list(store: Store) -> None:
    await join(store, "ana", "c1")
    await leave(store, "ana", "c1", delay_ms=1)
    await in_milliseconds(5)
    due = await store.presence.due()
    await store.batch.command("ZADD", store.keys.due, "LT", 1, "lobby")
    await store.presence.announce_left("lobby", ANYBODY, due.until)
    assert await announce(store) == ["lobby"]


async def test_whoever_is_to_be_announced_later_is_not_where_too_many_are_by_then(store: Store) -> None:
    async with heard(store, "lobby") as events:
        await join(store, "ana", "c1")
        await leave(store, "ana", "c1", delay_ms=1)
        for n in range(3):
            await join(store, f"u{n}", f"u{n}", announce_to=0)
        await in_milliseconds(5)
        due = await store.presence.due()
        await store.presence.announce_left("lobby", 2, due.until)
    assert told(events) == [(Kind.JOIN, "c1")]


async def test_above_the_bound_nobody_is_announced(store: Store) -> None:
    async with heard(store, "lobby") as events:
        for n in range(3):
            await join(store, f"u{n}", f"c{n}", announce_to=2)
        await leave(store, "u0", "c0", announce_to=2)
        await leave(store, "u1", "c1", announce_to=2)
        await join(store, "u3", "c3", announce_to=-1)
    assert told(events) == [(Kind.JOIN, "c0"), (Kind.JOIN, "c1"), (Kind.LEAVE, "c1")]


@pytest.mark.parametrize("room", ROOMS)
async def test_presence_counts_connections_and_users_and_names_no_more_than_asked_for(store: Store, room: str) -> None:
    for user, client in (("ana", "c1"), ("ana", "c2"), ('b"ö\0n', "c3")):
        await join(store, user, client, room=room)
    assert await store.presence.stats(room) == (3, 2)
    assert await store.presence.of(room) == {client: info(client) for client in ("c1", "c2", "c3")}
    assert await store.presence.of(room, 3) is not None
    assert await store.presence.of(room, 2) is None
    assert await store.presence.of(room, 0) is None
    assert await store.presence.among(room, ["ana", 'b"ö\0n', "an", "eve"]) == {"ana", 'b"ö\0n'}
    assert await store.presence.stats("nowhere") == (0, 0)
    assert await store.presence.of("nowhere") == {}


async def test_a_lease_leaves_as_a_whole_and_whoever_is_elsewhere_too_stays(store: Store) -> None:
    for user, client, lease in (
        ("ana", "c1", "n.1"),
        ("ana", "c2", "n.1"),
        ("ben", "c3", "n.1"),
        ("ben", "c4", "n.11"),
    ):
        await join(store, user, client, lease=lease)
    async with heard(store, "lobby") as events:
        assert [await store.presence.leave("lobby", "n.1", ANYBODY) for _ in range(2)] == [3, 0]
    assert [(kind, body["client"] in ("c1", "c2")) for kind, body in events] == [(Kind.LEAVE, True)]
    assert await store.presence.of("lobby") == {"c4": info("c4")}


async def test_who_came_back_under_a_new_lease_does_not_leave_with_the_old_one(store: Store) -> None:
    async with heard(store, "lobby") as events:
        await join(store, "ana", "c1")
        await join(store, "ana", "c1", lease="n.2")
        assert await store.presence.leave("lobby", "n.1", ANYBODY) == 0
        assert await leave(store, "ana", "c1") == 0
    assert told(events) == [(Kind.JOIN, "c1")]
    assert await store.presence.stats("lobby") == (1, 1)


async def test_the_rooms_of_a_lease_are_remembered_for_the_reaper(store: Store) -> None:
    for room in ("lobby", "größe {1}"):
        await store.presence.enter_room("n.1", room)
    assert sorted(await store.presence.rooms_of("n.1")) == ["größe {1}", "lobby"]
    await store.presence.leave_room("n.1", "lobby")
    assert await store.presence.rooms_of("n.1") == ["größe {1}"]
    assert await store.presence.rooms_of("n.2") == []


async def test_who_is_seen_until_when_is_known_of_those_who_were_here(store: Store) -> None:
    before = int(await store.clock() * 1000)
    entries: list[Registration] = [
        registration("ana", "c1"), registration("ana", "c2"), registration("ben", "c3", "dead.1"),
        registration("eve", "c4", "dead.1"), registration("eve", "c5"),
    ]  # fmt: skip
    for entry in entries:
        await store.register(entry, 0)
    users = ["ana", "ben", "eve", "stranger"]
    assert await store.presence.seen(users) == [Seen(True, None)] * 3 + [Seen(False, None)]
    await store.unregister("ana", "c1")
    assert (await store.presence.seen(["ana"]))[0].online
    await store.unregister("ana", "c2")
    assert await store.purge("dead.1") == 2
    ana, ben, eve, _ = await store.presence.seen(users)
    assert [(one.online, one.last is not None and one.last >= before) for one in (ana, ben)] == [(False, True)] * 2
    assert eve == Seen(True, None)


@pytest.mark.parametrize("servers", [redis_server, redis_cluster_servers])
async def test_who_leaves_as_he_comes_is_no_ghost_in_a_store_that_was_started_again(
    tmp_path: Path, servers: Any
) -> None:
    async with servers(tmp_path) as started, opened(started.url) as store:
        for server in getattr(started, "servers", [started]):
            server.kill()
            await server.start()
        await until_somebody_could_leave(store)  # and with it the server knows one script
        await asyncio.gather(join(store, "ana", "c1"), leave(store, "ana", "c1"))
        assert await store.presence.of("lobby") == {}


async def until_somebody_could_leave(store: Store) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while True:
            with suppress(StoreUnavailable):
                await leave(store, "ben", "c2")
                return
            await asyncio.sleep(0.01)
