"""Bans, mutes and the lockdown, as the store keeps them for nodes yet to come; what they mean is chatd.measures'."""

from __future__ import annotations

from typing import NamedTuple

import orjson

from chatd.measures import Lockdown, Measure, On, What

from .keys import Keys
from .scripts import Batch, Script

MEASURES = Script("measures")


class InForce(NamedTuple):
    """What the operators have put in force; `hits` counts, in the order of `rows`, whom each has refused."""

    rows: tuple[Measure, ...]
    hits: tuple[int, ...]
    lockdown: Lockdown


class Measures:
    """The list of measures."""

    def __init__(self, batch: Batch, keys: Keys) -> None:
        self._batch = batch
        self._keys = keys

    async def impose(self, measure: Measure) -> None:
        await self._batch.command("HSET", self._keys.measures, measure.id, orjson.dumps(measure))

    async def lift(self, id: str) -> bool:
        """Whether there was one."""
        lifted = await self._batch.command("HDEL", self._keys.measures, id)
        await self._batch.command("HDEL", self._keys.hits, id)
        return bool(lifted)

    async def set_lockdown(self, level: Lockdown) -> None:
        await self._batch.command("SET", self._keys.lockdown, int(level))

    async def hit(self, id: str) -> None:
        """Somebody was refused for it."""
        await self._batch.command("HINCRBY", self._keys.hits, id, 1)

    async def in_force(self) -> InForce:
        """All of it, without what has ended (measures.lua)."""
        keys = [self._keys.measures, self._keys.hits, self._keys.lockdown]
        level, *rest = await self._batch.script(MEASURES, keys)
        rows = tuple(_measure(row) for row in rest[::2])
        return InForce(rows, tuple(rest[1::2]), Lockdown(level))


def _measure(row: bytes) -> Measure:
    what, on, *rest = orjson.loads(row)
    return Measure(What(what), On(on), *rest)
