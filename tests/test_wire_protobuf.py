"""The SDK door in Protobuf: the official SDK's own messages → what they mean, and what we answer as it reads it ←.

What commands mean and what answers hold is in `test_wire_json`, and is shown here to be the same.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest
from centrifuge.protocol import client_pb2 as official
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st

from chatd import errors, frames
from chatd.errors import Disconnect, Reject
from chatd.model import (
    Command,
    Connect,
    Door,
    Event,
    Kind,
    Pong,
    Position,
    Publish,
    Published,
    Request,
    Rpc,
    Send,
    Subscribe,
    Unsubscribed,
)
from chatd.wire.centrifuge_json import SDK_JSON
from chatd.wire.centrifuge_protobuf import SDK_PROTOBUF
from chatd.wire.centrifuge_schema import SCHEMA, fields
from tests.test_wire_json import ANA, COMMANDS, HERE, REFUSALS, RESULTS, A


def varint(number: int) -> bytes:
    head = b""
    while number > 0x7F:
        head, number = head + bytes([number & 0x7F | 0x80]), number >> 7
    return head + bytes([number])


COMMAND = official.Command
# What the protocol has and that SDK has not: fields by their key on the wire (number times 8, and 2 more for text).
NEWER = {("SubscribeRequest", "type"): varint(15 << 3), ("Publication", "epoch"): varint(14 << 3 | 2)}


def framed(*commands: Message) -> bytes:
    """Commands as SDKs send them: each behind its length."""
    return b"".join(varint(len(each := command.SerializeToString())) + each for command in commands)


def one(command: Message) -> Request:
    (request,) = SDK_PROTOBUF.decode(framed(command))
    return request


def unframed(data: bytes) -> list[official.Reply]:
    """Replies as SDKs read them."""
    replies = []
    while data:
        head = next(n for n in range(1, 5) if data[n - 1] <= 0x7F)
        length = sum((byte & 0x7F) << 7 * n for n, byte in enumerate(data[:head]))
        replies.append(official.Reply.FromString(data[head : head + length]))
        data = data[head + length :]
    return replies


def filled(message: Message, json: dict[str, Any]) -> Message:
    """An official message with what `json` says; data is JSON within."""
    for name, value in json.items():
        if key := NEWER.get((message.DESCRIPTOR.name, name)):
            message.MergeFromString(key + varint(value))
            continue
        place = message.DESCRIPTOR.fields_by_name[name]
        if place.type == place.TYPE_BYTES:
            setattr(message, name, dumped(value))
        elif isinstance(value, dict) and place.is_repeated:
            for key, each in value.items():
                filled(getattr(message, name)[key], each)
        elif isinstance(value, dict):
            getattr(message, name).SetInParent()
            filled(getattr(message, name), value)
        elif value is not None:
            setattr(message, name, value)
    return message


def dumped(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def heard(payload: bytes) -> Any:
    """A payload as the official SDK reads it, in the form that it has in JSON."""
    return read(official.Reply.FromString(payload))


def read(value: Any) -> Any:
    if isinstance(value, bytes):
        return json.loads(value)
    if isinstance(value, Message):
        return {field.name: read(each) for field, each in value.ListFields()}
    if hasattr(value, "items"):
        return {key: read(each) for key, each in value.items()}
    return value if isinstance(value, str | int) else [read(each) for each in value]


def without_zeros(value: Any, *, data: bool = False) -> Any:
    """JSON without the members that Protobuf leaves out; an author's data as it is."""
    if data or not isinstance(value, dict):
        return [without_zeros(each) for each in value] if isinstance(value, list) and not data else value
    kept = {name: each for name, each in value.items() if each not in (0, "", []) and (name, each) != ("presence", {})}
    return {name: without_zeros(each, data=name == "data") for name, each in kept.items()}


# --- the schema -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SCHEMA)
def test_each_field_has_the_number_and_type_that_it_has_in_the_official_sdk(name: str):
    theirs = official.DESCRIPTOR.message_types_by_name[name]
    for many, kind, field, number in fields(name):
        if key := NEWER.get((name, field)):
            assert key == varint(number << 3 | (2 if kind == "string" else 0))
            continue
        found = theirs.fields_by_name[field]
        value = found.message_type.fields_by_name["value"] if many == "map" else found
        is_map = found.message_type is not None and found.message_type.GetOptions().map_entry
        assert (found.number, found.is_repeated, is_map) == (number, bool(many), many == "map")
        spelt = value.message_type.name if value.message_type is not None else kind
        assert (spelt, value.type) == (kind, getattr(value, f"TYPE_{kind.upper()}", value.TYPE_MESSAGE))


# --- commands ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("line", "command"), COMMANDS)
def test_each_command_means_what_it_means_in_json(line: str, command: Command):
    assert one(filled(COMMAND(), json.loads(line))) == (9, command)


def test_send_has_no_number_for_it_has_no_reply():
    assert one(COMMAND(id=7, send=official.SendRequest(data=b"[1]"))) == (0, Send(b"[1]"))


