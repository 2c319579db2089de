"""`chatd chat`: talk in a room from a terminal, by the plain door, as anybody with a WebSocket could.

A line that is typed is a message, and what others say comes as `user: text`. When a node goes, its visitor comes back
by itself, to another if there is one; what is typed meanwhile waits. What was said meanwhile `chatd history` tells.
"""

from __future__ import annotations

import asyncio
import os
import socket as sockets
import ssl
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from random import choice, uniform
from typing import Any, NamedTuple
from urllib.parse import quote

import click
import orjson
from websockets.asyncio.client import ClientConnection, connect, unix_connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, InvalidURI, WebSocketException

from chatd import control
from chatd.control import Status
from chatd.errors import Disconnect
from chatd.names import printable
from chatd.rules import pace
from chatd.settings import Limits, Settings, host_and_port, unix_path
from chatd.store.errors import StoreError

from .arguments import named, websocket_url
from .cluster import ask, opened, until_interrupted
from .common import NO_DAEMON, STORE_UNAVAILABLE, Failure, explained, fail, loaded, note
from .here import anybody, reachable
from .output import plural
from .token import minted

# Seconds: between two tries to come back, at first and at most; and for which a token of ours is good.
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 15.0
TOKEN_S = 86400.0
# Seconds within which a node has refused what it does not take.
ANSWERED_S = 1.0
# Seconds for which who leaves waits for a node that says no more.
CLOSING_S = 1.0
# Characters of a page that is none of ours.
SHOWN = 200
# HTTP's words for "not now".
NOT_NOW = (429, 502, 503, 504)


class Typed(asyncio.Queue[str | None]):
    """Lines as they were typed; the last is None, and `ended` says that it is there."""

    ended = False

    def end(self) -> None:
        self.ended = True
        self.put_nowait(None)


class Visitor(NamedTuple):
    """Who talks, and where.

    Attributes:
        url: the server's, up to its path; None: a node of this configuration's.
        token: None where nobody asks for one.
    """

    user: str
    room: str
    url: str | None
    token: str | None

    @property
    def target(self) -> str:
        return f"/chat/{quote(self.user, safe='')}?room={quote(self.room, safe='')}"


@click.command(help="Talk in ROOM as USER; each line is a message, and the end of input (Ctrl-D) ends it.")
@click.argument("user", callback=named)
@click.argument("room", default="lobby", callback=named)
@click.option(
    "--url",
    callback=websocket_url,
    metavar="URL",
    help="Where, as wss://chat.example; else a node of this configuration's.",
)
@click.option(
    "--token-file",
    type=click.Path(path_type=Path, readable=False),
    metavar="FILE",
    help="Holds the user's token; else one is made where a key of the configuration can sign it.",
)
@click.pass_context
def chat(context: click.Context, user: str, room: str, url: str | None, token_file: Path | None) -> None:
    settings = loaded(context)
    until_interrupted(talked(settings, Visitor(user, room, url, token_of(settings, user, token_file))))


def token_of(settings: Settings, user: str, file: Path | None) -> str | None:
    if file is not None:
        try:
            words = file.read_text().split()
        except (OSError, UnicodeDecodeError) as error:
            fail(f"expected to read a token from {file}, got: {getattr(error, 'strerror', 'bytes that are no text')}")
        if len(words) != 1 or not words[0].isprintable():
            fail(f"expected a token and no more in {file}, got {plural(len(words), 'word')}")
        return words[0]
    if settings.auth.effective_mode == "open":
        return None
    return minted(settings, {"sub": user}, TOKEN_S)


async def talked(settings: Settings, visitor: Visitor) -> None:
    """Until who types has ended it; comes back whenever the server would have one come back.

    Raises:
        Failure: nobody lets the visitor in, or he is not to come back.
    """
    typed, been, pause = keyboard(), False, FIRST_PAUSE_S
    while True:
        try:
            async with visit(settings, visitor) as socket:
                note(f"connected {'again ' * been}to {printable(visitor.room)} as {printable(visitor.user)}")
                been, pause = True, FIRST_PAUSE_S
                if await conversed(socket, typed, settings.limits):
                    return
            why = goodbye(socket)
        except (Failure, StoreError) as error:
            why = explained(error) or Failure(str(error))
            if not been or why.code not in (NO_DAEMON, STORE_UNAVAILABLE):
                raise
        note(f"{why}; coming back")
        await asyncio.sleep(uniform(pause / 2, pause))  # at random, or all would come at once
        if typed.ended and typed.qsize() == 1:  # with nothing left to say
            return
        pause = min(2 * pause, LONGEST_PAUSE_S)


def goodbye(socket: ClientConnection) -> Failure:
    """Why the server has ended it.

    Raises:
        Failure: that, where one is not to come back.
    """
    said = Disconnect(socket.close_code or 1006, printable(socket.close_reason or "the connection was lost"))
    why = Failure(f"{said.reason} ({said.code})", NO_DAEMON)
    if not said.comes_back:
        raise Failure(str(why))
    return why


