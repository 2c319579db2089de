"""Listening sockets: TCP, or a file that the machine's own programs may use as its mode says.

uvicorn binds neither: of a unix socket it would let everybody write to, and it cannot tell a file that a dead process
left from one of a process that lives.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import select
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from chatd.settings import unix_path

# Connections that the kernel holds for us while we are busy: a whole node's clients may come back at once.
BACKLOG = 4096
# Bytes that the kernel takes for a client before it has sent them. Left alone it takes 4 MB for one that does not read
# (tcp_wmem), which limits.outbox knows nothing of; what is under way to a client that reads does not count.
UNSENT_BYTES = 65_536
# A listener that closes takes those who wait for so long at most: in a storm the next one always does.
QUEUED_S = 1.0
# asyncio's own loop, where there is no uvloop, makes a connection of what it has taken in its next turns.
TURNS_TO_CONNECT = 3


def bind(host: str, port: int, mode: int, *, shared: bool = False) -> socket.socket:
    """A listening socket.

    Args:
        host: a name, an address, or unix:/path; then `port` means nothing.
        mode: of the file of a unix socket.
        shared: the TCP port is that of others too, and the kernel spreads connections over all who listen there. So
            this one listens only when somebody accepts on it: until then nobody is sent to it.
    Raises:
        OSError: the address cannot be had.
    """
    if path := unix_path(host):
        return _bind_unix(path, mode)
    family, kind, proto, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[
        0
    ]
    sock = socket.socket(family, kind, proto)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, shared)
        sock.bind(address)
        if not shared:
            sock.listen(BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock


def hold(host: str, port: int) -> socket.socket:
    """A socket that listens to nobody, and keeps a TCP address for those who bind it `shared`.

    Nobody else gets the address, but for a program of the same user that shares ports too and comes later.

    Raises:
        OSError: the address cannot be had; one that is shared cannot either.
    """
    # Shared from the beginning, it would be shared with any other chatd of ours. So the first socket has it alone, and
    # listens: of two that begin at once only one can.
    first = bind(host, port, 0)
    held = socket.socket(first.family, first.type, first.proto)
    try:
        first.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # over connections of before that fade away
        held.bind(first.getsockname())
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)  # and from now on nobody, even if none of us listens
    except OSError:
        held.close()
        raise
    finally:
        first.close()
    return held


def is_shared(sock: socket.socket) -> bool:
    return bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT))


async def take_queued(sock: socket.socket) -> None:
    """Let the event loop, which accepts on `sock`, take those who wait there already; closing it would reset them.

    Who is amid TCP's own handshake is not helped; see net.ipv4.tcp_migrate_req in the kernel's ip-sysctl.
    """
    sock.listen(0)  # meanwhile one more at most comes after each that is taken
    queue = select.poll()
    queue.register(sock, select.POLLIN)
    loop = asyncio.get_running_loop()
    over = loop.time() + QUEUED_S
    while queue.poll(0) and loop.time() < over:
        await asyncio.sleep(0)  # a turn of the loop, in which uvloop takes but a few
    for _ in range(TURNS_TO_CONNECT):
        await asyncio.sleep(0)


def bound_unsent(sock: socket.socket) -> None:
    """Have the connections of a listening socket wait in our own memory, which is bounded; they inherit this."""
    if sock.family != socket.AF_UNIX and hasattr(socket, "TCP_NOTSENT_LOWAT"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)


def address_of(sock: socket.socket) -> str:
    """As people write it: host:port, [v6]:port or unix:/path."""
    if sock.family == socket.AF_UNIX:
        return f"unix:{sock.getsockname()}"
    host, port = sock.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def tidy(address: str) -> None:
    """Take away the file of a unix socket that has been closed, unless another process listens on it by now."""
    if path := unix_path(address):
        with suppress(OSError), _alone(path):
            _remove_stale(path)


def _bind_unix(path: str, mode: int) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)  # until it has its mode, it is nobody else's
    try:
        with _alone(path):
            _remove_stale(path)
            sock.bind(path)
            os.chmod(path, mode)
            sock.listen(BACKLOG)
    except OSError:
        sock.close()
        raise
    finally:
        os.umask(before)
    return sock


@contextmanager
def _alone(path: str) -> Iterator[None]:
    """One process at a time: of two that find a dead one's file, the second would take away the first one's."""
    directory = os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        yield
    finally:
        os.close(directory)


def _remove_stale(path: str) -> None:
    """Remove a socket on which nobody listens; one that lives stays, and `bind` will say so.

    Raises:
        FileExistsError: there is something else.
    """
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise FileExistsError(errno.EEXIST, "a file that is no socket is there")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
        except BlockingIOError:  # it listens, and is busy
            pass
