"""The SDK door's language: the Centrifuge client protocol, version 2, in JSON.

Commands come newline-joined in one message, replies and pushes leave so in one text frame. What is JSON already (an
author's data, a publication from the store) passes through as bytes, both ways: a fan-out decodes and encodes nothing.

Section numbers are those of the protocol's description: 1 framing, 2 commands, 3 replies, 4 fields, 6 pushes. What a
command does, and whether it may, is not decided here; neither is whether an author's data is JSON of the right kind.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Annotated, Any, Final

import msgspec
import orjson

from chatd import frames
from chatd.errors import BAD_COMMAND, Reject
from chatd.model import (
    Command,
    Connect,
    Connected,
    Door,
    Event,
    History,
    HistoryResult,
    Json,
    Kind,
    Ping,
    Pong,
    Position,
    Presence,
    PresenceResult,
    PresenceStats,
    PresenceStatsResult,
    Publish,
    Published,
    Refresh,
    Refreshed,
    Request,
    Result,
    Rpc,
    RpcResult,
    Send,
    SubRefresh,
    SubRefreshed,
    Subscribe,
    Subscribed,
    Unsubscribe,
    Unsubscribed,
)
from chatd.wire import Codec
from chatd.wire.payload import forgiving

# Flag bit of a subscribe (section 5): answer 112 rather than `recovered: false`.
REJECT_UNRECOVERED: Final = 2

# Rooms whose push is kept begun, which halves its 0.2 µs. 4096 rooms of 255 bytes are 1.5 MB at most.
PREFIXES: Final = 4096


class CentrifugeJson:
    """See the head of this file.

    Args:
        deflate: for clients that negotiated permessage-deflate.
    """

    __slots__ = ("_deflate",)

    def __init__(self, *, deflate: bool = False) -> None:
        self._deflate = deflate

    door = Door.SDK
    heartbeat = frames.text(b"{}")

    def decode(self, message: bytes) -> list[Request]:
        """Return the commands of one message: JSON objects joined by newlines, one more newline allowed at the end.

        Raises:
            Disconnect 3501: one of them is no JSON, has a field of a wrong type, or asks for nothing we know.
        """
        if message == _PONG:  # what a quiet connection says, and nothing else
            return [Request(0, Pong())]
        try:
            message.decode()  # msgspec does not look at the UTF-8 of what it leaves undecoded
            return forgiving(_requests, message)
        except RecursionError:
            raise BAD_COMMAND.because("bad request: nested too deeply") from None
        except UnicodeDecodeError:
            raise BAD_COMMAND.because("bad request: expected UTF-8") from None
        except msgspec.MsgspecError as error:
            raise BAD_COMMAND.because(f"bad request: expected commands in JSON. {error}") from None

    def reply(self, id: int, result: Result) -> bytes:
        """One object with the result under its command's name; that key is there even when the result is empty."""
        if id == 0:
            return b""
        name, members = _RESULTS[type(result)]
        return orjson.dumps({"id": id, name: members(result)})

    def reject(self, id: int, why: Reject) -> bytes:
        # A reply without a number would be read as a ping, and answered by a pong that nobody asked for.
        if id == 0:
            return b""
        error = {"code": why.code, "message": why.text}
        return orjson.dumps(
            {"id": id, "error": error | _filled(temporary=why.temporary, retry_after_ms=why.retry_after_ms)}
        )

    def event(self, room: str, event: Event) -> bytes:
        before, after = _EVENTS[event.kind]
        return b"".join((_push(room), before, event.body, after))

    def unsubscribed(self, room: str, code: int, reason: str) -> bytes:
        return b'%b"unsubscribe":%b}}' % (_push(room), orjson.dumps({"code": code, "reason": reason}))

    def subscribed(self, room: str, position: Position | None) -> bytes:
        members = _subscribed(Subscribed(position))
        return b'%b"subscribe":%b}}' % (_push(room), orjson.dumps(members))

    def frame(self, payloads: Sequence[bytes]) -> bytes:
        """All of them in one text frame, joined by newlines; none holds a newline itself (section 1)."""
        message = b"\n".join(filter(None, payloads))
        return frames.text(message, deflate=self._deflate) if message else b""

    def author(self, event: Event) -> None:
        """Nobody: a publisher who is subscribed hears its own publication (section 3)."""


