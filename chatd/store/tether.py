"""What the embedded store's process does before it becomes the server: it ties its life to chatd's.

A program of its own, `python -I -S tether.py PARENT_PID LOCK_FD PROGRAM ARGUMENT...`, because the alternative, a
preexec_fn, runs Python in a fork of a process with threads, where any lock may be held for ever. It costs some 25 ms.

It knows nothing of chatd and imports nothing of it.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from contextlib import suppress

PR_SET_PDEATHSIG = 1  # prctl(2); it outlives execve


def tether(parent: int, lock: int, command: list[str]) -> None:
    """Become `command`, which the kernel will send SIGTERM when the thread of `parent` that started us ends.

    Only Linux has this. Elsewhere a chatd that dies by kill -9 leaves its store running, and the next one shares it.

    Of the open files it keeps the standard three and `lock`: uvloop hands on all that are not marked close-on-exec, and
    a listening socket from systemd is not.
    """
    for fd in map(int, os.listdir("/dev/fd")):
        if fd not in (0, 1, 2, lock):
            with suppress(OSError):  # the listing's own descriptor is closed already
                os.close(fd)
    os.umask(0o077)  # the server's files hold what everybody said
    if tied(parent):
        os.execv(command[0], command)  # noqa: S606 -- no shell is the point


def tied(parent: int) -> bool:
    """Have the kernel send us SIGTERM when the thread of `parent` that started us ends; False: it has already."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGTERM))
    # A parent that died before the line above sends no signal any more.
    return os.getppid() == parent


if __name__ == "__main__":
    tether(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
