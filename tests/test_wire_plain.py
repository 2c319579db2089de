"""The plain door's language: what is typed, and what the others read."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatd import errors
from chatd.errors import Disconnect
from chatd.model import Door, Event, Kind, PresenceStatsResult, Publish, Published, Request, Unsubscribed
from chatd.wire.plain import PLAIN

ESC = "\x1b"


def said(data: str, info: str = '{"user":"ana","client":"c1"}') -> Event:
    return Event(Kind.PUBLICATION, f'{{"data":{data},"info":{info},"offset":1,"time":2}}'.encode())


def line(event: Event) -> str:
    return PLAIN.event("lobby", event).decode()


# --- in ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("typed", "data"),
    [
        ("hello", b'{"text":"hello"}'),
        ('{"text":"x"}', b'{"text":"{\\"text\\":\\"x\\"}"}'),
        ("two\nlines", b'{"text":"two\\nlines"}'),
        ("from websocat\n", b'{"text":"from websocat"}'),
        ("from Windows\r\n", b'{"text":"from Windows"}'),
        (" ", b'{"text":" "}'),
    ],
)
def test_what_is_typed_is_said_in_the_clients_own_room(typed, data):
    assert PLAIN.decode(typed.encode()) == [Request(0, Publish("", data))]


@pytest.mark.parametrize("typed", [b"", b"\n", b"\r\n"])
def test_an_empty_message_says_nothing(typed):
    assert PLAIN.decode(typed) == []


def test_bytes_that_are_no_text_end_the_connection():
    with pytest.raises(Disconnect) as goodbye:
        PLAIN.decode(b"caf\xe9")
    assert goodbye.value == errors.INVALID_UTF8


@given(st.binary())
def test_whatever_comes_is_text_or_a_goodbye(message):
    try:
        requests = PLAIN.decode(message)
    except Disconnect as goodbye:
        assert goodbye == errors.INVALID_UTF8
    else:
        assert len(requests) <= 1


# --- out --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "shown"),
    [
        ('{"text":"hi","cid":"c-81"}', "ana: hi"),
        ('{"text":""}', "ana: "),
        ('{"text":"two\\nlines\\tof it"}', "ana: two\nlines\tof it"),
        ('{ "x" : [ 1, "é" ] }', 'ana: {"x":[1,"é"]}'),
        ('{"text":5}', 'ana: {"text":5}'),
        ('"hi"', 'ana: "hi"'),
        ("null", "ana: null"),
    ],
)
def test_others_read_who_said_what(data, shown):
    assert line(said(data)) == shown


def test_what_the_server_says_bears_no_users_name():
    assert line(Event(Kind.PUBLICATION, b'{"data":{"text":"back at noon"},"time":2}')) == "* back at noon"


@pytest.mark.parametrize(
    ("type", "data", "shown"),
    [
        ("message", '{"text":"hi"}', "ana: hi"),
        ("message", '{"x":1}', 'ana: {"x":1}'),
        ("edit", '{"text":"hi there"}', "ana: hi there (edited)"),
        ("delete", '{"reason":"spam"}', ""),
        ("deleted", "{}", ""),
        ("react", '{"kind":"👍","on":true}', ""),
        ("mention", "{}", ""),
        ("one of tomorrow's", '{"text":"hi"}', "ana: hi"),
        ("one of tomorrow's", '{"x":1}', ""),
    ],
)
def test_of_what_becomes_of_messages_only_edits_are_told(type, data, shown):
    body = f'{{"data":{data},"info":{{"user":"ana","client":"c1"}},"tags":{{"type":"{type}","of":"1"}},"time":2}}'
    assert line(Event(Kind.PUBLICATION, body.encode())) == shown


def test_a_typed_line_arrives_as_it_was_typed():
    (request,) = PLAIN.decode("naïve “quotes”, \\ and 🎉".encode())
    assert isinstance(request.command, Publish)
    assert line(said(request.command.data.decode())) == "ana: naïve “quotes”, \\ and 🎉"


@pytest.mark.parametrize("steering", [f"{ESC}[2J", f"{ESC}]0;title\x07", "\x9b2J", "\x00", "\r", "\x7f", "\x08"])
def test_nothing_said_steers_a_terminal(steering):
    printable = "".join(character for character in steering if character.isprintable())
    text, name = json.dumps(f"a{steering}b"), json.dumps(f"an{steering}a")
    shown = line(said(f'{{"text":{text}}}', f'{{"user":{name},"client":"c1"}}'))
    assert shown == f"an{printable}a: a{printable}b"
    in_json = json.dumps({"x": f"\x7f{ESC}\x9b"}, ensure_ascii=False)
    assert line(said(in_json)) == 'ana: {"x":"\\u001b"}'


def test_a_name_is_one_line():
    assert line(said('{"text":"hi"}', '{"user":"ana: hi\\nbob","client":"c1"}')) == "ana: hi bob: hi"


@pytest.mark.parametrize("kind", [Kind.JOIN, Kind.LEAVE])
def test_who_comes_and_goes_is_not_shown(kind):
    event = Event(kind, b'{"user":"ana","client":"c1"}')
    assert PLAIN.event("lobby", event) == b""
    assert PLAIN.author(event) is None


NO_PUBLICATIONS = [
    b"",
    b"no json",
    b"[]",
    b'"data"',
    b"7",
    b"null",
    b"{}",
    b'{"data":1,"info":[]}',
    b'{"data":1,"info":{"user":"ana"}}',
    b'{"data":"\xff"}',
    b'{"data":' + b"[" * 2000 + b"]" * 2000 + b"}",
    b'{"data":' + b"[" * 1000 + b"]" * 1000 + b"}",
]


@pytest.mark.parametrize("body", NO_PUBLICATIONS)
def test_what_is_no_publication_is_not_shown_and_has_no_author(body):
    event = Event(Kind.PUBLICATION, body)
    assert PLAIN.event("lobby", event) == b""
    assert PLAIN.author(event) is None


@given(st.binary())
def test_nothing_from_the_store_can_raise(body):
    event = Event(Kind.PUBLICATION, body)
    PLAIN.event("lobby", event)
    PLAIN.author(event)


def test_authors_need_not_hear_themselves():
    assert PLAIN.author(said('{"text":"hi"}')) == "c1"
    assert PLAIN.author(Event(Kind.PUBLICATION, b'{"data":1}')) is None


def test_a_refusal_is_a_line_of_its_own_kind():
    assert PLAIN.reject(0, errors.TOO_LARGE) == b"! message too large"
    assert PLAIN.unsubscribed("lobby", 2000, f"by {ESC}the\nowner") == b"! by the owner"


@pytest.mark.parametrize("result", [Published(None, 1), Unsubscribed(), PresenceStatsResult(1, 1)])
def test_nothing_else_is_answered(result):
    assert PLAIN.reply(0, result) == b""


# --- frames -----------------------------------------------------------------------------------------------------------


def test_each_line_is_a_message_of_its_own():
    assert PLAIN.frame([b"ana: hi", b"", b"bob: yo"]) == b"\x81\x07ana: hi\x81\x07bob: yo"
    assert PLAIN.frame([b""]) == PLAIN.frame([]) == b""


def test_a_heartbeat_is_a_ping_frame():
    assert PLAIN.heartbeat == b"\x89\x00"


def test_the_codec_stands_for_its_door_and_may_be_a_key():
    assert {PLAIN: 1}[PLAIN] == 1
    assert PLAIN.door is Door.PLAIN
