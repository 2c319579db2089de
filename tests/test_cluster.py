"""What crosses nodes: two real `chatd serve` on one store, the official Python SDK, and kill -9."""

from __future__ import annotations

import asyncio
import gc
import json
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from centrifuge import Client, ReplyError
from redis.asyncio import Redis
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.conftest import Daemon, running
from tests.people import SECRET, token
from tests.sdk import sdk_client, subscribed
from tests.servers import redis_cluster, redis_sentinel, redis_server
from tests.test_doors import Raw, next_push

LEASE_S = 1
FAST = {"CHATD_CLUSTER__LEASE": f"{LEASE_S}s", "CHATD_CLUSTER__RENEW": "0.2s", "CHATD_LIMITS__MESSAGES_PER_SECOND": "0",
        "CHATD_LIMITS__USER_MESSAGES_PER_SECOND": "0"}  # fmt: skip


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[Daemon, Daemon]]:
    """Two nodes of one cluster with quick leases, log-in by token, and a private room pattern."""
    config = tmp_path / "chatd.toml"
    config.write_text(
        f'[[auth.keys]]\nkid = "main"\nalgorithm = "HS256"\nsecret = "{SECRET}"\n[rooms."private-*"]\npublic = false\n'
    )
    with ExitStack() as stack:
        start = [
            stack.enter_context(running(tmp_path, "--config", str(config), "--port", "0", **FAST)) for _ in range(2)
        ]
        yield start[0], start[1]


# The SDK leaves the sockets of attempts that a dead node cut short to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_a_reader_whose_node_is_killed_misses_nothing_on_the_other(pair: tuple[Daemon, Daemon]) -> None:
    first, second = pair
    port = first.port
    async with sdk_client(first.sdk, token=token("ana")) as (reader, _):
        _, heard = await subscribed(reader, "lobby", recoverable=True)
        async with sdk_client(second.sdk, token=token("bob")) as (writer, _):
            for n in range(5):
                await writer.publish("lobby", {"text": f"before {n}"})
            for n in range(5):
                assert (await heard.next("publication")).pub.data == {"text": f"before {n}"}
            first.kill()
            for n in range(20):
                await said(writer, f"meanwhile {n}")
            with running(first.directory, *first.arguments[:2], "--port", str(port), **FAST):
                for n in range(20):
                    assert (await heard.next("publication")).pub.data["text"] == f"meanwhile {n}"
                await writer.publish("lobby", {"text": "after"})
                assert (await heard.next("publication")).pub.offset == 26
    gc.collect()  # here, where such warnings are expected


async def said(writer: Client, text: str) -> None:
    """Publish until it is acknowledged: the killed node took the store along for a moment."""
    while True:
        try:
            await writer.publish("lobby", {"text": text, "cid": text})
            return
        except ReplyError as refused:
            assert refused.temporary


async def test_a_killed_node_leaves_no_ghosts_and_each_leave_is_told_once(pair: tuple[Daemon, Daemon]) -> None:
    first, second = pair
    async with Raw(second, {"token": token("watcher")}) as watcher:
        await watcher.ask({"subscribe": {"channel": "lobby", "join_leave": True}})
        async with Raw(first, {"token": token("ana")}) as ana:
            await ana.ask({"subscribe": {"channel": "lobby"}})
            await next_push(watcher, "join", "ana")
            assert second.ask("status")["cluster"]["connections"] == 2
            first.kill()
            await next_push(watcher, "leave", "ana")
        stats = await watcher.ask({"presence_stats": {"channel": "lobby"}})
        assert stats["presence_stats"] == {"num_clients": 1, "num_users": 1}
        assert second.ask("status")["cluster"] == {"nodes": 1, "connections": 1, "users": 1, "rooms": 1, "lockdown": 0}


async def test_a_frozen_node_finds_out_and_its_clients_are_present_again(pair: tuple[Daemon, Daemon]) -> None:
    owner, other = pair  # the first keeps the store alive; the second is frozen
    async with (
        Raw(owner, {"token": token("watcher")}) as watcher,
        Raw(other, {"token": token("ana")}) as ana,
    ):
        await watcher.ask({"subscribe": {"channel": "lobby", "join_leave": True}})
        await ana.ask({"subscribe": {"channel": "lobby"}})
        await next_push(watcher, "join", "ana")
        other.signal(signal.SIGSTOP)
        try:
            await next_push(watcher, "leave", "ana")
        finally:
            other.signal(signal.SIGCONT)
        await next_push(watcher, "join", "ana")
        users = {entry["user"] for entry in owner.ask("who", "lobby")["connections"]}
        assert users == {"ana", "watcher"}


