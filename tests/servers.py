"""Real Redis or Valkey servers for the tests: one, a cluster of three, a Sentinel group. Loopback only.

They run the embedded store's own binary. CHATD_TEST_SERVER=/usr/bin/redis-server runs the same tests on another, so
that CI can show the oldest supported server too.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import socket
import subprocess
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from chatd.store.embedded import server_binary

# What a start, a cluster's first agreement or a replica's first copy may take on a machine that runs all tests at once.
PATIENCE_S = 30.0
TICK_S = 0.01

# Below the kernel's ephemeral ports, so that no outgoing connection takes a port while its server is down.
PORTS = range(15_000, 32_000)


def free_port() -> int:
    while True:
        port = random.choice(PORTS)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


@dataclass(slots=True)
class Server:
    """One server process, on the same TCP port and with the same data through every kill and start.

    `start` waits until it answers; `kill` (-9), `pause` (SIGSTOP) and `resume` are plain calls, done when they return.
    """

    directory: Path
    arguments: tuple[str, ...]
    port: int
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    async def start(self) -> None:
        assert self.process is None, "the server runs already"
        with (self.directory / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                [os.environ.get("CHATD_TEST_SERVER") or server_binary(), *self.arguments],
                cwd=self.directory,
                env={"LC_ALL": "C"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        await self._until_it_answers()

    def kill(self) -> None:
        """End it as a crash would, also while it is paused. Without effect on one that does not run."""
        if self.process:
            self.process.kill()
            self.process.wait()
            self.process = None

    def pause(self) -> None:
        assert self.process
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self.process
        self.process.send_signal(signal.SIGCONT)

    async def _until_it_answers(self) -> None:
        async with asyncio.timeout(PATIENCE_S), Redis(port=self.port) as redis:
            while True:
                assert self.process and self.process.poll() is None, (self.directory / "server.log").read_text()
                try:
                    await redis.ping()
                    return
                except RedisError:
                    await asyncio.sleep(TICK_S)


def server(directory: Path, *options: str, mode: tuple[str, ...] = ()) -> Server:
    """A server that has not been started, with persistence as the embedded store has it.

    Args:
        directory: its own; made if missing.
        options: configuration, as on the server's command line.
        mode: what comes before the options: a configuration file and `--sentinel`.
    """
    directory.mkdir(parents=True, exist_ok=True)
    port = free_port()
    base = ("--port", str(port), "--bind", "127.0.0.1")
    # Nothing is compressed, so that a test can look for what must not be there.
    kept = () if mode else ("--save", "", "--appendonly", "yes", "--rdbcompression", "no")
    return Server(directory, (*mode, *base, *kept, *options), port)


@asynccontextmanager
async def running(*servers: Server) -> AsyncIterator[None]:
    try:
        for each in servers:
            await each.start()
        yield
    finally:
        for each in servers:
            each.kill()


@asynccontextmanager
async def redis_server(tmp_path: Path) -> AsyncIterator[Server]:
    """One standalone server: `.url`, `await .start()`, `.kill()`, `.pause()`, `.resume()`."""
    one = server(tmp_path / "redis")
    async with running(one):
        yield one


@dataclass(frozen=True, slots=True)
class Cluster:
    """Three masters that share all slots."""

    url: str
    servers: tuple[Server, Server, Server]


@asynccontextmanager
async def redis_cluster(tmp_path: Path) -> AsyncIterator[str]:
    """A cluster of three masters, all slots served; gives `redis+cluster://127.0.0.1:port`."""
    async with redis_cluster_servers(tmp_path) as cluster:
        yield cluster.url


@asynccontextmanager
async def redis_cluster_servers(tmp_path: Path) -> AsyncIterator[Cluster]:
    """The same cluster, for tests that hurt one of its servers."""
    a, b, c = (_cluster_server(tmp_path / f"cluster-{name}") for name in "abc")
    async with running(a, b, c), AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(Redis(port=each.port)) for each in (a, b, c)]
        await _introduce(clients, (a, b, c))
        async with asyncio.timeout(PATIENCE_S):
            while not all([await _agreed(client) for client in clients]):
                await asyncio.sleep(TICK_S)
        yield Cluster(f"redis+cluster://127.0.0.1:{a.port}", (a, b, c))


def _cluster_server(directory: Path) -> Server:
    # The bus has a port of its own here because the usual one, 10,000 above, may be an ephemeral port.
    return server(
        directory, "--cluster-enabled", "yes", "--cluster-port", str(free_port()), "--cluster-node-timeout", "2000"
    )


async def _introduce(clients: list[Redis], servers: tuple[Server, ...]) -> None:
    bounds = [0, 5461, 10923, 16384]
    for epoch, client in enumerate(clients, start=1):
        await _cluster(client, "SET-CONFIG-EPOCH", epoch)
        await _cluster(client, "ADDSLOTSRANGE", bounds[epoch - 1], bounds[epoch] - 1)
    for each in servers[1:]:
        bus = each.arguments[each.arguments.index("--cluster-port") + 1]
        await _cluster(clients[0], "MEET", "127.0.0.1", each.port, bus)


async def _agreed(client: Redis) -> bool:
    """Whether this server serves its slots and knows who serves all others."""
    info = (await _cluster(client, "INFO")).split()
    return {b"cluster_state:ok", b"cluster_slots_ok:16384", b"cluster_known_nodes:3"}.issubset(info)


async def _cluster(client: Any, *words: str | int) -> bytes:
    reply: bytes = await client.execute_command("CLUSTER", *words)
    return reply


@dataclass(frozen=True, slots=True)
class SentinelGroup:
    """A master and a replica under one Sentinel's eyes; `url` leads to whichever is master."""

    url: str
    master: Server
    replica: Server
    sentinel: Server


@asynccontextmanager
async def redis_sentinel(tmp_path: Path) -> AsyncIterator[SentinelGroup]:
    """A Sentinel group named `chatd`; it fails over about a second after `.master.kill()` or `.master.pause()`."""
    master = server(tmp_path / "master", "--repl-diskless-sync-delay", "0")
    replica = server(tmp_path / "replica", "--replicaof", f"127.0.0.1 {master.port}")
    sentinel = _sentinel(tmp_path / "sentinel", master)
    async with running(master, replica):
        await _until_copied(replica)
        async with running(sentinel):
            await _until_known(sentinel)
            yield SentinelGroup(f"redis+sentinel://127.0.0.1:{sentinel.port}/chatd", master, replica, sentinel)


def _sentinel(directory: Path, master: Server) -> Server:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "sentinel.conf").write_text(
        f"sentinel monitor chatd 127.0.0.1 {master.port} 1\n"
        "sentinel down-after-milliseconds chatd 500\n"
        "sentinel failover-timeout chatd 2000\n"
    )
    return server(directory, mode=("sentinel.conf", "--sentinel"))


async def _until_copied(replica: Server) -> None:
    async with asyncio.timeout(PATIENCE_S), Redis(port=replica.port) as redis:
        while (await redis.info("replication"))["master_link_status"] != "up":
            await asyncio.sleep(TICK_S)


async def _until_known(sentinel: Server) -> None:
    """Until the Sentinel has seen the replica: before that a failover would find nobody to promote."""
    async with asyncio.timeout(PATIENCE_S), Redis(port=sentinel.port, decode_responses=True) as redis:
        while not await _promotable(redis):
            await asyncio.sleep(TICK_S)


async def _promotable(sentinel: Redis) -> bool:
    replicas = await sentinel.sentinel_slaves("chatd")
    return any(not each["is_disconnected"] and each["master-link-status"] == "ok" for each in replicas)
