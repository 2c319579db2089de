"""Several nodes behind one address: `chatd serve --workers N`.

DESIGN

Processes. Each worker is a whole node. It is this program with these arguments, started afresh, so nothing is shared by
a fork; one variable of its environment, a Place, says which part is its own. Where the store is embedded one process
more keeps it, as `chatd store` does, so that no worker's end is the store's. The supervisor (supervisor.py) is their
parent and serves nobody; when it is killed, the kernel has each of them end (tether.py).

Address. On TCP the supervisor holds it, and each worker listens for itself (SO_REUSEPORT): the kernel spreads those who
come evenly, and sends nobody to one that has closed. A file, or a socket of systemd's, is one queue that all inherit:
nobody who waits there is lost with a worker, but whoever wakes first takes him, so the spread is as it comes.

Which settings hold, and what a node is, is for serve.py and node.py to say.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

import structlog

from chatd.settings import Settings, numbered, unix_path
from chatd.store.tether import tied
from chatd.web.sockets import address_of, tidy

from .common import FAILED
from .supervisor import STORE, Supervisor

# Set for each process that a supervisor starts. Kubernetes' variables have other names, beside a service "chatd" too.
VARIABLE: Final = "CHATD_WORKER"
# Words between systemd and the process that it started, which are not for those that this one starts.
OF_SYSTEMD: Final = frozenset(
    {"NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"}
)


class Place(NamedTuple):
    """What a supervisor says to a process that it starts.

    Attributes:
        supervisor: its process id.
        number: of the worker, from 1; or STORE.
        fd: the listening socket that the process inherits; -1: it shares the port at `address`.
        mode: "open" or "jwt": who may come in is the same at all of them, also at one that is started again after keys
            came or went.
        address: where the public comes in, as address_of says it.
    """

    supervisor: int
    number: int
    fd: int
    mode: str
    address: str

    def text(self) -> str:
        return " ".join(map(str, self))

    def inherited(self) -> socket.socket | None:
        return socket.socket(fileno=self.fd) if self.fd >= 0 else None


def taken() -> Place | None:
    """The place that our supervisor has for us, and from now on we end when it ends. None: no supervisor started us."""
    text = os.environ.pop(VARIABLE, "")
    if not text:
        return None
    supervisor, number, fd, mode, address = text.split(" ", 4)
    place = Place(int(supervisor), int(number), int(fd), mode, address)
    if not tied(place.supervisor):
        sys.exit(FAILED)
    if place.number != STORE:
        structlog.contextvars.bind_contextvars(worker=place.number)
    return place


def environment(place: Place, settings: Settings, notify_socket: str, environ: Mapping[str, str]) -> dict[str, str]:
    """What the process of `place` finds: our own environment, and what tells it from the others."""
    theirs = {name: value for name, value in environ.items() if name not in OF_SYSTEMD}
    theirs |= {VARIABLE: place.text(), "NOTIFY_SOCKET": notify_socket}
    if place.number != STORE:
        theirs["CHATD_CLUSTER__NAME"] = f"{settings.cluster.name or socket.gethostname()}/{place.number}"
        if settings.admin.listen:
            theirs["CHATD_ADMIN__LISTEN"] = numbered(settings.admin.listen, place.number)
    return theirs


def supervised(
    settings: Settings, sock: socket.socket, may_reload: Callable[[], bool], on_ready: Callable[[str], None]
) -> int:
    """Run as many workers as the settings say until told to stop; the exit code.

    Args:
        sock: listens, and all inherit it; or holds the address for those who share it.
        may_reload: whether the settings, as they are now, can be taken up; it says why not.
        on_ready: told the public address when all are ready.
    """
    address = address_of(sock)
    listens = bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))

    def start(number: int, notify_socket: str) -> subprocess.Popen[bytes]:
        fd = sock.fileno() if listens and number != STORE else -1
        place = Place(os.getpid(), number, fd, settings.auth.effective_mode, address)
        return started(place, environment(place, settings, notify_socket, os.environ))

    supervisor = Supervisor(
        settings.server.workers,
        store=not settings.redis.url,
        start=start,
        may_reload=may_reload,
        on_ready=lambda: on_ready(address),
        address=address,
    )
    code = supervisor.run()
    sock.close()
    if unix_path(address):
        tidy(address)
    return code


def started(place: Place, environ: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """This very program anew, with the same arguments.

    In a session of its own, or Ctrl-C in a terminal would reach it beside us, and who is told twice does not drain.
    """
    return subprocess.Popen(  # noqa: S603 -- no shell, our words
        [sys.executable, *sys.orig_argv[1:]],
        env=environ,
        stdin=subprocess.DEVNULL,
        pass_fds=[place.fd] if place.fd >= 0 else [],
        start_new_session=True,
    )
