"""What happens while the store is being asked: the same room twice at once, somebody gone, the store away again."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest
from structlog.testing import capture_logs

from chatd.api.shapes import Broadcast
from chatd.api.shared import Caller, broadcast
from chatd.chat import mentions, reading
from chatd.chat.context import Debts
from chatd.control import Enter, Impose
from chatd.errors import ABNORMAL, INSUFFICIENT_STATE, UNSUBSCRIBED_EXPIRED
from chatd.measures import Measure, On, What
from chatd.model import SERVER, Delivery, Event, Identity, Kind, Lost, Position, Subscribe
from chatd.node import Node
from chatd.office import Office
from chatd.session import Session
from chatd.store.errors import StoreUnavailable
from chatd.store.messages import Keep
from tests.links import link_of
from tests.test_entering import Doorstep
from tests.test_reaper import session
from tests.test_store import forget_scripts

pytestmark = pytest.mark.usefixtures("recording")

PATIENCE_S = 10.0


def comes(node: Node, id: str = "c1", user: str = "ana") -> Session:
    one = session(id)
    one.identity = Identity(user)
    node.hub.add(one, "192.0.2.1", math.inf)
    node.hub.welcome(one)
    return one


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not await holds():
            await asyncio.sleep(0)


# --- rooms ------------------------------------------------------------------------------------------------------------


async def says(node: Node, text: str) -> None:
    """Say it in the lobby, and see it delivered to whoever is there."""
    delivered, deliver = asyncio.Event(), node.hub.deliver
    node.hub.deliver = lambda deliveries: (deliver(deliveries), delivered.set())  # type: ignore[assignment, func-returns-value]
    await node.store.messages.publish("lobby", b'{"data":"%b"' % text.encode(), Keep(100, 0))
    async with asyncio.timeout(PATIENCE_S):
        await delivered.wait()
    for room in list(node.hub._casts):
        node.hub.turn(room)


async def test_who_asks_for_a_room_while_the_server_brings_him_in_is_in_it_once(node: Node) -> None:
    ana = comes(node)
    doorstep = Doorstep(node.store)
    subscribing = asyncio.create_task(reading.subscribe(node.chat, ana, Subscribe("lobby")))
    brought_in = asyncio.create_task(node.responder.respond(Enter(user="ana", room="lobby")))
    async with asyncio.timeout(PATIENCE_S):
        await doorstep.reached.wait()
        doorstep.opened.set()
        await asyncio.gather(subscribing, brought_in, return_exceptions=True)
    await says(node, "one")
    assert b"".join(link_of(ana).written).count(b'"one"') == 1
    await reading.put_out(node.chat, ana, "lobby", 2000, "kicked")
    assert (list(node.hub.rooms), list(node.store.feed._watched)) == ([], [])


async def test_who_lost_history_is_put_out_before_it_hears_anything_newer(node: Node) -> None:
    ana = comes(node)
    entered = await reading.subscribe(node.chat, ana, Subscribe("lobby"))
    assert entered.position is not None
    epoch = entered.position.epoch
    newer = Event(Kind.PUBLICATION, b'{"data":"newer","offset":21}', Position(epoch, 21))
    node._deliver([Delivery("lobby", (newer,), Lost(Position(epoch, 20)))])
    for room in list(node.hub._casts):
        node.hub.turn(room)
    heard = b"".join(link_of(ana).written)
    assert (b'"unsubscribe"' in heard, b'"newer"' in heard) == (True, False)


async def test_a_bug_over_what_the_feed_brought_has_those_come_back_whom_it_was_for_and_nobody_else(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    ana, ben = comes(node), comes(node, "c2", "ben")
    for each, room in ((ana, "lobby"), (ben, "tea")):
        await reading.subscribe(node.chat, each, Subscribe(room))

    def buggy(delivery: Delivery) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(node.chat, "lost_history", buggy)
    node._deliver([Delivery("lobby", (), Lost(Position("e", 20)))])
    assert (link_of(ana).goodbye, link_of(ben).goodbye) == (INSUFFICIENT_STATE, None)


# --- the registry -----------------------------------------------------------------------------------------------------


async def test_who_has_gone_while_others_were_registered_anew_is_not_registered(node: Node) -> None:
    await node.membership.enroll()
    ana = comes(node)
    await node.store.register(node.chat.registration(ana), 0)
    unregister, asked = node.store.unregister, asyncio.Event()

    async def noticed(user: str, client: str) -> None:
        asked.set()
        await unregister(user, client)

    node.store.unregister = noticed  # type: ignore[method-assign]
    anew = asyncio.create_task(node.chat.register_anew())
    await asked.wait()
    asked.clear()
    node.chat.lost(ana, ABNORMAL, "192.0.2.1")
    await anew
    await asked.wait()
    await until(lambda: nobody_is_registered(node))


async def test_all_are_registered_anew_in_a_store_that_was_started_again_and_knows_some_scripts_only(
    node: Node,
) -> None:
    await node.membership.enroll()
    for n in range(3):
        await node.store.register(node.chat.registration(comes(node, f"c{n}", f"u{n}")), 0)
    await forget_scripts(node.store)
    await node.store.register(node.chat.registration(comes(node, "c3", "u3")), 0)
    await node.chat.register_anew()
    assert {each.user for each in await node.store.registered()} == {"u0", "u1", "u2", "u3"}


async def nobody_is_registered(node: Node) -> bool:
    return await node.store.registered() == []


async def test_all_are_registered_anew_though_the_store_went_away_amid_it(
    node: Node,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    node.settings = replace(node.settings, cluster=replace(node.settings.cluster, renew=0.01))
    await node.membership.enroll()
    for n in range(3):
        await node.store.register(node.chat.registration(comes(node, f"c{n}", f"u{n}")), 0)
    old = node.lease
    await node.store.bury(old)  # it was away for longer than its lease, and another node has buried it
    await node.store.purge(old)
    register, failures = node.store.register, [StoreUnavailable("away once more")]

    async def failing_once(entry: Any, limit: int) -> bool:
        if failures and entry.user == "u1":
            raise failures.pop()
        return await register(entry, limit)

    monkeypatch.setattr(node.store, "register", failing_once)
    keeping = asyncio.create_task(node.membership.keep())

    async def all_are_there() -> bool:
        return {each.user for each in await node.store.registered()} == {"u0", "u1", "u2"}

    await until(all_are_there)
    keeping.cancel()
    await asyncio.gather(keeping, return_exceptions=True)
    await node.membership._renew()  # it may have been cancelled before it knew
    failures.append(StoreUnavailable("asked to register whom it has"))
    await node.membership._renew()
    assert failures, "once is enough"


async def test_a_dead_node_is_cleared_up_after_at_once_though_the_store_went_away_amid_it(
    node: Node,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await node.membership.enroll()
    node.chat.settings = replace(node.settings, cluster=replace(node.settings.cluster, renew=0.01, lease=0.01))
    dead = "dead.1"
    await node.store.enroll(dead, 0, {})
    await node.store.register(replace(node.chat.registration(comes(node)), lease=dead), 0)
    purge, failures = node.store.purge, [StoreUnavailable("away once more")]

    async def failing_once(lease: str) -> int:
        if failures:
            raise failures.pop()
        return await purge(lease)

    monkeypatch.setattr(node.store, "purge", failing_once)

    async def is_cleared_up() -> bool:
        return node.meters.reaped["node"] == 1

    burying = asyncio.create_task(node.reaper.bury_the_dead())
    await until(is_cleared_up)
    burying.cancel()
    await asyncio.gather(burying, return_exceptions=True)
    assert await nobody_is_registered(node)


# --- what the store could not be told yet -----------------------------------------------------------------------------


async def test_the_latest_word_is_owed_though_an_earlier_one_failed_meanwhile() -> None:
    debts, done = Debts(), list[str]()
    heard: dict[str, asyncio.Future[None]] = {}

    def act(name: str) -> Callable[[], Awaitable[None]]:
        async def do() -> None:
            heard[name] = asyncio.get_running_loop().create_future()
            await heard[name]
            done.append(name)

        return do

    come = asyncio.create_task(debts.pay_or_owe(("c1", "lobby"), act("come")))
    await asyncio.sleep(0)
    go = asyncio.create_task(debts.pay_or_owe(("c1", "lobby"), act("go")))
    await asyncio.sleep(0)
    for name, task in (("come", come), ("go", go)):
        heard[name].set_exception(StoreUnavailable("away"))
        await task
    settled = asyncio.create_task(debts.settle())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    heard["go"].set_result(None)
    await settled
    assert done == ["go"]


async def test_an_older_word_that_could_not_be_told_does_not_replace_the_latest() -> None:
    debts, told, failing = Debts(), list[str](), asyncio.Event()

    async def join() -> None:
        await failing.wait()
        told.append("join")
        raise StoreUnavailable("it does not answer")

    async def leave() -> None:
        told.append("leave")

    joining = asyncio.create_task(debts.pay_or_owe(("c1", "lobby"), join))
    await asyncio.sleep(0)
    await debts.pay_or_owe(("c1", "lobby"), leave)
    failing.set()
    await joining
    await debts.settle()
    assert told == ["leave", "join"]


async def test_what_is_owed_is_told_together() -> None:
    debts, under_way = Debts(), [0, 0]
    away = True

    async def act() -> None:
        if away:
            raise StoreUnavailable("away")
        under_way[0] += 1
        under_way[1] = max(under_way)
        await asyncio.sleep(0)
        under_way[0] -= 1

    for n in range(10):
        await debts.pay_or_owe((f"c{n}", ""), lambda: act())
    away = False
    await debts.settle()
    assert under_way == [0, 10]


async def test_who_was_put_out_while_the_store_was_away_is_no_ghost_in_the_room(
    node: Node,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ana = comes(node)
    await reading.subscribe(node.chat, ana, Subscribe("lobby"))
    presence, answers = node.store.presence, [asyncio.Event(), asyncio.Event()]
    join = presence.join

    async def joined_unheard(*args: Any) -> None:
        await join(*args)
        await answers[0].wait()
        raise StoreUnavailable("no answer")

    async def away(*_: Any, **__: Any) -> int:
        await answers[1].wait()
        raise StoreUnavailable("still no answer")

    with monkeypatch.context() as patched:
        patched.setattr(presence, "join", joined_unheard)
        patched.setattr(presence, "leave", away)
        announcing = asyncio.create_task(reading.announce(node.chat, ana, Subscribe("lobby")))
        await until(lambda: somebody_is_there(node))
        leaving = asyncio.create_task(reading.put_out(node.chat, ana, "lobby", *UNSUBSCRIBED_EXPIRED))
        await asyncio.sleep(0)
        for answer, task in zip(answers, (announcing, leaving), strict=True):
            answer.set()
            await task
    await node.chat.debts.settle()
    assert await presence.stats("lobby") == (0, 0)


async def somebody_is_there(node: Node) -> bool:
    return await node.store.presence.stats("lobby") == (1, 1)


async def test_a_room_is_noted_for_the_reaper_until_all_who_left_it_are_known_to_have(
    node: Node,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ana, bob = await present(node, "ana"), await present(node, "bob")
    presence = node.store.presence
    leave = presence.leave

    async def away_for_bob(*args: Any, one: tuple[str, str], **how: Any) -> int:
        if one[0] == "bob":
            raise StoreUnavailable("no answer")
        return await leave(*args, one=one, **how)

    with monkeypatch.context() as patched:
        patched.setattr(presence, "leave", away_for_bob)
        for each in (bob, ana):
            await reading.leave(node.chat, each, "lobby")
    assert await presence.rooms_of(node.lease) == ["lobby"]
    await node.chat.debts.settle()
    assert (await presence.stats("lobby"), await presence.rooms_of(node.lease)) == ((0, 0), [])


async def test_a_room_stays_noted_under_a_lease_that_ended_while_it_was_left(
    node: Node,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ana, bob = await present(node, "ana"), await present(node, "bob")
    presence, old = node.store.presence, node.lease
    leave, asked, answered = presence.leave, asyncio.Event(), asyncio.Event()

    async def heard_late(*args: Any, **how: Any) -> int:
        count = await leave(*args, **how)
        asked.set()
        await answered.wait()
        return count

    with monkeypatch.context() as patched:
        patched.setattr(presence, "leave", heard_late)
        leaving = asyncio.create_task(reading.leave(node.chat, ana, "lobby"))
        await asked.wait()
    await node.membership.come_back()
    await reading.leave(node.chat, bob, "lobby")
    answered.set()
    await leaving
    await node.reaper.bury(old)
    assert await presence.stats("lobby") == (0, 0)


async def present(node: Node, user: str) -> Session:
    one = comes(node, f"{user}'s", user)
    await reading.subscribe(node.chat, one, Subscribe("lobby"))
    await reading.announce(node.chat, one, Subscribe("lobby"))
    return one


async def test_who_is_mentioned_as_the_store_goes_away_is_not_told_and_that_is_no_bug(node: Node) -> None:
    ana = await present(node, "ana")

    async def away(*_: Any) -> set[str]:
        raise StoreUnavailable("no answer")

    node.store.presence.among = away  # type: ignore[method-assign]
    with capture_logs() as logged:
        await mentions.notify(node.chat, ana, "lobby", 1, ["bob"])
    assert [(entry["log_level"], entry["error"]) for entry in logged] == [("warning", "no answer")]


async def test_a_broadcast_says_of_each_room_whether_the_store_took_it(node: Node) -> None:
    server, publish = comes(node), node.store.messages.publish
    server.identity = SERVER

    def away_for_one(room: str, *args: Any, **options: Any) -> Any:
        return no_answer() if room == "away" else publish(room, *args, **options)

    node.store.messages.publish = away_for_one  # type: ignore[method-assign]
    caller = Caller(node.chat, server, Office(node.store, patience=0.1, by="api:shop"))
    answer = await broadcast(caller, Broadcast(("tea", "away", "coffee"), {"text": "hi"}))
    assert [each.get("error", {}).get("code") for each in answer.responses] == [None, 400, None]


async def no_answer() -> None:
    raise StoreUnavailable("no answer")


async def test_who_is_put_out_while_the_room_is_noted_for_the_reaper_is_no_ghost_in_it(
    node: Node,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ana = comes(node)
    await reading.subscribe(node.chat, ana, Subscribe("lobby"))
    presence = node.store.presence
    enter_room = presence.enter_room

    async def put_out_meanwhile(lease: str, room: str) -> None:
        await enter_room(lease, room)
        await reading.put_out(node.chat, ana, room, *UNSUBSCRIBED_EXPIRED)

    monkeypatch.setattr(presence, "enter_room", put_out_meanwhile)
    await reading.announce(node.chat, ana, Subscribe("lobby"))
    assert await presence.stats("lobby") == (0, 0)


async def test_the_server_brings_nobody_into_a_room_that_they_are_banned_from(node: Node) -> None:
    ana = comes(node)
    await node.responder.respond(Impose(1, *Measure(What.BAN, On.USER, "ana", "lobby")))
    assert await node.responder.respond(Enter("ana", "lobby")) == {"entered": 0}
    assert ana.rooms == {}


async def test_what_the_store_could_not_be_told_it_is_told_as_the_lease_is_renewed(
    node: Node,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await node.membership.begin()
    ana = await present(node, "ana")

    async def away(*_: Any, **__: Any) -> int:
        raise StoreUnavailable("no answer")

    with monkeypatch.context() as patched:
        patched.setattr(node.store.presence, "leave", away)
        await reading.leave(node.chat, ana, "lobby")
    assert await somebody_is_there(node)
    await node.membership._renew()
    assert await node.store.presence.stats("lobby") == (0, 0)
