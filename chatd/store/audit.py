"""Administrative acts, as they were done: who, when, what. Nothing is ever changed in it; the oldest go first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import orjson

from .keys import Keys
from .rooms import pairs
from .scripts import Batch

# Acts kept. At a thousand a day, a quarter of a year.
AUDIT_LENGTH: Final = 100_000


class Act(NamedTuple):
    """One act. `id` is its place; `entry` says `at` (Unix seconds), `by`, `ask` (what was done) and the rest of it."""

    id: str
    entry: dict[str, Any]


class Audit:
    """The audit stream."""

    def __init__(self, batch: Batch, keys: Keys) -> None:
        self._batch = batch
        self._keys = keys

    async def write(self, entry: Mapping[str, object]) -> None:
        await self._batch.command(
            "XADD", self._keys.audit, "MAXLEN", "~", AUDIT_LENGTH, "*", "entry", orjson.dumps(entry)
        )

    async def read(self, after: str, limit: int) -> list[Act]:
        """The first `limit` acts behind the place `after`, oldest first; Unix ms are a place too, "" the beginning."""
        start = f"({after}" if after else "-"
        entries = await self._batch.command("XRANGE", self._keys.audit, start, "+", "COUNT", limit)
        return [Act(id.decode(), orjson.loads(dict(pairs(fields))[b"entry"])) for id, fields in entries]
