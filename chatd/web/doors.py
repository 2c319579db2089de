"""The two doors. A handshake is an ordinary Starlette route: address, limits, origin, token. Then the socket leaves it.

What may be refused is refused before the socket is accepted, as HTTP with one line of reason. After that the connection
is a Link of the transport's that feeds a Session, and this file has no part in it any more.
"""

from __future__ import annotations

import math
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from http import HTTPStatus
from time import time
from urllib.parse import unquote

import structlog
from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket

from chatd import errors, rules
from chatd.chat import Chat
from chatd.errors import Disconnect, Reject
from chatd.hub import Hub
from chatd.measures import Lockdown, What
from chatd.model import Identity, Subscribe
from chatd.names import room_name
from chatd.session import Session
from chatd.settings import Settings, is_loopback, unix_path
from chatd.store.errors import StoreError
from chatd.telemetry import Meters
from chatd.transport import Link, LinkRules
from chatd.wire import Codec
from chatd.wire.centrifuge_json import SDK_JSON, SDK_JSON_DEFLATED
from chatd.wire.centrifuge_protobuf import SDK_PROTOBUF, SDK_PROTOBUF_DEFLATED
from chatd.wire.plain import PLAIN

from .origin import BEARER, client_address, origin_allowed, subprotocol, token_of

log = structlog.get_logger("chatd")

DEFAULT_ROOM = "lobby"
# The SDK door's languages, as clients offer them; of those who offer none it is the first.
LANGUAGES = {"centrifuge-json": SDK_JSON, "centrifuge-protobuf": SDK_PROTOBUF}
SUBPROTOCOLS = (*LANGUAGES, BEARER)
# Of a language, what those speak who negotiated permessage-deflate. The plain door's lines are not worth it.
DEFLATED: Mapping[Codec, Codec] = {SDK_JSON: SDK_JSON_DEFLATED, SDK_PROTOBUF: SDK_PROTOBUF_DEFLATED}
# Where waiting helps, this is how long, in seconds: a drain or a burst of connects is over by then.
RETRY_AFTER_S = 2
NOWHERE = "expected /connection/websocket or /chat/{username}?room=lobby, got another path"


# The same for all connections, so that it is not made and kept for each.
_link_rules = lru_cache(4)(LinkRules)


class Refusal(Exception):
    """A handshake is refused with this HTTP status and sentence."""

    def __init__(self, status: HTTPStatus, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status
        self.sentence = sentence

    def response(self) -> JSONResponse:
        helps = self.status in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)
        headers = {"Retry-After": str(RETRY_AFTER_S)} if helps else {}
        return JSONResponse({"error": self.sentence}, self.status, headers)


class Ear:
    """What the transport tells of one connection, passed on to chat."""

    __slots__ = ("_chat", "_network", "_session")

    def __init__(self, chat: Chat, session: Session, network: str) -> None:
        self._chat = chat
        self._session = session
        self._network = network

    def received(self, message: bytes) -> None:
        self._chat.received(self._session, message)

    def heard(self) -> None:
        self._chat.heard(self._session)

    def lost(self, goodbye: Disconnect) -> None:
        self._chat.lost(self._session, goodbye, self._network)


