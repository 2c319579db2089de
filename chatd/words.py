"""Words that a room does not take. Pure: a list and a text go in; whether, and where, comes out.

The words are literal: nobody writes a regular expression here. They are found as whole words, in capitals or not, in
any of Unicode's ways to write the same letters (NFKC), over any white space, and with invisible characters in between.
Tricks of spelling (b.a.d, letters of other scripts that look alike) are not seen through. In scripts that put no space
between words a run of letters is one word.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import pairwise

from .names import without_hidden


def fold(text: str) -> str:
    """`text` as it is compared: without capitals, hidden characters, and differences in white space."""
    # White space first: some of it is hidden. And last: what was hidden may have stood in it.
    visible = without_hidden(" ".join(unicodedata.normalize("NFKC", text).split()))
    return " ".join(unicodedata.normalize("NFKC", visible.casefold()).split())


class WordList:
    """See the head of this file. A text costs its length times the different lengths of words that begin alike."""

    def __init__(self, words: Iterable[str]) -> None:
        self._words = {folded for word in words if (folded := fold(word))}
        lengths: dict[str, set[int]] = {}
        for word in self._words:
            lengths.setdefault(word[0], set()).add(len(word))
        self._lengths = {first: sorted(those, reverse=True) for first, those in lengths.items()}

    def in_(self, texts: Iterable[str]) -> bool:
        """Whether one of the words is in one of `texts`."""
        return any(next(self._spans(fold(text)), None) for text in texts)

    def masked(self, text: str) -> str:
        """`text` with stars in place of the words, as many as they have characters."""
        folded, origins = "", list[tuple[int, int]]()
        for start, end in _clusters(text):
            letters = " " if text[start:end].isspace() else fold(text[start:end])
            if letters == " " and folded.endswith(" "):
                letters = ""
            folded += letters
            origins += [(start, end)] * len(letters)
        stars = list(text)
        for first, last in self._spans(folded):
            for at in range(origins[first][0], origins[last - 1][1]):
                stars[at] = "*"
        return "".join(stars)

    def _spans(self, folded: str) -> Iterator[tuple[int, int]]:
        """Where words stand, the longest at each place, none within another."""
        edges = _edges(folded)
        after = 0
        for start, is_edge in enumerate(edges[:-1]):
            if is_edge and start >= after and (end := self._end(folded, start, edges)) > start:
                yield start, end
                after = end

    def _end(self, folded: str, start: int, edges: Sequence[bool]) -> int:
        """Where the longest word that begins at `start` ends; `start` itself: none does."""
        for length in self._lengths.get(folded[start], ()):
            end = start + length
            if end < len(edges) and edges[end] and folded[start:end] in self._words:
                return end
        return start


@lru_cache(64)
def word_list(words: tuple[str, ...]) -> WordList:
    """The list of a room's settings, which has been made before."""
    return WordList(words)


def _edges(text: str) -> list[bool]:
    """For each place before, between and after the characters: whether a word can begin or end there."""
    # Letters, numbers, and the marks that stand on and around letters (UAX #44, 5.7.1).
    letters = [unicodedata.category(character)[0] in "LNM" for character in text]
    return [not (left and right) for left, right in pairwise([False, *letters, False])]


def _clusters(text: str) -> Iterator[tuple[int, int]]:
    """Each character with the marks that follow it, as what may become one character when it is folded."""
    start = 0
    for end in range(1, len(text) + 1):
        if end == len(text) or unicodedata.category(text[end])[0] != "M":
            yield start, end
            start = end
