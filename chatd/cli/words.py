"""`chatd send`, `chatd announce`, `chatd history`: what is said in rooms, from the command line.

An operator speaks for the server, whom no room refuses, or lends a user his voice; the audit stream says who did.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import click

from chatd import control
from chatd.control import SCHEMA_VERSION, Object, Rooms
from chatd.model import ClientInfo, Position
from chatd.names import room_name
from chatd.settings import Settings
from chatd.steward import keep
from chatd.store.redis import Store
from chatd.wire import payload, rpc
from chatd.wire.publication import Publication, client_info, head, parse

from .arguments import named
from .cluster import office, opened, own_up, run
from .common import NOT_FOUND, fail, loaded, note
from .output import Column, json_option, moment, plural, print_json, print_rows, raw

COLUMNS = (
    Column("offset", "OFFSET", right=True),
    Column("time", "TIME", lambda ms: moment(ms / 1000)),
    Column("user", "USER"),
    Column("type", "TYPE"),
    Column("of", "OF", raw),
    Column("text", "TEXT"),
)


@dataclass(frozen=True, slots=True)
class Landed:
    """Where something said is."""

    room: str
    offset: int
    epoch: str
    time: int


async def said(store: Store, settings: Settings, room: str, text: str, user: str = "") -> Landed:
    """Say `text` in `room`, as `user` or as the server.

    Raises:
        Reject 107, 413: this cannot be said there.
    """
    room_name(room, settings.limits.room_name)
    limits, kept = settings.limits, settings.room(room)
    data = payload.check(
        rpc.encode({"text": text}), limit=limits.body, depth=limits.depth, chat=kept.payload == "chat"
    ).data
    info = client_info(ClientInfo(user, "")) if user else None
    publication = head(data, info, {"type": "message"})
    published, _ = await store.messages.publish(room, publication, keep(kept), told=True)
    epoch, offset = published.position or Position("", 0)
    return Landed(room, offset, epoch, published.time_ms)


def shown(landed: Landed) -> Object:
    return {"room": landed.room, "offset": landed.offset, "epoch": landed.epoch, "time": landed.time}


# --- send -------------------------------------------------------------------------------------------------------------


@click.command(help="Say TEXT in ROOM, as the server or as a user.")
@click.argument("room")
@click.argument("text")
@click.option("--as", "user", callback=named, metavar="USER", help="In this user's name.")
@json_option
@click.pass_context
def send(context: click.Context, room: str, text: str, user: str | None, as_json: bool) -> None:
    landed = run(sent(loaded(context), room, text, user or ""))
    if as_json:
        print_json({"schema_version": SCHEMA_VERSION, **shown(landed)})
    else:
        click.echo(f"said in {room}" + (f", offset {landed.offset}" if landed.offset else ", which keeps no history"))


async def sent(settings: Settings, room: str, text: str, user: str) -> Landed:
    async with opened(settings) as store:
        landed = await said(store, settings, room, text, user)
        await office(store, settings).write_down("send", room=room, offset=landed.offset, user=user)
        return landed


# --- announce ---------------------------------------------------------------------------------------------------------


def something(_: click.Context, __: click.Parameter, text: str) -> str:
    if not text:
        raise click.BadParameter("expected something to say, got an empty text")
    return text


@click.command(help="Say TEXT as the server in every room that has readers now, or in one.")
@click.argument("text", callback=something)
@click.option("--room", default="", help="In this room only.")
@json_option
@click.pass_context
def announce(context: click.Context, text: str, room: str, as_json: bool) -> None:
    landed, readers, answers = run(announced(loaded(context), text, room))
    if as_json:
        print_json({"schema_version": SCHEMA_VERSION, "rooms": [shown(each) for each in landed]})
    elif landed:
        click.echo(f"announced in {plural(len(landed), 'room')}")
    if room and room not in readers:
        note(f"nobody is there: {room} has no readers; see `chatd rooms`")
    own_up(answers)
    if not landed:
        fail("expected a room that has readers, there is none; see `chatd rooms`", NOT_FOUND)


async def announced(settings: Settings, text: str, room: str) -> tuple[list[Landed], list[str], control.Answers]:
    """Where it was said, which rooms have readers, and the nodes' answers, by which that is known."""
    async with opened(settings) as store:
        here = office(store, settings)
        answers = await here.ask(Rooms())
        readers = [each["room"] for each in control.rooms(answers)["rooms"]]
        rooms = [room] if room else readers
        landed = [await said(store, settings, each, text) for each in rooms]
        await here.write_down("announce", rooms=len(rooms), room=room)
    return landed, readers, answers


# --- history ----------------------------------------------------------------------------------------------------------


@click.command(help="What was said in ROOM, and what was done to it, oldest first: the latest, unless told otherwise.")
@click.argument("room")
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True, help="At most so many.")
@click.option("--before", type=click.IntRange(1, 2**53), metavar="OFFSET", help="Only what is older.")
@click.option(
    "--after", type=click.IntRange(0, 2**53), metavar="OFFSET", help="Only what is newer, from the oldest on."
)
@json_option
@click.pass_context
def history(
    context: click.Context, room: str, limit: int, before: int | None, after: int | None, as_json: bool
) -> None:
    top, page = run(read(loaded(context), room, limit, before, after))
    if not top.offset:
        fail(f"expected a room in which something was said, got {room!r}; see `chatd rooms`", NOT_FOUND)
    rows = [row(each) for each in page if before is None or each.offset < before]
    if as_json:
        print_json({"schema_version": SCHEMA_VERSION, "epoch": top.epoch, "offset": top.offset, "messages": rows})
    else:
        print_rows(COLUMNS, [{**each, "text": words(each["data"])} for each in rows])


async def read(
    settings: Settings, room: str, limit: int, before: int | None, after: int | None
) -> tuple[Position, list[Publication]]:
    async with opened(settings) as store:
        kept = await store.messages.kept(room)  # only looks: asking for history would begin a room
        if kept is None:
            return Position("", 0), []
        start, backward = (before, True) if after is None else (after, False)
        keep_ms = keep(settings.room(room)).ms
        page = await store.messages.history(room, keep_ms, after=start, limit=limit, reverse=backward)
        found = [parse(body) for body in page.publications]
        return page.top, found[::-1] if backward else found


def row(publication: Publication) -> dict[str, Any]:
    """A publication as `--json` has it; `user` is null for the server's own."""
    return {
        "offset": publication.offset,
        "time": publication.time,
        "user": publication.user,
        "type": publication.type,
        "of": list(publication.of),
        "data": publication.data,
    }


def words(data: Any) -> str:
    """The text of a message, else all of its data."""
    text = data.get("text") if isinstance(data, dict) else None
    return text if isinstance(text, str) else rpc.encode(data).decode()