class Doors:
    """The doors of one node.

    Args:
        closed: why nobody is let in now; "" when people are.
    """

    def __init__(self, hub: Hub, chat: Chat, meters: Meters, closed: Callable[[], str]) -> None:
        self._hub = hub
        self._chat = chat
        self._meters = meters
        self._closed = closed
        self._connects_due = 0.0
        self._coming = 0  # admitted, and not in the hub yet
        self._coming_by_network: Counter[str] = Counter()
        self._speaking_by_network: Counter[str] = Counter()  # by requests of their own, which are under way

    @property
    def _settings(self) -> Settings:
        return self._chat.settings

    @property
    def _is_for_this_machine(self) -> bool:
        """Whether anybody may be anybody, since nobody but who is on this machine can come."""
        host = self._settings.server.host
        return self._settings.auth.effective_mode == "open" and not unix_path(host) and is_loopback(host)

    # --- routes -------------------------------------------------------------------------------------------------------

    async def sdk(self, websocket: WebSocket) -> None:
        """`/connection/websocket`: the Centrifuge protocol. A token may come now or in `connect`."""
        try:
            with self.admitted(websocket) as address:
                identity = await self.identity(websocket)
                await self._take_over(websocket, _language(websocket), address, identity)
        except Refusal as refusal:
            await self._refuse(websocket, refusal)

    async def plain(self, websocket: WebSocket) -> None:
        """`/chat/{username}?room=lobby`: text in, text out. A slash in the username is written %2F."""
        try:
            username = _username(websocket)
            with self.admitted(websocket) as address:
                identity = await self._plain_identity(websocket, username)
                wish = await self._wish(identity, websocket.query_params.get("room", DEFAULT_ROOM))
                await self._take_over(websocket, PLAIN, address, identity, wish)
        except Refusal as refusal:
            await self._refuse(websocket, refusal)

    async def nowhere(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Any other path."""
        await self._refuse(WebSocket(scope, receive, send), Refusal(HTTPStatus.NOT_FOUND, NOWHERE))

    async def _refuse(self, websocket: WebSocket, refusal: Refusal) -> None:
        await websocket.send_denial_response(self.refused(websocket, refusal))

    def refused(self, comer: HTTPConnection, refusal: Refusal) -> JSONResponse:
        self._meters.refused[refusal.status.value] += 1
        response = refusal.response()
        response.headers.update(self.cors(comer))
        return response

    async def _take_over(
        self,
        websocket: WebSocket,
        codec: Codec,
        address: str,
        identity: Identity | None,
        wish: Subscribe | None = None,
    ) -> None:
        self.refuse_if_closed()  # since it was asked first, a token was looked at
        await websocket.accept(subprotocol(websocket.scope["subprotocols"], SUBPROTOCOLS))
        home = "" if wish is None else wish.room
        take = websocket.scope["extensions"]["chatd.takeover"]["take"]
        session = self.seat(take, codec, address, identity, home=home)
        if wish is not None:
            self._chat.seat(session, wish)

    def seat(
        self,
        take: Callable[[Ear, LinkRules], Link],
        codec: Codec,
        address: str,
        identity: Identity | None,
        *,
        home: str = "",
        secret: str = "",
    ) -> Session:
        """Make an accepted connection, of which `take` makes a link, a session.

        From the hand-over on, what the client says reaches the session: nothing may wait until it has its link.
        """
        now, limits = self._chat.clock(), self._settings.limits
        session = Session(str(uuid.uuid4()), codec, address, now=now, since=round(time(), 3), home=home, secret=secret)
        session.identity = identity
        network = rules.network_of(address)
        link_rules = _link_rules(
            max_message=limits.frame,
            outbox=limits.outbox,
            control_frames=limits.control_frames,
        )
        link = take(Ear(self._chat, session, network), link_rules)
        if link.deflates:
            session.codec = DEFLATED.get(codec, codec)
        session.attach(link)
        self._hub.add(session, network, now + (limits.connect_timeout or math.inf))
        self._meters.opened[codec.door] += 1
        return session

    # --- what may be refused ------------------------------------------------------------------------------------------

    def refuse_if_closed(self) -> None:
        if reason := self._closed():
            raise Refusal(HTTPStatus.SERVICE_UNAVAILABLE, f"this node lets nobody in: {reason}")

    @contextmanager
    def admitted(self, comer: HTTPConnection) -> Iterator[str]:
        """Whoever may come in counts as here from now on, while others are asked who it is; gives the address.

        From the hub's taking it over until this ends nothing may wait, for it counts twice.
        """
        address = self._admit(comer)
        network = rules.network_of(address)
        self._coming += 1
        self._coming_by_network[network] += 1
        try:
            yield address
        finally:
            self._coming -= 1
            self._coming_by_network[network] -= 1
            if not self._coming_by_network[network]:
                del self._coming_by_network[network]

    @contextmanager
    def listening(self, comer: HTTPConnection) -> Iterator[None]:
        """A request that may be a client's word is under way, of which one address has no more than connections.

        Who says it is known only when all of it is there, and until then it is memory that anybody may take.
        """
        address = self._address(comer)
        network, most = rules.network_of(address), self._settings.limits.connections_per_address
        if 0 < most <= self._speaking_by_network[network] and not self._is_exempt(address):
            raise Refusal(HTTPStatus.TOO_MANY_REQUESTS, f"more than {most} requests at once from one address")
        self._speaking_by_network[network] += 1
        try:
            yield
        finally:
            self._speaking_by_network[network] -= 1
            if not self._speaking_by_network[network]:
                del self._speaking_by_network[network]

    def _address(self, comer: HTTPConnection) -> str:
        trusted = self._settings.server.trusted_proxies
        peer = comer.client.host if comer.client is not None else None
        return client_address(peer, comer.headers.getlist("x-forwarded-for"), rules.networks(trusted))

    def _is_exempt(self, address: str) -> bool:
        """Whether so many may come from there as want to: it is this machine's, or a proxy's."""
        local = address == "unix" or is_loopback(address)
        return local or rules.within(address, rules.networks(self._settings.server.trusted_proxies))

    def _admit(self, comer: HTTPConnection) -> str:
        """Whether anybody may come in from there now; returns the client's address."""
        self.refuse_if_closed()
        address = self._address(comer)
        if (ban := self._chat.measures.covering_address(What.BAN, address, "", time())) is not None:
            self._chat.met[ban.id] += 1
            raise Refusal(HTTPStatus.FORBIDDEN, "this address is banned")
        if self._chat.measures.lockdown >= Lockdown.NOBODY_NEW:
            raise Refusal(HTTPStatus.SERVICE_UNAVAILABLE, errors.CLOSED_FOR_NOW.reason)
        self._within_limits(address)
        self._in_pace()
        return address

    def _within_limits(self, address: str) -> None:
        limits, hub, coming = self._settings.limits, self._hub, self._coming
        if 0 < limits.connections <= hub.size + coming or 0 < limits.unknown_connections <= len(hub.unknown) + coming:
            raise Refusal(HTTPStatus.SERVICE_UNAVAILABLE, "this node is full; try another, or later")
        network = rules.network_of(address)
        here = hub.by_network.get(network, 0) + self._coming_by_network[network]
        if 0 < limits.connections_per_address <= here and not self._is_exempt(address):
            raise Refusal(HTTPStatus.TOO_MANY_REQUESTS, f"more than {here} connections from one address")

    def _in_pace(self) -> None:
        rate = self._settings.limits.connects_per_second
        due, early = rules.pace(self._connects_due, self._chat.clock(), 1, rate, max(rate, 1))
        if early:
            raise Refusal(HTTPStatus.SERVICE_UNAVAILABLE, "too many connect at once; try again in a moment")
        self._connects_due = due

    async def identity(self, comer: HTTPConnection) -> Identity | None:
        """Who comes, as far as the handshake says; None: it does not."""
        token = token_of(comer.headers, comer.scope.get("subprotocols", ()), self._settings.auth.cookie)
        if not self._is_of_an_allowed_page(comer, by_cookie=token is not None and token.by_cookie):
            self._meters.auth_failures["origin"] += 1
            raise Refusal(HTTPStatus.FORBIDDEN, "pages of this origin may not connect; see server.origins")
        if token is None:
            return None
        try:
            identity = await self._chat.verifier.identity(token.text)
        except (Reject, Disconnect) as error:
            self._meters.auth_failed(error)
            raise Refusal(HTTPStatus.UNAUTHORIZED, str(error)) from None
        if self._chat.revocations.covers(identity, time()):
            self._meters.auth_failed(errors.REVOKED)
            raise Refusal(HTTPStatus.UNAUTHORIZED, errors.REVOKED.reason)
        return identity

    def _is_of_an_allowed_page(self, comer: HTTPConnection, *, by_cookie: bool) -> bool:
        origin, host = comer.headers.get("origin"), comer.headers.get("host")
        origins, here = self._settings.server.origins, self._is_for_this_machine
        return origin_allowed(origin, host, origins, mandatory=by_cookie, here=here)

    def cors(self, comer: HTTPConnection) -> Mapping[str, str]:
        """What lets a page of another origin read an answer; nothing where it may not, or there is no page."""
        origin = comer.headers.get("origin")
        if origin is None or not self._is_of_an_allowed_page(comer, by_cookie=False):
            return {}
        with_cookies = self._is_of_an_allowed_page(comer, by_cookie=True)
        allowed = {"Access-Control-Allow-Origin": origin, "Vary": "Origin"}
        return {**allowed, "Access-Control-Allow-Credentials": "true"} if with_cookies else allowed

    async def _plain_identity(self, websocket: WebSocket, username: str) -> Identity:
        identity = await self.identity(websocket)
        if identity is None:
            if self._settings.auth.effective_mode != "open":
                self._meters.auth_failed(errors.NO_TOKEN)
                raise Refusal(HTTPStatus.UNAUTHORIZED, "a token is needed: header, cookie or subprotocol")
            return Identity(self._name(username))
        if identity.user != username:
            raise Refusal(HTTPStatus.FORBIDDEN, "the token is not for the user named in the path")
        return identity

    async def _wish(self, identity: Identity, room: str) -> Subscribe:
        """To read `room`, and all that is said there once the handshake is over."""
        name = self._name(room)
        try:
            rules.require(rules.Act.READ, await self._chat.role(identity, name), name)
            return await self._chat.from_now_on(name)
        except Reject as refusal:
            raise Refusal(HTTPStatus.FORBIDDEN, refusal.text) from None
        except StoreError as error:
            log.warning("handshake refused", error=str(error))
            raise Refusal(HTTPStatus.SERVICE_UNAVAILABLE, "the store does not answer; come again in a moment") from None

    def _name(self, text: str) -> str:
        try:
            return room_name(text, self._settings.limits.room_name)
        except Reject as refusal:
            raise Refusal(HTTPStatus.BAD_REQUEST, refusal.text) from None


def _language(websocket: WebSocket) -> Codec:
    """The SDK door's language of the one who comes: JSON, unless Protobuf is offered or asked for (section 1)."""
    query = websocket.query_params if websocket.scope["query_string"] else {}
    if "protobuf" in (query.get("format"), query.get("cf_protocol")):
        return SDK_PROTOBUF
    return LANGUAGES.get(subprotocol(websocket.scope["subprotocols"], LANGUAGES) or "", SDK_JSON)


def _username(websocket: WebSocket) -> str:
    """Who the plain door's path names: its last segment, where a slash of the user's id is written %2F."""
    username = str(websocket.path_params["username"])
    segment = websocket.scope["raw_path"].rpartition(b"/")[2].decode("ascii")
    if not username or unquote(segment) != username:
        raise Refusal(HTTPStatus.NOT_FOUND, NOWHERE)
    return username
