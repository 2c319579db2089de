"""Emptying a node and taking it back: what operators see, and that nobody's message is lost over a rolling restart."""

from __future__ import annotations

import asyncio
import json
import random
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import closing
from functools import partial
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
from centrifuge import CentrifugeError, Client
from starlette.applications import Starlette
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from chatd import drain
from chatd.cli import drain as cli_drain
from chatd.cli.common import Failure
from chatd.cli.drain import chosen
from chatd.control import Answers, Drain
from chatd.hub import Hub
from chatd.node import Node
from chatd.settings import Settings
from chatd.web.server import Listener
from chatd.web.sockets import bind
from tests.conftest import Daemon, running
from tests.links import link_of
from tests.sdk import sdk_client, subscribed
from tests.servers import redis_server
from tests.test_cluster import FAST, until
from tests.test_doors import PATIENCE_S, Raw
from tests.test_hub import member

ALONE = {**FAST, "CHATD_SERVER__DRAIN": "0.3s"}


def test_goodbyes_are_spread_over_the_time_given() -> None:
    assert drain.batch(10_000, 10.0) == 100
    assert drain.batch(200, 10.0) == drain.AT_LEAST, "few need not wait long"
    assert drain.batch(10_000, 0.0) == 10_000


async def test_who_comes_in_at_the_last_moment_is_told_as_well() -> None:
    hub = Hub()
    members = [member(hub) for _ in range(30)]
    telling = asyncio.create_task(drain.say_goodbye(hub, 0.1))
    while link_of(members[0]).goodbye is None:
        await asyncio.sleep(0)
    late = member(hub)
    await telling
    assert {link_of(each).goodbye.code for each in (*members, late)} == {3001}  # type: ignore[union-attr]


@pytest.mark.parametrize("name", ["", "host", "10.0.0.1:8000", "8000"])
def test_a_name_that_is_not_one_nodes_is_refused_with_those_that_are(name: str) -> None:
    one, two = ({"id": id, "name": f"host/{n}", "address": "10.0.0.1:8000"} for n, id in enumerate(("aa", "bb"), 1))
    answers = Answers({"aa": {"node": one}, "bb": {"node": two}})
    with pytest.raises(Failure, match=r"; the nodes are aa or host/1, bb or host/2$"):
        chosen(answers, name)
    assert chosen(answers, "host/2") == two


class Desk:
    """Answers as it is told to, each time the next; the last for ever."""

    def __init__(self, *answers: Answers) -> None:
        self._answers = list(answers)

    async def ask(self, _: object) -> Answers:
        return self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]


def saying(state: str, connections: int) -> Answers:
    return Answers({"aa": {"node": {"id": "aa", "state": state, "connections": connections}}})


SILENT, NOBODY, DRAINING = Answers({}, ("aa",)), Answers({}), saying("draining", 2)


async def watching(*answers: Answers) -> tuple[str, int]:
    async with asyncio.timeout(PATIENCE_S):
        return await cli_drain.watched(Desk(*answers), "aa", cli_drain.Nothing())  # type: ignore[arg-type]


async def test_a_node_that_is_watched_is_followed_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli_drain, "LOOK_S", 0.0)
    assert await watching(DRAINING, DRAINING, saying("drained", 1)) == ("drained", 1)
    assert await watching(DRAINING, SILENT, SILENT, NOBODY) == ("stopped", 0)
    assert await watching(SILENT, SILENT, DRAINING, SILENT, SILENT, saying("drained", 0)) == ("drained", 0)
    with pytest.raises(Failure, match="undrained it meanwhile"):
        await watching(DRAINING, saying("ready", 2))
    with pytest.raises(Failure, match="aa did not answer"):
        await watching(DRAINING, SILENT, SILENT, SILENT)


