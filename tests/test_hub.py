"""Fan-out, told turn by turn: who gets which bytes, and who cannot hold up whom."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import uvloop

from chatd.cast import MOST_WAITING, Outbox
from chatd.errors import INSUFFICIENT_STATE, SLOW
from chatd.hub import MOST_PENDING, TURN_S, Hub
from chatd.model import Delivery, Event, Identity, Kind, Lost, Position
from chatd.room import AT_ONCE, JOINING
from chatd.session import Session, State, Subscription
from chatd.wire import Codec
from chatd.wire.centrifuge_json import SDK_JSON
from chatd.wire.plain import PLAIN
from tests.links import RecordingLink, link_of

pytestmark = pytest.mark.usefixtures("recording")

ROOM = "lobby"


def member(hub: Hub, room: str = ROOM, *, codec: Codec = SDK_JSON, since: int = 0, **wishes: Any) -> Session:
    session = Session(f"c{hub.size}", codec, "127.0.0.1", now=0.0, since=0.0)
    session.identity = Identity("ana")
    session.attach(RecordingLink())
    session.state = State.READY
    hub.add(session, "127.0.0.1", 5.0)
    hub.welcome(session)
    subscription = Subscription(**wishes)
    if since == JOINING:
        subscription.held = []
    hub.join(session, room, subscription, since)
    return session


def said(offset: int, client: str = "elsewhere") -> Event:
    body = f'{{"data":{{"text":"{offset}"}},"info":{{"user":"eve","client":"{client}"}},"offset":{offset}}}'
    return Event(Kind.PUBLICATION, body.encode(), Position("e", offset))


TYPING = Event(Kind.SIGNAL, b'{"data":{"on":true},"info":{"user":"eve","client":"c-eve"},"tags":{"type":"typing"}}')
JOINED = Event(Kind.JOIN, b'{"user":"bob","client":"c-bob"}')


def fan_out(hub: Hub, *events: Event, room: str = ROOM) -> None:
    hub.deliver([Delivery(room, events)])
    while hub.rooms[room] in hub._casts:
        hub.turn(hub.rooms[room])


def written(session: Session) -> list[bytes]:
    return link_of(session).written


def test_one_frame_object_reaches_every_member_and_is_made_once_for_a_round(monkeypatch: pytest.MonkeyPatch) -> None:
    hub, made = Hub(), list[int]()
    members = [member(hub) for _ in range(200)]
    frame = SDK_JSON.frame

    def counted(_: object, payloads: list[bytes]) -> bytes:
        made.append(len(payloads))
        return frame(payloads)

    monkeypatch.setattr(type(SDK_JSON), "frame", counted)
    fan_out(hub, said(1), said(2))
    assert made == [2]
    assert len({id(written(session)[-1]) for session in members}) == 1
    assert written(members[0])[0].count(b"\n") == 1, "what is ready together travels together"
    assert hub.delivered == 200


def test_who_joined_amid_the_events_gets_only_what_came_after() -> None:
    hub = Hub()
    early, late = member(hub, since=0), member(hub, since=2)
    fan_out(hub, said(2), said(3))
    assert b'"offset":2' in written(early)[0]
    assert b'"offset":2' not in written(late)[0]
    assert b'"offset":3' in written(late)[0]


def test_while_history_is_read_everything_is_held_and_nothing_is_missed_or_doubled() -> None:
    hub = Hub()
    joining = member(hub, since=JOINING)
    fan_out(hub, said(4), said(5))
    fan_out(hub, said(6))
    assert written(joining) == []
    assert [event.position for event in hub.caught_up(joining, ROOM, 5)] == [Position("e", 6)]
    fan_out(hub, said(6))
    fan_out(hub, said(7))
    assert [b'"offset":7' in frame for frame in written(joining)] == [True]


def test_joins_go_to_those_who_asked_from_when_they_know_that_they_are_in_the_room() -> None:
    hub = Hub()
    joining = member(hub, since=JOINING, join_leave=True)
    fan_out(hub, JOINED)
    assert written(joining) == []
    hub.caught_up(joining, ROOM, 5)
    fan_out(hub, JOINED)
    assert [b'"join"' in frame for frame in written(joining)] == [True]
    hub.leave(joining, ROOM)
    assert ROOM not in hub.rooms


def test_an_author_at_the_plain_door_does_not_hear_its_own_words() -> None:
    hub = Hub()
    author, other = member(hub, codec=PLAIN), member(hub, codec=PLAIN)
    fan_out(hub, said(1, client=author.id), said(2))
    assert b"eve: 1" not in b"".join(written(author))
    assert b"eve: 2" in b"".join(written(author))
    assert b"eve: 1" in b"".join(written(other))


def test_joins_go_to_those_who_asked() -> None:
    hub = Hub()
    asked, not_asked = member(hub, join_leave=True), member(hub)
    fan_out(hub, JOINED)
    assert b'"join"' in written(asked)[0]
    assert written(not_asked) == []


def test_a_slow_reader_is_told_so_and_the_others_do_not_notice() -> None:
    hub = Hub()
    slow, quick = member(hub), member(hub)
    link_of(slow).congested, link_of(slow).waiting = True, Session.link_bound
    fan_out(hub, said(1))
    assert link_of(slow).goodbye == SLOW
    assert written(slow) == []
    assert len(written(quick)) == 1


def test_what_may_be_dropped_is_dropped_first() -> None:
    hub = Hub()
    congested = member(hub, join_leave=True)
    link_of(congested).congested = True
    fan_out(hub, JOINED)
    assert written(congested) == []
    fan_out(hub, said(1))
    assert len(written(congested)) == 1
    assert link_of(congested).goodbye is None


def test_a_socket_reset_amid_a_fan_out_costs_nobody_their_message() -> None:
    hub = Hub()
    members = [member(hub) for _ in range(5)]
    link_of(members[2]).reset = True
    fan_out(hub, said(1))
    assert [len(written(session)) for session in members] == [1, 1, 0, 1, 1]


def test_what_a_socket_does_not_take_at_once_waits_and_nobody_else_does() -> None:
    hub = Hub()
    full, nearly, quick = member(hub), member(hub), member(hub)
    link_of(full).takes, link_of(nearly).takes = 0, 10
    fan_out(hub, said(1))
    (frame,) = written(quick)
    assert [*written(full), *link_of(full).rest] == [b"", frame]
    assert [*written(nearly), *link_of(nearly).rest] == [frame[:10], frame[10:]]
    assert link_of(quick).rest == []


def test_the_bytes_and_events_that_went_out_are_counted_to_the_last_one() -> None:
    hub, before = Hub(), Session.traffic.bytes_out
    slow, author = member(hub), member(hub, codec=PLAIN)
    link_of(slow).congested = True
    members = [slow, author, *(member(hub, join_leave=True) for _ in range(50)), member(hub, since=1)]
    fan_out(hub, said(1), said(2, client=author.id), JOINED)
    sizes = sum(len(frame) for session in members for frame in written(session))
    assert Session.traffic.bytes_out - before == sizes
    assert hub.sent == [2 * len(members), 50]


def test_a_round_tells_how_long_its_first_event_has_been_here() -> None:
    hub = Hub(clock=lambda: 10.0)
    rounds: list[tuple[float, float]] = []
    hub.on_round = lambda seconds, since_arrival: rounds.append((seconds, since_arrival))
    member(hub)
    hub.deliver([Delivery(ROOM, (said(1),), arrived_at=9.0), Delivery(ROOM, (said(2),), arrived_at=9.5)])
    while hub._casts:
        hub.turn(hub.rooms[ROOM])
    assert rounds == [(0.0, 1.0)]


def test_a_large_room_does_not_hold_up_a_small_one() -> None:
    hub = Hub()
    large = [member(hub, "large") for _ in range(1000)]
    small = member(hub, "small")
    hub.deliver([Delivery("large", (said(1),)), Delivery("small", (said(1),))])
    hub.turn(hub.rooms["large"])
    hub.turn(hub.rooms["small"])
    assert len(written(small)) == 1
    assert 0 < sum(len(written(session)) for session in large) < 1000


class SlowRooms:
    """A hub on a clock of its own, of rooms so large that each is written to by itself, which takes longer than a turn.

    Attributes:
        order: the rooms as they were written to, and what a test adds.
    """

    def __init__(self, *rooms: str) -> None:
        self.now = 0.0
        self.order: list[str] = []
        self.hub = Hub(clock=lambda: self.now)
        for room in rooms:
            first, *_ = [member(self.hub, room) for _ in range(MOST_WAITING)]
            fan_out(self.hub, said(1), room=room)
            link_of(first).on_send = partial(self.wrote_to, room)

    def wrote_to(self, room: str) -> None:
        self.now += 2 * TURN_S
        self.order.append(room)

    def say(self, *rooms: str) -> None:
        self.hub.deliver([Delivery(room, (said(len(self.order) + 2),)) for room in rooms])

    async def until(self, ends: Callable[[], object]) -> None:
        running = asyncio.ensure_future(self.hub.run())
        while not ends():
            await asyncio.sleep(0)
        running.cancel()


async def test_rooms_have_their_turns_in_the_order_in_which_they_spoke() -> None:
    slow = SlowRooms("a", "b", "c")
    slow.say("a", "b")
    await slow.until(lambda: slow.order)
    slow.say("c", "a")
    await slow.until(lambda: not slow.hub._casts)
    assert slow.order == ["a", "b", "c", "a"]


def test_what_is_read_between_two_turns_is_acted_on_before_the_second() -> None:
    """As a message is: begun where it is read, and asked of the store in a callback."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(read_between_two_turns()) == ["a", "asked", "b"]


