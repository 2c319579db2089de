"""The HTTP API for the application's back end, by the official `cent` library and by hand, on two real nodes."""

from __future__ import annotations

import json
import signal
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cent
import pytest

from tests.conftest import Daemon
from tests.people import Person, cluster, person, token
from tests.sdk import sdk_client

SECRET = "the secret of the shop's back end"
NARROW = "a secret that opens next to nothing"
CONFIG = f"""
[api]
body = "64KiB"
[[api.keys]]
name = "shop"
secret = "{SECRET}"
scopes = ["*"]
users = ["*"]
[[api.keys]]
name = "bot"
secret = "{NARROW}"
scopes = ["publish", "message.*"]
users = ["bot-*"]
[rooms."silent-*"]
history = 0
presence = false
[rooms."private-*"]
public = false
"""


def admin_of(node: Daemon) -> str:
    return f"http://{node.until_log(r'health and metrics +http://([^/]+)/')[1]}"


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Daemon, ...]]:
    with cluster(tmp_path_factory.mktemp("api"), CONFIG, CHATD_ADMIN__LISTEN="127.0.0.1:0") as both:
        yield both


@pytest.fixture
async def client(nodes: tuple[Daemon, ...]) -> Any:
    async with cent.AsyncClient(f"{admin_of(nodes[0])}/api", SECRET) as client:
        yield client


