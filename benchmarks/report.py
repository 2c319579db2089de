"""The table of a sitting, as Markdown for people and JSON for programs, and the plots beside it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path

from .chart import bars, lines
from .sitting import Row, Sitting

HEAD = """# What chatd costs, measured

{date}, by `python -m benchmarks{quick}`, in {minutes:.0f} minutes. Median of the runs, least and most in brackets. CPU
is the server process's own, user and system, as the kernel counts it; the server on one core, the load and the store on
another. The *floor* is a C program that makes each frame once and does one `send()` per reader, and nothing else. What
is so many times something else took turns with it, run by run: it is the median of those ratios. Every delivery was
checked to have arrived, in order.
"""
NOTE = """
chatd goes its real way: token, JSON door, store with history on, feed. Switched off are the limits on what one client
may do (`benchmarks/server.py` lists them). The peers keep nothing and check nothing. Where a reach is not met the table
says so and why.
"""


def markdown(sitting: Sitting) -> str:
    minutes = sum(sitting.seconds.values()) / 60
    quick = "" if sitting.scale.runs > 2 else " --quick"
    parts = [HEAD.format(date=f"{datetime.now(UTC):%d %B %Y}", quick=quick, minutes=minutes), *_machine(sitting), NOTE]
    for figure, rows in groupby(sorted(sitting.rows, key=lambda row: _order(sitting, row)), lambda row: row.figure):
        parts += [f"\n## {figure.capitalize()}\n", *_table(list(rows))]
    parts += _peers(sitting)
    return "\n".join(parts) + "\n"


def write(sitting: Sitting, folder: Path) -> None:
    # First, for they tell whether the checkout is as it was committed, and it may be where we write.
    table, record = markdown(sitting), sitting.as_json()
    folder.mkdir(parents=True, exist_ok=True)
    plots = _plots(sitting)
    for name, svg in plots.items():
        (folder / f"{name}.svg").write_text(svg)
    pictures = "".join(f"\n![{name}]({name}.svg)\n" for name in plots)
    (folder / "RESULTS.md").write_text(table + ("\n## Plots\n" + pictures if pictures else ""))
    (folder / "results.json").write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n")


def _order(sitting: Sitting, row: Row) -> int:
    """Figures in the order in which they first appear."""
    return next(i for i, other in enumerate(sitting.rows) if other.figure == row.figure)


def _machine(sitting: Sitting) -> Iterator[str]:
    yield "| | |\n| --- | --- |"
    for name, value in sitting.facts().items():
        yield f"| {name} | {value} |"


def _table(rows: list[Row]) -> Iterator[str]:
    yield "| case | of | measured | beside | reach | met |\n| --- | --- | --- | --- | --- | --- |"
    for row in rows:
        reach, met = ("", "") if row.reach is None else (row.reach.text, "yes" if row.reach.met else "**no**")
        if row.reason:
            met = f"{met}: {row.reason}" if met else row.reason
        yield f"| {row.case} | {row.who} | {_measured(row)} | {row.beside} | {reach} | {met} |"


def _measured(row: Row) -> str:
    if row.median is None:
        return ""
    spread = f" ({_figure(min(row.values))}–{_figure(max(row.values))})" if len(row.values) > 1 else ""
    return f"{_figure(row.median)} {row.unit}{spread}"


def _figure(value: float) -> str:
    """Three digits that count."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _peers(sitting: Sitting) -> Iterator[str]:
    if sitting.versions or sitting.missing:
        yield "\n## Peers\n"
    for name, versions in sitting.versions.items():
        yield f"- {name}: {versions}"
    for name, why in sitting.missing.items():
        yield f"- {name}: **missing**, {why}"


def _plots(sitting: Sitting) -> dict[str, str]:
    fan_out = [row for row in sitting.rows if row.figure == "fan-out" and row.case == "1,000 readers"]
    plots = {}
    if fan_out:
        slowest_last = sorted((row for row in fan_out if row.values), key=lambda row: min(row.values))
        plots["fan-out"] = bars(
            "CPU per delivery, one message at a time to 1,000 readers (µs; logarithmic)",
            {row.who: row.median for row in slowest_last if row.median},
        )
    for series in sitting.plots:
        name = re.sub(r"[^a-z0-9]+", "-", series.title.lower()).strip("-")
        plots[name] = lines(series)
    return plots