async def test_nodes_that_were_frozen_together_do_not_take_each_other_or_themselves_for_dead(
    pair: tuple[Daemon, Daemon],
) -> None:
    """A machine is suspended, or moved: whoever wakes up first finds that all leases have ended, its own included."""
    first, second = pair
    async with (
        Raw(first, {"token": token("watcher")}) as watcher,
        Raw(first, {"token": token("ana")}) as ana,
        Raw(second, {"token": token("bob")}) as bob,
        Raw(second, {"token": token("carl")}) as carl,
    ):
        await watcher.ask({"subscribe": {"channel": "lobby", "join_leave": True}})
        for each, user in ((ana, "ana"), (bob, "bob")):
            await each.ask({"subscribe": {"channel": "lobby"}})
            await next_push(watcher, "join", user)
        for node in pair:
            node.signal(signal.SIGSTOP)
        await asyncio.sleep(1.5 * LEASE_S)
        for node in pair:
            node.signal(signal.SIGCONT)
        async with asyncio.timeout(10):
            while (await asyncio.to_thread(first.ask, "status"))["cluster"]["nodes"] < 2:
                await asyncio.sleep(0.02)
        await carl.ask({"subscribe": {"channel": "lobby"}})
        users: list[str] = []
        left: list[object] = []
        while "carl" not in users:
            pushes = [each.get("push", {}) for each in await watcher.receive()]
            users += [push["join"]["info"]["user"] for push in pushes if "join" in push]
            left += [push["leave"] for push in pushes if "leave" in push]
        assert left == []


async def test_kick_reaches_a_user_on_every_node_with_its_reason(pair: tuple[Daemon, Daemon]) -> None:
    first, second = pair
    async with (
        Raw(first, {"token": token("ana")}) as here,
        Raw(second, {"token": token("ana")}) as there,
        Raw(second, {"token": token("bob")}) as bob,
    ):
        answer = await asyncio.to_thread(first.ask, "kick", "ana", "--reason", "enough")
        assert answer["schema_version"] == 1
        assert answer["closed"] == 2
        assert sorted(answer["nodes"].values()) == [1, 1]
        assert await here.goodbye() == (4500, "enough")
        assert await there.goodbye() == (4500, "enough")
        assert "presence" in await bob.ask({"presence": {"channel": "lobby"}})
    first.cli("kick", "nobody", check=4)


async def test_a_revoked_user_is_closed_everywhere_and_does_not_come_back(pair: tuple[Daemon, Daemon]) -> None:
    first, second = pair
    old = token("ana")
    async with Raw(first, {"token": old}) as ana:
        await asyncio.to_thread(second.cli, "token", "revoke", "--user", "ana")
        assert (await ana.goodbye())[0] == 4501
    again = Raw(second, {"token": old})
    again.socket = await connect(second.sdk)
    await again.send({"id": 1, "connect": {"token": old}})
    assert (await again.goodbye())[0] == 4501


async def test_tokens_are_refreshed_by_the_sdk_and_a_connection_without_one_ends(pair: tuple[Daemon, Daemon]) -> None:
    first, _ = pair
    asked = asyncio.Event()

    async def fresh() -> str:
        asked.set()
        return token("ana")

    async with sdk_client(first.sdk, token=token("ana", lifetime=1.5), get_token=fresh) as (client, _):
        async with asyncio.timeout(10):
            await asked.wait()
        assert (await client.presence_stats("lobby")).num_clients == 0
    nobody = Raw(first)
    nobody.socket = await connect(first.sdk)
    await nobody.send({"id": 1, "connect": {}})
    assert (await nobody.goodbye())[0] == 3501


async def test_a_private_room_opens_to_a_subscription_token_or_a_claim(pair: tuple[Daemon, Daemon]) -> None:
    first, _ = pair
    invitation = token("ana", channel="private-1")
    async with sdk_client(first.sdk, token=token("ana")) as (client, _):
        subscription, heard = await subscribed(client, "private-1", token=invitation)
        await subscription.publish({"text": "inside"})
        assert (await heard.next("publication")).pub.info.user == "ana"
    async with Raw(first, {"token": token("bob")}) as bob:
        for refused in (
            {"subscribe": {"channel": "private-1"}},
            {"subscribe": {"channel": "private-1", "token": invitation}},
            {"publish": {"channel": "private-1", "data": {"text": "me too"}}},
            {"history": {"channel": "private-1", "limit": 1}},
            {"presence": {"channel": "private-1"}},
        ):
            assert (await bob.ask(refused))["error"]["code"] == 103
    async with Raw(first, {"token": token("eve", rooms=["private-*"])}) as eve:
        assert "subscribe" in await eve.ask({"subscribe": {"channel": "private-1"}})


