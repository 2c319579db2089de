"""The SDK door's language, line by line: → what a client sends, ← what it gets."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatd import errors
from chatd.errors import Disconnect, Reject
from chatd.model import (
    Command,
    Connect,
    Connected,
    Door,
    Event,
    History,
    HistoryResult,
    Kind,
    Ping,
    Pong,
    Position,
    Presence,
    PresenceResult,
    PresenceStats,
    PresenceStatsResult,
    Publish,
    Published,
    Refresh,
    Refreshed,
    Request,
    Result,
    Rpc,
    RpcResult,
    Send,
    SubRefresh,
    SubRefreshed,
    Subscribe,
    Subscribed,
    Unsubscribe,
    Unsubscribed,
)
from chatd.wire.centrifuge_json import SDK_JSON

HERE = Position("xcf4", 7)


def one(line: str) -> Request:
    (request,) = SDK_JSON.decode(line.encode())
    return request


def publication(body: str) -> Event:
    return Event(Kind.PUBLICATION, body.encode())


# --- the example session of the protocol's description ----------------------------------------------------------------

HI = '{"data":{"t":"hi"},"info":{"user":"42","client":"9a…"},"offset":8}'
YO = '{"data":{"t":"yo"},"info":{"user":"42","client":"3f…"},"offset":9}'


def test_the_commands_of_the_example_session_are_understood():
    assert one('{"id":1,"connect":{"token":"…","name":"js"}}') == (1, Connect(token="…", name="js"))
    assert one('{"id":2,"subscribe":{"channel":"room:1","flag":1}}') == (2, Subscribe("room:1"))
    assert one('{"id":3,"publish":{"channel":"room:1","data":{"t":"yo"}}}') == (3, Publish("room:1", b'{"t":"yo"}'))
    assert one("{}") == (0, Pong())
    assert one('{"id":4,"presence":{"channel":"room:1"}}') == (4, Presence("room:1"))
    with pytest.raises(Disconnect, match="bad request") as goodbye:
        one('{"id":5,"foo":{}}')
    assert goodbye.value.code == 3501


@pytest.mark.parametrize(
    ("payload", "line"),
    [
        (
            SDK_JSON.reply(1, Connected("3f…", "6.9.1", ping_s=25)),
            '{"id":1,"connect":{"client":"3f…","version":"6.9.1","ping":25,"pong":true}}',
        ),
        (
            SDK_JSON.reply(2, Subscribed(HERE)),
            '{"id":2,"subscribe":{"recoverable":true,"epoch":"xcf4","offset":7,"positioned":true}}',
        ),
        (SDK_JSON.event("room:1", publication(HI)), '{"push":{"channel":"room:1","pub":' + HI + "}}"),
        (SDK_JSON.event("room:1", publication(YO)), '{"push":{"channel":"room:1","pub":' + YO + "}}"),
        (SDK_JSON.reply(3, Published(Position("xcf4", 9), 1)), '{"id":3,"publish":{}}'),
        (
            SDK_JSON.reply(4, PresenceResult({"3f…": '{"user":"42","client":"3f…"}'.encode()})),
            '{"id":4,"presence":{"presence":{"3f…":{"user":"42","client":"3f…"}}}}',
        ),
    ],
)
def test_the_answers_of_the_example_session_are_these_bytes(payload, line):
    assert payload.decode() == line


def test_a_ping_is_an_empty_object_in_a_text_frame():
    assert SDK_JSON.heartbeat == b"\x81\x02{}"


# --- commands ---------------------------------------------------------------------------------------------------------


COMMANDS = [
    ('{"id":9,"connect":{}}', Connect()),
    ('{"id":9,"connect":{"data":{"user":"ana"},"version":"1"}}', Connect(data=b'{"user":"ana"}', version="1")),
    (
        '{"id":9,"connect":{"subs":{"#ana":{"recover":true,"epoch":"e","offset":3}}}}',
        Connect(subs={"#ana": Subscribe("#ana", recover=True, epoch="e", offset=3)}),
    ),
    (
        '{"id":9,"subscribe":{"channel":"a","token":"t","recover":true,"epoch":"e","offset":9007199254740993}}',
        Subscribe("a", token="t", recover=True, epoch="e", offset=9007199254740993),
    ),
    (
        '{"id":9,"subscribe":{"channel":"a","join_leave":true,"delta":"fossil","type":1,"tf":{"op":"and"}}}',
        Subscribe("a", join_leave=True, delta="fossil", kind=1, filtered=True),
    ),
    ('{"id":9,"subscribe":{"channel":"a","tf":null,"flag":3}}', Subscribe("a", reject_unrecovered=True)),
    ('{"id":9,"subscribe":{}}', Subscribe("")),
    ('{"id":9,"unsubscribe":{"channel":"a"}}', Unsubscribe("a")),
    ('{"id":9,"publish":{"channel":"a"}}', Publish("a", b"")),
    ('{"id":9,"presence_stats":{"channel":"a"}}', PresenceStats("a")),
    ('{"id":9,"history":{"channel":"a"}}', History("a")),
    (
        '{"id":9,"history":{"channel":"a","limit":-1,"since":{"offset":5,"epoch":"e"},"reverse":true}}',
        History("a", -1, Position("e", 5), reverse=True),
    ),
    ('{"id":9,"ping":{}}', Ping()),
    ('{"id":9,"rpc":{"method":"typing"}}', Rpc("typing")),
    ('{"id":9,"rpc":{"method":"typing","data":[1]}}', Rpc("typing", b"[1]")),
    ('{"id":9,"refresh":{"token":"t"}}', Refresh("t")),
    ('{"id":9,"sub_refresh":{"channel":"a","token":"t"}}', SubRefresh("a", "t")),
]


@pytest.mark.parametrize(("line", "command"), COMMANDS)
def test_each_command_has_its_form(line, command):
    assert one(line) == (9, command)


@pytest.mark.parametrize("line", ['{"send":{"data":[1]}}', '{"id":7,"send":{"data":[1]}}'])
def test_send_has_no_number_for_it_has_no_reply(line):
    assert one(line) == (0, Send(b"[1]"))


def test_what_has_no_number_and_is_no_send_is_a_pong():
    assert one('{"publish":{"channel":"a","data":1}}') == (0, Pong())


def test_of_several_requests_in_one_command_the_protocols_first_counts():
    assert one('{"id":1,"rpc":{"method":"m"},"publish":{"channel":"a","data":1}}') == (1, Publish("a", b"1"))
    assert one('{"id":1,"publish":null,"rpc":{"method":"m"}}') == (1, Rpc("m"))


def test_commands_of_one_message_keep_their_order_and_one_newline_may_follow():
    message = b'{"id":1,"connect":{}}\n{"id":2,"subscribe":{"channel":"a"}}\n{}'
    expected = [(1, Connect()), (2, Subscribe("a")), (0, Pong())]
    assert SDK_JSON.decode(message) == SDK_JSON.decode(message + b"\n") == expected


def test_fields_that_are_not_known_are_ignored():
    line = '{"id":1,"trace":"x","subscribe":{"channel":"a","positioned":true,"compress":{"level":[9]}}}'
    assert one(line) == (1, Subscribe("a"))


@pytest.mark.parametrize("data", ['{ "b":1.50, "a":"\\u00e9",\t"b":2 }', "1e400", "[12345678901234567890123]", '"x"'])
def test_an_authors_json_is_passed_on_byte_for_byte(data):
    command = one('{"id":1,"publish":{"channel":"a","data":' + data + "}}").command
    assert command == Publish("a", data.encode())


@pytest.mark.parametrize(
    ("written", "read"),
    [
        (r'"cut \ud83d"', r'"cut \ufffd"'),
        (r'"\uDE00 whole \ud83d\uDE00 \uD83d\ud83d\ude00"', r'"\ufffd whole \ud83d\uDE00 \ufffd\ud83d\ude00"'),
        (r'["\\ud83d", "\\\ud83d", {"\ud83d\n":"\u00e9"}]', r'["\\ud83d", "\\\ufffd", {"\ufffd\n":"\u00e9"}]'),
    ],
)
def test_half_a_surrogate_pair_is_read_as_browsers_would_send_it(written, read):
    """JSON.stringify writes it, where an emoji was cut in two; no UTF-8 can hold it."""
    assert one('{"id":1,"publish":{"channel":"a","data":' + written + "}}").command == Publish("a", read.encode())
    assert one(r'{"id":1,"subscribe":{"channel":"a\udfff"}}').command == Subscribe("a\ufffd")


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\n",
        b"{}\n\n",
        b"{}\n\n{}",
        b"null",
        b"[]",
        b"hello",
        b'{"id":1,"connect":{}',
        b'{"id":1,"connect":{}} {"id":2}',
        b'{"id":"1","connect":{}}',
        b'{"id":-1,"connect":{}}',
        b'{"id":4294967296,"connect":{}}',
        b'{"id":1,"connect":[]}',
        b'{"id":1,"subscribe":{"channel":1}}',
        b'{"id":1,"subscribe":{"channel":"a","offset":-1}}',
        b'{"id":1,"subscribe":{"channel":"a","offset":18446744073709551616}}',
        b'{"id":1,"subscribe":{"channel":"\\ud8"}}',
        b'{"id":1,"subscribe":{"channel":"\xff"}}',
        b'{"id":1,"publish":{"channel":"a","data":"\xff"}}',
        b'{"id":1,"publish":{"channel":"a","data":{]}}',
        b'{"id":1,"publish":{"channel":"a","data":' + b"[" * 60_000 + b"]" * 60_000 + b"}}",
        b'{"id":1}',
    ],
)
def test_what_is_no_command_ends_the_connection(message):
    with pytest.raises(Disconnect, match=r"^bad request: ") as goodbye:
        SDK_JSON.decode(message)
    assert goodbye.value == errors.BAD_COMMAND
    assert len(goodbye.value.reason.encode()) <= 123


def test_one_bad_command_spoils_its_message():
    with pytest.raises(Disconnect):
        SDK_JSON.decode(b'{"id":1,"connect":{}}\n{"id":2,"subscribe":{"channel":5}}')


def test_a_goodbye_says_what_was_expected_and_what_came():
    with pytest.raises(Disconnect, match=r"Expected `str`, got `int` - at `\$\.subscribe\.channel`"):
        one('{"id":1,"subscribe":{"channel":5}}')


def test_a_goodbye_never_quotes_a_token():
    with pytest.raises(Disconnect) as goodbye:
        one('{"id":1,"connect":{"token":["s3cret"]}}')
    assert "s3cret" not in goodbye.value.reason


commands = st.sampled_from(["id", "connect", "subscribe", "publish", "history", "rpc", "send"])
fields = st.sampled_from(["channel", "data", "since", "offset", "epoch", "subs", "token", "flag", "tf"])
scalars = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8)
)
lookalikes = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(commands | fields, inner, max_size=5),
    max_leaves=12,
)


@given(st.binary() | st.lists(lookalikes, max_size=3).map(lambda lines: "\n".join(map(json.dumps, lines)).encode()))
def test_whatever_comes_is_commands_or_a_goodbye(message):
    try:
        requests = SDK_JSON.decode(message)
    except Disconnect as goodbye:
        assert goodbye == errors.BAD_COMMAND
    else:
        assert all(isinstance(request.command, Command) for request in requests)


@given(st.text(), lookalikes, st.integers(1, 2**32 - 1))
def test_a_publish_survives_the_way_in(room, value, id):
    data = json.dumps(value, ensure_ascii=False)
    line = f'{{"id":{id},"publish":{{"channel":{json.dumps(room)},"data":{data}}}}}'
    assert one(line) == (id, Publish(room, data.encode()))


# --- replies ----------------------------------------------------------------------------------------------------------

A, B = b'{"data":1,"offset":8}', b'{"data":{"b": 2.50},"offset":9}'


RESULTS = [
    (Connected("c", "1.0.0", ping_s=0), '"connect":{"client":"c","version":"1.0.0"}'),
    (
        Connected("c", "1.0.0", ping_s=25, ttl_s=60, subs={"#ana": Subscribed(HERE), "news": Subscribed()}),
        '"connect":{"client":"c","version":"1.0.0","expires":true,"ttl":60,"subs":{'
        '"#ana":{"recoverable":true,"epoch":"xcf4","offset":7,"positioned":true},"news":{}},"ping":25,"pong":true}',
    ),
    (Refreshed("c", "1.0.0", ttl_s=60), '"refresh":{"client":"c","version":"1.0.0","expires":true,"ttl":60}'),
    (Refreshed("c", "1.0.0", ttl_s=None), '"refresh":{"client":"c","version":"1.0.0"}'),
    (Subscribed(), '"subscribe":{}'),
    (Subscribed(ttl_s=5), '"subscribe":{"expires":true,"ttl":5}'),
    (Subscribed(Position("e", 0)), '"subscribe":{"recoverable":true,"epoch":"e","positioned":true}'),
    (
        Subscribed(HERE, publications=(A, B), was_recovering=True, recovered=True),
        '"subscribe":{"recoverable":true,"epoch":"xcf4","publications":[{"data":1,"offset":8},'
        '{"data":{"b": 2.50},"offset":9}],"recovered":true,"offset":7,"positioned":true,"was_recovering":true}',
    ),
    (
        Subscribed(HERE, was_recovering=True, recovered=True),
        '"subscribe":{"recoverable":true,"epoch":"xcf4","recovered":true,"offset":7,"positioned":true,'
        '"was_recovering":true}',
    ),
    (
        Subscribed(HERE, was_recovering=True),
        '"subscribe":{"recoverable":true,"epoch":"xcf4","offset":7,"positioned":true,"was_recovering":true}',
    ),
    (SubRefreshed(ttl_s=5), '"sub_refresh":{"expires":true,"ttl":5}'),
    (SubRefreshed(ttl_s=None), '"sub_refresh":{}'),
    (Unsubscribed(), '"unsubscribe":{}'),
    (Published(None, 1), '"publish":{}'),
    (PresenceResult({}), '"presence":{"presence":{}}'),
    (PresenceStatsResult(0, 0), '"presence_stats":{"num_clients":0,"num_users":0}'),
    (PresenceStatsResult(3, 2), '"presence_stats":{"num_clients":3,"num_users":2}'),
    (HistoryResult((), Position("", 0)), '"history":{"publications":[],"epoch":"","offset":0}'),
    (
        HistoryResult((B, A), Position("e", 9)),
        '"history":{"publications":[{"data":{"b": 2.50},"offset":9},{"data":1,"offset":8}],"epoch":"e","offset":9}',
    ),
    (RpcResult(b"[ 1 ]"), '"rpc":{"data":[ 1 ]}'),
]


@pytest.mark.parametrize(("result", "members"), RESULTS)
def test_each_result_has_its_form_and_zeros_are_left_out(result: Result, members: str):
    assert SDK_JSON.reply(4, result).decode() == '{"id":4,' + members + "}"


REFUSALS = [
    (errors.NOT_AVAILABLE, '{"code":108,"message":"not available"}'),
    (
        Reject(100, 'a "quoted" text', temporary=True),
        '{"code":100,"message":"a \\"quoted\\" text","temporary":true}',
    ),
    (
        errors.TOO_MANY_REQUESTS.because("too fast", retry_after_ms=1500),
        '{"code":111,"message":"too fast","temporary":true,"retry_after_ms":1500}',
    ),
]


@pytest.mark.parametrize(("why", "error"), REFUSALS)
def test_a_refusal_says_why_and_when_to_try_again(why: Reject, error: str):
    assert SDK_JSON.reject(4, why).decode() == '{"id":4,"error":' + error + "}"


def test_what_has_no_number_is_not_answered_for_that_would_look_like_a_ping():
    assert SDK_JSON.reject(0, errors.TOO_MANY_REQUESTS) == b""
    assert SDK_JSON.reply(0, Unsubscribed()) == b""


# --- pushes -----------------------------------------------------------------------------------------------------------

ANA = b'{"user":"ana","client":"c1"}'


@pytest.mark.parametrize(
    ("kind", "body", "push"),
    [
        (Kind.PUBLICATION, A, '"pub":{"data":1,"offset":8}'),
        (Kind.JOIN, ANA, '"join":{"info":{"user":"ana","client":"c1"}}'),
        (Kind.LEAVE, ANA, '"leave":{"info":{"user":"ana","client":"c1"}}'),
    ],
)
def test_each_event_has_its_push(kind, body, push):
    assert SDK_JSON.event("a", Event(kind, body)).decode() == '{"push":{"channel":"a",' + push + "}}"


def test_a_body_from_the_store_is_not_looked_into():
    assert SDK_JSON.event("a", Event(Kind.PUBLICATION, b"<opaque>")) == b'{"push":{"channel":"a","pub":<opaque>}}'


@pytest.mark.parametrize(("code", "reason"), [(2000, ""), (2500, "insufficient state")])
def test_the_end_of_a_subscription_always_names_code_and_reason(code, reason):
    push = f'{{"push":{{"channel":"a","unsubscribe":{{"code":{code},"reason":"{reason}"}}}}}}'
    assert SDK_JSON.unsubscribed("a", code, reason).decode() == push


@given(st.text())
def test_no_name_of_a_room_can_break_out_of_its_push(room: str):
    push: Any = json.loads(SDK_JSON.event(room, Event(Kind.JOIN, ANA)))
    assert push == {"push": {"channel": room, "join": {"info": {"user": "ana", "client": "c1"}}}}


# --- frames -----------------------------------------------------------------------------------------------------------


def test_payloads_travel_newline_joined_in_one_text_frame():
    assert SDK_JSON.frame([b'{"id":1}', b"", b"{}"]) == b'\x81\x0b{"id":1}\n{}'


@pytest.mark.parametrize("payloads", [[], [b""], [b"", b""]])
def test_nothing_to_say_is_no_frame(payloads):
    assert SDK_JSON.frame(payloads) == b""


@given(st.text(), st.text(), st.text(), st.integers(100, 500))
def test_no_payload_holds_a_newline(room: str, reason: str, client: str, code: int):
    payloads = [
        SDK_JSON.reply(1, Connected(client, room, ping_s=25, subs={room: Subscribed(Position(reason, 1))})),
        SDK_JSON.reject(2, Reject(code, reason)),
        SDK_JSON.unsubscribed(room, code, reason),
        SDK_JSON.event(room, Event(Kind.LEAVE, ANA)),
    ]
    assert not any(b"\n" in payload for payload in payloads)


def test_everybody_hears_a_publication_its_author_too():
    assert SDK_JSON.author(publication(HI)) is None


def test_the_codec_stands_for_its_door_and_may_be_a_key():
    assert {SDK_JSON: 1}[SDK_JSON] == 1
    assert SDK_JSON.door is Door.SDK