async def test_a_drained_node_lives_lets_nobody_in_and_can_be_taken_back(tmp_path: Path) -> None:
    with running(tmp_path, "--port", "0", **ALONE) as chatd, closing(HTTPConnection(chatd.address)) as kept:
        kept.request("GET", "/livez")
        assert kept.getresponse().read() == b"ok\n"
        async with Raw(chatd) as ana:
            reply = await asyncio.to_thread(chatd.ask, "drain")
            assert await ana.goodbye() == (3001, "shutdown")
        assert kept.sock.recv(1) == b"", "nor does a proxy's idle connection lead in"
        [node] = chatd.ask("status")["nodes"]
        assert reply == {"schema_version": 1, "node": node["id"], "state": "drained", "left": 1, "connections": 0}
        assert (node["state"], node["connections"]) == ("drained", 0)
        with pytest.raises(ConnectionRefusedError):
            await connect(chatd.sdk)
        assert chatd.cli("drain", node["id"]) == f"drained {node['id']}: 0 connections left, 0 connections remain\n"
        assert chatd.ask("undrain", str(chatd.port)) == {"schema_version": 1, "node": node["id"], "state": "ready"}
        assert json.loads(chatd.get("/readyz")[1])["ready"] is True
        async with Raw(chatd) as ana:
            assert "presence" in await ana.ask({"presence": {"channel": "tea"}})
        chatd.cli("drain", "nobody", check=4)
        acts = [line for line in chatd.log if '"draining"' in line]
        assert len(acts) == 1
        await asyncio.to_thread(chatd.cli, "drain")
        assert chatd.stop() == 0, "SIGTERM ends a drained node"


async def test_a_signal_amid_a_drain_ends_the_node_in_its_own_time_and_not_at_once(tmp_path: Path) -> None:
    with running(tmp_path, "--port", "0", **ALONE, CHATD_ADMIN__LISTEN="127.0.0.1:0") as chatd:
        members = [Raw(chatd) for _ in range(41)]
        for each in members:
            await each.__aenter__()
        draining = asyncio.create_task(asyncio.to_thread(chatd.cli, "drain", "--over", "10m", "--json"))
        await asyncio.to_thread(chatd.until_log, '"draining"')
        chatd.signal(signal.SIGTERM)
        for each in members:
            assert await each.goodbye() == (3001, "shutdown")
        assert await asyncio.to_thread(chatd.process.wait, PATIENCE_S) == 0
        assert json.loads(await draining)["connections"] == 0


async def test_an_address_that_another_has_taken_keeps_the_node_drained(tmp_path: Path) -> None:
    with running(tmp_path, "--port", "0", **ALONE) as chatd:
        chatd.cli("drain")
        with socket.create_server(("127.0.0.1", chatd.port)):
            assert "Address already in use" not in chatd.cli("undrain", check=1)
            assert chatd.ask("status")["nodes"][0]["state"] == "drained"
        chatd.cli("undrain")
        assert chatd.get("/readyz")[0] == 200


@pytest.fixture
async def drained(node: Node) -> AsyncIterator[Node]:
    """It listens, and has just been emptied."""
    node.listener = listener = Listener(Starlette(), Settings(), bind("127.0.0.1", 0, 0))
    await listener.start()
    node.state = "ready"
    async with asyncio.TaskGroup() as node._tasks:
        await node.drain(0.0)
        while node.state != "drained":
            await asyncio.sleep(0)
        yield node
    await listener.stop()


async def test_a_node_that_two_take_back_at_once_is_taken_back_once(drained: Node) -> None:
    await asyncio.gather(drained.undrain(), drained.undrain())
    assert drained.state == "ready"
    socket.create_connection(("127.0.0.1", port_of(drained))).close()


async def test_a_node_is_draining_when_it_answers_that_it_is_and_can_be_taken_back_at_once(drained: Node) -> None:
    await drained.undrain()
    member(drained.hub)
    await drained.responder.respond(Drain(drained.id, 60.0))
    assert drained.state == "draining"
    await drained.undrain()
    emptying, taking_back = drained.drain(60.0), drained.undrain()
    await asyncio.gather(emptying, taking_back)
    assert drained.state == "ready"


async def test_a_node_that_two_empty_at_once_is_emptied_once_and_can_be_taken_back(drained: Node) -> None:
    await drained.undrain()
    member(drained.hub)
    await asyncio.gather(drained.drain(60.0), drained.drain(60.0))
    await drained.undrain()
    assert [task for task in asyncio.all_tasks() if task.get_name() == "drain"] == []
    assert drained.state == "ready"


