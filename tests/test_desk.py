"""Requests as they pile up before one client: when it is not read from, and what becomes of those behind a refusal."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Coroutine
from typing import Any

import pytest

from chatd.auth import Key, Revocations, Verifier
from chatd.chat import Chat
from chatd.chat.desk import STRIKES, WAITING
from chatd.control import Heard
from chatd.errors import BANNED_HERE, INTERNAL_ERROR, TOO_MANY_MESSAGES
from chatd.hub import Hub
from chatd.node import Node
from chatd.session import Session, State
from chatd.settings import Settings
from chatd.wire.centrifuge_json import SDK_JSON
from chatd.wire.streams import STREAM_JSON
from tests.links import RecordingLink, link_of
from tests.test_auth import SECRET, token
from tests.test_hub import member

PATIENCE_S = 10.0


def test_who_does_as_he_is_told_may_be_refused_again_and_who_never_does_is_closed() -> None:
    jobs: list[Coroutine[Any, Any, None]] = []
    nobody: Any = None
    now = 0.0
    clocks = {"clock": lambda: now, "now": lambda: now}
    chat = Chat(Settings(), Hub(), nobody, nobody, nobody, Revocations(), lease=lambda: "", spawn=jobs.append, **clocks)
    session = Session("c1", SDK_JSON, "127.0.0.1", now=0.0, since=0.0)
    session.attach(RecordingLink())
    session.state = State.READY

    def types_until_refused(times: int) -> None:
        while times and link_of(session).goodbye is None:
            chat.received(session, b'{"id":1,"rpc":{"method":"typing","data":{"room":"lobby","on":true}}}')
            assert session.waiting is not None
            times -= session.waiting[-1].refusal is not None

    types_until_refused(STRIKES)
    now += 3600.0
    types_until_refused(STRIKES)
    assert link_of(session).goodbye is None
    types_until_refused(1)
    assert link_of(session).goodbye == TOO_MANY_MESSAGES
    for job in jobs:
        job.close()


async def test_who_cannot_be_told_why_he_is_refused_is_closed(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    ana = member(node.hub)

    def refuse(session: Session, room: str) -> None:
        raise BANNED_HERE.because("no JSON: \ud800")

    monkeypatch.setattr(node.chat, "refuse_banned", refuse)
    node.chat.received(ana, b'{"id":1,"subscribe":{"channel":"lobby"}}\n{"id":2,"presence":{"channel":"lobby"}}')
    async with asyncio.timeout(PATIENCE_S):
        while ana.waiting is not None:
            await asyncio.sleep(0)
    assert link_of(ana).goodbye == INTERNAL_ERROR


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


async def test_who_has_no_socket_to_be_read_from_is_told_when_too_much_waits() -> None:
    jobs: list[Coroutine[Any, Any, None]] = []
    nobody: Any = None
    clocks = {"clock": lambda: 0.0, "now": lambda: 0.0}
    chat = Chat(Settings(), Hub(), nobody, nobody, nobody, Revocations(), lease=lambda: "", spawn=jobs.append, **clocks)
    session = Session("c1", STREAM_JSON, "127.0.0.1", now=0.0, since=0.0, secret="s1")
    session.attach(RecordingLink())
    session.state = State.READY
    chat.hub.add(session, "127.0.0.1", math.inf)
    for _ in range(WAITING):
        assert chat.emulated("s1", b'{"id":1,"ping":{}}') is Heard.YES
    assert chat.emulated("s1", b'{"id":1,"ping":{}}') is Heard.TOO_MUCH
    (working_off,) = jobs
    await working_off
    assert chat.emulated("s1", b'{"id":1,"ping":{}}') is Heard.YES
    jobs[-1].close()
    session.close()
    assert chat.emulated("s1", b'{"id":1,"ping":{}}') is Heard.YES, "or it would not wait for its goodbye"
    chat.hub.remove(session, "127.0.0.1")
    assert chat.emulated("s1", b'{"id":1,"ping":{}}') is Heard.NOBODY


async def test_what_came_along_with_connect_is_taken_from_its_users_allowance_once(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node.chat, "clock", lambda: 0.0)
    says = [b'{"id":%d,"publish":{"channel":"lobby","data":{"text":"hi"}}}' % id for id in range(3, 13)]
    for user, connects in (("ana", 1), ("ben", 2)):
        connect = [b'{"id":%d,"connect":{"data":{"user":"%s"}}}' % (n, user.encode()) for n in range(1, connects + 1)]
        session = Session(f"c-{user}", SDK_JSON, "127.0.0.1", now=0.0, since=0.0)
        session.attach(RecordingLink())
        node.hub.add(session, "127.0.0.1", math.inf)
        node.chat.received(session, b"\n".join(connect + says))
        async with asyncio.timeout(PATIENCE_S):
            while session.waiting is not None:
                await asyncio.sleep(0)
    assert node.chat.speaking["ben"] == node.chat.speaking["ana"] > 0


@pytest.mark.parametrize(
    "behind",
    [b'{"id":2,"subscribe":{"channel":"lobby"}}', b'{"id":2,"publish":{"channel":"lobby","data":{"text":"hi"}}}'],
)
async def test_what_came_in_one_message_with_a_connect_that_is_refused_is_not_done(node: Node, behind: bytes) -> None:
    """JavaScript's SDK sends its subscriptions along with connect, and does not know that its token has ended."""
    node.chat.verifier = Verifier([Key("main", "HS256", secret=SECRET)])
    session = Session("c1", SDK_JSON, "127.0.0.1", now=0.0, since=0.0)
    session.attach(RecordingLink())
    node.hub.add(session, "127.0.0.1", math.inf)
    connect = json.dumps({"id": 1, "connect": {"token": token({"sub": "ana", "exp": 1})}}).encode()
    node.chat.received(session, connect + b"\n" + behind)
    async with asyncio.timeout(PATIENCE_S):
        while session.waiting is not None:
            await asyncio.sleep(0)
    (answer,) = link_of(session).written
    assert b'"code":109' in answer
    goodbye = link_of(session).goodbye
    assert goodbye is not None
    assert (goodbye.code, goodbye.reason) == (3501, "nothing may follow a refused connect")
    assert node.hub.rooms == {}