async def read_between_two_turns() -> list[str]:
    slow = SlowRooms("a", "b")
    loop = asyncio.get_running_loop()
    listening = loop.create_future()
    ours, theirs = socket.socketpair()

    class Asking(asyncio.Protocol):
        def data_received(self, data: bytes) -> None:
            if data == b"?":
                listening.set_result(None)
            else:
                loop.call_soon(slow.order.append, "asked")

    def wrote_to_a() -> None:
        slow.wrote_to("a")
        theirs.send(b"!")

    with ours, theirs:
        transport, _ = await loop.create_connection(Asking, sock=ours)
        theirs.send(b"?")
        await listening
        link_of(next(slow.hub.rooms["a"].sessions())).on_send = wrote_to_a
        slow.say("a", "b")
        await slow.until(lambda: not slow.hub._casts)
        transport.close()
    return slow.order


async def test_a_bug_in_one_rooms_round_sends_its_readers_to_recover_and_others_go_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hub = Hub(clock=lambda: 0.0)  # a turn ends when all is done
    hit, well = member(hub, "hit"), member(hub, "well")
    turn = hub.turn

    def buggy(room: Any, outbox: Any) -> None:
        if room.name == "hit":
            raise ZeroDivisionError
        turn(room, outbox)

    monkeypatch.setattr(hub, "turn", buggy)
    running = asyncio.create_task(hub.run())
    hub.deliver([Delivery("hit", (said(1),)), Delivery("well", (said(1),))])
    while not written(well):
        await asyncio.sleep(0)
    assert link_of(hit).goodbye == INSUFFICIENT_STATE
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


