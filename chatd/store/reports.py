"""What users have reported, for operators to look at and close; oldest first."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import Any, Final

import orjson

from .keys import Keys
from .rooms import pairs
from .scripts import Batch

# Open reports beyond this push out the oldest: somebody who reports everything must not fill the store.
OPEN: Final = 10_000


@dataclass(frozen=True, slots=True)
class Report:
    """A message that somebody finds should not be there; what it says is in its room, and may be gone by now.

    Attributes:
        user: who said it; "" the server.
        by, at: who reports it, and when, in Unix seconds.
    """

    room: str
    offset: int
    user: str
    reason: str
    by: str
    at: float


class Reports:
    """The open reports."""

    def __init__(self, batch: Batch, keys: Keys) -> None:
        self._batch = batch
        self._keys = keys

    async def file(self, report: Report) -> str:
        """Its id."""
        id: bytes = await self._batch.command(
            "XADD", self._keys.reports, "MAXLEN", "~", OPEN, "*", "report", orjson.dumps(asdict(report))
        )
        return id.decode()

    async def open(self) -> dict[str, Report]:
        """All that are open, by id."""
        return _reports(await self._batch.command("XRANGE", self._keys.reports, "-", "+"))

    async def close(self, id: str) -> Report | None:
        """The report that is open no longer; None: it was not, or another has just closed it."""
        if not re.fullmatch(r"[0-9]{1,20}-[0-9]{1,20}", id):
            return None
        found = _reports(await self._batch.command("XRANGE", self._keys.reports, id, id))
        closed = await self._batch.command("XDEL", self._keys.reports, id) if found else 0
        return found.get(id) if closed else None

    async def forget(self, user: str) -> int:
        """Close what was reported by `user`, or about them; how many these were."""
        theirs = [id for id, report in (await self.open()).items() if user in (report.by, report.user)]
        return sum([await self.close(id) is not None for id in theirs])


def _reports(entries: list[tuple[bytes, Any]]) -> dict[str, Report]:
    return {id.decode(): Report(**orjson.loads(dict(pairs(fields))[b"report"])) for id, fields in entries}