def post(
    node: Daemon, method: str, data: Any = None, *, key: str | None = SECRET, body: bytes | None = None
) -> tuple[int, Any]:
    """Status and answer of a request by hand."""
    headers = {"Content-Type": "application/json"} | ({"X-API-Key": key} if key is not None else {})
    content = body if body is not None else json.dumps(data or {}).encode()
    request = urllib.request.Request(f"{admin_of(node)}/api/{method}", content, headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


# --- the official library ---------------------------------------------------------------------------------------------


async def test_what_the_back_end_publishes_is_heard_on_the_other_node(nodes: Any, client: cent.AsyncClient) -> None:
    async with person(nodes[1], "ana") as ana:
        await ana.joins("news")
        said = await client.publish(cent.PublishRequest(channel="news", data={"text": "hi"}, tags={"lang": "en"}))
        heard = await ana.hears("message")
        assert (heard["data"], heard["offset"]) == ({"text": "hi"}, said.offset)
        assert heard["tags"] == {"type": "message", "lang": "en"}
        assert "info" not in heard, "the server has no connection"


async def test_a_repeated_publish_returns_the_first_answer(client: cent.AsyncClient) -> None:
    request = cent.PublishRequest(channel="once", data={}, idempotency_key="k-1")
    first = await client.publish(request)
    assert (await client.publish(request), first.offset) == (first, 1)
    other = await client.publish(cent.PublishRequest(channel="once", data={}, idempotency_key="k-2"))
    assert other.offset == 2


async def test_a_publish_is_not_repeated_in_a_room_that_was_deleted_since(nodes: Any, client: cent.AsyncClient) -> None:
    for _ in range(2):
        post(nodes[0], "room.create", {"room": "anew", "public": True})
        await client.publish(cent.PublishRequest(channel="anew", data={"text": "welcome"}, idempotency_key="k-1"))
        page = await client.history(cent.HistoryRequest(channel="anew", limit=10))
        assert [each.data for each in page.publications] == [{"text": "welcome"}]
        post(nodes[0], "room.delete", {"room": "anew"})


async def test_what_is_not_kept_is_heard_by_who_is_there(nodes: Any, client: cent.AsyncClient) -> None:
    async with person(nodes[1], "ana") as ana:
        await ana.joins("gone")
        said = await client.publish(cent.PublishRequest(channel="gone", data={"n": 1}, skip_history=True))
        assert said.offset == 0
        assert (await ana.hears("message"))["data"] == {"n": 1}
        assert (await client.history(cent.HistoryRequest(channel="gone", limit=10))).publications == []


async def test_a_broadcast_answers_for_each_channel(client: cent.AsyncClient) -> None:
    answer = await client.broadcast(cent.BroadcastRequest(channels=["b-1", "b\u202e", "#ana"], data={"text": "hi"}))
    landed, refused, personal = answer.responses
    assert landed.result is not None and landed.result.offset == 1
    assert refused.error is not None and refused.error.code == 107
    assert personal.result is not None, "the server writes into personal channels"


def test_what_may_be_left_out_may_be_null_as_many_libraries_write_it(nodes: Any) -> None:
    absent = {"idempotency_key": None, "tags": None, "skip_history": None, "b64data": None, "as": None}
    status, answer = post(nodes[0], "publish", {"channel": "nulls", "data": None, **absent})
    assert (status, answer["result"]["offset"]) == (200, 1)
    status, answer = post(nodes[0], "history", {"channel": "nulls", "limit": 1, "reverse": None, "since": None})
    assert (status, [each["data"] for each in answer["result"]["publications"]]) == (200, [None])
    batch = {"commands": [{"publish": {"channel": "nulls", "data": 1, "tags": None}}], "parallel": None}
    assert post(nodes[0], "batch", batch)[1]["replies"][0]["publish"]["offset"] == 2


async def test_history_has_pages_and_can_be_removed(client: cent.AsyncClient) -> None:
    for n in range(3):
        await client.publish(cent.PublishRequest(channel="past", data={"n": n}))
    first = await client.history(cent.HistoryRequest(channel="past", limit=2))
    assert ([each.data["n"] for each in first.publications], first.offset) == ([0, 1], 3)
    since = cent.StreamPosition(offset=2, epoch=first.epoch)
    rest = await client.history(cent.HistoryRequest(channel="past", limit=2, since=since))
    assert [each.data["n"] for each in rest.publications] == [2]
    back = await client.history(cent.HistoryRequest(channel="past", limit=1, reverse=True))
    assert [each.data["n"] for each in back.publications] == [2]
    await client.history_remove(cent.HistoryRemoveRequest(channel="past"))
    after = await client.history(cent.HistoryRequest(channel="past", limit=9))
    assert (after.publications, after.offset) == ([], 3)


async def test_presence_is_of_all_nodes(nodes: Any, client: cent.AsyncClient) -> None:
    async with person(nodes[0], "ana") as ana, person(nodes[1], "ben", info={"team": 7}) as ben:
        await ana.joins("hall", join_leave=True)
        await ben.joins("hall")
        await ana.sees("join")
        await ana.sees("join")
        present = (await client.presence(cent.PresenceRequest(channel="hall"))).presence
        assert {(each.user, json.dumps(each.conn_info)) for each in present.values()} == {
            ("ana", "null"),
            ("ben", '{"team": 7}'),
        }
        stats = await client.presence_stats(cent.PresenceStatsRequest(channel="hall"))
        assert (stats.num_clients, stats.num_users) == (2, 2)


async def test_a_user_is_brought_into_a_room_and_put_out_of_it(nodes: Any, client: cent.AsyncClient) -> None:
    async with person(nodes[1], "ana") as ana:
        await client.publish(cent.PublishRequest(channel="private-1", data={"n": 1}))
        first = await client.publish(cent.PublishRequest(channel="private-1", data={"n": 2}))
        since = cent.StreamPosition(offset=1, epoch=first.epoch)
        await client.subscribe(cent.SubscribeRequest(user="ana", channel="private-1", recover_since=since))
        entered = await ana.sees("subscribe", "private-1")
        assert (entered["offset"], entered["epoch"], entered["recoverable"]) == (1, first.epoch, True)
        assert (await ana.hears("message", "private-1"))["data"] == {"n": 2}, "what was missed follows"
        await client.publish(cent.PublishRequest(channel="private-1", data={"n": 3}))
        assert (await ana.hears("message", "private-1"))["data"] == {"n": 3}
        await client.unsubscribe(cent.UnsubscribeRequest(user="ana", channel="private-1"))
        assert (await ana.sees("unsubscribe", "private-1"))["code"] == 2000


@pytest.mark.parametrize("channel", ["#ben", "dm#ben,cem"])
async def test_nobody_is_brought_into_what_is_others_by_its_name(nodes: Any, channel: str) -> None:
    async with person(nodes[1], "ana"):
        status, answer = post(nodes[0], "subscribe", {"user": "ana", "channel": channel})
        assert (status, answer["error"]["code"]) == (200, 103)
        assert post(nodes[0], "subscribe", {"user": "ana", "channel": "dm#ana,ben"}) == (200, {"result": {}})


async def test_the_official_sdk_knows_that_the_server_brought_it_in(nodes: Any, client: cent.AsyncClient) -> None:
    async with sdk_client(nodes[1].sdk, token=token("sam")) as (_, heard):
        await heard.next("subscribed")  # its own channel, at connect
        await client.subscribe(cent.SubscribeRequest(user="sam", channel="private-3"))
        assert (await heard.next("subscribed")).channel == "private-3"
        await client.publish(cent.PublishRequest(channel="private-3", data={"text": "hi"}))
        said = await heard.next("publication")
        assert (said.channel, said.pub.data) == ("private-3", {"text": "hi"})


async def test_a_user_is_disconnected_but_for_who_may_stay(nodes: Any, client: cent.AsyncClient) -> None:
    async with person(nodes[0], "eve") as stays, person(nodes[1], "eve") as goes, person(nodes[1], "ana") as other:
        white = await own_connection(stays)
        await client.disconnect(cent.DisconnectRequest(user="eve", whitelist=[white]))
        assert await goes.goodbye() == (3503, "force disconnect")
        last = cent.Disconnect(code=4999, reason="and stay away")
        await client.disconnect(cent.DisconnectRequest(user="eve", client=white, disconnect=last))
        assert await stays.goodbye() == (4999, "and stay away")
        await other.joins("still-here")


async def own_connection(somebody: Person) -> str:
    await somebody.joins("mirror")
    await somebody.ask(publish={"channel": "mirror", "data": {}})
    client: str = (await somebody.hears("message", "mirror"))["info"]["client"]
    return client


async def test_the_nodes_and_the_channels_are_listed(nodes: Any, client: cent.AsyncClient) -> None:
    async with person(nodes[0], "ana") as ana, person(nodes[1], "ben") as ben:
        await ana.joins("listed-1")
        await ben.joins("listed-1")
        await ben.joins("listed-2")
        found = await client.channels(cent.ChannelsRequest(pattern="listed-*"))
        assert {name: each.num_clients for name, each in found.channels.items()} == {"listed-1": 2, "listed-2": 1}
        info = await client.info(cent.InfoRequest())
        assert len(info.nodes) == 2
        assert sum(node.num_clients for node in info.nodes) >= 2
        assert sum(node.num_subs for node in info.nodes) >= 5


@pytest.mark.parametrize("parallel", [False, True])
async def test_a_batch_answers_each_in_order(client: cent.AsyncClient, parallel: bool) -> None:
    requests = [
        cent.PublishRequest(channel=f"batch-{parallel}", data={"n": 1}),
        cent.PresenceStatsRequest(channel="batch"),
        cent.HistoryRequest(channel="batch"),
    ]
    said, present, _ = (await client.batch(cent.BatchRequest(requests=requests, parallel=parallel))).replies
    assert (said.offset, present.num_clients) == (1, 0)


async def test_a_refusal_is_an_error_of_the_librarys(client: cent.AsyncClient) -> None:
    with pytest.raises(cent.CentApiResponseError) as refused:
        await client.history(cent.HistoryRequest(channel="silent-1", limit=1))
    assert refused.value.code == 108
    with pytest.raises(cent.CentApiResponseError) as refused:
        await client.presence(cent.PresenceRequest(channel="silent-1"))
    assert refused.value.code == 108


async def test_a_wrong_key_is_the_librarys_unauthorized(nodes: Any) -> None:
    async with cent.AsyncClient(f"{admin_of(nodes[0])}/api", "not the key") as stranger:
        with pytest.raises(cent.CentUnauthorizedError):
            await stranger.info(cent.InfoRequest())


# --- chat's own methods -----------------------------------------------------------------------------------------------


async def test_the_back_end_speaks_as_a_user_as_far_as_the_user_may(nodes: Any) -> None:
    async with person(nodes[1], "ben", rooms=["private-*"]) as ben:
        await ben.joins("private-2")
        status, answer = post(nodes[0], "message.send", {"room": "private-2", "text": "hi", "as": "ana"})
        assert (status, answer["result"]["offset"]) == (200, 1)
        heard = await ben.hears("message")
        assert (heard["info"]["user"], heard["data"]) == ("ana", {"text": "hi"})
        post(nodes[1], "mute", {"target": "ana", "reason": "caps"})
        status, answer = post(nodes[0], "message.send", {"room": "private-2", "text": "HI", "as": "ana"})
        assert (status, answer["error"]["code"]) == (200, 401)
        assert post(nodes[0], "unmute", {"target": "ana"})[1]["result"] == {"lifted": True}
        assert post(nodes[0], "message.send", {"room": "#ben", "text": "psst", "as": "ana"})[1]["error"]["code"] == 103


async def test_the_back_end_speaks_as_the_server(nodes: Any) -> None:
    async with person(nodes[1], "ana") as ana:
        assert post(nodes[0], "message.send", {"room": "#ana", "text": "you have won"})[1]["result"]["offset"] >= 1
        assert (await ana.hears("message", "#ana"))["data"] == {"text": "you have won"}


async def test_whose_words_came_by_the_back_end_are_shown_without_the_name_of_its_key(nodes: Any) -> None:
    async with person(nodes[1], "ben") as ben:
        await ben.joins("neutral")
        post(nodes[0], "message.send", {"room": "neutral", "text": "hi", "as": "ana"})
        assert (await ben.hears("message"))["info"] == {"user": "ana", "client": "api"}
        post(nodes[0], "typing", {"room": "neutral", "on": True, "as": "ana"})
        assert (await ben.hears("typing"))["info"] == {"user": "ana", "client": "api"}


async def test_whom_the_server_moderates_is_not_told_the_name_of_its_key(nodes: Any) -> None:
    async with person(nodes[1], "ugo") as ugo:
        assert post(nodes[0], "mod.mute", {"room": "told", "user": "ugo"})[1]["result"] == {"until": None}
        assert (await ugo.hears("mute", "#ugo"))["data"]["by"] == ""
        post(nodes[0], "mod.unmute", {"room": "told", "user": "ugo"})
        assert (await ugo.hears("unmute", "#ugo"))["data"]["by"] == ""


async def test_the_back_end_makes_rooms_and_says_who_belongs_to_them(nodes: Any) -> None:
    made = post(nodes[0], "room.create", {"room": "made", "public": False, "members": ["ana"]})
    assert made == (200, {"result": {}})
    assert post(nodes[1], "room.create", {"room": "made", "public": True})[1]["error"]["code"] == 406
    assert post(nodes[0], "room.role", {"room": "made", "user": "ana", "role": "moderator"})[1] == {"result": {}}
    assert post(nodes[0], "room.info", {"room": "made", "as": "ana"})[1]["result"]["role"] == "moderator"
    async with person(nodes[1], "ana") as ana:
        await ana.joins("made")
        post(nodes[0], "room.delete", {"room": "made"})
        assert (await ana.sees("unsubscribe", "made"))["code"] == 2000


async def test_the_back_end_deletes_and_edits_what_others_said(nodes: Any) -> None:
    async with person(nodes[1], "ana") as ana:
        await ana.joins("edited")
        offset = await ana.says("edited", "teh")
        deleted = post(nodes[0], "message.delete", {"room": "edited", "offset": offset, "reason": "typo"})[1]
        assert deleted["result"]["offset"] == offset + 1
        heard = await ana.hears("delete")
        assert (heard["data"], heard["tags"]["of"]) == ({"reason": "typo"}, str(offset))
        [message] = post(nodes[0], "message.history", {"room": "edited"})[1]["result"]["messages"]
        assert message["deleted"]


async def test_an_operators_acts_hold_on_all_nodes_and_stand_in_the_audit_stream(nodes: Any) -> None:
    async with person(nodes[1], "eve") as eve:
        status, answer = post(nodes[0], "ban", {"target": "eve", "for": 60, "reason": "spam"})
        assert (status, answer["result"]["closed"]) == (200, 1)
        assert await eve.goodbye() == (4502, "spam")
    rows = post(nodes[1], "measures")[1]["result"]["measures"]
    assert [(row["target"], row["by"], row["reason"]) for row in rows] == [("eve", "api:shop", "spam")]
    assert post(nodes[0], "unban", {"target": "eve"})[1]["result"] == {"lifted": True}
    assert post(nodes[0], "lockdown", {"level": 2})[1] == {"result": {"level": 2}}
    assert post(nodes[1], "lockdown", {"level": 0})[1] == {"result": {"level": 0}}
    async with person(nodes[0], "eve") as eve:
        assert post(nodes[1], "kick", {"target": "eve"})[1]["result"]["closed"] == 1
        assert (await eve.goodbye())[0] == 4500


async def test_an_address_of_ipv4_is_the_same_however_an_operator_writes_it(nodes: Any) -> None:
    banned = {"target": "::ffff:192.0.2.7", "on": "address"}
    post(nodes[0], "ban", banned)
    [row] = post(nodes[1], "measures")[1]["result"]["measures"]
    assert row["target"] == "192.0.2.7/32", "as the command line has it, which can lift it"
    assert post(nodes[1], "unban", banned)[1]["result"] == {"lifted": True}
    async with person(nodes[0], "eve") as eve:
        assert [each["user"] for each in nodes[1].ask("who", "--ip", "::ffff:127.0.0.1")["connections"]] == ["eve"]
        assert post(nodes[1], "kick", {"address": "::ffff:127.0.0.1"})[1]["result"]["closed"] == 1
        assert (await eve.goodbye())[0] == 4500


async def test_an_operator_looks_after_reports_tokens_and_people_who_go(nodes: Any) -> None:
    async with person(nodes[1], "ugo") as ugo, person(nodes[0], "ana") as ana:
        offset = await ugo.says("mess", "rude")
        filed = (await ana.call("report", room="mess", offset=offset, reason="rude"))["id"]
        [report] = post(nodes[0], "reports", {"room": "mess"})[1]["result"]["reports"]
        assert (report["id"], report["user"], report["by"]) == (filed, "ugo", "ana")
        assert post(nodes[1], "close_report", {"id": filed})[1] == {"result": {}}
        assert post(nodes[1], "close_report", {"id": filed})[1]["error"]["code"] == 404
        assert post(nodes[0], "revoke", {"user": "ugo"})[1]["result"]["closed"] == 1
        assert post(nodes[0], "revoke", {"key": "unheard-of"})[1]["result"]["closed"] == 0
        assert (await ugo.goodbye())[0] == 4501
        assert post(nodes[0], "forget", {"user": "ugo"})[1]["result"]["messages"] == 1
    acts = post(nodes[0], "audit")[1]["result"]["acts"]
    assert {act["ask"] for act in acts if act["by"] == "api:shop"} >= {"revoke", "forget", "report.close"}
    assert post(nodes[0], "audit", {"after": acts[-1]["id"]})[1]["result"]["acts"] == []


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "data", "key", "status", "says"),
    [
        ("info", {}, None, 401, "X-API-Key"),
        ("info", {}, "", 401, "X-API-Key"),
        ("info", {}, SECRET[:-1], 401, "X-API-Key"),
        ("info", {}, NARROW, 403, "may not call info"),
        ("ban", {"target": "ana"}, NARROW, 403, "may not call ban"),
        ("message.send", {"room": "a", "text": "b", "as": "ana"}, NARROW, 403, "may not act as this user"),
        ("publish", {"channel": "a", "data": 1, "as": "ana"}, SECRET, 400, "that users can call"),
        ("nonsense", {}, SECRET, 404, "no method 'nonsense'"),
        ("publish", {"channel": "a"}, SECRET, 400, "data"),
        ("publish", {"channel": None, "data": 1}, SECRET, 400, "Expected `str`, got `null`"),
        ("publish", {"channel": 7, "data": 1}, SECRET, 400, "Expected `str`, got `int`"),
        ("publish", {"channel": "a", "data": 1, "b64data": "e30="}, SECRET, 400, "does not offer b64data"),
        ("subscribe", {"user": "ana", "channel": "a", "data": {"b": 1}}, SECRET, 400, "does not offer data"),
        ("subscribe", {"user": "ana", "channel": "a", "recover_since": {"offset": 2**63}}, SECRET, 400, "<= 9223372"),
        ("subscribe", {"user": "ana", "channel": "a", "recover_since": {"offset": 10**30}}, SECRET, 400, "recover"),
        ("history", {"channel": "a", "since": {"offset": -1}}, SECRET, 400, ">= 0"),
        ("message.send", {"room": "a", "text": "b", "as": 7}, SECRET, 400, "to name a user"),
        ("read", {"room": "a", "offset": 1}, SECRET, 400, "to name a user"),
        ("batch", {"commands": [1]}, SECRET, 400, "commands"),
    ],
)  # fmt: skip
def test_what_cannot_be_asked_is_refused_in_a_sentence(
    nodes: Any, method: str, data: Any, key: str | None, status: int, says: str
) -> None:
    got, answer = post(nodes[0], method, data, key=key)
    assert got == status
    assert says in answer.get("error", "")


