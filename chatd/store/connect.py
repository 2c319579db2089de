"""From a URL to redis-py's client of the right kind, and to the server that holds a key.

Standalone, Sentinel and Cluster differ here and nowhere else: the rest of the store has commands exchanged for replies,
or asks for a connection to whichever server holds a channel.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Protocol, cast
from urllib.parse import parse_qsl, unquote, urlsplit

from redis.asyncio import Redis
from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff
from redis.exceptions import RedisClusterException, ResponseError

from chatd.settings import REDIS_SCHEMES

from .conversation import Command
from .errors import StoreMisconfigured, StoreUnavailable
from .exchange import Exchange, Outcome, Then

# Keys that a server looks at in one step of a walk: about half a millisecond of its time.
SCANNED = 1000

# What may stand behind the ? of a URL. The rest of what redis-py takes there is ours to say, or would have it hand us
# replies that we cannot read.
OPTIONS = r"db|username|password|client_name|socket_\w+|health_check_interval|ssl_\w+"
ESCAPES = "in a password write / as %2F, ? as %3F, # as %23 and @ as %40"
NO_SUCH_OPTION = (
    "expected the options behind the ? in redis.url to be some of db, username, password, client_name, "
    f"health_check_interval, redis-py's socket_... and, with rediss://, its ssl_..., got another; {ESCAPES}"
)


class Servers(Protocol):
    """The store's servers, however many."""

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    def exchange(self, commands: Sequence[Command], then: Then, *, apart: bool = False) -> None:
        """Send these together, and tell `then` their replies, or any exception of redis-py's or TimeoutError.

        All lie on one server, as `server_of` has it; one exchange at a time for each, and beside it one `apart`.
        """

    def server_of(self, channel: str) -> str:
        """The name of the server that holds `channel`, or a key; one line of the feed goes to each such name.

        Raises:
            StoreUnavailable: no server holds it now.
        """
        ...

    async def dial(self, server: str) -> AbstractConnection:
        """A connection of its own to `server`, for the feed."""
        ...

    async def hang_up(self, connection: AbstractConnection) -> None: ...

    def scan(self, pattern: str) -> AsyncIterator[list[bytes]]:
        """All keys that fit, of every server, a step of the walk at a time; a key may come twice."""
        ...

    async def look_again(self) -> None:
        """Learn the topology anew, after a server has gone or said that a channel has moved."""
        ...


class Standalone:
    """One server, or the current master of a Sentinel group."""

    def __init__(self, client: Redis, timeout: float, watchers: Sequence[Redis] = ()) -> None:
        self.client = client
        self._watchers = watchers
        # redis-py says nothing of this object's types.
        self._pool: Any = client.connection_pool
        self._exchange, self._apart = (Exchange(lambda: self.dial(""), self.hang_up, timeout) for _ in range(2))

    async def open(self) -> None:
        await self.client.ping()

    async def close(self) -> None:
        await self._exchange.close()
        await self._apart.close()
        await self.client.aclose()
        await self._pool.disconnect()
        for watcher in self._watchers:
            await watcher.aclose()

    def exchange(self, commands: Sequence[Command], then: Then, *, apart: bool = False) -> None:
        (self._apart if apart else self._exchange).begin(commands, then)

    def server_of(self, channel: str) -> str:
        return ""

    async def dial(self, server: str) -> AbstractConnection:
        return cast("AbstractConnection", await self._pool.get_connection())

    async def hang_up(self, connection: AbstractConnection) -> None:
        await connection.disconnect(nowait=True)
        await self._pool.release(connection)

    async def scan(self, pattern: str) -> AsyncIterator[list[bytes]]:
        async for found in _scanned(self.client, pattern):
            yield found

    async def look_again(self) -> None:
        return


