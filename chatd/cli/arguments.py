"""What is typed after several commands, and means the same after each: durations, names, ports, URLs."""

from __future__ import annotations

import re

import click

from chatd.settings import KINDS, is_url


def seconds_of(text: str) -> float:
    """Seconds, more than none, from what the settings call a duration."""
    kind = KINDS["Seconds"]
    try:
        seconds = float(str(kind.read(kind.from_text(text))))
    except ValueError:
        raise click.BadParameter(f"expected {kind.expected}, got {text!r}") from None
    if seconds <= 0:
        raise click.BadParameter(f"expected a duration of more than 0 s, got {text!r}")
    return seconds


def duration(_: click.Context, __: click.Parameter, text: str) -> float:
    return seconds_of(text)


def websocket_url(_: click.Context, __: click.Parameter, text: str | None) -> str | None:
    """A server's URL up to its path, in which nothing of another kind stands."""
    if text is None:
        return None
    if not re.fullmatch(r"wss?://[^/?#@\s]+(/[^?#\s]*)?", text) or not is_url(text, ("ws", "wss")):
        raise click.BadParameter(f"expected a URL like wss://chat.example, got {text!r}")
    return text.rstrip("/")


def ports(_: click.Context, __: click.Parameter, text: str | None) -> tuple[int, ...]:
    """The ports in "8001,8002", each once; none where nothing was given.

    Raises:
        click.BadParameter: there is something else in it.
    """
    if text is None:
        return ()
    words = [word.strip() for word in text.split(",")]
    if not all(re.fullmatch(r"[0-9]{1,5}", word) and 0 < int(word) < 65_536 for word in words):
        raise click.BadParameter(f"expected ports with commas between, such as 8001,8002, got {text!r}")
    return tuple(dict.fromkeys(map(int, words)))


def named(_: click.Context, __: click.Parameter, text: str | None) -> str | None:
    """A name that is not empty, as that of a variable that was never set is; None: none was given."""
    if text == "":
        raise click.BadParameter("expected a name, got an empty one; see that the variable it comes from is set")
    return text