def test_what_is_no_json_or_too_much_of_it_is_refused(nodes: Any) -> None:
    assert post(nodes[0], "publish", body=b"hello")[0] == 400
    assert post(nodes[0], "publish", body=b"[]")[0] == 400
    assert post(nodes[0], "publish", body=b"\xff")[0] == 400
    assert post(nodes[0], "publish", body=b"[" * 60_000)[0] == 400
    status, answer = post(nodes[0], "publish", {"channel": "a", "data": "x" * 70_000})
    assert (status, "api.body" in answer["error"]) == (413, True)


def test_a_text_that_was_cut_within_an_emoji_is_taken_as_from_clients(nodes: Any) -> None:
    assert "result" in post(nodes[0], "publish", {"channel": "cut", "data": {"text": "hi \ud83d"}})[1]
    assert "result" in post(nodes[0], "message.send", {"room": "cut", "text": "hi \ud83d", "as": "ana"})[1]
    kept = post(nodes[0], "history", {"channel": "cut", "limit": 2})[1]["result"]["publications"]
    assert [each["data"] for each in kept] == [{"text": "hi \ufffd"}] * 2


def test_a_whole_number_may_be_written_with_a_fraction_of_nothing(nodes: Any) -> None:
    for n in range(3):
        post(nodes[0], "publish", {"channel": "whole", "data": {"text": str(n), "n": 1.0}})
    epoch = post(nodes[0], "history", {"channel": "whole"})[1]["result"]["epoch"]
    since = {"offset": 1.0, "epoch": epoch}
    page = post(nodes[0], "history", {"channel": "whole", "limit": 1.0, "since": since})[1]["result"]["publications"]
    assert [each["offset"] for each in page] == [2]
    [message] = post(nodes[0], "message.history", {"room": "whole", "before": 2.0})[1]["result"]["messages"]
    assert message["offset"] == 1
    assert post(nodes[0], "read", {"room": "whole", "offset": 3.0, "as": "ana"})[1] == {"result": {"offset": 3}}
    reply = {"room": "whole", "text": "b", "as": "ana", "reply_to": 2.0, "data": {"n": 1.0}}
    assert post(nodes[0], "message.send", reply)[1]["result"]["offset"] == 4
    for offset in (1.5, 1e300):
        status, answer = post(nodes[0], "read", {"room": "whole", "offset": offset, "as": "ana"})
        assert (status, "Expected `int`" in answer["error"]) == (400, True)