async def test_a_node_whose_address_another_has_taken_goes_on_emptying_itself(drained: Node) -> None:
    await drained.undrain()
    ana = member(drained.hub)
    await drained.drain(60.0)
    with socket.create_server(("127.0.0.1", port_of(drained))), pytest.raises(OSError):
        await drained.undrain()
    drained.hub.remove(ana, "127.0.0.1")
    async with asyncio.timeout(PATIENCE_S):
        while drained.state != "drained":
            await asyncio.sleep(0)


async def test_a_node_that_is_told_to_stop_while_it_is_taken_back_listens_no_more(drained: Node) -> None:
    assert drained.listener is not None
    news = list[str]()
    drained.on_news = news.append
    lease = asyncio.create_task(drained.membership.keep())
    back = asyncio.create_task(drained.undrain())
    await asyncio.sleep(0)
    drained.stop()
    await drained._leave(drained.listener, lease)
    await back
    assert news == ["stopping", "draining", "drained"]
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port_of(drained)))


def port_of(node: Node) -> int:
    return int(node.address.rpartition(":")[2])


# --- a rolling restart ------------------------------------------------------------------------------------------------

CLIENTS = 200
ROOMS = 10
WORDS = 4


class Talker:
    """A client that speaks, comes back to whichever node takes it, and recovers; as an SDK does, but by hand."""

    def __init__(self, number: int, doors: list[str]) -> None:
        self.user = f"u{number}"
        self.room = f"room-{number % ROOMS}"
        self.doors = doors
        self.offsets: list[int] = []
        self.acknowledged: list[str] = []
        self.comings = 0
        self._epoch = ""
        self._id = 10
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._socket: ClientConnection | None = None
        self.inside = asyncio.Event()

    async def live(self) -> None:
        """Be connected, until cancelled."""
        while True:
            try:
                async with connect(random.choice(self.doors)) as self._socket:
                    await self._enter(self._socket)
                    async for message in self._socket:
                        self._hear(str(message))
            except (OSError, InvalidHandshake, ConnectionClosed, TimeoutError):
                pass
            finally:
                self.inside.clear()
                for answer in self._answers.values():
                    answer.cancel()
                self._answers.clear()
            await asyncio.sleep(random.uniform(0.02, 0.2))

    async def _enter(self, socket: ClientConnection) -> None:
        last = self.offsets[-1] if self.offsets else 0
        wish = {"channel": self.room, "recover": True, "offset": last, "epoch": self._epoch}
        connecting = {"id": 1, "connect": {"data": {"user": self.user}}}
        await socket.send(json.dumps(connecting) + "\n" + json.dumps({"id": 2, "subscribe": wish}))

    def _hear(self, message: str) -> None:
        for line in message.split("\n"):
            reply = json.loads(line)
            if "subscribe" in reply:
                result = reply["subscribe"]
                assert result["recovered"] is True
                self._epoch = result["epoch"]
                self.offsets += [publication["offset"] for publication in result.get("publications", ())]
                self.comings += 1
                self.inside.set()
            elif "pub" in reply.get("push", {}):
                self.offsets.append(reply["push"]["pub"]["offset"])
            elif (answer := self._answers.pop(reply.get("id", 0), None)) is not None:
                answer.set_result(reply)

    async def speak(self, text: str) -> None:
        """Say it until it is acknowledged."""
        while True:
            await self.inside.wait()
            assert self._socket is not None
            self._id += 1
            answer = self._answers[self._id] = asyncio.get_running_loop().create_future()
            said = {"channel": self.room, "data": {"text": text, "cid": text}}
            try:
                await self._socket.send(json.dumps({"id": self._id, "publish": said}))
                if "publish" in await answer:
                    self.acknowledged.append(text)
                    return
            except ConnectionClosed:
                self._answers.pop(self._id, None)
            except asyncio.CancelledError:
                if not answer.cancelled():
                    raise
            await asyncio.sleep(0.01)  # also lets `live` notice that the connection has gone