def test_a_pong_is_a_command_without_fields():
    assert SDK_PROTOBUF.decode(b"\0") == [(0, Pong())]
    assert one(COMMAND(publish=official.PublishRequest(channel="a", data=b"1"))) == (0, Pong())


def test_commands_of_one_message_keep_their_order():
    connect, subscribe = (
        COMMAND(id=1, connect=official.ConnectRequest(name="swift")),
        COMMAND(id=2, subscribe=official.SubscribeRequest(channel=300 * "a")),
    )
    assert SDK_PROTOBUF.decode(framed(connect, subscribe, COMMAND())) == [
        (1, Connect(name="swift")),
        (2, Subscribe(300 * "a")),
        (0, Pong()),
    ]


def test_fields_that_are_not_known_are_ignored():
    command = COMMAND(id=1, subscribe=official.SubscribeRequest(channel="a", positioned=True, data=b"x"))
    command.MergeFromString(b"\xc2\x3e\x01x")  # field 1000, of one byte
    assert one(command) == (1, Subscribe("a"))


@pytest.mark.parametrize("data", [b'{ "b":1.50, "a":"\\u00e9",\t"b":2 }', b"1e400", b'"x"', b"no JSON", b"\xff", b""])
def test_an_authors_data_is_passed_on_byte_for_byte(data: bytes):
    """Whether it may be said is decided where all of them are judged."""
    assert one(COMMAND(id=1, publish=official.PublishRequest(channel="a", data=data))).command == Publish("a", data)
    assert one(COMMAND(id=1, rpc=official.RPCRequest(method="m", data=data))).command == Rpc("m", data or None)


def test_half_a_surrogate_pair_is_read_as_browsers_would_send_it():
    cut = rb'{"text":"cut \ud83d", "whole":"\ud83d\uDE00"}'
    whole = rb'{"text":"cut \ufffd", "whole":"\ud83d\uDE00"}'
    assert one(COMMAND(id=1, publish=official.PublishRequest(channel="a", data=cut))).command == Publish("a", whole)


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\1",
        b"\x80",
        b"\xff\xff\xff\xff\xff\xff\xff",
        b"{}",
        b'{"id":1,"connect":{}}',
        b"\2\x08\1",
        framed(COMMAND(id=1, connect=official.ConnectRequest(name="js")))[:-1],
        framed(COMMAND(id=1, connect=official.ConnectRequest())) + b"\5",
        framed(COMMAND(id=1, subscribe=official.SubscribeRequest(channel="a", offset=2**64 - 1))),
        framed(COMMAND(id=1, presence=official.PresenceRequest(channel="a"))).replace(b"a", b"\xff"),
    ],
)
def test_what_is_no_command_ends_the_connection(message: bytes):
    with pytest.raises(Disconnect, match=r"^bad request: expected ") as goodbye:
        SDK_PROTOBUF.decode(message)
    assert goodbye.value == errors.BAD_COMMAND


def test_protobuf_without_its_part_in_c_says_so_too():
    """So it is installed where there is no wheel for the machine, and tells of such bytes by another error."""
    message = framed(COMMAND(id=1, presence=official.PresenceRequest(channel="a"))).replace(b"a", b"\xff")
    decode = f"from chatd.wire.centrifuge_protobuf import SDK_PROTOBUF; SDK_PROTOBUF.decode({message!r})"
    environ = os.environ | {"PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION": "python"}
    ended = subprocess.run([sys.executable, "-c", decode], env=environ, capture_output=True, text=True, timeout=30)
    assert "chatd.errors.Disconnect: bad request: expected commands in Protobuf. " in ended.stderr


def test_one_bad_command_spoils_its_message():
    with pytest.raises(Disconnect):
        SDK_PROTOBUF.decode(framed(COMMAND(id=1, connect=official.ConnectRequest()), COMMAND(id=2)))


def test_a_goodbye_says_what_was_announced_and_what_came():
    with pytest.raises(Disconnect, match=r"A command of 5 bytes was announced, 2 came\."):
        SDK_PROTOBUF.decode(b"\x05\x08\x01")


numbers = st.integers(0, 2**32 - 1)
commands = st.builds(
    lambda id, channel, data, offset: COMMAND(
        id=id,
        publish=official.PublishRequest(channel=channel, data=data),
        subscribe=official.SubscribeRequest(channel=channel, offset=offset),
    ),
    numbers, st.text(max_size=8), st.binary(max_size=8), st.integers(0, 2**64 - 1),
)  # fmt: skip


@given(st.binary() | st.lists(commands, max_size=3).map(lambda each: framed(*each)), st.binary(max_size=3))
def test_whatever_comes_is_commands_or_a_goodbye(message: bytes, more: bytes):
    try:
        requests = SDK_PROTOBUF.decode(message + more)
    except Disconnect as goodbye:
        assert goodbye == errors.BAD_COMMAND
    else:
        assert all(isinstance(request.command, Command) for request in requests)


# --- replies and pushes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("result", "members"), RESULTS)
def test_each_result_says_what_it_says_in_json(result: Any, members: str):
    assert heard(SDK_PROTOBUF.reply(4, result)) == without_zeros(json.loads('{"id":4,' + members + "}"))


