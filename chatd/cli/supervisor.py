"""The parent of several processes that serve as one: it starts, watches and ends them, and does nothing else.

DESIGN

Words. To its children the supervisor is what systemd is to it: they tell it by sd_notify(3) what they would tell
systemd, and it passes on what is true of all of them.

Beginning. The store's keeper first, then one worker, then the others: a mistake that all would make is made, and told,
once. Whatever ends before all have been ready ends the whole, with its exit code. After that a process that ends is
started again, with a pause that grows; one that says nothing for long is aborted, and writes down where it hung.

End. SIGTERM drains all workers, then ends the store. A second one kills, as it does a single node.

No asyncio, no threads: one loop around select(2). Who the children are, and what they are told, is workers.py's.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final

import structlog

from chatd.store.embedded import next_pause

from . import notify
from .common import FAILED, OK
from .output import plural

log = structlog.get_logger("chatd")

# The number of the process that keeps the embedded store; workers count from 1.
STORE: Final = 0
SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)
# A node says once a second that it turns. As in the units, for those who run without them.
SILENCE_S: Final = 20.0
TURN_S: Final = 1.0
# How soon after its pause a process is started.
PAUSE_TICK_S: Final = 0.1
# Were we held up for longer, as in a debugger, others may have spoken in vain meanwhile.
LATE_S: Final = 3.0


class Child:
    """One of the processes, over all its lives.

    Attributes:
        state: "absent", "starting", "ready", "reloading", "stopping" or "hanging".
        proven: it has been ready once; served: since its latest start.
        stale: the settings have changed since it was started, and it could not be told yet.
        since, heard, due: when it was started, last said something, and is to be started; monotonic seconds.
        pause: seconds, before its latest start.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.process: subprocess.Popen[bytes] | None = None
        self.state = "absent"
        self.proven = self.served = self.stale = False
        self.since = self.heard = self.due = self.pause = 0.0

    @property
    def name(self) -> str:
        return "store" if self.number == STORE else f"worker {self.number}"

    def begin(self, process: subprocess.Popen[bytes], now: float) -> None:
        self.process, self.state, self.served, self.stale = process, "starting", False, False
        self.since = self.heard = now

    def end(self) -> None:
        self.process, self.state = None, "absent"

    def hear(self, words: set[str], now: float) -> None:
        self.heard = now
        if "STOPPING=1" in words:
            self.state = "stopping"
        elif "RELOADING=1" in words:
            self.state = "reloading"
        elif "READY=1" in words:
            self.state, self.proven, self.served = "ready", True, True

    def hangs(self, now: float, silence_s: float) -> bool:
        """Whether it has said nothing for so long while at work; starting and stopping take their own time."""
        return self.state in ("ready", "reloading") and now - self.heard > silence_s

    def send(self, *numbers: int) -> None:
        if self.process is not None:
            for number in numbers:
                self.process.send_signal(number)