async def talk(speak: Callable[[str], Awaitable[None]], user: str, phases: list[asyncio.Event]) -> None:
    """One word in each phase of the restarts, whenever in it."""
    for word, phase in enumerate(phases):
        await phase.wait()
        await asyncio.sleep(random.uniform(0.0, 1.5))
        await speak(f"{user}-{word}")


async def by_sdk(client: Client, acknowledged: list[str], text: str) -> None:
    """Say it in room 0 until it is acknowledged, as an application on the SDK would."""
    while True:
        try:
            await client.publish("room-0", {"text": text, "cid": text}, timeout=1.0)
        except CentrifugeError:
            await asyncio.sleep(0.05)
        else:
            acknowledged.append(text)
            return


async def restarted_in_turn(nodes: list[Daemon], phases: list[asyncio.Event]) -> None:
    """Drain, stop and start each node on its port, and let people talk before and after each has gone."""
    for index, node in enumerate(nodes):
        phases[2 * index].set()
        reply = await asyncio.to_thread(node.ask, "drain", str(node.port), "--over", "1s")
        assert (reply["state"], reply["connections"]) == ("drained", 0)
        phases[2 * index + 1].set()
        assert await asyncio.to_thread(node.stop) == 0
        node.close()
        nodes[index] = Daemon(
            node.directory, "--port", str(node.port), **FAST, CHATD_REDIS__URL=node.environ["CHATD_REDIS__URL"]
        )
        await asyncio.to_thread(nodes[index].until_ready)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_over_a_rolling_restart_no_acknowledged_message_is_missing_or_doubled(tmp_path: Path) -> None:
    async with redis_server(tmp_path) as store:
        nodes = [Daemon(tmp_path, "--port", "0", **FAST, CHATD_REDIS__URL=store.url).until_ready() for _ in range(2)]
        talkers = [Talker(number, [node.sdk for node in nodes]) for number in range(CLIENTS)]
        phases = [asyncio.Event() for _ in range(WORDS)]
        said: list[str] = []
        try:
            async with sdk_client(nodes[0].sdk) as (client, _), asyncio.TaskGroup() as tasks:
                _, heard = await subscribed(client, "room-0", recoverable=True)
                living = [tasks.create_task(talker.live()) for talker in talkers]
                await asyncio.gather(*(talker.inside.wait() for talker in talkers))
                talking = [tasks.create_task(talk(talker.speak, talker.user, phases)) for talker in talkers]
                talking.append(tasks.create_task(talk(partial(by_sdk, client, said), "sdk", phases)))
                await restarted_in_turn(nodes, phases)
                async with asyncio.timeout(3 * PATIENCE_S):
                    await asyncio.gather(*talking)
                await until(lambda: all(len(talker.offsets) >= len(everything(talker.room)) for talker in talkers))
                offsets = [(await heard.next("publication")).pub.offset for _ in everything("room-0")]
                for task in living:
                    task.cancel()
            for talker in talkers:
                assert talker.offsets == everything(talker.room), "every message once, in order, without a gap"
            assert offsets == everything("room-0")
            assert sum(talker.comings - 1 for talker in talkers) >= CLIENTS, "each was moved at least once"
            said += [text for talker in talkers for text in talker.acknowledged]
            assert sorted(await all_that_is_kept(nodes[0])) == sorted(said)
            assert len(set(said)) == (CLIENTS + 1) * WORDS
        finally:
            for node in nodes:
                node.close()


def everything(room: str) -> list[int]:
    """The offsets of all that is said in `room`; the SDK's client talks in the first."""
    return list(range(1, CLIENTS * WORDS // ROOMS + WORDS * (room == "room-0") + 1))


async def all_that_is_kept(node: Daemon) -> list[str]:
    texts: list[str] = []
    async with Raw(node) as reader:
        for number in range(ROOMS):
            reply = await reader.ask({"history": {"channel": f"room-{number}", "limit": 300}})
            texts += [publication["data"]["text"] for publication in reply["history"]["publications"]]
    return texts
