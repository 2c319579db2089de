"""Words to systemd (sd_notify(3)): that we are ready, reload, stop, and still turn. Nothing where systemd is not."""

from __future__ import annotations

import os
import socket
import time


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
