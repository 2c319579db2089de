"""Emptying a node: those who are here are told to come back elsewhere, a few at a time.

All at once, their return would storm the other nodes. When a node empties itself, and that nobody new is let in
meanwhile, is node's business.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from math import ceil
from typing import Final

from .batched import batched
from .errors import SHUTDOWN
from .hub import Hub

# Goodbyes go out in steps of this length, and not fewer at a time than this.
STEP_S: Final = 0.1
AT_LEAST: Final = 20
# After the goodbyes, clients have this long to answer them, and the store to be told who has left. It is longer than
# transport.CLOSING_S, so that those who do not answer have been cut by then.
FAREWELL_S: Final = 7.0


def batch(count: int, over_s: float) -> int:
    """How many of `count` are told in each step, for all to be told after `over_s` seconds."""
    return max(AT_LEAST, ceil(count * STEP_S / max(over_s, STEP_S)))


async def say_goodbye(hub: Hub, over_s: float) -> None:
    """Tell everybody; who was still shaking hands when it began is told in the end."""
    while leaving := [session for session in hub.sessions() if session.open]:
        for some in batched(leaving, batch(len(leaving), over_s)):
            for session in some:
                session.close(SHUTDOWN)
            await asyncio.sleep(STEP_S)
        over_s = 0.0


async def farewell(hub: Hub, busy: Callable[[], bool], patience_s: float) -> None:
    """Wait until everybody has gone and nothing of theirs is left to do, but no longer than `patience_s`."""
    try:
        async with asyncio.timeout(patience_s):
            while hub.size or busy():
                await asyncio.sleep(0.01)
    except TimeoutError:
        return