class Supervisor:
    """Keeps the processes of one `chatd serve`.

    Args:
        workers: how many.
        store: whether one more keeps the embedded store.
        start: starts the process of that number, with a NOTIFY_SOCKET to tell its news to.
        may_reload: whether the settings as they are now can be taken up; it says why not.
        on_ready: called once, when all are ready.
        address: for the status that systemd shows.
    """

    def __init__(
        self,
        workers: int,
        *,
        store: bool,
        start: Callable[[int, str], subprocess.Popen[bytes]],
        may_reload: Callable[[], bool],
        on_ready: Callable[[], None],
        address: str,
    ) -> None:
        self.workers = [Child(number) for number in range(1, workers + 1)]
        self.children = [Child(STORE), *self.workers] if store else self.workers
        # Each of them must have been ready before the next is started, and the last before all the others are.
        self.pilots = self.children[: 1 + store]
        self.ending = False
        self.code = OK
        self._start, self._may_reload, self._on_ready, self._address = start, may_reload, on_ready, address
        self._begun = self._told_ready = False
        self._turned = self._told_at = time.monotonic()
        self._told = ""
        self._silence_s = notify.watchdog_s(SILENCE_S)
        self._inbox = notify.Inbox()

    # --- the story ----------------------------------------------------------------------------------------------------

    def run(self) -> int:
        """Until we are told to stop, or cannot go on; the exit code. To be called in the main thread."""
        with arriving_signals() as signals:
            speaking: list[socket.socket | notify.Inbox] = [signals, self._inbox]
            self._tend(time.monotonic())
            while not self.ending or any(child.process for child in self.children):
                select.select(speaking, [], [], PAUSE_TICK_S if self._is_due() else TURN_S)
                now = time.monotonic()
                for number in numbers_in(signals):
                    self._obey(number)
                for process, words in self._inbox.read():
                    self._hear(process, words, now)
                self._reap(now)
                self._tend(now)
        return self.code

    def _is_due(self) -> bool:
        """Whether somebody waits to be started, within the pause."""
        return not self.ending and any(child.process is None for child in self.children)

    def _tend(self, now: float) -> None:
        """Do what the time, and how the processes are, asks for."""
        if self.ending:
            self._end_store()
            return
        for child in self.children:
            if child.process is None and child.due <= now and self._may_start(child):
                self._launch(child, now)
        self._look_for_the_silent(now)
        if all(child.state == "ready" for child in self.children) and not self._told_ready:
            self._all_ready()
        self._tell_systemd(now)

    def _may_start(self, child: Child) -> bool:
        before = self.pilots[: self.pilots.index(child)] if child in self.pilots else self.pilots
        return all(pilot.proven for pilot in before)

    def _launch(self, child: Child, now: float) -> None:
        try:
            process = self._start(child.number, self._inbox.address)
        except OSError as error:  # the machine has no process or no memory left
            child.since, child.served = now, False
            self._lost(child, FAILED, now, {"status": str(error)})
        else:
            child.begin(process, now)
            log.info("started", which=child.name, process=process.pid)

    def _all_ready(self) -> None:
        self._told_ready = True
        notify.tell("READY=1", self._status())
        if not self._begun:
            self._begun = True
            self._on_ready()

    # --- what comes ---------------------------------------------------------------------------------------------------

    def _obey(self, number: int) -> None:
        if number in (signal.SIGTERM, signal.SIGINT):
            if self.ending:  # who sends a second has no patience for a drain
                for worker in self.workers:
                    worker.send(signal.SIGKILL)
                os._exit(FAILED)
            self._end(OK)
        elif number == signal.SIGHUP and not self.ending:
            self._reload()

    def _hear(self, process: int, words: set[str], now: float) -> None:
        for child in self.children:
            if child.process is not None and child.process.pid == process:
                child.hear(words, now)
                if child.state == "ready" and child.stale:
                    self._reload_one(child)
                if self.ending and child.state == "stopping":
                    notify.tell(*notify.words("stopping", "", "", 0))

    def _reload(self) -> None:
        notify.reloading()
        self._told_ready = False
        if self._may_reload():
            for worker in self.workers:
                self._reload_one(worker)

    def _reload_one(self, worker: Child) -> None:
        """Until it is ready it may have read the old settings, and SIGHUP would end it."""
        worker.stale = worker.state == "starting"
        if worker.state in ("ready", "reloading"):
            worker.state = "reloading"
            worker.send(signal.SIGHUP)

    def _reap(self, now: float) -> None:
        for child in self.children:
            if child.process is not None and (status := child.process.poll()) is not None:
                said = {"process": child.process.pid, "status": status_of(status)}
                child.end()
                if self.ending:
                    self._judge_end(child, status, said)
                else:
                    self._lost(child, max(status, 0) or FAILED, now, said)

    def _lost(self, child: Child, code: int, now: float, said: Mapping[str, object]) -> None:
        """Start it again by and by, or end with `code` where that would help nobody."""
        if not self._begun or (not child.served and not any(worker.process for worker in self.workers)):
            log.error("not started; the others are ended", which=child.name, **said)
            self._end(code)
        else:
            child.pause = next_pause(child.pause, lived=now - child.since)
            child.due = now + child.pause
            log.error("ended, and is started again", which=child.name, **said, pause_s=child.pause)

    def _look_for_the_silent(self, now: float) -> None:
        late, self._turned = now - self._turned > LATE_S, now
        for child in self.children:
            if late:
                child.heard = now
            if child.hangs(now, self._silence_s):
                child.state = "hanging"
                log.error("hangs, and is aborted", which=child.name)
                child.send(signal.SIGABRT, signal.SIGCONT)  # it may have been stopped

    # --- the end ------------------------------------------------------------------------------------------------------

    def _end(self, code: int) -> None:
        self.ending, self.code = True, code
        notify.tell(*notify.words("stopping", "", "", 0))
        for worker in self.workers:
            worker.send(signal.SIGTERM, signal.SIGCONT)  # it may have been stopped

    def _end_store(self) -> None:
        if not any(worker.process for worker in self.workers):
            for keeper in self.children[: len(self.children) - len(self.workers)]:
                if keeper.state != "stopping":
                    keeper.state = "stopping"
                    keeper.send(signal.SIGTERM, signal.SIGCONT)

    def _judge_end(self, child: Child, status: int, said: Mapping[str, object]) -> None:
        """SIGTERM ends one that has not come to the point of draining as it ends any process."""
        if status != OK and (child.served or status != -signal.SIGTERM):
            log.error("did not end well", which=child.name, **said)
            self.code = self.code or FAILED

    # --- what systemd hears -------------------------------------------------------------------------------------------

    def _tell_systemd(self, now: float) -> None:
        """Once a second and at each change, while nobody hangs: one that was aborted and is there needs stronger hands.

        At each change, for within a second a worker may end and another be ready, and nobody would see that it was so.
        """
        status = self._status()
        due = status != self._told or now - self._told_at >= TURN_S
        if due and all(child.state != "hanging" for child in self.children):
            self._told, self._told_at = status, now
            notify.tell("WATCHDOG=1", status)

    def _status(self) -> str:
        ready = sum(worker.state == "ready" for worker in self.workers)
        return f"STATUS={ready} of {plural(len(self.workers), 'worker')} ready on {self._address}"


def status_of(status: int) -> str:
    """As Popen.returncode says it, for a person."""
    return signal.Signals(-status).name if status < 0 else f"exit code {status}"


@contextmanager
def arriving_signals() -> Iterator[socket.socket]:
    """A socket on which the number of each signal arrives, a byte each; they have no other effect."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        for end in (ours, theirs):
            end.setblocking(False)
        signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
        for number in SIGNALS:
            signal.signal(number, lambda *_: None)
        try:
            yield ours
        finally:
            signal.set_wakeup_fd(-1)


def numbers_in(signals: socket.socket) -> bytes:
    try:
        return signals.recv(4096)
    except BlockingIOError:
        return b""
