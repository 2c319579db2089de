"""`chatd drain` and `chatd undrain`: empty a node before a restart, and watch it; or take that back.

The node does it by itself once it has been told: who watches may stop watching.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import click

from chatd.control import SCHEMA_VERSION, Answers, Drain, Object, Status, Undrain
from chatd.office import Office
from chatd.settings import Settings

from .arguments import seconds_of
from .cluster import office, opened, own_up, run, somebody
from .common import FAILED, NOT_FOUND, fail, loaded, note
from .output import json_option, plural, print_json

# How often we look how far it has come.
LOOK_S = 0.25
# A node that does not answer so often in a row is stuck, or its machine is.
SILENCES = 3


def over_seconds(_: click.Context, __: click.Parameter, text: str | None) -> float:
    return -1.0 if text is None else seconds_of(text)


@click.command(
    help="Empty NODE, named by its id, address, port or name; the only one need not be named. Its listener is closed, "
    "and its clients are told to come back elsewhere. It lives on until `chatd undrain` or SIGTERM."
)
@click.argument("node", required=False, default="")
@click.option(
    "--over",
    callback=over_seconds,
    metavar="DURATION",
    help="Spread the goodbyes over so long, though 200 a second at the least; else server.drain.",
)
@json_option
@click.pass_context
def drain(context: click.Context, node: str, over: float, as_json: bool) -> None:
    reply = run(emptied(loaded(context), node, over))
    if as_json:
        print_json(reply)
    else:
        click.echo(f"{reply['state']} {reply['node']}: {plural(reply['left'], 'connection')} left, {remain(reply)}")
    if reply["connections"]:
        fail(f"{remain(reply)} on node {reply['node']}; `chatd who` shows whose", FAILED)


@click.command(help="Let people into NODE again; it is named as for `chatd drain`.")
@click.argument("node", required=False, default="")
@json_option
@click.pass_context
def undrain(context: click.Context, node: str, as_json: bool) -> None:
    reply = run(opened_again(loaded(context), node))
    if as_json:
        print_json({"schema_version": SCHEMA_VERSION, "node": reply["node"], "state": reply["state"]})
    elif not reply["problem"]:
        click.echo(f"{reply['state']} {reply['node']}")
    if reply["problem"]:
        fail(f"node {reply['node']} {reply['problem']}; end what listens there and say it again")


def remain(reply: Object) -> str:
    return f"{plural(reply['connections'], 'connection')} {'remains' if reply['connections'] == 1 else 'remain'}"


# --- which node -------------------------------------------------------------------------------------------------------


def chosen(answers: Answers, name: str) -> Object:
    """The node that is meant; without a name there must be one only.

    Raises:
        Failure: there is none, or more than one.
    """
    nodes: list[Object] = [answer["node"] for answer in answers.by_node.values()]
    hits = [node for node in nodes if not name or name in names(node)]
    if len(hits) != 1:
        known = ", ".join(" or ".join(own_names(node, nodes)) for node in nodes) or "none that answers"
        wanted = f"{name!r} to name one node" if name else "the name of one node"
        fail(f"expected {wanted}, got {len(hits)}; the nodes are {known}", NOT_FOUND)
    return hits[0]


def own_names(node: Object, nodes: list[Object]) -> list[str]:
    """The names by which `node` is told from the others: workers share an address, nodes of one machine its name."""
    taken = {name for other in nodes if other is not node for name in names(other)}
    return [name for name in (node["id"], node["name"], node["address"]) if name not in taken]


def names(node: Object) -> set[str]:
    return {node["id"], node["name"], node["address"], str(node["address"]).rpartition(":")[2]}


# --- emptying it ------------------------------------------------------------------------------------------------------


class Bar(Protocol):
    """How far it has come, for a person."""

    def show(self, connections: int) -> None: ...


async def emptied(settings: Settings, name: str, over: float) -> Object:
    async with opened(settings) as store:
        desk = office(store, settings)
        node = chosen(somebody(await desk.ask(Status())), name)
        own_up_to(await desk.ask(Drain(node["id"], over)), node["id"])
        with bar(node["id"], node["connections"]) as shown:
            state, connections = await watched(desk, node["id"], shown)
    return {
        "schema_version": SCHEMA_VERSION,
        "node": node["id"],
        "state": state,
        "left": node["connections"] - connections,
        "connections": connections,
    }


async def watched(desk: Office, node: str, shown: Bar) -> tuple[str, int]:
    """Wait until the node is drained, or has ended; its state, and how many are still on it."""
    silences = 0
    while True:
        answers = await desk.ask(Status())
        silences = silences + 1 if node in answers.missing else 0
        if silences == SILENCES:
            own_up(Answers({}, (node,)))
        if node in answers.by_node:
            now = answers.by_node[node]["node"]
            shown.show(now["connections"])
            if now["state"] == "ready":
                fail(f"expected node {node} to drain, but somebody has undrained it meanwhile")
            if now["state"] != "draining":
                return now["state"], now["connections"]
        elif not silences:
            return "stopped", 0
        await asyncio.sleep(LOOK_S)


@contextmanager
def bar(node: str, connections: int) -> Iterator[Bar]:
    """A bar on a terminal's stderr, and nothing elsewhere."""
    if not sys.stderr.isatty():
        yield Nothing()
        return
    from rich.console import Console  # only a person on a terminal waits for it
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("draining {task.description}"), BarColumn(), TextColumn("{task.fields[remain]} remain"))
    with Progress(*columns, TimeElapsedColumn(), console=Console(stderr=True)) as progress:
        task = progress.add_task(node, total=connections, remain=connections)

        class Rich:
            def show(self, connections: int) -> None:
                progress.update(task, completed=(progress.tasks[0].total or 0) - connections, remain=connections)

        yield Rich()


class Nothing:
    def show(self, connections: int) -> None: ...


async def opened_again(settings: Settings, name: str) -> Object:
    async with opened(settings) as store:
        desk = office(store, settings)
        node = chosen(somebody(await desk.ask(Status())), name)
        answers = await desk.ask(Undrain(node["id"]))
        own_up_to(answers, node["id"])
        return {"node": node["id"], **answers.by_node[node["id"]]}


def own_up_to(answers: Answers, node: str) -> None:
    """Fail when the node that was meant did not answer; of others that did not, only say so."""
    if node in answers.missing:
        own_up(Answers({}, (node,)))
    for other in answers.missing:
        note(f"node {other} did not answer in time, which matters only if it was meant")
