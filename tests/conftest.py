"""What several test files share: a real `chatd serve`, started, spoken to and killed as its user would.

A Daemon is a process of its own with a state directory of its own, so that tests may kill it. Ready means that it said
so and /readyz agrees. Everything is on loopback.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from tests.links import recording  # noqa: F401
from tests.stores import node, prefix, store, url  # noqa: F401

START_S = 15.0
STOP_S = 20.0


class Daemon:
    """One `chatd serve`. `arguments` as on the command line; `environ` on top of ours."""

    def __init__(self, directory: Path, *arguments: str, **environ: str) -> None:
        self.directory = directory
        self.arguments = arguments
        self.environ = {
            **{k: v for k, v in os.environ.items() if not k.startswith("CHATD_")},
            "XDG_STATE_HOME": str(directory / "state"),
            "CHATD_SERVER__DRAIN": "0.2s",
            **environ,
        }
        self.log: list[str] = []
        self.address = ""
        self._heard = threading.Condition()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "chatd", "serve", *arguments],
            env=self.environ,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._listen, daemon=True)
        self._reader.start()

    @property
    def url(self) -> str:
        return f"http://{self.address}"

    @property
    def ws(self) -> str:
        return f"ws://{self.address}"

    @property
    def sdk(self) -> str:
        return f"{self.ws}/connection/websocket"

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])

    def until_log(self, pattern: str, timeout: float = START_S) -> re.Match[str]:
        """Wait for a line of the log that matches."""
        deadline = time.monotonic() + timeout
        seen = 0
        with self._heard:
            while True:
                for line in self.log[seen:]:
                    if found := re.search(pattern, line):
                        return found
                seen = len(self.log)
                if self.process.poll() is not None and not self._reader.is_alive():
                    raise AssertionError(f"chatd ended with {self.process.returncode}:\n" + "\n".join(self.log))
                if not self._heard.wait(min(0.5, deadline - time.monotonic())) and time.monotonic() > deadline:
                    raise AssertionError(f"{pattern!r} not said within {timeout} s:\n" + "\n".join(self.log))

    def until_ready(self) -> Daemon:
        secure, self.address = self.until_log(r"chatd listens on http(s?)://(\S+?)/").groups()
        self.until_log(r'"ready"')
        assert secure or self.get("/readyz")[0] == 200
        return self

    def get(self, path: str, **headers: str) -> tuple[int, str]:
        """Status and body of a GET."""
        request = urllib.request.Request(self.url + path, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=10) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def cli(self, *arguments: str, check: int | None = 0, stdin: str | None = None) -> str:
        """What another chatd command, with the same configuration, prints on stdout."""
        config = [a for i, a in enumerate(self.arguments) if a == "--config" or self.arguments[i - 1] == "--config"]
        done = subprocess.run(
            [sys.executable, "-m", "chatd", *config, *arguments],
            env=self.environ,
            capture_output=True,
            text=True,
            timeout=30,
            input=stdin,
        )
        assert check is None or done.returncode == check, f"exit {done.returncode}: {done.stderr}{done.stdout}"
        return done.stdout

    def ask(self, *arguments: str) -> Any:
        """A command's answer with --json."""
        return json.loads(self.cli(*arguments, "--json"))

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def kill(self) -> None:
        """As a power cut would: no goodbye."""
        self.process.kill()
        self.process.wait(STOP_S)

    def stop(self) -> int:
        """SIGTERM, and wait; returns the exit code."""
        if self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(signal.SIGCONT)
            self.process.terminate()
        return self.process.wait(STOP_S)

    def close(self) -> None:
        """End the process whatever became of it."""
        try:
            self.stop()
        except subprocess.TimeoutExpired:
            self.kill()
            raise
        finally:
            self._reader.join(STOP_S)
            assert self.process.stderr is not None
            self.process.stderr.close()

    def _listen(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with self._heard:
                self.log.append(line.rstrip("\n"))
                self._heard.notify_all()
        with self._heard:
            self._heard.notify_all()


StartDaemon = Callable[..., AbstractContextManager[Daemon]]


@contextlib.contextmanager
def running(directory: Path, *arguments: str, **environ: str) -> Iterator[Daemon]:
    started = Daemon(directory, *arguments, **environ)
    try:
        yield started.until_ready()
    finally:
        started.close()


@pytest.fixture
def daemon() -> StartDaemon:
    """`with daemon(tmp_path, "--port", "0") as d:` is a chatd that is ready; the same directory shares its store."""
    return running