# --- commands (sections 2 and 4) --------------------------------------------------------------------------------------

_Uint32 = Annotated[int, msgspec.Meta(ge=0, le=2**32 - 1)]
# The protocol's uint64; msgspec compares signed numbers, and no room lives to see the upper half.
Offset = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
_NO_JSON: Final = msgspec.Raw()
# As SDKs write it.
_PONG: Final = b"{}"


class _Message(msgspec.Struct, gc=False):
    """A message of the protocol; fields that we do not know are ignored (section 1). It is never part of a cycle."""


class _Subscribe(_Message):
    channel: str = ""
    token: str = ""
    recover: bool = False
    epoch: str = ""
    offset: Offset = 0
    join_leave: bool = False
    flag: int = 0
    type: int = 0
    delta: str = ""
    tf: dict[str, msgspec.Raw] | None = None

    def command(self) -> Subscribe:
        return self.of(self.channel)

    def of(self, room: str) -> Subscribe:
        return Subscribe(
            room,
            token=self.token,
            recover=self.recover,
            epoch=self.epoch,
            offset=self.offset,
            join_leave=self.join_leave,
            reject_unrecovered=bool(self.flag & REJECT_UNRECOVERED),
            kind=self.type,
            delta=self.delta,
            filtered=self.tf is not None,
        )


class _Connect(_Message):
    token: str = ""
    data: msgspec.Raw = _NO_JSON
    subs: dict[str, _Subscribe] = {}
    name: str = ""
    version: str = ""

    def command(self) -> Connect:
        subs = {room: wish.of(room) for room, wish in self.subs.items()}
        return Connect(self.token, _json(self.data), subs, self.name, self.version)


class _Unsubscribe(_Message):
    channel: str = ""

    def command(self) -> Unsubscribe:
        return Unsubscribe(self.channel)


class _Publish(_Message):
    channel: str = ""
    data: msgspec.Raw = _NO_JSON

    def command(self) -> Publish:
        return Publish(self.channel, bytes(self.data))


class _Presence(_Message):
    channel: str = ""

    def command(self) -> Presence:
        return Presence(self.channel)


class _PresenceStats(_Message):
    channel: str = ""

    def command(self) -> PresenceStats:
        return PresenceStats(self.channel)


class _Position(_Message):
    offset: Offset = 0
    epoch: str = ""


class _History(_Message):
    channel: str = ""
    limit: int = 0
    since: _Position | None = None
    reverse: bool = False

    def command(self) -> History:
        since = None if self.since is None else Position(self.since.epoch, self.since.offset)
        return History(self.channel, self.limit, since, self.reverse)


class _Ping(_Message):
    def command(self) -> Ping:
        return Ping()


class _Send(_Message):
    data: msgspec.Raw = _NO_JSON

    def command(self) -> Send:
        return Send(_json(self.data))


class _Rpc(_Message):
    data: msgspec.Raw = _NO_JSON
    method: str = ""

    def command(self) -> Rpc:
        return Rpc(self.method, _json(self.data))


class _Refresh(_Message):
    token: str = ""

    def command(self) -> Refresh:
        return Refresh(self.token)


class _SubRefresh(_Message):
    channel: str = ""
    token: str = ""

    def command(self) -> SubRefresh:
        return SubRefresh(self.channel, self.token)


class Envelope(_Message):
    """A command; of several requests the first in this order counts (section 2)."""

    id: _Uint32 = 0
    connect: _Connect | None = None
    subscribe: _Subscribe | None = None
    unsubscribe: _Unsubscribe | None = None
    publish: _Publish | None = None
    presence: _Presence | None = None
    presence_stats: _PresenceStats | None = None
    history: _History | None = None
    ping: _Ping | None = None
    send: _Send | None = None
    rpc: _Rpc | None = None
    refresh: _Refresh | None = None
    sub_refresh: _SubRefresh | None = None

    def request(self) -> Request:
        asked = self.asked()
        if isinstance(asked, _Send):
            return Request(0, asked.command())
        if self.id == 0:
            return Request(0, Pong())
        if asked is None:
            raise BAD_COMMAND.because("bad request: expected connect, subscribe, publish or the like; none came")
        command: Command = asked.command()
        return Request(self.id, command)

    def asked(self) -> _Asked | None:
        return (
            self.connect
            or self.subscribe
            or self.unsubscribe
            or self.publish
            or self.presence
            or self.presence_stats
            or self.history
            or self.ping
            or self.send
            or self.rpc
            or self.refresh
            or self.sub_refresh
        )


