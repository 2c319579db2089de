"""The SDK door's languages over plain HTTP: chunks as RFC 9112 has them, held to h11's reading of it."""

from __future__ import annotations

import json
from collections.abc import Iterable

import h11
import pytest
from centrifuge.protocol import client_pb2 as official

from chatd.errors import KICKED
from chatd.model import Connected, Published
from chatd.wire import Codec
from chatd.wire.streams import STREAM_JSON, STREAM_PROTOBUF, StreamCodec
from tests.test_wire_protobuf import unframed

LANGUAGES = [pytest.param(STREAM_JSON, id="JSON"), pytest.param(STREAM_PROTOBUF, id="Protobuf")]


def heard(*chunks: bytes) -> tuple[bytes, bool]:
    """What a client's HTTP makes of an answer's chunks, and whether the answer is over."""
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method="POST", target="/", headers=[("Host", "x"), ("Content-Length", "0")]))
    client.send(h11.EndOfMessage())
    client.receive_data(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"".join(chunks))
    content, over = b"", False
    while (event := client.next_event()) not in (h11.NEED_DATA, h11.PAUSED):
        content += bytes(event.data) if isinstance(event, h11.Data) else b""
        over = over or isinstance(event, h11.EndOfMessage)
    return content, over


def replies(codec: Codec, content: bytes) -> Iterable[object]:
    return unframed(content) if codec is STREAM_PROTOBUF else map(json.loads, content.splitlines())


@pytest.mark.parametrize("codec", LANGUAGES)
def test_messages_come_one_after_the_other_and_the_answer_goes_on(codec: StreamCodec) -> None:
    payloads = [codec.reply(id, Published(None, 1)) for id in (1, 2)]
    content, over = heard(codec.frame([payloads[0], b"", payloads[1]]), codec.heartbeat, codec.frame([]))
    assert len(list(replies(codec, content))) == 3
    assert not over


@pytest.mark.parametrize("codec", LANGUAGES)
def test_a_goodbye_is_a_push_and_the_end(codec: StreamCodec) -> None:
    content, over = heard(codec.goodbye(KICKED.because("enough")))
    (said,) = replies(codec, content)
    push = said.push if isinstance(said, official.Reply) else None
    told = (push.disconnect.code, push.disconnect.reason) if push is not None else tuple(told_in_json(said))
    assert told == (KICKED.code, "enough")
    assert over


def told_in_json(said: object) -> tuple[int, str]:
    assert isinstance(said, dict)
    return said["push"]["disconnect"]["code"], said["push"]["disconnect"]["reason"]


@pytest.mark.parametrize("codec", LANGUAGES)
def test_who_is_connected_is_told_what_to_name(codec: StreamCodec) -> None:
    content, _ = heard(codec.frame([codec.reply(1, Connected("c", "1.0.0", ping_s=25, session="s", node="n"))]))
    (said,) = replies(codec, content)
    if isinstance(said, official.Reply):
        assert (said.connect.session, said.connect.node) == ("s", "n")
    else:
        assert said["connect"].items() >= {"session": "s", "node": "n"}.items()  # type: ignore[index]


def test_a_clients_word_names_its_node_and_session() -> None:
    assert STREAM_JSON.emulated(b'{"node":"n","session":"s","data":"{}\\n{}"}') == ("n", "s", b"{}\n{}")
    request = official.EmulationRequest(node="n", session="s", data=b"\0\0")
    assert STREAM_PROTOBUF.emulated(request.SerializeToString()) == ("n", "s", b"\0\0")


@pytest.mark.parametrize("codec", LANGUAGES)
@pytest.mark.parametrize("body", [b"nonsense", b'{"data":{}}', b"\xff"])
def test_what_is_no_word_of_a_client_is_refused(codec: StreamCodec, body: bytes) -> None:
    with pytest.raises(ValueError, match=r"^expected .* in "):
        codec.emulated(body)


def test_a_frame_of_nothing_is_not_the_last_chunk() -> None:
    assert STREAM_JSON.frame([b""]) == STREAM_PROTOBUF.frame([]) == b""
