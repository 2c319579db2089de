"""What an HTTP answer is that does not end: a Link whose frames are chunks, for clients that get no WebSocket through.

What such a client says comes by other requests; on this connection it can only hang up.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from chatd.errors import Disconnect

from .link import Closing, Link, LinkRules, Receiver


class Stream(Link):
    """One answer, under way.

    Args:
        farewell: the last chunks, which say goodbye.
    """

    __slots__ = ("_farewell",)

    def __init__(
        self,
        transport: asyncio.Transport,
        receiver: Receiver,
        rules: LinkRules,
        closing: Closing,
        farewell: Callable[[Disconnect], bytes],
    ) -> None:
        super().__init__(transport, receiver, rules, closing, deflates=False)
        self._parser = None  # what still comes here is thrown away
        self._farewell = farewell

    def close(self, goodbye: Disconnect) -> None:
        """End the answer once, after all that waits; a client that does not read it is cut after a while."""
        if self._goodbye is None:
            self._begin_end(goodbye, self._farewell(goodbye))
            self._transport.close()

    def pause_reading(self) -> None:
        """Nothing: what a client says does not come here, and that it hangs up is to be noticed."""