def test_a_user_who_is_not_named_is_not_everybody(nodes: Any) -> None:
    assert post(nodes[0], "disconnect", {"user": ""})[1]["error"]["code"] == 107
    assert post(nodes[0], "unsubscribe", {"user": "", "channel": "a"})[1]["error"]["code"] == 107
    assert post(nodes[0], "kick", {})[1]["error"]["code"] == 107


def test_a_command_of_a_batch_needs_the_same_rights(nodes: Any) -> None:
    commands = [{"info": {}}, {"publish": {"channel": "a", "data": 1}}, {"nonsense": {}}, {"publish": 7}]
    replies = post(nodes[0], "batch", {"commands": commands}, key=NARROW)[1]["replies"]
    assert [reply["error"]["code"] if "error" in reply else list(reply) for reply in replies] == [
        103, ["publish"], 104, 107,
    ]  # fmt: skip


def test_the_public_listener_does_not_serve_the_api_and_secrets_are_in_no_log(nodes: Any) -> None:
    request = urllib.request.Request(f"{nodes[0].url}/api/info", b"{}", {"X-API-Key": SECRET})
    with pytest.raises(urllib.error.HTTPError) as missing:
        urllib.request.urlopen(request, timeout=10)
    with missing.value:
        assert missing.value.code == 404
    assert not [line for node in nodes for line in node.log if SECRET in line or NARROW in line]


