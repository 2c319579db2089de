"""Sending past the transport: what each took, and who is shut. On real sockets."""

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
    while send_all([outlet], b"x" * 10_000) == [10_000]:
        pass


def test_each_is_sent_its_own_and_all_the_same() -> None:
    with pair() as (one, hers), pair() as (other, his):
        assert send_each([one, other], [b"a", b"bc"]) == [1, 2]
        assert send_all([other, one], b"def") == [3, 3]
        assert (hers.recv(100), his.recv(100)) == (b"adef", b"bcdef")


def test_who_does_not_take_it_is_told_apart_and_the_others_get_theirs() -> None:
    with pair() as (shut, shuts), pair() as (full, _), pair() as (reset, resets), pair() as (last, lasts):
        fill(full)
        shut.shut()
        resets.close()
        outlets = [shut, full, reset, last]
        assert send_each(outlets, [b"a", b"b", b"c", b"d"]) == [REFUSED, REFUSED, REFUSED, 1]
        assert lasts.recv(100) == b"d"
        shut.open()
        assert send_all(outlets, b"e") == [1, REFUSED, REFUSED, 1]
        assert (shuts.recv(100), lasts.recv(100)) == (b"e", b"e")


def test_what_was_taken_in_part_says_how_much() -> None:
    with pair() as (outlet, theirs):
        [taken] = send_all([outlet], b"x" * 10_000_000)
        assert 0 < taken < 10_000_000
        assert len(theirs.recv(10_000_000)) > 0


def test_who_is_shut_does_not_send_to_whoever_has_the_descriptor_next() -> None:
    with pair() as (gone, _):
        descriptor = gone.fileno()
        gone.shut()  # as at the end of a connection, whose rooms are left a moment later
    with pair() as (newcomer, theirs):
        assert newcomer.fileno() == descriptor
        assert send_all([gone], b"for nobody") == [REFUSED]
        assert send_all([newcomer], b"mine") == [4]
        assert theirs.recv(100) == b"mine"


def test_the_socket_is_the_transports_to_close() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        Outlet(ours.fileno())
        Outlet(ours.fileno()).shut()
        ours.send(b"still open")
        assert theirs.recv(100) == b"still open"
