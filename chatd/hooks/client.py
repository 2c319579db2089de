"""POST to the application: signed, to an address that was checked, in a bounded time, with a bounded answer.

A name is resolved here, for each connection, and the connection goes to the very address that was looked at; so a name
cannot lead elsewhere between the look and the call. Redirects are answers like any other, and are not followed; proxies
of the environment are not used.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Iterable
from typing import Any, Final

import httpcore

from chatd import __version__
from chatd.basic import authorization
from chatd.model import Json

from .addresses import is_public
from .signing import Answer, HookFailed

# Nothing we read of an answer is longer.
ANSWER_BYTES: Final = 64 << 10
CONNECTIONS: Final = 64


class Client:
    """Connections to the application, kept open between calls.

    Args:
        allow_private: addresses of our own network are good too.
        node: who we are, for whoever reads the receiver's log.
    """

    def __init__(self, *, allow_private: bool, node: str) -> None:
        self._agent = f"chatd/{__version__} ({node})".encode()
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=ssl.create_default_context(),
            max_connections=CONNECTIONS,
            max_keepalive_connections=CONNECTIONS,
            keepalive_expiry=30.0,
            network_backend=Guarded(allow_private=allow_private),
        )

    async def post(self, url: str, body: Json, headers: dict[str, str], *, within: float) -> Answer:
        """The answer, whatever its status.

        Raises:
            HookFailed: there was none within so many seconds, or nobody may be spoken to there.
        """
        sent = {"Content-Type": "application/json", "Content-Length": str(len(body)), **headers}
        fields = [(name.encode(), value.encode()) for name, value in sent.items()] + [(b"User-Agent", self._agent)]
        try:
            async with asyncio.timeout(within):
                request = httpcore.Request("POST", url, headers=[*_addressed(url), *fields], content=body)
                response = await self._pool.handle_async_request(request)
                try:
                    return Answer(response.status, await _bounded(response))
                finally:
                    await response.aclose()
        except TimeoutError:
            raise HookFailed(f"no answer within {within:g} s") from None
        except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException) as error:
            raise HookFailed(str(error) or type(error).__name__) from None
        except (OSError, httpcore.UnsupportedProtocol) as error:
            raise HookFailed(str(error)) from None

    async def close(self) -> None:
        await self._pool.aclose()


def _addressed(url: str) -> Iterable[tuple[bytes, bytes]]:
    """The headers that an address asks for: its host; and its user and password (RFC 7617), which httpcore drops."""
    target = httpcore.URL(url)
    standard = {b"http": 80, b"https": 443}.get(target.scheme)
    port = b"" if target.port in (None, standard) else b":%d" % target.port
    login = authorization(url)
    return [(b"Host", target.host + port), *([(b"Authorization", login.encode())] if login else [])]


async def _bounded(response: httpcore.Response) -> bytes:
    body = b""
    async for part in response.aiter_stream():
        body += part
        if len(body) > ANSWER_BYTES:
            return b""
    return body


class Guarded(httpcore.AsyncNetworkBackend):
    """Connects to addresses that may be spoken to, and to no other; see the head of this file."""

    def __init__(self, *, allow_private: bool) -> None:
        self._allow_private = allow_private
        self._backend = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
        allowed = [address for address in addresses if self._allow_private or is_public(address)]
        if not allowed:
            raise httpcore.ConnectError(
                f"{host} leads to {', '.join(addresses)}, which is no address of the internet; see hooks.allow_private"
            )
        for last, address in enumerate(allowed, start=1 - len(allowed)):
            try:
                return await self._backend.connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                if not last:
                    raise
        raise AssertionError("the last address returns or raises")

    async def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[Any] | None = None
    ) -> httpcore.AsyncNetworkStream:
        raise httpcore.ConnectError("hooks go over TCP")

    async def sleep(self, seconds: float) -> None:
        await self._backend.sleep(seconds)