def test_a_node_that_does_not_answer_is_named_and_not_passed_over(tmp_path: Path) -> None:
    environ = {"CHATD_ADMIN__LISTEN": "127.0.0.1:0", "CHATD_CLUSTER__LEASE": "60s", "CHATD_CLUSTER__ANSWER": "0.5s"}
    with cluster(tmp_path, CONFIG, **environ) as (first, second):
        [stuck] = [node["id"] for node in first.ask("status")["nodes"] if node["address"] == second.address]
        post(first, "room.create", {"room": "private-a", "public": True, "members": ["ana"]})
        second.signal(signal.SIGSTOP)
        user, member = {"user": "ana", "channel": "a"}, {"room": "private-a", "user": "ana"}
        for method, data in (
            ("subscribe", user), ("unsubscribe", user), ("disconnect", {"user": "ana"}), ("info", {}), ("channels", {}),
            ("mod.kick", member), ("mod.ban", member), ("mod.unban", member), ("room.set", {**member, "public": False}),
            ("room.role", {**member, "role": "nobody"}), ("room.delete", member),
        ):  # fmt: skip
            assert post(first, method, data)[1]["result"]["silent"] == [stuck], method


def test_the_public_listener_serves_the_api_where_the_settings_say_so(tmp_path: Path) -> None:
    with cluster(tmp_path, CONFIG, nodes=1, CHATD_API__PUBLIC="true") as (node,):
        request = urllib.request.Request(f"{node.url}/api/info", b"{}", {"X-API-Key": SECRET})
        with urllib.request.urlopen(request, timeout=10) as response:
            assert len(json.load(response)["result"]["nodes"]) == 1
