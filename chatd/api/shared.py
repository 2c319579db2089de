"""What the methods do that Centrifugo's server API has too, each by the same way as a client or an operator.

A Caller is one request's back end: it stands where a session stands in chat, without a connection behind it.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, Final

import structlog

from chatd import control, model, rules
from chatd.batched import batched
from chatd.chat import Chat, messages, reading
from chatd.control import Enter, Kick, Rooms, Status
from chatd.errors import BAD_REQUEST, FORCE_DISCONNECT, PERMISSION_DENIED, STORE_UNAVAILABLE, Reject
from chatd.model import Identity, Role
from chatd.names import room_name
from chatd.office import Office
from chatd.session import Session
from chatd.settings import matches
from chatd.store.errors import StoreError
from chatd.wire import rpc

from . import shapes

log = structlog.get_logger("chatd")

# Channels of one broadcast that are under way at once; their requests share pipelines.
AT_ONCE: Final = 100


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks.

    Attributes:
        session: speaks for the server, or for the user as whom the back end acts; it has no connection.
        office: where the back end acts as an operator, under its key's name.
    """

    chat: Chat
    session: Session
    office: Office


async def publish(caller: Caller, args: shapes.Publish) -> shapes.Published:
    said = await messages.say(
        caller.chat,
        caller.session,
        args.channel,
        rpc.encode(args.data),
        tags=args.tags,
        cid=args.idempotency_key or None,
        fleeting=args.skip_history,
    )
    epoch, offset = said.position or ("", 0)
    return shapes.Published(offset, epoch)


async def broadcast(caller: Caller, args: shapes.Broadcast) -> shapes.Broadcasted:
    """What is refused in one channel is said in the others all the same."""
    responses: list[dict[str, Any]] = []
    for some in batched(args.channels, AT_ONCE):
        responses += await asyncio.gather(*(_one_of(caller, args, channel) for channel in some))
    return shapes.Broadcasted(tuple(responses))


async def _one_of(caller: Caller, args: shapes.Broadcast, channel: str) -> dict[str, Any]:
    one = shapes.Publish(channel, args.data, args.skip_history, args.tags, args.idempotency_key)
    try:
        return {"result": await publish(caller, one)}
    except Reject as refusal:
        return {"error": refused(refusal)}
    except StoreError as error:  # of a cluster it may be one server: what was said elsewhere is not to be said again
        log.warning("api broadcast not done in a channel", error=str(error))
        return {"error": refused(STORE_UNAVAILABLE)}


def refused(refusal: Reject) -> dict[str, Any]:
    """A refusal as it stands in an answer."""
    wait = {} if refusal.retry_after_ms is None else {"retry_after_ms": refusal.retry_after_ms}
    return {"code": refusal.code, "message": refusal.text, **wait}


async def presence(caller: Caller, args: shapes.Presence) -> shapes.Present:
    found = await reading.presence(caller.chat, caller.session, model.Presence(args.channel))
    return shapes.Present({client: rpc.raw(info) for client, info in found.presence.items()})


async def presence_stats(caller: Caller, args: shapes.PresenceStats) -> shapes.Counted:
    found = await reading.presence_stats(caller.chat, caller.session, model.PresenceStats(args.channel))
    return shapes.Counted(found.num_clients, found.num_users)


async def history(caller: Caller, args: shapes.History) -> shapes.Page:
    since = model.Position(args.since.epoch, args.since.offset) if args.since is not None else None
    wish = model.History(args.channel, args.limit, since, args.reverse)
    page = await messages.history(caller.chat, caller.session, wish)
    return shapes.Page(tuple(map(rpc.raw, page.publications)), page.top.offset, page.top.epoch)


async def history_remove(caller: Caller, args: shapes.HistoryRemove) -> shapes.Nothing:
    room_name(args.channel, caller.chat.limits.room_name)
    await caller.chat.store.messages.remove(args.channel)
    await caller.office.write_down("history_remove", room=args.channel)
    return shapes.Nothing()


async def subscribe(caller: Caller, args: shapes.Subscribe) -> shapes.Done:
    room_name(args.channel, caller.chat.limits.room_name)
    if rules.role_in(Identity(args.user), args.channel, public=True, matches=matches) is Role.NOBODY:
        raise PERMISSION_DENIED.because("personal channels and direct rooms are read by nobody but their users")
    since = args.recover_since or shapes.Position()
    entered = await caller.office.ask(Enter(_named(args.user), args.channel, args.client, since.epoch, since.offset))
    return shapes.Done(**entered.silent)


async def unsubscribe(caller: Caller, args: shapes.Unsubscribe) -> shapes.Done:
    room_name(args.channel, caller.chat.limits.room_name)
    kicked = await caller.office.kick(Kick(_named(args.user), room=args.channel, client=args.client))
    return shapes.Done(**kicked.silent)


async def disconnect(caller: Caller, args: shapes.Disconnect) -> shapes.Done:
    said = args.disconnect or shapes.Goodbye()
    code = said.code or FORCE_DISCONNECT.code
    if not 3000 <= code < 5000:
        raise BAD_REQUEST.because(f"expected a close code from 3000 to 4999, {code} came")
    reason = said.reason or FORCE_DISCONNECT.reason
    kick = Kick(_named(args.user), reason=reason, client=args.client, keep=args.whitelist, code=code)
    return shapes.Done(**(await caller.office.kick(kick)).silent)


def _named(user: str) -> str:
    """`user`, who must be one: for the office, nobody in particular is everybody."""
    if not user:
        raise BAD_REQUEST.because("expected the id of a user, an empty one came")
    return user


async def info(caller: Caller, args: shapes.Info) -> shapes.Nodes:
    answers = await caller.office.ask(Status())
    return shapes.Nodes(tuple(_node(answer["node"]) for answer in answers.by_node.values()), **answers.silent)


def _node(node: control.Object) -> control.Object:
    return {
        "uid": node["id"],
        "name": node["name"],
        "version": node["version"],
        "num_clients": node["connections"],
        "num_users": node["users"],
        "num_subs": node["subscriptions"],
        "num_channels": node["rooms"],
        "uptime": int(node["uptime_s"]),
        "process": {"rss": node["rss_bytes"]},
    }


async def channels(caller: Caller, args: shapes.Channels) -> shapes.ChannelList:
    answers = await caller.office.ask(Rooms())
    found = {
        each["room"]: {"num_clients": each["connections"]}
        for each in control.rooms(answers)["rooms"]
        if not args.pattern or matches(args.pattern, each["room"])
    }
    return shapes.ChannelList(found, **answers.silent)
