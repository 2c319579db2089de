"""A room's tail: what may be given out, what waits, what is lost. No server and no clock."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatd.model import Event, Json, Kind, Lost, Position
from chatd.store.tail import HELD, Tail

E, F = "first", "second"
JOINED = Event(Kind.JOIN, b'{"user":"ana"}')


def said(*offsets: int, epoch: str = E) -> list[Event]:
    return [Event(Kind.PUBLICATION, b'{"data":%d}' % n, Position(epoch, n)) for n in offsets]


def page(*offsets: int) -> list[tuple[int, Json]]:
    return [(n, b'{"data":%d}' % n) for n in offsets]


def at(offset: int, epoch: str = E) -> Position:
    return Position(epoch, offset)


def placed(offset: int = 0) -> Tail:
    tail = Tail()
    assert tail.place(at(offset)) == []
    return tail


def fill(tail: Tail, page: Sequence[tuple[int, Json]], top: Position) -> tuple[list[Event], Lost | None]:
    """As if history was read in no time."""
    assert tail.position is not None
    return tail.fill(tail.position, page, top)


def test_what_follows_on_is_given_out_at_once() -> None:
    tail = placed()
    assert tail.take(said(1, 2)) == said(1, 2)
    assert tail.take(said(3)) == said(3)
    assert tail.position == at(3)
    assert not tail.behind


def test_what_was_seen_is_not_given_out_again() -> None:
    tail = placed(5)
    assert tail.take(said(4, 5)) == []
    assert tail.take(said(5, 6, 6)) == said(6)
    assert not tail.behind


def test_nothing_is_given_out_before_the_tail_has_a_place() -> None:
    tail = Tail()
    assert tail.take(said(7, 8, 9)) == []
    assert tail.behind
    assert tail.place(at(7)) == said(8, 9)
    assert not tail.behind


def test_a_place_older_than_what_waits_leaves_a_gap_to_fill() -> None:
    tail = Tail()
    tail.take(said(7))
    assert tail.place(at(5)) == []
    assert tail.behind
    assert fill(tail, page(6, 7), at(7)) == (said(6, 7), None)


def test_after_a_gap_newer_messages_wait_until_it_is_filled() -> None:
    tail = placed(1)
    assert tail.take(said(4)) == []
    assert tail.behind
    assert tail.take(said(5)) == []
    assert fill(tail, page(2, 3, 4), at(4)) == (said(2, 3, 4, 5), None)
    assert (tail.position, tail.behind) == (at(5), False)


def test_a_gap_longer_than_a_page_is_filled_page_by_page() -> None:
    tail = placed(0)
    tail.take(said(6))
    assert fill(tail, page(1, 2), at(6)) == (said(1, 2), None)
    assert tail.behind
    assert tail.take(said(7)) == []
    assert fill(tail, page(3, 4), at(7)) == (said(3, 4), None)
    assert fill(tail, page(5, 6, 7), at(7)) == (said(5, 6, 7), None)
    assert not tail.behind


def test_history_that_holds_nothing_new_changes_nothing() -> None:
    tail = placed(3)
    assert fill(tail, [], at(3)) == ([], None)
    assert (tail.position, tail.behind) == (at(3), False)


def test_a_message_that_nobody_noticed_missing_is_found_in_history() -> None:
    assert placed(3).fill(at(3), page(4), at(4)) == (said(4), None)


@pytest.mark.parametrize("top", [4, 5, 6])
def test_what_arrives_while_history_is_read_is_given_out_once(top: int) -> None:
    tail = placed(3)
    assert tail.take(said(4, 5)) == said(4, 5)
    assert tail.fill(at(3), page(*range(4, top + 1)), at(top)) == (said(*range(6, top + 1)), None)
    assert tail.position == at(max(5, top))
    assert not tail.behind


def test_a_gap_that_history_no_longer_covers_is_lost_and_the_tail_goes_on_from_the_top() -> None:
    tail = placed(1)
    tail.take(said(9))
    assert fill(tail, page(5, 6, 7, 8, 9), at(9)) == ([], Lost(at(9)))
    assert tail.take(said(10)) == said(10)


def test_a_history_emptied_by_age_is_lost_too() -> None:
    assert placed(1).fill(at(1), [], at(4)) == ([], Lost(at(4)))


def test_a_count_that_began_anew_is_lost_and_what_waited_for_it_follows() -> None:
    tail = placed(7)
    assert tail.take(said(1, 2, epoch=F)) == []
    assert tail.behind
    assert fill(tail, page(1), at(1, F)) == (said(2, epoch=F), Lost(at(1, F)))
    assert tail.position == at(2, F)


def test_a_count_that_stands_lower_than_before_is_lost() -> None:
    assert placed(105).fill(at(105), [], at(100)) == ([], Lost(at(100)))


def timed(n: int, ms: int) -> Event:
    return Event(Kind.PUBLICATION, b'{"data":1,"offset":%d,"time":%d}' % (n, ms), at(n))


def kept(*events: Event) -> list[tuple[int, Json]]:
    return [(event.position.offset, event.body) for event in events if event.position is not None]


def test_what_was_said_later_under_numbers_that_were_given_out_is_given_out_too() -> None:
    tail = placed()
    tail.take([timed(n, ms=n) for n in (1, 2, 3)])
    tail.doubt()
    other = [timed(2, ms=7), timed(3, ms=8), timed(4, ms=9)]
    assert tail.take(other[2:]) == [], "what it follows on is not known"
    assert tail.rewind(at(3), kept(timed(1, ms=1), *other), at(4))
    assert fill(tail, kept(*other), at(4)) == (other, None)


@pytest.mark.parametrize("top", [at(3), at(3, F)])
def test_what_history_still_has_or_never_had_is_not_gone_back_for(top: Position) -> None:
    tail = placed()
    tail.take([timed(n, ms=n) for n in (1, 2, 3)])
    tail.doubt()
    assert not tail.rewind(at(3), kept(timed(3, ms=3 if top == at(3) else 9)), top)
    assert tail.position == at(3)


def test_what_a_master_says_that_hung_until_there_was_another_does_not_stand_for_what_has_its_number() -> None:
    tail = placed()
    tail.take([timed(1, ms=1), timed(2, ms=2), timed(3, ms=9)])
    tail.doubt()
    other = [timed(3, ms=7), timed(4, ms=8)]
    assert tail.rewind(at(3), kept(*other), at(4))
    assert not tail.rewind(at(2), kept(timed(1, ms=1), timed(2, ms=2), *other), at(4))
    assert fill(tail, kept(*other), at(4)) == (other, None)


def test_nor_does_it_if_it_is_heard_while_history_is_read() -> None:
    tail = placed()
    tail.take([timed(1, ms=1), timed(2, ms=2)])
    other = [timed(3, ms=7), timed(4, ms=8)]
    tail.take([timed(3, ms=9)])
    assert tail.rewind(at(2), kept(timed(2, ms=2), *other), at(4))
    assert fill(tail, kept(*other), at(4)) == (other, None)


def test_nothing_is_given_out_twice_if_the_clock_is_set_back_while_history_is_read() -> None:
    tail = placed()
    tail.take([timed(1, ms=101), timed(2, ms=102)])
    assert tail.take([timed(3, ms=103), timed(4, ms=4)]) == [timed(3, ms=103), timed(4, ms=4)]
    assert not tail.rewind(at(2), kept(timed(2, ms=102), timed(3, ms=103)), at(3))
    assert tail.position == at(4)


def test_numbers_that_were_given_out_are_given_out_again_once_something_has_them() -> None:
    tail = placed()
    tail.take([timed(n, ms=n) for n in (1, 2, 3)])
    tail.doubt()
    assert tail.rewind(at(3), [], at(2))
    assert tail.rewind(at(2), kept(timed(1, ms=1), timed(2, ms=7)), at(2))
    assert fill(tail, kept(timed(2, ms=7)), at(2)) == ([timed(2, ms=7)], None)
    assert tail.take([timed(3, ms=8)]) == [timed(3, ms=8)]


def test_who_was_given_nothing_out_doubts_nothing() -> None:
    tail = placed(3)
    tail.doubt()
    assert not tail.behind
    assert not tail.rewind(at(3), kept(timed(3, ms=9)), at(3))
    assert tail.position == at(3)


def test_what_moved_on_while_history_was_read_is_not_gone_back_for() -> None:
    tail = placed()
    tail.take([timed(n, ms=n) for n in (1, 2, 3)])
    assert not tail.rewind(at(2), kept(timed(2, ms=2)), at(2))
    assert tail.position == at(3)


def test_what_waited_for_a_count_that_is_no_more_is_let_go() -> None:
    tail = placed(7)
    tail.take(said(9))
    tail.take(said(1, epoch=F))
    assert fill(tail, page(1), at(1, F)) == ([], Lost(at(1, F)))
    for _ in range(2):
        assert fill(tail, [], at(1, F)) == ([], None)
    assert not tail.behind
    assert tail.take(said(2, epoch=F)) == said(2, epoch=F)


def test_a_message_beyond_the_top_of_history_is_not_waited_for() -> None:
    tail = placed(1)
    tail.take(said(999_999))
    for _ in range(2):
        assert fill(tail, [], at(1)) == ([], None)
    assert not tail.behind
    assert tail.take(said(2)) == said(2)


def test_joins_leaves_and_messages_without_history_never_wait() -> None:
    tail = placed(1)
    assert tail.take([JOINED]) == [JOINED]
    assert tail.take([*said(5), JOINED]) == [JOINED]
    assert Tail().take([JOINED]) == [JOINED]


def test_what_waits_beyond_the_bound_is_let_go_and_found_in_history() -> None:
    tail = placed(0)
    last = HELD + 50
    tail.take(said(*range(2, last + 1)))
    given_out, lost = fill(tail, page(1), at(1))
    assert lost is None
    assert tail.behind, "what was let go is missing"
    more, lost = fill(tail, page(*range(2, last + 1)), at(last))
    assert given_out + more == said(*range(1, last + 1))
    assert (lost, tail.behind) == (None, False)


@given(st.data())
def test_whatever_the_bus_drops_doubles_or_reorders_readers_get_each_message_once_and_in_order(
    data: st.DataObject,
) -> None:
    top = data.draw(st.integers(1, 30))
    tail, out = placed(0), list[Event]()
    for chunk in data.draw(st.lists(st.lists(st.integers(1, top), max_size=5), max_size=20)):
        out += tail.take(said(*chunk))
        if tail.behind and data.draw(st.booleans()):
            out += _filled(tail, top, limit=data.draw(st.integers(1, 7)))
    while tail.position != at(top):
        out += _filled(tail, top, limit=7)
    assert out == said(*range(1, top + 1))


def _filled(tail: Tail, top: int, limit: int) -> Iterable[Event]:
    assert tail.position is not None
    begin = tail.position.offset + 1
    events, lost = fill(tail, page(*range(begin, min(top, begin + limit - 1) + 1)), at(top))
    assert lost is None
    return events
