"""Words with systemd: what we tell it (sd_notify(3)), and the sockets it hands us. Nothing where systemd is not.

A supervisor of several nodes is to them what systemd is to it: the same words, heard in an Inbox.
"""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Iterator
from typing import Final

from .output import plural

# While stopping we ask, once a second, for so much more. Longer than what comes after the last such second: the last
# requests' end and the store's.
EXTENSION_US: Final = 15_000_000
# sd_listen_fds(3): the first descriptor after the standard three.
FIRST_FD: Final = 3


def tell(*assignments: str) -> None:
    """Send assignments such as "READY=1" to the service manager; its absence, or deafness, is no error of ours."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path:
        return
    # An address that begins with @ is in the abstract namespace.
    address = "\0" + path[1:] if path.startswith("@") else path
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
            # What is said again in a second does not wait for one who has no time to hear it.
            patience = socket.MSG_DONTWAIT if "WATCHDOG=1" in assignments else 0
            sock.sendto("\n".join(assignments).encode(), patience, address)
    except OSError:
        pass


def reloading() -> None:
    """RELOADING=1 wants the time, so that systemd can tell it from an older one."""
    tell("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")


def words(news: str, state: str, address: str, connections: int) -> tuple[str, ...]:
    """The assignments by which systemd learns `news`; news, state and address are the node's."""
    hint = "; `chatd undrain` lets people in again" if state == "drained" else ""
    status = f"STATUS={state} on {address}, {plural(connections, 'connection')}{hint}"
    known = {
        "ready": ("READY=1", status),
        "reloaded": ("READY=1",),
        "stopping": ("STOPPING=1", f"EXTEND_TIMEOUT_USEC={EXTENSION_US}"),
        "alive": ("WATCHDOG=1", status),
    }
    return known.get(news, (status,))


def sockets_passed() -> int:
    """How many listening sockets systemd opened for us; they begin at FIRST_FD."""
    ours = os.environ.get("LISTEN_PID") == str(os.getpid())
    return int(os.environ.get("LISTEN_FDS") or 0) if ours else 0


def watchdog_s(otherwise: float) -> float:
    """After how many seconds of silence systemd gives us up (WatchdogSec=); `otherwise` where it never does."""
    return int(os.environ.get("WATCHDOG_USEC") or 0) / 1e6 or otherwise


class Inbox:
    """The other end of it, where processes that we have started tell their news. Linux alone has what this takes.

    Attributes:
        address: for their NOTIFY_SOCKET.
    """

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        # A name without a file, of the kernel's choice (unix(7), autobind). Everybody may send there, so the kernel is
        # also asked who did.
        self._socket.bind("")
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self.address = "@" + self._socket.getsockname()[1:].decode()

    def fileno(self) -> int:
        return self._socket.fileno()

    def read(self) -> Iterator[tuple[int, set[str]]]:
        """What has come: the process that sent it, and its assignments."""
        credentials = struct.Struct("3i")  # ucred of unix(7): process, user, group
        while True:
            try:
                said, extra, _, _ = self._socket.recvmsg(4096, socket.CMSG_SPACE(credentials.size))
            except BlockingIOError:
                return
            for _, kind, data in extra:
                if kind == socket.SCM_CREDENTIALS:
                    yield credentials.unpack(data)[0], set(said.decode(errors="replace").split("\n"))
