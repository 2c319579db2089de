"""`chatd who` and `chatd kick`: who is connected, and out with them."""

from __future__ import annotations

import time
from collections.abc import Callable
from ipaddress import ip_address
from typing import Any

import click

from chatd import control
from chatd.control import Answers, Kick, Object, Who
from chatd.rules import parsed_network
from chatd.settings import Settings

from .cluster import asked, office, opened, own_up, run, somebody
from .common import NOT_FOUND, fail, loaded
from .output import Column, Row, json_option, listed, plural, print_json, print_rows, size, span
from .token import see_tokens

COLUMNS = (
    Column("user", "USER"),
    Column("ip", "IP"),
    Column("door", "DOOR"),
    Column("since", "FOR", lambda since: span(max(0.0, time.time() - since)), right=True),
    Column("queued_bytes", "QUEUED", size, right=True),
    Column("rooms", "ROOMS", listed),
    Column("node", "NODE"),
    Column("id", "CONNECTION"),
)

# The first is what one looks for: the fullest outbox, the longest here, the alphabet.
ORDERS: dict[str, Callable[[Row], Any]] = {
    "queued": lambda entry: -entry["queued_bytes"],
    "since": lambda entry: entry["since"],
    "user": lambda entry: entry["user"],
    "ip": lambda entry: address_order(entry["ip"]),
}


def network(_: click.Context, __: click.Parameter, text: str) -> str:
    """An address, or a network such as 10.0.0.0/8; "" for none."""
    try:
        return str(parsed_network(text)) if text else ""
    except ValueError:
        raise click.BadParameter(f"expected an address or a network such as 10.0.0.0/8, got {text!r}") from None


def address_order(text: str) -> tuple[int, int, str]:
    """Addresses by number, IPv4 first; what is no address, such as a unix socket's end, before all."""
    try:
        address = ip_address(text)
    except ValueError:
        return 0, 0, text
    return address.version, int(address), text


# --- who --------------------------------------------------------------------------------------------------------------


@click.command(help="Who is connected: in ROOM, or at all.")
@click.argument("room", required=False, default="")
@click.option("--user", default="", help="Only this user.")
@click.option(
    "--ip", "address", callback=network, default="", metavar="CIDR", help="Only from this address or network."
)
@click.option("--sort", "order", type=click.Choice(list(ORDERS)), default="since", show_default=True)
@json_option
@click.pass_context
def who(context: click.Context, room: str, user: str, address: str, order: str, as_json: bool) -> None:
    answers = asked(loaded(context), Who(room, user, address))
    reply = control.who(answers)
    reply["connections"].sort(key=ORDERS[order])
    if as_json:
        print_json(reply)
    else:
        print_rows(COLUMNS, reply["connections"])
    own_up(answers)


# --- kick -------------------------------------------------------------------------------------------------------------


@click.command(
    help="Throw out a user's connections, one connection, or all from an address. They are told not to come back; "
    "with --revoke they also cannot, with the tokens they have."
)
@click.argument("target", required=False, default="", metavar="[USER|CONNECTION]")
@click.option("--ip", "address", callback=network, default="", metavar="CIDR", help="All from this address or network.")
@click.option("--room", default="", help="Put them out of this room only.")
@click.option("--reason", default="", metavar="TEXT", help="What they are told.")
@click.option("--revoke", is_flag=True, help="Also end the tokens they came with.")
@json_option
@click.pass_context
def kick(
    context: click.Context, target: str, address: str, room: str, reason: str, revoke: bool, as_json: bool
) -> None:
    if bool(target) == bool(address):
        raise click.UsageError(
            "expected a USER or CONNECTION, or else --ip CIDR, got " + ("both" if target else "none")
        )
    settings = loaded(context)
    if revoke:
        see_tokens(settings)
    answers = run(thrown_out(settings, Kick(target, address, room, reason, revoke)))
    reply = control.kicked(answers)
    if as_json:
        print_json(reply)
    elif reply["closed"]:
        click.echo(told(reply))
    own_up(answers)
    if not reply["closed"]:
        where = f" in {room!r}" if room else ""
        fail(f"expected {target or address!r} to be connected{where}, got nobody; see `chatd who`", NOT_FOUND)


async def thrown_out(settings: Settings, question: Kick) -> Answers:
    async with opened(settings) as store:
        return somebody(await office(store, settings).kick(question))


def told(reply: Object) -> str:
    nodes = ", ".join(f"{count} on {node}" for node, count in reply["nodes"].items())
    return f"closed {plural(reply['closed'], 'connection')}: {nodes}"