def keyboard() -> Typed:
    """The lines of stdin. A thread of its own waits for them, since a file cannot be waited for otherwise."""
    loop, typed, stdin = asyncio.get_running_loop(), Typed(), sys.stdin.fileno()

    def read() -> None:
        with suppress(RuntimeError):  # the loop is over
            for line in lines_of(stdin):
                loop.call_soon_threadsafe(typed.put_nowait, line)
            loop.call_soon_threadsafe(typed.end)

    threading.Thread(target=read, name="keyboard", daemon=True).start()  # nobody waits for its last line
    return typed


def lines_of(descriptor: int) -> Iterator[str]:
    """The lines of a file, read past Python's own buffer, whose lock would be held by who waits as Python ends."""
    rest = b""
    with suppress(OSError):  # of a terminal that has gone
        while piece := os.read(descriptor, 1 << 16):
            *lines, rest = (rest + piece).split(b"\n")
            yield from (line.decode(errors="replace") for line in lines)
    if rest:
        yield rest.decode(errors="replace")


async def conversed(socket: ClientConnection, typed: Typed, limits: Limits) -> bool:
    """Say what is typed and print what is heard; whether it was who types that ended it."""
    ended = asyncio.Event()
    speaking = asyncio.create_task(speak(socket, typed, limits, ended), name="speaking")
    try:
        with suppress(ConnectionClosed):
            async for text in socket:
                said = text if isinstance(text, str) else text.decode(errors="replace")
                click.echo("\n".join(map(printable, said.split("\n"))))
        return ended.is_set()
    finally:
        speaking.cancel()
        await asyncio.gather(speaking, return_exceptions=True)


async def speak(socket: ClientConnection, typed: Typed, limits: Limits, ended: asyncio.Event) -> None:
    """Say what is typed or pasted, as fast as a node takes it; who ends it hears first what was refused."""
    loop, due, said_at = asyncio.get_running_loop(), 0.0, 0.0
    while (line := await typed.get()) is not None:
        try:
            await socket.send(line)
        except ConnectionClosed:
            note(f"not said, for the connection has ended: {printable(line.strip())}")
            return
        said_at = loop.time()
        due, early = pace(due, said_at, 1, limits.messages_per_second, limits.messages_burst)
        await asyncio.sleep(early)
    ended.set()
    await asyncio.sleep(said_at + ANSWERED_S - loop.time())
    await socket.close()


# --- where ------------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def visit(settings: Settings, visitor: Visitor) -> AsyncIterator[ClientConnection]:
    """A connection in the room.

    Raises:
        Failure: nobody is there (NO_DAEMON), or lets the visitor in now (STORE_UNAVAILABLE), or at all.
    """
    headers = {"Authorization": f"Bearer {visitor.token}"} if visitor.token else {}
    address = visitor.url or await a_node(settings)
    try:
        socket = await knock(settings, address, visitor.target, headers)
    except InvalidStatus as refusal:
        code = refusal.response.status_code
        said = printable(reason(refusal.response.body or b""))
        fail(f"not let in: {said} ({code})", STORE_UNAVAILABLE if code in NOT_NOW else 1)
    except (OSError, EOFError, ImportError, WebSocketException) as error:  # TimeoutError is an OSError
        fail(f"expected a chatd at {address}, got: {printable(trouble(error))}", NO_DAEMON)
    async with socket:
        yield socket


def reason(body: bytes | bytearray) -> str:
    """What a server says to whom it does not let in: chatd's own sentence, or the beginning of another's page."""
    try:
        return str(orjson.loads(body)["error"])
    except (ValueError, KeyError, TypeError):
        return body.decode(errors="replace").strip()[:SHOWN] or "no reason given"


def trouble(error: Exception) -> str:
    """Why nothing came of a handshake; ImportError: of what a proxy of the environment's would need."""
    if isinstance(error, InvalidURI):
        return f"a redirection to {error.uri}, which is no WebSocket's"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"a certificate that is not to be trusted, {error.verify_message}"
    if isinstance(error, OSError) and error.errno and not isinstance(error, (ssl.SSLError, sockets.gaierror)):
        return os.strerror(error.errno)  # asyncio puts words of its own into strerror
    return str(getattr(error, "strerror", None) or error)


def knock(settings: Settings, address: str, target: str, headers: dict[str, str]) -> connect:
    """`address` is a URL, or where a node says that it listens: on this machine."""
    always: dict[str, Any] = {"additional_headers": headers, "close_timeout": CLOSING_S}
    if "://" in address:
        return connect(f"{address}{target}", **always)
    s, context = ("s", anybody()) if settings.tls.certificate else ("", None)
    if path := unix_path(address):
        return unix_connect(path, f"ws{s}://localhost{target}", ssl=context, **always)
    host, port = host_and_port(address)
    host = reachable(host)
    where = f"ws{s}://{f'[{host}]' if ':' in host else host}:{port}{target}"
    return connect(where, ssl=context, proxy=None, **always)


async def a_node(settings: Settings) -> str:
    """The address of a node that lets people in.

    Raises:
        Failure: there is none; or the store does not answer, as `opened` says.
    """
    async with opened(settings) as store:
        nodes = control.status(await ask(store, settings, Status()), ())["nodes"]
    ready = [node["address"] for node in nodes if node["state"] == "ready"]
    if not ready:
        fail("no node lets anybody in now; `chatd status` says why", NO_DAEMON)
    return str(choice(ready))
