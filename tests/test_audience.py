"""Who hears what: one table of events and their audiences, held to every kind of event that there is.

Everybody who might overhear is there: somebody from outside, a member who was removed and one who was banned, both
while they were reading, and a plain client in another room; on the other node than where things happen.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
from websockets.asyncio.client import connect

from chatd.events import EVENTS
from tests.conftest import Daemon
from tests.people import Person, cluster, person, token

CONFIG = """
[rooms."*"]
create = "anybody"
[limits]
leave_delay = "0s"
"""
ROOM = "den"
READERS = {"root", "ana", "ana's phone", "mute", "guest"}
# People beside the readers, none of whom is to hear of what happens in the room.
OTHERS = {"outsider", "removed", "banned", "newcomer"}
USERS = {name: name.partition("'")[0] for name in READERS | OTHERS}

Cause = Callable[["Den"], Awaitable[Any]]


class Den:
    """A private room, its people, and the offset of the last message in it."""

    def __init__(self, people: dict[str, Person], second: Daemon) -> None:
        self.people = people
        self.root = people["root"]
        self.second = second
        self.offset = 0

    async def says(self, **more: Any) -> None:
        self.offset = await self.root.says(ROOM, "psst", **more)

    async def about_it(self, method: str, **data: Any) -> None:
        await self.root.call(method, room=ROOM, offset=self.offset, **data)

    async def to(self, user: str, method: str, **data: Any) -> None:
        await self.root.call(method, room=ROOM, user=user, **data)

    async def visit(self) -> None:
        async with person(self.second, "visitor") as visitor:
            await visitor.joins(ROOM)


# What makes each event happen, and to whom it is told where that is one user.
CAUSES: dict[str, tuple[Cause, str]] = {
    "message": (lambda den: den.says(), ""),
    "edit": (lambda den: den.about_it("message.edit", text="pst"), ""),
    "react": (lambda den: den.about_it("message.react", kind="x", on=True), ""),
    "mention": (lambda den: den.says(mentions=["ana", "outsider", "removed", "banned"]), "ana"),
    "delete": (lambda den: den.about_it("message.delete"), ""),
    "room": (lambda den: den.root.call("room.set", room=ROOM, topic="secret"), ""),
    "typing": (lambda den: den.root.call("typing", room=ROOM, on=True), ""),
    "invite": (lambda den: den.to("newcomer", "room.invite"), "newcomer"),
    "role": (lambda den: den.to("newcomer", "room.role", role="guest"), "newcomer"),
    "kick": (lambda den: den.to("newcomer", "mod.kick"), "newcomer"),
    "mute": (lambda den: den.to("newcomer", "mod.mute"), "newcomer"),
    "unmute": (lambda den: den.to("newcomer", "mod.unmute"), "newcomer"),
    "ban": (lambda den: den.to("newcomer", "mod.ban"), "newcomer"),
    "unban": (lambda den: den.to("newcomer", "mod.unban"), "newcomer"),
    "read": (lambda den: den.people["ana"].call("read", room=ROOM, offset=1), "ana"),
    "join": (lambda den: den.visit(), ""),
    "leave": (lambda den: den.visit(), ""),
}


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Daemon, ...]]:
    with cluster(tmp_path_factory.mktemp("audience"), CONFIG) as both:
        yield both


def test_every_event_has_its_audience_and_its_cause() -> None:
    # A tombstone is read in history and told to nobody; joins and leaves are the protocol's own.
    assert CAUSES.keys() == (EVENTS.keys() - {"deleted"}) | {"join", "leave"}
    for name, (_, user) in CAUSES.items():
        assert name not in EVENTS or (EVENTS[name].audience == "user") is bool(user), name


async def test_no_event_reaches_anybody_outside_its_audience(nodes: tuple[Daemon, ...]) -> None:
    async with AsyncExitStack() as stack:
        entered = {
            name: await stack.enter_async_context(person(nodes[name != "root"], user)) for name, user in USERS.items()
        }
        headers = {"Authorization": f"Bearer {token('plain')}"}
        plain = await stack.enter_async_context(
            connect(f"{nodes[1].ws}/chat/plain?room=lobby", additional_headers=headers)
        )
        den = Den(entered, nodes[1])
        await furnish(den)
        for kind, (cause, user) in CAUSES.items():
            for somebody in den.people.values():
                somebody.pushes.clear()
            await cause(den)
            expected = {name for name in den.people if USERS[name] == user} if user else READERS
            for name in expected:
                await has_heard(den.people[name], kind, f"#{user}" if user else ROOM)
            await den.root.says("lobby", f"after {kind}")
            for name, somebody in den.people.items():
                await somebody.hears("message", "lobby")
                assert (kind in heard(somebody)) is (name in expected), (kind, name)
                if name in OTHERS:
                    assert all(push["channel"] in ("lobby", f"#{USERS[name]}") for push in somebody.pushes), (
                        kind,
                        name,
                    )
            assert await plain.recv() == f"root: after {kind}"


async def furnish(den: Den) -> None:
    """Everybody takes his place; those who may not stay were reading, and are put out."""
    await den.root.call("room.create", room=ROOM, public=False, members=["visitor"])
    for name, somebody in den.people.items():
        await somebody.joins("lobby")
        if name not in ("root", "outsider", "newcomer"):
            await den.root.call("room.role", room=ROOM, user=USERS[name], role="guest" if name == "guest" else "member")
        if name not in ("outsider", "newcomer"):
            await somebody.joins(ROOM, join_leave=True)
    await den.root.call("room.role", room=ROOM, user="removed", role="nobody")
    await den.root.call("mod.ban", room=ROOM, user="banned")
    await den.root.call("mod.mute", room=ROOM, user="mute")
    for name in ("removed", "banned"):
        await den.people[name].sees("unsubscribe", ROOM)
    await den.says()


def heard(somebody: Person) -> set[str]:
    """The kinds of what was told to somebody of the room, or on his own channel."""
    kinds: set[str] = set()
    for push in somebody.pushes:
        if push["channel"] != "lobby":
            kinds |= push.keys() & {"join", "leave"}
            kinds.add(push.get("pub", {}).get("tags", {}).get("type", ""))
    return kinds


async def has_heard(somebody: Person, kind: str, channel: str) -> None:
    """Wait for it, and leave it where it is."""
    told = await (somebody.hears(kind, channel) if kind in EVENTS else somebody.sees(kind, channel))
    somebody.pushes.append({"channel": channel, "pub" if kind in EVENTS else kind: told})
