"""The SDK door over plain HTTP, for clients that get no WebSocket through (protocol section 11).

`POST /connection/http_stream` brings a client's first commands, and is answered by all that the server says to it, for
as long as it stays. What it says next comes by `POST /emulation`, to any node: the one that has its stream is named.
Who may come in is decided as for sockets, in doors; from then on it is a session like others.
"""

from __future__ import annotations

import secrets
from functools import partial
from http import HTTPStatus
from typing import Final

import structlog
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from chatd.chat import Chat
from chatd.control import Heard, Relay, node_of
from chatd.store.errors import StoreError
from chatd.wire.streams import STREAM_JSON, STREAM_PROTOBUF, Emulated, StreamCodec

from .body import TooLong, body_of
from .doors import Doors, Refusal

log = structlog.get_logger("chatd")

# Words that may be on their way to other nodes at once: whoever names a node puts the cluster to that work.
RELAYED: Final = 64
# Seconds for which a browser remembers what a page of another origin may ask.
PREFLIGHT_S: Final = 300

_LANGUAGES: Final = {"application/octet-stream": STREAM_PROTOBUF}
# Neither browsers nor proxies may keep any of it back (X-Accel-Buffering: NGINX); when it ends the socket is closed.
_HEAD: Final = {"Cache-Control": "no-store", "X-Accel-Buffering": "no", "Connection": "close"}


class HttpStream:
    """`/connection/http_stream` as an ASGI application: it begins an answer, and leaves the rest to the session."""

    def __init__(self, doors: Doors, chat: Chat) -> None:
        self._doors = doors
        self._chat = chat

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request, take = Request(scope, receive), scope["extensions"]["chatd.takeover"]["take"]
        try:
            with self._doors.admitted(request) as address:
                _require_chunks(scope)
                first = await _body(request, self._chat.limits.frame)
                identity = await self._doors.identity(request)
                self._doors.refuse_if_closed()  # since it was asked first, the body came and a token was looked at
                codec = _language(request)
                await send(_beginning(request, self._doors))
                take = partial(take, farewell=codec.goodbye)
                session = self._doors.seat(take, codec, address, identity, secret=secrets.token_urlsafe(16))
            self._chat.received(session, first)
        except Refusal as refusal:
            await self._doors.refused(request, refusal)(scope, receive, send)
        except (ClientDisconnect, ConnectionError):
            log.debug("a client went before it was answered")


class Emulation:
    """`/emulation`: what clients say who hear by a stream."""

    def __init__(self, doors: Doors, chat: Chat) -> None:
        self._doors = doors
        self._chat = chat
        self._relayed = 0

    async def say(self, request: Request) -> Response:
        try:
            with self._doors.listening(request):
                said = await self._said(request)
                _require(await self._heard(said))
        except Refusal as refusal:
            return self._doors.refused(request, refusal)
        except ClientDisconnect:
            return Response(status_code=HTTPStatus.BAD_REQUEST)
        return Response(status_code=HTTPStatus.NO_CONTENT, headers=self._doors.cors(request))

    async def _said(self, request: Request) -> Emulated:
        frame = self._chat.limits.frame
        # JSON within JSON: each quotation mark has a backslash.
        body = await _body(request, 2 * frame + 1024 if frame else 0)
        try:
            said = _language(request).emulated(body)
        except ValueError as error:
            raise Refusal(HTTPStatus.BAD_REQUEST, str(error)) from None
        if 0 < frame < len(said.data):
            raise _too_long(frame)
        return said

    async def _heard(self, said: Emulated) -> Heard:
        if said.node == node_of(self._chat.lease()):
            return self._chat.emulated(said.session, said.data)
        if self._relayed >= RELAYED:
            return Heard.TOO_MUCH
        self._relayed += 1
        try:
            return await self._relay(said)
        finally:
            self._relayed -= 1

    async def _relay(self, said: Emulated) -> Heard:
        """Have the node that has the stream hear it, if it lives."""
        question = Relay(said.node, said.session, said.data.decode("latin-1"))
        patience = self._chat.settings.cluster.answer
        try:
            answers = await self._chat.store.request(question, patience=patience, by="", of=said.node)
        except StoreError as error:
            log.warning("request not relayed", error=str(error))
            raise Refusal(HTTPStatus.SERVICE_UNAVAILABLE, "the store does not answer; connect again") from None
        return Heard(answers.by_node.get(said.node, {}).get("heard", Heard.NOBODY))


async def preflight(doors: Doors, request: Request) -> Response:
    """A browser asks what a page of another origin may do."""
    allowed = {"Access-Control-Allow-Methods": "POST", "Access-Control-Allow-Headers": "Authorization, Content-Type"}
    headers = {**allowed, "Access-Control-Max-Age": str(PREFLIGHT_S), **doors.cors(request)}
    return Response(status_code=HTTPStatus.NO_CONTENT, headers=headers)


def _require_chunks(scope: Scope) -> None:
    if scope["http_version"] != "1.1":
        raise Refusal(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, "expected HTTP/1.1, whose answers come in chunks")


def _require(heard: Heard) -> None:
    if heard is Heard.NOBODY:
        raise Refusal(HTTPStatus.NOT_FOUND, "there is no such session; connect again")
    if heard is Heard.TOO_MUCH:
        raise Refusal(HTTPStatus.TOO_MANY_REQUESTS, "too much waits for its answer; try again in a moment")


async def _body(request: Request, limit: int) -> bytes:
    try:
        return await body_of(request, limit)
    except TooLong:
        raise _too_long(limit) from None


def _too_long(limit: int) -> Refusal:
    sentence = f"expected at most {limit} bytes, more came; see limits.frame, or send less at a time"
    return Refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, sentence)


def _language(request: Request) -> StreamCodec:
    return _LANGUAGES.get(request.headers.get("content-type", ""), STREAM_JSON)


def _beginning(request: Request, doors: Doors) -> dict[str, object]:
    """The head of an answer that comes in chunks, in the language of the request."""
    is_binary = _language(request) is STREAM_PROTOBUF
    kind = "application/octet-stream" if is_binary else "application/json"
    headers = Headers({"Content-Type": kind, **_HEAD, **doors.cors(request)})
    return {"type": "http.response.start", "status": HTTPStatus.OK.value, "headers": headers.raw}
