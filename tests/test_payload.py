"""What clients bring as data: what is taken, what is refused, and that it is stored as it came."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatd.errors import BAD_REQUEST, TOO_LARGE, Reject
from chatd.wire.payload import DEEPEST, Payload, check, claimed_user, with_text


def taken(data: bytes, *, limit: int = 8192, depth: int = 32, chat: bool = False) -> Payload:
    return check(data, limit=limit, depth=depth, chat=chat)


def refused(data: bytes, sentence: str, *, limit: int = 8192, depth: int = 32, chat: bool = False) -> Reject:
    with pytest.raises(Reject, match=sentence) as refusal:
        check(data, limit=limit, depth=depth, chat=chat)
    return refusal.value


# --- any JSON ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [b"null", b"0", b'""', b"[]", b"{}", b' {"b":1.50,\t"a":1e2} ', b'{"text":5}', b"1e9"])
def test_any_json_is_taken_byte_for_byte(data):
    assert taken(data) == Payload(data, cid=None, text=None, sig=None)


@pytest.mark.parametrize(
    "data",
    [
        b" ",
        b"hello",
        b"{'a':1}",
        b'{"a":1,}',
        b"[1] [2]",
        b"NaN",
        b"01",
        b'"\xff"',
        b'"\\ud800"',
        b'"\\udc00"',
        b'"\xed\xa0\x80"',
        b'"a\nb"',
        b'"\x00"',
        b"\xef\xbb\xbf1",
        b"[" * 2000 + b"]" * 2000,
    ],
)
def test_what_is_no_json_is_refused(data):
    assert refused(data, "expected data in JSON") == BAD_REQUEST


def test_no_data_is_refused():
    assert refused(b"", "none came") == BAD_REQUEST


def test_raw_newlines_between_tokens_go_and_written_ones_stay():
    assert taken(b'{\r\n  "text": "a\\nb",\n  "x": [1,\n2]\n}\n').data == b'{  "text": "a\\nb",  "x": [1,2]}'


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text().filter(lambda key: key not in ("cid", "sig")), inner),
)


@given(json_values, st.sampled_from([None, 1]))
def test_without_its_newlines_data_means_the_same(value, indent):
    data = json.dumps(value, indent=indent).encode()
    stored = taken(data, limit=0, depth=0).data
    assert b"\n" not in stored
    assert json.loads(stored) == value


# --- size and depth ---------------------------------------------------------------------------------------------------


def test_data_is_as_long_as_the_limit_and_no_longer():
    assert taken(b'"123456"', limit=8)
    assert refused(b'"1234567"', "at most 8 bytes, 9 came", limit=8) == TOO_LARGE


def test_length_counts_in_bytes_and_comes_before_any_parsing():
    assert refused("éé".encode(), "4 came", limit=3) == TOO_LARGE


def test_data_is_as_deep_as_the_limit_and_no_deeper():
    assert taken(b'[{"a":[1]}]', depth=3)
    assert refused(b'[{"a":[[]]}]', "at most 3 deep, 4 came", depth=3) == BAD_REQUEST


@pytest.mark.parametrize("data", [b"[[],[],[],[]]", b'["[[[[", "{{{{"]', b'["\\"[[[[", "\\\\", "[[["]', b'{"[[[":[]}'])
def test_only_brackets_within_each_other_count_as_deep(data):
    assert taken(data, depth=2).data == data


@pytest.mark.parametrize("depth", [0, 10_000])
def test_no_limit_on_depth_goes_beyond_what_all_who_read_it_can_parse(depth):
    assert taken(b"[" * DEEPEST + b"]" * DEEPEST, limit=0, depth=depth)
    deeper = b"[" * 600 + b"]" * 600
    assert refused(deeper, f"at most {DEEPEST} deep, 600 came", limit=0, depth=depth) == BAD_REQUEST


def test_depth_hidden_behind_an_equal_key_counts():
    assert refused(b'{"a":[[[1]]],"a":1}', "4 came", depth=3) == BAD_REQUEST


def depth_of(value: object) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inner is None else 1 + max(map(depth_of, inner), default=0)


@given(json_values, st.integers(1, 4))
def test_depth_is_what_a_parser_would_find(value, depth):
    data = json.dumps(value).encode()
    try:
        taken(data, limit=0, depth=depth)
    except Reject as refusal:
        assert f"{depth_of(value)} came" in refusal.text
    else:
        assert depth_of(value) <= depth


def test_zero_means_no_limit():
    assert taken(b'"' + b"x" * 10_000_000 + b'"', limit=0)


# --- what the server reads of it --------------------------------------------------------------------------------------


def test_text_cid_and_sig_are_read_in_any_room():
    data = b'{"text":"hi","cid":"c-81","sig":"k:1:n:ff","mood":"fine"}'
    for chat in True, False:
        assert taken(data, chat=chat) == Payload(data, cid="c-81", text="hi", sig="k:1:n:ff")


@pytest.mark.parametrize("data", [b'"hi"', b"[]", b"{}", b'{"text":5}', b'{"text":null}', b'[{"text":"hi"}]'])
def test_a_chat_room_takes_objects_with_a_text_only(data):
    assert refused(data, 'a string "text"', chat=True) == BAD_REQUEST


def test_an_empty_text_is_a_text():
    assert taken(b'{"text":""}', chat=True).text == ""


@pytest.mark.parametrize(("name", "limit"), [("cid", 64), ("sig", 512)])
def test_cid_and_sig_are_strings_of_bounded_length(name, limit):
    assert taken(json.dumps({name: "é" * limit}).encode())
    for wrong in ("", "x" * (limit + 1), 7, None, ["x"], True):
        data = json.dumps({name: wrong}).encode()
        assert refused(data, f'"{name}" is a string of 1 to {limit} characters') == BAD_REQUEST


def test_a_cid_that_is_not_at_the_top_is_the_applications_own():
    assert taken(b'{"reply":{"cid":7}}').cid is None
    assert taken(b'[{"cid":"x"}]').cid is None


def test_of_two_equal_keys_the_last_counts_and_both_are_stored():
    data = b'{"cid":7,"cid":"b","text":"one","text":"two"}'
    assert taken(data) == Payload(data, cid="b", text="two", sig=None)


@given(st.binary())
def test_whatever_comes_is_taken_or_refused(data):
    try:
        assert json.loads(taken(data, chat=True).data)["text"] is not None
    except Reject as refusal:
        assert refusal == BAD_REQUEST


# --- who a client without a token says it is --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "user"),
    [
        (b'{"user":"ana"}', "ana"),
        (b'{"user":""}', None),
        (b'{"user":7}', None),
        (b'{"name":"ana"}', None),
        (b'"ana"', None),
        (b'["user"]', None),
        (b"null", None),
        (b"{", None),
        (b"[" * 5000, None),
        (None, None),
    ],
)
def test_in_open_mode_a_user_is_who_it_says(data, user):
    assert claimed_user(data) == user


def test_data_with_another_text_is_otherwise_as_it_came():
    data = b'{"wei":1000000000000000000000000,"text":"darn","share":1.50e1}'
    assert with_text(data, "****") == b'{"wei":1000000000000000000000000,"text":"****","share":1.50e1}'


# --- replies and mentions ---------------------------------------------------------------------------------------------


def test_what_it_answers_and_whom_it_mentions_is_read():
    said = taken(b'{"text":"hi","reply_to":7,"mentions":["ben","cem","ben"]}', chat=True)
    assert (said.reply_to, said.mentions) == (7, ("ben", "cem"))


def test_a_whole_number_may_be_written_with_a_fraction_of_nothing():
    said = taken(b'{"text":"hi","reply_to":7.0}', chat=True)
    assert (said.reply_to, said.data) == (7, b'{"text":"hi","reply_to":7.0}')
    refused(b'{"text":"hi","reply_to":7.5}', "reply_to", chat=True)


@pytest.mark.parametrize(
    "data", [b'{"reply_to":"7"}', b'{"reply_to":true}', b'{"mentions":"ben"}', b'{"mentions":[7]}']
)
def test_other_things_under_these_names_are_the_applications_own_but_in_a_room_for_chat(data):
    said = taken(data)
    assert (said.reply_to, said.mentions) == (None, ())
    assert refused(b'{"text":"hi",' + data[1:], "and this is none", chat=True) == BAD_REQUEST


def test_a_message_mentions_only_so_many():
    assert len(taken(json.dumps({"mentions": [str(n) for n in range(50)]}).encode()).mentions) == 50
    assert refused(json.dumps({"mentions": [str(n) for n in range(51)]}).encode(), "at most 50 users") == BAD_REQUEST