@pytest.mark.parametrize("way", ["header", "cookie", "subprotocol"])
async def test_a_token_may_come_with_the_handshake(pair: tuple[Daemon, Daemon], way: str) -> None:
    first, _ = pair
    ways: dict[str, dict[str, Any]] = {
        "header": {"additional_headers": {"Authorization": f"Bearer {token('ana')}"}},
        "cookie": {"additional_headers": {"Cookie": f"chatd_token={token('ana')}", "Origin": first.url}},
        "subprotocol": {"subprotocols": ["chatd.bearer", token("ana")]},
    }
    async with connect(f"{first.ws}/chat/ana?room=lobby", **ways[way]) as plain:
        await plain.send("in")
        if way == "subprotocol":
            assert plain.subprotocol == "chatd.bearer"


async def test_sigterm_tells_everybody_to_come_back_and_exits_with_zero(pair: tuple[Daemon, Daemon]) -> None:
    first, second = pair
    async with Raw(first, {"token": token("ana")}) as ana:
        stopping = asyncio.create_task(asyncio.to_thread(first.stop))
        assert await ana.goodbye() == (3001, "shutdown")
        assert await stopping == 0
    # The first took the store along, which the second takes over at once, but not in no time.
    await until(lambda: second.get("/readyz")[0] == 200)
    assert second.ask("status")["cluster"]["nodes"] == 1


async def test_who_has_left_does_not_come_back_to_renew_his_lease(tmp_path: Path) -> None:
    async with redis_server(tmp_path) as store:
        environ = {"CHATD_CLUSTER__RENEW": "10ms", "CHATD_CLUSTER__LEASE": "30s", "CHATD_REDIS__URL": store.url}
        with (
            running(tmp_path, "--port", "0", **environ) as leaving,
            running(tmp_path, "--port", "0", **environ) as other,
        ):
            assert await asyncio.to_thread(leaving.stop) == 0
            assert other.ask("status")["cluster"]["nodes"] == 1


async def test_a_store_that_goes_away_and_returns_loses_nothing_acknowledged(tmp_path: Path) -> None:
    async with redis_server(tmp_path) as store:
        with running(tmp_path, "--port", "0", **FAST, CHATD_REDIS__URL=store.url, CHATD_REDIS__TIMEOUT="0.3s") as node:
            async with Raw(node) as writer, Raw(node) as reader:
                await reader.ask({"subscribe": {"channel": "lobby"}})
                await writer.ask({"publish": {"channel": "lobby", "data": {"text": "1"}}})
                store.kill()
                refused = await writer.ask({"publish": {"channel": "lobby", "data": {"text": "2", "cid": "c2"}}})
                assert refused["error"]["temporary"] is True
                await until(lambda: node.get("/readyz")[0] == 503)
                with pytest.raises(InvalidStatus) as turned_away:
                    await connect(f"{node.ws}/chat/bob?room=lobby")
                assert (
                    turned_away.value.response.body == b'{"error":"the store does not answer; come again in a moment"}'
                )
                await store.start()
                await until(lambda: node.get("/readyz")[0] == 200)
                again = await writer.ask({"publish": {"channel": "lobby", "data": {"text": "2", "cid": "c2"}}})
                assert "publish" in again
                assert await said_to(reader, 2) == ["1", "2"]


async def test_a_store_that_is_full_is_told_to_whoever_asks_and_has_clients_try_again(tmp_path: Path) -> None:
    message = {"publish": {"channel": "lobby", "data": {"text": "1", "cid": "c1"}}}
    async with redis_server(tmp_path) as store:
        with running(tmp_path, "--port", "0", **FAST, CHATD_REDIS__URL=store.url) as node:
            async with Raw(node) as ana, Redis.from_url(store.url) as operator:
                await operator.config_set("maxmemory", "1mb")
                refused = await ana.ask(message)
                assert (refused["error"]["code"], refused["error"]["temporary"]) == (400, True)
                await until(lambda: node.get("/readyz")[0] == 503)
                full = "the store has no memory left to write to; raise its maxmemory, or have rooms keep less"
                assert json.loads(node.get("/readyz")[1])["reason"] == full
                judged = json.loads(node.cli("doctor", "--json", check=1))["checks"]
                assert "memory" in [check["name"] for check in judged if check["state"] == "fail"]
                await operator.config_set("maxmemory", "0")
                await until(lambda: node.get("/readyz")[0] == 200)
                assert "publish" in await ana.ask(message)


