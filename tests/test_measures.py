"""Bans, mutes and the lockdown as decisions: whom they cover, when, where; and how changes of them are taken in."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from chatd.measures import Lockdown, Measure, Measures, On, What, target_of
from chatd.model import Identity, Role

NOW = 1000.0
ANA = Identity("ana", token_id="jti-1")
HOME = "192.0.2.7"


def ban(on: On, target: str, room: str = "", until: float = 0.0, **more: object) -> Measure:
    return Measure(What.BAN, on, target, room, until, **more)  # type: ignore[arg-type]


def holding(*rows: Measure) -> Measures:
    measures = Measures()
    measures.load(rows, Lockdown.OPEN, 1, asked_at=0)
    return measures


@pytest.mark.parametrize(
    ("measure", "room", "covered"),
    [
        (ban(On.USER, "ana"), "", True),
        (ban(On.USER, "ana"), "lobby", True),
        (ban(On.USER, "Ana"), "lobby", False),
        (ban(On.USER, "ana", "lobby"), "lobby", True),
        (ban(On.USER, "ana", "lobby"), "den", False),
        (ban(On.USER, "ana", "lobby"), "", False),
        (ban(On.USER, "jti-1"), "", False),
        (ban(On.TOKEN, "jti-1"), "", True),
        (ban(On.TOKEN, "jti-1", "lobby"), "lobby", True),
        (ban(On.TOKEN, "jti-2"), "", False),
        (ban(On.ADDRESS, "192.0.2.7/32"), "", True),
        (ban(On.ADDRESS, "192.0.2.0/24"), "lobby", True),
        (ban(On.ADDRESS, "192.0.2.0/24", "lobby"), "den", False),
        (ban(On.ADDRESS, "0.0.0.0/0"), "", True),
        (ban(On.ADDRESS, "192.0.3.0/24"), "", False),
        (ban(On.ADDRESS, "::/0"), "", False),
        (ban(On.ADDRESS, "2001:db8::/64"), "", False),
        (ban(On.USER, "ana", until=NOW + 1), "", True),
        (ban(On.USER, "ana", until=NOW), "", False),
        (ban(On.ADDRESS, "192.0.2.0/24", until=NOW), "", False),
        (Measure(What.MUTE, On.USER, "ana"), "", False),
        (Measure(What.MUTE, On.ADDRESS, "192.0.2.7/32"), "", False),
    ],
)
def test_a_measure_covers_whom_it_names_where_it_holds_and_while_it_lasts(
    measure: Measure, room: str, covered: bool
) -> None:
    found = holding(measure).covering(What.BAN, ANA, HOME, room, NOW)
    assert found is (measure if covered else None)


@pytest.mark.parametrize(("rank", "role", "covered"), [
    (0, Role.OWNER, True),
    (Role.MODERATOR, Role.NOBODY, True),
    (Role.MODERATOR, Role.MEMBER, True),
    (Role.MODERATOR, Role.MODERATOR, False),
    (Role.MODERATOR, Role.OWNER, False),
    (Role.OWNER, Role.MODERATOR, True),
    (Role.OWNER, Role.OWNER, False),
])  # fmt: skip
@pytest.mark.parametrize("target", [(On.USER, "ana"), (On.TOKEN, "jti-1"), (On.ADDRESS, "192.0.2.0/24")])
def test_nobody_is_covered_by_one_who_is_no_more_than_he(
    target: tuple[On, str], rank: int, role: Role, covered: bool
) -> None:
    measures = holding(ban(*target, "lobby", rank=rank))
    assert (measures.covering(What.BAN, ANA, HOME, "lobby", NOW, role=role) is not None) is covered


def test_one_that_covers_is_found_behind_others_that_do_not() -> None:
    ended, outranked = ban(On.USER, "ana", until=1.0), ban(On.USER, "ana", "lobby", rank=Role.MODERATOR)
    wide, narrow = ban(On.ADDRESS, "192.0.0.0/16", until=1.0), ban(On.ADDRESS, "192.0.2.0/24")
    measures = holding(ended, outranked, wide, narrow)
    assert measures.covering(What.BAN, ANA, HOME, "lobby", NOW, role=Role.OWNER) is narrow


@pytest.mark.parametrize("address", ["", "unix", "no address"])
def test_whoever_comes_from_no_address_is_covered_by_no_network(address: str) -> None:
    measures = holding(ban(On.ADDRESS, "0.0.0.0/0"), ban(On.ADDRESS, "::/0"))
    assert measures.covering(What.BAN, ANA, address, "", NOW) is None


def test_an_address_of_ipv4_is_the_same_over_ipv6() -> None:
    on, target = target_of("::ffff:192.0.2.7")
    assert (on, target) == (On.ADDRESS, "192.0.2.7/32")
    assert holding(ban(on, target)).covering_address(What.BAN, "::ffff:192.0.2.7", "", NOW) is not None


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("ana", (On.USER, "ana")),
        ("ana@example.org", (On.USER, "ana@example.org")),
        ("user:ana", (On.USER, "ana")),
        ("user:10.0.0.1", (On.USER, "10.0.0.1")),
        ("user:token:x", (On.USER, "token:x")),
        ("google-oauth2:1234", (On.USER, "google-oauth2:1234")),
        ("token:jti-1", (On.TOKEN, "jti-1")),
        ("10.0.0.1", (On.ADDRESS, "10.0.0.1/32")),
        ("10.1.2.3/8", (On.ADDRESS, "10.0.0.0/8")),
        ("2001:DB8::1", (On.ADDRESS, "2001:db8::1/128")),
        ("::ffff:10.0.0.0/104", (On.ADDRESS, "10.0.0.0/8")),
        ("42", (On.USER, "42")),
        ("1.5", (On.USER, "1.5")),
        ("a:b", (On.USER, "a:b")),
        ("team/42", (On.USER, "team/42")),
        ("3f2a8c1e-7b40-4c0e-9d55-0c6a5f1b2d3e", (On.USER, "3f2a8c1e-7b40-4c0e-9d55-0c6a5f1b2d3e")),
        ("urn:user:7", (On.USER, "urn:user:7")),
    ],
)
def test_a_target_is_read_one_way_only(text: str, target: tuple[On, str]) -> None:
    assert target_of(text) == target


@pytest.mark.parametrize(
    "text", ["203.0.113.0/33", "300.1.2.3", "10.0.0/8", "10/8", "2001:db8::/129", "1.2.3.4/", "2001:DB8:::1"]
)
def test_a_mistyped_network_is_no_user(text: str) -> None:
    with pytest.raises(ValueError, match=f"expected an address or a network, .*user:{text}"):
        target_of(text)
    assert target_of(f"user:{text}") == (On.USER, text)


@pytest.mark.parametrize("text", ["", "token:", "user:"])
def test_nobody_is_no_target(text: str) -> None:
    with pytest.raises(ValueError, match="expected a user, an address or network, or token:JTI"):
        target_of(text)


def test_a_later_measure_on_the_same_replaces_the_earlier() -> None:
    measures = holding(ban(On.USER, "ana", until=NOW + 5))
    assert measures.impose(ban(On.USER, "ana", until=NOW + 50), 2)
    assert len(measures) == 1
    assert measures.covering(What.BAN, ANA, "", "", NOW + 20) is not None


def test_what_has_ended_is_let_go_of() -> None:
    measures = holding(ban(On.USER, "ana", until=NOW), ban(On.ADDRESS, "10.0.0.0/8", until=NOW), ban(On.USER, "ben"))
    assert measures.forget_ended(NOW) == 2
    assert measures.forget_ended(NOW) == 0
    assert len(measures) == 1


@pytest.mark.parametrize(("level", "least"), [
    (0, Role.NOBODY), (1, Role.MEMBER), (2, Role.MODERATOR), (3, Role.MODERATOR),
])  # fmt: skip
def test_each_level_of_a_lockdown_includes_those_before(level: int, least: Role) -> None:
    measures = Measures()
    assert measures.lock_down(Lockdown(level), 1)
    assert measures.least_to_speak is least


# --- changes ----------------------------------------------------------------------------------------------------------

ON_ANA, ON_BEN = ban(On.USER, "ana"), ban(On.USER, "ben")


def test_a_change_told_while_the_list_was_read_is_not_undone_by_what_was_read() -> None:
    measures = Measures()
    asked_at = measures.version
    assert measures.impose(ON_ANA, 1)  # told while the answer, which does not have it yet, was on its way
    assert measures.load([], Lockdown.OPEN, 0, asked_at=asked_at) == []
    assert measures.get(ON_ANA.id) is ON_ANA


def test_a_lift_told_while_the_list_was_read_is_not_undone_by_what_was_read() -> None:
    measures = holding(ON_ANA)
    asked_at = measures.version
    assert measures.lift(ON_ANA.id, 2)
    measures.load([ON_ANA], Lockdown.OPEN, 1, asked_at=asked_at)
    assert len(measures) == 0


def test_a_change_that_is_not_the_next_asks_for_all_to_be_read() -> None:
    measures = holding(ON_ANA)
    assert not measures.impose(ON_BEN, 3)
    assert not measures.lift(ON_ANA.id, 1)
    assert not measures.lock_down(Lockdown.NOBODY_NEW, 0)
    assert (measures.all(), measures.version, measures.lockdown) == ([ON_ANA], 1, Lockdown.OPEN)


def test_a_store_that_has_lost_its_latest_changes_is_believed() -> None:
    measures = holding(ON_ANA)
    assert measures.impose(ON_BEN, 2)
    assert measures.load([ON_ANA], Lockdown.OPEN, 1, asked_at=measures.version) == []
    assert (measures.all(), measures.version) == ([ON_ANA], 1)


def test_reading_all_tells_what_is_new_or_changed() -> None:
    measures = holding(ON_ANA, ON_BEN)
    longer = ON_BEN._replace(until=NOW)
    on_cem = ban(On.USER, "cem")
    assert measures.load([ON_ANA, longer, on_cem], Lockdown.OPEN, 9, asked_at=1) == [longer, on_cem]


CHANGES = [("impose", ON_ANA), ("impose", ON_BEN), ("lift", ON_ANA)]


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))), ids=str)
def test_changes_told_in_any_order_leave_what_the_store_has(order: tuple[int, ...]) -> None:
    measures = Measures()
    for index in order:
        act, measure = CHANGES[index]
        taken = measures.impose(measure, index + 1) if act == "impose" else measures.lift(measure.id, index + 1)
        if not taken:  # the store has all three by now
            measures.load([ON_BEN], Lockdown.OPEN, 3, asked_at=measures.version)
    assert measures.all() == [ON_BEN]
    assert measures.version == 3


def test_an_identity_without_a_token_is_covered_by_no_token() -> None:
    assert holding(ban(On.TOKEN, "jti-1")).covering(What.BAN, replace(ANA, token_id=None), HOME, "", NOW) is None
