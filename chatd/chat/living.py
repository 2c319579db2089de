"""Which nodes answer just now; asked once for all who want to know it at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import Set as AbstractSet

from chatd.control import Alive
from chatd.store.redis import Store


class Living:
    """See the head of this file."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._asking = asyncio.Lock()
        self._begun = 0
        self._ended = 0
        self._answered: AbstractSet[str] = frozenset()

    async def nodes(self, patience: float) -> AbstractSet[str]:
        """The ids of those that answer, within `patience` seconds, a question that is put after this is called.

        Raises:
            StoreError.
        """
        before = self._begun
        async with self._asking:
            if self._ended <= before:
                self._begun += 1
                answers = await self._store.request(Alive(), patience=patience, by="")
                self._ended, self._answered = self._begun, answers.by_node.keys()
            return self._answered
