"""Links that record what a session writes, for tests of who is sent what. Their outlets record, too.

A module that uses them says `pytestmark = pytest.mark.usefixtures("recording")`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from chatd.errors import Disconnect
from chatd.outlets import Outlet
from chatd.session import Session


class RecordingLink:
    """Records what is written, and is as congested, closed or slow as it is told.

    Attributes:
        reading: whether it was to be read from, at each change, and how many frames had been written by then.
    """

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.goodbye: Disconnect | None = None
        self.congested = False
        self.waiting = 0
        self.reading: list[tuple[bool, int]] = []
        self.reset = False
        self.takes = 1 << 20
        self.rest: list[bytes] = []
        self.on_send: Callable[[], None] = lambda: None
        self.outlet: Outlet | None = RecordingOutlet(self)

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

    def pause_reading(self) -> None:
        self.reading.append((False, len(self.written)))

    def resume_reading(self) -> None:
        self.reading.append((True, len(self.written)))


class RecordingOutlet(Outlet):
    """Has no socket: what it is sent, its link records."""

    def __init__(self, link: RecordingLink) -> None:
        self._record = link.send

    def open(self) -> None: ...

    def record(self, frame: bytes) -> int:
        return self._record(frame)


def link_of(session: Session) -> RecordingLink:
    assert isinstance(session.link, RecordingLink)
    return session.link


@pytest.fixture
def recording(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Has what is sent to a RecordingLink's outlet recorded there, in place of the system call."""
    monkeypatch.setattr("chatd.outlets._send", RecordingOutlet.record)
    yield