async def test_a_node_whose_store_takes_no_writes_is_not_ready_and_says_why(tmp_path: Path) -> None:
    long = {**FAST, "CHATD_CLUSTER__LEASE": "10m"}  # so that nothing else makes it unready
    async with redis_server(tmp_path) as store, Redis.from_url(store.url) as operator:
        with running(tmp_path, "--port", "0", **long, CHATD_REDIS__URL=store.url) as node:
            await operator.replicaof("127.0.0.1", 1)
            await until(lambda: node.get("/readyz") == (503, '{"ready":false,"reason":"the store is not ready"}'))
            await operator.replicaof("NO", "ONE")
            await until(lambda: node.get("/readyz")[0] == 200)


async def said_to(reader: Raw, count: int) -> list[str]:
    """The next `count` messages that the reader is sent."""
    texts: list[str] = []
    while len(texts) < count:
        pushes = [reply["push"] for reply in await reader.receive() if "push" in reply]
        texts += [push["pub"]["data"]["text"] for push in pushes if "pub" in push]
    return texts


async def until(holds: Any) -> None:
    async with asyncio.timeout(15):
        while not await asyncio.to_thread(holds):
            await asyncio.sleep(0.05)


async def test_a_silent_client_is_found_within_two_heartbeats(tmp_path: Path) -> None:
    heartbeat = {"CHATD_HEARTBEAT__INTERVAL": "1s", "CHATD_HEARTBEAT__TIMEOUT": "0.5s"}
    with running(tmp_path, "--port", "0", **heartbeat) as node:
        async with Raw(node) as ana:
            assert (await ana.goodbye())[0] == 3012, "it was pinged, and never answered"


async def test_limits_refuse_before_accept_and_one_user_has_only_so_many(tmp_path: Path) -> None:
    environ = {"CHATD_LIMITS__CONNECTIONS": "3", "CHATD_LIMITS__CONNECTIONS_PER_USER": "2"}
    with running(tmp_path, "--port", "0", **environ) as node:
        ana = {"data": {"user": "ana"}}
        async with Raw(node, ana), Raw(node, ana):
            third = Raw(node)
            third.socket = await connect(node.sdk)
            await third.send({"id": 1, "connect": ana})
            assert (await third.goodbye())[0] == 3504
            async with Raw(node):
                with pytest.raises(InvalidStatus) as refused:
                    await connect(node.sdk)
                assert refused.value.response.status_code == 503
                assert refused.value.response.headers["Retry-After"] == "2"
                assert "full" in json.loads(refused.value.response.body or b"")["error"]


async def test_who_has_gone_from_many_rooms_counts_no_longer_though_all_are_still_to_be_told(tmp_path: Path) -> None:
    environ = {"CHATD_LIMITS__CONNECTIONS_PER_USER": "1", "CHATD_LIMITS__JOINS_PER_SECOND": "0"}
    with running(tmp_path, "--port", "0", **environ) as node:
        ana = {"data": {"user": "ana"}}
        async with Raw(node, ana) as before:
            for n in range(100):
                assert "subscribe" in await before.ask({"subscribe": {"channel": f"room {n}"}})
            assert "error" in await before.ask({"ping": {}}), "which is answered when the last join has been told"
        async with Raw(node, ana) as after:
            assert "connect" in after.welcome


async def test_connections_that_a_killed_node_had_keep_nobody_out(tmp_path: Path) -> None:
    few = {"CHATD_LIMITS__CONNECTIONS_PER_USER": "2", "CHATD_CLUSTER__ANSWER": "0.5s", "CHATD_CLUSTER__LEASE": "60s"}
    ana = {"data": {"user": "ana"}}
    async with redis_server(tmp_path) as store, AsyncExitStack() as stack:
        first, second, third = (
            stack.enter_context(running(tmp_path, "--port", "0", CHATD_REDIS__URL=store.url, **few)) for _ in range(3)
        )
        for node in (first, second):
            await stack.enter_async_context(Raw(node, ana))
        with pytest.raises(ConnectionClosed, match="3504"):
            await stack.enter_async_context(Raw(third, ana))
        first.kill()
        coming = [stack.enter_async_context(Raw(third, ana)) for _ in range(3)]
        came = await asyncio.gather(*coming, return_exceptions=True)
        assert sorted(type(each).__name__ for each in came) == ["ConnectionClosedError"] * 2 + ["Raw"]


