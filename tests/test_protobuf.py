"""The SDK door in Protobuf, by the official Python SDK and by hand, beside people who speak JSON and plain text."""

from __future__ import annotations

import asyncio
import gc
import json
from typing import Any

import pytest
from centrifuge import Client
from centrifuge.exceptions import ReplyError
from centrifuge.protocol import client_pb2 as official
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from tests.conftest import Daemon
from tests.people import token
from tests.sdk import sdk_client, subscribed
from tests.test_cluster import FAST, pair, running
from tests.test_doors import PATIENCE_S, Raw, chatd
from tests.test_wire_protobuf import framed

__all__ = ["chatd", "pair"]


def said(text: str, **more: str) -> bytes:
    return json.dumps({"text": text, **more}).encode()


async def test_people_of_all_languages_share_a_room(chatd: Daemon) -> None:
    async with (
        connect(f"{chatd.ws}/chat/ana?room=babel") as ana,
        Raw(chatd, {"data": {"user": "bob"}}) as bob,
        sdk_client(chatd.sdk, use_protobuf=True, data=b'{"user":"eve"}') as (eve, _),
    ):
        await bob.ask({"subscribe": {"channel": "babel", "join_leave": True}})
        subscription, heard = await subscribed(eve, "babel", recoverable=True, join_leave=True)
        assert (await heard.next("join")).info.user == "eve", "she hears that she came"

        await ana.send("plain")
        publication = (await heard.next("publication")).pub
        assert (publication.data, publication.offset, publication.info.user) == (b'{"text":"plain"}', 1, "ana")
        await subscription.publish(said("binary", cid="c-1"))
        assert await asyncio.wait_for(ana.recv(), PATIENCE_S) == "eve: binary"
        told: list[str] = []
        while told[-1:] != ["binary"]:
            told += [heard_by_bob(reply["push"]) for reply in await bob.receive()]
        assert told == ["bob came", "eve came", "plain", "binary"]

        again = (await heard.next("publication")).pub
        assert (again.data, again.tags) == (said("binary", cid="c-1"), {"type": "message"}), "byte for byte"
        history = await subscription.history(limit=10)
        assert [each.offset for each in history.publications] == [1, 2]
        presence = await subscription.presence()
        assert {info.user for info in presence.clients.values()} == {"ana", "bob", "eve"}
        assert (await subscription.presence_stats()).num_users == 3


def heard_by_bob(push: dict[str, Any]) -> str:
    text: str = push["pub"]["data"]["text"] if "pub" in push else f"{push['join']['info']['user']} came"
    return text


async def test_methods_answer_and_refusals_say_why(chatd: Daemon) -> None:
    async with sdk_client(chatd.sdk, use_protobuf=True, data=b'{"user":"eve"}') as (eve, _):
        answer = json.loads((await eve.rpc("message.send", b'{"room":"sent","text":"hi"}')).data)
        assert answer["offset"] == 1
        for refused, code in (
            (eve.rpc("no.such.method", b"{}"), 108),
            (eve.rpc("message.send", b"no JSON"), 107),
            (eve.publish("sent", b"\xff"), 107),
            (eve.publish("sent", b"no JSON"), 107),
        ):
            with pytest.raises(ReplyError) as error:
                await refused
            assert error.value.code == code


# The SDK leaves the sockets of attempts that a dead node cut short to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_a_reader_whose_node_is_killed_misses_nothing(pair: tuple[Daemon, Daemon]) -> None:
    first, second = pair
    port = first.port
    async with sdk_client(first.sdk, use_protobuf=True, token=token("ana")) as (reader, _):
        _, heard = await subscribed(reader, "lobby", recoverable=True)
        async with sdk_client(second.sdk, use_protobuf=True, token=token("bob")) as (writer, _):
            first.kill()
            for n in range(20):
                await says(writer, f"meanwhile {n}")
            with running(first.directory, *first.arguments[:2], "--port", str(port), **FAST):
                for n in range(20):
                    publication = (await heard.next("publication")).pub
                    assert (publication.offset, json.loads(publication.data)["text"]) == (n + 1, f"meanwhile {n}")
    gc.collect()  # here, where such warnings are expected


async def says(writer: Client, text: str) -> None:
    """Publish until it is acknowledged: the killed node took the store along for a moment."""
    while True:
        try:
            await writer.publish("lobby", said(text, cid=text))
            return
        except ReplyError as refused:
            assert refused.temporary


# --- by hand ----------------------------------------------------------------------------------------------------------


def connecting() -> bytes:
    return framed(official.Command(id=1, connect=official.ConnectRequest(data=b'{"user":"eve"}')))


@pytest.mark.parametrize(
    ("query", "offered", "agreed", "binary"),
    [
        ("", [], None, False),
        ("", ["centrifuge-json"], "centrifuge-json", False),
        ("", ["centrifuge-protobuf"], "centrifuge-protobuf", True),
        ("", ["centrifuge-json", "centrifuge-protobuf"], "centrifuge-json", False),
        ("", ["unheard-of", "centrifuge-protobuf", "centrifuge-json"], "centrifuge-protobuf", True),
        ("?format=protobuf", [], None, True),
        ("?cf_protocol=protobuf", [], None, True),
        ("?format=json", [], None, False),
    ],
)
async def test_the_language_is_what_was_offered_or_asked_for(
    chatd: Daemon, query: str, offered: list[Any], agreed: str | None, binary: bool
) -> None:
    async with connect(chatd.sdk + query, subprotocols=offered or None) as client:
        assert client.subprotocol == agreed
        await client.send(connecting() if binary else '{"id":1,"connect":{}}')
        assert isinstance(await asyncio.wait_for(client.recv(), PATIENCE_S), bytes if binary else str)


async def test_a_token_and_a_language_may_both_be_offered(pair: tuple[Daemon, Daemon]) -> None:
    bearer: list[Any] = ["chatd.bearer", token("ana"), "centrifuge-protobuf"]
    async with connect(pair[0].sdk, subprotocols=bearer) as client:
        assert client.subprotocol == "chatd.bearer"
        await client.send(framed(official.Command(id=1, connect=official.ConnectRequest())))
        assert isinstance(await asyncio.wait_for(client.recv(), PATIENCE_S), bytes)


@pytest.mark.parametrize(
    "message",
    [
        pytest.param('{"id":1,"connect":{}}', id="the other language"),
        pytest.param(connecting() + b"\x7f", id="cut short"),
        pytest.param(
            connecting() + 2_000 * framed(official.Command(id=2, ping=official.PingRequest())), id="very many"
        ),
    ],
)
async def test_what_is_no_protobuf_of_a_client_ends_the_connection(chatd: Daemon, message: str | bytes) -> None:
    async with connect(chatd.sdk + "?format=protobuf") as client:
        await client.send(message)
        with pytest.raises(ConnectionClosed) as end:
            while True:
                await asyncio.wait_for(client.recv(), PATIENCE_S)
        assert end.value.rcvd is not None
        assert end.value.rcvd.code == 3501
        assert end.value.rcvd.reason.startswith("bad request: expected ")
