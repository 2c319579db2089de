"""The two doors of a real chatd, with plain WebSocket clients."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from socket import create_connection
from typing import Any, Protocol
from urllib.error import HTTPError
from urllib.parse import unquote
from urllib.request import Request, urlopen

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Origin

from tests.conftest import Daemon, running
from tests.servers import redis_server

PATIENCE_S = 10.0
QUICK_PINGS = {"CHATD_HEARTBEAT__INTERVAL": "1s", "CHATD_HEARTBEAT__TIMEOUT": "1s"}


@pytest.fixture(scope="module")
def chatd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with running(tmp_path_factory.mktemp("open"), "--port", "0", CHATD_LIMITS__LEAVE_DELAY="0.1s") as daemon:
        yield daemon


@pytest.fixture
async def plain(chatd: Daemon) -> AsyncIterator[Any]:
    """Opens a plain client that is in its room: it has heard what somebody else says there."""
    opened: list[ClientConnection] = []

    async def enter(user: str, room: str) -> ClientConnection:
        client = await connect(f"{chatd.ws}/chat/{user}?room={room}")
        opened.append(client)
        await until_present(chatd, user, room)
        return client

    yield enter
    for client in opened:
        await client.close()


async def until_present(chatd: HasDoors, user: str, room: str) -> None:
    async with Raw(chatd) as observer, asyncio.timeout(PATIENCE_S):
        while True:
            present = await observer.ask({"presence": {"channel": room}})
            if unquote(user) in {info["user"] for info in present["presence"]["presence"].values()}:
                return


class HasDoors(Protocol):
    """A node, or what stands in front of several."""

    @property
    def sdk(self) -> str: ...


class Raw:
    """An SDK client by hand: commands and replies as JSON."""

    def __init__(self, chatd: HasDoors, connecting: dict[str, Any] | None = None) -> None:
        self._url = chatd.sdk
        self._connecting = {} if connecting is None else connecting
        self._id = 0

    async def __aenter__(self) -> Raw:
        self.socket = await connect(self._url)
        self.welcome = await self.ask({"connect": self._connecting})
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.socket.close()

    async def send(self, *commands: dict[str, Any]) -> None:
        await self.socket.send("\n".join(json.dumps(command) for command in commands))

    async def receive(self) -> list[dict[str, Any]]:
        async with asyncio.timeout(PATIENCE_S):
            return [json.loads(line) for line in str(await self.socket.recv()).split("\n")]

    async def ask(self, command: dict[str, Any]) -> dict[str, Any]:
        """The reply to `command`; pushes on the way are dropped."""
        self._id += 1
        await self.send({"id": self._id, **command})
        while True:
            for reply in await self.receive():
                if reply.get("id") == self._id:
                    return reply

    async def goodbye(self) -> tuple[int, str]:
        """Wait until the server closes; its code and reason."""
        async with asyncio.timeout(PATIENCE_S):
            with pytest.raises(ConnectionClosed):
                while True:
                    await self.socket.recv()
        return self.socket.close_code or 0, self.socket.close_reason or ""


async def test_what_one_plain_client_says_every_other_reader_of_the_room_hears(plain: Any) -> None:
    ana, bob, eve = await plain("ana", "tea"), await plain("bob", "tea"), await plain("eve", "coffee")
    await ana.send("hello")
    await bob.send("hi ana")
    assert await asyncio.wait_for(bob.recv(), PATIENCE_S) == "ana: hello"
    assert await asyncio.wait_for(ana.recv(), PATIENCE_S) == "bob: hi ana", "and not her own words"
    await eve.close()
    with pytest.raises(ConnectionClosed):
        await eve.recv()


async def test_who_has_been_let_in_misses_nothing_that_is_said_from_then_on(chatd: Daemon, plain: Any) -> None:
    ana = await plain("ana", "quick")
    for n in range(20):
        async with connect(f"{chatd.ws}/chat/late-{n}?room=quick") as late:
            await ana.send(f"to number {n}")
            assert await asyncio.wait_for(late.recv(), PATIENCE_S) == f"ana: to number {n}"


async def test_who_says_something_and_hangs_up_at_once_was_heard(chatd: Daemon, plain: Any) -> None:
    bob = await plain("bob", "hasty")
    async with connect(f"{chatd.ws}/chat/ana?room=hasty") as ana:
        await ana.send("bye")
    assert await asyncio.wait_for(bob.recv(), PATIENCE_S) == "ana: bye"


async def test_plain_and_sdk_clients_share_rooms(chatd: Daemon, plain: Any) -> None:
    ana = await plain("ana", "mixed")
    async with Raw(chatd, {"data": {"user": "bob"}}) as bob:
        await bob.ask({"subscribe": {"channel": "mixed"}})
        await bob.ask({"publish": {"channel": "mixed", "data": {"text": "from the SDK"}}})
        assert await asyncio.wait_for(ana.recv(), PATIENCE_S) == "bob: from the SDK"
        await ana.send("from a terminal")
        while True:
            pushes = [r["push"]["pub"] for r in await bob.receive() if "pub" in r.get("push", {})]
            if said := [pub for pub in pushes if pub["data"] == {"text": "from a terminal"}]:
                break
        assert said[0]["info"]["user"] == "ana"
        assert said[0]["offset"] == 2


async def test_a_repeated_cid_has_one_effect_and_data_is_stored_byte_for_byte(chatd: Daemon) -> None:
    async with Raw(chatd) as client:
        data = '{"text": "once",  "cid":"c-1","n":1.50}'
        for id in (50, 51):
            await client.socket.send(f'{{"id":{id},"publish":{{"channel":"cids","data":{data}}}}}')
            assert await client.receive() == [{"id": id, "publish": {}}]
        await client.socket.send('{"id":52,"history":{"channel":"cids","limit":10}}')
        reply = str(await client.socket.recv())
        assert json.loads(reply)["history"]["offset"] == 1
        assert data in reply


async def test_a_text_that_was_cut_within_an_emoji_costs_nobody_the_connection(chatd: Daemon) -> None:
    async with Raw(chatd) as client:
        for saying in (
            {"publish": {"channel": "cut", "data": {"text": "hi \ud83d"}}},
            {"rpc": {"method": "message.send", "data": {"room": "cut", "text": "hi \ud83d"}}},
        ):
            assert "error" not in await client.ask(saying)
        history = await client.ask({"history": {"channel": "cut", "limit": 2}})
        assert [each["data"] for each in history["history"]["publications"]] == [{"text": "hi \ufffd"}] * 2


async def test_connect_and_subscribe_in_one_frame_are_answered_in_order(chatd: Daemon) -> None:
    socket = await connect(chatd.sdk)
    await socket.send('{"id":1,"connect":{}}\n{"id":2,"subscribe":{"channel":"batch","flag":1}}\n')
    ids: list[int] = []
    while len(ids) < 2:
        ids += [reply["id"] for line in str(await socket.recv()).split("\n") if "id" in (reply := json.loads(line))]
    assert ids == [1, 2]
    await socket.close()


async def test_messages_sent_at_once_are_stored_and_answered_in_the_order_in_which_they_were_sent(
    chatd: Daemon,
) -> None:
    """They travel to the store together; one that is refused, and what is no message, keep their places among them."""

    def message(n: int) -> dict[str, Any]:
        return {"id": 100 + n, "publish": {"channel": "order", "data": {"text": str(n)} if n != 7 else "x" * 9000}}

    async with Raw(chatd) as client:
        presence = {"id": 112, "presence_stats": {"channel": "order"}}
        await client.send(*map(message, range(12)), presence, *map(message, range(13, 18)))
        replies: list[dict[str, Any]] = []
        while len(replies) < 18:
            replies += await client.receive()
        assert [reply["id"] - 100 for reply in replies] == list(range(18))
        assert [reply["id"] - 100 for reply in replies if "error" in reply] == [7]
        history = await client.ask({"history": {"channel": "order", "limit": 100}})
        said = [int(publication["data"]["text"]) for publication in history["history"]["publications"]]
        assert said == [n for n in range(18) if n not in (7, 12)]


@pytest.mark.parametrize(
    ("command", "code"),
    [
        ({"subscribe": {"channel": "x" * 256}}, 107),
        ({"subscribe": {"channel": "map", "type": 1}}, 103),
        ({"subscribe": {"channel": "#somebody"}}, 103),
        ({"subscribe": {"channel": "dm#eve,mallory"}}, 103),
        ({"publish": {"channel": "#somebody", "data": {}}}, 103),
        ({"publish": {"channel": "big", "data": "x" * 9000}}, 413),
        ({"publish": {"channel": "deep", "data": json.loads("[" * 40 + "]" * 40)}}, 107),
        ({"rpc": {"method": "nope"}}, 108),
        ({"ping": {}}, 108),
        ({"history": {"channel": "h", "since": {"offset": 0, "epoch": ""}, "reverse": True}}, 107),
        ({"history": {"channel": "h", "limit": 1, "since": {"offset": 1, "epoch": "other"}}}, 112),
        ({"rpc": {"method": "message.history", "data": {"room": "h", "before": 0}}}, 107),
        ({"rpc": {"method": "message.history", "data": {"room": "h", "after": -1}}}, 107),
        ({"subscribe": {"channel": "h2", "recover": True, "offset": 9, "epoch": "other", "flag": 2}}, 112),
    ],
)
async def test_what_may_not_be_is_refused_with_its_code_and_the_connection_goes_on(
    chatd: Daemon, command: dict[str, Any], code: int
) -> None:
    async with Raw(chatd, {"data": {"user": "ana"}}) as client:
        assert (await client.ask(command))["error"]["code"] == code
        assert "presence" in await client.ask({"presence": {"channel": "still-here"}})


@pytest.mark.parametrize("offset", [10**14, 10**15 + 1, 2**53, 2**63 - 1])
async def test_an_offset_that_no_message_will_ever_have_is_beyond_the_last_one(chatd: Daemon, offset: int) -> None:
    room = f"beyond-{offset}"
    async with Raw(chatd) as client:
        sent = await client.ask({"rpc": {"method": "message.send", "data": {"room": room, "text": "hi"}}})
        top = {"epoch": sent["rpc"]["data"]["epoch"], "offset": 1}
        beyond = {"channel": room, "limit": 9, "since": {"offset": offset}}
        assert (await client.ask({"history": beyond}))["history"] == {"publications": [], **top}
        newest_first = (await client.ask({"history": {**beyond, "reverse": True}}))["history"]
        assert [publication["offset"] for publication in newest_first["publications"]] == [1]
        lost = await client.ask({"subscribe": {"channel": room, "recover": True, "offset": offset}})
        assert lost["subscribe"] == {"recoverable": True, "positioned": True, "was_recovering": True, **top}
        for method, key in (("report", "offset"), ("message.edit", "offset"), ("message.send", "reply_to")):
            data = {"room": room, "text": "hi", key: offset}
            assert (await client.ask({"rpc": {"method": method, "data": data}}))["error"]["code"] == 404
        for bound, seen in (("before", 1), ("after", 0)):
            page = await client.ask({"rpc": {"method": "message.history", "data": {"room": room, bound: offset}}})
            assert len(page["rpc"]["data"]["messages"]) == seen


async def test_a_room_is_subscribed_once(chatd: Daemon) -> None:
    async with Raw(chatd) as client:
        await client.ask({"subscribe": {"channel": "once"}})
        assert (await client.ask({"subscribe": {"channel": "once"}}))["error"]["code"] == 105
        assert await client.ask({"unsubscribe": {"channel": "once"}}) == {"id": 4, "unsubscribe": {}}
        assert "subscribe" in await client.ask({"subscribe": {"channel": "once"}})


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ("not json", 3501),
        ("", 3501),
        ('{"id":9,"foo":{}}', 3501),
        ("{}", 3501),
        ('{"id":9,"connect":{}}', 3501),
        ('{"id":9,"subscribe":{"channel":""}}', 3501),
        ('{"id":9,"refresh":{"token":""}}', 3501),
        ('{"send":{"data":1}}', 3508),
        ("x" * 70_000, 1009),
    ],
)
async def test_what_breaks_the_protocol_ends_the_connection_with_its_code(
    chatd: Daemon, message: str, code: int
) -> None:
    async with Raw(chatd) as client:
        await client.socket.send(message)
        assert (await client.goodbye())[0] == code


async def test_whom_a_send_of_the_sdk_cut_off_is_told_what_to_call_instead(chatd: Daemon) -> None:
    async with Raw(chatd) as client:
        await client.send({"send": {"data": 1}})
        assert await client.goodbye() == (
            3508,
            "nobody takes what is sent without asking for an answer; call rpc or publish",
        )


async def test_the_first_command_must_be_connect(chatd: Daemon) -> None:
    client = Raw(chatd)
    client.socket = await connect(chatd.sdk)
    await client.send({"id": 1, "subscribe": {"channel": "lobby"}})
    assert (await client.goodbye())[0] == 3501


async def test_whose_websocket_has_pings_of_its_own_may_still_answer_ours(tmp_path: Path) -> None:
    with running(tmp_path, "--port", "0", **QUICK_PINGS) as node:
        async with Raw(node) as client:
            assert await client.receive() == [{}]
            await (await client.socket.ping())
            await client.send({})
            assert "history" in await client.ask({"history": {"channel": "lobby"}})


async def test_who_speaks_while_two_pings_are_on_their_way_may_answer_both(tmp_path: Path) -> None:
    with running(tmp_path, "--port", "0", **QUICK_PINGS) as node:
        async with Raw(node) as client:
            for _ in range(2):
                assert await client.receive() == [{}]
                assert "history" in await client.ask({"history": {"channel": "lobby"}})
            await client.send({}, {})
            assert "history" in await client.ask({"history": {"channel": "lobby"}})


async def test_recovery_returns_what_was_missed_and_live_messages_follow(chatd: Daemon) -> None:
    async with Raw(chatd) as writer, Raw(chatd) as reader:
        for n in range(1, 6):
            await writer.ask({"publish": {"channel": "rec", "data": {"text": str(n)}}})
        epoch = (await writer.ask({"history": {"channel": "rec"}}))["history"]["epoch"]
        reply = await reader.ask(
            {"subscribe": {"channel": "rec", "recover": True, "epoch": epoch, "offset": 2, "recoverable": True}}
        )
        result = reply["subscribe"]
        assert [pub["offset"] for pub in result["publications"]] == [3, 4, 5]
        assert result["recovered"] is True
        assert result["was_recovering"] is True
        assert result["offset"] == 2
        await writer.ask({"publish": {"channel": "rec", "data": {"text": "6"}}})
        (push,) = [r for r in await reader.receive() if "pub" in r.get("push", {})]
        assert push["push"]["pub"]["offset"] == 6


async def test_joins_and_leaves_reach_those_who_asked(chatd: Daemon) -> None:
    async with Raw(chatd) as watcher:
        await watcher.ask({"subscribe": {"channel": "door", "join_leave": True}})
        async with Raw(chatd, {"data": {"user": "bob"}}) as bob:
            await bob.ask({"subscribe": {"channel": "door"}})
            assert await next_push(watcher, "join", "bob")
        assert await next_push(watcher, "leave", "bob")


async def next_push(client: Raw, kind: str, user: str) -> dict[str, Any]:
    while True:
        for reply in await client.receive():
            event = reply.get("push", {}).get(kind)
            if event is not None and event["info"]["user"] == user:
                return dict(event)


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1:1", "http://127.0.0.1.evil:80"])
async def test_pages_of_other_sites_are_refused(chatd: Daemon, origin: str) -> None:
    with pytest.raises(InvalidStatus) as refused:
        await connect(chatd.sdk, additional_headers={"Origin": origin})
    assert refused.value.response.status_code == 403
    assert b"origin" in (refused.value.response.body or b"")


async def test_a_site_whose_name_leads_to_this_machine_is_another_site(chatd: Daemon) -> None:
    site = f"evil.example:{chatd.port}"
    socket = await asyncio.get_running_loop().run_in_executor(None, create_connection, ("127.0.0.1", chatd.port))
    with pytest.raises(InvalidStatus) as refused:
        await connect(f"ws://{site}/connection/websocket", sock=socket, origin=Origin(f"http://{site}"))
    assert refused.value.response.status_code == 403


async def test_a_user_whose_id_has_a_slash_escapes_it_in_the_path(chatd: Daemon, plain: Any) -> None:
    listener = await plain("ben", "slashes")
    ana = await plain("team%2Fana%2F", "slashes")
    await ana.send("hi")
    assert await asyncio.wait_for(listener.recv(), PATIENCE_S) == "team/ana/: hi"


@pytest.mark.parametrize("path", ["/", "/chat", "/chat/", "/chat%2Fana", "/chat/ana/lobby", "/nosuch?room=lobby"])
async def test_where_there_is_no_door_the_refusal_says_where_the_doors_are(chatd: Daemon, path: str) -> None:
    with pytest.raises(InvalidStatus) as refused:
        await connect(chatd.ws + path)
    assert refused.value.response.status_code == 404
    assert "/chat/{username}" in json.loads(refused.value.response.body or b"")["error"]


@pytest.mark.parametrize("path", ["/connection/websocket", "/chat/ana?room=lobby"])
def test_where_a_proxy_lost_the_handshake_the_refusal_says_what_it_must_pass_on(chatd: Daemon, path: str) -> None:
    with pytest.raises(HTTPError) as refused:
        urlopen(chatd.url + path, timeout=PATIENCE_S)
    with refused.value as answer:
        assert (answer.status, answer.headers["Upgrade"]) == (426, "websocket")
        assert "`Upgrade` and `Connection`" in json.loads(answer.read())["error"]


@pytest.mark.parametrize("path", ["/connection/websocket", "/chat/ana?room=lobby"])
def test_a_plain_request_hears_why_a_handshake_would_be_refused(chatd: Daemon, path: str) -> None:
    with pytest.raises(HTTPError) as refused:
        urlopen(Request(chatd.url + path, b"", {"Origin": "https://elsewhere.example"}), timeout=PATIENCE_S)
    with refused.value as answer:
        assert answer.status == 403
        assert "see server.origins" in json.loads(answer.read())["error"]


async def test_a_page_of_our_own_host_may_connect(chatd: Daemon) -> None:
    socket = await connect(chatd.sdk, additional_headers={"Origin": chatd.url})
    await socket.close()


async def test_the_empty_subprotocol_header_of_the_python_sdk_is_no_reason_to_refuse(chatd: Daemon) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", chatd.port)
    writer.write(
        b"GET /connection/websocket HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol:\r\n\r\n"
    )
    assert (await asyncio.wait_for(reader.readline(), PATIENCE_S)).startswith(b"HTTP/1.1 101")
    writer.close()
    await writer.wait_closed()


async def test_whoever_speaks_too_fast_is_told_when_to_go_on(chatd: Daemon) -> None:
    async with Raw(chatd) as client:
        await client.send(*({"id": 100 + n, "publish": {"channel": "fast", "data": {"text": "x"}}} for n in range(60)))
        refused = None
        while refused is None:
            refused = next((r["error"] for r in await client.receive() if "error" in r), None)
        assert refused["code"] == 111
        assert refused["temporary"] is True
        assert refused["retry_after_ms"] > 0


async def says_at_once(stack: AsyncExitStack, chatd: Daemon, user: str) -> ClientConnection:
    """Somebody who does not wait to be let in before he has said all that one connection may say at once."""
    socket = await stack.enter_async_context(connect(chatd.sdk))
    said = [{"id": 2 + n, "publish": {"channel": "eager", "data": {"text": "x"}}} for n in range(20)]
    await socket.send("\n".join(map(json.dumps, [{"id": 1, "connect": {"data": {"user": user}}}, *said])))
    return socket


async def refusals(socket: ClientConnection) -> list[int]:
    """The codes with which some of it was refused."""
    replies: list[dict[str, Any]] = []
    while len(replies) < 21:
        async with asyncio.timeout(PATIENCE_S):
            replies += [reply for line in str(await socket.recv()).split("\n") if "id" in (reply := json.loads(line))]
    return [reply["error"]["code"] for reply in replies if "error" in reply]


async def test_who_speaks_before_he_is_let_in_takes_nothing_from_strangers(chatd: Daemon) -> None:
    async with AsyncExitStack() as stack:
        sockets = [
            await says_at_once(stack, chatd, stranger) for stranger in ("sam", "sue", "sid", "sol", "stu", "syd")
        ]
        assert [await refusals(socket) for socket in sockets] == [[]] * 6


async def test_who_speaks_before_he_is_let_in_has_no_more_of_it_by_more_connections(chatd: Daemon) -> None:
    async with AsyncExitStack() as stack:
        sockets = [await says_at_once(stack, chatd, "eli") for _ in range(6)]
        assert {code for socket in sockets for code in await refusals(socket)} == {111}


def test_health_and_metrics_tell(chatd: Daemon) -> None:
    assert chatd.get("/livez") == (200, "ok\n")
    assert json.loads(chatd.get("/readyz")[1]) == {"ready": True, "reason": None}
    status, text = chatd.get("/metrics")
    assert status == 200
    assert "chatd_connections " in text
    status, page = chatd.get("/")
    assert status == 200
    assert "{{nonce}}" not in page


async def test_of_those_who_come_at_once_no_more_are_let_in_than_one_address_may_have(tmp_path: Path) -> None:
    limits = {"CHATD_SERVER__TRUSTED_PROXIES": "127.0.0.1", "CHATD_LIMITS__CONNECTIONS_PER_ADDRESS": "2"}
    with running(tmp_path, "--port", "0", **limits) as chatd:
        proxied = {"X-Forwarded-For": "203.0.113.7"}
        come = (connect(f"{chatd.ws}/chat/eve?room=tea", additional_headers=proxied) for _ in range(16))
        came = await asyncio.gather(*come, return_exceptions=True)
        refused = [each.response.status_code for each in came if isinstance(each, InvalidStatus)]
        assert refused == [429] * 14
        for each in came:
            if isinstance(each, ClientConnection):
                await each.close()


async def test_who_waits_for_the_store_at_the_door_counts_as_here_and_no_longer_than_that(tmp_path: Path) -> None:
    patient = {"CHATD_REDIS__TIMEOUT": "60s", "CHATD_CLUSTER__LEASE": "120s"}
    limits = {"CHATD_SERVER__TRUSTED_PROXIES": "127.0.0.1", "CHATD_LIMITS__CONNECTIONS_PER_ADDRESS": "2"}
    async with redis_server(tmp_path) as store, AsyncExitStack() as stack:
        with running(tmp_path, "--port", "0", CHATD_REDIS__URL=store.url, **patient, **limits) as chatd:

            async def comes(path: str = "/chat/eve?room=tea") -> int:
                proxied = {"X-Forwarded-For": "203.0.113.7"}
                try:
                    await stack.enter_async_context(connect(f"{chatd.ws}{path}", additional_headers=proxied))
                except InvalidStatus as refusal:
                    return refusal.response.status_code
                return 101

            assert await comes("/chat/eve?room=%23ben") == 403
            store.pause()
            coming = [asyncio.ensure_future(comes()) for _ in range(8)]
            first = asyncio.as_completed(coming, timeout=PATIENCE_S)
            assert [await next(first) for _ in range(6)] == [429] * 6
            store.resume()
            assert sorted(await asyncio.gather(*coming)) == [101] * 2 + [429] * 6


async def test_history_is_there_after_a_restart_and_no_store_is_left_behind(tmp_path: Path) -> None:
    with running(tmp_path, "--port", "0") as daemon:
        async with Raw(daemon) as client:
            await client.ask({"publish": {"channel": "lobby", "data": {"text": "kept"}}})
        assert daemon.stop() == 0
    with running(tmp_path, "--port", "0") as daemon:
        async with Raw(daemon) as client:
            reply = await client.ask({"history": {"channel": "lobby", "limit": 10}})
        assert [pub["data"] for pub in reply["history"]["publications"]] == [{"text": "kept"}]
