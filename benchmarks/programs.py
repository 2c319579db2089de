"""The C programs: compiled when they are needed, with what any machine has as `cc`."""

from __future__ import annotations

import subprocess
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

SOURCES = Path(__file__).parent


@cache
def program(name: str) -> Path:
    """The path of `floor` or `load`, compiled.

    Raises:
        RuntimeError: it cannot be.
    """
    built = _folder() / name
    command = ["cc", "-O2", "-Wall", "-Wextra", "-Werror", "-o", str(built), str(SOURCES / f"{name}.c")]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise RuntimeError("the benchmarks need a C compiler as `cc`; install gcc or clang") from None
    if done.returncode:
        raise RuntimeError(f"{name}.c does not compile: {done.stderr}")
    return built


@cache
def _folder() -> Path:
    return Path(mkdtemp(prefix="chatd-benchmarks-"))
