"""What every command shares: how it fails, with which exit code, and which settings it works by.

An error is one sentence on stderr; which exception means which exit code is said here and nowhere else. A bug is none
of these: it is shown as Python shows it.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from traceback import walk_tb
from typing import NoReturn

import click

from chatd.errors import Reject
from chatd.settings import NO_FLAGS, Settings, SettingsError, load
from chatd.store.errors import StoreError, StoreFull, StoreMisconfigured, StoreUnavailable

from . import CONFIG_FILE

OK = 0
FAILED = 1
USAGE = 2
NO_DAEMON = 3
NOT_FOUND = 4
# sysexits.h: EX_TEMPFAIL, "try again later", and EX_CONFIG; systemd is told not to restart after the latter.
STORE_UNAVAILABLE = 75
BAD_CONFIGURATION = 78

# The first that fits holds. ValueError itself, and none of its kinds, is what auth and rules raise for a key or a
# network that cannot be used, in a sentence that names it.
EXIT_CODES: tuple[tuple[type[Exception], int], ...] = (
    (SettingsError, BAD_CONFIGURATION),
    (StoreMisconfigured, BAD_CONFIGURATION),
    (StoreUnavailable, STORE_UNAVAILABLE),
    (StoreFull, STORE_UNAVAILABLE),
    (StoreError, FAILED),
    (Reject, FAILED),
)


class Failure(Exception):
    """The end of a command: one sentence for a person, one exit code for a script."""

    def __init__(self, sentence: str, code: int = FAILED) -> None:
        super().__init__(sentence)
        self.code = code


class Unwritten(Failure):
    """stdout did not take the answer, or not all of it."""

    def __init__(self, error: OSError) -> None:
        super().__init__(
            f"cannot write the answer: {error.strerror or error}; what was written is not complete, "
            "so make room there, and see what has been done before you say it again"
        )


def fail(sentence: str, code: int = FAILED) -> NoReturn:
    raise Failure(sentence, code)


def note(sentence: str) -> None:
    """Tell a person something that is not the answer; it goes to stderr."""
    click.echo(f"chatd: {sentence}", err=True)


def tell(failure: Failure) -> None:
    note(str(failure))
    if isinstance(failure, Unwritten):  # Python would try the rest again at its end, and complain
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def explained(error: Exception) -> Failure | None:
    """The Failure that `error` stands for; None when it is click's own, or a bug."""
    first = _first(error)
    if isinstance(first, Failure):
        return first
    if isinstance(first, OSError) and _while_printing(first):
        return Unwritten(first)
    code = next((code for kind, code in EXIT_CODES if isinstance(first, kind)), None)
    if code is None and type(first) is ValueError:
        code = BAD_CONFIGURATION
    return None if code is None else Failure(str(first), code)


def _first(error: BaseException) -> BaseException:
    """What a task group's error began with."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _while_printing(error: OSError) -> bool:
    """Whether it was click.echo that failed, by which all answers go; not because a reader has left, as click knows."""
    frames = [frame for frame, _ in walk_tb(error.__traceback__)]
    return error.errno != errno.EPIPE and bool(frames) and frames[-1].f_code is click.echo.__code__


def settings_file(context: click.Context) -> Path | None:
    """The file that --config named, before or after the command's name; None: it named none."""
    file: Path | None = context.meta.get(CONFIG_FILE)
    return file


def loaded(context: click.Context, flags: Mapping[str, object] = NO_FLAGS) -> Settings:
    """The settings that this command works by; `flags` as in settings.load.

    Raises:
        SettingsError: something in them is wrong.
    """
    return load(settings_file(context), os.environ, flags)
