"""Nobody hears what is not for them: each event type of the table, told in a private room on two nodes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack

import pytest

from chatd.events import EVENTS
from tests.conftest import Daemon
from tests.people import Person, cluster, person

CONFIG = '[rooms."den-*"]\npublic = false\ncreate = "anybody"\n'


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Daemon, ...]]:
    with cluster(tmp_path_factory.mktemp("audience"), CONFIG) as both:
        yield both


Happen = Callable[[Person, Person, str], Awaitable[object]]


async def _edited(ana: Person, ben: Person, room: str) -> None:
    await ana.call("message.edit", room=room, offset=await ana.says(room, "teh"), text="the")


async def _deleted(ana: Person, ben: Person, room: str) -> None:
    await ana.call("message.delete", room=room, offset=await ana.says(room, "oops"))


async def _reacted(ana: Person, ben: Person, room: str) -> None:
    await ana.call("message.react", room=room, offset=await ana.says(room, "hi"), kind="+1")


def _by_ana(method: str, **data: object) -> Happen:
    async def happen(ana: Person, ben: Person, room: str) -> None:
        await ana.call(method, room=room, **data)

    return happen


def _undone(method: str) -> Happen:
    async def happen(ana: Person, ben: Person, room: str) -> None:
        await ana.call(f"mod.{method}", room=room, user="ben")
        await ana.call(f"mod.un{method}", room=room, user="ben")

    return happen


async def _read(ana: Person, ben: Person, room: str) -> None:
    await ben.call("read", room=room, offset=await ana.says(room, "hi"))


# What makes it happen. `ana` owns the room, `ben` is the one concerned.
HAPPENINGS: dict[str, Happen] = {
    "message": _by_ana("message.send", text="hi"),
    "edit": _edited,
    "delete": _deleted,
    "react": _reacted,
    "room": _by_ana("room.set", topic="ours"),
    "typing": _by_ana("typing", on=True),
    "mention": _by_ana("message.send", text="hi ben", mentions=["ben"]),
    "invite": _by_ana("room.invite", user="ben"),
    "role": _by_ana("room.role", user="ben", role="moderator"),
    "read": _read,
    "kick": _by_ana("mod.kick", user="ben"),
    "mute": _by_ana("mod.mute", user="ben"),
    "ban": _by_ana("mod.ban", user="ben"),
    "unmute": _undone("mute"),
    "unban": _undone("ban"),
}
# Stands in history only, which is asked for and not pushed.
NOT_PUSHED = {"deleted"}


def channels(somebody: Person, kind: str) -> set[str]:
    """On which channels somebody heard of a type."""
    return {
        push["channel"]
        for push in somebody.pushes
        if push.get("pub") and push["pub"].get("tags", {}).get("type") == kind
    }


@pytest.mark.parametrize("kind", sorted(EVENTS.keys() - NOT_PUSHED))
async def test_an_event_is_heard_by_its_audience_and_by_nobody_else(nodes: tuple[Daemon, ...], kind: str) -> None:
    first, second = nodes
    room, fence = f"den-{kind}", f"fence-{kind}"
    async with AsyncExitStack() as stack:
        ana, ben, carl, eve = [
            await stack.enter_async_context(person(node, user))
            for node, user in ((first, "ana"), (second, "ben"), (second, "carl"), (second, "eve"))
        ]
        await ana.call(
            "room.create", room=room, public=False, members=["carl"] if kind == "invite" else ["ben", "carl"]
        )
        for reader in (ana, carl, *([ben] if kind != "invite" else [])):
            await reader.joins(room)
        await eve.joins(fence)
        await carl.joins(fence)
        await HAPPENINGS[kind](ana, ben, room)
        heard_by = carl if EVENTS[kind].audience == "room" else ben
        await heard_by.hears(kind)
        # Behind it in the feed of the same node: whoever hears this has heard all that came before.
        await ana.joins(fence)
        await ana.says(fence, "that was all")
        await eve.hears("message", fence)
        await carl.hears("message", fence)
        assert not channels(eve, kind)
        if EVENTS[kind].audience == "user":
            assert channels(carl, kind) <= {"#carl"}, "made a member when the room was, he was told so himself"
            assert channels(ana, kind) <= {"#ana"}
