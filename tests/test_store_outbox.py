"""What every store promises of the outboxes: what the application is to be told, on servers of every kind."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from chatd.settings import Hooks
from chatd.settings.kinds import Url
from chatd.store.changes import Change, What
from chatd.store.keys import HOOK_SHARDS, hook_shard
from chatd.store.outbox import Watched
from chatd.store.redis import Store
from tests.stores import FOR_EVER

HEAD = b'{"data":{"n":1}'
ROOM = "told-{1}%"


@pytest.fixture(autouse=True)
def wanted(store: Store) -> None:
    """The application wants to know of rooms whose names begin so."""
    store.outbox.hooks = Hooks(url=Url("http://shop.example"), rooms=("told-*",), undelivered_after=0.0)


async def say(store: Store, room: str = ROOM, cid: str = "c-1") -> None:
    await store.messages.publish(room, HEAD, FOR_EVER, ("ana", cid), told=True)


async def events(store: Store, room: str = ROOM) -> list[tuple[str, int]]:
    return [(each.event, json.loads(each.body)["offset"]) for each in await store.outbox.waiting(room, 100)]


async def marked(store: Store) -> set[str]:
    return {room for shard in range(HOOK_SHARDS) for room in await store.outbox.marked(shard)}


async def test_what_is_said_waits_once_and_in_order_where_it_is_wanted(store: Store) -> None:
    for cid in ("c-1", "c-2", "c-2", "c-3"):
        await say(store, cid=cid)
    await say(store, "untold")
    await store.messages.publish(ROOM, HEAD, FOR_EVER)
    assert await events(store) == [("message", 1), ("message", 2), ("message", 3)]
    assert await events(store, "untold") == []
    assert await marked(store) == {ROOM}


async def test_what_is_deleted_before_its_turn_is_not_told_any_more(store: Store) -> None:
    for cid in ("c-1", "c-2", "c-3"):
        await say(store, cid=cid)
    await store.changes.make(ROOM, Change(What.EDIT, 1), b'{"data":{"n":2}', FOR_EVER)
    await store.changes.make(ROOM, Change(What.DELETE, 2), b'{"data":{}', FOR_EVER)
    assert await events(store) == [("message", 1), ("message", 3)]
    for of in (1, 3):
        await store.changes.make(ROOM, Change(What.DELETE, of), b'{"data":{}', FOR_EVER)
    assert await events(store) == []


async def test_what_is_deleted_is_not_told_though_it_waits_under_a_later_time(store: Store) -> None:
    """Redis before 7.2 lets its clock go on within a script, and numbers an entry after the message has its time."""
    key = store.keys.outbox(ROOM)
    said, _ = await store.messages.publish(ROOM, HEAD, FOR_EVER, told=True)
    [entry] = await store.outbox.waiting(ROOM, 100)
    await store.outbox.delivered(ROOM, entry.id)
    await store.batch.command(
        "XADD", key, f"{said.time_ms + 1}-0", "e", entry.event, "b", entry.body, "t", said.time_ms
    )
    await say(store, cid="c-2")
    await store.changes.make(ROOM, Change(What.DELETE, 1), b'{"data":{}', FOR_EVER)
    assert await events(store) == [("message", 2)]


async def test_what_becomes_of_messages_waits_in_the_rooms_order_where_it_is_wanted(store: Store) -> None:
    store.outbox.hooks = replace(store.outbox.hooks, events=("message", "edit", "delete"))
    for cid in ("c-1", "c-2"):
        await say(store, cid=cid)
    for what, of in ((What.EDIT, 1), (What.REACT, 1), (What.EDIT, 2), (What.DELETE, 2), (What.DELETE, 2)):
        await store.changes.make(ROOM, Change(what, of, kind="x"), HEAD, FOR_EVER)
    assert await events(store) == [("message", 1), ("edit", 3), ("delete", 6)], "of what is deleted nothing is told"


async def test_what_was_forgotten_is_told_as_a_deletion(store: Store) -> None:
    store.outbox.hooks = replace(store.outbox.hooks, events=("message", "edit", "delete"))
    for user in ("ana", "ben"):
        by = b'{"data":{},"info":{"user":"%b","client":"c"},"tags":{"type":"message"}' % user.encode()
        await store.messages.publish(ROOM, by, FOR_EVER, told=True)
    edit = b'{"data":{},"info":{"user":"ana","client":"c"},"tags":{"type":"edit","of":"1"}'
    await store.changes.make(ROOM, Change(What.EDIT, 1), edit, FOR_EVER)
    await store.outbox.unmark(ROOM, (await store.outbox.marked(hook_shard(ROOM)))[ROOM])
    await store.traces.forget(ROOM, "ana", FOR_EVER)
    assert await events(store) == [("message", 2), ("delete", 4)]
    assert await marked(store) == {ROOM}


async def test_whoever_deletes_again_has_the_outbox_looked_at(store: Store) -> None:
    store.outbox.hooks = replace(store.outbox.hooks, events=("delete",))
    await say(store)
    for _ in range(2):  # the first may have died before it got to the mark
        await store.changes.make(ROOM, Change(What.DELETE, 1), b'{"data":{}', FOR_EVER)
        assert await marked(store) == {ROOM}
        await store.outbox.unmark(ROOM, (await store.outbox.marked(hook_shard(ROOM)))[ROOM])
    assert await events(store) == [("delete", 2)]


async def test_a_mark_goes_when_nothing_waits_and_not_when_somebody_marked_it_meanwhile(store: Store) -> None:
    await say(store)
    state = (await store.outbox.marked(hook_shard(ROOM)))[ROOM]
    [entry] = await store.outbox.waiting(ROOM, 100)
    await store.outbox.delivered(ROOM, entry.id)
    assert await events(store) == []
    await say(store, cid="c-2")
    await store.outbox.unmark(ROOM, state)
    assert await marked(store) == {ROOM}, "what came after the outbox was found empty is looked at"
    await store.outbox.unmark(ROOM, (await store.outbox.marked(hook_shard(ROOM)))[ROOM])
    assert await marked(store) == set()


async def test_a_repeated_send_marks_the_room_again_as_the_first_may_not_have_come_so_far(store: Store) -> None:
    await say(store)
    await store.outbox.unmark(ROOM, (await store.outbox.marked(hook_shard(ROOM)))[ROOM])
    await say(store)
    assert await marked(store) == {ROOM}
    assert await events(store) == [("message", 1)]


async def test_one_node_at_a_time_holds_a_shard(store: Store) -> None:
    assert await store.outbox.hold(3, "n1.1", 60_000)
    assert not await store.outbox.hold(3, "n2.1", 60_000)
    assert await store.outbox.hold(3, "n1.1", 60_000)
    assert not await store.outbox.hold(3, "n2.1", 0), "nobody lets go for another"
    assert await store.outbox.hold(3, "n1.1", 0)
    assert await store.outbox.hold(3, "n2.1", 60_000)


async def test_joins_and_leaves_wait_as_they_are_announced(store: Store) -> None:
    for client in ("c-1", "c-2"):
        await store.presence.join(ROOM, "n.1", "ana", client, b'{"user":"ana"}', 1000)
    for client in ("c-1", "c-2"):
        await store.presence.leave(ROOM, "n.1", 1000, one=("ana", client))
    waiting = await store.outbox.waiting(ROOM, 100)
    assert [(each.event, each.body) for each in waiting] == [("join", b'{"user":"ana"}'), ("leave", b'{"user":"ana"}')]


async def test_it_is_seen_once_whether_a_message_was_read(store: Store) -> None:
    await say(store)
    await say(store)
    [message] = await store.outbox.due(hook_shard(ROOM), 100)
    assert (message.room, message.offset, message.author) == (ROOM, 1, "")
    await store.outbox.seen_to(Watched(*message))
    assert await store.outbox.due(hook_shard(ROOM), 100) == []


async def test_what_is_no_message_among_what_is_unread_is_dropped_and_the_rest_is_seen(store: Store) -> None:
    await say(store)
    shard = hook_shard(ROOM)
    for row in (b'["told-1",1]', b"{}", b"no JSON", b'["told-1","1","e","ana"]'):
        await store.batch.command("ZADD", store.keys.unread_due(shard), 1, row)
    assert [message.offset for message in await store.outbox.due(shard, 100)] == [1]
    assert await store.batch.command("ZCARD", store.keys.unread_due(shard)) == 1


async def test_what_is_no_entry_in_an_outbox_is_dropped_and_the_rest_is_told(store: Store) -> None:
    foreign = [("e", "message"), ("e", "message", "b", "{}", "t", "soon"), ("e", b"\xff", "b", "{}", "t", 1)]
    for fields in foreign:
        await store.batch.command("XADD", store.keys.outbox(ROOM), "*", *fields)
    await say(store)
    await store.outbox.withdraw(ROOM, "eve")
    assert [each.event for each in await store.outbox.waiting(ROOM, len(foreign))] == ["message"]
    assert await store.batch.command("XLEN", store.keys.outbox(ROOM)) == 1