class Cluster:
    """A Redis Cluster."""

    def __init__(self, client: RedisCluster) -> None:
        self.client = client
        self._under_way = set[asyncio.Task[None]]()

    async def open(self) -> None:
        await self.client.initialize()

    async def close(self) -> None:
        for exchange in self._under_way:
            exchange.cancel()
        await asyncio.gather(*self._under_way, return_exceptions=True)
        await self.client.aclose()

    def exchange(self, commands: Sequence[Command], then: Then, *, apart: bool = False) -> None:
        task = asyncio.create_task(self._exchange(commands, then), name="store exchange")
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def _exchange(self, commands: Sequence[Command], then: Then) -> None:
        pipeline = self.client.pipeline()
        for command in commands:
            pipeline.execute_command(*command)
        try:
            outcome: Outcome = await pipeline.execute(raise_on_error=False)
        except Exception as error:  # redis-py's errors share no base
            outcome = error
        then(outcome)

    def server_of(self, channel: str) -> str:
        try:
            node = self.client.get_node_from_key(channel)
        except RedisClusterException:
            node = None
        if node is None:
            raise StoreUnavailable(f"no server of the cluster holds {channel}")
        return str(node.name)

    async def dial(self, server: str) -> AbstractConnection:
        connection: Any = self._node(server).acquire_connection()
        try:
            await connection.connect()
            if await connection.can_read():  # it was closed while it lay ready
                await connection.disconnect(nowait=True)
                await connection.connect()
        except BaseException:  # of a hundred that were not given back, nobody would get one to this server any more
            await self.hang_up(connection)
            raise
        return cast("AbstractConnection", connection)

    async def hang_up(self, connection: AbstractConnection) -> None:
        await connection.disconnect(nowait=True)
        for node in self.client.get_nodes():
            if connection in node._connections:  # redis-py has no public way back from a connection to its node
                node.release(connection)

    async def scan(self, pattern: str) -> AsyncIterator[list[bytes]]:
        for node in self.client.get_primaries():
            async for found in _scanned(self.client, pattern, target_nodes=node):
                yield found

    async def look_again(self) -> None:
        await self.client.nodes_manager.initialize()

    def _node(self, server: str) -> ClusterNode:
        node = self.client.get_node(node_name=server)
        if node is None:
            raise ConnectionError(f"{server} is no longer part of the cluster")
        return node


async def _scanned(client: Any, pattern: str, **where: Any) -> AsyncIterator[list[bytes]]:
    cursor = 0
    while True:
        with heeding_cancellation():
            went_to, found = await client.execute_command("SCAN", cursor, "MATCH", pattern, "COUNT", SCANNED, **where)
        cursor = next(iter(went_to.values())) if isinstance(went_to, dict) else went_to  # a cluster names its servers
        yield found
        if not cursor:
            return


@contextmanager
def heeding_cancellation() -> Iterator[None]:
    """Pass on a cancellation that came inside and was swallowed there; for every endless loop that uses redis-py.

    redis-py sends with asyncio.wait_for, and that of Python 3.11 returns a result that is ready at the moment of the
    cancellation instead of passing it on (gh-86296); whoever cancelled would wait for ever.
    """
    task = asyncio.current_task()
    assert task is not None, "to be cancelled is a task's lot"
    before = task.cancelling()
    yield
    if task.cancelling() > before:
        raise asyncio.CancelledError


def servers(url: str, timeout: float, scripts: Sequence[bytes] = ()) -> Servers:
    """The servers behind `url`; nothing is connected yet.

    Args:
        url: of one of REDIS_SCHEMES; Sentinel as `redis+sentinel://[user:password@]host:port,host:port/service`.
        timeout: seconds to wait for a connection and for a reply. Nothing is tried twice below us: a script that was
            sent may have run, and whether it may be repeated only its caller knows.
        scripts: what servers are told on each connection before anything else, see `_bringing`.
    Raises:
        StoreMisconfigured: the URL is of no known kind, or cannot be taken apart.
    """
    try:
        _refuse_what_would_be_passed_over(url)
        return _servers(url, timeout, scripts)
    except ValueError:
        # What the libraries say of it may quote a piece of the password.
        raise StoreMisconfigured(
            f"expected redis.url to be like redis://user:password@host:6379/0, got one that cannot be taken apart; "
            f"{ESCAPES}"
        ) from None
    except TypeError:  # redis-py has no such argument
        raise StoreMisconfigured(NO_SUCH_OPTION) from None


