"""The way of a socket through a real uvicorn: door, handshake, link; on asyncio's loop and on uvloop.

Every test is a story of its own: it starts a server in its loop, and clients of `websockets` or bare sockets. Deadlines
are met by handing a later `now` to the sweeps.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import json
import logging
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import uvicorn
import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket
from websockets.asyncio.client import ClientConnection, connect, unix_connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory
from websockets.frames import Frame, Opcode

from chatd import frames
from chatd.errors import ABNORMAL, INTERNAL_ERROR, KICKED, POLICY_VIOLATION, SLOW, Disconnect
from chatd.outlets import REFUSED, send_all
from chatd.transport import (
    ARRIVALS_A_TURN,
    CLOSING_S,
    HEADERS,
    PIPELINED,
    UNREAD_S,
    Arrivals,
    Closing,
    Door,
    Doorway,
    Handshake,
    Link,
    LinkRules,
)

# The most that anything here may take on a busy machine; nothing waits for it to pass.
PATIENCE_S = 10.0
TIMEOUT_S = 5.0
HEADER_BYTES = 16 << 10
RULES = LinkRules(max_message=64 << 10, outbox=64 << 10, control_frames=50)

UPGRADE = (
    b"GET /chat HTTP/1.1\r\nHost: chatd\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n%s\r\n"
)


def on_both_loops(story: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[Any], None]:
    @pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
    def test(loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
        with asyncio.Runner(loop_factory=loop) as runner:
            runner.run(asyncio.wait_for(story(), 3 * PATIENCE_S))

    test.__name__, test.__doc__ = story.__name__, story.__doc__
    return test


class Guest:
    """A Receiver that remembers."""

    link: Link

    def __init__(self) -> None:
        self.messages: asyncio.Queue[bytes] = asyncio.Queue()
        self.signs = 0
        self.most_buffered = 0
        self.farewells: list[Disconnect] = []
        self.gone = asyncio.Event()

    def received(self, message: bytes) -> None:
        if message == b"boom":
            raise ZeroDivisionError("a bug")
        self.messages.put_nowait(message)

    def heard(self) -> None:
        self.signs += 1
        self.most_buffered = max(self.most_buffered, self.link.buffered())

    def lost(self, goodbye: Disconnect) -> None:
        self.farewells.append(goodbye)
        self.gone.set()

    async def farewell(self) -> tuple[int, str]:
        await asyncio.wait_for(self.gone.wait(), PATIENCE_S)
        (goodbye,) = self.farewells
        return goodbye.code, goodbye.reason


class House:
    """A server with every kind of route, and what its tests look at."""

    port = 0

    def __init__(self, rules: LinkRules) -> None:
        self.rules = rules
        self.doorway = Doorway(timeout=TIMEOUT_S, header_bytes=HEADER_BYTES)
        self.closing = Closing()
        self.guests: asyncio.Queue[Guest] = asyncio.Queue()
        self.scopes: list[dict[str, Any]] = []
        self.failures: list[Exception] = []
        self.ends: list[int] = []
        self.app = Starlette(
            routes=[
                WebSocketRoute("/chat", self.chat),
                WebSocketRoute("/late", self.late),
                WebSocketRoute("/denied", self.denied),
                WebSocketRoute("/closed", self.closed),
                WebSocketRoute("/dropped", self.dropped),
                WebSocketRoute("/goodbye", self.goodbye),
                WebSocketRoute("/broken", self.broken),
                WebSocketRoute("/twice", self.twice),
                WebSocketRoute("/mute", self.mute),
                WebSocketRoute("/waits", self.waits),
                Route("/hello", self.hello, methods=["GET", "POST"]),
                Route("/large", self.large),
                Route("/patient", self.patient),
                Route("/stream", Streaming(self), methods=["POST"]),
            ]
        )
        self.may_enter = asyncio.Event()

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    async def chat(self, websocket: WebSocket) -> None:
        self.scopes.append(dict(websocket.scope))
        await websocket.accept(next(iter(websocket.scope["subprotocols"]), None), [(b"x-served-by", b"chatd")])
        guest = Guest()
        guest.link = websocket.scope["extensions"]["chatd.takeover"]["take"](guest, self.rules)
        self.guests.put_nowait(guest)

    async def late(self, websocket: WebSocket) -> None:
        """Lets nobody in before it is told to."""
        self.scopes.append(dict(websocket.scope))
        await self.may_enter.wait()
        try:
            await self.chat(websocket)
        except Exception as failure:
            self.failures.append(failure)
            raise

    async def denied(self, websocket: WebSocket) -> None:
        await websocket.send_denial_response(JSONResponse({"error": "no token came"}, 401, {"Retry-After": "5"}))

    async def closed(self, websocket: WebSocket) -> None:
        await websocket.close()

    async def dropped(self, websocket: WebSocket) -> None:
        await websocket.accept()

    async def goodbye(self, websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.close(4500, "kicked")

    async def broken(self, websocket: WebSocket) -> None:
        raise ZeroDivisionError("a bug")

    async def twice(self, websocket: WebSocket) -> None:
        take = websocket.scope["extensions"]["chatd.takeover"]["take"]
        for attempt in range(2):
            try:
                take(Guest(), self.rules)
            except RuntimeError as failure:
                self.failures.append(failure)
            if attempt == 0:
                await self.chat(websocket)

    async def mute(self, websocket: WebSocket) -> None:
        pass

    async def waits(self, websocket: WebSocket) -> None:
        self.scopes.append(dict(websocket.scope))
        while (message := await websocket.receive())["type"] != "websocket.disconnect":
            pass
        self.ends.append(message["code"])

    async def hello(self, request: Request) -> Response:
        return PlainTextResponse(f"{len(await request.body())} bytes")

    async def large(self, request: Request) -> Response:
        return PlainTextResponse("x" * LARGE)

    async def patient(self, request: Request) -> Response:
        await self.may_enter.wait()
        return PlainTextResponse("at last")

    async def stream(self, scope: Scope, send: Send) -> None:
        guest, take = Guest(), scope["extensions"]["chatd.takeover"]["take"]
        beginning = {"type": "http.response.start", "status": 200, "headers": [(b"connection", b"close")]}
        for message in (None, beginning, None):
            try:
                if message is not None:
                    await send(message)
                guest.link = take(guest, self.rules, lambda goodbye: b"%d" % goodbye.code)
            except RuntimeError as failure:
                self.failures.append(failure)
        self.guests.put_nowait(guest)

    async def guest(self) -> Guest:
        return await asyncio.wait_for(self.guests.get(), PATIENCE_S)


class Streaming:
    """A route that is an ASGI application, and takes over its answer: too early, in time, and once more."""

    def __init__(self, house: House) -> None:
        self._house = house

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._house.stream(scope, send)


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Any:
        yield


@contextlib.asynccontextmanager
async def serving(
    rules: LinkRules = RULES, *, deflate: bool = False, path: Path | None = None, **options: Any
) -> AsyncIterator[House]:
    house = House(rules)
    listener = socket.socket(socket.AF_UNIX if path else socket.AF_INET)
    # Little room in the kernel, so that what a client does not read soon waits with us.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    listener.bind(str(path) if path else ("127.0.0.1", 0))
    listener.listen()
    house.port = 0 if path else listener.getsockname()[1]
    config = uvicorn.Config(
        house.app,
        http=functools.partial(Door, house.doorway, house.closing),  # type: ignore[arg-type]  # called like a class
        ws=functools.partial(Handshake, house.closing, Arrivals(), deflate),  # type: ignore[arg-type]
        lifespan="off",
        log_config=None,
        timeout_graceful_shutdown=1,
        **options,
    )
    server = _Server(config)
    task = asyncio.create_task(server.serve(sockets=[listener]), name="server")
    while not server.started:
        await asyncio.sleep(0)
    try:
        yield house
    finally:
        while not house.guests.empty():
            house.guests.get_nowait().link.abort()
        server.should_exit = True
        await task


class Bare:
    """A client of bytes."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def __init__(self, house: House) -> None:
        self._port = house.port

    async def __aenter__(self) -> Bare:
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self._port)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.writer.close()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def head(self) -> bytes:
        return await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), PATIENCE_S)

    async def rest(self) -> bytes:
        """All until the server ends the connection, be it gently or not."""
        got = b""
        with contextlib.suppress(ConnectionError):
            while piece := await asyncio.wait_for(self.reader.read(1 << 16), PATIENCE_S):
                got += piece
        return got

    async def upgrade(self, headers: bytes = b"", behind: bytes = b"") -> bytes:
        self.send(UPGRADE % headers + behind)
        return await self.head()


