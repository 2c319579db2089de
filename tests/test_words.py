"""A room's word list: what counts as one of its words, and what masking leaves."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatd.words import WordList, word_list

LIST = WordList(["darn", "Very Bad", "c++", "straße", "ﬁsh", "नमस्ते", "@ss", "", "  "])


@pytest.mark.parametrize("text", [
    "darn", "DARN", "oh darn!", "(darn)", "darn,darn", "x_darn_x", "very bad", "very \n\t BAD", "I write C++.",
    "STRASSE", "fish", "ＤＡＲＮ", "da\u200brn", "da\u00adrn", "नमस्ते", "you @ss",
])  # fmt: skip
def test_a_word_is_found_however_it_is_written(text: str) -> None:
    assert LIST.in_([text])
    assert not LIST.in_([LIST.masked(text)])


@pytest.mark.parametrize("text", [
    "", "darning", "undarn", "darn1", "darn\u0308", "very", "very badly", "every bad", "strasse1", "fishy", "नमस्तेक",
    "d a r n", "c+",
])  # fmt: skip
def test_a_part_of_another_word_is_not_one(text: str) -> None:
    assert not LIST.in_([text])
    assert LIST.masked(text) == text


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("oh darn, Darn!", "oh ****, ****!"),
        ("very   bad  day", "**********  day"),
        ("da\u200brn it", "***** it"),
        ("Straße 7", "****** 7"),
        ("🦊 darn 🦊", "🦊 **** 🦊"),
        ("cafe\u0301 darn", "cafe\u0301 ****"),
    ],
)
def test_masking_leaves_all_else_as_it_was(text: str, masked: str) -> None:
    assert LIST.masked(text) == masked


def test_the_longest_word_is_masked() -> None:
    assert WordList(["bad", "bad day"]).masked("a bad day") == "a *******"


def test_a_list_of_nothing_takes_everything() -> None:
    assert not WordList([]).in_(["anything"])
    assert not WordList(["\u200b"]).in_(["anything", ""])


def test_a_list_of_the_settings_is_made_once() -> None:
    assert word_list(("a", "b")) is word_list(("a", "b"))


@given(st.text(alphabet=st.sampled_from("dDarn \n\u200b\u0301ﬁ.ß"), max_size=40))
def test_what_was_masked_has_none_of_the_words_and_what_has_none_is_left_alone(text: str) -> None:
    words = WordList(["darn", "dß", "r n"])
    masked = words.masked(text)
    if not words.in_([text]):
        assert masked == text
    assert len(masked) == len(text)


@given(st.text(max_size=30))
def test_every_unicode_form_of_a_text_has_the_same_words(text: str) -> None:
    words = WordList([text])
    found = words.in_([text])
    assert all(words.in_([unicodedata.normalize(form, text)]) is found for form in ("NFC", "NFD", "NFKC", "NFKD"))
