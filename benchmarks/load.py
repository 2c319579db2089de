"""The load's commands as methods; see load.c for what each does.

An Answer has what was counted. One in which a delivery is missing, came twice or out of order is never returned.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from os import sched_setaffinity
from typing import Any

from .programs import program


class Faulty(Exception):
    """What was measured did not do what it should: no figure can come of it."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the load counted during one command; times of delivery in milliseconds."""

    seconds: float
    ready: int
    failed: int
    closed: int
    closed_3008: int
    messages: int
    expected: int
    delivered: int
    lost: int
    disordered: int
    refused: int
    under_way: int
    replies: int
    recovered: int
    unrecovered: int
    pings: int
    p50_ms: float
    p99_ms: float
    p999_ms: float
    max_ms: float
    offset: int
    epoch: str
    cpu_s: float
    complaint: str

    def or_faulty(self) -> Answer:
        if self.lost or self.disordered or self.refused or self.failed or self.under_way:
            raise Faulty(f"not all arrived in order: {self}")
        return self


class Load:
    """One load process. Its clients live until `close`, or until it ends."""

    def __init__(self, core: int) -> None:
        self._process = subprocess.Popen(
            [program("load")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            preexec_fn=lambda: sched_setaffinity(0, {core}),
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    def tell(self, command: str, **arguments: object) -> None:
        assert self._process.stdin is not None
        words = (f"{name}={value}" for name, value in arguments.items() if value is not None)
        self._process.stdin.write((" ".join([command, *words]) + "\n").encode())
        self._process.stdin.flush()

    def hear(self) -> Answer:
        return Answer(**self._line())

    def ask(self, command: str, **arguments: object) -> Answer:
        self.tell(command, **arguments)
        return self.hear().or_faulty()

    def open(self, at_once: int = 64) -> Answer:
        """Connect everybody; returns when all are in."""
        return self.ask("open", at_once=at_once)

    def begin(self, **arguments: object) -> None:
        """Begin a `run`, which `hear` ends."""
        self.tell("run", **arguments)
        self._line()
        self.tell("go")

    def run(self, reading: Callable[[], Any] = lambda: None, **arguments: object) -> tuple[Answer, Any, Any]:
        """Publish and wait for everything to arrive; with what `reading` gave just before and just after."""
        self.tell("run", **arguments)
        self._line()
        before = reading()
        self.tell("go")
        answer = self.hear()
        after = reading()
        answer.or_faulty()
        if answer.delivered != answer.expected:
            raise Faulty(f"{answer.delivered} deliveries where there should be {answer.expected}")
        return answer, before, after

    def end(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.kill()
        self._process.wait()
        self._process.stdin.close()
        self._process.stdout.close()

    def _line(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise Faulty(f"the load ended with {self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer


@contextmanager
def loading(core: int) -> Iterator[Load]:
    load = Load(core)
    try:
        yield load
    finally:
        load.end()
