"""May they? Tables of who and where, and the arithmetic of pace with time handed in."""

from __future__ import annotations

from fnmatch import fnmatchcase
from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatd.errors import PERMISSION_DENIED, Reject
from chatd.model import Grant, Identity, Role
from chatd.names import dm_room
from chatd.rules import (
    ROUNDING_S,
    Act,
    granted,
    may_speak,
    network_of,
    networks,
    pace,
    personal_room,
    require,
    require_above,
    role_in,
    within,
)

ANA = Identity("ana")
ANA_OF_SUPPORT = Identity("ana", grants=(Grant("support-*"), Grant("staff")))
STRANGE = Identity("a,b")


def allowed(rule: str, identity: Identity, room: str, *, public: bool = False, known: bool = False) -> bool:
    """Whether the rule is silent. `known`: invited, for entering; already in the room, for posting."""
    role = role_in(identity, room, public=public, invited=known, matches=matches)
    try:
        if rule == "enter":
            require(Act.READ, role, room)
        else:
            may_speak(room, role)
    except Reject as refusal:
        assert refusal == PERMISSION_DENIED
        return False
    return True


def matches(pattern: str, room: str) -> bool:
    return fnmatchcase(room, pattern)


@pytest.mark.parametrize(
    ("identity", "room", "public", "known", "enter", "post"),
    [
        # public and private rooms
        (ANA, "lobby", True, False, True, True),
        (ANA, "lobby", False, False, False, False),
        (ANA, "lobby", False, True, True, True),
        # rooms by claim
        (ANA, "support-7", False, False, False, False),
        (ANA_OF_SUPPORT, "support-7", False, False, True, True),
        (ANA_OF_SUPPORT, "staff", False, False, True, True),
        (ANA_OF_SUPPORT, "staff-only", False, False, False, False),
        # personal channels: one's own to read, nobody's to write
        (ANA, "#ana", False, False, True, False),
        (ANA, "#ben", True, True, False, False),
        (ANA, "#ana ", True, True, False, False),
        (ANA, "#", True, True, False, False),
        (Identity("ana", grants=(Grant("*"),)), "#ben", True, True, False, False),
        # direct rooms: the two alone, whatever else is allowed
        (ANA, dm_room("ana", "ben"), False, False, True, True),
        (ANA, dm_room("zoe", "ana"), False, False, True, True),
        (ANA, dm_room("ben", "zoe"), True, True, False, False),
        (ANA, "dm#ben,ana", True, True, False, False),
        (ANA, "dm#ana", True, True, False, False),
        (ANA, "dm#", True, True, False, False),
        (Identity("ana", grants=(Grant("*"),)), dm_room("ben", "zoe"), True, True, False, False),
        (STRANGE, dm_room("a,b", "c"), False, False, True, True),
        (Identity("a"), dm_room("a,b", "c"), True, True, False, False),
    ],
)
def test_who_may_enter_and_who_may_post(
    identity: Identity, room: str, public: bool, known: bool, enter: bool, post: bool
) -> None:
    assert allowed("enter", identity, room, public=public, known=known) is enter
    assert allowed("post", identity, room, public=public, known=known) is post


def test_a_refusal_says_what_is_missing() -> None:
    with pytest.raises(Reject, match="invitation: a membership, "):
        require(Act.READ, role_in(ANA, "vault", public=False, matches=matches), "vault")
    with pytest.raises(Reject, match="this is the personal channel of somebody else"):
        require(Act.READ, Role.NOBODY, personal_room("ben"))
    with pytest.raises(Reject, match="this direct room is between two others"):
        may_speak(dm_room("ben", "zoe"), Role.NOBODY)
    with pytest.raises(Reject, match="only the server"):
        may_speak(personal_room("ana"), Role.GUEST)
    with pytest.raises(Reject, match="takes the role moderator, yours is member"):
        require(Act.MODERATE, Role.MEMBER, "vault")


@pytest.mark.parametrize("role", [Role.MODERATOR, Role.OWNER])
def test_nobody_acts_on_who_is_as_much_as_he_is_or_more(role: Role) -> None:
    require_above(role, Role(role - 1))
    for target in range(role, Role.OWNER + 1):
        with pytest.raises(Reject, match=f"a {role.word} acts on those who are less"):
            require_above(role, Role(target))


def test_no_grants_grant_nothing() -> None:
    assert granted((), "lobby", matches) is Role.NOBODY


