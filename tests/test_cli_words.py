"""`chatd send`, `announce`, `history` and `tail`, on a cluster of two real nodes."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

import pytest
from click.testing import CliRunner

from chatd.cli import main
from chatd.cli.output import table
from chatd.cli.words import COLUMNS
from tests.conftest import Daemon
from tests.people import cluster, person


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Daemon, ...]]:
    with cluster(tmp_path_factory.mktemp("words")) as both:
        yield both


async def test_what_an_operator_says_is_heard_as_the_servers_or_as_a_users(nodes: tuple[Daemon, ...]) -> None:
    async with person(nodes[1], "ana") as ana:
        await ana.joins("hall")
        landed = nodes[0].ask("send", "hall", "tea is ready")
        heard = await ana.hears("message")
        assert (heard["data"], heard["offset"], heard["time"]) == (
            {"text": "tea is ready"},
            landed["offset"],
            landed["time"],
        )
        assert "info" not in heard
        assert "said in hall, offset 2" in nodes[0].cli("send", "hall", "hi", "--as", "ben")
        assert (await ana.hears("message"))["info"]["user"] == "ben"
    assert nodes[0].cli("send", "ha\u202ell", "x", check=1) == ""


async def test_an_announcement_reaches_every_room_that_has_readers(nodes: tuple[Daemon, ...]) -> None:
    async with person(nodes[0], "ana") as ana, person(nodes[1], "ben") as ben:
        await ana.joins("left")
        await ben.joins("right")
        rooms = {each["room"] for each in nodes[1].ask("announce", "down at noon")["rooms"]}
        assert rooms >= {"left", "right"}
        assert (await ana.hears("message"))["data"] == (await ben.hears("message"))["data"] == {"text": "down at noon"}
        assert [each["room"] for each in nodes[0].ask("announce", "only here", "--room", "left")["rooms"]] == ["left"]


async def test_nobody_is_spoken_for_by_an_empty_name_nor_told_nothing(nodes: tuple[Daemon, ...]) -> None:
    nodes[0].cli("send", "hushed", "hi", "--as", "", check=2)
    nodes[0].cli("history", "hushed", check=4)
    assert nodes[0].cli("announce", "", check=2) == ""


async def test_an_announcement_in_a_room_without_readers_says_that_nobody_is_there(nodes: tuple[Daemon, ...]) -> None:
    command = ["--config", nodes[0].arguments[1], "announce", "hi", "--room", "no-readers"]
    done = await asyncio.to_thread(CliRunner(env=nodes[0].environ).invoke, main, command)
    assert (done.exit_code, done.stdout) == (0, "announced in 1 room\n")
    assert "nobody is there: no-readers has no readers" in done.stderr


async def test_history_has_pages_and_shows_what_was_done_to_it(nodes: tuple[Daemon, ...]) -> None:
    async with person(nodes[0], "ana") as ana:
        for n in range(1, 6):
            await ana.says("past", f"m{n}")
        await ana.call("message.edit", room="past", offset=5, text="m\x1b[2J5")
    reply = nodes[1].ask("history", "past", "--limit", "2")
    assert [(each["offset"], each["type"], each["of"]) for each in reply["messages"]] == [
        (5, "message", []),
        (6, "edit", [5]),
    ]
    texts = [each["data"]["text"] for each in nodes[1].ask("history", "past", "--before", "3")["messages"]]
    assert texts == ["m1", "m2"]
    texts = [
        each["data"]["text"] for each in nodes[1].ask("history", "past", "--after", "1", "--limit", "2")["messages"]
    ]
    assert texts == ["m2", "m3"]
    lines = nodes[1].cli("history", "past")
    assert "\x1b" not in lines
    assert "m\\x1b[2J5" in lines
    nodes[1].cli("history", "nowhere", check=4)


def test_on_a_terminal_what_an_event_is_of_is_its_offset_or_nothing() -> None:
    rows = [{"type": "edit", "of": [7]}, {"type": "message", "of": []}]
    _, edit, message = table(COLUMNS, rows, 80).splitlines()
    assert (edit.split(), message.split()) == (["edit", "7"], ["message"])


def ignore_interrupts() -> None:
    """As a shell has it for what it runs in the background."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextmanager
def tailing(node: Daemon, *arguments: str) -> Iterator[IO[str]]:
    """The lines of a `chatd tail` that follows; at the end it is interrupted, and goes quietly."""
    command = [sys.executable, "-m", "chatd", *node.arguments[:2], "tail", *arguments]
    process = subprocess.Popen(
        command,
        env=node.environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        bufsize=1,
        preexec_fn=ignore_interrupts,
    )
    assert process.stdout is not None and process.stderr is not None
    try:
        assert "following" in process.stderr.readline()
        yield process.stdout
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
        process.stdout.close()
        process.stderr.close()


async def test_tail_shows_what_happens_in_a_room_and_what_is_said_only_when_asked(nodes: tuple[Daemon, ...]) -> None:
    with tailing(nodes[0], "watched", "--json") as quiet, tailing(nodes[1], "watched", "--bodies") as loud:
        async with person(nodes[1], "a\x1bna") as ana:
            await ana.joins("watched")
            await ana.says("watched", "se\x1bcret")
        joined, said = json.loads(quiet.readline()), json.loads(quiet.readline())
        assert {joined["event"], said["event"]} == {"join", "message"}
        message = said if said["event"] == "message" else joined
        assert (message["user"], message["offset"], "data" in message) == ("a\x1bna", 1, False)
        both = loud.readline() + loud.readline()
        assert "\x1b" not in both
        assert "se\\x1bcret" in both
        assert "watched" in both


async def test_tail_follows_every_room_that_has_readers(nodes: tuple[Daemon, ...]) -> None:
    async with person(nodes[0], "ana") as ana:
        await ana.joins("busy")
        with tailing(nodes[1], "--json") as lines:
            await ana.says("busy", "hi")
            while json.loads(lines.readline())["room"] != "busy":
                pass
