"""`chatd export`: all that is kept of a room, or of a user, a JSON object a line (NDJSON).

Publications are as they are stored and sent, byte for byte. What was deleted is there as its tombstone. It is printed
as it is read, so a room is not the state of one moment: what was said meanwhile may be there or not.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import asdict

import click
import orjson

from chatd.control import SCHEMA_VERSION
from chatd.model import Json
from chatd.settings import Settings
from chatd.store.redis import Store
from chatd.wire.publication import parse

from .cluster import opened, run
from .common import NOT_FOUND, fail, loaded
from .progress import Advance, bar

NEWLINE = orjson.OPT_APPEND_NEWLINE


@click.command(
    help="Print all that is kept of a room, or all that a user wrote and belongs to, as one JSON object a line: "
    '"record" is publication, member, cursor or room.'
)
@click.option("--room", default="", help="Of this room: its record, its members, all that was said.")
@click.option("--user", default="", help="Of this user, in all rooms.")
@click.pass_context
def export(context: click.Context, room: str, user: str) -> None:
    if bool(room) == bool(user):
        raise click.UsageError(f"expected --room ROOM or --user USER, got {'both' if room else 'none'}")
    if run(printed(loaded(context), room, user)):
        return
    if room:
        fail(f"expected a room of which something is kept, got {room!r}", NOT_FOUND)
    fail(f"expected a user who wrote something or belongs to a room, got {user!r}", NOT_FOUND)


async def printed(settings: Settings, room: str, user: str) -> int:
    """Print the lines; how many there were."""
    count = 0
    async with opened(settings) as store:
        with bar(f"exporting {room or user}") as advance:
            lines = of_room(store, room, advance) if room else of_user(store, user, advance)
            async for each in lines:
                click.echo(each, nl=False)
                count += 1
    return count


async def of_room(store: Store, room: str, advance: Advance) -> AsyncIterator[Json]:
    record = await store.rooms.record(room)
    if record.created:
        yield line("room", room, **asdict(record))
    for member in await store.rooms.members(room):
        yield belonging(room, member.user, member.role.word, member.joined)
    kept, done = await store.messages.kept(room), 0
    async for page in store.traces.history(room):
        for _, body in page.publications:
            yield publication(room, page.epoch, body)
        done += len(page.publications)
        advance(done, done if kept is None else max(done, kept.messages))


async def of_user(store: Store, user: str, advance: Advance) -> AsyncIterator[Json]:
    for room, position in sorted((await store.cursors.all(user)).items()):
        yield line("cursor", room, user=user, **position._asdict())
    rooms = await store.traces.rooms()
    for number, room in enumerate(rooms, 1):
        for member in await store.rooms.members(room):
            if member.user == user:
                yield belonging(room, user, member.role.word, member.joined)
        async for page in store.traces.history(room):
            for _, body in page.publications:
                if parse(body).user == user:
                    yield publication(room, page.epoch, body)
        advance(number, len(rooms))


def belonging(room: str, user: str, role: str, joined_ms: int) -> Json:
    return line("member", room, user=user, role=role, joined=joined_ms)


def publication(room: str, epoch: str, body: Json) -> Json:
    return line("publication", room, epoch=epoch, publication=orjson.Fragment(body))


def line(record: str, room: str, **members: object) -> Json:
    return orjson.dumps({"schema_version": SCHEMA_VERSION, "record": record, "room": room, **members}, option=NEWLINE)
