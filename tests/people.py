"""People of a two-node cluster with log-in by token: clients by hand that keep every push, for tests of what chat does.

`async with person(first, "ana") as ana` is connected; `await ana.call("message.send", room="lobby", text="hi")` is an
rpc's answer, or raises Refused; `await ana.hears("message")` is the next publication whose tags say so.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import jwt
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from tests.conftest import Daemon, running

PATIENCE_S = 10.0
SECRET = "a secret of the tests, at least thirty-two bytes long"
KEYS = f'[[auth.keys]]\nkid = "main"\nalgorithm = "HS256"\nsecret = "{SECRET}"\n'
# Tests speak faster than people; those of pace set their own limits.
QUICK = {
    "CHATD_CLUSTER__LEASE": "2s", "CHATD_CLUSTER__RENEW": "0.5s",
    "CHATD_LIMITS__MESSAGES_PER_SECOND": "0", "CHATD_LIMITS__USER_MESSAGES_PER_SECOND": "0",
    "CHATD_LIMITS__JOINS_PER_SECOND": "0", "CHATD_LIMITS__LEAVE_DELAY": "0.5s",
}  # fmt: skip


def token(user: str, *, lifetime: float = 3600, **claims: Any) -> str:
    now = time.time()
    return jwt.encode({"sub": user, "exp": now + lifetime, "iat": now, **claims}, SECRET, headers={"kid": "main"})


@contextmanager
def cluster(directory: Path, config: str = "", *, nodes: int = 2, **environ: str) -> Iterator[tuple[Daemon, ...]]:
    """Nodes of one cluster; `config` is TOML beside the key that tokens are signed with."""
    file = directory / "chatd.toml"
    file.write_text(KEYS + config)
    with ExitStack() as stack:
        each = ("--config", str(file), "--port", "0")
        yield tuple(stack.enter_context(running(directory, *each, **{**QUICK, **environ})) for _ in range(nodes))


class Refused(Exception):
    """An error in place of a reply."""

    def __init__(self, error: dict[str, Any]) -> None:
        super().__init__(f"{error['code']} {error['message']}")
        self.code: int = error["code"]
        self.text: str = error["message"]
        self.temporary: bool = error.get("temporary", False)
        self.retry_after_ms: int | None = error.get("retry_after_ms")


class Person:
    """One connection of somebody. Replies are awaited by number; pushes are kept in the order of their arrival."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._id = 0
        self._replies: dict[int, dict[str, Any]] = {}
        self.pushes: list[dict[str, Any]] = []
        self._news = asyncio.Condition()
        self._ended: ConnectionClosed | None = None

    async def listen(self) -> None:
        try:
            async for message in self._socket:
                for line in str(message).split("\n"):
                    await self._take(json.loads(line))
        except ConnectionClosed as end:
            self._ended = end
        finally:
            self._ended = self._ended or ConnectionClosed(self._socket.protocol.close_rcvd, None)
            async with self._news:
                self._news.notify_all()

    async def _take(self, said: dict[str, Any]) -> None:
        if not said:
            await self._socket.send("{}")
            return
        async with self._news:
            if "push" in said:
                self.pushes.append(said["push"])
            else:
                self._replies[said["id"]] = said
            self._news.notify_all()

    async def _until(self, found: Callable[[], Any]) -> Any:
        async with asyncio.timeout(PATIENCE_S), self._news:
            while (value := found()) is None:
                if self._ended is not None:
                    raise self._ended
                await self._news.wait()
            return value

    async def ask(self, **command: Any) -> dict[str, Any]:
        """The result of a command of the protocol, such as `subscribe={"channel": "lobby"}`.

        Raises:
            Refused: an error came instead.
        """
        self._id += 1
        id = self._id
        await self._socket.send(json.dumps({"id": id, **command}))
        reply = await self._until(lambda: self._replies.pop(id, None))
        if "error" in reply:
            raise Refused(reply["error"])
        result: dict[str, Any] = reply[next(iter(command))]
        return result

    async def call(self, method: str, **data: Any) -> dict[str, Any]:
        """The answer of an rpc; a trailing underscore of a name is left off, as in `for_`."""
        members = {name.removesuffix("_"): value for name, value in data.items()}
        answer: dict[str, Any] = (await self.ask(rpc={"method": method, "data": members}))["data"]
        return answer

    async def joins(self, room: str, **wishes: Any) -> dict[str, Any]:
        return await self.ask(subscribe={"channel": room, **wishes})

    async def says(self, room: str, text: str, **more: Any) -> int:
        """Say something; its offset."""
        offset: int = (await self.call("message.send", room=room, text=text, **more))["offset"]
        return offset

    async def hears(self, kind: str, room: str | None = None) -> dict[str, Any]:
        """The next publication whose tags give it this type, now or later; others stay."""

        def found() -> dict[str, Any] | None:
            for push in self.pushes:
                pub = push.get("pub")
                if pub and pub.get("tags", {}).get("type") == kind and room in (None, push["channel"]):
                    self.pushes.remove(push)
                    return dict(pub)
            return None

        heard: dict[str, Any] = await self._until(found)
        return heard

    async def publication(self, room: str) -> dict[str, Any]:
        """The next publication in a room, whatever its type."""

        def found() -> dict[str, Any] | None:
            for push in self.pushes:
                if "pub" in push and push["channel"] == room:
                    self.pushes.remove(push)
                    return dict(push["pub"])
            return None

        heard: dict[str, Any] = await self._until(found)
        return heard

    async def sees(self, what: str, room: str | None = None) -> dict[str, Any]:
        """The next push of another kind: "join", "leave", "unsubscribe"."""

        def found() -> dict[str, Any] | None:
            for push in self.pushes:
                if what in push and room in (None, push["channel"]):
                    self.pushes.remove(push)
                    return dict(push[what])
            return None

        seen: dict[str, Any] = await self._until(found)
        return seen

    async def goodbye(self) -> tuple[int, str]:
        """Code and reason of the server's close."""
        async with asyncio.timeout(PATIENCE_S):
            await self._socket.wait_closed()
        return self._socket.close_code or 0, self._socket.close_reason or ""

    async def leaves(self) -> None:
        await self._socket.close()


@asynccontextmanager
async def connected(node: Daemon, **connect_as: Any) -> AsyncIterator[Person]:
    """Somebody connected to `node` with what `connect` is to say, such as `data` in open mode."""
    async with connect(node.sdk) as socket:
        somebody = Person(socket)
        listening = asyncio.create_task(somebody.listen())
        try:
            await somebody.ask(connect=connect_as)
            yield somebody
        finally:
            await socket.close()
            await listening


def person(node: Daemon, user: str, **claims: Any) -> AbstractAsyncContextManager[Person]:
    """`user`, connected to `node` with a token of these claims."""
    return connected(node, token=token(user, **claims))


def plain(node: Daemon, user: str, room: str) -> connect:
    """`user` at the plain door, in `room`; `async with plain(…) as socket` speaks and hears lines."""
    return connect(f"{node.ws}/chat/{user}?room={room}", additional_headers={"Authorization": f"Bearer {token(user)}"})


def may(role: str, *patterns: str) -> list[dict[str, str]]:
    """The `rooms` claim that makes somebody this in these rooms."""
    return [{"pattern": pattern, "role": role} for pattern in patterns]
