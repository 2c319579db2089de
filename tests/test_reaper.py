"""Who is silent, who is late, who may call another node dead: tables of times, and one turn of the wheel."""

from __future__ import annotations

from collections import deque
from functools import partial
from math import inf
from time import time
from types import SimpleNamespace
from typing import Any

import pytest

from chatd.auth import Key, Revocations, Verifier
from chatd.chat import Chat, tokens
from chatd.errors import NO_PONG, SLOW
from chatd.hub import Hub, Shard
from chatd.model import Identity, Invitation, Refresh, SubRefresh
from chatd.node import Node
from chatd.reaper import Reaper, ended, may_judge, overdue, silent
from chatd.room import SHARDS
from chatd.session import Session, State, Subscription
from chatd.settings import Settings
from chatd.telemetry import Meters
from chatd.wire.centrifuge_json import SDK_JSON
from tests.links import RecordingLink, link_of
from tests.test_auth import SECRET, token

TIMEOUT_S = 8.0


def session(id: str = "c1", *, heard_at: float = 0.0, pinged_at: float = 0.0) -> Session:
    one = Session(id, SDK_JSON, "127.0.0.1", now=heard_at, since=0.0)
    one.pinged_at = pinged_at
    one.attach(RecordingLink())
    link_of(one).waiting = Session.link_bound
    one.state = State.READY
    return one


@pytest.mark.parametrize(
    ("heard_at", "pinged_at", "now", "is_silent"),
    [
        (0.0, 0.0, 1000.0, False),  # never pinged: nothing was asked
        (100.0, 110.0, 110.0, False),
        (100.0, 110.0, 117.9, False),
        (100.0, 110.0, 118.0, True),
        (100.0, 110.0, 200.0, True),
        (110.0, 110.0, 200.0, False),  # heard at the very moment of the ping
        (111.0, 110.0, 200.0, False),
    ],
)
def test_who_was_pinged_and_gave_no_sign_of_life_for_the_timeout_is_silent(
    heard_at: float, pinged_at: float, now: float, is_silent: bool
) -> None:
    shard = Shard()
    one = session(heard_at=heard_at, pinged_at=pinged_at)
    shard.sessions[one] = None
    assert silent(shard, now, TIMEOUT_S) == ([one] if is_silent else [])


def test_who_waits_for_an_answer_is_not_silent_since_we_may_have_stopped_reading_from_it() -> None:
    shard, one = Shard(), session(heard_at=90.0, pinged_at=100.0)
    shard.sessions[one] = None
    one.waiting = deque()
    assert silent(shard, 200.0, TIMEOUT_S) == []
    one.waiting = None
    assert silent(shard, 200.0, TIMEOUT_S) == [one]


@pytest.mark.parametrize(("now", "late"), [(9.9, 0), (10.0, 1), (11.9, 1), (12.0, 2), (99.0, 3)])
def test_who_has_not_said_who_they_are_in_time_is_overdue(now: float, late: int) -> None:
    sessions = [session(f"c{n}") for n in range(3)]
    unknown = dict(zip(sessions, (10.0, 12.0, 13.0), strict=True))
    assert overdue(unknown, now) == sessions[:late]


@pytest.mark.parametrize(
    ("held_since", "now", "judges"),
    [(None, 100.0, False), (95.0, 100.0, False), (90.1, 100.0, False), (90.0, 100.0, True), (0.0, 100.0, True)],
)
def test_only_who_has_held_its_own_lease_for_a_whole_lease_calls_others_dead(
    held_since: float | None, now: float, judges: bool
) -> None:
    assert may_judge(held_since, now, lease=10.0) is judges


class Wheel:
    """A reaper over a hub of known sessions, with a clock that the test turns."""

    def __init__(self, *sessions: Session) -> None:
        self.hub = Hub()
        self.meters = Meters()
        self.now = 1000.0
        for each in sessions:
            self.hub.add(each, "127.0.0.1", known_by=0.0)
            self.hub.welcome(each)
        nobody: Any = SimpleNamespace()
        self.reaper = Reaper(
            self.hub,
            nobody,
            nobody,
            self.meters,
            clock=lambda: self.now,
            now=lambda: self.now,
            held_since=lambda: None,
        )

    async def turn(self, *, lag: int, seconds: float, lively: tuple[Session, ...] = ()) -> None:
        """A whole turn of the wheel, in which `seconds` go by; `lively` answer their pings at once."""
        for _ in range(SHARDS):
            await self.reaper.tick(lag, TIMEOUT_S)
            for each in lively:
                each.heard_at, each.pinged_at = self.now, 0.0
            self.now += seconds / SHARDS


async def test_a_turn_of_the_wheel_pings_everybody_once_with_one_frame() -> None:
    sessions = [session(f"c{n}") for n in range(100)]
    wheel = Wheel(*sessions)
    await wheel.turn(lag=20, seconds=6.0)
    assert {len(link_of(each).written) for each in sessions} == {1}
    assert {id(link_of(each).written[0]) for each in sessions} == {id(SDK_JSON.heartbeat)}


@pytest.mark.parametrize("lag", [21, SHARDS])
async def test_who_does_not_answer_is_closed_within_two_turns_and_who_does_stays(lag: int) -> None:
    mute, lively = session("mute"), session("lively")
    wheel = Wheel(mute, lively)
    for _ in range(2):
        await wheel.turn(lag=lag, seconds=25.0, lively=(lively,))
    assert link_of(mute).goodbye == NO_PONG
    assert link_of(lively).goodbye is None
    assert wheel.meters.reaped["silent"] == 1
    pings = len(link_of(mute).written)
    await wheel.turn(lag=lag, seconds=25.0)
    assert len(link_of(mute).written) == pings, "who was closed is pinged no more"


