"""What the application is told, and is asked, by HTTP: from real nodes to a real receiver."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import signal
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed

from chatd.hooks.addresses import is_public
from chatd.hooks.client import ANSWER_BYTES, Client
from chatd.hooks.courier import RETRY_S, pause
from chatd.node import Node
from chatd.settings import Hooks
from chatd.settings.kinds import Url
from chatd.store.keys import hook_shard
from tests.conftest import Daemon
from tests.people import KEYS, PATIENCE_S, Refused, cluster, may, person
from tests.servers import redis_server
from tests.stores import opened

SECRET = "a secret between chatd and the shop"


class Receiver:
    """The application's end. `answer` says with which status and body a request is answered.

    Attributes:
        taken: events answered with 2xx, in order; `asked`: all of them; `bodies`: as they came, with their headers.
    """

    def __init__(self) -> None:
        self.taken: list[dict[str, Any]] = []
        self.asked: list[dict[str, Any]] = []
        self.bodies: list[tuple[dict[str, str], bytes]] = []
        self.answer: Callable[[dict[str, Any]], tuple[int, Any]] = lambda event: (200, {"allow": True})
        self._news = threading.Condition()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                status, answer = receiver.take(dict(self.headers), body)
                content = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                if status == 302:
                    self.send_header("Location", "/elsewhere")
                with contextlib.suppress(ConnectionError):  # it was killed, or had no patience
                    self.end_headers()
                    self.wfile.write(content)

            def log_message(self, *_: Any) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/hook"

    def take(self, headers: dict[str, str], body: bytes) -> tuple[int, Any]:
        event = json.loads(body)
        with self._news:
            self.asked.append(event)
            self.bodies.append((headers, body))
            self._news.notify_all()
        status, answer = self.answer(event)
        with self._news:
            if 200 <= status < 300:
                self.taken.append(event)
            self._news.notify_all()
        return status, answer

    async def until(self, found: Callable[[], Any]) -> Any:
        """What `found` gives as soon as it gives something."""

        def wait() -> Any:
            deadline = time.monotonic() + PATIENCE_S
            with self._news:
                while not (value := found()):
                    assert self._news.wait(deadline - time.monotonic()), (found, self.asked)
                return value

        return await asyncio.to_thread(wait)

    async def told(self, kind: str, room: str | None = None, count: int = 1) -> list[dict[str, Any]]:
        """The first `count` events of a kind that were taken, each once."""

        def found() -> list[dict[str, Any]]:
            events = {e["id"]: e for e in self.taken if e["event"] == kind and room in (None, e["room"])}
            return list(events.values())[:count] if len(events) >= count else []

        events: list[dict[str, Any]] = await self.until(found)
        return events


@contextmanager
def receiving() -> Iterator[Receiver]:
    receiver = Receiver()
    thread = threading.Thread(target=receiver.server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield receiver
    finally:
        receiver.server.shutdown()
        receiver.server.server_close()
        thread.join()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as one:
        yield one


def config(receiver: Receiver, **more: Any) -> str:
    settings = {"url": receiver.url, "secret": SECRET, "allow_private": True, "rooms": ["told-*", "dm#*", ""], **more}
    return "[hooks]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in settings.items())


PROMPT = '[limits]\nleave_delay = "1s"\n'
CREATE = '[rooms."*"]\ncreate = "anybody"\n'


# --- delivery ---------------------------------------------------------------------------------------------------------


async def test_what_is_said_is_told_signed_and_in_the_rooms_order(tmp_path: Path, receiver: Receiver) -> None:
    failures = iter([503, 302, 404])
    receiver.answer = lambda event: (next(failures, 204), {})
    with cluster(tmp_path, config(receiver)) as (first, second):
        async with person(first, "ana") as ana, person(second, "ben") as ben:
            for n in range(10):
                await (ana, ben)[n % 2].says("told-1", f"m{n}", cid=f"c{n}")
            await ana.says("untold", "psst")
            await ana.says("told-1", "m9", cid="c8")
            events = await receiver.told("message", count=10)
    assert [event["data"]["data"]["text"] for event in events] == [f"m{n}" for n in range(10)]
    assert [event["data"]["offset"] for event in events] == list(range(1, 11))
    assert {(event["room"], event["data"]["info"]["user"]) for event in events} == {
        ("told-1", "ana"),
        ("told-1", "ben"),
    }
    assert [event["data"]["offset"] for event in receiver.asked][:4] == [1] * 4, "the first is tried until it is taken"
    headers, body = receiver.bodies[-1]
    assert is_signed(headers, body, SECRET)
    assert headers["X-Chatd-Id"] == receiver.asked[-1]["id"]


async def test_edits_and_deletions_are_told_to_who_asks_for_them_among_the_messages(
    tmp_path: Path, receiver: Receiver
) -> None:
    kinds = ["message", "edit", "delete"]
    with cluster(tmp_path, config(receiver, events=kinds)) as (first, second):
        async with person(first, "ana") as ana, person(second, "mod", rooms=may("moderator", "told-1")) as mod:
            for text in ("helo", "spam"):
                await ana.says("told-1", text)
            await receiver.told("message", count=2)
            await ana.call("message.edit", room="told-1", offset=1, text="hello")
            await mod.call("message.react", room="told-1", offset=1, kind="x")
            await mod.call("message.delete", room="told-1", offset=2, reason="spam")
            await ana.says("told-1", "bye")
            await receiver.told("message", count=3)
    told = [(each["event"], each["data"]["data"], each["data"]["tags"].get("of")) for each in receiver.taken]
    assert told == [
        ("message", {"text": "helo"}, None),
        ("message", {"text": "spam"}, None),
        ("edit", {"text": "hello"}, "1"),
        ("delete", {"reason": "spam"}, "2"),
        ("message", {"text": "bye"}, None),
    ]


def is_signed(headers: dict[str, str], body: bytes, secret: str) -> bool:
    """As README.md has it."""
    stamp, mac = (part.partition("=")[2] for part in headers["X-Chatd-Signature"].split(","))
    good = hmac.compare_digest(mac, hmac.new(secret.encode(), stamp.encode() + b"." + body, "sha256").hexdigest())
    return good and abs(int(stamp) - time.time()) < 60


async def test_hooks_that_come_with_a_reload_are_told_what_is_said_from_then_on(
    tmp_path: Path, receiver: Receiver
) -> None:
    with cluster(tmp_path, "[hooks]\nallow_private = true\n", nodes=1) as (node,):
        async with person(node, "ana") as ana:
            await ana.says("told-1", "before")
            (tmp_path / "hooks-secret").write_text("from a file, " + SECRET)
            (tmp_path / "chatd.toml").write_text(KEYS + config(receiver, secret="", secret_file="hooks-secret"))
            node.signal(signal.SIGHUP)
            await asyncio.to_thread(node.until_log, "settings reloaded")
            await ana.says("told-1", "after")
            (event,) = await receiver.told("message")
    headers, body = receiver.bodies[-1]
    assert is_signed(headers, body, "from a file, " + SECRET)
    assert event["data"]["data"]["text"] == "after"


async def test_what_a_killed_node_was_delivering_is_delivered_by_another(tmp_path: Path, receiver: Receiver) -> None:
    held = threading.Event()
    receiver.answer = lambda event: (200 if held.wait(PATIENCE_S) else 500, {})
    with cluster(tmp_path, config(receiver, timeout="20s")) as nodes:
        async with person(nodes[0], "ana") as ana:
            rooms = [f"told-{n}" for n in range(8)]
            for room in rooms:
                await ana.says(room, "hi")
            # Each room is being delivered now, by whichever node holds its shard; nothing was taken yet.
            await receiver.until(lambda: {event["room"] for event in receiver.asked} >= set(rooms))
            busy = next(node for node in nodes if node_id(node) in receiver.bodies[0][0]["User-Agent"])
            busy.kill()
            receiver.asked.clear()
            held.set()
            await receiver.until(lambda: receiver.asked)
            survivor = nodes[1 - nodes.index(busy)]
            async with person(survivor, "ben") as ben:
                await ben.says("told-0", "again")
            events = await receiver.told("message", "told-0", count=2)
            assert [event["data"]["offset"] for event in events] == [1, 2]
            for room in rooms[1:]:
                await receiver.told("message", room)
            assert any(node_id(survivor) in headers["User-Agent"] for headers, _ in receiver.bodies)


def node_id(node: Daemon) -> str:
    return node.until_log(r'"node": ?"(\w+)"')[1]


async def test_what_is_never_taken_holds_up_its_own_room_only_and_is_dropped_in_the_end(
    tmp_path: Path, receiver: Receiver
) -> None:
    receiver.answer = lambda event: (500 if event["data"]["data"]["text"] == "bad" else 200, {})
    with cluster(tmp_path, config(receiver, keep="2s"), nodes=1) as (node,):
        async with person(node, "ana") as ana:
            await ana.says("told-1", "bad")
            await ana.says("told-2", "good")
            await receiver.told("message", "told-2")
            await asyncio.to_thread(node.until_log, "hook dropped")
            await ana.says("told-1", "good")
            [event] = await receiver.told("message", "told-1")
            assert event["data"]["offset"] == 2
            assert 'chatd_hooks_total{result="dropped"} 1.0' in node.get("/metrics")[1]


async def test_a_room_that_another_node_delivers_by_now_is_not_kept_in_mind(node: Node) -> None:
    courier, outbox = node.hooks.courier, node.store.outbox
    ours, theirs = "told-1", "told-2"
    assert hook_shard(ours) != hook_shard(theirs)
    for room in (ours, theirs):
        courier._not_taken(room)
    await outbox.hold(hook_shard(theirs), "another.1", 60_000)
    await courier._take_shards()
    assert list(courier._retries) == [ours]
    await courier._empty(hook_shard(ours), ours, b"1")  # what it was about has been withdrawn
    assert not courier._retries


async def test_what_is_in_a_shard_that_is_held_no_longer_is_left_to_whoever_holds_it(node: Node) -> None:
    courier, outbox, room = node.hooks.courier, node.store.outbox, "told-1"
    outbox.hooks = Hooks(url=Url("http://shop.example"))
    await outbox.add("report", room, {})
    await courier._empty(hook_shard(room), room, b"1")
    assert len(await outbox.waiting(room, 10)) == 1
    assert not courier._retries, "it was not tried"


async def test_a_room_whose_hook_was_not_taken_waits_for_its_time_however_often_it_is_looked_at(node: Node) -> None:
    courier, outbox, room = node.hooks.courier, node.store.outbox, "told-1"
    outbox.hooks = Hooks(url=Url("http://shop.example"))
    await outbox.add("report", room, {})
    courier._not_taken(room)
    async with asyncio.TaskGroup() as tasks:
        await courier._look_at(hook_shard(room), tasks)
        assert room not in courier._busy
        courier._retries[room].due = node.clock()
        await courier._look_at(hook_shard(room), tasks)
        assert room in courier._busy


async def test_joins_and_leaves_are_told_as_they_are_announced(tmp_path: Path, receiver: Receiver) -> None:
    with cluster(tmp_path, config(receiver, events=["join", "leave"]) + PROMPT) as (first, second):
        async with person(first, "ana") as ana, person(second, "ana") as tablet:
            await ana.joins("told-1")
            await receiver.told("join", "told-1")
            await tablet.joins("told-1")
            async with person(second, "ben") as ben:
                await ben.joins("told-1")
                joined = await receiver.told("join", "told-1", count=2)
            [left] = await receiver.told("leave", "told-1")
        assert [event["data"]["user"] for event in joined] == ["ana", "ben"], "ana joined once, with two devices"
        assert left["data"]["user"] == "ben"


async def test_who_was_offline_and_has_not_read_is_told_of_and_nobody_else(tmp_path: Path, receiver: Receiver) -> None:
    with cluster(tmp_path, config(receiver, undelivered_after="1s", events=["undelivered"]) + CREATE) as (
        first,
        second,
    ):
        async with person(first, "ana") as ana, person(second, "dan") as dan:
            await ana.call("room.create", room="told-1", public=False, members=["ben", "carl", "dan"])
            async with person(second, "carl") as carl:
                await carl.joins("told-1")
                offset = await ana.says("told-1", "hi")
                await carl.call("read", room="told-1", offset=offset)
            await ana.says("dm#ana,eve", "psst")
            [event] = await receiver.told("undelivered", "told-1")
            assert (event["data"]["offset"], event["data"]["user"], event["data"]["users"]) == (offset, "ana", ["ben"])
            [event] = await receiver.told("undelivered", "dm#ana,eve")
            assert event["data"]["users"] == ["eve"]
            await dan.joins("told-1")


async def test_of_what_somebody_may_not_read_or_nobody_can_any_more_it_is_not_told_who_has_not_read_it(
    tmp_path: Path, receiver: Receiver
) -> None:
    with cluster(tmp_path, config(receiver, undelivered_after="1s", events=["undelivered"]) + CREATE) as (first, _):
        async with person(first, "ana") as ana:
            await ana.call("room.create", room="told-1", public=False, members=["ben", "eve"])
            await ana.call("mod.ban", room="told-1", user="eve")
            gone = await ana.says("told-1", "oops")
            await ana.call("message.delete", room="told-1", offset=gone)
            said = await ana.says("told-1", "hi")
            await ana.call("room.invite", room="told-1", user="late")
            after = await ana.says("told-1", "welcome")
            told = [event["data"] for event in await receiver.told("undelivered", count=2)]
            assert [(each["offset"], each["users"]) for each in told] == [(said, ["ben"]), (after, ["ben", "late"])]


async def test_what_cannot_be_found_out_of_one_message_holds_up_neither_the_others_nor_the_node(
    tmp_path: Path, receiver: Receiver
) -> None:
    told = config(receiver, undelivered_after="1s", events=["undelivered"])
    users = [user for n in range(100) if hook_shard(f"dm#ana,{(user := f'user-{n}')}") == 0]
    async with redis_server(tmp_path) as server, opened(server.url, "chatd") as store:
        no_hash, no_position = map(store.keys.cursors, users[:2])
        await store.batch.command("SET", no_hash, "")
        await store.batch.command("HSET", no_position, f"dm#ana,{users[1]}", "no position")
        with cluster(tmp_path, told, nodes=1, CHATD_REDIS__URL=server.url) as (node,):
            async with person(node, "ana") as ana:
                for user in users[:3]:
                    await ana.says(f"dm#ana,{user}", "hi")
                [event] = await receiver.told("undelivered")
                assert event["data"]["users"] == [users[2]]
                assert node.get("/readyz")[0] == 200


async def test_a_ban_and_a_report_are_told(tmp_path: Path, receiver: Receiver) -> None:
    with cluster(tmp_path, config(receiver), nodes=1) as (node,):
        node.cli("ban", "add", "eve", "--reason", "spam")
        [event] = await receiver.told("ban")
        assert (event["room"], event["data"]["target"], event["data"]["reason"]) == ("", "eve", "spam")
        async with person(node, "ana") as ana, person(node, "ben") as ben:
            offset = await ben.says("told-1", "rude")
            await ana.call("report", room="told-1", offset=offset, reason="rude")
            [event] = await receiver.told("report")
            assert (event["room"], event["data"]["offset"], event["data"]["user"]) == ("told-1", offset, "ben")


# --- before a message is said -----------------------------------------------------------------------------------------


async def test_the_application_may_refuse_a_message_and_change_nothing_else(tmp_path: Path, receiver: Receiver) -> None:
    def answer(event: dict[str, Any]) -> tuple[int, Any]:
        allow = "buy" not in event["data"].get("text", "")
        return 200, {"allow": allow, "reason": "no adverts", "data": {"text": "changed"}}

    receiver.answer = answer
    asking = config(receiver, url="", before_publish=receiver.url, within="5s")
    with cluster(tmp_path, asking, nodes=1) as (node,):
        async with person(node, "ana") as ana:
            await ana.joins("told-1")
            with pytest.raises(Refused, match="no adverts") as refused:
                await ana.says("told-1", "buy now")
            assert refused.value.code == 417
            offset = await ana.says("told-1", "hello")
            assert (await ana.hears("message"))["data"] == {"text": "hello"}
            with pytest.raises(Refused, match="no adverts"):
                await ana.call("message.edit", room="told-1", offset=offset, text="buy now")
            asked = receiver.asked[0]
            assert (asked["event"], asked["room"], asked["user"]) == ("before_publish", "told-1", "ana")
            assert await ana.says("untold", "buy now") == 1, "the application does not want to know of this room"


async def test_what_is_asked_about_keeps_its_order_and_meets_what_was_done_meanwhile(
    tmp_path: Path, receiver: Receiver
) -> None:
    second_asked, muted = threading.Event(), threading.Event()
    too_early: list[bool] = []

    def answer(event: dict[str, Any]) -> tuple[int, Any]:
        match event["data"]["text"]:
            case "first":
                too_early.append(second_asked.wait(0.3))
            case "second":
                second_asked.set()
            case "slow":
                muted.wait(PATIENCE_S)
        return 200, {"allow": True}

    receiver.answer = answer
    asking = config(receiver, url="", before_publish=receiver.url, within="20s")
    with cluster(tmp_path, asking, nodes=1) as (node,):
        async with person(node, "ana") as ana:
            first, second = await asyncio.gather(ana.says("told-1", "first"), ana.says("told-1", "second"))
            assert (second, too_early) == (first + 1, [False])
            saying = asyncio.create_task(ana.says("told-1", "slow"))
            await receiver.until(lambda: [event for event in receiver.asked if event["data"]["text"] == "slow"])
            await asyncio.to_thread(node.cli, "mute", "add", "ana")
            muted.set()
            with pytest.raises(Refused, match="muted"):
                await saying


@pytest.mark.parametrize("act", [("kick", "ana"), ("token", "revoke", "--user", "ana")])
async def test_who_is_thrown_out_while_the_application_is_asked_says_and_changes_nothing(
    tmp_path: Path, receiver: Receiver, act: tuple[str, ...]
) -> None:
    thrown_out = threading.Event()
    receiver.answer = lambda event: (200, {"allow": "slow" not in event["data"]["text"] or thrown_out.wait(PATIENCE_S)})
    asking = config(receiver, url="", before_publish=receiver.url, within="20s")
    with cluster(tmp_path, asking, nodes=1) as (node,):
        async with person(node, "ana") as ana, person(node, "ana") as phone, person(node, "ben") as ben:
            offset = await ana.says("told-1", "hello")
            saying = asyncio.create_task(ana.says("told-1", "slow"))
            changing = asyncio.create_task(phone.call("message.edit", room="told-1", offset=offset, text="slow too"))
            await receiver.until(lambda: len([each for each in receiver.asked if "slow" in each["data"]["text"]]) == 2)
            await asyncio.to_thread(node.cli, *act)
            thrown_out.set()
            for each in (saying, changing):
                with pytest.raises(ConnectionClosed):
                    await each
            await ben.says("told-1", "still here")
            messages = (await ben.call("message.history", room="told-1"))["messages"]
            assert [each["text"] for each in messages] == ["hello", "still here"]


@pytest.mark.parametrize("failing", ["open", "closed"])
async def test_an_application_that_does_not_answer_in_time_decides_nothing(
    tmp_path: Path, receiver: Receiver, failing: str
) -> None:
    over = threading.Event()
    receiver.answer = lambda event: (200, {"allow": over.wait(PATIENCE_S)})
    asking = config(receiver, url="", before_publish=receiver.url, failing=failing)
    try:
        with cluster(tmp_path, asking, nodes=1) as (node,):
            async with person(node, "ana") as ana:
                if failing == "open":
                    assert await ana.says("told-1", "hello") == 1
                else:
                    with pytest.raises(Refused, match="did not answer") as refused:
                        await ana.says("told-1", "hello")
                    assert (refused.value.code, refused.value.temporary) == (417, True)
            node.until_log("no answer within 0.2 s")
    finally:
        over.set()


async def test_the_application_is_called_as_its_address_says_and_its_answer_read_to_a_bound(receiver: Receiver) -> None:
    receiver.answer = lambda event: (200, "x" * ANSWER_BYTES)
    client = Client(allow_private=True, node="n-1")
    try:
        answer = await client.post(receiver.url, b"{}", {}, within=PATIENCE_S)
        await client.post(receiver.url.replace("://", "://ana:a%2Fb%40c@"), b"{}", {}, within=PATIENCE_S)
    finally:
        await client.close()
    assert answer == (200, b"")
    [(first, _), (second, _)] = receiver.bodies
    assert first["Host"] == second["Host"] == receiver.url.split("/")[2]
    assert "Authorization" not in first
    assert second["Authorization"] == f"Basic {b64encode(b'ana:a/b@c').decode()}"


# --- addresses --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost", "[::1]"])
async def test_an_address_of_our_own_network_is_not_spoken_to(tmp_path: Path, receiver: Receiver, name: str) -> None:
    inside = receiver.url.replace("127.0.0.1", name)
    asking = config(receiver, url="", before_publish=inside, allow_private=False, within="5s", failing="closed")
    with cluster(tmp_path, asking, nodes=1) as (node,):
        async with person(node, "ana") as ana:
            with pytest.raises(Refused):
                await ana.says("told-1", "hello")
        node.until_log("which is no address of the internet; see hooks.allow_private")
    assert not receiver.asked


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1",
        "255.255.255.255", "::", "::1", "fe80::1", "fe80::1%eth0", "fc00::1", "ff02::1", "::ffff:10.0.0.1",
        "64:ff9b::a9fe:a9fe", "2002:a00:1::1", "2001:db8::1",
    ],
)  # fmt: skip
def test_what_is_not_the_internet_is_known(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", ["1.1.1.1", "93.184.216.34", "2606:4700::1111", "::ffff:1.1.1.1"])
def test_what_is_the_internet_is_known(address: str) -> None:
    assert is_public(address)


def test_each_retry_waits_longer_up_to_a_bound() -> None:
    first, most = RETRY_S
    assert first / 2 <= pause(1) <= first
    assert most / 2 <= pause(100) <= most
    assert len({pause(5) for _ in range(20)}) > 1, "rooms do not come back in step"