def test_every_language_is_spoken_once_a_round() -> None:
    hub = Hub()
    members = {codec: [member(hub, codec=codec) for _ in range(20)] for codec in (SDK_JSON, PLAIN)}
    fan_out(hub, said(1))
    for codec, sessions in members.items():
        assert len({id(frame) for session in sessions for frame in written(session)}) == 1
        assert written(sessions[0]) == [codec.frame([codec.event(ROOM, said(1))])]


def test_who_joins_amid_a_round_neither_misses_nor_doubles_whatever_its_slice() -> None:
    hub = Hub()
    for _ in range(20):
        member(hub)
    hub.deliver([Delivery(ROOM, (said(1),))])
    hub.turn(hub.rooms[ROOM])
    joined = [member(hub, since=1) for _ in range(100)]
    joining = [member(hub, since=JOINING) for _ in range(100)]
    fan_out(hub, said(2))
    assert {len(written(session)) for session in joined} == {1}
    for session in joining:
        assert [event.position for event in hub.caught_up(session, ROOM, 1)] == [Position("e", 2)]
        assert written(session) == []


def test_who_leaves_amid_a_round_hears_nothing_more() -> None:
    hub = Hub()
    members = [member(hub) for _ in range(600)]
    hub.deliver([Delivery(ROOM, (said(1),))])
    hub.turn(hub.rooms[ROOM])
    unheard = [session for session in members if not written(session)]
    for session in unheard:
        hub.leave(session, ROOM)
    while hub._casts:
        hub.turn(hub.rooms[ROOM])
    assert unheard
    assert not any(written(session) for session in unheard)