_Asked = (
    _Connect | _Subscribe | _Unsubscribe | _Publish | _Presence | _PresenceStats | _History
    | _Ping | _Send | _Rpc | _Refresh | _SubRefresh
)  # fmt: skip

_COMMAND: Final = msgspec.json.Decoder(Envelope)


def _requests(message: bytes) -> list[Request]:
    return [_COMMAND.decode(line).request() for line in message.removesuffix(b"\n").split(b"\n")]


def _json(data: msgspec.Raw) -> Json | None:
    return bytes(data) or None


# --- results (sections 3 and 4) ---------------------------------------------------------------------------------------

_Members = dict[str, Any]


def _filled(**members: Any) -> _Members:
    """The members that are not zero: those the protocol leaves out (section 1)."""
    return {name: value for name, value in members.items() if value}


def _ttl(ttl_s: int | None) -> _Members:
    return {} if ttl_s is None else {"expires": True, "ttl": ttl_s}


def _raw(bodies: Sequence[Json]) -> list[orjson.Fragment]:
    return [orjson.Fragment(body) for body in bodies]


def _connected(result: Connected) -> _Members:
    return {
        "client": result.client,
        "version": result.version,
        **_ttl(result.ttl_s),
        **_filled(subs={room: _subscribed(state) for room, state in result.subs.items()}),
        **_filled(ping=result.ping_s, pong=result.ping_s > 0, session=result.session, node=result.node),
    }


def _refreshed(result: Refreshed) -> _Members:
    return {"client": result.client, "version": result.version, **_ttl(result.ttl_s)}


def _subscribed(result: Subscribed) -> _Members:
    there, (epoch, offset) = result.position is not None, result.position or ("", 0)
    return _ttl(result.ttl_s) | _filled(
        recoverable=there,
        epoch=epoch,
        publications=_raw(result.publications),
        recovered=result.recovered,
        offset=offset,
        positioned=there,
        was_recovering=result.was_recovering,
    )


def _sub_refreshed(result: SubRefreshed) -> _Members:
    return _ttl(result.ttl_s)


def _presence(result: PresenceResult) -> _Members:
    return {"presence": {client: orjson.Fragment(info) for client, info in result.presence.items()}}


def _presence_stats(result: PresenceStatsResult) -> _Members:
    return {"num_clients": result.num_clients, "num_users": result.num_users}


def _history(result: HistoryResult) -> _Members:
    return {"publications": _raw(result.publications), "epoch": result.top.epoch, "offset": result.top.offset}


def _rpc(result: RpcResult) -> _Members:
    return {"data": orjson.Fragment(result.data)}


def _nothing(result: Published | Unsubscribed) -> _Members:
    return {}


_RESULTS: Final[Mapping[type, tuple[str, Callable[[Any], _Members]]]] = {
    Connected: ("connect", _connected),
    Refreshed: ("refresh", _refreshed),
    Subscribed: ("subscribe", _subscribed),
    SubRefreshed: ("sub_refresh", _sub_refreshed),
    Unsubscribed: ("unsubscribe", _nothing),
    Published: ("publish", _nothing),
    PresenceResult: ("presence", _presence),
    PresenceStatsResult: ("presence_stats", _presence_stats),
    HistoryResult: ("history", _history),
    RpcResult: ("rpc", _rpc),
}

# --- pushes (section 6) -----------------------------------------------------------------------------------------------

_EVENTS: Final[Mapping[Kind, tuple[bytes, bytes]]] = {
    Kind.PUBLICATION: (b'"pub":', b"}}"),
    Kind.SIGNAL: (b'"pub":', b"}}"),
    Kind.JOIN: (b'"join":{"info":', b"}}}"),
    Kind.LEAVE: (b'"leave":{"info":', b"}}}"),
}


@lru_cache(PREFIXES)
def _push(room: str) -> bytes:
    """A push of `room` up to where what happened is named."""
    return b'{"push":{"channel":%b,' % orjson.dumps(room)


SDK_JSON: Final[Codec] = CentrifugeJson()
SDK_JSON_DEFLATED: Final[Codec] = CentrifugeJson(deflate=True)
