"""How answers are printed: JSON for programs, lines with tabs for pipes, tables for a person on a terminal.

Data goes to stdout, as one text, so that a reader who has seen enough (`| head`) ends us quietly. What users chose
themselves is spelled out where it could steer a terminal, and is as it was in JSON.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from io import StringIO
from shutil import get_terminal_size
from typing import Any

import click
import orjson

from chatd.names import printable

Row = Mapping[str, Any]

# Spaces between the columns of a table.
GAP = 2

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, whose keys are stable.")


@dataclass(frozen=True, slots=True)
class Column:
    """One column.

    Attributes:
        key: of the row's value, and the heading where a program reads.
        heading: for a person.
        show: the value for a person; never called with None, which is shown as nothing.
        right: numbers stand to the right.
    """

    key: str
    heading: str
    show: Callable[[Any], str] = str
    right: bool = False


def on_terminal() -> bool:
    """Whether a person reads."""
    return sys.stdout.isatty()


def print_json(value: object) -> None:
    """One JSON value: indented for a person, on one line for a program."""
    click.echo(orjson.dumps(value, option=orjson.OPT_INDENT_2 if on_terminal() else None))


def print_rows(columns: Sequence[Column], rows: Iterable[Row]) -> None:
    """The rows as a table on a terminal, else as lines of raw values with tabs between, under a line of keys."""
    if on_terminal():
        click.echo(table(columns, list(rows), get_terminal_size().columns), nl=False)
    else:
        click.echo(lines(columns, rows), nl=False)


def lines(columns: Sequence[Column], rows: Iterable[Row]) -> str:
    header = "\t".join(column.key for column in columns)
    body = ("\t".join(raw(row.get(column.key)) for column in columns) for row in rows)
    return "".join(f"{line}\n" for line in (header, *body))


def raw(value: object) -> str:
    """A value on one line and without a tab, whatever a user may have put into it."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return ",".join(map(raw, value))
    if isinstance(value, Mapping):
        return ",".join(f"{raw(key)}={raw(inner)}" for key, inner in value.items())
    return printable(str(value))


def table(columns: Sequence[Column], rows: Sequence[Row], width: int) -> str:
    """A table of at most `width` columns of text; long values go on below in their column."""
    from rich.console import Console  # only a person on a terminal waits for it
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0))
    for column in columns:
        drawn.add_column(Text(column.heading), justify="right" if column.right else "left", overflow="fold")
    for row in rows:
        drawn.add_row(*(Text(cell(column, row)) for column in columns))
    text = StringIO()
    Console(file=text, width=width, color_system=None, legacy_windows=False).print(drawn)
    return "".join(f"{line.rstrip()}\n" for line in text.getvalue().splitlines())


def tables(columns: Sequence[Column], rows: Sequence[Row], width: int) -> str:
    """The rows in as few tables as fit `width` without a cut, each under the first column again."""
    return "\n".join(table(part, rows, width) for part in fitting(columns, rows, width))


def fitting(columns: Sequence[Column], rows: Sequence[Row], width: int) -> list[list[Column]]:
    """The columns in groups that fit side by side into `width`, the first in each."""
    first, *rest = columns
    groups = [[first]]
    for column in rest:
        if len(groups[-1]) > 1 and breadth([*groups[-1], column], rows) > width:
            groups.append([first])
        groups[-1].append(column)
    return groups


def breadth(columns: Sequence[Column], rows: Sequence[Row]) -> int:
    """How wide a table of these is when nothing in it goes on below."""
    widest = (max(len(column.heading), *(len(cell(column, row)) for row in rows), 0) for column in columns)
    return sum(widest) + GAP * (len(columns) - 1)


def cell(column: Column, row: Row) -> str:
    value = row.get(column.key)
    return "" if value is None else printable(column.show(value))


# --- values for a person ----------------------------------------------------------------------------------------------


def size(count: float) -> str:
    """Bytes, with three figures at most: 812 B, 6.5 KiB, 85 MiB."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024 or unit == "GiB":
            break
        count /= 1024
    return f"{count:.1f} {unit}" if unit != "B" and count < 10 else f"{count:.0f} {unit}"


def span(seconds: float) -> str:
    """A duration by its two largest units: 42s, 3m 5s, 2h 10m, 12d 4h."""
    whole = int(seconds)
    parts = [(whole // 86400, "d"), (whole // 3600 % 24, "h"), (whole // 60 % 60, "m"), (whole % 60, "s")]
    large = next((index for index, (count, _) in enumerate(parts) if count), 3)
    return " ".join(f"{count}{unit}" for count, unit in parts[large : large + 2])


def millis(ms: float) -> str:
    """Milliseconds, with two figures at least: 0.16 ms, 4.0 ms, 120 ms."""
    return f"{ms:.0f} ms" if ms >= 10 else f"{ms:.1f} ms" if ms >= 1 else f"{ms:.2f} ms"


def moment(unix: float) -> str:
    """A time of day for a person: UTC, so that two machines' outputs can be laid side by side."""
    return datetime.fromtimestamp(unix, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def listed(values: Iterable[str]) -> str:
    return " ".join(values)


def plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
