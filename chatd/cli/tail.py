"""`chatd tail`: events as they happen, in one room or in all that have readers.

It reads the feed as a node does, and is none: nobody sees it in a room. What people say stays hidden unless it is asked
for; that somebody looks is written into the audit stream.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from time import time
from typing import Any

import click
import orjson

from chatd import control
from chatd.control import Rooms
from chatd.model import Delivery, Event, Kind
from chatd.names import printable, room_name
from chatd.office import Office
from chatd.settings import Settings
from chatd.store.redis import Store
from chatd.wire.publication import parse

from .cluster import office, opened, until_interrupted
from .common import loaded, note
from .output import moment
from .words import words

# How often it is looked which rooms have readers now.
LOOK_S = 1.0
# Rooms followed at once; who has more names one.
MOST = 1000

Line = dict[str, Any]


@click.command(help="Events as they happen, in ROOM or in every room that has readers, until interrupted.")
@click.argument("room", required=False, default="")
@click.option("--bodies", is_flag=True, help="Also what is said.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object a line, whose keys are stable.")
@click.pass_context
def tail(context: click.Context, room: str, bodies: bool, as_json: bool) -> None:
    settings = loaded(context)
    if room:
        room_name(room, settings.limits.room_name)
    until_interrupted(followed(settings, room, bodies=bodies, as_json=as_json))


async def followed(settings: Settings, room: str, *, bodies: bool, as_json: bool) -> None:
    async with opened(settings) as store, asyncio.TaskGroup() as tasks:
        here = office(store, settings)
        await here.write_down("tail", room=room, bodies=bodies)
        heard: asyncio.Queue[Sequence[Delivery]] = asyncio.Queue()
        store.feed.on_deliveries = heard.put_nowait
        tasks.create_task(store.feed.run(), name="feed")
        if room:
            await store.feed.watch(room, history=settings.room(room).history > 0)
        else:
            watched = await look(store, here, settings, set())
            tasks.create_task(follow_all(store, here, settings, watched), name="rooms")
        note(f"following {room or 'every room that has readers'}; interrupt to end")
        while True:
            for delivery in await heard.get():
                for line in lines(delivery, bodies=bodies):
                    click.echo(orjson.dumps(line) if as_json else in_person(line))


async def follow_all(store: Store, here: Office, settings: Settings, watched: set[str]) -> None:
    """Watch the rooms that have readers, and no other."""
    while True:
        await asyncio.sleep(LOOK_S)
        watched = await look(store, here, settings, watched)


async def look(store: Store, here: Office, settings: Settings, watched: set[str]) -> set[str]:
    """Which rooms are watched, once it was looked where readers are."""
    found = control.rooms(await here.ask(Rooms()))["rooms"]
    now = {each["room"] for each in found[:MOST]}
    if len(found) > MOST and not watched:
        note(f"{len(found)} rooms have readers, the {MOST} fullest are followed; name a room to see it")
    for room in watched - now:
        store.feed.unwatch(room)
    for room in now - watched:
        await store.feed.watch(room, history=settings.room(room).history > 0)
    return now


def lines(delivery: Delivery, *, bodies: bool) -> list[Line]:
    """What one delivery brought; a gap that could not be filled is told too."""
    told = [described(delivery.room, event, bodies=bodies) for event in delivery.events]
    if delivery.lost is not None:
        told.insert(0, {"room": delivery.room, "event": "lost", "user": None, "offset": delivery.lost.top.offset})
    return told


def described(room: str, event: Event, *, bodies: bool) -> Line:
    """One event; `user` is null for the server, `offset` 0 for what is not kept, `time` Unix ms."""
    if event.kind in (Kind.JOIN, Kind.LEAVE):
        user, kind = orjson.loads(event.body)["user"], "join" if event.kind is Kind.JOIN else "leave"
        return {"room": room, "event": kind, "user": user, "offset": 0, "time": int(time() * 1000)}
    said = parse(event.body)
    line: Line = {"room": room, "event": said.type, "user": said.user, "offset": said.offset, "time": said.time}
    return {**line, "data": said.data} if bodies else line


def in_person(line: Line) -> str:
    """One line for a person, on which nothing that users chose can steer the terminal."""
    at = moment(line["time"] / 1000) if "time" in line else ""
    user = "*" if line["user"] is None else line["user"]
    parts = [at, line["room"], line["event"], user, str(line["offset"] or "")]
    if "data" in line:
        parts.append(words(line["data"]))
    return "  ".join(printable(part) for part in parts).rstrip()