@asynccontextmanager
async def sentinel_url(directory: Path) -> AsyncIterator[str]:
    async with redis_sentinel(directory) as group:
        yield group.url


@pytest.mark.parametrize("servers", [redis_cluster, sentinel_url])
async def test_two_nodes_on_a_redis_cluster_or_a_sentinel_group_are_one_chat(tmp_path: Path, servers: Any) -> None:
    async with servers(tmp_path) as url:
        with (
            running(tmp_path, "--port", "0", CHATD_REDIS__URL=url) as first,
            running(tmp_path, "--port", "0", CHATD_REDIS__URL=url) as second,
        ):
            await talk_and_kick(first, second)


async def talk_and_kick(first: Daemon, second: Daemon) -> None:
    async with Raw(first, {"data": {"user": "ana"}}) as ana, Raw(second, {"data": {"user": "bob"}}) as bob:
        for room in ("lobby", "with {braces}", "日本"):
            await bob.ask({"subscribe": {"channel": room, "join_leave": True}})
            await ana.ask({"subscribe": {"channel": room}})
            await next_push(bob, "join", "ana")
            await ana.ask({"publish": {"channel": room, "data": {"text": room}}})
            assert await said_to(bob, 1) == [room]
        answer = await asyncio.to_thread(first.ask, "status")
        assert answer["cluster"] == {"nodes": 2, "connections": 2, "users": 2, "rooms": 3, "lockdown": 0}
        assert (await asyncio.to_thread(first.ask, "kick", "bob"))["closed"] == 1
        assert await bob.goodbye() == (4500, "kicked by an operator")


async def test_a_subscription_token_is_refreshed_and_an_ended_one_is_refused_gently(
    pair: tuple[Daemon, Daemon],
) -> None:
    first, _ = pair
    async with Raw(first, {"token": token("ana")}) as ana:
        joined = await ana.ask({"subscribe": {"channel": "private-1", "token": token("ana", channel="private-1")}})
        assert joined["subscribe"]["expires"] is True
        refreshed = await ana.ask({"sub_refresh": {"channel": "private-1", "token": token("ana", channel="private-1")}})
        assert refreshed["sub_refresh"]["expires"] is True
        ended = token("ana", channel="private-1", lifetime=-5)
        refused = await ana.ask({"sub_refresh": {"channel": "private-1", "token": ended}})
        assert refused["error"]["code"] == 109
        assert refused["error"]["temporary"] is True
        await ana.send({"id": 99, "sub_refresh": {"channel": "private-1", "token": token("eve", channel="private-1")}})
        assert (await ana.goodbye())[0] == 3500


async def test_sighup_without_the_last_key_lets_nobody_in_and_not_anybody(tmp_path: Path) -> None:
    """Behind a proxy on the same machine a loopback address is everybody's."""
    config = tmp_path / "chatd.toml"
    config.write_text(f'[[auth.keys]]\nkid = "main"\nalgorithm = "HS256"\nsecret = "{SECRET}"\n')
    with running(tmp_path, "--config", str(config), "--port", "0") as node:
        async with Raw(node, {"token": token("ana")}) as ana:
            config.write_text("")
            node.signal(signal.SIGHUP)
            await asyncio.to_thread(node.until_log, "settings reloaded")
            assert any("auth.mode" in line and "restart" in line for line in node.log)
            for connecting in ({"data": {"user": "ana"}}, {"token": token("ana")}):
                async with connect(node.sdk) as nobody:
                    await nobody.send(json.dumps({"id": 1, "connect": connecting}))
                    with pytest.raises(ConnectionClosed, match="token"):
                        await nobody.recv()
            with pytest.raises(InvalidStatus, match="401"):
                await connect(f"{node.ws}/chat/ana?room=lobby")
            assert "presence" in await ana.ask({"presence": {"channel": "lobby"}}), "who is in stays"


