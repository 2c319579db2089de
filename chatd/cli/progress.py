"""How far a long command is, for a person who waits: a bar on stderr, and nothing where nobody looks."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Advance = Callable[[int, int], None]
"""Told how much of how much is done."""


@contextmanager
def bar(title: str) -> Iterator[Advance]:
    """A bar that goes when it is full, as it is no part of the answer."""
    if not sys.stderr.isatty():
        yield lambda done, total: None
        return
    from rich.console import Console  # only a person on a terminal waits for it
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(title, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)
