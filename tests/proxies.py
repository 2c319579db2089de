"""What every proxy we ship a configuration for must do, with a real one in front of two real nodes.

A test file inherits from BehindAProxy, and its fixtures start the proxy with the shipped configuration, in which ports
and paths are replaced and nothing else. Nodes beat fast and the proxies' limits are small, so that little time passes.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import re
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Protocol

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus

from tests.conftest import Daemon, running
from tests.sdk import sdk_client, subscribed
from tests.servers import free_port
from tests.streams import streaming
from tests.test_cluster import FAST, said, until
from tests.test_doors import PATIENCE_S, Raw, next_push, until_present
from tests.test_listeners import on_files

# The least heartbeat there is, and what the shipped configurations make of it: a socket silent for longer is cut.
HEARTBEAT_S = 2
SILENCE_S = 3 * HEARTBEAT_S
# Connections that one address may have through the proxy.
PER_ADDRESS = 20
TRUSTING = {
    **FAST,
    "CHATD_SERVER__TRUSTED_PROXIES": "127.0.0.1",
    "CHATD_HEARTBEAT__INTERVAL": f"{HEARTBEAT_S}s",
    "CHATD_HEARTBEAT__TIMEOUT": f"{HEARTBEAT_S}s",
    "CHATD_LIMITS__CONNECTIONS_PER_ADDRESS": str(PER_ADDRESS),
}
TOKENS = ("in-the-query", "in-a-header", "in-a-cookie", "in-a-subprotocol")


def program(name: str) -> str:
    """The path of a Debian program that tests drive; without it the test is skipped, but not in CI."""
    path = shutil.which(name)
    if path is None:
        assert not os.environ.get("CI"), f"{name} is missing, and in CI nothing may skip"
        pytest.skip(f"{name} is missing; the shipped configuration runs in it")
    return path


def certificate(directory: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1, signed by itself, and its key, as PEM files."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "chatd test")])
    now = datetime.now(UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    chain_file, key_file = directory / "chain.pem", directory / "key.pem"
    chain_file.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    plain = (serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    key_file.write_bytes(key.private_bytes(serialization.Encoding.PEM, *plain))
    return chain_file, key_file


class Proxy:
    """A running proxy: `tls_port` speaks TLS with `chain`, `port` plain HTTP, and `redirecting_port` sends to https."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.port, self.tls_port, self.redirecting_port = free_port(), free_port(), free_port()
        self.chain, self.key = certificate(directory)
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def ws(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    @property
    def sdk(self) -> str:
        return f"{self.ws}/connection/websocket"

    def start(self, *command: str) -> None:
        with (self.directory / "output.log").open("wb") as output:
            self.process = subprocess.Popen(command, stdout=output, stderr=output)

    def until_it_listens(self) -> None:
        assert self.process is not None
        for port in (self.port, self.tls_port):
            with socket.socket() as probe:
                while probe.connect_ex(("127.0.0.1", port)):
                    assert self.process.poll() is None, self.logs()
                    time.sleep(0.01)

    def workers(self) -> set[str]:
        """Process ids of those that hold the connections."""
        assert self.process is not None
        pid = self.process.pid
        return set(Path(f"/proc/{pid}/task/{pid}/children").read_text().split())

    def logs(self) -> str:
        """Everything that the proxy has written anywhere."""
        return "".join(log.read_text() for log in self.directory.glob("*.log"))

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def reload(self) -> None:
        """Have it read its configuration again."""
        raise NotImplementedError

    def close(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait(10)


class StartProxy(Protocol):
    def __call__(self, directory: Path, *nodes: Daemon) -> Proxy: ...


@contextlib.contextmanager
def proxied(directory: Path, start: StartProxy, **environ: str) -> Iterator[tuple[Proxy, Daemon, Daemon]]:
    """Two nodes on one store, and the proxy before them that `start` has started."""
    with (
        running(directory, "--port", "0", **TRUSTING, **environ) as first,
        running(directory, "--port", "0", **TRUSTING, **environ) as second,
    ):
        proxy = start(directory, first, second)
        try:
            proxy.until_it_listens()
            yield proxy, first, second
        finally:
            proxy.close()


def connections(*nodes: Daemon) -> list[int]:
    """How many each node has; asked of the nodes themselves, so that one without its store answers too."""
    return [int(float(re.search(r"^chatd_connections (\S+)", node.get("/metrics")[1], re.M)[1])) for node in nodes]


async def people(node: Daemon, *, count: int, room: str = "lobby") -> list[dict[str, Any]]:
    """Who is in the room, once so many are. Asked in a thread, for the clients have pings to answer meanwhile."""
    async with asyncio.timeout(PATIENCE_S):
        while len(found := (await asyncio.to_thread(node.ask, "who", room))["connections"]) != count:
            pass
    return found


async def hear(listener: ClientConnection, text: str) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while await listener.recv() != text:
            pass


# The SDK leaves its sockets to the garbage collector where it was cut off, and where a proxy takes its time to close.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
class BehindAProxy:
    """The promises. A subclass gives the fixtures `proxy`, for those that break nothing, and `start`."""

    @pytest.fixture(autouse=True)
    def collected(self) -> Iterator[None]:
        """What a test leaves behind is found at its end, and not by whichever comes next."""
        yield
        gc.collect()

    async def test_both_doors_are_open_and_share_a_room(self, proxy: tuple[Proxy, Daemon, Daemon]) -> None:
        site, *_ = proxy
        async with connect(f"{site.ws}/chat/ana?room=doors") as ana, sdk_client(site.sdk) as (client, _):
            subscription, heard = await subscribed(client, "doors")
            await until_present(site, "ana", "doors")
            await ana.send("hello")
            assert (await heard.next("publication")).pub.data["text"] == "hello"
            await subscription.publish({"text": "hi ana"})
            assert str(await asyncio.wait_for(ana.recv(), PATIENCE_S)).endswith(": hi ana")

    async def test_who_gets_no_websocket_through_hears_by_http_and_speaks_to_any_node(
        self, proxy: tuple[Proxy, Daemon, Daemon]
    ) -> None:
        site, *nodes = proxy
        url = f"http://127.0.0.1:{site.port}"
        async with streaming(url, {"id": 2, "subscribe": {"channel": "http"}}) as client:
            await client.hear("subscribe")
            for n, node in enumerate((url, url, *(each.url for each in nodes))):
                command = {"id": 3 + n, "publish": {"channel": "http", "data": {"text": f"word {n}"}}}
                assert (await client.say(node, command)).status_code == 204
                assert (await client.hear("pub"))["data"] == {"text": f"word {n}"}

    async def test_an_escaped_slash_reaches_the_node_as_it_is(self, proxy: tuple[Proxy, Daemon, Daemon]) -> None:
        site, *_ = proxy
        async with connect(f"{site.ws}/chat/team%2Fana?room=slashes"):
            await until_present(site, "team/ana", "slashes")

    async def test_tls_ends_at_the_proxy(self, proxy: tuple[Proxy, Daemon, Daemon]) -> None:
        site, *_ = proxy
        trusting = ssl.create_default_context(cafile=site.chain)
        url = f"wss://127.0.0.1:{site.tls_port}/chat"
        async with (
            connect(f"{url}/ana?room=tls", ssl=trusting) as ana,
            connect(f"{url}/bob?room=tls", ssl=trusting) as bob,
        ):
            await until_present(site, "bob", "tls")
            await ana.send("hello")
            await hear(bob, "ana: hello")

    async def test_http_is_sent_to_https(self, proxy: tuple[Proxy, Daemon, Daemon]) -> None:
        site, *_ = proxy
        reader, writer = await asyncio.open_connection("127.0.0.1", site.redirecting_port)
        writer.write(b"GET /chat/ana?room=tea HTTP/1.1\r\nHost: chat.example.org\r\nConnection: close\r\n\r\n")
        answer = (await reader.read()).decode()
        assert answer.startswith("HTTP/1.1 301 ")
        assert "\r\nlocation: https://chat.example.org/chat/ana?room=tea\r\n" in answer.replace("Location", "location")
        writer.close()

    async def test_old_tls_is_refused(self, proxy: tuple[Proxy, Daemon, Daemon]) -> None:
        site, *_ = proxy
        old = ssl.create_default_context(cafile=site.chain)
        with pytest.warns(DeprecationWarning, match="TLSv1_1"):
            old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
        old.set_ciphers("ALL:@SECLEVEL=0")
        with pytest.raises(ssl.SSLError):
            await connect(f"wss://127.0.0.1:{site.tls_port}/chat/ana", ssl=old)

    async def test_heartbeats_keep_a_silent_client_past_the_read_timeout(
        self, proxy: tuple[Proxy, Daemon, Daemon]
    ) -> None:
        site, *_ = proxy
        async with Raw(site) as client, connect(f"{site.ws}/chat/ana?room=silent", ping_interval=None) as ana:
            await client.ask({"subscribe": {"channel": "silent"}})
            for _ in range(SILENCE_S // HEARTBEAT_S + 2):
                assert await client.receive() == [{}], "a ping, and nothing else has crossed either socket"
                await client.send({})
            await ana.send("still here")
            assert (await next_push(client, "pub", "ana"))["data"]["text"] == "still here"

    async def test_the_clients_address_passes_and_a_forged_one_does_not(
        self, proxy: tuple[Proxy, Daemon, Daemon]
    ) -> None:
        site, first, _ = proxy
        forged = {"X-Forwarded-For": "203.0.113.7"}
        async with connect(f"{site.ws}/chat/ana?room=where", additional_headers=forged, local_addr=("127.0.0.9", 0)):
            assert [entry["ip"] for entry in await people(first, count=1, room="where")] == ["127.0.0.9"]

    async def test_an_address_has_only_so_many_connections(self, proxy: tuple[Proxy, Daemon, Daemon]) -> None:
        site, *_ = proxy
        crowd = ("127.0.0.66", 0)
        opened = [await connect(f"{site.ws}/chat/u{n}?room=crowd", local_addr=crowd) for n in range(PER_ADDRESS)]
        with pytest.raises(InvalidStatus) as refused:
            await connect(f"{site.ws}/chat/one-too-many?room=crowd", local_addr=crowd)
        assert refused.value.response.status_code == 429
        by_http = httpx.AsyncHTTPTransport(local_address=crowd[0])
        async with streaming(f"http://127.0.0.1:{site.port}", transport=by_http) as one_more:
            assert one_more.response.status_code == 429
        async with connect(f"{site.ws}/chat/neighbour?room=crowd"):
            pass
        for client in opened:
            await client.close()

    async def test_metrics_are_not_for_the_world(self, proxy: tuple[Proxy, Daemon, Daemon]) -> None:
        site, *_ = proxy
        reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
        writer.write(b"GET /metrics HTTP/1.0\r\n\r\n")
        assert b" 404 " in await reader.readline()
        writer.close()

    async def test_a_reload_keeps_people_talking(self, proxy: tuple[Proxy, Daemon, Daemon]) -> None:
        site, *_ = proxy
        async with connect(f"{site.ws}/chat/ana?room=reload") as ana, connect(f"{site.ws}/chat/bob?room=reload") as bob:
            old = site.workers()
            site.reload()
            await until(lambda: site.workers() - old)
            assert old <= site.workers(), "the old worker stays for the sake of those two"
            async with connect(f"{site.ws}/chat/eve?room=reload") as eve:
                await until_present(site, "bob", "reload")
                await until_present(site, "eve", "reload")
                await ana.send("still here")
                await hear(bob, "ana: still here")
                await hear(eve, "ana: still here")

    async def test_nodes_may_listen_on_files(self, start: StartProxy, tmp_path: Path) -> None:
        (tmp_path / "one").mkdir()
        (tmp_path / "two").mkdir()
        store = {"CHATD_REDIS__STATE_DIRECTORY": str(tmp_path / "state")}
        with (
            on_files(tmp_path / "one", **TRUSTING, **store) as (first, door, _),
            on_files(tmp_path / "two", **TRUSTING, **store) as (second, other_door, _),
        ):
            first.address, second.address = f"unix:{door}", f"unix:{other_door}"
            with contextlib.closing(start(tmp_path, first, second)) as site:
                site.until_it_listens()
                local = ("127.0.0.9", 0)
                async with connect(f"{site.ws}/chat/ana", local_addr=local), connect(f"{site.ws}/chat/bob"):
                    found = {entry["user"]: (entry["ip"], entry["node"]) for entry in await people(first, count=2)}
        assert found["ana"][0] == "127.0.0.9"
        assert found["ana"][1] != found["bob"][1], "one on each node"

    async def test_a_drained_node_costs_nobody_a_handshake_or_a_message(
        self, start: StartProxy, tmp_path: Path
    ) -> None:
        with proxied(tmp_path, start) as (site, first, second):
            async with sdk_client(site.sdk) as (one, _), sdk_client(site.sdk) as (two, _):
                heard = [(await subscribed(client, "lobby", recoverable=True))[1] for client in (one, two)]
                assert connections(first, second) == [1, 1]
                drain = asyncio.create_task(asyncio.to_thread(first.cli, "drain", str(first.port)))
                async with sdk_client(second.sdk) as (writer, _):
                    texts = [str(n) for n in range(1, 30)]
                    for text in texts:
                        newcomer = (f"127.0.1.{text}", 0)
                        async with connect(f"{site.ws}/chat/new?room=elsewhere", local_addr=newcomer):
                            await said(writer, text)
                    await drain
                    for each in heard:
                        assert [(await each.next("publication")).pub.data["text"] for _ in texts] == texts
                await until(lambda: connections(second) == [2])

    async def test_nobody_who_is_in_is_silenced_by_those_who_are_not_let_in(
        self, start: StartProxy, tmp_path: Path
    ) -> None:
        with proxied(tmp_path, start) as (site, first, _):
            url = f"http://127.0.0.1:{site.port}"
            async with streaming(url, {"id": 2, "subscribe": {"channel": "lobby"}}) as client:
                await client.hear("subscribe")
                await asyncio.to_thread(first.cli, "lockdown", "3")
                for _ in range(6):
                    with pytest.raises(InvalidStatus):
                        await connect(f"{site.ws}/chat/new?room=lobby")
                assert (await client.say(url, {"id": 3, "unsubscribe": {"channel": "lobby"}})).status_code == 204
                await client.hear("unsubscribe")

    async def test_clients_of_a_killed_node_come_back_on_the_other_and_miss_nothing(
        self, start: StartProxy, tmp_path: Path
    ) -> None:
        with proxied(tmp_path, start) as (site, first, second):
            async with sdk_client(site.sdk) as (one, _), sdk_client(site.sdk) as (two, _):
                _, heard_one = await subscribed(one, "lobby", recoverable=True)
                _, heard_two = await subscribed(two, "lobby", recoverable=True)
                assert connections(first, second) == [1, 1], "the one with the fewest is asked"
                async with sdk_client(second.sdk) as (writer, _):
                    first.kill()
                    for n in range(10):
                        await said(writer, str(n))
                for heard in (heard_one, heard_two):
                    assert [(await heard.next("publication")).pub.data["text"] for _ in range(10)] == [
                        str(n) for n in range(10)
                    ]
            await self._no_token_is_logged(site, second)

    async def _no_token_is_logged(self, site: Proxy, last: Daemon) -> None:
        """Neither of what goes well nor, with nobody behind the proxy any more, of what fails."""
        for _ in range(2):
            await with_tokens(site)
            last.kill()
        await until(lambda: site.logs().count("/chat/told") >= 2)
        assert not [token for token in TOKENS if token in site.logs()]


async def with_tokens(site: Proxy) -> None:
    """A handshake with something secret wherever a client could put it; it is refused, for none of it is a token."""
    query, header, cookie, subprotocol = TOKENS
    with pytest.raises(InvalidStatus):
        await connect(
            f"{site.ws}/chat/told?room=lobby&token={query}",
            additional_headers={"Authorization": f"Bearer {header}", "Cookie": f"chatd_token={cookie}"},
            subprotocols=["chatd.bearer", subprotocol],  # type: ignore[list-item]
        )
