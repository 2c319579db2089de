"""Who may do what, in a room that is not open to everybody: one table, for every command and every method.

The table is held to the code's own: a command or a method that is not in it fails. Each row is tried on one connection
whose right changes while it is open, by membership; and on connections that come with the right, by token.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from chatd.chat.rows import METHOD_ROWS, ROWS
from chatd.model import (
    Connect,
    History,
    Ping,
    Presence,
    PresenceStats,
    Publish,
    Refresh,
    Rpc,
    Send,
    SubRefresh,
    Subscribe,
    Unsubscribe,
)
from tests.conftest import Daemon
from tests.people import Person, Refused, cluster, person, token
from tests.test_api import SECRET, post
from tests.test_moderation import run

CONFIG = f"""
[[api.keys]]
name = "shop"
secret = "{SECRET}"
scopes = ["*"]
users = ["*"]
[rooms."*"]
create = "anybody"
[rooms."hall-*"]
public = false
[rooms."hall-*-new*"]
create = "moderator"
"""
# The owner comes last: what he does may be the end of the room.
STANDINGS = ("outsider", "guest", "member", "muted", "moderator", "banned", "owner")
# Nothing is refused, and nothing is told.
HIDDEN = -1


class Trial(NamedTuple):
    """One command or method, tried by each.

    Attributes:
        ask: what is said, of the room and the offset of a message of one's own there.
        codes: with what it is refused, in the order of STANDINGS; 0: it is not.
        by_token: the codes where the standing comes from a token, if they are others.
        shows: whether the answer tells of the room.
    """

    ask: Callable[[str, int], dict[str, Any]]
    codes: tuple[int, ...]
    by_token: tuple[int, ...] = ()
    shows: Callable[[dict[str, Any], str], bool] = lambda answer, room: True


def rpc(method: str, **data: Any) -> Callable[[str, int], dict[str, Any]]:
    """An rpc about the room; "{room}" in a text stands for its name, None for the offset of one's own message."""

    def ask(room: str, own: int) -> dict[str, Any]:
        members: dict[str, Any] = {"room": room}
        for name, value in data.items():
            filled = value.replace("{room}", room) if isinstance(value, str) else own if value is None else value
            members[name.removesuffix("_")] = [room] if filled == ["{room}"] else filled
        return {"rpc": {"method": method, "data": members}}

    return ask


def of_protocol(command: str, **more: Any) -> Callable[[str, int], dict[str, Any]]:
    return lambda room, own: {command: {"channel": room, **more}}


#          outsider guest member muted moderator banned owner
SPEAKS = (103, 0, 0, 401, 0, 403, 0)
READS = (103, 0, 0, 0, 0, 403, 0)
LISTS = (HIDDEN, 0, 0, 0, 0, HIDDEN, 0)
INVITES = (103, 103, 0, 401, 0, 403, 0)
MODERATES = (103, 103, 103, 103, 0, 403, 0)
UNDOES = (103, 103, 103, 103, 404, 403, 404)  # there is nothing to be undone
GOVERNS = (103, 103, 103, 103, 103, 403, 0)
ANYBODY = (0, 0, 0, 0, 0, 0, 0)

