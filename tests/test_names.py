"""Names: what is cleaned, what is refused, what a terminal gets to see, and whose a direct room is."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatd.errors import BAD_REQUEST, Reject
from chatd.names import clean_name, dm_members, dm_room, printable, room_name

ESC = "\x1b"
OVERRIDE = "\u202e"
ISOLATE = "\u2066"
ZERO_WIDTH = "\u200b"
HANGUL_FILLER = "\u3164"
HALF_A_PAIR = "\ud83d"
HIDDEN = [
    ESC,
    "\x00",
    "\x7f",
    "\x9b",
    "\n",
    OVERRIDE,
    ISOLATE,
    ZERO_WIDTH,
    "\ufeff",
    "\u2028",
    HANGUL_FILLER,
    HALF_A_PAIR,
]

any_text = st.text(st.characters(exclude_categories=()))
user_ids = st.text(min_size=1) | st.text("%,2C5ab", min_size=1)


@pytest.mark.parametrize(
    ("given_name", "shown"),
    [
        ("Ana", "Ana"),
        ("  Ana \t\r\n  Lima  ", "Ana Lima"),
        ("e\u0301va", "éva"),
        ("e" + ZERO_WIDTH + "\u0301va", "éva"),
        (f"{ESC}[31mAna", "[31mAna"),
        (f"Ana{OVERRIDE}nimda", "Ananimda"),
        (f"a {ZERO_WIDTH} b", "a b"),
        (HANGUL_FILLER, ""),
        ("", ""),
        ("Zoë ❤\ufe0f", "Zoë ❤\ufe0f"),
        ("山田\U000e0100太郎", "山田\U000e0100太郎"),
        ("a" * 40, "a" * 32),
        ("a" * 31 + " b", "a" * 31),
    ],
)
def test_a_display_name_is_one_line_of_what_can_be_seen(given_name: str, shown: str) -> None:
    assert clean_name(given_name, 32) == shown


def test_without_a_limit_a_name_is_as_long_as_it_is() -> None:
    assert clean_name("Ana" * 100, 0) == room_name("Ana" * 100, 0) == "Ana" * 100


@given(any_text, st.integers(1, 40))
def test_cleaning_a_clean_name_changes_nothing(text: str, limit: int) -> None:
    name = clean_name(text, limit)
    assert clean_name(name, limit) == name
    assert len(name) <= limit
    assert unicodedata.is_normalized("NFC", name)
    assert printable(name) == name
    name.encode()


@pytest.mark.parametrize(
    "name", ["lobby", "#ana", "dm#a,b", "support-1", "two words", "café", "部屋", "a" * 255, "é" * 127]
)
def test_a_clean_room_name_is_taken_as_it_is(name: str) -> None:
    assert room_name(name, 255) == name


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("", "empty"),
        ("a" * 256, "at most 255 bytes of UTF-8, 256 came"),
        ("é" * 128, "at most 255 bytes of UTF-8, 256 came"),
        ("cafe\u0301", "NFC"),
        ("\u212b", "NFC"),
        ("dm#bob,ana", "sorted .* 'dm#bob,ana' came"),
        ("dm#ana", "dm#<id>,<id>"),
    ],
)
def test_a_room_name_that_is_empty_long_or_not_nfc_is_refused_with_the_reason(name: str, why: str) -> None:
    with pytest.raises(Reject, match=why) as refusal:
        room_name(name, 255)
    assert refusal.value == BAD_REQUEST


@pytest.mark.parametrize("character", HIDDEN, ids=ascii)
def test_a_room_name_with_something_hidden_is_refused_by_its_code_point(character: str) -> None:
    with pytest.raises(Reject, match=rf"U\+{ord(character):04X}"):
        room_name(f"lob{character}by", 255)


@given(any_text)
def test_a_room_name_is_either_returned_unchanged_or_rejected(text: str) -> None:
    try:
        assert room_name(text, 64) == text
    except Reject as refusal:
        assert refusal == BAD_REQUEST
        refusal.text.encode()


def test_a_terminal_sees_escapes_spelled_out() -> None:
    assert printable(f"{ESC}[2J\r\nana{OVERRIDE}") == "\\x1b[2J\\r\\nana\\u202e"
    assert printable("Zoë 部屋 \\x1b") == "Zoë 部屋 \\x1b"


@pytest.mark.parametrize("character", HIDDEN, ids=ascii)
def test_nothing_hidden_reaches_a_terminal(character: str) -> None:
    line = printable(f"a{character}b")
    assert character not in line
    line.encode()


def test_two_users_have_one_direct_room_whoever_asks() -> None:
    assert dm_room("bob", "ana") == dm_room("ana", "bob") == "dm#ana,bob"
    assert dm_members("dm#ana,bob") == ("ana", "bob")


def test_a_comma_in_an_id_opens_no_other_room() -> None:
    assert dm_room("ana,bob", "eve") == "dm#ana%2Cbob,eve"
    assert dm_room("ana%2Cbob", "eve") == "dm#ana%252Cbob,eve"
    assert dm_members("dm#ana%2Cbob,eve") == ("ana,bob", "eve")


@pytest.mark.parametrize(
    "room",
    [
        *("lobby", "dm#", "dm#ana", "dm#ana,", "dm#,ana", "dm#,", "DM#ana,bob", " dm#ana,bob"),
        *("dm#bob,ana", "dm#a,b,c", "dm#a%2cb,c", "dm#a%zz,b", "dm#a%41,b"),
    ],
)
def test_a_direct_room_not_in_its_one_spelling_has_no_members(room: str) -> None:
    assert dm_members(room) is None


@given(user_ids, user_ids)
def test_a_direct_room_names_its_two_users_and_nobody_else(a: str, b: str) -> None:
    assert dm_members(dm_room(a, b)) == tuple(sorted((a, b)))


@given(st.text("dm#,%2C5ab"))
def test_whatever_has_members_is_spelled_as_their_direct_room(tail: str) -> None:
    room = "dm#" + tail
    members = dm_members(room)
    assert members is None or dm_room(*members) == room