@pytest.mark.parametrize(("why", "error"), REFUSALS)
def test_a_refusal_says_why(why: Reject, error: str):
    told = json.loads(error)
    told.pop("retry_after_ms", None)  # the protocol's Error has no field for it
    assert heard(SDK_PROTOBUF.reject(4, why)) == {"id": 4, "error": told}


def test_what_has_no_number_is_not_answered_for_that_would_look_like_a_ping():
    assert SDK_PROTOBUF.reject(0, errors.TOO_MANY_REQUESTS) == b""
    assert SDK_PROTOBUF.reply(0, Unsubscribed()) == b""


@pytest.mark.parametrize(
    ("kind", "body"), [(Kind.PUBLICATION, A), (Kind.SIGNAL, A), (Kind.JOIN, ANA), (Kind.LEAVE, ANA)]
)
def test_each_event_says_what_it_says_in_json(kind: Kind, body: bytes):
    event = Event(kind, body)
    assert heard(SDK_PROTOBUF.event("a", event)) == json.loads(SDK_JSON.event("a", event))


def test_all_that_a_publication_has_comes_with_it_and_its_data_byte_for_byte():
    info = '{"user":"ana","client":"c1","conn_info":{ "avatar": 1.50 }}'
    body = (
        f'{{"data":{{ "b":1.50,"a":"\\u00e9" }},"info":{info},"tags":{{"type":"edit","of":"7"}},"offset":8,"time":5}}'
    )
    push = official.Reply.FromString(SDK_PROTOBUF.event("a", Event(Kind.PUBLICATION, body.encode()))).push
    assert (push.channel, push.pub.offset, push.pub.time, dict(push.pub.tags)) == (
        "a",
        8,
        5,
        {"type": "edit", "of": "7"},
    )
    assert push.pub.data == b'{ "b":1.50,"a":"\\u00e9" }'
    assert (push.pub.info.user, push.pub.info.client) == ("ana", "c1")
    assert push.pub.info.conn_info == b'{ "avatar": 1.50 }'


def test_the_first_message_of_a_room_names_its_epoch_as_in_json():
    body = b'{"data":{},"offset":1,"time":5,"epoch":"xcf4"}'
    push = official.Reply.FromString(SDK_PROTOBUF.event("a", Event(Kind.PUBLICATION, body))).push
    assert push.pub.SerializeToString().endswith(NEWER["Publication", "epoch"] + b"\x04xcf4")


def test_what_the_store_holds_by_mistake_is_not_told():
    assert SDK_PROTOBUF.event("a", Event(Kind.PUBLICATION, b"<opaque>")) == b""


def test_a_subscription_of_the_servers_begins_and_ends_as_in_json():
    told = {"recoverable": True, "epoch": "xcf4", "offset": 7, "positioned": True}
    assert heard(SDK_PROTOBUF.subscribed("a", HERE)) == {"push": {"channel": "a", "subscribe": told}}
    assert heard(SDK_PROTOBUF.subscribed("a", None)) == {"push": {"channel": "a", "subscribe": {}}}
    ended = {"code": 2500, "reason": "insufficient state"}
    assert heard(SDK_PROTOBUF.unsubscribed("a", 2500, "insufficient state")) == {
        "push": {"channel": "a", "unsubscribe": ended}
    }


@given(st.text(), st.integers(0, 2**53), st.integers(0, 2**53))
def test_a_push_arrives_whatever_the_room_is_called(room: str, offset: int, time: int):
    body = b'{"data":{"text":"hi"},"offset":%d,"time":%d}' % (offset, time)
    event = Event(Kind.PUBLICATION, body, Position("e", offset))
    pushed = official.Reply.FromString(SDK_PROTOBUF.event(room, event)).push
    assert (pushed.channel, pushed.pub.offset, pushed.pub.time) == (room, offset, time)


# --- frames -----------------------------------------------------------------------------------------------------------


def test_a_ping_is_a_reply_without_fields_in_a_binary_frame():
    assert SDK_PROTOBUF.heartbeat == b"\x82\x01\x00"


def test_payloads_travel_behind_their_lengths_in_one_binary_frame():
    short, long = SDK_PROTOBUF.reply(1, Published(None, 1)), SDK_PROTOBUF.unsubscribed(300 * "a", 2000, "")
    frame = SDK_PROTOBUF.frame([short, b"", long])
    assert frame == frames.binary(varint(len(short)) + short + varint(len(long)) + long)
    assert len(varint(len(long))) == 2


@pytest.mark.parametrize("payloads", [[], [b""], [b"", b""]])
def test_nothing_to_say_is_no_frame(payloads: list[bytes]):
    assert SDK_PROTOBUF.frame(payloads) == b""


def test_everybody_hears_a_publication_its_author_too():
    assert SDK_PROTOBUF.author(Event(Kind.PUBLICATION, A)) is None


def test_the_codec_stands_for_its_door_and_may_be_a_key():
    assert {SDK_JSON: 1, SDK_PROTOBUF: 2}[SDK_PROTOBUF] == 2
    assert SDK_PROTOBUF.door is Door.SDK