METHOD_TRIALS = {
    "message.send": Trial(rpc("message.send", text="hi"), SPEAKS),
    "message.edit": Trial(rpc("message.edit", offset=None, text="ho"), SPEAKS),
    "message.delete": Trial(rpc("message.delete", offset=1), (103, 103, 103, 401, 0, 403, 0)),
    "message.react": Trial(rpc("message.react", offset=1, kind="x", on=True), SPEAKS),
    "message.history": Trial(rpc("message.history"), READS),
    "typing": Trial(rpc("typing", on=True), SPEAKS),
    "read": Trial(rpc("read", offset=1), READS),
    "unread": Trial(rpc("unread", rooms=["{room}"]), LISTS, shows=lambda answer, room: room in answer),
    "room.create": Trial(
        rpc("room.create", room="{room}-new", public=True),
        (103, 103, 103, 103, 103, 103, 103),  # to be something in the one room means nothing in another
        by_token=(103, 103, 103, 103, 0, 103, 406),
    ),
    "room.info": Trial(rpc("room.info"), READS),
    "room.list": Trial(
        rpc("room.list", limit=100), LISTS, shows=lambda answer, room: room in [r["room"] for r in answer["rooms"]]
    ),
    "room.members": Trial(rpc("room.members"), READS),
    "room.invite": Trial(rpc("room.invite", user="tam"), INVITES),
    "room.join": Trial(rpc("room.join"), READS),
    "room.leave": Trial(rpc("room.leave"), ANYBODY),
    "room.role": Trial(rpc("room.role", user="tam", role="moderator"), GOVERNS),
    "room.set": Trial(rpc("room.set", topic="new"), (103, 103, 103, 401, 0, 403, 0)),
    "room.delete": Trial(rpc("room.delete"), GOVERNS),
    "mod.kick": Trial(rpc("mod.kick", user="tam"), MODERATES),
    "mod.mute": Trial(rpc("mod.mute", user="tam"), MODERATES),
    "mod.unmute": Trial(rpc("mod.unmute", user="tam"), UNDOES),
    "mod.ban": Trial(rpc("mod.ban", user="tam"), MODERATES),
    "mod.unban": Trial(rpc("mod.unban", user="tam"), UNDOES),
    "user.block": Trial(rpc("user.block", user="tam", on=True), ANYBODY),
    "user.blocked": Trial(rpc("user.blocked"), ANYBODY),
    "report": Trial(rpc("report", offset=1), READS),
}
COMMAND_TRIALS = {
    Publish: Trial(of_protocol("publish", data={"text": "hi"}), SPEAKS),
    Subscribe: Trial(of_protocol("subscribe"), READS),
    Presence: Trial(of_protocol("presence"), READS),
    PresenceStats: Trial(of_protocol("presence_stats"), READS),
    History: Trial(of_protocol("history", limit=1), READS),
}
# Commands that are about one's own connection, and Rpc, whose rows are the methods.
ABOUT_ONESELF = {Connect, Refresh, SubRefresh, Unsubscribe, Ping, Send, Rpc}
TRIALS = {**METHOD_TRIALS, **{command.__name__: trial for command, trial in COMMAND_TRIALS.items()}}


def test_every_command_and_every_method_has_its_row() -> None:
    assert METHOD_TRIALS.keys() == METHOD_ROWS.keys()
    assert COMMAND_TRIALS.keys() | ABOUT_ONESELF == ROWS.keys()


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Daemon, ...]]:
    with cluster(tmp_path_factory.mktemp("rights"), CONFIG, CHATD_ADMIN__LISTEN="127.0.0.1:0") as both:
        yield both


async def outcome(trial: Trial, somebody: Person, room: str, own: int) -> int:
    """With which code it is refused; 0: it is not; HIDDEN: it is not, and tells nothing."""
    try:
        answer = await somebody.ask(**trial.ask(room, own))
    except Refused as refusal:
        return refusal.code
    return 0 if trial.shows(answer.get("data", answer), room) else HIDDEN


@asynccontextmanager
async def hall(node: Daemon, room: str) -> AsyncIterator[Person]:
    """A private room with a message, and its owner. By that name he can also be found again."""
    async with person(node, "root") as root:
        await root.call("room.create", room=room, public=False)
        await root.says(room, "welcome")
        yield root


async def put(root: Person, room: str, standing: str) -> None:
    """Make ana what `standing` says, from whatever she was."""
    for undo in ("mod.unmute", "mod.unban"):
        try:
            await root.call(undo, room=room, user="ana")
        except Refused as refusal:
            assert refusal.code == 404
    role = {"outsider": "nobody", "muted": "member", "banned": "member"}.get(standing, standing)
    await root.call("room.role", room=room, user="ana", role=role)
    if standing in ("muted", "banned"):
        await root.call(f"mod.{'mute' if standing == 'muted' else 'ban'}", room=room, user="ana")


