"""What a node does that could not be told for a while what operators and moderators have done."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from chatd import control, errors
from chatd.chat import reading
from chatd.control import Kick, Recheck
from chatd.measures import Measure, On, What
from chatd.model import Identity, Role, Subscribe
from chatd.node import Node
from chatd.office import Office
from chatd.session import Subscription
from chatd.steward import Steward
from chatd.store.errors import StoreUnavailable
from tests.links import link_of
from tests.stores import FOR_EVER, PATIENCE_S, head
from tests.test_races import comes, until

pytestmark = pytest.mark.usefixtures("recording")


@asynccontextmanager
async def under_way(*jobs: Any) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(job) for job in jobs]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def private(node: Node, room: str, *members: str) -> None:
    await node.store.rooms.create(room, by="root", owner="root", public=False, topic="", keys={}, unused=False)
    for user in members:
        await node.store.rooms.place(room, user, Role.MEMBER, by=None, least=Role.OWNER)


async def removed(node: Node, room: str, user: str) -> None:
    """He is a member no longer, and this node is not told of it."""
    await node.store.rooms.place(room, user, Role.NOBODY, by=None, least=Role.OWNER)


@pytest.mark.parametrize("lost_by", ["ban", "membership"])
async def test_who_lost_a_room_while_its_node_counted_as_dead_hears_nothing_that_was_said_since(
    node: Node, lost_by: str
) -> None:
    await private(node, "den", "ana", "ben")
    await node.membership.begin()
    ana, ben = comes(node), comes(node, "c2", "ben")
    for each in (ana, ben):
        await reading.subscribe(node.chat, each, Subscribe("den"))
    delivered, deliver = asyncio.Event(), node.hub.deliver
    node.hub.deliver = lambda deliveries: (deliver(deliveries), delivered.set())  # type: ignore[assignment, func-returns-value]
    async with under_way(node.hub.run()):
        await node.store.bury(node.lease)
        node.chat.informed_until = node.clock()
        if lost_by == "ban":
            await node.store.measures.impose(Measure(What.BAN, On.USER, "ana", "den"))
        else:
            await removed(node, "den", "ana")
        await node.store.messages.publish("den", head("among us"), FOR_EVER)
        await delivered.wait()
        await node.store.ping()  # long enough for a turn of the fan-out
        await node.membership._renew()

        async def is_told() -> bool:
            return b"among us" in b"".join(link_of(ben).written)

        await until(is_told)
    assert b"among us" not in b"".join(link_of(ana).written)
    assert not ana.rooms


async def test_who_lost_a_room_while_the_line_from_the_store_was_cut_is_put_out(node: Node) -> None:
    await private(node, "den", "ana", "ben")
    await node._begin()
    ana, ben = comes(node), comes(node, "c2", "ben")
    for each in (ana, ben):
        await reading.subscribe(node.chat, each, Subscribe("den"))
    await removed(node, "den", "ana")
    async with under_way(node.membership.keep()):
        await node.store.batch.command("CLIENT", "KILL", "TYPE", "pubsub")

        async def is_out() -> bool:
            return not ana.rooms

        await until(is_out)
    assert set(ben.rooms) == {"den"}


async def test_who_was_kicked_while_his_node_counted_as_dead_does_not_stay(node: Node) -> None:
    await node._begin()
    ana, ben, late = comes(node), comes(node, "c2", "ben"), comes(node, "c3")
    ana.identity = Identity("ana", token_id="jti-1", expires_at=time.time() + 3600)
    late.since = time.time() + 60
    await node.store.bury(node.lease)
    written = {"at": await node.store.clock(), "by": "root", "request": "unheard"}
    await node.store.audit.write({**written, **control.encode(Kick("ana", reason="enough", revoke=True))})
    await node.membership._renew()
    assert [link_of(each).goodbye for each in (ana, ben, late)] == [errors.KICKED.because("enough"), None, None]
    assert [row[:2] for row in await node.store.revocations(0.0)] == [["token", "jti-1"]]


async def test_who_came_back_after_a_kick_that_was_heard_is_not_kicked_again(node: Node) -> None:
    await node._begin()
    ana = comes(node)
    await reading.subscribe(node.chat, ana, Subscribe("lobby"))
    await node.store.request(Kick("ana", room="lobby"), patience=PATIENCE_S, by="root")
    await reading.subscribe(node.chat, ana, Subscribe("lobby"))
    node.membership.may_have_missed_something()
    await node.membership._renew()
    assert set(ana.rooms) == {"lobby"}


async def test_a_room_is_rechecked_that_has_more_readers_than_may_wait_for_the_store(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    await private(node, "den")
    monkeypatch.setattr("chatd.store.scripts.BACKLOG", 1000)
    for n in range(1100):
        node.hub.join(comes(node, f"c{n}"), "den", Subscription(), 0)
    assert await node.responder.respond(Recheck("den")) == {"closed": 1100}


@pytest.mark.parametrize(
    "act",
    [
        lambda steward: steward.set_role("den", "ana", Role.NOBODY, by=None),
        lambda steward: steward.set("den", by=None, public=False),
    ],
    ids=["role", "public"],
)
async def test_who_lost_a_room_is_put_out_as_that_is_asked_for_again_after_the_store_went_away_amid_it(
    node: Node, monkeypatch: pytest.MonkeyPatch, act: Callable[[Steward], Awaitable[control.Answers]]
) -> None:
    await node.store.rooms.create("den", by="", owner="", public=True, topic="", keys={}, unused=False)
    await node.store.rooms.place("den", "ana", Role.MEMBER, by=None, least=Role.OWNER)
    steward = Steward(Office(node.store, patience=0.1, by="root"), node.settings)
    asked = list[control.Question]()

    async def failing_once(question: control.Question, **_: Any) -> control.Answers:
        asked.append(question)
        if len(asked) == 1:
            raise StoreUnavailable("away")
        return control.Answers({})

    monkeypatch.setattr(node.store, "request", failing_once)
    with pytest.raises(StoreUnavailable):
        await act(steward)
    await act(steward)
    assert [type(question) for question in asked] == [Recheck, Recheck]
