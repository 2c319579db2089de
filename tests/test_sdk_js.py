"""The official JavaScript SDK under Node, in JSON and in Protobuf, by WebSocket and by HTTP, against two real chatd."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import connect

from tests.conftest import Daemon, StartDaemon
from tests.people import cluster, token
from tests.sdk import PATIENCE_S
from tests.test_cluster import FAST, pair, running

__all__ = ["pair"]

README = Path(__file__).parents[1] / "README.md"
PACKAGE = Path(__file__).with_name("sdk_js")
in_both_languages = pytest.mark.parametrize("language", ["json", "protobuf"])


@pytest.fixture(scope="session")
def sdk_js(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The client's folder with the SDK installed beside it."""
    if shutil.which("npm") is None:
        assert not os.environ.get("CI"), "npm is missing, and in CI nothing may skip"
        pytest.skip("npm is missing; it brings the official JavaScript SDK")
    folder = tmp_path_factory.mktemp("sdk_js")
    shutil.copy(PACKAGE / "package.json", folder)
    shutil.copy(PACKAGE / "client.mjs", folder)
    subprocess.run(
        ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts"], cwd=folder, check=True, capture_output=True
    )
    return folder


class Script:
    """The client's process: what it was told to do, and what it told."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._told: list[dict[str, Any]] = []

    async def do(self, name: str, **parameters: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": name, **parameters}).encode() + b"\n")
        return await self.next("done", "refused")

    async def next(self, *events: str) -> dict[str, Any]:
        """The next of `events`, now or later."""
        assert self._process.stdout is not None
        async with asyncio.timeout(PATIENCE_S):
            while True:
                for told in self._told:
                    if told["event"] in events:
                        self._told.remove(told)
                        return told
                line = await self._process.stdout.readline()
                assert line, "the client ended"
                self._told.append(json.loads(line))


@asynccontextmanager
async def script(folder: Path, url: str, token: str, language: str = "json", *more: str) -> AsyncIterator[Script]:
    process = await asyncio.create_subprocess_exec(
        "node", "client.mjs", url, token, language, *more, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        yield Script(process)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        async with asyncio.timeout(PATIENCE_S):
            await process.wait()


@in_both_languages
@pytest.mark.parametrize("way", ["by WebSocket", "by HTTP"])
async def test_it_connects_talks_and_recovers_after_its_node_was_killed(
    pair: tuple[Daemon, Daemon], sdk_js: Path, language: str, way: str
) -> None:
    first, second = pair
    port = first.port
    # By HTTP she hears from one node, and what she says comes to the other.
    by_http = (f"{first.url}/connection/http_stream", token("ana"), language, f"{second.url}/emulation")
    async with (
        script(sdk_js, *(by_http if way == "by HTTP" else (first.sdk, token("ana"), language))) as ana,
        script(sdk_js, second.sdk, token("bob")) as bob,
    ):
        await ana.next("connected")
        await bob.next("connected")
        assert (await ana.do("subscribe", room="private-1", token=token("ana", channel="private-1")))["event"] == "done"
        await ana.do("subscribe", room="lobby")
        assert (await ana.do("publish", room="lobby", data={"text": "hi"}))["event"] == "done"
        heard = await ana.next("publication")
        assert (heard["data"], heard["offset"], heard["user"]) == ({"text": "hi"}, 1, "ana")
        assert (await ana.do("history", room="lobby", limit=5))["result"]["offset"] == 1
        assert (await ana.do("presenceStats", room="lobby"))["result"] == {"numClients": 1, "numUsers": 1}
        assert (await ana.do("rpc", method="method", data={}))["code"] == 108

        first.kill()
        for n in range(10):
            await said(bob, n)
        with running(first.directory, *first.arguments[:2], "--port", str(port), **FAST):
            for n in range(10):
                assert (await ana.next("publication"))["data"]["text"] == f"meanwhile {n}"


async def said(client: Script, n: int) -> None:
    """Publish until it is acknowledged; the killed node took the store with it for a moment."""
    while True:
        done = await client.do("publish", room="lobby", data={"text": f"meanwhile {n}", "cid": f"c-{n}"})
        if done["event"] == "done":
            return
        assert done["code"] == 400, done


@in_both_languages
async def test_it_creates_a_room_talks_changes_its_mind_and_is_moderated(
    tmp_path: Path, sdk_js: Path, language: str
) -> None:
    with cluster(tmp_path, '[rooms."*"]\ncreate = "anybody"\n') as (first, second):
        async with (
            script(sdk_js, first.sdk, token("ana"), language) as ana,
            script(sdk_js, second.sdk, token("bob"), language) as bob,
        ):
            await asked(ana, "room.create", room="tea", public=False, members=["bob"])
            await bob.do("subscribe", room="tea")
            sent = await asked(ana, "message.send", room="tea", text="helo", cid="c-1", mentions=["bob"])
            assert await asked(ana, "message.send", room="tea", text="helo", cid="c-1") == sent
            await asked(ana, "message.edit", room="tea", offset=sent["offset"], text="hello")
            await asked(bob, "message.react", room="tea", offset=sent["offset"], kind="+1", on=True)
            gone = await asked(ana, "message.send", room="tea", text="no", reply_to=sent["offset"])
            await asked(ana, "message.delete", room="tea", offset=gone["offset"])
            await asked(ana, "typing", room="tea", on=True)
            heard = [(await bob.next("publication"))["tags"]["type"] for _ in range(6)]
            assert heard == ["message", "edit", "react", "message", "delete", "typing"]
            [kept, deleted] = (await asked(bob, "message.history", room="tea"))["messages"]
            assert (kept["text"], kept["edited"], kept["reactions"]) == ("hello", True, {"+1": 1})
            assert (deleted["text"], deleted["deleted"]) == (None, True)
            await asked(ana, "mod.mute", room="tea", user="bob", for_="10m", reason="caps")
            refused = await bob.do("rpc", method="message.send", data={"room": "tea", "text": "HEY"})
            assert (refused["code"], refused["message"]) == (401, "muted: caps")


async def asked(client: Script, method: str, **data: Any) -> dict[str, Any]:
    """The answer of an rpc; a trailing underscore of a name is left off."""
    members = {name.removesuffix("_"): value for name, value in data.items()}
    done = await client.do("rpc", method=method, data=members)
    assert done["event"] == "done", done
    answer: dict[str, Any] = done["result"]["data"]
    return answer


# --- the README's few lines of client ---------------------------------------------------------------------------------


def lines_of_client(language: str) -> str:
    blocks: list[str] = re.findall(rf"```{language}\n(.*?)```", README.read_text(), re.DOTALL)
    [lines] = [block for block in blocks if "/connection/websocket" in block]
    return lines


def as_javascript(lines: str, folder: Path) -> list[str]:
    # Browsers have a WebSocket, and so has Node from 22 on.
    (folder / "readme.mjs").write_text(f'import {{ WebSocket }} from "ws";\nglobalThis.WebSocket = WebSocket;\n{lines}')
    return ["node", str(folder / "readme.mjs")]


@pytest.mark.parametrize("language", ["js", "python"])
def test_the_lines_in_the_readme_talk_and_bear_what_the_server_says_too(
    daemon: StartDaemon, tmp_path: Path, sdk_js: Path, language: str
) -> None:
    with daemon(tmp_path, "--port", "0") as chatd:
        lines = lines_of_client(language).replace("127.0.0.1:8000", chatd.address)
        command = as_javascript(lines, sdk_js) if language == "js" else [sys.executable, "-u", "-c", lines]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as client:
            assert client.stdout is not None
            try:
                assert client.stdout.readline() == "ana hi all\n"
                chatd.cli("send", "lobby", "tea is ready")
                chatd.cli("send", "lobby", "thanks", "--as", "bob")
                assert [client.stdout.readline() for _ in range(2)] == ["the server tea is ready\n", "bob thanks\n"]
                say_as_eve(chatd, "null", '"no object"', '{"text":"good night"}')
                said = [client.stdout.readline() for _ in range(3)]
                assert said[1:] == ["eve no object\n", "eve good night\n"], "nobody can end it by what they say"
            finally:
                client.kill()


def say_as_eve(chatd: Daemon, *data: str) -> None:
    """Say any JSON in the lobby, as rooms take it that are not told otherwise."""
    asked = ['{"id":1,"connect":{"data":{"user":"eve"}}}']
    asked += [f'{{"id":{n},"publish":{{"channel":"lobby","data":{each}}}}}' for n, each in enumerate(data, 2)]
    with connect(chatd.sdk) as eve:
        eve.send("\n".join(asked))
        while f'"id":{len(asked)}' not in eve.recv(timeout=PATIENCE_S, decode=True):
            pass
