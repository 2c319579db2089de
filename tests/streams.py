"""A client of the SDK door over plain HTTP, by hand: it hears by one answer, and speaks by requests of their own."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx

PATIENCE_S = 15.0


class Streaming:
    """What a client hears, reply by reply, and how it speaks.

    Attributes:
        response: the answer, under way.
        welcome: what `connect` was answered with.
    """

    def __init__(self, http: httpx.AsyncClient, response: httpx.Response) -> None:
        self._http = http
        self.response = response
        self._lines = response.aiter_lines()
        self.welcome: dict[str, Any] = {}

    async def next(self) -> dict[str, Any]:
        """The next reply or push that is no ping.

        Raises:
            StopAsyncIteration: the answer has ended.
        """
        async with asyncio.timeout(PATIENCE_S):
            while True:
                if said := json.loads(await anext(self._lines)):
                    return dict(said)

    async def hear(self, kind: str) -> dict[str, Any]:
        """What the next reply or push of `kind` holds; others are passed over."""
        while True:
            said = await self.next()
            found = said.get(kind, said.get("push", {}).get(kind))
            if found is not None:
                return dict(found)

    async def say(self, url: str, *commands: dict[str, Any], **other: Any) -> httpx.Response:
        """Post commands to the node at `url`; `other` members take the place of our own."""
        data = "\n".join(map(json.dumps, commands))
        body = {"session": self.welcome["session"], "node": self.welcome["node"], "data": data, **other}
        return await self._http.post(f"{url}/emulation", json=body)


@asynccontextmanager
async def streaming(url: str, *commands: dict[str, Any], **options: Any) -> AsyncIterator[Streaming]:
    """A client that is connected at `url` and has said `commands` in the same request; its number 1 is `connect`'s."""
    connect = {"id": 1, "connect": options.pop("connect", {})}
    content = "\n".join(map(json.dumps, (connect, *commands)))
    async with (
        httpx.AsyncClient(timeout=PATIENCE_S, **options) as http,
        http.stream("POST", f"{url}/connection/http_stream", content=content) as response,
    ):
        client = Streaming(http, response)
        if response.status_code == httpx.codes.OK:
            client.welcome = await client.hear("connect")
        else:
            await response.aread()
        yield client
