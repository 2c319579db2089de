"""What holds in rooms, by pattern."""

# ruff: noqa: RUF009
# option() returns a dataclass field, as field() does; ruff cannot know that where a field's type is one of our aliases.

from __future__ import annotations

from collections import ChainMap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import Any

from .declaring import option
from .kinds import Seconds, Texts

# Attackers choose room names, so what is remembered of them is bounded: at 255 bytes a name about 2 MiB.
REMEMBERED_ROOMS = 4096


@dataclass(frozen=True, slots=True)
class RoomRules:
    """What holds in rooms whose name fits the pattern; `*` stands for any run of characters.

    Other patterns, such as [rooms."support-*"], name only what differs. Where several fit a room, each setting comes
    from the most specific pattern that has it: the most characters besides `*`, then the fewest `*`, then the first.
    """

    public: bool = option(
        True,
        "Any verified user may join and post. false: only whom a token's `rooms` claim or a membership lets in.",
        reload=True,
    )
    history: int = option(
        1000,
        "Messages kept for those who come later or come back; 0: none, then nothing missed can be recovered either.",
        reload=True,
    )
    history_for: str = option(
        "all",
        'How far back one may read: "all" of it; "since_join", since one became a member, or for others since they '
        'subscribed; "none", nothing that one was not there for, missed messages included. Moderators and owners read '
        "all of it.",
        choices=("all", "since_join", "none"),
        reload=True,
    )
    retention: Seconds = option(2_592_000.0, "How long a message is kept at most.", least=1, reload=True)
    edit_window: Seconds = option(
        900.0,
        "How long after it was said its author may edit or delete a message; 0: not at all. Moderators may delete any "
        "message at any time, and edit nobody's.",
        reload=True,
    )
    payload: str = option(
        "any",
        '"any": any JSON. "chat": an object with a string "text". In both, "cid", "sig", "reply_to" and "mentions" are '
        "honoured where present.",
        choices=("any", "chat"),
        reload=True,
    )
    signatures: str = option(
        "off",
        'Signed messages: "off": not looked at; "optional": one that comes must be right; "required": none without. '
        "The keys stand in [[signatures.keys]].",
        choices=("off", "optional", "required"),
        reload=True,
    )
    words: Texts = option(
        (),
        "Words not taken here, as they are, without patterns. They are found as whole words in any string of a "
        "message and in the kind of a reaction, in capitals or not; in the reason of a deletion there are stars for "
        "them.",
        reload=True,
    )
    words_file: str = option(
        "", "Or a file of them, one a line, relative to this file's directory; both count.", reload=True
    )
    on_word: str = option(
        "refuse",
        '"refuse" a message with such a word, or "mask" the word with stars. One that stands outside of the text, or '
        "in a signed message, is refused in any case.",
        choices=("refuse", "mask"),
        reload=True,
    )
    join_leave: bool = option(True, "Announce joins and leaves to the clients that ask for them.", reload=True)
    announce_up_to: int = option(
        500,
        "With more connections in the room they are not announced any more, as n joins are n * n deliveries, and "
        "whoever asks who is there is told only how many.",
        reload=True,
    )
    presence: bool = option(True, "Members may ask who is in the room.", reload=True)
    idle: Seconds = option(
        0.0,
        "How long a created room stays in which nobody is present and nothing is said or changed, before it is taken "
        "away with its members and all that was said; 0: for ever. Rooms that do not say who is present always stay.",
        reload=True,
    )
    create: str = option(
        "nobody",
        'Which clients may create such rooms, and so become their owners: "nobody", so that only operators and the '
        "application's back end can; \"anybody\" who has logged in; or whom a token's `rooms` claim makes at least "
        '"member", "moderator" or "owner" there.',
        choices=("nobody", "anybody", "member", "moderator", "owner"),
        reload=True,
    )


@dataclass(frozen=True, slots=True)
class Rooms:
    """The patterns of the file with what each sets, in the order of the file.

    Attributes:
        rules: from a room's name to what holds there; remembers the latest REMEMBERED_ROOMS names.
    """

    overrides: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    rules: Callable[[str], RoomRules] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        first_wins = sorted(self.overrides.items(), key=lambda item: _specificity(item[0]))
        object.__setattr__(self, "rules", lru_cache(REMEMBERED_ROOMS)(partial(_room_rules, first_wins)))


def matches(pattern: str, name: str) -> bool:
    """Whether `name` as a whole fits `pattern`: `*` stands for any run of characters, all else for itself.

    Linear in the length of `name` for each `*`; no pattern makes it slower than that.
    """
    head, *rest = pattern.split("*")
    if not rest:
        return name == pattern
    *middle, tail = rest
    at, end = len(head), len(name) - len(tail)
    if at > end or not name.startswith(head) or not name.endswith(tail):
        return False
    for part in middle:
        found = name.find(part, at, end)
        if found < 0:
            return False
        at = found + len(part)
    return True


def _specificity(pattern: str) -> tuple[int, int]:
    """Sorts the most specific first: more literal characters, then fewer stars."""
    stars = pattern.count("*")
    return stars - len(pattern), stars


def _room_rules(first_wins: Sequence[tuple[str, Mapping[str, Any]]], name: str) -> RoomRules:
    return RoomRules(**ChainMap(*(dict(values) for pattern, values in first_wins if matches(pattern, name))))
