"""What is typed after several commands, and means the same after each: durations."""

from __future__ import annotations

import click

from chatd.settings import KINDS


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
