"""The SDK door over plain HTTP, for those who get no WebSocket through: a real node or two, and a client by hand."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import httpx
import jwt
import pytest
from centrifuge.protocol import client_pb2 as official
from websockets.asyncio.client import connect

from tests.conftest import Daemon
from tests.people import token
from tests.streams import streaming
from tests.test_auth import ED, Issuer, issuer, jwk, key_set
from tests.test_cluster import FAST, pair, running, until
from tests.test_doors import PATIENCE_S, Raw, chatd
from tests.test_wire_protobuf import framed, unframed

__all__ = ["chatd", "issuer", "pair"]

APP = "https://app.example"


def subscribe(room: str, **more: Any) -> dict[str, Any]:
    return {"id": 2, "subscribe": {"channel": room, **more}}


def publish(room: str, text: str) -> dict[str, Any]:
    return {"id": 3, "publish": {"channel": room, "data": {"text": text}}}


@contextmanager
def slow_stream(node: Daemon, *commands: dict[str, Any], connect: dict[str, Any] | None = None) -> Iterator[BinaryIO]:
    """The answer to somebody who reads only what a test reads: little waits outside of chatd."""
    first = "\n".join(map(json.dumps, ({"id": 1, "connect": connect or {}}, *commands)))
    with socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.settimeout(PATIENCE_S)
        slow.connect(("127.0.0.1", node.port))
        slow.sendall(b"POST /connection/http_stream HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(first))
        slow.sendall(first.encode())
        with slow.makefile("rb") as answer:
            yield answer


def until_line(answer: BinaryIO, part: bytes) -> Iterator[bytes]:
    """The lines of an answer up to the one with `part`."""
    for line in answer:
        yield line
        if part in line:
            return


async def test_it_talks_with_those_who_have_a_socket(chatd: Daemon) -> None:
    async with (
        connect(f"{chatd.ws}/chat/bob?room=http") as bob,
        streaming(chatd.url, subscribe("http"), connect={"data": {"user": "ana"}}) as ana,
    ):
        assert "positioned" in await ana.hear("subscribe")
        await bob.send("hello")
        heard = await ana.hear("pub")
        assert (heard["data"], heard["offset"], heard["info"]["user"]) == ({"text": "hello"}, 1, "bob")
        assert (await ana.say(chatd.url, publish("http", "hi bob"))).status_code == 204
        assert await ana.hear("publish") == {}
        assert await asyncio.wait_for(bob.recv(), PATIENCE_S) == "ana: hi bob"
        assert ana.response.headers["x-accel-buffering"] == "no", "a proxy must not keep it back"


async def test_what_it_says_may_come_to_any_node(pair: tuple[Daemon, Daemon]) -> None:
    first, second = pair
    async with streaming(first.url, subscribe("lobby"), connect={"token": token("ana")}) as ana:
        for node in (first, second):
            assert (await ana.say(node.url, publish("lobby", node.url))).status_code == 204
            assert (await ana.hear("pub"))["data"] == {"text": node.url}


async def test_it_hears_why_it_must_go_and_the_answer_ends(chatd: Daemon) -> None:
    async with streaming(chatd.url, subscribe("gone"), connect={"data": {"user": "eve"}}) as eve:
        await eve.hear("subscribe")
        assert "closed 1 connection" in chatd.cli("kick", "eve", "--reason", "enough")
        assert await eve.hear("disconnect") == {"code": 4500, "reason": "enough"}
        with pytest.raises(StopAsyncIteration):
            await eve.next()
        assert (await eve.say(chatd.url, publish("gone", "still here?"))).status_code == 404


async def test_who_is_sent_away_and_speaks_before_he_has_read_so_is_not_told_to_come_back(tmp_path: Path) -> None:
    with (
        running(tmp_path, "--port", "0", **FAST, CHATD_LIMITS__BYTES_PER_SECOND="0") as node,
        slow_stream(node, subscribe("big"), connect={"data": {"user": "eve"}}) as answer,
    ):
        told = until_line(answer, b'"subscribe":')
        (welcome,) = [json.loads(line)["connect"] for line in told if b"session" in line]
        async with Raw(node) as writer:
            for _ in range(50):
                await writer.ask({"publish": {"channel": "big", "data": {"text": "x" * 7000}}})
        assert "closed 1 connection" in await asyncio.to_thread(node.cli, "kick", "eve")
        said = {"session": welcome["session"], "node": welcome["node"], "data": "{}"}
        assert httpx.post(f"{node.url}/emulation", json=said).status_code == 204
        assert b'"disconnect":{"code":4500' in await asyncio.to_thread(answer.read)


async def test_who_hangs_up_has_left(chatd: Daemon) -> None:
    async with Raw(chatd) as bob:
        await bob.ask({"subscribe": {"channel": "left", "join_leave": True}})
        async with streaming(chatd.url, subscribe("left"), connect={"data": {"user": "ana"}}) as ana:
            await ana.hear("subscribe")
        told: list[str] = []
        while "leave" not in told:
            told += [next(iter(set(reply["push"]) - {"channel"})) for reply in await bob.receive() if "push" in reply]


async def test_a_ping_wants_its_pong(tmp_path: Path) -> None:
    quick = {"CHATD_HEARTBEAT__INTERVAL": "1s", "CHATD_HEARTBEAT__TIMEOUT": "1s"}
    with running(tmp_path, "--port", "0", **quick) as node:
        async with streaming(node.url) as ana, streaming(node.url) as silent:
            async with asyncio.timeout(PATIENCE_S):
                for _ in range(3):
                    assert await anext(ana._lines) == "{}"
                    assert (await ana.say(node.url, {})).status_code == 204
            assert (await silent.hear("disconnect"))["code"] == 3012


async def test_a_client_that_does_not_read_is_cut_at_its_bound(tmp_path: Path) -> None:
    environ = {**FAST, "CHATD_LIMITS__OUTBOX": "64KiB", "CHATD_LIMITS__BYTES_PER_SECOND": "0"}
    with running(tmp_path, "--port", "0", **environ) as node, slow_stream(node, subscribe("big")):
        async with Raw(node) as writer:
            await until(lambda: [room["room"] for room in node.ask("rooms")["rooms"]] == ["big"])
            for _ in range(100):
                assert "publish" in await writer.ask({"publish": {"channel": "big", "data": {"text": "x" * 7000}}})
            await until(lambda: "3008" in node.ask("status")["nodes"][0]["closed"])


async def test_it_is_told_when_its_node_ends(tmp_path: Path) -> None:
    with running(tmp_path, "--port", "0") as node:
        async with streaming(node.url) as ana:
            node.process.terminate()
            assert (await ana.hear("disconnect"))["code"] == 3001
            with pytest.raises(StopAsyncIteration):
                await ana.next()


async def test_in_protobuf_each_reply_comes_behind_its_length(chatd: Daemon) -> None:
    connecting = framed(official.Command(id=1, connect=official.ConnectRequest(data=b'{"user":"eve"}')))
    binary = {"Content-Type": "application/octet-stream"}
    async with (
        httpx.AsyncClient(timeout=PATIENCE_S, headers=binary) as http,
        http.stream("POST", f"{chatd.url}/connection/http_stream", content=connecting) as response,
    ):
        assert response.headers["content-type"] == "application/octet-stream"
        parts = response.aiter_bytes()
        (first,) = unframed(await anext(parts))
        welcome = first.connect
        presence = official.Command(id=2, presence_stats=official.PresenceStatsRequest(channel="#eve"))
        said = official.EmulationRequest(node=welcome.node, session=welcome.session, data=framed(presence))
        answer = await http.post(f"{chatd.url}/emulation", content=said.SerializeToString())
        assert answer.status_code == 204
        assert [reply.id for reply in unframed(await anext(parts))] == [2]


# --- who may not ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Authorization": "Bearer not.a.token"}, 401),
        ({"Cookie": "chatd_token=ana"}, 403),
        ({"Cookie": "chatd_token=ana", "Origin": "https://evil.example"}, 403),
        ({"Origin": "https://evil.example"}, 403),
    ],
)
async def test_whom_a_node_does_not_want_it_refuses_before_it_answers(
    pair: tuple[Daemon, Daemon], headers: dict[str, str], status: int
) -> None:
    headers = {name: value.replace("=ana", f"={token('ana')}") for name, value in headers.items()}
    async with streaming(pair[0].url, headers=headers) as refused:
        assert refused.response.status_code == status
        assert refused.response.json()["error"]
        assert "access-control-allow-origin" not in refused.response.headers


async def test_who_hangs_up_while_his_token_is_looked_at_leaves_no_bug_in_the_log(
    tmp_path: Path, issuer: Issuer
) -> None:
    issuer.body = key_set(jwk(ED, kid="ed"))
    (tmp_path / "chatd.toml").write_text(f'[[auth.keys]]\njwks_url = "{issuer.url}"\n')
    bearer = jwt.encode({"sub": "ana", "exp": time.time() + 60}, ED, "EdDSA", {"kid": "ed"})
    headers = {"Authorization": f"Bearer {bearer}"}
    with running(tmp_path, "--config", str(tmp_path / "chatd.toml"), "--port", "0") as node:
        node.signal(signal.SIGHUP)  # from now on the keys must be asked for
        await asyncio.to_thread(node.until_log, "settings reloaded")
        issuer.open.clear()
        async with httpx.AsyncClient(timeout=PATIENCE_S, headers=headers) as http:
            hasty = asyncio.ensure_future(http.post(f"{node.url}/connection/http_stream", content="{}"))
            await until(lambda: issuer.asked == 2)
            hasty.cancel()
            await asyncio.gather(hasty, return_exceptions=True)
        issuer.open.set()
        async with streaming(node.url, headers=headers) as patient:
            assert patient.welcome["client"]
        assert "Exception" not in "".join(node.log)


async def test_who_does_not_say_who_they_are_hears_a_goodbye(pair: tuple[Daemon, Daemon]) -> None:
    async with httpx.AsyncClient(timeout=PATIENCE_S) as http:
        for first in ('{"id":1,"connect":{}}', '{"id":1,"subscribe":{"channel":"lobby"}}', "nonsense", ""):
            answer = await http.post(f"{pair[0].url}/connection/http_stream", content=first)
            assert answer.status_code == 200
            assert json.loads(answer.text)["push"]["disconnect"]["code"] == 3501


async def test_an_answer_in_chunks_needs_http_1_1(chatd: Daemon) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", chatd.port)
    writer.write(b"POST /connection/http_stream HTTP/1.0\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}")
    assert (await asyncio.wait_for(reader.readline(), PATIENCE_S)).startswith(b"HTTP/1.1 505")
    writer.close()
    await writer.wait_closed()


async def test_no_more_comes_in_one_request_than_in_one_message(chatd: Daemon) -> None:
    async with httpx.AsyncClient(timeout=PATIENCE_S) as http:
        long = await http.post(f"{chatd.url}/connection/http_stream", content="x" * 70_000)
        assert long.status_code == 413
    async with streaming(chatd.url) as ana:
        for data in ("x" * 66_000, '"' * 66_000, "x" * 200_000):
            assert (await ana.say(chatd.url, data=data)).status_code == 413


async def test_where_a_message_has_no_limit_a_request_has_none(tmp_path: Path) -> None:
    with running(tmp_path, "--port", "0", CHATD_LIMITS__FRAME="0", CHATD_LIMITS__BYTES_PER_SECOND="0") as node:
        async with streaming(node.url) as ana:
            assert (await ana.say(node.url, {"id": 2, "rpc": {"method": "x" * 200_000}})).status_code == 204


async def test_one_address_has_no_more_requests_under_way_than_connections(tmp_path: Path) -> None:
    limits = {"CHATD_SERVER__TRUSTED_PROXIES": "127.0.0.1", "CHATD_LIMITS__CONNECTIONS_PER_ADDRESS": "2"}
    with running(tmp_path, "--port", "0", **limits) as node:
        head = b"POST /emulation HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 203.0.113.7\r\nContent-Length: 2\r\n\r\n"
        for _ in range(2):  # and the first ones are forgotten
            speakers = [await asyncio.open_connection("127.0.0.1", node.port) for _ in range(6)]
            for _, writer in speakers:
                writer.write(head + b"{")
            answers = [asyncio.ensure_future(reader.readline()) for reader, _ in speakers]
            first = asyncio.as_completed(answers, timeout=PATIENCE_S)
            assert [(await next(first)).split()[1] for _ in range(4)] == [b"429"] * 4
            for _, writer in speakers:
                writer.write(b"}")
            assert sorted([(await answer).split()[1] for answer in answers]) == [b"404"] * 2 + [b"429"] * 4
            for _, writer in speakers:
                writer.close()


async def test_only_the_secret_speaks_for_a_session(chatd: Daemon) -> None:
    async with streaming(chatd.url, subscribe("secret")) as ana:
        client = ana.welcome["client"]  # which others see
        assert ana.welcome["session"] != client
        for other in ({"session": client}, {"session": ""}, {"session": "x"}, {"node": ""}, {"node": "no-such"}):
            answer = await ana.say(chatd.url, publish("secret", "not hers"), **other)
            assert (answer.status_code, answer.json()["error"]) == (404, "there is no such session; connect again")


@pytest.mark.parametrize("body", [b"", b"nonsense", b"[]", b'{"session":1}', b'{"data":{}}', b"\xff"])
async def test_what_is_no_request_of_a_client_is_refused_with_a_reason(chatd: Daemon, body: bytes) -> None:
    async with httpx.AsyncClient(timeout=PATIENCE_S) as http:
        answer = await http.post(f"{chatd.url}/emulation", content=body)
        assert answer.status_code == 400
        assert "expected" in answer.json()["error"]


# --- pages of other origins -------------------------------------------------------------------------------------------


async def test_a_page_of_an_allowed_origin_may_ask_and_read(tmp_path: Path) -> None:
    with running(tmp_path, "--port", "0", CHATD_SERVER__ORIGINS=APP) as node:
        async with httpx.AsyncClient(timeout=PATIENCE_S, headers={"Origin": APP}) as http:
            for path in ("/connection/http_stream", "/emulation"):
                may = await http.options(node.url + path, headers={"Access-Control-Request-Method": "POST"})
                assert may.status_code == 204
                assert may.headers["access-control-allow-origin"] == APP
                assert "Content-Type" in may.headers["access-control-allow-headers"]
            refused = await http.post(f"{node.url}/emulation", json={"session": "x"})
            assert refused.headers["access-control-allow-origin"] == APP, "or the page could not read why"
        async with streaming(node.url, headers={"Origin": APP}) as ana:
            assert ana.response.headers["access-control-allow-origin"] == APP
            assert (await ana.say(node.url, {"id": 5, "ping": {}})).headers["access-control-allow-origin"] == APP


async def test_a_page_of_another_origin_may_not(tmp_path: Path) -> None:
    with running(tmp_path, "--port", "0", CHATD_SERVER__ORIGINS=APP) as node:
        async with httpx.AsyncClient(timeout=PATIENCE_S, headers={"Origin": "https://evil.example"}) as http:
            may = await http.options(node.url + "/emulation", headers={"Access-Control-Request-Method": "POST"})
            assert "access-control-allow-origin" not in may.headers
