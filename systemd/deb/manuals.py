#!/usr/bin/env python3
"""Writes the manuals: systemd/deb/manuals.py DIRECTORY. A page in man1 for every command, and chatd.toml(5).

The commands' pages are click-man's work; we only find the commands, which are loaded late. The settings' page is made
of their declarations, as config/chatd.toml is.
"""

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from click_man.core import generate_man_page

from chatd import __version__
from chatd.cli import main
from chatd.settings import KINDS, SECTIONS, TABLES, RoomRules, options

DATE = time.strftime("%Y-%m-%d", time.gmtime(int(os.environ.get("SOURCE_DATE_EPOCH", time.time()))))


def commands(command: click.Command, parent: click.Context | None = None) -> Iterator[click.Context]:
    """A context for `command` and for each below it."""
    real = getattr(command, "real", lambda: command)()
    for each in (real, command):
        # Else click cuts the line that apropos shows.
        each.short_help = (each.help or "").partition(". ")[0].rstrip(".")
    context = click.Context(real, info_name=real.name, parent=parent)
    yield context
    for inner in getattr(real, "commands", {}).values():
        yield from commands(inner, context)


def settings_page() -> str:
    head = [
        f'.TH CHATD.TOML 5 "{DATE}" "chatd {__version__}" "chatd Manual"',
        ".SH NAME",
        "chatd.toml \\- settings of the chat server chatd",
        ".SH SYNOPSIS",
        "/etc/chatd/chatd.toml",
        ".SH DESCRIPTION",
        roff(
            "TOML. Each setting is below with its default. On top of the file come systemd's credentials, variables of "
            'the form CHATD_SECTION__KEY, and flags. Durations are written as "25s", sizes as "64KiB". Settings marked '
            "(reload) also change on SIGHUP; the others want a restart. `chatd config check` says what is wrong, "
            "`chatd config show --origin` where each value came from."
        ),
    ]
    body = [line for title, section in tables() for line in table(title, section)]
    return "\n".join([*head, *body, ".SH SEE ALSO", "chatd(1), chatd\\-serve(1), chatd\\-config(1)", ""])


def tables() -> Iterator[tuple[str, type]]:
    """The tables of the file, in the order of config/chatd.toml, as they are written there."""
    for name, section in SECTIONS.items():
        yield f"[{name}]", section
        yield from ((f"[[{name}.{key}]]", type(rows.example)) for (at, key), rows in TABLES.items() if at == name)
    yield '[rooms."*"]', RoomRules


def table(title: str, section: type) -> Iterator[str]:
    yield f'.SH "{quoted(title)}"'
    for paragraph in (section.__doc__ or "").split("\n\n"):
        if not paragraph.strip().startswith("Attributes:"):
            yield ".PP"
            yield roff(" ".join(paragraph.split()))
    lists = {key for at, key in TABLES if SECTIONS[at] is section}
    for key, setting in options(section).items():
        if key not in lists:
            yield from entry(key, setting)


def entry(key: str, setting: Any) -> Iterator[str]:
    declared = setting.metadata["option"]
    yield ".TP"
    yield roff(f"{key} = {KINDS[str(setting.type)].show(setting.default)}")
    yield roff(declared.doc + (" (reload)" if declared.reload else ""))


def roff(text: str) -> str:
    """`text` as it is: no backslash, leading dot or quote of it commands the formatter."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq").replace("`", "\\(ga")
    return f"\\&{escaped}" if escaped.startswith(".") else escaped


def quoted(text: str) -> str:
    return roff(text).replace('"', "\\(dq")


def write(directory: Path) -> None:
    for section in ("man1", "man5"):
        (directory / section).mkdir(parents=True, exist_ok=True)
    for context in commands(main):
        name = context.command_path.replace(" ", "-")
        (directory / "man1" / f"{name}.1").write_text(generate_man_page(context, __version__, DATE))
    (directory / "man5" / "chatd.toml.5").write_text(settings_page())


if __name__ == "__main__":
    write(Path(sys.argv[1]))
