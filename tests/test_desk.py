"""Requests that come in faster than they are worked off: their client is not read from meanwhile."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from chatd.auth import Revocations
from chatd.chat import Chat
from chatd.chat.desk import WAITING
from chatd.hub import Hub
from chatd.session import Session, State
from chatd.settings import Settings
from chatd.wire.centrifuge_json import SDK_JSON
from tests.links import RecordingLink, link_of


async def test_a_client_whose_requests_pile_up_is_read_from_again_when_half_of_them_are_answered() -> None:
    jobs: list[Coroutine[Any, Any, None]] = []
    nobody: Any = None
    clocks = {"clock": lambda: 0.0, "now": lambda: 0.0}
    chat = Chat(Settings(), Hub(), nobody, nobody, nobody, Revocations(), lease=lambda: "", spawn=jobs.append, **clocks)
    session = Session("c1", SDK_JSON, "127.0.0.1", now=0.0, since=0.0)
    session.attach(RecordingLink())
    session.state = State.READY
    for id in range(1, WAITING + 1):
        assert link_of(session).reading == []
        chat.received(session, b'{"id":%d,"ping":{}}' % id)
    assert link_of(session).reading == [(False, 0)]
    (working_off,) = jobs
    await working_off
    assert link_of(session).reading == [(False, 0), (True, WAITING // 2)]
    assert len(link_of(session).written) == WAITING