def test_a_signal_reaches_all_readers_but_the_congested_who_get_the_messages_beside_it() -> None:
    hub = Hub()
    congested, quick, plain = member(hub), member(hub), member(hub, codec=PLAIN)
    link_of(congested).congested = True
    fan_out(hub, TYPING, said(1), TYPING)
    assert written(quick)[0].count(b"typing") == 2
    assert (written(congested)[0].count(b"typing"), written(congested)[0].count(b'"offset":1')) == (0, 1)
    assert b"typing" not in b"".join(written(plain))
    fan_out(hub, TYPING)
    assert (len(written(congested)), len(written(quick)), len(written(plain))) == (1, 2, 1)


def test_a_room_without_history_may_miss_its_congested_readers() -> None:
    hub = Hub()
    congested, quick = member(hub), member(hub)
    link_of(congested).congested = True
    fan_out(hub, Event(Kind.PUBLICATION, b'{"data":1}'))
    assert (len(written(congested)), len(written(quick))) == (0, 1)


def test_a_room_whose_count_began_anew_is_read_from_there() -> None:
    hub = Hub()
    reader = member(hub, since=100)
    hub.begin_anew(ROOM, 0)
    fan_out(hub, said(1))
    assert len(written(reader)) == 1


def test_what_was_said_before_and_after_a_loss_reaches_who_stays() -> None:
    hub = Hub()
    readers = [member(hub, codec=PLAIN, since=100) for _ in range(20)]
    anew = Event(Kind.PUBLICATION, said(3).body, Position("f", 3))
    hub.deliver([Delivery(ROOM, (said(101),))])
    hub.turn(hub.rooms[ROOM])
    hub.deliver([Delivery(ROOM, (said(102),)), Delivery(ROOM, (anew,), Lost(Position("f", 2)))])
    hub.begin_anew(ROOM, 2)
    fan_out(hub, said(4))
    for reader in readers:
        assert [number in b"".join(written(reader)) for number in (b"101", b"102", b"eve: 3", b"eve: 4")] == [True] * 4
        assert b"".join(written(reader)).count(b"eve") == 4


def test_what_waited_for_its_turn_when_history_was_lost_is_told_while_its_numbers_still_mean_something() -> None:
    hub = Hub()
    fresh = member(hub, codec=PLAIN, since=5)
    hub.deliver([Delivery(ROOM, (said(6),)), Delivery(ROOM, (), Lost(Position("f", 9)))])
    assert b"eve: 6" in b"".join(written(fresh))


def test_who_was_joining_when_history_was_lost_goes_on_holding_and_only_what_is_new() -> None:
    hub = Hub()
    joining = member(hub, since=JOINING)
    fan_out(hub, said(101))
    hub.deliver([Delivery(ROOM, (), Lost(Position("f", 1)))])
    fan_out(hub, said(2))
    assert written(joining) == []
    assert [event.position for event in hub.caught_up(joining, ROOM, 1)] == [Position("e", 2)]


