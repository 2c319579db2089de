"""Links that record what a session writes, for tests of who is sent what. Their outlets have numbers as real ones do.

A module that uses them says `pytestmark = pytest.mark.usefixtures("recording")`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from weakref import WeakValueDictionary

import pytest

from chatd.errors import Disconnect
from chatd.outlets import Outlet
from chatd.session import Session

# No process has so many files.
_descriptors = count(1 << 30)
_by_descriptor: WeakValueDictionary[int, RecordingLink] = WeakValueDictionary()


class RecordingLink:
    """Records what is written, and is as congested, closed or slow as it is told."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.goodbye: Disconnect | None = None
        self.congested = False
        self.waiting = 0
        self.reset = False
        self.takes = 1 << 20
        self.rest: list[bytes] = []
        self.on_send: Callable[[], None] = lambda: None
        descriptor = next(_descriptors)
        _by_descriptor[descriptor] = self
        self.outlet: Outlet | None = Outlet(descriptor)

    def send(self, frame: bytes) -> int:
        self.on_send()
        if self.congested:
            raise BlockingIOError
        if self.reset:
            raise ConnectionResetError
        self.written.append(frame[: self.takes])
        return len(self.written[-1])

    def write_rest(self, frame: bytes, sent: int) -> None:
        self.rest.append(frame[sent:])

    def write(self, frame: bytes) -> None:
        if not self.reset:
            self.written.append(frame)

    def buffered(self) -> int:
        return self.waiting

    def close(self, goodbye: Disconnect) -> None:
        self.goodbye = goodbye

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


def link_of(session: Session) -> RecordingLink:
    assert isinstance(session.link, RecordingLink)
    return session.link


@pytest.fixture
def recording(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Has what is sent to a RecordingLink's outlet recorded there, in place of the system call."""
    monkeypatch.setattr("chatd.outlets.write", lambda descriptor, frame: _by_descriptor[descriptor].send(frame))
    yield
