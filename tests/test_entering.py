"""A right is lost between being asked for and being used: whoever is just entering is caught as well."""

from __future__ import annotations

import asyncio
import itertools
import math
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import pytest

from chatd.chat import reading
from chatd.chat.rights import ROOMS, RightsLost
from chatd.control import Impose, Question, Recheck
from chatd.errors import Disconnect, Reject
from chatd.measures import Measure, On, What
from chatd.model import Delivery, HistoryResult, Identity, Role, Standing, Subscribe
from chatd.node import Node
from chatd.session import Session
from chatd.store.redis import Store
from tests.links import link_of
from tests.stores import FOR_EVER, head
from tests.test_reaper import session

pytestmark = pytest.mark.usefixtures("recording")

PATIENCE_S = 10.0


class Doorstep:
    """Holds whoever enters a room between the question whether he may and the room itself."""

    def __init__(self, store: Store) -> None:
        self._watch = store.feed.watch
        self.reached, self.opened = asyncio.Event(), asyncio.Event()
        store.feed.watch = self.watch  # type: ignore[method-assign]

    async def watch(self, room: str, **how: Any) -> Any:
        position = await self._watch(room, **how)
        self.reached.set()
        await self.opened.wait()
        return position


async def entering(
    node: Node, room: str, meanwhile: Question | Callable[[], Awaitable[Question]]
) -> tuple[Session, Reject | Disconnect | None]:
    """Ana enters; while she is on the doorstep an operator acts. What she is refused with."""
    ana = session()
    ana.identity = Identity("ana")
    node.hub.add(ana, "192.0.2.1", math.inf)
    node.hub.welcome(ana)
    doorstep = Doorstep(node.store)
    entered = asyncio.create_task(reading.subscribe(node.chat, ana, Subscribe(room)))
    async with asyncio.timeout(PATIENCE_S):
        await doorstep.reached.wait()
        await node.responder.respond(await meanwhile() if callable(meanwhile) else meanwhile)
        doorstep.opened.set()
        try:
            await entered
        except (Reject, Disconnect) as refusal:
            return ana, refusal
    return ana, None


def ban(room: str) -> Impose:
    return Impose(1, *Measure(What.BAN, On.USER, "ana", room))


async def test_a_ban_from_the_room(node: Node) -> None:
    ana, refusal = await entering(node, "lobby", ban("lobby"))
    assert isinstance(refusal, Reject)
    assert refusal.code == 403
    assert (ana.rooms, node.hub.rooms) == ({}, {})


async def test_a_ban_from_everywhere(node: Node) -> None:
    ana, refusal = await entering(node, "lobby", ban(""))
    assert refusal is not None
    assert (ana.rooms, node.hub.rooms) == ({}, {})
    goodbye = link_of(ana).goodbye
    assert goodbye is not None
    assert goodbye.code == 4502


async def test_an_end_of_membership(node: Node) -> None:
    rooms = node.store.rooms
    await rooms.create("den", by="root", owner="root", public=False, topic="", keys={}, unused=False)
    await rooms.place("den", "ana", Role.MEMBER, by=None, least=Role.OWNER)

    async def removed() -> Question:
        await rooms.place("den", "ana", Role.NOBODY, by=None, least=Role.OWNER)
        return Recheck("den", "ana")

    ana, refusal = await entering(node, "den", removed)
    assert isinstance(refusal, Reject)
    assert refusal.code == 103
    assert (ana.rooms, node.hub.rooms) == ({}, {})


async def test_nothing_at_all(node: Node) -> None:
    ana, refusal = await entering(node, "lobby", Recheck("elsewhere"))
    assert refusal is None
    assert set(ana.rooms) == {"lobby"}


@pytest.mark.parametrize("recover", [False, True])
async def test_nothing_is_heard_before_the_reply_though_rights_change_meanwhile(node: Node, recover: bool) -> None:
    top = (await node.store.messages.history("lobby", 0)).top
    ana = session()
    ana.identity = Identity("ana")
    node.hub.add(ana, "192.0.2.1", math.inf)
    node.hub.welcome(ana)
    doorstep, standing = Doorstep(node.store), node.store.rooms.standing
    wish = Subscribe("lobby", recover=recover, epoch=top.epoch, offset=top.offset)
    entering = asyncio.create_task(reading.subscribe(node.chat, ana, wish))

    async def said_meanwhile(room: str, user: str) -> Standing:
        await says(node, "one")
        return await standing(room, user)

    async with asyncio.timeout(PATIENCE_S):
        await doorstep.reached.wait()
        await node.responder.respond(Recheck("lobby"))
        node.store.rooms.standing = said_meanwhile  # type: ignore[method-assign]
        doorstep.opened.set()
        entered = await entering
    assert link_of(ana).written == []
    assert entered.position is not None
    assert entered.position.offset + len(entered.publications) == 1