@pytest.mark.parametrize("name", TRIALS)
async def test_a_right_that_changes_while_connected_changes_what_one_may_do(
    nodes: tuple[Daemon, ...], name: str
) -> None:
    room, trial, found = f"hall-{name}", TRIALS[name], {}
    async with hall(nodes[0], room) as root, person(nodes[1], "ana") as ana:
        await put(root, room, "member")
        own = await ana.says(room, "mine")
        for standing in STANDINGS:
            await put(root, room, standing)
            found[standing] = await outcome(trial, ana, room, own)
            if name == "Subscribe" and not found[standing]:
                await ana.ask(unsubscribe={"channel": room})
    assert found == dict(zip(STANDINGS, trial.codes, strict=True))


@pytest.mark.parametrize("name", TRIALS)
async def test_a_right_that_a_token_brings_is_worth_the_same(nodes: tuple[Daemon, ...], name: str) -> None:
    room, trial, found = f"hall-token-{name}", TRIALS[name], {}
    async with hall(nodes[0], room) as root:
        async with person(nodes[1], "ana", rooms=[room]) as ana:
            own = await ana.says(room, "mine")
        for standing in STANDINGS:
            await put(root, room, "outsider")
            if standing in ("muted", "banned"):
                await root.call(f"mod.{'mute' if standing == 'muted' else 'ban'}", room=room, user="ana")
            role = {"muted": "member", "banned": "member"}.get(standing, standing)
            claims = {} if standing == "outsider" else {"rooms": [{"pattern": f"{room}*", "role": role}]}
            async with person(nodes[1], "ana", **claims) as ana:
                found[standing] = await outcome(trial, ana, room, own)
    assert found == dict(zip(STANDINGS, trial.by_token or trial.codes, strict=True))


# --- the back end's door ----------------------------------------------------------------------------------------------


async def as_ana(node: Daemon, trial: Trial, room: str, own: int) -> int:
    """As `outcome`, of the back end that acts as ana."""
    asked = trial.ask(room, own)["rpc"]
    status, answer = await asyncio.to_thread(post, node, asked["method"], {**asked["data"], "as": "ana"})
    assert status == 200
    if "error" in answer:
        return int(answer["error"]["code"])
    return 0 if trial.shows(answer["result"], room) else HIDDEN


@pytest.mark.parametrize("name", METHOD_TRIALS)
async def test_the_back_end_vouches_for_whom_it_acts_as_a_member_and_no_more(
    nodes: tuple[Daemon, ...], name: str
) -> None:
    room, trial, found = f"hall-http-{name}", METHOD_TRIALS[name], {}
    async with hall(nodes[0], room) as root:
        async with person(nodes[1], "ana", rooms=[room]) as ana:
            own = await ana.says(room, "mine")
        for standing in STANDINGS:
            await put(root, room, standing)
            found[standing] = await as_ana(nodes[1], trial, room, own)
    codes = dict(zip(STANDINGS, trial.codes, strict=True))
    assert found == {**codes, "outsider": codes["member"], "guest": codes["member"]}


# --- the plain door ---------------------------------------------------------------------------------------------------

PLAIN = {
    "outsider": (403, ""),
    "guest": (0, ""),
    "member": (0, ""),
    "muted": (0, "! muted"),
    "moderator": (0, ""),
    "banned": (3507, ""),
    "owner": (0, ""),
}


@pytest.mark.parametrize("standing", STANDINGS)
async def test_the_plain_door_gives_the_same_rights(nodes: tuple[Daemon, ...], standing: str) -> None:
    room = f"hall-plain-{standing}"
    headers = {"Authorization": f"Bearer {token('ana')}"}
    async with hall(nodes[0], room) as root:
        await put(root, room, standing)
        await root.joins(room)
        try:
            async with connect(f"{nodes[1].ws}/chat/ana?room={room}", additional_headers=headers) as ana:
                refused = await talks(ana, root, room, *PLAIN[standing])
                if not refused:
                    await run(nodes[0], "ban", "add", "ana", "--room", room)
                    await ana.wait_closed()
                    assert ana.close_code == 4500
        except InvalidStatus as refusal:
            refused = refusal.response.status_code
    assert refused == PLAIN[standing][0]