def test_with_too_much_to_say_nothing_more_is_wanted_until_half_of_it_is_said() -> None:
    hub = Hub()
    told: list[bool] = []
    hub.on_behind = told.append
    member(hub, "a")
    member(hub, "b")
    half = tuple(said(n) for n in range(1, MOST_PENDING // 2 + 1))
    hub.deliver([Delivery("a", half), Delivery("b", half)])
    assert told == []
    hub.deliver([Delivery("b", (said(MOST_PENDING),))])
    assert told == [True]
    hub.turn(hub.rooms["a"])
    assert told == [True]
    hub.turn(hub.rooms["b"])
    assert told == [True, False]


def test_what_comes_for_a_room_nobody_reads_is_no_work() -> None:
    hub = Hub()
    hub.deliver([Delivery("nowhere", (said(1),), Lost(Position("e", 1)))])
    assert not hub._casts


def test_the_hub_finds_its_sessions_and_counts_them_by_network() -> None:
    hub = Hub()
    sessions = [member(hub) for _ in range(10)]
    unknown = Session("c-unknown", SDK_JSON, "127.0.0.1", now=0.0, since=0.0)
    hub.add(unknown, "127.0.0.1", known_by=5.0)
    assert (hub.size, hub.by_network, list(hub.unknown)) == (11, {"127.0.0.1": 11}, [unknown])
    assert hub.find(unknown.id) is unknown
    assert set(hub.sessions()) == {*sessions, unknown}
    for session in (*sessions, unknown, unknown):
        hub.remove(session, "127.0.0.1")
    assert (hub.size, hub.by_network, hub.unknown) == (0, {}, {})
    assert hub.find(unknown.id) is None


def test_the_last_to_leave_closes_the_room() -> None:
    hub = Hub()
    first, last = member(hub, join_leave=True), member(hub)
    hub.leave(first, ROOM)
    assert list(hub.rooms[ROOM].sessions()) == [last]
    hub.leave(last, ROOM)
    assert hub.rooms == {}
    assert first.rooms == {}


async def said_in_one_turn(hub: Hub, *deliveries: Delivery) -> None:
    """As the node does it: what the feed brought, and turns until all of it is out."""
    running = asyncio.ensure_future(hub.run())
    hub.deliver(deliveries)
    while hub._work.is_set():
        await asyncio.sleep(0)
    running.cancel()


async def test_what_several_rooms_say_in_one_turn_reaches_a_reader_of_them_in_one_write() -> None:
    hub = Hub(clock=lambda: 0.0)  # a turn ends when all is done
    of_both, of_one = member(hub, "a"), member(hub, "a")
    hub.join(of_both, "b", Subscription(), 0)
    await said_in_one_turn(hub, Delivery("a", (said(1), said(2))), Delivery("b", (said(3),)))
    (both,), (one,) = written(of_both), written(of_one)
    assert both.startswith(one)
    assert [both.count(b'"offset":%d' % n) for n in (1, 2, 3)] == [1, 1, 1]
    await said_in_one_turn(hub, Delivery("a", (said(4),)))
    assert written(of_both)[1] is written(of_one)[1], "one room alone: one frame for all"


async def test_rooms_with_the_same_readers_share_a_frame_until_one_with_others_comes() -> None:
    hub = Hub(clock=lambda: 0.0)  # a turn ends when all is done
    ana, bob, cy, dan = (member(hub, "a") for _ in range(4))
    link_of(dan).outlet = None
    for session in (ana, bob, cy, dan):
        hub.join(session, "b", Subscription(), 0)
    eve = member(hub, "c")
    hub.join(ana, "c", Subscription(), 0)
    await said_in_one_turn(hub, *(Delivery(room, (said(1),)) for room in "abc"))  # all have settled
    await said_in_one_turn(hub, Delivery("a", (said(2),)), Delivery("b", (said(3),)))
    assert written(ana)[-1] is written(bob)[-1] is written(cy)[-1] is written(dan)[-1]
    await said_in_one_turn(hub, *(Delivery(room, (said(n),)) for n, room in enumerate("abcb", 4)))
    heard = {
        session: [int(n) for n in re.findall(rb'"offset":(\d+)', written(session)[-1])] for session in (ana, bob, eve)
    }
    assert heard == {ana: [4, 5, 7, 6], bob: [4, 5, 7], eve: [6]}
    assert [len(written(session)) for session in (ana, bob, cy, dan, eve)] == [3, 3, 3, 3, 2]


async def test_so_it_does_in_rooms_that_take_many_steps() -> None:
    hub = Hub(clock=lambda: 0.0)  # a turn ends when all is done
    readers = [member(hub, "a") for _ in range(1000)]
    for session in readers:
        hub.join(session, "b", Subscription(), 0)
    await said_in_one_turn(hub, Delivery("a", (said(1),)), Delivery("b", (said(2),)))
    assert {len(written(session)) for session in readers} == {1}
    assert len({id(written(session)[0]) for session in readers}) < 20, "joined once a step, for all"


async def test_so_it_does_where_what_leaves_together_takes_longer_than_a_turn() -> None:
    passed = 0.0

    def write_slowly() -> None:
        nonlocal passed
        passed += TURN_S / 100

    hub = Hub(clock=lambda: passed)
    readers = [member(hub, "a") for _ in range(1000)]
    for session in readers:
        hub.join(session, "b", Subscription(), 0)
        link_of(session).on_send = write_slowly
    await said_in_one_turn(hub, Delivery("a", (said(1),)), Delivery("b", (said(2),)))
    assert {len(written(session)) for session in readers} == {1}


def test_rooms_take_their_steps_together_wherever_each_began() -> None:
    hub = Hub()
    readers = [member(hub, "a") for _ in range(4 * AT_ONCE)]
    for session in readers:
        hub.join(session, "b", Subscription(), 0)
    outbox = Outbox()
    hub.deliver([Delivery("a", (said(1),))])
    hub.turn(hub.rooms["a"], Outbox())
    hub.deliver([Delivery("b", (said(2),))])
    for room in ("a", "b"):
        hub.turn(hub.rooms[room], outbox)
    assert len(outbox) < 2 * AT_ONCE, "the same readers' frames of both rooms"
    outbox.empty()
    (frame,) = {frame for session in readers for frame in written(session)}
    assert b'"offset":1' in frame
    assert b'"offset":2' in frame


def test_a_room_has_windows_for_its_size_and_each_of_its_readers_is_in_one_of_them() -> None:
    hub = Hub()
    crowd = [member(hub, codec=(SDK_JSON, PLAIN)[n % 2], join_leave=n % 3 == 0) for n in range(3 * AT_ONCE)]
    room = hub.rooms[ROOM]
    fan_out(hub, said(1), JOINED)
    assert room.settled.windows == room.watchers.windows == 4
    for session in crowd[AT_ONCE + 1 :]:
        hub.leave(session, ROOM)
    fan_out(hub, said(2), JOINED)
    assert room.settled.windows == room.watchers.windows == 4, "twice as many as need be are left alone"
    for session in crowd[AT_ONCE // 2 : AT_ONCE + 1]:
        hub.leave(session, ROOM)
    fan_out(hub, said(3), JOINED)
    assert room.settled.windows == room.watchers.windows == 1
    for session in crowd[: AT_ONCE // 2]:
        heard = b"".join(written(session))
        marks = [b"eve: %d" % n if session.codec is PLAIN else b'"offset":%d' % n for n in (1, 2, 3)]
        assert [heard.count(mark) for mark in marks] == [1, 1, 1]
        asked = session.codec is SDK_JSON and session.rooms[ROOM].join_leave
        assert heard.count(b"c-bob") == 3 * asked


@pytest.mark.parametrize("start", range(0, 70, 3))
def test_a_round_reaches_everybody_once_whichever_shards_it_begins_with(start: int) -> None:
    hub = Hub()
    hub._step = start
    readers = [member(hub) for _ in range(1500)]
    fan_out(hub, said(1))
    assert {len(written(session)) for session in readers} == {1}


@pytest.mark.parametrize("rooms", [("a",), ("a", "b")])
async def test_who_has_no_outlet_as_over_tls_gets_the_same_in_as_many_writes(rooms: tuple[str, ...]) -> None:
    hub = Hub(clock=lambda: 0.0)  # a turn ends when all is done
    with_one, without, slow = (member(hub, "a") for _ in range(3))
    for session in (without, slow):
        hub.leave(session, "a")
        link_of(session).outlet = None
        hub.join(session, "a", Subscription(), 0)
    for session in (with_one, without, slow):
        hub.join(session, "b", Subscription(), 0)
    link_of(slow).congested, link_of(slow).waiting = True, Session.link_bound
    await said_in_one_turn(hub, *(Delivery(room, (said(1),)) for room in rooms))
    assert written(without) == written(with_one)
    assert len(written(without)) == 1
    assert (written(slow), link_of(slow).goodbye) == ([], SLOW)
    hub.leave(without, "a")
    await said_in_one_turn(hub, Delivery("a", (said(2),)))
    assert [len(written(session)) for session in (without, with_one)] == [1, 2]


async def test_what_waits_for_the_end_of_a_turn_comes_before_what_only_this_reader_gets() -> None:
    """An author does not hear its own words at the plain door, and gets a frame of its own, behind the common one."""
    hub = Hub(clock=lambda: 0.0)  # a turn ends when all is done
    author = member(hub, "a", codec=PLAIN)
    hub.join(author, "b", Subscription(), 0)
    await said_in_one_turn(hub, Delivery("a", (said(1),)), Delivery("b", (said(2), said(3, client=author.id))))
    assert [b"eve: 1" in frame for frame in written(author)] == [True, False]
    assert b"eve: 2" in written(author)[1]


async def test_who_became_slow_before_the_end_of_a_turn_is_told_so() -> None:
    hub = Hub(clock=lambda: 0.0)  # a turn ends when all is done
    slow = member(hub, "a")
    other = member(hub, "b")
    link_of(other).on_send = lambda: setattr(link_of(slow), "congested", True)
    link_of(slow).waiting = Session.link_bound
    await said_in_one_turn(hub, Delivery("b", (said(1),)), Delivery("a", (said(1),)))
    assert link_of(slow).goodbye == SLOW
    assert written(slow) == []
