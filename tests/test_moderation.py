"""What operators put in force on one node holds on the other from the moment at which their command returned."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from redis.asyncio import Redis
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from chatd.cli import main
from tests.conftest import Daemon, running
from tests.people import Refused, cluster, person, token
from tests.servers import Server, redis_server

# Everybody may say where he comes from: the tests need addresses other than their own.
# A new room's founder would be its owner.
BEHIND_PROXY = '[rooms."*"]\ncreate = "anybody"\n[server]\ntrusted_proxies = ["127.0.0.0/8"]\n'
PRIVATE = '[rooms."private-*"]\npublic = false\n'


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Daemon, ...]]:
    with cluster(tmp_path_factory.mktemp("moderation"), BEHIND_PROXY + PRIVATE) as both:
        yield both


async def run(node: Daemon, *arguments: str, code: int = 0) -> str:
    """What a command prints; other tasks go on meanwhile. In this process: a new one costs more than the command."""
    config = node.arguments[: node.arguments.index("--port")]
    outside = {name: None for name in os.environ if name.startswith("CHATD_")}
    runner = CliRunner(env={**outside, **node.environ})
    done = await asyncio.to_thread(runner.invoke, main, [*config, *arguments])
    assert done.exit_code == code, f"exit {done.exit_code}: {done.output}"
    return done.stdout


async def ask(node: Daemon, *arguments: str) -> Any:
    return json.loads(await run(node, *arguments, "--json"))


async def refused(node: Daemon, user: str, address: str = "", **claims: Any) -> int:
    """The status with which a handshake from `address` is refused; 0: it is not."""
    headers = {"Authorization": f"Bearer {token(user, **claims)}"}
    try:
        async with connect(node.sdk, additional_headers={**headers, "X-Forwarded-For": address}):
            return 0
    except InvalidStatus as refusal:
        return refusal.response.status_code


# --- bans -------------------------------------------------------------------------------------------------------------


async def test_a_user_banned_on_one_node_is_gone_from_the_other_and_cannot_return(nodes: tuple[Daemon, ...]) -> None:
    async with person(nodes[1], "eve") as eve:
        told = await ask(nodes[0], "ban", "add", "eve", "--reason", "spam", "--for", "1h")
        assert await eve.goodbye() == (4502, "spam")
    assert (told["closed"], told["on"], told["target"], told["room"]) == (1, "user", "eve", "")
    assert told["until"] == pytest.approx(told["at"] + 3600)
    for node in nodes:
        async with connect(node.sdk) as socket:
            await socket.send(json.dumps({"id": 1, "connect": {"token": token("eve")}}))
            await socket.wait_closed()
            assert (socket.close_code, socket.close_reason) == (4502, "spam")
    assert await ask(nodes[1], "ban", "rm", "eve") == {"schema_version": 1, "lifted": True}
    async with person(nodes[0], "eve"):
        pass


async def test_a_token_is_banned_alone(nodes: tuple[Daemon, ...]) -> None:
    async with person(nodes[0], "fay", jti="lost-phone") as lost, person(nodes[1], "fay", jti="desk") as desk:
        await run(nodes[1], "ban", "add", "token:lost-phone")
        assert (await lost.goodbye())[0] == 4502
        await desk.says("lobby", "still here")


async def test_nobody_comes_in_from_a_banned_network_by_any_door(nodes: tuple[Daemon, ...]) -> None:
    assert await refused(nodes[0], "gus", "198.51.100.9") == 0
    async with (
        connect(nodes[1].sdk, additional_headers={"X-Forwarded-For": "198.51.100.9"}) as unknown,
        connect(
            f"{nodes[1].ws}/chat/gus",
            additional_headers={"Authorization": f"Bearer {token('gus')}", "X-Forwarded-For": "198.51.100.9"},
        ) as plain,
    ):
        await until_seated(nodes[1], "gus")
        await run(nodes[0], "ban", "add", "198.51.100.0/24")
        await plain.wait_closed()
        assert plain.close_code == 4502
        await unknown.send(json.dumps({"id": 1, "connect": {"token": token("gus")}}))
        await unknown.wait_closed()
        assert unknown.close_code == 4502
    for node in nodes:
        assert await refused(node, "gus", "198.51.100.77") == 403
        assert await refused(node, "gus", "198.51.101.77") == 0
    await run(nodes[0], "ban", "rm", "198.51.100.0/24")
    assert await refused(nodes[1], "gus", "198.51.100.77") == 0


async def until_seated(node: Daemon, user: str) -> None:
    while not (await ask(node, "who", "--user", user))["connections"]:
        pass


async def test_whoever_is_banned_from_a_room_is_put_out_of_it_and_of_it_only(nodes: tuple[Daemon, ...]) -> None:
    async with person(nodes[0], "hal") as hal:
        await hal.joins("banned-here")
        await hal.joins("other")
        told = await ask(nodes[1], "ban", "add", "hal", "--room", "banned-here", "--reason", "off topic")
        assert told["closed"] == 1
        assert await hal.sees("unsubscribe", "banned-here") == {"code": 2000, "reason": "off topic"}
        commands: list[dict[str, Any]] = [
            {"subscribe": {"channel": "banned-here"}},
            {"history": {"channel": "banned-here", "limit": 1}},
            {"presence": {"channel": "banned-here"}},
            {"publish": {"channel": "banned-here", "data": {"text": "hi"}}},
            {"rpc": {"method": "message.send", "data": {"room": "banned-here", "text": "hi"}}},
        ]
        for command in commands:
            with pytest.raises(Refused, match="banned from this room: off topic") as no:
                await hal.ask(**command)
            assert no.value.code == 403
        await hal.says("other", "hi")


async def test_a_ban_may_come_before_the_banned(nodes: tuple[Daemon, ...]) -> None:
    assert (await ask(nodes[0], "ban", "add", "ida", "--room", "ahead"))["closed"] == 0
    async with person(nodes[1], "ida") as ida:
        with pytest.raises(Refused) as no:
            await ida.joins("ahead")
        assert no.value.code == 403


async def test_measures_may_come_before_the_first_node(tmp_path: Path) -> None:
    async with redis_server(tmp_path) as store:
        environ = {"CHATD_REDIS__URL": store.url}

        def cli(*arguments: str) -> Result:
            return CliRunner(env=environ).invoke(main, arguments)

        for command, done in (("ban add mia", "banned user 'mia' everywhere"), ("lockdown 2", "2: only moderators")):
            result = await asyncio.to_thread(cli, *command.split())
            assert (result.exit_code, result.stdout.startswith(done)) == (0, True)
            assert result.stderr == "chatd: no chatd is alive on this store; it holds for each that comes\n"
        with running(tmp_path, "--port", "0", **environ) as node:
            async with connect(f"{node.ws}/chat/mia?room=tea") as mia:
                await mia.wait_closed()
            assert mia.close_code == 4502
            assert node.ask("lockdown")["lockdown"] == 2


async def test_a_plain_client_banned_from_its_room_is_closed(nodes: tuple[Daemon, ...]) -> None:
    headers = {"Authorization": f"Bearer {token('jan')}"}
    async with connect(f"{nodes[0].ws}/chat/jan?room=plain", additional_headers=headers) as jan:
        await until_seated(nodes[0], "jan")
        await run(nodes[1], "ban", "add", "jan", "--room", "plain", "--reason", "enough")
        await jan.wait_closed()
        assert (jan.close_code, jan.close_reason) == (4500, "enough")


async def test_a_fresh_token_that_opens_less_ends_what_it_opens_no_more(nodes: tuple[Daemon, ...]) -> None:
    async with person(nodes[0], "yan", rooms=["private-*"]) as yan:
        await yan.joins("private-kept")
        await yan.joins("private-lost")
        await yan.ask(refresh={"token": token("yan", rooms=["private-kept"])})
        assert await yan.sees("unsubscribe") == {"code": 2000, "reason": "this room is not open to you any more"}
        assert await refusal_code(yan, "private-lost") == 103
        await yan.says("private-kept", "hi")


async def test_a_banned_token_is_not_taken_for_a_fresh_one(nodes: tuple[Daemon, ...]) -> None:
    async with person(nodes[0], "zac", jti="good") as zac:
        await run(nodes[1], "ban", "add", "token:stolen")
        with pytest.raises(ConnectionClosed):
            await zac.ask(refresh={"token": token("zac", jti="stolen")})
        assert (await zac.goodbye())[0] == 4502


# --- mutes ------------------------------------------------------------------------------------------------------------


async def test_a_user_muted_on_one_node_is_silent_on_the_other_and_reads_on(nodes: tuple[Daemon, ...]) -> None:
    async with person(nodes[1], "kim") as kim, person(nodes[0], "lea") as lea:
        await kim.joins("muted")
        await run(nodes[0], "mute", "add", "kim", "--room", "muted", "--for", "10m", "--reason", "shouting")
        with pytest.raises(Refused, match="muted: shouting") as no:
            await kim.says("muted", "HI")
        assert no.value.code == 401
        assert no.value.retry_after_ms is not None
        assert 590_000 < no.value.retry_after_ms <= 600_000
        await lea.says("muted", "hello kim")
        assert (await kim.hears("message"))["data"]["text"] == "hello kim"
        await kim.says("elsewhere", "hi")
        await run(nodes[1], "mute", "rm", "kim", "--room", "muted")
        await kim.says("muted", "sorry")


async def test_a_mute_ends_by_itself(nodes: tuple[Daemon, ...]) -> None:
    async with person(nodes[0], "max") as maxi:
        await run(nodes[1], "mute", "add", "max", "--for", "1s")
        with pytest.raises(Refused) as no:
            await maxi.says("lobby", "hi")
        await asyncio.sleep((no.value.retry_after_ms or 0) / 1000 + 0.001)
        await maxi.says("lobby", "hi")


# --- list, info, codes ------------------------------------------------------------------------------------------------


async def test_who_why_when_and_how_often_are_told(nodes: tuple[Daemon, ...]) -> None:
    before = time.time()
    await run(nodes[0], "ban", "add", "ned", "--reason", "ads")
    for _ in range(2):
        async with connect(nodes[1].sdk) as socket:
            await socket.send(json.dumps({"id": 1, "connect": {"token": token("ned")}}))
            await socket.wait_closed()
    async with asyncio.timeout(10):
        while (row := await ask(nodes[0], "ban", "info", "ned"))["hits"] < 2:
            pass
    assert (row["what"], row["on"], row["target"], row["room"]) == ("ban", "user", "ned", "")
    assert (row["until"], row["reason"], row["hits"]) == (None, "ads", 2)
    assert "@" in row["by"]
    assert before - 5 < row["at"] < time.time() + 5
    bans = (await ask(nodes[1], "ban", "ls", "--room", ""))["bans"]
    assert bans[0]["target"] == "ned"
    assert "ned" not in json.dumps(await ask(nodes[1], "mute", "ls"))
    assert "ads" in await run(nodes[0], "ban", "ls")
    assert "ads" in await run(nodes[0], "ban", "info", "ned")


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("ban", "rm", "nobody"), 4),
        (("ban", "info", "nobody"), 4),
        (("mute", "info", "ned"), 4),
        (("ban", "add", ""), 2),
        (("mute", "add", "203.0.113.0/33"), 2),
        (("ban", "add", "x", "--for", "soon"), 2),
        (("mute", "add", "x", "--for", "999999999999d"), 2),
        (("lockdown", "4"), 2),
    ],
)
async def test_what_cannot_be_done_has_its_exit_code(
    nodes: tuple[Daemon, ...], arguments: tuple[str, ...], code: int
) -> None:
    await run(nodes[0], *arguments, code=code)


# --- lockdown ---------------------------------------------------------------------------------------------------------


async def test_a_lockdown_closes_step_by_step(nodes: tuple[Daemon, ...]) -> None:
    moderator = {"rooms": [{"pattern": "*", "role": "moderator"}]}
    async with (
        person(nodes[0], "ole") as guest,
        person(nodes[1], "pia", rooms=["*"]) as member,
        person(nodes[1], "quin", **moderator) as boss,
    ):
        speaks = {
            "0": (True, True, True), "1": (False, True, True), "2": (False, False, True), "3": (False, False, True),
        }  # fmt: skip
        try:
            for level, expected in speaks.items():
                assert (await ask(nodes[0], "lockdown", level)) == {"schema_version": 1, "lockdown": int(level)}
                assert (await ask(nodes[1], "lockdown"))["lockdown"] == int(level)
                assert (await ask(nodes[1], "status"))["cluster"]["lockdown"] == int(level)
                assert tuple([await heard(each) for each in (guest, member, boss)]) == expected
            for command in ("room.create", "room.join"):
                with pytest.raises(Refused) as no:
                    await guest.call(command, room="raided", **({"public": True} if command == "room.create" else {}))
                assert no.value.code == 416
            assert [await refused(node, "ole") for node in nodes] == [503, 503]
        finally:
            await run(nodes[1], "lockdown", "0")
        assert await refused(nodes[0], "ole") == 0


async def heard(somebody: Any) -> bool:
    try:
        await somebody.says("lobby", "hi")
    except Refused as no:
        assert no.code == 416
        return False
    return True


async def test_whoever_shook_hands_before_a_lockdown_does_not_come_in_during_it(nodes: tuple[Daemon, ...]) -> None:
    async with connect(nodes[1].sdk) as waiting:
        await run(nodes[0], "lockdown", "3")
        try:
            await waiting.send(json.dumps({"id": 1, "connect": {"token": token("rob")}}))
            await waiting.wait_closed()
            assert waiting.close_code == 4000
        finally:
            await run(nodes[0], "lockdown", "0")


# --- who was away -----------------------------------------------------------------------------------------------------


async def test_a_node_that_was_away_takes_in_what_it_missed(tmp_path: Path) -> None:
    with cluster(tmp_path, CHATD_CLUSTER__LEASE="60s", CHATD_CLUSTER__ANSWER="0.3s") as (first, second):
        async with person(second, "sam") as sam, person(second, "tom") as tom:
            os.kill(second.process.pid, signal.SIGSTOP)
            try:
                await run(first, "ban", "add", "sam", "--reason", "late", code=1)
                await run(first, "mute", "add", "tom", code=1)
            finally:
                os.kill(second.process.pid, signal.SIGCONT)
            assert await sam.goodbye() == (4502, "late")
            async with asyncio.timeout(10):
                while await muted(tom) is False:
                    await asyncio.sleep(0.05)


async def test_a_node_that_was_given_up_lets_nobody_speak_before_it_knows_what_it_missed(tmp_path: Path) -> None:
    with cluster(tmp_path) as (first, second):
        async with person(second, "sam") as sam, person(second, "tom") as tom, person(first, "uma") as uma:
            await uma.joins("lobby", join_leave=True)
            await sam.joins("lobby")
            while (await uma.sees("join", "lobby"))["info"]["user"] != "sam":
                pass
            os.kill(second.process.pid, signal.SIGSTOP)
            try:
                await uma.sees("leave", "lobby")
                await run(first, "ban", "add", "sam")
                await run(first, "mute", "add", "tom", "--room", "lobby")
                saying = [asyncio.create_task(each.says("lobby", "too late")) for each in (sam, tom)]
                await asyncio.sleep(0)
            finally:
                os.kill(second.process.pid, signal.SIGCONT)
            said = await asyncio.gather(*saying, return_exceptions=True)
            assert all(isinstance(outcome, Refused | ConnectionClosed) for outcome in said)
            async with asyncio.timeout(10):
                while not await muted(tom):
                    await asyncio.sleep(0.05)
            assert await sam.goodbye() == (4502, "banned")
            assert (await uma.ask(history={"channel": "lobby", "limit": 9})).get("publications", []) == []


async def test_whoever_lost_a_room_while_his_node_was_given_up_is_put_out_of_it(tmp_path: Path, store: Server) -> None:
    with cluster(tmp_path, '[rooms."*"]\ncreate = "anybody"\n', CHATD_REDIS__URL=store.url) as (first, second):
        async with (
            person(first, "uma") as uma,
            person(second, "sam") as sam,
            person(second, "tom") as tom,
            Redis.from_url(store.url) as operator,
        ):
            await uma.call("room.create", room="den", public=False, members=["sam", "tom"])
            await uma.joins("den", join_leave=True)
            for each in (sam, tom):
                await each.joins("den")
            os.kill(second.process.pid, signal.SIGSTOP)
            try:
                await uma.sees("leave", "den")
                await operator.execute_command("CLIENT", "KILL", "TYPE", "pubsub")  # what is said now, it never hears
                await uma.call("room.role", room="den", user="sam", role="nobody")
            finally:
                os.kill(second.process.pid, signal.SIGCONT)
            assert (await sam.sees("unsubscribe", "den"))["code"] == 2000
            await uma.says("den", "among us")
            assert (await tom.publication("den"))["data"]["text"] == "among us"


async def muted(somebody: Any) -> bool:
    return await refusal_code(somebody) == 401


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Server]:
    async with redis_server(tmp_path / "store") as server:
        yield server


async def test_what_is_in_force_outlives_the_stores_death(tmp_path: Path, store: Server) -> None:
    with cluster(tmp_path, CHATD_REDIS__URL=store.url) as nodes:
        first, second = nodes
        async with person(second, "wim") as wim, person(second, "xia") as xia, Redis.from_url(store.url) as operator:
            await operator.config_set("appendfsync", "always")  # else what a crash may take is not promised
            await run(first, "mute", "add", "wim")
            store.kill()
            assert await muted(wim)
            await store.start()
            async with asyncio.timeout(20):
                while not await all_ready(nodes):
                    await asyncio.sleep(0.05)
            assert await muted(wim)
            await run(first, "ban", "add", "xia")
            assert (await xia.goodbye())[0] == 4502
            assert [row["target"] for row in (await ask(second, "mute", "ls"))["mutes"]] == ["wim"]


async def all_ready(nodes: tuple[Daemon, ...]) -> bool:
    return all([(await asyncio.to_thread(node.get, "/readyz"))[0] == 200 for node in nodes])


async def refusal_code(somebody: Any, room: str = "lobby") -> int:
    try:
        await somebody.says(room, "hi")
    except Refused as no:
        return no.code
    return 0


async def test_what_is_in_force_outlives_the_nodes(tmp_path: Path, store: Server) -> None:
    with cluster(tmp_path, nodes=1, CHATD_REDIS__URL=store.url) as (node,):
        await run(node, "ban", "add", "uma")
        await run(node, "lockdown", "1")
    with cluster(tmp_path, nodes=1, CHATD_REDIS__URL=store.url) as (node,):
        assert (await ask(node, "lockdown"))["lockdown"] == 1
        async with connect(node.sdk) as socket:
            await socket.send(json.dumps({"id": 1, "connect": {"token": token("uma")}}))
            await socket.wait_closed()
            assert socket.close_code == 4502
        async with person(node, "vic") as vic:
            assert await heard(vic) is False
