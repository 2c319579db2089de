"""What is measured, as processes: chatd with its store, the floor, and peers. Each ends with its `with`.

A server runs alone on its core; the store, as everything else, on the load's. chatd runs as `chatd serve` does, on a
Valkey with the embedded store's own options and environment, and with the settings of LIMITS: those that bound what one
client may do are off, for here few clients do what many would.
"""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import jwt

from chatd.store import embedded

from . import machine
from .load import Faulty
from .peers import Peer
from .programs import program
from .sitting import Sitting

START_S = 20.0
QUIET_S = 0.01
SECRET = "a secret of the benchmarks, of more than 32 bytes"

LIMITS = """
[limits]
connections = 0
connections_per_user = 0
connections_per_address = 0
unknown_connections = 0
connect_timeout = "60s"
messages_per_second = 0
user_messages_per_second = 0
bytes_per_second = 0
joins_per_second = 0
rooms_per_connection = 0
"""


@dataclass(slots=True)
class Server:
    """One process that is measured, and what a load must know to speak to it."""

    pid: int
    port: int
    setup: dict[str, object] = field(default_factory=dict)

    def cpu_s(self) -> float:
        return machine.cpu_s(self.pid)

    def rss_bytes(self) -> int:
        return machine.rss_bytes(self.pid)

    def until_quiet(self) -> None:
        """Wait until it has done what it had to: it takes hardly any CPU time in a fifth of a second."""
        before = -1.0
        while (now := self.cpu_s()) - before > QUIET_S:
            before = now
            time.sleep(0.2)


@dataclass(slots=True)
class Chatd:
    """Some nodes of chatd on one store."""

    nodes: list[Server]
    store: Server
    url: str

    @property
    def node(self) -> Server:
        return self.nodes[0]

    def cpu_s(self) -> list[float]:
        """CPU seconds of the store and of each node."""
        return [self.store.cpu_s(), *(node.cpu_s() for node in self.nodes)]

    def setup(self, directory: Path, users: int) -> dict[str, object]:
        """The load's words for connecting `users` users, each with a token of its own."""
        ports = ",".join(str(node.port) for node in self.nodes)
        return {
            "dialect": "sdk",
            "path": "/connection/websocket",
            "ports": ports,
            "tokens": tokens(directory, users),
            "prefix": f"r{os.urandom(3).hex()}-",
        }


def tokens(directory: Path, users: int) -> Path:
    """A file with a fresh token a line."""
    file = directory / f"tokens-{os.urandom(4).hex()}"
    ends = int(time.time()) + 86400
    made = (jwt.encode({"sub": f"user-{n}", "exp": ends, "jti": os.urandom(6).hex()}, SECRET) for n in range(users))
    file.write_text("\n".join(made))
    return file


# --- starting ---------------------------------------------------------------------------------------------------------


@contextmanager
def chatd(
    sitting: Sitting,
    *,
    nodes: int = 1,
    cores: Sequence[int] = (),
    heartbeat_s: int = 25,
    extra: str = "",
    under: Sequence[str] = (),
    house: Path | None = None,
) -> Iterator[tuple[Chatd, Path]]:
    """`nodes` nodes on a fresh store, with a directory that lives as long.

    Args:
        cores: which they have in turn; none: the server's, and the load's for a second node.
        extra: settings that come last, as TOML.
        under: a command that runs each node's.
        house: the checkout whose chatd it is; None: the one that is installed.
    """
    with ExitStack() as stack:
        directory = Path(stack.enter_context(TemporaryDirectory(prefix="chatd-bench-")))
        store = stack.enter_context(_store(directory, sitting.load_core))
        url = f"unix://{directory / 'store.sock'}"
        config = _configuration(directory, url, heartbeat_s, extra)
        started = []
        for n in range(nodes):
            port = free_port()
            node = [sys.executable, "-m", "chatd", "--config", str(config), "serve", "--port", str(port)]
            command, elsewhere = [*under, *node], {} if house is None else {"PYTHONPATH": str(house)}
            core = (cores or machine.cores())[n % len(cores or machine.cores())]
            server = stack.enter_context(_process(command, core, port, directory / f"node-{n}.log", elsewhere))
            _until(lambda port=port: _ready(port), server, directory / f"node-{n}.log")
            started.append(server)
        yield Chatd(started, store, url), directory


def _configuration(directory: Path, url: str, heartbeat_s: int, extra: str) -> Path:
    config = directory / "chatd.toml"
    key = f'[[auth.keys]]\nkid = "main"\nalgorithm = "HS256"\nsecret = "{SECRET}"\n'
    heartbeat = f'[heartbeat]\ninterval = "{heartbeat_s}s"\ntimeout = "{min(heartbeat_s, 8)}s"\n'
    config.write_text(f'[redis]\nurl = "{url}"\n{key}{heartbeat}{LIMITS}{extra}')
    config.chmod(0o600)
    return config


@contextmanager
def _store(directory: Path, core: int) -> Iterator[Server]:
    path = directory / "store.sock"
    command = embedded.command_line(embedded.server_binary(), directory, path)
    with _process(command, core, 0, directory / "store.log", embedded.environment()) as store:
        _until(lambda: asyncio.run(embedded.answers(path)), store, directory / "store.log")
        yield store


@contextmanager
def floor(sitting: Sitting, *, joins: bool = False, heartbeat_s: int = 0) -> Iterator[Server]:
    """The C program that only sends; with `joins` it puts what one turn brought to a room into one frame.

    Args:
        heartbeat_s: between two pings to everybody; 0: none are sent.
    """
    command = [str(program("floor")), *["join"] * joins, *[f"beat={heartbeat_s}"] * bool(heartbeat_s)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, preexec_fn=_pinned(sitting.server_core))
    assert process.stdout is not None
    try:
        port = int(process.stdout.readline().split()[-1])
        yield Server(process.pid, port, {"dialect": "raw", "ports": port})
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@contextmanager
def peer(sitting: Sitting, which: Peer) -> Iterator[Server]:
    port = free_port()
    with TemporaryDirectory(prefix="chatd-bench-") as directory:
        log = Path(directory, "log")
        with _process(which.command(port), sitting.server_core, port, log, which.environment()) as server:
            _until(lambda: _accepts(port), server, log)
            server.setup = {"dialect": which.dialect, "path": which.path, "ports": port}
            yield server


@contextmanager
def _process(
    command: Sequence[str], core: int, port: int, log: Path, environment: dict[str, str] | None = None
) -> Iterator[Server]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CHATD_")}
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=kept | (environment or {}),
            preexec_fn=_pinned(core),
        )  # fmt: skip
        try:
            yield Server(process.pid, port)
        finally:
            process.kill()
            process.wait()


def _pinned(core: int):  # type: ignore[no-untyped-def]  # what Popen takes
    return lambda: os.sched_setaffinity(0, {core})


def _until(answers, server: Server, log: Path) -> None:  # type: ignore[no-untyped-def]  # any question without arguments
    deadline = time.monotonic() + START_S
    while not answers():
        state = Path(f"/proc/{server.pid}/stat").read_text().rpartition(")")[2].split()[0]
        if state == "Z" or time.monotonic() > deadline:
            raise Faulty(f"a server did not start: {log.read_text()[-300:]}")
        time.sleep(0.02)


def _accepts(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _ready(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1.0)
        if probe.connect_ex(("127.0.0.1", port)):
            return False
        probe.sendall(b"GET /readyz HTTP/1.0\r\n\r\n")
        return b" 200 " in probe.recv(64)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
