"""What people may ask of whoever keeps their words: to be given them, and to be forgotten. On every kind of store, by
the commands, and before readers who are there and who come back."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from chatd.model import Position, Role, Speaker
from chatd.office import Office
from chatd.settings import Hooks
from chatd.store.changes import Change, What
from chatd.store.messages import Keep
from chatd.store.redis import Store
from chatd.store.reports import Report
from chatd.store.traces import PAGE, Forgotten
from chatd.wire import publication
from chatd.wire.publication import parse
from tests.conftest import Daemon
from tests.people import cluster, person
from tests.stores import FOR_EVER
from tests.test_messages import state


def head(user: str, text: str, **tags: str) -> bytes:
    parts = {"data": {"text": text}, "info": {"user": user, "client": "c1"}, "tags": {"type": "message", **tags}}
    return json.dumps(parts).removesuffix("}").encode()


async def say(store: Store, room: str, user: str, text: str) -> int:
    published, _ = await store.messages.publish(room, head(user, text), FOR_EVER)
    assert published.position is not None
    return published.position.offset


async def change(store: Store, room: str, user: str, wanted: Change) -> None:
    event = head(user, "secret", type=wanted.what, of=str(wanted.of))
    await store.changes.make(room, wanted, event, FOR_EVER)


async def read(store: Store, room: str) -> list[dict[str, Any]]:
    return [json.loads(body) async for page in store.traces.history(room) for _, body in page.publications]


async def everything(store: Store) -> str:
    """All that the store holds of rooms, byte for byte."""
    dumps = []
    for kind in ("meta", "log", "gone", "notes", "room", "members"):
        async for rooms in store.retention.rooms(kind):
            for room in rooms:
                key = f"{store.keys.prefix}:{{{room}}}:{kind}"
                dumps.append(await store.batch.command("DUMP", key) or b"")
    return b"".join(dumps).decode(errors="replace")


async def forget(store: Store, user: str) -> tuple[Forgotten, int]:
    return await Office(store, patience=0.1, by="root").forget(user, lambda room: FOR_EVER)


class TestForgetting:
    async def test_nothing_of_a_user_is_left_anywhere(self, store: Store) -> None:
        for room in ("lobby", "dm#ana,ben", "kitchen"):
            await say(store, room, "ana", "a secret")
            await say(store, room, "ben", "hello")
        await change(store, "lobby", "ana", Change(What.EDIT, 1))
        await store.rooms.create("team", by="zoe", owner="zoe", public=True, topic="", keys={}, unused=True)
        await store.rooms.belong("ana", "team", 0)
        await store.rooms.place("team", "ana", Role.MEMBER, by=None, least=Role.NOBODY)
        await say(store, "#ana", "ben", "for ana alone")
        await store.cursors.move("ana", "lobby", Position((await store.messages.history("lobby", 0)).top.epoch, 2))
        assert "secret" in await everything(store)
        done, rooms = await forget(store, "ana")
        assert (done, rooms) == (Forgotten(messages=4, memberships=1, cursors=1), 4)
        left = await everything(store)
        assert not [word for word in ("secret", '"ana"', "for ana alone") if word in left]
        assert await store.rooms.rooms_of("ana") == []
        assert await store.cursors.all("ana") == {}
        assert [member.user for member in await store.rooms.members("team")] == ["zoe"]
        assert await forget(store, "ana") == (Forgotten(), 0)

    async def test_who_has_read_where_nothing_was_said_leaves_no_trace(self, store: Store) -> None:
        assert await store.cursors.move("ana", "nowhere", Position("e", 0)) == (0, False)
        assert await store.cursors.all("ana") == {}
        assert await store.cursors.move("ana", "lobby", Position("e", 2)) == (2, True)
        assert await store.cursors.move("ana", "lobby", Position("f", 0)) == (0, True)  # its count has begun anew

    async def test_other_peoples_words_stay_and_every_offset_has_its_place(self, store: Store) -> None:
        for n in range(10):
            await say(store, "lobby", "ana" if n % 2 else "ben", str(n))
        await forget(store, "ana")
        assert [each["offset"] for each in await read(store, "lobby")] == list(range(1, 12))
        assert [each["data"].get("text") for each in await read(store, "lobby")] == [
            "0", None, "2", None, "4", None, "6", None, "8", None, None
        ]  # fmt: skip
        event = (await read(store, "lobby"))[-1]
        assert (event["data"], event["tags"], "info" in event) == ({}, {"type": "delete", "of": "2,4,6,8,10"}, False)

    async def test_reactions_are_taken_back_and_deletions_stay_done(self, store: Store) -> None:
        await say(store, "lobby", "ben", "hello")
        await say(store, "lobby", "ben", "spam")
        for user in ("ana", "cem"):
            await store.changes.make(
                "lobby",
                Change(What.REACT, 1, kind="👍"),
                head(user, "", type="react", of="1"),
                FOR_EVER,
                by=Speaker(user),
            )
        await change(store, "lobby", "ana", Change(What.DELETE, 2))
        done, _ = await forget(store, "ana")
        assert done == Forgotten(reactions=1)
        assert (await store.changes.notes("lobby", [1]))[0].reactions == {"👍": 1}
        kinds = [(each["tags"]["type"], each["tags"].get("of")) for each in await read(store, "lobby")]
        assert kinds == [
            ("message", None), ("deleted", None), ("deleted", "1"), ("react", "1"), ("delete", "2"), ("delete", "3,5")
        ]  # fmt: skip

    async def test_tombstones_lose_the_name_of_who_was_forgotten(self, store: Store) -> None:
        for user in ("ana", "ben"):
            await store.changes.make(
                "lobby",
                Change(What.DELETE, await say(store, "lobby", user, "gone")),
                head(user, "", type="delete", of="1"),
                FOR_EVER,
            )
        await forget(store, "ana")
        assert [each.get("info", {}).get("user") for each in await read(store, "lobby")] == [None, None, "ben", "ben"]

    async def test_what_they_did_stays_and_is_nobodys(self, store: Store) -> None:
        news = [
            ("lobby", "room", b'{"topic":"a,\\"by\\":\\"ana\\"}","keys":{"by":"ana"},"by":"ana"}'),
            ("lobby", "room", b'{"slow":0.125,"by":"anabel"}'),
            ("#ben", "mute", b'{"room":"lobby","until":null,"by":"ana"}'),
            ("#ben", "message", b'{"text":"hi","by":"ana"}'),
        ]
        for room, kind, data in news:
            await store.messages.publish(room, publication.head(data, None, {"type": kind}), FOR_EVER)
        done, rooms = await forget(store, "ana")
        assert (done, rooms) == (Forgotten(notices=2), 2)
        assert [(each["tags"]["type"], each["data"]) for each in await read(store, "lobby")] == [
            ("room", {"topic": 'a,"by":"ana"}', "keys": {"by": "ana"}, "by": ""}),
            ("room", {"slow": 0.125, "by": "anabel"}),
        ]
        assert [(each["offset"], each["tags"]["type"], each["data"]) for each in await read(store, "#ben")] == [
            (1, "mute", {"room": "lobby", "until": None, "by": ""}),
            (2, "message", {"text": "hi", "by": "ana"}),
        ]
        assert '"lobby","until":null,"by":"ana"' not in await everything(store)
        assert await forget(store, "ana") == (Forgotten(), 0)

    async def test_the_last_owner_is_forgotten_too_and_the_room_is_counted(self, store: Store) -> None:
        await store.rooms.create("team", by="ana", owner="ana", public=True, topic="", keys={}, unused=True)
        done, rooms = await forget(store, "ana")
        assert (done, rooms) == (Forgotten(memberships=1, ownerless=1), 1)
        assert (await store.rooms.record("team")).by == ""

    async def test_reports_by_them_and_about_them_are_closed(self, store: Store) -> None:
        for user, by in (("ana", "ben"), ("ben", "ana"), ("ben", "cem")):
            await store.reports.file(Report("lobby", 1, user, "spam", by, 0.0), "e")
        done, _ = await forget(store, "ana")
        assert done == Forgotten(reports=2)
        assert [report.by for report in (await store.reports.open()).values()] == ["cem"]

    async def test_the_application_is_not_told_any_more_what_they_said(self, store: Store) -> None:
        store.outbox.hooks = Hooks(url="https://app.example/hook")
        for user in ("ana", "ben", "ana"):
            await store.messages.publish("lobby", head(user, "hi"), FOR_EVER, by=Speaker(user), told=True)
        assert len(await store.outbox.waiting("lobby", 10)) == 3
        await forget(store, "ana")
        assert [parse(entry.body).user for entry in await store.outbox.waiting("lobby", 10)] == ["ben"]

    async def test_more_than_a_page_of_messages_is_forgotten(self, store: Store) -> None:
        many = 2 * PAGE + 100
        await asyncio.gather(*(store.messages.publish("lobby", head("ana", "x"), Keep(10_000, 0)) for _ in range(many)))
        done, _ = await Office(store, patience=0.1, by="root").forget("ana", lambda room: Keep(10_000, 0))
        assert done == Forgotten(messages=many)
        assert [each["tags"]["type"] for each in await read(store, "lobby")] == ["deleted"] * many + ["delete"] * 3

    async def test_it_is_written_down_who_was_forgotten_by_whom_and_how_much(self, store: Store) -> None:
        await say(store, "lobby", "ana", "hi")
        await forget(store, "ana")
        entries = await store.batch.command("XRANGE", store.keys.audit, "-", "+")
        written = [json.loads(fields[b"entry"] if isinstance(fields, dict) else fields[1]) for _, fields in entries]
        assert [(each["by"], each["ask"], each["target"]) for each in written] == [
            ("root", "forget", "ana"), ("root", "forgotten", "ana")
        ]  # fmt: skip
        assert (written[1]["rooms"], written[1]["messages"]) == (1, 1)


async def test_nodes_on_any_kind_of_store_tell_those_who_were_away_what_the_others_heard(
    url: str, prefix: str, tmp_path: Path
) -> None:
    with cluster(tmp_path, CHATD_REDIS__URL=url, CHATD_REDIS__PREFIX=prefix) as nodes:
        async with person(nodes[0], "ana") as ana, person(nodes[1], "ben") as ben:
            there = await ben.joins("{lobby}", recover=True)
            for text in ("the oldest", "helo"):
                await ana.says("{lobby}", text)
            await ben.says("{lobby}", "hi", mentions=["ana"])
            await ana.call("message.delete", room="{lobby}", offset=1)
            await ana.call("message.edit", room="{lobby}", offset=2, text="hello")
            assert nodes[0].ask("forget", "ben", "--yes")["messages"] == 1
            last = await ana.says("{lobby}", "bye")
            heard = [await ben.publication("{lobby}") for _ in range(last)]
            for since in range(last):
                async with person(nodes[1], f"cem {since}") as late:
                    joined = await late.joins("{lobby}", recover=True, offset=since, epoch=there["epoch"])
                    assert shown(heard[:since] + joined["publications"]) == shown(heard)
            assert {of: text for of, (text, _) in shown(heard).items()} == {1: None, 2: "hello", 3: None, last: "bye"}


# --- by the commands --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Daemon, ...]]:
    with cluster(tmp_path_factory.mktemp("duties")) as both:
        yield both


def exported(node: Daemon, *which: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in node.cli("export", *which).splitlines()]


async def test_a_room_is_exported_line_by_line_as_it_is_stored(nodes: tuple[Daemon, ...]) -> None:
    async with person(nodes[0], "ana") as ana, person(nodes[1], "ben") as ben:
        await ana.ask(publish={"channel": "told", "data": {"text": "hi", "n": 1.50, "emoji": "🦊"}})
        await ben.says("told", "gone")
        await ben.call("message.delete", room="told", offset=2)
        history = await ana.ask(history={"channel": "told", "limit": 100})
        lines = exported(nodes[1], "--room", "told")
        assert [line["publication"] for line in lines] == history["publications"]
        assert {(line["schema_version"], line["record"], line["room"], line["epoch"]) for line in lines} == {
            (1, "publication", "told", history["epoch"])
        }


async def test_a_users_words_are_exported_from_all_rooms_and_nobody_elses(nodes: tuple[Daemon, ...]) -> None:
    async with person(nodes[0], "eve") as eve, person(nodes[1], "ben") as ben:
        for room in ("exported-1", "exported-2", "dm#ben,eve"):
            await eve.says(room, "mine")
            await ben.says(room, "his")
        await eve.call("message.react", room="exported-1", offset=2, kind="👍")
        await eve.call("read", room="exported-1", offset=2)
        cursor, *lines = exported(nodes[0], "--user", "eve")
        assert (cursor["record"], cursor["room"], cursor["offset"]) == ("cursor", "exported-1", 2)
        said = [(line["room"], line["publication"]["tags"]["type"]) for line in lines]
        assert said == [
            ("dm#ben,eve", "message"), ("exported-1", "message"), ("exported-1", "react"), ("exported-2", "message")
        ]  # fmt: skip
        assert "his" not in json.dumps(lines)


async def test_who_is_there_and_who_comes_back_see_the_same_after_somebody_was_forgotten(
    nodes: tuple[Daemon, ...],
) -> None:
    room = "forgetful"
    async with person(nodes[0], "ben") as ben, person(nodes[1], "dora") as dora:
        there = await ben.joins(room, recover=True)
        for n in range(3):
            await dora.says(room, f"dora {n}")
            await ben.says(room, f"ben {n}")
        await dora.call("message.edit", room=room, offset=1, text="dora again")
        await dora.call("message.react", room=room, offset=2, kind="👍")
        reply = nodes[1].ask("forget", "dora", "--yes")
        assert {key: reply[key] for key in ("user", "messages", "reactions", "memberships")} == {
            "user": "dora", "messages": 4, "reactions": 1, "memberships": 0
        }  # fmt: skip
        last = await ben.says(room, "who was that?")
        heard = [await ben.publication(room) for _ in range(last)]
        for since in (0, 3, 7, 8):
            async with person(nodes[1], "cem") as late:
                joined = await late.joins(room, recover=True, offset=since, epoch=there["epoch"])
                missed = joined["publications"]
                assert len(missed) == last - since
                assert shown(heard[:since] + missed) == shown(heard)
                assert "dora" not in json.dumps(missed)


async def test_what_a_forgotten_owner_did_is_told_without_the_name(nodes: tuple[Daemon, ...]) -> None:
    owner = 'größe "🦊"'
    async with person(nodes[0], owner, rooms=["*"]) as ana, person(nodes[1], "ben") as ben:
        nodes[0].cli("room", "create", "left-behind", "--owner", owner)
        await ana.call("room.set", room="left-behind", topic="t", slow=0.5, keys={"by": "x"}, public=True)
        await ana.call("room.invite", room="left-behind", user="ben")
        await ana.call("mod.mute", room="left-behind", user="ben", for_="1h", reason="caps")
        assert nodes[1].ask("forget", owner, "--yes")["notices"] == 3
        news = await ben.ask(history={"channel": "left-behind", "limit": 10})
        assert [pub["data"] for pub in news["publications"]] == [
            {"topic": "t", "slow": 0.5, "keys": {"by": "x"}, "public": True, "by": ""}
        ]
        told = [line["publication"] for line in exported(nodes[0], "--room", "#ben")]
        kinds = [
            (each["tags"]["type"], each["data"]["by"]) for each in told if each["data"].get("room") == "left-behind"
        ]
        assert kinds == [("invite", ""), ("mute", "")]


def shown(publications: list[dict[str, Any]]) -> dict[int, tuple[str | None, object]]:
    """What a client shows after these: the texts of messages, and reactions; no names of who is gone."""
    return {of: (text, reactions) for of, (_, text, reactions) in state(publications).items()}


async def test_a_person_who_waits_sees_how_far_it_is_and_a_program_reads_only_the_answer(
    nodes: tuple[Daemon, ...],
) -> None:
    node = nodes[0]
    async with person(node, "ana") as ana:
        await ana.says("watched", "hi")
    command = (sys.executable, "-m", "chatd", *node.arguments[:2], "export", "--room", "watched")
    terminal, end = pty.openpty()
    with os.fdopen(terminal, "rb", buffering=0) as screen:
        environ = {**node.environ, "TERM": "xterm", "COLUMNS": "80"}
        answer = subprocess.run(command, env=environ, stdout=subprocess.PIPE, stderr=end, timeout=30, check=True)
        assert b"exporting watched" in screen.read(4096)
        os.close(end)
    assert [json.loads(line)["publication"]["offset"] for line in answer.stdout.splitlines()] == [1]


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (("export",), 2),
        (("export", "--room", "a", "--user", "b"), 2),
        (("export", "--room", "nowhere"), 4),
        (("export", "--user", "nobody"), 4),
        (("forget", "nobody", "--yes"), 4),
        (("forget",), 2),
    ],
)
def test_what_is_not_there_is_said(nodes: tuple[Daemon, ...], command: tuple[str, ...], code: int) -> None:
    assert nodes[0].cli(*command, check=code) == ""


async def test_nobody_is_forgotten_by_a_slip_of_the_hand(nodes: tuple[Daemon, ...]) -> None:
    async with person(nodes[0], "fay") as fay:
        await fay.says("kept", "hi")
        nodes[0].cli("forget", "fay", stdin="n\n", check=1)
        assert len(exported(nodes[0], "--user", "fay")) == 1
