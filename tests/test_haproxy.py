"""The shipped HAProxy configuration in a real haproxy, and how it drains a node by /readyz."""

from __future__ import annotations

import asyncio
import csv
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import NamedTuple, Self

import httpx
import pytest
from websockets.asyncio.client import ClientConnection, connect

from tests.conftest import Daemon, running
from tests.proxies import (
    PER_ADDRESS,
    SILENCE_S,
    TRUSTING,
    BehindAProxy,
    Proxy,
    StartProxy,
    connections,
    hear,
    program,
    proxied,
)
from tests.servers import redis_server
from tests.test_cluster import until
from tests.test_doors import PATIENCE_S

CONFIG = Path(__file__).parents[1] / "config" / "haproxy.cfg"


class HAProxy(Proxy):
    """haproxy with the shipped configuration, its addresses, paths and numbers changed. TLS is not the only way in."""

    def __init__(self, directory: Path, *nodes: Daemon | Standing) -> None:
        super().__init__(directory)
        pem = directory / "chatd.pem"
        pem.write_text(self.chain.read_text() + self.key.read_text())
        text = CONFIG.read_text()
        for shipped, here in {
            "log /dev/log local0": "log stdout format raw local0",
            "user haproxy\n": "\n",
            "group haproxy\n": "\n",
            "/run/haproxy/admin.sock": str(directory / "admin.sock"),
            "maxconn 100000": "maxconn 1000",
            "bind :80\n": f"bind 127.0.0.1:{self.port}\n    bind 127.0.0.1:{self.redirecting_port}\n",
            "bind :443 ssl crt /etc/haproxy/chatd.pem": f"bind 127.0.0.1:{self.tls_port} ssl crt {pem}",
            "code 301 unless { ssl_fc }": f"code 301 unless {{ ssl_fc }} || {{ dst_port {self.port} }}",
            "timeout tunnel 75s": f"timeout tunnel {SILENCE_S}s",
            "sc0_conn_cur gt 64": f"sc0_conn_cur gt {PER_ADDRESS}",
            "inter 1s": "inter 100ms",
            "127.0.0.1:8001": nodes[0].address.replace("unix:", "unix@"),
            "127.0.0.1:8002": nodes[1].address.replace("unix:", "unix@"),
        }.items():
            assert text.count(shipped) == 1, f"{shipped!r} is what the shipped file says"
            text = text.replace(shipped, here)
        config = directory / "haproxy.cfg"
        config.write_text(text)
        self.start(program("haproxy"), "-W", "-db", "-f", str(config))

    def reload(self) -> None:
        self.signal(signal.SIGUSR2)

    def state(self, server: str) -> str:
        """What its health checks say of a node: "UP", "DOWN", or something on the way such as "DOWN 1/2"."""
        with socket.socket(socket.AF_UNIX) as admin:
            admin.connect(str(self.directory / "admin.sock"))
            admin.sendall(b"show stat\n")
            rows = csv.DictReader(admin.makefile())
            return next(row["status"] for row in rows if row["svname"] == server)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Proxy, Daemon, Daemon]]:
    with proxied(tmp_path_factory.mktemp("haproxy"), HAProxy) as site:
        yield site


class TestHAProxy(BehindAProxy):
    @pytest.fixture
    def proxy(self, shared: tuple[Proxy, Daemon, Daemon]) -> tuple[Proxy, Daemon, Daemon]:
        return shared

    @pytest.fixture
    def start(self) -> StartProxy:
        return HAProxy

    async def test_a_node_that_is_not_ready_keeps_whom_it_has_and_gets_nobody_new(self, tmp_path: Path) -> None:
        async with redis_server(tmp_path) as store, Wire(store.port) as wire, AsyncExitStack() as stack:

            async def begin(url: str) -> Daemon:
                node = running(tmp_path, "--port", "0", **TRUSTING, CHATD_REDIS__URL=url)
                # In a thread, for the wire is ours to keep alive meanwhile.
                return await asyncio.to_thread(stack.enter_context, node)

            first, second = await begin(wire.url), await begin(store.url)
            site = HAProxy(tmp_path, first, second)
            stack.callback(site.close)
            await asyncio.to_thread(site.until_it_listens)
            await is_drained_by_readyz(site, wire, first, second)

    async def test_what_a_node_may_have_done_before_it_died_is_not_said_again(self, tmp_path: Path) -> None:
        async with dying_nodes() as (asked, ports):
            site = HAProxy(tmp_path, *(Standing(f"127.0.0.1:{port}") for port in ports))
            try:
                await asyncio.to_thread(site.until_it_listens)
                async with httpx.AsyncClient(timeout=PATIENCE_S) as http:
                    for method, times in (("POST", 1), ("GET", 3)):
                        asked.clear()
                        with suppress(httpx.RemoteProtocolError):  # HAProxy hangs up too, or says 502
                            await http.request(method, f"http://127.0.0.1:{site.port}/api/publish")
                        assert len(asked) == times
            finally:
                site.close()


class Standing(NamedTuple):
    """What a proxy looks at of a node."""

    address: str


@asynccontextmanager
async def dying_nodes() -> AsyncIterator[tuple[list[bytes], list[int]]]:
    """Two nodes that are ready, and hang up on every other request; and the first lines of those."""
    asked: list[bytes] = []

    async def hear(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):  # a probe hangs up
            line = await reader.readline()
            if b"/readyz" in line:
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            elif line:
                asked.append(line)
            await reader.readuntil(b"\r\n\r\n")
        writer.close()

    servers = [await asyncio.start_server(hear, "127.0.0.1", 0) for _ in range(2)]
    try:
        yield asked, [server.sockets[0].getsockname()[1] for server in servers]
    finally:
        for server in servers:
            server.close()


async def is_drained_by_readyz(site: HAProxy, wire: Wire, first: Daemon, second: Daemon) -> None:
    async with AsyncExitStack() as people:

        async def come(user: str) -> ClientConnection:
            return await people.enter_async_context(connect(f"{site.ws}/chat/{user}?room=lobby"))

        early = [await come("ana"), await come("bob")]
        await until(lambda: connections(second, first) == [1, 1])
        wire.cut()
        await until(lambda: first.get("/readyz")[0] == 503 and site.state("chatd-8001") == "DOWN")
        late = [await come("eve"), await come("joe")]
        await until(lambda: connections(second) == [3])
        wire.mend()
        await until(lambda: first.get("/readyz")[0] == 200 and site.state("chatd-8001") == "UP")
        await until(lambda: connections(second, first) == [3, 1])
        await early[0].send("hello")
        for client in (early[1], *late):
            await hear(client, "ana: hello")
        await come("kim")
        await until(lambda: connections(second, first) == [3, 2])


class Wire:
    """A TCP line to a port on this host, which can be cut and mended."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._whole = True
        self._open: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._relay, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.cut()
        self._server.close()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def cut(self) -> None:
        self._whole = False
        for writer in self._open:
            writer.transport.abort()

    def mend(self) -> None:
        self._whole = True

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self._whole:
            writer.transport.abort()
            return
        there_reader, there = await asyncio.open_connection("127.0.0.1", self._port)
        self._open |= {writer, there}
        await asyncio.gather(_copied(reader, there), _copied(there_reader, writer))
        self._open -= {writer, there}


async def _copied(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(1 << 16):
            writer.write(data)
    writer.close()