async def talks(ana: ClientConnection, root: Person, room: str, code: int, notice: str) -> int:
    """The code of the goodbye; 0: she could speak, or was told with `notice` that she may not."""
    if code:
        await ana.wait_closed()
        return ana.close_code or 0
    await ana.send("hi")
    if notice:
        assert await ana.recv() == notice
    else:
        assert (await root.hears("message", room))["data"] == {"text": "hi"}
    return 0


# --- tokens that are nobody's here ------------------------------------------------------------------------------------

STRANGERS = {
    "of another tenant": (token("ana", aud="another"), 3500),
    "of another issuer's key": (token("ana").rpartition(".")[0] + ".c2lnbmF0dXJl", 3500),
    "expired": (token("ana", lifetime=-10), 109),
}


@pytest.mark.parametrize("which", STRANGERS)
async def test_a_token_that_counts_no_more_or_not_here_opens_no_door(nodes: tuple[Daemon, ...], which: str) -> None:
    text, code = STRANGERS[which]
    for url in (nodes[0].sdk, f"{nodes[0].ws}/chat/ana"):
        with pytest.raises(InvalidStatus) as refusal:
            async with connect(url, additional_headers={"Authorization": f"Bearer {text}"}):
                pass
        assert refusal.value.response.status_code == 401
    async with connect(nodes[0].sdk) as socket:
        await socket.send(json.dumps({"id": 1, "connect": {"token": text}}))
        try:
            assert json.loads(await socket.recv())["error"]["code"] == code
            await socket.send(json.dumps({"id": 2, "history": {"channel": "lobby"}}))
            await socket.recv()
        except ConnectionClosed:
            assert socket.close_code == (3500 if code == 3500 else 3501)


@pytest.mark.parametrize("name", TRIALS)
async def test_what_came_in_one_message_with_a_refused_connect_is_not_done(
    nodes: tuple[Daemon, ...], name: str
) -> None:
    """SDKs send their subscriptions along with `connect`, before they know that their token has expired."""
    connecting = {"connect": {"token": token("ana", lifetime=-10)}}
    async with connect(nodes[0].sdk) as socket:
        both = {"id": 1, **connecting}, {"id": 2, **TRIALS[name].ask("lobby", 1)}
        await socket.send("\n".join(map(json.dumps, both)))
        assert json.loads(await socket.recv())["error"]["code"] == 109
        with pytest.raises(ConnectionClosed):
            await socket.recv()
        assert (socket.close_code, socket.close_reason) == (3501, "nothing may follow a refused connect")


@pytest.mark.parametrize("name", TRIALS)
async def test_nothing_can_be_done_before_one_has_said_who_one_is(nodes: tuple[Daemon, ...], name: str) -> None:
    async with connect(nodes[0].sdk) as socket:
        await socket.send(json.dumps({"id": 1, **TRIALS[name].ask("lobby", 1)}))
        await socket.wait_closed()
        assert socket.close_code == 3501


async def test_a_subscription_token_that_is_revoked_opens_its_room_no_longer_on_any_node(tmp_path: Path) -> None:
    private = '[rooms."den*"]\npublic = false\n'
    with cluster(tmp_path, private) as (first, second):
        one = {"channel": "den", "token": token("ana", channel="den", jti="s-1")}
        other = {"channel": "den-2", "token": token("ana", channel="den-2", jti="s-2", iat=time.time() - 60)}
        async with person(second, "ana") as ana:
            await ana.ask(subscribe=one)
            await ana.ask(subscribe=other)
            first.ask("token", "revoke", "--jti", "s-1")
            told = await ana.sees("unsubscribe", "den")
            assert told == {"code": 2000, "reason": "the subscription token was revoked"}
            with pytest.raises(Refused, match="103 the subscription token was revoked"):
                await ana.ask(subscribe=one)
            with pytest.raises(Refused, match="103 the subscription token was revoked"):
                await ana.ask(sub_refresh={"channel": "den-2", "token": token("ana", channel="den-2", jti="s-1")})
            first.ask("token", "revoke", "--user", "ana")
            assert (await ana.goodbye())[0] == 4501
        async with person(second, "ana", iat=time.time() + 1) as ana:
            with pytest.raises(Refused, match="103 the subscription token was revoked"):
                await ana.ask(subscribe=other)