def test_the_most_that_membership_and_tokens_give_counts() -> None:
    ana = Identity("ana", grants=(Grant("*", Role.GUEST), Grant("staff", Role.MODERATOR)))
    assert role_in(ana, "staff", public=False, member=Role.MEMBER, matches=matches) is Role.MODERATOR
    assert role_in(ana, "staff", public=False, member=Role.OWNER, matches=matches) is Role.OWNER
    assert role_in(ana, "other", public=False, member=Role.NOBODY, matches=matches) is Role.GUEST


# --- pace -------------------------------------------------------------------------------------------------------------


def test_a_burst_passes_at_once_and_then_one_at_a_time() -> None:
    due, early = 0.0, 0.0
    for _ in range(20):
        due, early = pace(due, now=1000.0, cost=1, rate=5, burst=20)
        assert early == 0.0
    _, early = pace(due, now=1000.0, cost=1, rate=5, burst=20)
    assert early == pytest.approx(0.2)
    due, early = pace(due, now=1000.2, cost=1, rate=5, burst=20)
    assert early == pytest.approx(0.0)
    assert pace(due, now=1000.2, cost=1, rate=5, burst=20)[1] == pytest.approx(0.2)


def test_a_long_silence_earns_one_burst_and_no_more() -> None:
    due = 0.0
    passed = 0
    for _ in range(100):
        charged, early = pace(due, now=1e6, cost=1, rate=5, burst=20)
        if early == 0.0:
            due, passed = charged, passed + 1
    assert passed == 20


def test_something_larger_than_a_burst_passes_alone_and_is_paid_for_after() -> None:
    due, early = pace(0.0, now=100.0, cost=1000, rate=10, burst=50)
    assert early == 0.0
    assert pace(due, now=100.0, cost=1, rate=10, burst=50)[1] == pytest.approx(95.1)


def test_no_rate_is_no_limit() -> None:
    assert pace(7.0, now=100.0, cost=10**9, rate=0, burst=0) == (7.0, 0.0)


@given(
    rate=st.floats(0.1, 1000),
    burst=st.floats(1, 100),
    steps=st.lists(st.tuples(st.floats(0, 5), st.floats(0.01, 1)), min_size=1, max_size=60),
)
def test_no_window_lets_more_than_a_burst_and_its_share_of_the_rate_through(
    rate: float, burst: float, steps: list[tuple[float, float]]
) -> None:
    now, due, passed = 1000.0, 0.0, list[tuple[float, float]]()
    for pause, cost in steps:
        now += pause
        charged, early = pace(due, now, cost, rate, burst)
        assert isinstance(charged, float), "the whole state is one number"
        if early == 0.0:
            due = charged
            passed.append((now, cost))
    for i, (begin, _) in enumerate(passed):
        total = 0.0
        for at, cost in passed[i:]:
            total += cost
            assert total <= (burst + rate * (at - begin + ROUNDING_S)) * (1 + 1e-9)


@given(rate=st.floats(0.1, 1000), burst=st.floats(1, 100), count=st.integers(1, 200))
def test_whoever_waits_as_long_as_told_is_let_through(rate: float, burst: float, count: int) -> None:
    now, due = 1000.0, 0.0
    for _ in range(count):
        _, early = pace(due, now, 1.0, rate, burst)
        now += early
        due, again = pace(due, now, 1.0, rate, burst)
        assert again < 1e-6


# --- places -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "place"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
        ("unix:", "unix:"),
    ],
)
def test_an_ipv6_customer_is_one_place(address: str, place: str) -> None:
    assert network_of(address) == place


@pytest.mark.parametrize(
    ("address", "networks", "inside"),
    [
        ("10.1.2.3", ["10.0.0.0/8"], True),
        ("11.1.2.3", ["10.0.0.0/8", "11.1.2.3/32"], True),
        ("11.1.2.4", ["10.0.0.0/8", "11.1.2.3/32"], False),
        ("::ffff:10.1.2.3", ["10.0.0.0/8"], True),
        ("::1", ["127.0.0.0/8"], False),
        ("::1", ["127.0.0.0/8", "::1/128"], True),
        ("2001:db8::1", ["2001:db8::/32"], True),
        ("10.1.2.3", [], False),
        ("", ["0.0.0.0/0", "::/0"], False),
        ("no address", ["0.0.0.0/0", "::/0"], False),
    ],
)
def test_an_address_is_within_a_network_however_it_is_written(address: str, networks: list[str], inside: bool) -> None:
    assert within(address, [ip_network(each) for each in networks]) is inside


def test_a_network_of_the_settings_is_parsed_once() -> None:
    assert networks(("10.0.0.0/8",)) is networks(("10.0.0.0/8",))


def test_a_network_of_ipv4_in_the_settings_is_one_however_it_is_written() -> None:
    assert within("10.1.2.3", networks(("::ffff:10.0.0.0/104",)))