class BareTls(Bare):
    """A client of bytes within TLS."""

    def __init__(self, house: House, trusted: ssl.SSLContext) -> None:
        super().__init__(house)
        self._trusted = trusted

    async def __aenter__(self) -> BareTls:
        self.reader, self.writer = await asyncio.open_connection("localhost", self._port, ssl=self._trusted)
        # Little room here too, so that what is not read soon waits at the server.
        self.writer.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        return self


def said(text: bytes) -> bytes:
    return Frame(Opcode.TEXT, text).serialize(mask=True)


def ping(payload: bytes = b"") -> bytes:
    return Frame(Opcode.PING, payload).serialize(mask=True)


async def end_of(client: ClientConnection) -> tuple[int, str]:
    with pytest.raises(ConnectionClosed):
        while True:
            await asyncio.wait_for(client.recv(), PATIENCE_S)
    assert client.close_code is not None
    return client.close_code, client.close_reason or ""


async def until(fact: Callable[[], bool]) -> None:
    """Let the loop turn until `fact` holds, for at most PATIENCE_S."""
    async with asyncio.timeout(PATIENCE_S):
        while not fact():
            await asyncio.sleep(0)


def certificate(directory: Path, lifetime: timedelta = timedelta(days=1), days_old: int = 0) -> tuple[str, str]:
    """Files of a certificate for localhost and of its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    since = datetime.now(UTC) - timedelta(days=days_old)
    serial = x509.random_serial_number()
    signed = (
        x509.CertificateBuilder(name, name, key.public_key(), serial, since, since + lifetime)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem, format = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    (directory / "cert.pem").write_bytes(signed.public_bytes(pem))
    (directory / "key.pem").write_bytes(key.private_bytes(pem, format, serialization.NoEncryption()))
    return str(directory / "cert.pem"), str(directory / "key.pem")


# --- the handshake ----------------------------------------------------------------------------------------------------


@on_both_loops
async def test_a_socket_taken_over_is_a_link_and_speaks_both_ways() -> None:
    async with serving() as house, connect(house.url + "/chat") as client:
        guest = await house.guest()
        assert isinstance(guest.link, Link)
        await client.send("hello")
        assert await guest.messages.get() == b"hello"
        guest.link.write(frames.text(b"hello yourself"))
        assert await client.recv() == "hello yourself"


@on_both_loops
async def test_the_application_sees_a_scope_like_uvicorns() -> None:
    async with serving() as house:
        async with connect(house.url + "/chat?room=a%20b", subprotocols=["one", "two"], origin="http://here") as client:  # type: ignore[list-item, arg-type]
            assert client.subprotocol == "one"
            assert client.response is not None
            assert client.response.headers["X-Served-By"] == "chatd"
            await house.guest()
        (scope,) = house.scopes
        assert (scope["type"], scope["scheme"], scope["path"]) == ("websocket", "ws", "/chat")
        assert (scope["raw_path"], scope["query_string"]) == (b"/chat", b"room=a%20b")
        assert scope["server"] == ("127.0.0.1", house.port)
        assert scope["client"][0] == "127.0.0.1"
        assert scope["subprotocols"] == ["one", "two"]
        assert (b"origin", b"http://here") in scope["headers"]
        assert (b"sec-websocket-protocol", b"one, two") in scope["headers"]


@on_both_loops
async def test_a_denial_reaches_the_client_with_status_headers_and_body() -> None:
    async with serving() as house:
        with pytest.raises(InvalidStatus) as denied:
            await connect(house.url + "/denied")
        response = denied.value.response
        assert (response.status_code, response.headers["Retry-After"]) == (401, "5")
        assert json.loads(response.body or b"") == {"error": "no token came"}


@on_both_loops
async def test_an_application_that_refuses_fails_or_says_nothing_gives_a_status() -> None:
    async with serving() as house:
        for path, status in (("/closed", 403), ("/broken", 500), ("/mute", 500), ("/nowhere", 403)):
            with pytest.raises(InvalidStatus) as denied:
                await connect(house.url + path)
            assert denied.value.response.status_code == status


@on_both_loops
async def test_an_application_that_accepts_and_leaves_closes_with_1011() -> None:
    async with serving() as house, connect(house.url + "/dropped") as client:
        assert (await end_of(client))[0] == 1011


@on_both_loops
async def test_an_application_may_close_after_it_accepted() -> None:
    async with serving() as house, connect(house.url + "/goodbye") as client:
        assert await end_of(client) == (4500, "kicked")


@on_both_loops
async def test_a_socket_cannot_be_taken_before_it_is_accepted_nor_twice() -> None:
    async with serving() as house, connect(house.url + "/twice"):
        await house.guest()
        await until(lambda: len(house.failures) == 2)
        assert all("once, after websocket.accept" in str(failure) for failure in house.failures)


ODD: dict[str, tuple[bytes, int]] = {
    "no key": ((UPGRADE % b"").replace(b"Sec-WebSocket-Key", b"X-Nothing"), 400),
    "a short key": ((UPGRADE % b"").replace(b"A==", b"=="), 400),
    "a key that is no base64": ((UPGRADE % b"").replace(b"A==", b"!=="), 400),
    "two keys": (UPGRADE % b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n", 400),
    "no version": ((UPGRADE % b"").replace(b"Sec-WebSocket-Version", b"X-Nothing"), 400),
    "another version": ((UPGRADE % b"").replace(b"Version: 13", b"Version: 8"), 400),
    "two versions": (UPGRADE % b"Sec-WebSocket-Version: 13\r\n", 400),
    "two origins": (UPGRADE % b"Origin: http://here\r\nOrigin: http://there\r\n", 400),
    "two kinds of upgrade": (UPGRADE % b"Upgrade: websocket\r\n", 426),
    "another method": ((UPGRADE % b"").replace(b"GET", b"POST"), 405),
    "HTTP/1.0": ((UPGRADE % b"").replace(b"HTTP/1.1", b"HTTP/1.0"), 505),
    "a body": (UPGRADE % b"Content-Length: 2\r\n" + b"hi", 400),
    "a body of unsaid length": (UPGRADE % b"Transfer-Encoding: chunked\r\n" + b"0\r\n\r\n", 400),
    "a header that is too long": (UPGRADE % (b"X-Long: " + b"x" * 10_000 + b"\r\n"), 431),
    "many extensions": (UPGRADE % (b"Sec-WebSocket-Extensions: " + 99 * b"a," + b"a\r\n"), 431),
    "many parameters": (UPGRADE % (b"Sec-WebSocket-Extensions: a" + 99 * b";a" + b"\r\n"), 431),
    "many subprotocols in many headers": (UPGRADE % (9 * (b"Sec-WebSocket-Protocol: " + 9 * b"a," + b"a\r\n")), 431),
    "many options of the connection": ((UPGRADE % b"").replace(b": Upgrade", b": Upgrade" + 99 * b",a"), 431),
    "a target that is too long": ((UPGRADE % b"").replace(b"/chat", b"/chat?" + b"x" * 10_000), 414),
    "a target that is not ASCII": ((UPGRADE % b"").replace(b"/chat", b"/ch\xc3\xa4t"), 400),
    "a control character": (UPGRADE % b"X-Odd: a\x0bb\r\n", 400),
    "a name with a space": (UPGRADE % b"X Odd: a\r\n", 400),
    "a folded header": (UPGRADE % b"X-Odd: a\r\n b\r\n", 400),
}


@pytest.mark.parametrize(("request_", "status"), ODD.values(), ids=ODD)
def test_an_upgrade_that_is_not_one_is_answered_in_http(request_: bytes, status: int) -> None:
    async def story() -> None:
        async with serving() as house, Bare(house) as client:
            client.send(request_)
            assert (await client.rest()).startswith(b"HTTP/1.1 %d " % status)
            assert not house.scopes
            gc.collect()
            assert not [thing for thing in gc.get_objects() if isinstance(thing, Handshake)]

    asyncio.run(asyncio.wait_for(story(), PATIENCE_S))


@on_both_loops
async def test_white_space_around_a_value_means_nothing() -> None:
    async with serving() as house, Bare(house) as client:
        key = b"AAAAAAAAAAAAAAAAAAAAAA=="
        client.send((UPGRADE % b"X-Odd:\t a \t\r\nContent-Length: 0\r\n").replace(key, b" " + key + b" \t"))
        assert b" 101 " in await client.head()
        await house.guest()
        assert (b"x-odd", b"a") in house.scopes[0]["headers"]


@on_both_loops
async def test_an_empty_subprotocol_header_is_as_good_as_none() -> None:
    async with serving() as house, Bare(house) as client:
        assert b" 101 " in await client.upgrade(b"Sec-WebSocket-Protocol: \r\n")
        assert house.scopes[0]["subprotocols"] == []
        await house.guest()


@on_both_loops
async def test_a_client_that_left_before_it_was_let_in_is_nobodys_guest() -> None:
    async with serving() as house:
        async with Bare(house) as client:
            client.send((UPGRADE % b"").replace(b"/chat", b"/late"))
            await until(lambda: len(house.scopes) == 1)
        await asyncio.sleep(0.05)  # the server's loop shall have seen the end of it
        house.may_enter.set()
        await until(lambda: len(house.failures) == 1)
        assert house.guests.empty()


@on_both_loops
async def test_an_application_that_does_not_decide_hears_that_the_client_has_gone() -> None:
    async with serving() as house:
        async with Bare(house) as client:
            client.send((UPGRADE % b"").replace(b"/chat", b"/waits"))
            await until(lambda: len(house.scopes) == 1)
        await until(lambda: house.ends == [ABNORMAL.code])


@on_both_loops
async def test_what_comes_in_one_segment_with_the_handshake_is_heard_in_order() -> None:
    async with serving() as house, Bare(house) as client:
        second = said(b"second")
        await client.upgrade(behind=said(b"first") + second[:3])
        client.send(second[3:] + said(b"third"))
        guest = await house.guest()
        assert [await guest.messages.get() for _ in range(3)] == [b"first", b"second", b"third"]


@on_both_loops
async def test_what_comes_before_the_door_opens_waits_in_order_and_no_more_than_one_read_of_it() -> None:
    async with serving() as house, Bare(house) as client:
        client.send((UPGRADE % b"").replace(b"/chat", b"/late"))
        await until(lambda: len(house.scopes) == 1)
        everything = [b"%06d" % number + b"x" * 30_000 for number in range(200)]
        client.send(b"".join(map(said, everything)))
        await asyncio.sleep(0.05)  # time to read it all, if anybody would
        house.may_enter.set()
        guest = await house.guest()
        first = await guest.messages.get()
        # A read has 256 KiB at most, on either loop; there may have been a few more since the door opened.
        assert guest.messages.qsize() < len(everything) / 2, "most of it was not read before"
        assert [first] + [await guest.messages.get() for _ in everything[1:]] == everything


@pytest.mark.parametrize("secure", [False, True], ids=["unix", "tls"])
def test_it_works_on_unix_sockets_and_over_tls(secure: bool, tmp_path: Path) -> None:
    async def story() -> None:
        cert, key = certificate(tmp_path)
        if secure:
            serve = serving(ssl_certfile=cert, ssl_keyfile=key)
            trusted = ssl.create_default_context(cafile=cert)
        else:
            serve = serving(path=tmp_path / "socket")
        async with serve as house:
            if secure:
                client = await connect(f"wss://localhost:{house.port}/chat", ssl=trusted)
            else:
                client = await unix_connect(str(tmp_path / "socket"), "ws://localhost/chat")
            guest = await house.guest()
            assert house.scopes[0]["scheme"] == ("wss" if secure else "ws")
            assert (house.scopes[0]["client"] is None) is not secure
            await client.send("hello")
            assert await guest.messages.get() == b"hello"
            guest.link.close(KICKED)
            assert (await end_of(client))[0] == KICKED.code
            assert await guest.farewell() == (KICKED.code, KICKED.reason)

    for loop in (asyncio.new_event_loop, uvloop.new_event_loop):
        with asyncio.Runner(loop_factory=loop) as runner:
            runner.run(asyncio.wait_for(story(), PATIENCE_S))
        (tmp_path / "socket").unlink(missing_ok=True)


def test_nothing_of_a_request_is_logged(caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]) -> None:
    async def story() -> None:
        async with serving() as house:
            secret = {"Authorization": "Bearer hush"}
            async with connect(house.url + "/chat?room=hush", additional_headers=secret, logger=silent):
                await house.guest()
            for path in ("/denied", "/closed"):
                with pytest.raises(InvalidStatus):
                    await connect(house.url + path + "?room=hush", additional_headers=secret, logger=silent)

    silent = logging.Logger("client", logging.CRITICAL)
    with caplog.at_level(logging.DEBUG):
        asyncio.run(story())
    shown = capsys.readouterr()
    assert "hush" not in caplog.text + shown.out + shown.err


async def test_of_many_that_come_at_once_a_few_begin_in_each_turn_of_the_loop_in_order() -> None:
    arrivals, begun, turns = Arrivals(), list[int](), list[int]()
    for n in range(3 * ARRIVALS_A_TURN):
        arrivals.enter(functools.partial(begun.append, n))
    while len(begun) < 3 * ARRIVALS_A_TURN:
        turns.append(len(begun))
        await asyncio.sleep(0)
    assert [after - before for before, after in pairwise([*turns, len(begun)])] == [ARRIVALS_A_TURN] * 3
    assert begun == sorted(begun)


async def test_a_bug_in_one_arrival_holds_up_nobody_behind_it() -> None:
    def buggy() -> None:
        raise ZeroDivisionError

    arrivals, begun, told = Arrivals(), asyncio.Event(), list[Any]()
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: told.append(context["exception"]))
    arrivals.enter(buggy)
    arrivals.enter(begun.set)
    async with asyncio.timeout(PATIENCE_S):
        await begun.wait()
    assert [type(error) for error in told] == [ZeroDivisionError]


# --- deflate ----------------------------------------------------------------------------------------------------------


@on_both_loops
async def test_deflate_is_agreed_on_without_context_and_one_frame_serves_all() -> None:
    async with serving(deflate=True) as house, connect(house.url + "/chat") as one, connect(house.url + "/chat") as two:
        assert one.response is not None
        agreed = one.response.headers["Sec-WebSocket-Extensions"]
        assert "server_no_context_takeover" in agreed
        assert "client_no_context_takeover" in agreed
        links = [(await house.guest()).link for _ in range(2)]
        frame = frames.text(b"hello " * 100, deflate=True)
        for _ in range(2):
            for link in links:
                assert link.deflates
                link.write(frame)
            assert [await one.recv(), await two.recv()] == ["hello " * 100] * 2


@on_both_loops
async def test_deflate_is_declined_where_it_is_off_or_the_window_would_be_smaller() -> None:
    small = [ClientPerMessageDeflateFactory(server_max_window_bits=12)]
    for deflate, offered in ((False, None), (True, small)):
        async with serving(deflate=deflate) as house, connect(house.url + "/chat", extensions=offered) as client:
            assert client.response is not None
            assert "Sec-WebSocket-Extensions" not in client.response.headers
            assert not (await house.guest()).link.deflates


@on_both_loops
async def test_a_deflate_bomb_ends_with_1009() -> None:
    async with serving(deflate=True) as house, connect(house.url + "/chat") as client:
        await client.send("0" * (16 << 20))
        assert (await end_of(client))[0] == 1009


# --- an open link -----------------------------------------------------------------------------------------------------


@on_both_loops
async def test_our_goodbye_reaches_the_client_after_all_that_was_written() -> None:
    async with serving() as house, connect(house.url + "/chat") as client:
        guest = await house.guest()
        guest.link.write(frames.text(b"last words"))
        guest.link.close(KICKED)
        guest.link.close(SLOW)
        assert await client.recv() == "last words"
        assert await end_of(client) == (KICKED.code, KICKED.reason)
        assert await guest.farewell() == (KICKED.code, KICKED.reason)


@on_both_loops
async def test_the_clients_goodbye_is_told_once_and_is_the_clients() -> None:
    async with serving() as house, connect(house.url + "/chat") as client:
        guest = await house.guest()
        await client.close(4001, "bye")
        assert await guest.farewell() == (4001, "bye")
        assert guest.link.congested


@on_both_loops
async def test_a_client_that_vanishes_is_told_as_lost() -> None:
    async with serving() as house:
        async with Bare(house) as client:
            await client.upgrade()
            guest = await house.guest()
        assert await guest.farewell() == (ABNORMAL.code, ABNORMAL.reason)
        guest.link.close(KICKED)
        guest.link.pause_reading()
        assert (guest.link.congested, guest.link.buffered(), len(guest.farewells)) == (True, 0, 1)


@on_both_loops
async def test_after_a_goodbye_nothing_may_be_written_and_nothing_is_heard() -> None:
    async with serving() as house, Bare(house) as client:
        await client.upgrade()
        guest = await house.guest()
        guest.link.close(KICKED)
        assert guest.link.congested
        client.send(said(b"too late") + ping() + Frame(Opcode.CLOSE, b"\x0f\xa1").serialize(mask=True))
        assert await guest.farewell() == (KICKED.code, KICKED.reason)
        assert guest.messages.empty()
        assert await client.rest() == frames.close(KICKED.code, KICKED.reason)


@on_both_loops
async def test_who_does_not_answer_our_goodbye_is_cut_by_the_sweep() -> None:
    async with serving() as house, Bare(house) as client:
        await client.upgrade()
        guest = await house.guest()
        guest.link.close(KICKED)
        now = asyncio.get_running_loop().time()
        house.closing.sweep(now + CLOSING_S - 1)
        await asyncio.sleep(0)
        assert not guest.gone.is_set()
        house.closing.sweep(now + CLOSING_S + 1)
        assert await guest.farewell() == (KICKED.code, KICKED.reason)


@on_both_loops
async def test_who_says_goodbye_but_does_not_read_is_cut_by_the_sweep() -> None:
    async with serving() as house, Bare(house) as client:
        await client.upgrade()
        guest = await house.guest()
        while not guest.link.congested:
            guest.link.write(frames.text(b"x" * 16_000))
            await asyncio.sleep(0)
        client.send(Frame(Opcode.CLOSE, b"\x03\xe8").serialize(mask=True))
        assert await guest.farewell() == (1000, "")
        house.closing.sweep(asyncio.get_running_loop().time() + CLOSING_S + 1)
        with contextlib.suppress(ConnectionError):
            await client.rest()
        assert guest.link.buffered() == 0


@on_both_loops
async def test_a_bug_in_the_receiver_costs_one_connection() -> None:
    async with serving() as house, connect(house.url + "/chat") as unlucky, connect(house.url + "/chat") as other:
        guest, witness = await house.guest(), await house.guest()
        await unlucky.send("boom")
        assert await end_of(unlucky) == (INTERNAL_ERROR.code, INTERNAL_ERROR.reason)
        assert (await guest.farewell())[0] == INTERNAL_ERROR.code
        await other.send("still here")
        assert await witness.messages.get() == b"still here"


@on_both_loops
async def test_who_breaks_the_protocol_hears_which_rule() -> None:
    async with serving() as house:
        for wrong, code in (
            (frames.text(b"not masked"), 1002),
            (b"\x81\xff\x7f" + b"\xff" * 7, 1009),
            (Frame(Opcode.TEXT, b"\xff").serialize(mask=True), 1007),
            (Frame(Opcode.TEXT, b"", fin=False).serialize(mask=True) + b"\x00\x80abcd" * frames.FRAGMENTS, 1009),
            (said(b"x" * (RULES.max_message + 1)), 1009),
        ):
            async with Bare(house) as client:
                await client.upgrade()
                guest = await house.guest()
                client.send(wrong)
                assert (await client.rest())[2:4] == code.to_bytes(2, "big")
            assert (await guest.farewell())[0] == code


@on_both_loops
async def test_reading_can_be_paused_and_what_was_sent_comes_afterwards() -> None:
    async with serving() as house, Bare(house) as client:
        await client.upgrade()
        guest = await house.guest()
        guest.link.pause_reading()
        client.send(said(b"later"))
        await client.writer.drain()
        await asyncio.sleep(0.02)  # time to arrive, if anybody read
        assert guest.messages.empty()
        guest.link.resume_reading()
        assert await asyncio.wait_for(guest.messages.get(), PATIENCE_S) == b"later"


# --- bounds -----------------------------------------------------------------------------------------------------------


@on_both_loops
async def test_half_of_the_bound_is_congestion_until_the_client_reads() -> None:
    async with serving() as house, Bare(house) as client:
        await client.upgrade()
        link = (await house.guest()).link
        written = 0
        while not link.congested:
            assert link.buffered() <= RULES.outbox // 2
            link.write(frames.text(b"x" * 1000))
            written += 1004
        assert link.buffered() <= RULES.outbox // 2 + 1004
        await asyncio.wait_for(client.reader.readexactly(written), PATIENCE_S)
        await until(lambda: not link.congested)


@on_both_loops
async def test_without_a_bound_a_few_frames_that_wait_are_no_congestion() -> None:
    async with serving(replace(RULES, outbox=0)) as house, Bare(house) as client:
        await client.upgrade()
        link = (await house.guest()).link
        while not link.buffered():
            link.write(frames.text(b"x" * 1000))
        assert not link.congested


def sent_at_once(link: Link, frame: bytes) -> int:
    assert link.outlet is not None
    [sent] = send_all([link.outlet], frame)
    return sent


def fan_out_to(link: Link, frame: bytes) -> bool:
    """As the hub does it: at once where that is possible, else behind what waits; returns whether it was possible."""
    sent = sent_at_once(link, frame)
    if sent == REFUSED:
        link.write(frame)
        return False
    if sent != len(frame):
        link.write_rest(frame, sent)
    return True


@on_both_loops
async def test_what_is_sent_at_once_and_what_waits_arrive_in_one_order() -> None:
    async with serving() as house, Bare(house) as client:
        await client.upgrade()
        link = (await house.guest()).link
        outlet = link.outlet
        for _ in range(2):  # again after all has been taken
            expected = b""
            while not link.buffered():
                expected += (frame := frames.text(b"%d" % len(expected) * 500))
                fan_out_to(link, frame)
            for text in (b"a", b"b"):
                expected += frames.text(text)
                assert not fan_out_to(link, frames.text(text)), "something waits"
            assert await asyncio.wait_for(client.reader.readexactly(len(expected)), PATIENCE_S) == expected
            await until(lambda: link.buffered() == 0)
            link.write(frames.text(b"nothing waits"))
            assert fan_out_to(link, frames.text(b"so this goes at once"))
            await asyncio.wait_for(client.reader.readexactly(15 + 22), PATIENCE_S)
            assert link.outlet is outlet


@on_both_loops
async def test_a_socket_is_not_used_once_its_end_has_begun() -> None:
    async with serving() as house, Bare(house) as closed, Bare(house) as lost:
        for client in (closed, lost):
            await client.upgrade()
        one, other = (await house.guest()), (await house.guest())
        one.link.close(KICKED)
        assert sent_at_once(one.link, b"nobody") == REFUSED
        lost.writer.transport.abort()
        await other.gone.wait()
        for _ in range(2):  # what is written is thrown away, and by no means sent to who has the descriptor now
            assert sent_at_once(other.link, b"nobody") == REFUSED
            other.link.write(frames.text(b"nobody"))


@on_both_loops
async def test_a_socket_that_was_lost_before_it_was_taken_over_is_not_used_either() -> None:
    loop, lost = asyncio.get_running_loop(), asyncio.Event()

    class Door(asyncio.Protocol):
        def connection_lost(self, exc: Exception | None) -> None:
            lost.set()

    ours, theirs = socket.socketpair()
    with theirs:
        transport, _ = await loop.create_connection(Door, sock=ours)
        descriptor = transport.get_extra_info("socket").fileno()
        transport.abort()
        await lost.wait()
        await asyncio.sleep(0)
        newcomer, peer = socket.socketpair()
        with newcomer, peer:
            assert newcomer.fileno() == descriptor
            link = Link(transport, Guest(), RULES, Closing(), deflates=False)
            link.write(frames.text(b"nobody"))
            peer.setblocking(False)
            with pytest.raises(BlockingIOError):
                peer.recv(100)


@on_both_loops
async def test_pings_are_answered_and_are_signs_of_life() -> None:
    async with serving() as house, connect(house.url + "/chat") as client:
        guest = await house.guest()
        await asyncio.wait_for(await client.ping(b"there?"), PATIENCE_S)
        guest.link.write(frames.ping())
        await until(lambda: guest.signs == 2)


@on_both_loops
async def test_a_flood_of_pings_ends_with_1008() -> None:
    async with serving() as house, Bare(house) as client:
        await client.upgrade()
        guest = await house.guest()
        client.send(ping() * (RULES.control_frames + 1))
        heard = await client.rest()
        goodbye = frames.close(POLICY_VIOLATION.code, "too many control frames")
        assert heard == frames.pong() * RULES.control_frames + goodbye
        assert guest.signs == RULES.control_frames


@on_both_loops
async def test_a_flood_of_unasked_pongs_makes_no_tasks_and_ends_with_1008() -> None:
    async with serving() as house, Bare(house) as client:
        await client.upgrade()
        guest, tasks = await house.guest(), len(asyncio.all_tasks())
        client.send(Frame(Opcode.PONG, b"").serialize(mask=True) * 10_000)
        assert (await guest.farewell())[0] == POLICY_VIOLATION.code
        assert len(asyncio.all_tasks()) == tasks


@on_both_loops
async def test_pongs_to_a_client_that_does_not_read_wait_within_the_bound_and_then_it_is_closed() -> None:
    rules = LinkRules(max_message=1000, outbox=32 << 10, control_frames=0)
    async with serving(rules) as house, Bare(house) as client:
        await client.upgrade()
        guest = await house.guest()
        flood = ping(b"x" * frames.CONTROL_BYTES) * 100
        async with asyncio.timeout(PATIENCE_S):
            while not guest.gone.is_set():
                client.send(flood)
                await asyncio.sleep(0)
        assert await guest.farewell() == (SLOW.code, SLOW.reason)
        assert rules.outbox - 200 <= guest.most_buffered <= rules.outbox + 200
        house.closing.sweep(asyncio.get_running_loop().time() + CLOSING_S + 1)
        assert guest.link.buffered() == 0


def test_over_tls_bounds_hold_and_a_broken_link_ends_with_the_sweep(tmp_path: Path) -> None:
    """TLS has a buffer of its own behind which bytes wait, and cannot say that nothing follows."""
    cert, key = certificate(tmp_path)

    async def story() -> None:
        trusted = ssl.create_default_context(cafile=cert)
        async with serving(ssl_certfile=cert, ssl_keyfile=key) as house:
            async with BareTls(house, trusted) as slow:
                await slow.upgrade()
                link, written = (await house.guest()).link, 0
                while not link.congested:
                    link.write(frames.text(b"x" * 1000))
                    written += 1004
                    await asyncio.sleep(0)
                assert RULES.outbox // 2 <= link.buffered() <= RULES.outbox // 2 + 2048
                await asyncio.wait_for(slow.reader.readexactly(written), PATIENCE_S)
                await until(lambda: not link.congested)
            async with BareTls(house, trusted) as wrong:
                await wrong.upgrade()
                guest = await house.guest()
                wrong.send(frames.text(b"not masked"))
                assert (await guest.farewell())[0] == 1002
                assert (await wrong.reader.readexactly(4))[2:] == (1002).to_bytes(2, "big")
                house.closing.sweep(asyncio.get_running_loop().time() + CLOSING_S + 1)
                await wrong.rest()

    for loop in (asyncio.new_event_loop, uvloop.new_event_loop):
        with asyncio.Runner(loop_factory=loop) as runner:
            runner.run(asyncio.wait_for(story(), PATIENCE_S))


# --- the door ---------------------------------------------------------------------------------------------------------


@on_both_loops
async def test_an_ordinary_request_and_the_next_on_its_connection_are_served() -> None:
    async with serving() as house, Bare(house) as client:
        for _ in range(2):
            client.send(b"POST /hello HTTP/1.1\r\nHost: chatd\r\nContent-Length: 40000\r\n\r\n" + b"x" * 40_000)
            assert b"200 OK" in await client.head()
            assert await client.reader.readexactly(11) == b"40000 bytes"
        # Idle between requests, it is none of the doorway's.
        house.doorway.sweep(asyncio.get_running_loop().time() + TIMEOUT_S + 1)
        client.send(b"GET /hello HTTP/1.1\r\nHost: chatd\r\n\r\n")
        assert b"200 OK" in await client.head()


WHOLE = b"GET /hello HTTP/1.1\r\nHost: chatd\r\n\r\n"


@pytest.mark.parametrize(
    ("first", "answers", "then"),
    [
        pytest.param(b"", 0, b"", id="says nothing"),
        pytest.param(b"", 0, b"GET /hello HTTP/1.1\r\nHost:", id="stops in a header"),
        pytest.param(WHOLE, 1, b"GET /hel", id="stops in its second request"),
        pytest.param(
            b"", 0, b"POST /hello HTTP/1.1\r\nHost: chatd\r\nContent-Length: 5\r\n\r\nab", id="stops in the body"
        ),
    ],
)
def test_a_request_that_does_not_end_is_cut_by_the_sweep(first: bytes, answers: int, then: bytes) -> None:
    @on_both_loops
    async def story() -> None:
        async with serving() as house, Bare(house) as client:
            client.send(first)
            for _ in range(answers):
                await client.head()
                await client.reader.readexactly(len("0 bytes"))
            client.send(then)
            await until(lambda: len(house.doorway._since) == 1)
            await asyncio.sleep(0.02)  # time for `then` to arrive
            now = asyncio.get_running_loop().time()
            house.doorway.sweep(now + TIMEOUT_S - 1)
            await asyncio.sleep(0)
            assert len(house.doorway._since) == 1
            house.doorway.sweep(now + TIMEOUT_S + 1)
            assert await client.rest() == b""

    for loop in (asyncio.new_event_loop, uvloop.new_event_loop):
        story(loop)


MANY = b"".join(b"X-%d: y\r\n" % number for number in range(HEADERS))
LONG = b"X-Long: " + b"x" * HEADER_BYTES + b"\r\n"


@on_both_loops
async def test_a_head_with_too_many_headers_or_bytes_is_answered_431() -> None:
    start = b"GET /hello HTTP/1.1\r\nHost: chatd\r\n"
    longest = b"GET /" + b"x" * HEADER_BYTES
    async with serving() as house:
        for head in (start + MANY + b"\r\n", start + LONG + b"\r\n", start + LONG, longest, UPGRADE % MANY):
            async with Bare(house) as client:
                client.send(head)
                answer = await client.rest()
                assert answer.startswith(b"HTTP/1.1 431 ")
                assert "at most" in json.loads(answer.partition(b"\r\n\r\n")[2])["error"]
            assert not house.doorway._since
        assert not house.scopes


@on_both_loops
async def test_a_head_in_endless_small_pieces_is_answered_431() -> None:
    async with serving() as house, Bare(house) as client:
        client.send(b"GET /hello HTTP/1.1\r\nHost: chatd\r\nX-Long: ")
        for _ in range(HEADER_BYTES // 1000 + 1):
            client.send(b"x" * 1000)
            await asyncio.sleep(0)
        assert (await client.rest()).startswith(b"HTTP/1.1 431 ")


@on_both_loops
async def test_what_is_not_http_is_answered_400() -> None:
    async with serving() as house, Bare(house) as client:
        client.send(b"\x16\x03\x01\x00\xa5 hello\r\n\r\n")
        assert (await client.rest()).startswith(b"HTTP/1.1 400 ")


LARGE = 1 << 20  # bytes of an answer, more than the kernel takes for a client that does not read


@pytest.mark.parametrize(
    "request_",
    [
        pytest.param(b"GET /large HTTP/1.1\r\nHost: chatd\r\n\r\n", id="and may ask again"),
        pytest.param(b"GET /large HTTP/1.1\r\nHost: chatd\r\nConnection: close\r\n\r\n", id="whose end waits for it"),
    ],
)
def test_who_does_not_read_the_answer_is_cut_by_the_sweep(request_: bytes) -> None:
    @on_both_loops
    async def story() -> None:
        async with serving() as house, Bare(house) as client, Bare(house) as reader:
            client.writer.transport.pause_reading()  # type: ignore[attr-defined]
            client.send(request_)
            await until(lambda: len(house.doorway._unread) == 1)
            reader.send(request_)
            assert len((await reader.head()) + await reader.reader.readexactly(LARGE)) > LARGE
            await until(lambda: len(house.doorway._unread) == 1)
            now = asyncio.get_running_loop().time()
            house.doorway.sweep(now + UNREAD_S - PATIENCE_S)
            assert len(house.doorway._unread) == 1
            house.doorway.sweep(now + UNREAD_S)
            client.writer.transport.resume_reading()  # type: ignore[attr-defined]
            assert len(await client.rest()) < LARGE
            assert not house.doorway._unread

    for loop in (asyncio.new_event_loop, uvloop.new_event_loop):
        story(loop)


@on_both_loops
async def test_requests_that_do_not_wait_for_answers_are_served_in_order_but_not_any_number() -> None:
    async with serving() as house, Bare(house) as client, Bare(house) as flood:
        client.send(WHOLE * (PIPELINED + 1))
        for _ in range(PIPELINED + 1):
            assert b"200 OK" in await client.head()
            await client.reader.readexactly(len("0 bytes"))
        flood.send(WHOLE * (PIPELINED + 2))
        assert await flood.rest() == b""


def test_who_asks_for_more_than_may_wait_leaves_no_bug_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    @on_both_loops
    async def story() -> None:
        async with serving() as house, Bare(house) as flood:
            flood.send(b"GET /patient HTTP/1.1\r\nHost: x\r\n\r\n" * (PIPELINED + 2))
            assert await flood.rest() == b""
            house.may_enter.set()

    for loop in (asyncio.new_event_loop, uvloop.new_event_loop):
        story(loop)
    assert "Exception in ASGI application" not in caplog.text


def test_who_asks_several_times_and_goes_without_reading_leaves_no_bug_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    @on_both_loops
    async def story() -> None:
        async with serving() as house, Bare(house) as hasty:
            hasty.writer.transport.pause_reading()  # type: ignore[attr-defined]
            hasty.send(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n" * 3)
            await until(lambda: len(house.doorway._unread) == 1)
            hasty.writer.transport.abort()
            await until(lambda: not house.doorway._unread)

    for loop in (asyncio.new_event_loop, uvloop.new_event_loop):
        story(loop)
    assert "Exception in ASGI application" not in caplog.text


def test_of_too_many_half_open_connections_the_oldest_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chatd.transport.door.HALF_OPEN", 3)

    @on_both_loops
    async def story() -> None:
        async with serving() as house, contextlib.AsyncExitStack() as stack:
            clients = []
            for count in range(1, 5):
                clients.append(await stack.enter_async_context(Bare(house)))
                await until(lambda count=count: len(house.doorway._since) == min(count, 3))  # type: ignore[misc]
            assert await clients[0].rest() == b""
            clients[1].send(WHOLE)
            assert b"200 OK" in await clients[1].head()

    for loop in (asyncio.new_event_loop, uvloop.new_event_loop):
        story(loop)


def test_of_too_many_who_do_not_read_the_answer_the_first_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chatd.transport.door.HALF_OPEN", 2)

    @on_both_loops
    async def story() -> None:
        async with serving() as house, contextlib.AsyncExitStack() as stack:
            clients = []
            for count in range(1, 4):
                clients.append(await stack.enter_async_context(Bare(house)))
                clients[-1].writer.transport.pause_reading()  # type: ignore[attr-defined]
                clients[-1].send(b"GET /large HTTP/1.1\r\nHost: chatd\r\n\r\n")
                await until(lambda count=count: len(house.doorway._unread) == min(count, 2))  # type: ignore[misc]
            for client in clients:
                client.writer.transport.resume_reading()  # type: ignore[attr-defined]
            assert len(await clients[0].rest()) < LARGE
            assert len((await clients[2].head()) + await clients[2].reader.readexactly(LARGE)) > LARGE

    for loop in (asyncio.new_event_loop, uvloop.new_event_loop):
        story(loop)


# --- at rest ----------------------------------------------------------------------------------------------------------


def timers() -> int:
    """Timers of the running loop that are yet to come; uvloop does not tell."""
    scheduled = getattr(asyncio.get_running_loop(), "_scheduled", ())
    return sum(not handle.cancelled() for handle in scheduled)


@on_both_loops
async def test_an_idle_connection_has_no_task_no_timer_and_nothing_of_its_handshake() -> None:
    async with serving() as house:
        clients: list[Bare] = []
        gc.collect()
        gc.disable()
        try:
            tasks, ticking = len(asyncio.all_tasks()), timers()
            for _ in range(50):
                clients.append(await Bare(house).__aenter__())
                await clients[-1].upgrade()
            guests = [await house.guest() for _ in clients]
            house.scopes.clear()
            await until(lambda: len(asyncio.all_tasks()) <= tasks)
            assert timers() - ticking < len(guests)  # uvicorn's own tick may come or go between the two counts
            assert not [thing for thing in gc.get_objects() if isinstance(thing, Handshake | Door)]
            assert not any(guest.gone.is_set() for guest in guests)
        finally:
            gc.enable()
            for client in clients:
                await client.__aexit__()


# --- an answer that does not end --------------------------------------------------------------------------------------

POSTED = b"POST /stream HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}"


@on_both_loops
async def test_an_answer_taken_over_is_a_stream_and_ends_with_its_farewell() -> None:
    async with serving() as house, Bare(house) as client:
        client.send(POSTED)
        assert b"transfer-encoding: chunked" in await client.head()
        guest = await house.guest()
        assert len(house.failures) == 2, "neither before the answer has begun, nor twice"
        guest.link.write(b"1\r\na\r\n")
        guest.link.close(KICKED)
        guest.link.close(SLOW)
        assert await client.rest() == b"1\r\na\r\n4500"
        assert await guest.farewell() == (KICKED.code, KICKED.reason)


@on_both_loops
async def test_what_comes_on_a_stream_is_thrown_away_and_a_hang_up_is_noticed_at_all_times() -> None:
    async with serving() as house:
        async with Bare(house) as client:
            client.send(POSTED + POSTED)
            await client.head()
            guest = await house.guest()
            guest.link.pause_reading()
            client.send(POSTED + b"\0" * 10_000)
        assert await guest.farewell() == (ABNORMAL.code, ABNORMAL.reason)
        assert guest.messages.empty()


@on_both_loops
async def test_a_stream_that_is_not_read_is_cut_when_its_time_is_over() -> None:
    async with serving() as house, Bare(house) as client:
        client.send(POSTED)
        await client.head()
        client.writer.transport.pause_reading()
        guest = await house.guest()
        guest.link.write(b"x" * 10_000_000)
        guest.link.close(KICKED)
        await asyncio.sleep(0)
        assert guest.farewells == []
        house.closing.sweep(asyncio.get_running_loop().time() + CLOSING_S + 1)
        assert await guest.farewell() == (KICKED.code, KICKED.reason)


@on_both_loops
async def test_nothing_of_http_is_left_of_a_stream() -> None:
    gc.collect()
    gc.disable()
    try:
        await leaves_no_door()
    finally:
        gc.enable()


async def leaves_no_door() -> None:
    async with serving() as house, Bare(house) as client:
        client.send(POSTED)
        await client.head()
        guest = await house.guest()
        house.failures.clear()  # whose tracebacks hold all there was
        await until(lambda: not [thing for thing in gc.get_objects() if isinstance(thing, Door)])
        assert guest.farewells == []
