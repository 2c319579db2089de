"""Short tasks that nobody waits for while they run, and who owns them.

What a session has to do is one, for as long as something waits in it. A busy node begins thousands a second, so this
does less for each than an asyncio.TaskGroup would: a bug in one is logged and ends nobody else. What they do is not
known here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from types import TracebackType
from typing import Any

import structlog

log = structlog.get_logger("chatd")


class Errands:
    """The errands under way; true while there are any. Used with `async with`, which waits for the last of them."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def __bool__(self) -> bool:
        return bool(self._tasks)

    def begin(self, errand: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(errand, name="errand")
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("errand failed", exc_info=error)

    async def __aenter__(self) -> None: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        """Wait for all; after an error they are cancelled first."""
        while self._tasks:
            if error is not None:
                for task in self._tasks:
                    task.cancel()
            await asyncio.wait(self._tasks)
