"""Words with systemd: what we tell it (sd_notify(3)), and the sockets it hands us. Nothing where systemd is not."""

from __future__ import annotations

import os
import socket
import time
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
            sock.sendto("\n".join(assignments).encode(), address)
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
