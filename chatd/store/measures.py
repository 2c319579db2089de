"""Bans, mutes and the lockdown, as the store keeps them for nodes yet to come; what they mean is chatd.measures'."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Final, NamedTuple

import orjson

from chatd.measures import Lockdown, Measure, On, What

from .keys import Keys
from .scripts import Batch, Script

MEASURES, DECREE = Script("measures"), Script("decree", lasting=True)

# The lockdown's field among the measures, whose ids all have a NUL in them.
LOCKDOWN: Final = "lockdown"


class InForce(NamedTuple):
    """What the operators have put in force; `hits` counts, in the order of `rows`, whom each has refused."""

    rows: tuple[Measure, ...]
    hits: tuple[int, ...]
    lockdown: Lockdown
    version: int


class Measures:
    """The list of measures. Each change has a number: 1, 2, 3 …, in the order in which they came into force."""

    def __init__(self, batch: Batch, keys: Keys) -> None:
        self._batch = batch
        self._keys = keys

    async def impose(self, measure: Measure) -> int:
        """The number of this change."""
        version, _ = await self._decree(measure.id, orjson.dumps(tuple(measure)))
        return version

    async def lift(self, id: str) -> tuple[int, bool]:
        """The number of this change, and whether there was one; if not, the number of the latest change."""
        return await self._decree(id, b"")

    async def set_lockdown(self, level: Lockdown) -> int:
        """The number of this change."""
        version, _ = await self._decree(LOCKDOWN, str(int(level)).encode())
        return version

    async def _decree(self, field: str, value: bytes) -> tuple[int, bool]:
        version, before = await self._batch.script(DECREE, self._all_keys(), (field, value))
        return version, bool(before)

    async def count(self, hits: Mapping[str, int]) -> None:
        """Add to how often each measure, by id, has refused somebody."""
        await asyncio.gather(
            *(self._batch.command("HINCRBY", self._keys.hits, id, times) for id, times in hits.items())
        )

    async def version(self) -> int:
        """The number of the latest change; 0: there was none."""
        return int(await self._batch.command("GET", self._keys.measured) or 0)

    async def in_force(self) -> InForce:
        """All of it, without what has ended (measures.lua)."""
        version, level, *rest = await self._batch.script(MEASURES, self._all_keys(), (LOCKDOWN,))
        rows = tuple(_measure(row) for row in rest[::2])
        return InForce(rows, tuple(rest[1::2]), Lockdown(level), version)

    def _all_keys(self) -> list[str]:
        return [self._keys.measures, self._keys.hits, self._keys.measured]


def _measure(row: bytes) -> Measure:
    what, on, *rest = orjson.loads(row)
    return Measure(What(what), On(on), *rest)
