"""Sending past the transport: what each took, who is shut, and whose a number is. On real sockets."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

from chatd.outlets import REFUSED, Outlet, send_all, send_each


@contextmanager
def pair() -> Iterator[tuple[Outlet, socket.socket]]:
    """An outlet, and where what it sends arrives."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        theirs.setblocking(False)
        yield Outlet(ours.fileno()), theirs


def fill(outlet: Outlet) -> None:
    while send_all([outlet.number], b"x" * 10_000) == [10_000]:
        pass


def test_each_is_sent_its_own_and_all_the_same() -> None:
    with pair() as (one, hers), pair() as (other, his):
        assert send_each([one.number, other.number], [b"a", b"bc"]) == [1, 2]
        assert send_all([other.number, one.number], b"def") == [3, 3]
        assert (hers.recv(100), his.recv(100)) == (b"adef", b"bcdef")


def test_who_does_not_take_it_is_told_apart_and_the_others_get_theirs() -> None:
    with pair() as (shut, shuts), pair() as (full, _), pair() as (reset, resets), pair() as (last, lasts):
        fill(full)
        shut.shut()
        resets.close()
        numbers = [shut.number, full.number, reset.number, last.number]
        assert send_each(numbers, [b"a", b"b", b"c", b"d"]) == [REFUSED, REFUSED, REFUSED, 1]
        assert lasts.recv(100) == b"d"
        shut.open()
        assert send_all(numbers, b"e") == [1, REFUSED, REFUSED, 1]
        assert (shuts.recv(100), lasts.recv(100)) == (b"e", b"e")


def test_what_was_taken_in_part_says_how_much() -> None:
    with pair() as (outlet, theirs):
        [taken] = send_all([outlet.number], b"x" * 10_000_000)
        assert 0 < taken < 10_000_000
        assert len(theirs.recv(10_000_000)) > 0


def test_a_number_is_nobody_elses_while_its_outlet_lives_and_then_it_is_used_again() -> None:
    with pair() as (gone, _), pair() as (one, _):
        number = gone.number
        gone.shut()  # as at the end of a connection, whose rooms are left a moment later
        with pair() as (newcomer, theirs):
            assert newcomer.number not in (number, one.number)
            assert send_all([number], b"for nobody") == [REFUSED]
        del gone
        with pair() as (another, theirs):
            assert another.number == number
            assert send_all([number], b"mine") == [4]
            assert theirs.recv(100) == b"mine"