async def says(node: Node, text: str) -> None:
    """Say it in the lobby, and have it delivered to whoever is there."""
    delivered, deliver = asyncio.Event(), node.hub.deliver

    def delivers(deliveries: Iterable[Delivery]) -> None:
        deliveries = list(deliveries)
        deliver(deliveries)
        if any(text.encode() in event.body for each in deliveries for event in each.events):  # and no join before it
            delivered.set()

    node.hub.deliver = delivers  # type: ignore[method-assign]
    await node.store.messages.publish("lobby", head(text), FOR_EVER)
    await delivered.wait()
    for room in list(node.hub._casts):
        node.hub.turn(room)


async def test_who_cannot_recover_is_told_a_position_behind_all_that_came_while_history_was_read(node: Node) -> None:
    """What came is in history, and he who asks for what is after that position is not told of it again."""
    messages = node.store.messages
    for text in ("one", "two"):
        await messages.publish("lobby", head(text), FOR_EVER)
    history = messages.history

    async def history_and_one_more(*args: Any, **how: Any) -> HistoryResult:
        found = await history(*args, **how)
        await says(node, "three")
        return found

    messages.history = history_and_one_more  # type: ignore[method-assign]
    ana = session()
    ana.identity = Identity("ana")
    async with asyncio.timeout(PATIENCE_S):
        entered = await reading.subscribe(node.chat, ana, Subscribe("lobby", recover=True, epoch="of before", offset=1))
    assert entered.position is not None
    assert (entered.recovered, entered.publications, entered.position.offset) == (False, (), 3)


async def test_what_changes_elsewhere_all_the_time_keeps_nobody_out(node: Node) -> None:
    ana = session()
    ana.identity = Identity("ana")
    node.hub.add(ana, "192.0.2.1", math.inf)
    node.hub.welcome(ana)

    async def never_still() -> None:
        for n in itertools.count():
            await node.responder.respond(Recheck(f"room {n}"))
            await asyncio.sleep(0)

    changing = asyncio.create_task(never_still())
    async with asyncio.timeout(PATIENCE_S):
        await reading.subscribe(node.chat, ana, Subscribe("lobby"))
    changing.cancel()
    assert set(ana.rooms) == {"lobby"}


def test_of_a_room_that_was_forgotten_somebody_may_have_lost_it() -> None:
    lost = RightsLost()
    lost.note("den")
    assert (lost.since(0, "den"), lost.since(1, "den"), lost.since(0, "lobby")) == (True, False, False)
    for n in range(ROOMS):
        lost.note(f"room {n}")
    assert lost.since(1, "lobby")
    assert not lost.since(lost.count, "lobby")
    lost.note()
    assert lost.since(lost.count - 1, "lobby")


async def test_who_is_put_out_and_brought_in_again_while_history_is_read_is_in_the_room_as_the_server_said(
    node: Node,
) -> None:
    messages, history, chat = node.store.messages, node.store.messages.history, node.chat
    await messages.publish("lobby", head("one"), FOR_EVER)
    ana = session()
    ana.identity = Identity("ana")
    node.hub.add(ana, "192.0.2.1", math.inf)
    node.hub.welcome(ana)

    async def history_and_a_change_of_mind(*args: Any, **how: Any) -> HistoryResult:
        found = await history(*args, **how)
        messages.history = history  # type: ignore[method-assign]
        await says(node, "two")
        await reading.put_out(chat, ana, "lobby", 2000, "unsubscribed by the server")
        assert await reading.bring_in(chat, ana, Subscribe("lobby"))
        return found

    messages.history = history_and_a_change_of_mind  # type: ignore[method-assign]
    async with asyncio.timeout(PATIENCE_S):
        with pytest.raises(Reject) as refused:
            await reading.subscribe(chat, ana, Subscribe("lobby", recover=True, offset=0))
        assert refused.value.code == 105
        await says(node, "three")
    heard = b"".join(link_of(ana).written)
    assert [text for text in ("one", "two", "three") if b'"data":"%b"' % text.encode() in heard] == ["three"]
    assert ana.rooms["lobby"].server_side
