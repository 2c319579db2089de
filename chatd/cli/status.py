"""`chatd status`: how the cluster and each of its nodes are."""

from __future__ import annotations

from shutil import get_terminal_size

import click

from chatd import control
from chatd.control import Answers, Object, Status
from chatd.names import printable
from chatd.settings import Settings
from chatd.store.redis import Store

from .cluster import ask, living, opened, own_up, run
from .common import loaded
from .output import Column, Row, json_option, lines, millis, on_terminal, plural, print_json, raw, size, span, tables


def per_second(number: float) -> str:
    return f"{number:g}"


COLUMNS = (
    Column("id", "NODE"),
    Column("name", "NAME"),
    Column("address", "ADDRESS"),
    Column("state", "STATE"),
    Column("version", "VERSION"),
    Column("uptime_s", "UPTIME", span, right=True),
    Column("connections", "CONN", right=True),
    Column("connections_max", "MAX", right=True),
    Column("users", "USERS", right=True),
    Column("rooms", "ROOMS", right=True),
    Column("messages_in_per_s", "IN/S", per_second, right=True),
    Column("messages_out_per_s", "OUT/S", per_second, right=True),
    Column("fan_out_p50_ms", "FAN-OUT p50", millis, right=True),
    Column("fan_out_p99_ms", "FAN-OUT p99", millis, right=True),
    Column("loop_lag_p99_ms", "LAG p99", millis, right=True),
    Column("rss_bytes", "MEMORY", size, right=True),
    Column("bytes_per_connection", "PER CONN", size, right=True),
    Column("queued_bytes", "QUEUED", size, right=True),
    Column("store_rtt_ms", "STORE", millis, right=True),
    Column("store_feed", "FEED"),
    Column("closed", "CLOSED BY CODE", raw),
)


@click.command(help="How the cluster and each of its nodes are.")
@json_option
@click.pass_context
def status(context: click.Context, as_json: bool) -> None:
    answers, reply = run(asked_how(loaded(context)))
    if as_json:
        print_json(reply)
    elif on_terminal():
        click.echo(in_person(reply, get_terminal_size().columns), nl=False)
    else:
        click.echo(lines(COLUMNS, map(flat, reply["nodes"])), nl=False)
    own_up(answers)


async def asked_how(settings: Settings) -> tuple[Answers, Object]:
    async with opened(settings) as store:
        return await how(store, settings)


async def how(store: Store, settings: Settings) -> tuple[Answers, Object]:
    """What the nodes answer, and of that the reply to `chatd status --json`."""
    answers = await ask(store, settings, Status())
    return answers, control.status(answers, await living(store))


def in_person(reply: Object, width: int) -> str:
    """The cluster in a line, then the nodes, without the columns that say nothing today."""
    cluster = reply["cluster"]
    counts = (plural(cluster[noun + "s"], noun) for noun in ("node", "connection", "user", "room"))
    locked = [f"lockdown {cluster['lockdown']}"] if cluster["lockdown"] else []
    rows = [flat(node) for node in reply["nodes"]]
    telling = [column for column in COLUMNS if any(row.get(column.key) not in (None, "", {}) for row in rows)]
    return printable(", ".join([*counts, *locked])) + "\n\n" + tables(telling, rows, width)


def flat(node: Row) -> Row:
    """A node as one row; a node that is silent has little to show."""
    store = node.get("store", {})
    return {**node, "store_rtt_ms": store.get("rtt_ms"), "store_feed": store.get("feed")}
