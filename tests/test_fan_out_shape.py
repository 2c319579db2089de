"""The shape of fan-out that its speed rests on, counted and not timed: what is done once, and what for each reader.

Links only record. Nothing here is a clock, so a slow machine fails none of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytest

from chatd.hub import Hub
from chatd.model import Delivery, Event, Identity, Kind, Position
from chatd.session import Session, State, Subscription
from chatd.wire import Codec
from chatd.wire.centrifuge_json import SDK_JSON
from chatd.wire.centrifuge_protobuf import SDK_PROTOBUF
from chatd.wire.plain import PLAIN
from tests.links import RecordingLink

pytestmark = pytest.mark.usefixtures("recording")

ROOM = "lobby"
READERS = 600
CODECS: Sequence[Codec] = (SDK_JSON, PLAIN, SDK_PROTOBUF)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Counter[tuple[str, Codec]]:
    """How often each codec was asked to encode an event, and to make a frame."""
    counted: Counter[tuple[str, Codec]] = Counter()
    for codec in CODECS:
        for name in ("event", "frame"):
            monkeypatch.setattr(type(codec), name, _counting(counted, name, getattr(type(codec), name)))
    return counted


def _counting(counted: Counter[tuple[str, Codec]], name: str, method):  # type: ignore[no-untyped-def]
    def call(codec: Codec, *arguments: object) -> object:
        counted[name, codec] += 1
        return method(codec, *arguments)

    return call


def crowd(hub: Hub) -> list[Session]:
    sessions = []
    for n in range(READERS):
        session = Session(f"c{n}", CODECS[n % len(CODECS)], "127.0.0.1", now=0.0, since=0.0)
        session.identity = Identity("ana")
        session.attach(RecordingLink())
        session.state = State.READY
        hub.add(session, "127.0.0.1", 5.0)
        hub.welcome(session)
        hub.join(session, ROOM, Subscription(), 0)
        sessions.append(session)
    return sessions


def said(offset: int) -> Event:
    body = f'{{"data":{{"text":"m{offset}"}},"info":{{"user":"eve","client":"c"}},"offset":{offset}}}'
    return Event(Kind.PUBLICATION, body.encode(), Position("e", offset))


def fan_out(hub: Hub, *events: Event) -> None:
    """Every turn there is to take, as a plain call outside any event loop: a fan-out that awaits could not run here."""
    hub.deliver([Delivery(ROOM, events)])
    while hub.rooms[ROOM] in hub._casts:
        hub.turn(hub.rooms[ROOM])


def written(session: Session) -> list[bytes]:
    assert isinstance(session.link, RecordingLink)
    return session.link.written


def test_a_message_is_encoded_once_for_each_codec_however_many_read_it(made: Counter[tuple[str, Codec]]) -> None:
    hub = Hub()
    crowd(hub)
    fan_out(hub, said(1))
    assert {codec: made["event", codec] for codec in CODECS} == dict.fromkeys(CODECS, 1)
    assert {codec: made["frame", codec] for codec in CODECS} == dict.fromkeys(CODECS, 1)


def test_every_reader_of_a_codec_is_handed_the_same_bytes_object(made: Counter[tuple[str, Codec]]) -> None:
    hub = Hub()
    sessions = crowd(hub)
    fan_out(hub, said(1))
    for codec in CODECS:
        frames = [frame for session in sessions if session.codec is codec for frame in written(session)]
        assert len(frames) == READERS // len(CODECS)
        assert len({id(frame) for frame in frames}) == 1


def test_what_is_ready_together_is_one_frame_and_one_write_for_each_reader(made: Counter[tuple[str, Codec]]) -> None:
    hub = Hub()
    sessions = crowd(hub)
    fan_out(hub, *(said(n) for n in range(1, 17)))
    assert made["event", SDK_JSON] == 16
    assert made["frame", SDK_JSON] == 1
    assert {len(written(session)) for session in sessions} == {1}