async def test_sighup_takes_over_new_settings_and_drops_nobody(tmp_path: Path) -> None:
    config = tmp_path / "chatd.toml"
    config.write_text("")
    with running(tmp_path, "--config", str(config), "--port", "0") as node:
        foreign = {"additional_headers": {"Origin": "https://app.example"}}
        async with Raw(node) as staying:
            with pytest.raises(InvalidStatus):
                await connect(node.sdk, **foreign)
            config.write_text('[server]\norigins = ["https://app.example"]\n[redis]\ntimeout = "3s"\n')
            node.signal(signal.SIGHUP)
            await asyncio.to_thread(node.until_log, "settings reloaded")
            assert any("redis.timeout" in line and "restart" in line for line in node.log)
            await (await connect(node.sdk, **foreign)).close()

            config.write_text("[server]\norigin = 1\n")
            node.signal(signal.SIGHUP)
            await asyncio.to_thread(node.until_log, "did you mean server.origins.*not reloaded")
            await (await connect(node.sdk, **foreign)).close()
            assert "presence" in await staying.ask({"presence": {"channel": "lobby"}})


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/chat/ana?room=lobby", {}, 401),
        ("/chat/bob?room=lobby", {"Authorization": "ana"}, 403),
        ("/chat/ana?room=private-1", {"Authorization": "ana"}, 403),
        ("/chat/ana?room=%00", {"Authorization": "ana"}, 400),
        ("/connection/websocket", {"Authorization": "nobody"}, 401),
        ("/connection/websocket", {"Cookie": "ana"}, 403),
        ("/connection/websocket", {"Cookie": "ana", "Origin": "https://evil.example"}, 403),
        ("/nowhere", {}, 404),
    ],
)
async def test_whom_a_node_does_not_want_it_refuses_before_accepting(
    pair: tuple[Daemon, Daemon], path: str, headers: dict[str, str], status: int
) -> None:
    first, _ = pair
    values = {"Authorization": f"Bearer {token('ana')}", "Cookie": f"chatd_token={token('ana')}"}
    sent = {name: values[name] if value == "ana" else value for name, value in headers.items()}
    if headers.get("Authorization") == "nobody":
        sent["Authorization"] = "Bearer not.a.token"
    with pytest.raises(InvalidStatus) as refused:
        await connect(first.ws + path, additional_headers=sent)
    assert refused.value.response.status_code == status
    assert not any(token("ana")[:20] in line for line in first.log), "tokens are not logged"


async def test_who_does_not_say_who_they_are_is_closed_as_stale(tmp_path: Path) -> None:
    with running(tmp_path, "--port", "0", CHATD_LIMITS__CONNECT_TIMEOUT="0.2s") as node:
        mute = Raw(node)
        mute.socket = await connect(node.sdk)
        assert (await mute.goodbye())[0] == 3502


async def test_a_plain_connection_ends_with_its_token(pair: tuple[Daemon, Daemon]) -> None:
    first, _ = pair
    bearer = {"Authorization": f"Bearer {token('ana', lifetime=1)}"}
    plain = Raw(first)
    plain.socket = await connect(f"{first.ws}/chat/ana?room=lobby", additional_headers=bearer)
    assert await plain.goodbye() == (3005, "connection expired")


async def test_a_client_that_does_not_read_is_cut_at_its_bound_and_the_others_hear_everything(tmp_path: Path) -> None:
    environ = {**FAST, "CHATD_LIMITS__OUTBOX": "64KiB", "CHATD_LIMITS__BYTES_PER_SECOND": "0"}
    with running(tmp_path, "--port", "0", **environ) as node:
        async with Raw(node) as writer, Raw(node) as reader:
            deaf = Raw(node)
            deaf.socket = await connect(node.sdk, max_queue=1)
            await deaf.send({"id": 1, "connect": {}}, {"id": 2, "subscribe": {"channel": "lobby"}})
            await reader.ask({"subscribe": {"channel": "lobby"}})
            await until(lambda: node.ask("rooms")["rooms"] == [{"room": "lobby", "connections": 2, "users": 2}])
            deaf.socket.transport.pause_reading()
            for n in range(1200):  # more than the kernel's buffers and ours hold together
                await writer.ask({"publish": {"channel": "lobby", "data": {"text": str(n), "x": "x" * 7000}}})
                assert await said_to(reader, 1) == [str(n)]
            await until(lambda: "3008" in node.ask("status")["nodes"][0]["closed"])
            assert "chatd_slow_readers_total 1.0" in node.get("/metrics")[1]
            deaf.socket.transport.abort()
