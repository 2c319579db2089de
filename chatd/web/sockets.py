"""Listening sockets: TCP, or a file that the machine's own programs may use as its mode says.

uvicorn binds neither: of a unix socket it would let everybody write to, and it cannot tell a file that a dead process
left from one of a process that lives.
"""

from __future__ import annotations

import errno
import fcntl
import os
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


def bind(host: str, port: int, mode: int) -> socket.socket:
    """A listening socket.

    Args:
        host: a name, an address, or unix:/path; then `port` means nothing.
        mode: of the file of a unix socket.
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
        sock.bind(address)
        sock.listen(BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock


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
