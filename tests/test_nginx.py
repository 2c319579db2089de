"""The shipped NGINX site, in a real nginx in front of two real nodes."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from tests.conftest import Daemon, running
from tests.sdk import sdk_client, subscribed
from tests.test_cluster import FAST, said, until
from tests.test_doors import PATIENCE_S

SITE = Path(__file__).parents[1] / "nginx" / "chatd.conf"


class Nginx:
    """nginx with the shipped site, its ports and paths changed and nothing else."""

    def __init__(self, directory: Path, nodes: tuple[Daemon, Daemon]) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = int(free.getsockname()[1])
        self.log = directory / "access.log"
        site = (
            SITE.read_text()
            .replace("listen 80;", f"listen 127.0.0.1:{self.port};")
            .replace("127.0.0.1:8001", nodes[0].address)
            .replace("127.0.0.1:8002", nodes[1].address)
            .replace("/var/log/nginx/chatd.log", str(self.log))
            .replace("limit_conn chatd_address 64;", "limit_conn chatd_address 6;")
        )
        temps = "".join(
            f"{kind}_temp_path {directory}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        self.config = directory / "nginx.conf"
        self.config.write_text(
            f"daemon off; worker_processes 1; pid {directory}/nginx.pid; error_log {directory}/error.log;"
            f"worker_shutdown_timeout 1s; events {{}} http {{ {temps} {site} }}"
        )
        self.process = subprocess.Popen(["nginx", "-c", str(self.config), "-e", f"{directory}/error.log"])

    @property
    def ws(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    def reload(self) -> None:
        self.process.send_signal(signal.SIGHUP)

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(10)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[tuple[Nginx, Daemon, Daemon]]:
    if shutil.which("nginx") is None:
        assert not os.environ.get("CI"), "nginx is missing, and in CI nothing may skip"
        pytest.skip("nginx is missing; the shipped site runs in it")
    trusting = {**FAST, "CHATD_SERVER__TRUSTED_PROXIES": "127.0.0.1"}
    with (
        running(tmp_path, "--port", "0", **trusting) as first,
        running(tmp_path, "--port", "0", **trusting) as second,
    ):
        nginx = Nginx(tmp_path, (first, second))
        try:
            yield nginx, first, second
        finally:
            nginx.close()


async def listening(nginx: Nginx) -> None:
    def answers() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", nginx.port)) == 0

    await until(answers)


# The SDK leaves the sockets of attempts that a dead node cut short to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_clients_of_a_killed_node_come_back_on_the_other_and_miss_nothing(
    site: tuple[Nginx, Daemon, Daemon],
) -> None:
    nginx, first, second = site
    await listening(nginx)
    door = f"{nginx.ws}/connection/websocket"
    async with sdk_client(door) as (one, _), sdk_client(door) as (two, _):
        _, heard_one = await subscribed(one, "lobby", recoverable=True)
        _, heard_two = await subscribed(two, "lobby", recoverable=True)
        counts = [node["connections"] for node in second.ask("status")["nodes"]]
        assert counts == [1, 1], "least_conn spreads them"
        async with sdk_client(second.sdk) as (writer, _):
            first.kill()
            for n in range(10):
                await said(writer, str(n))
        for heard in (heard_one, heard_two):
            assert [(await heard.next("publication")).pub.data["text"] for _ in range(10)] == [
                str(n) for n in range(10)
            ]


async def test_the_clients_address_passes_and_a_forged_one_does_not(site: tuple[Nginx, Daemon, Daemon]) -> None:
    nginx, first, _ = site
    await listening(nginx)
    forged = {"X-Forwarded-For": "203.0.113.7"}
    async with connect(f"{nginx.ws}/chat/ana?room=lobby&secret=hidden", additional_headers=forged):
        await until(lambda: first.ask("who")["connections"])
        (entry,) = first.ask("who")["connections"]
        assert entry["ip"] == "127.0.0.1"
    await until(lambda: nginx.log.exists() and "/chat/ana" in nginx.log.read_text())
    assert "hidden" not in nginx.log.read_text()


async def test_a_reload_keeps_talking_and_an_address_has_only_so_many_connections(
    site: tuple[Nginx, Daemon, Daemon],
) -> None:
    nginx, _, _ = site
    await listening(nginx)
    opened = [await connect(f"{nginx.ws}/chat/u{n}?room=lobby") for n in range(6)]
    with pytest.raises(InvalidStatus) as refused:
        await connect(f"{nginx.ws}/chat/one-too-many?room=lobby")
    assert refused.value.response.status_code == 429
    nginx.reload()
    await opened[0].send("still here")
    assert await asyncio.wait_for(opened[1].recv(), PATIENCE_S) == "u0: still here"
    for client in opened:
        await client.close()