async def test_who_said_something_after_a_ping_and_then_nothing_any_more_is_closed() -> None:
    dying = session("dying")
    wheel = Wheel(dying)
    await wheel.reaper.tick(21, TIMEOUT_S)
    assert dying.pinged_at == wheel.now
    wheel.now += 0.1
    dying.heard_at = wheel.now  # a message that crossed the ping; no pong ever follows
    for _ in range(2):
        await wheel.turn(lag=21, seconds=25.0)
    assert link_of(dying).goodbye == NO_PONG


async def test_who_has_not_said_who_it_is_is_not_pinged() -> None:
    stranger = session("stranger")
    wheel = Wheel()
    wheel.hub.add(stranger, "127.0.0.1", known_by=5.0)
    await wheel.turn(lag=20, seconds=6.0)
    assert link_of(stranger).written == []


async def test_a_ping_that_no_longer_fits_into_a_full_outbox_ends_the_session() -> None:
    full = session("full")
    link_of(full).congested = True
    await Wheel(full).turn(lag=20, seconds=6.0)
    assert link_of(full).goodbye == SLOW


# --- tokens that end --------------------------------------------------------------------------------------------------


def known(hub: Hub, id: str, ends_at: float | None) -> Session:
    one = session(id)
    one.identity = Identity(id, expires_at=ends_at)
    hub.add(one, "127.0.0.1", 5.0)
    hub.welcome(one)
    return one


def all_ended(hub: Hub, now: float) -> set[str]:
    return {one.id for shard in hub.shards for one in ended(shard, now)}


def test_who_has_a_token_that_ended_is_found_each_time_until_it_is_renewed() -> None:
    hub = Hub()
    a, _, _ = known(hub, "a", 100.0), known(hub, "b", 200.0), known(hub, "c", None)
    assert [all_ended(hub, now) for now in (99.0, 100.0, 101.0)] == [set(), {"a"}, {"a"}]
    a.identity = Identity("a", expires_at=300.0)
    hub.note_end(a)
    assert [all_ended(hub, now) for now in (102.0, 200.0, 300.0)] == [set(), {"b"}, {"a", "b"}]


def test_a_token_renewed_for_less_time_ends_sooner() -> None:
    hub = Hub()
    a = known(hub, "a", 100.0)
    a.identity = Identity("a", expires_at=50.0)
    hub.note_end(a)
    assert all_ended(hub, 60.0) == {"a"}


@pytest.mark.parametrize(
    ("renew", "command", "claims"),
    [(tokens.refresh, Refresh, {}), (tokens.sub_refresh, partial(SubRefresh, "lobby"), {"channel": "lobby"})],
)
async def test_what_a_client_renews_for_less_time_ends_sooner(
    node: Node, renew: Any, command: Any, claims: dict[str, str]
) -> None:
    node.chat.verifier = Verifier([Key("main", "HS256", secret=SECRET)])
    soon, late = time() + 60, time() + 3600
    a = known(node.hub, "a", late)
    node.hub.join(a, "lobby", Subscription(invitation=Invitation("a", late)), 0)
    assert all_ended(node.hub, soon + 1) == set()
    await renew(node.chat, a, command(token({"sub": "a", "exp": soon, **claims})))
    assert all_ended(node.hub, soon + 1) == {"a"}


def test_a_subscription_that_ended_is_found_too_and_nobody_who_has_gone() -> None:
    hub = Hub()
    a, b = known(hub, "a", None), known(hub, "b", 10.0)
    hub.join(a, "lobby", Subscription(invitation=Invitation("a", 20.0)), 0)
    hub.remove(b, "127.0.0.1")
    assert [all_ended(hub, now) for now in (10.0, 20.0)] == [set(), {"a"}]


def test_only_shards_in_which_something_ends_are_looked_through() -> None:
    hub = Hub()
    for n in range(200):
        known(hub, f"c{n}", 1000.0 + n)
    assert all_ended(hub, 999.0) == set()
    assert all_ended(hub, 1000.0) == {"c0"}
    assert min(shard.ends_at for shard in hub.shards) == 1000.0, "the one in its grace is looked at again"
    for session in list(hub.sessions()):
        hub.remove(session, "127.0.0.1")
    assert all_ended(hub, 2000.0) == set()
    assert min(shard.ends_at for shard in hub.shards) == inf


# --- speakers ---------------------------------------------------------------------------------------------------------


async def test_who_has_been_quiet_for_long_enough_to_say_anything_again_is_forgotten() -> None:
    nobody: Any = SimpleNamespace()
    hub, now = Hub(), 1000.0
    clocks = {"clock": lambda: now, "now": lambda: now}
    chat = Chat(
        Settings(), hub, nobody, nobody, nobody, Revocations(), lease=lambda: "n.1", spawn=lambda job: None, **clocks
    )
    reaper = Reaper(hub, chat, nobody, Meters(), held_since=lambda: None, **clocks)
    chat.speaking = {"ana": 999.0, "ben": 1000.0, "eve": 1000.1}
    await reaper.look()
    assert chat.speaking == {"eve": 1000.1}