def _refuse_what_would_be_passed_over(url: str) -> None:
    """Nothing of `url` is repeated: in a password that is not escaped, a / or a ? begins what looks like the rest."""
    parts = urlsplit(url)
    given = dict(parse_qsl(parts.query, keep_blank_values=True))
    database = given.get("db", parts.path.removeprefix("/"))
    if not all(re.fullmatch(OPTIONS, name) for name in given):
        raise StoreMisconfigured(NO_SUCH_OPTION)
    if parts.scheme in ("redis", "rediss") and not re.fullmatch("[0-9]*", database):
        raise StoreMisconfigured(
            f"expected redis.url to end with the number of a database, such as /0, got something else; {ESCAPES}"
        )
    if parts.scheme == "redis+cluster" and database not in ("", "0"):
        raise StoreMisconfigured("expected redis.url of a cluster to name no database, got one; a cluster has only 0")
    if parts.scheme == "unix" and (parts.hostname or not parts.path):
        raise StoreMisconfigured("expected redis.url to be like unix:///path/to.sock, got no whole path")


def _servers(url: str, timeout: float, scripts: Sequence[bytes]) -> Servers:
    common: dict[str, Any] = {
        "socket_timeout": timeout,
        "socket_connect_timeout": timeout,
        "retry": Retry(NoBackoff(), 0),
        "socket_keepalive": True,
        "protocol": 2,  # RESP3 marks pub/sub as pushes, which redis-py formats for its log one by one
    }
    if url.startswith("redis+cluster://"):
        cluster: Any = RedisCluster.from_url("redis" + url.removeprefix("redis+cluster"), **common)
        cluster.connection_kwargs["redis_connect_func"] = _bringing(scripts)  # which it does not take as an argument
        return Cluster(cluster)
    common["redis_connect_func"] = _bringing(scripts)
    if url.startswith("redis+sentinel://"):
        return _sentinel(url, common)
    if url.startswith(REDIS_SCHEMES):
        if url.startswith("unix://"):
            del common["socket_keepalive"]
        client = Redis.from_url(url, **common)
        pool: Any = client.connection_pool
        pool.make_connection()  # thrown away: else only the first one in use would say what it does not take
        return Standalone(client, common["socket_timeout"])
    raise StoreMisconfigured(
        f"redis.url must begin with one of {', '.join(REDIS_SCHEMES)}; it begins with "
        f"{urlsplit(url).scheme or 'no scheme'!r}"
    )


def _bringing(scripts: Sequence[bytes]) -> Callable[[AbstractConnection], Awaitable[None]]:
    """What redis-py does as it connects, and then: tell the server `scripts`, which one that was started again has not.

    A script that it does not know is done later than what was asked for with it and is known: a join after its leave.
    """

    async def begin(connection: AbstractConnection) -> None:
        await connection.on_connect()
        await connection.send_packed_command(connection.pack_commands([("SCRIPT", "LOAD", each) for each in scripts]))
        for _ in scripts:
            with suppress(ResponseError):  # where it is not for us to load them, we go without
                await connection.read_response()

    return begin


def _sentinel(url: str, common: dict[str, Any]) -> Standalone:
    authority, _, service = url.removeprefix("redis+sentinel://").partition("/")
    credentials, _, hosts = authority.rpartition("@")
    user, _, password = map(unquote, credentials.rpartition(":"))
    if not re.fullmatch(r"[\w.-]+", service, re.ASCII) or not hosts:  # what Sentinel itself takes for a name
        raise StoreMisconfigured("redis.url for Sentinel must look like redis+sentinel://host:port,host:port/service")
    places = [urlsplit(f"//{each}") for each in hosts.split(",")]
    addresses = [(place.hostname, place.port or 26379) for place in places]
    untyped: Any = Sentinel
    sentinel = untyped(addresses, sentinel_kwargs={"socket_timeout": common["socket_timeout"]}, **common)
    master = sentinel.master_for(service, username=user or None, password=password or None)
    return Standalone(master, common["socket_timeout"], sentinel.sentinels)
