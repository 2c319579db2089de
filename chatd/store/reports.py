"""What users have reported, for operators to look at and close; oldest first."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import Any, Final

import orjson

from chatd import errors

from .keys import Keys
from .rooms import pairs
from .scripts import Batch, Script

REPORT = Script("report", lasting=True)

# Open reports beyond this push out the oldest: somebody who reports everything must not fill the store.
OPEN: Final = 10_000
# And he must not push out what others have reported, perhaps about him; nobody sees to so many of one user's in a day.
OPEN_OF_ONE: Final = 100


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

    async def file(self, report: Report, epoch: str) -> tuple[str, bool]:
        """Its id, and whether it was filed: who has one open on the same message keeps that (report.lua).

        Args:
            epoch: of the message's offset.
        Raises:
            Reject 415: its author has too many open.
        """
        about = orjson.dumps((report.by, report.room, report.offset, epoch))
        whose = b"[" + orjson.dumps(report.by) + b","
        keys = [self._keys.reports, self._keys.reported]
        args = (orjson.dumps(asdict(report)), about, whose, OPEN, OPEN_OF_ONE)
        id, filed = await self._batch.script(REPORT, keys, args)
        if filed < 0:
            raise errors.FULL.because(f"a user has at most {OPEN_OF_ONE} reports open; wait until some are seen to")
        return id.decode(), bool(filed)

    async def open(self) -> dict[str, Report]:
        """All that are open, by id."""
        return _reports(await self._batch.command("XRANGE", self._keys.reports, "-", "+"))

    async def close(self, id: str) -> Report | None:
        """The report that is open no longer; None: it was not, or another has just closed it."""
        if not re.fullmatch(r"[0-9]{1,20}-[0-9]{1,20}", id):
            return None
        entries = await self._batch.command("XRANGE", self._keys.reports, id, id)
        closed = await self._batch.command("XDEL", self._keys.reports, id) if entries else 0
        if not closed:
            return None
        [(known, fields)] = entries
        about = dict(pairs(fields)).get(b"about", b"")
        await self._batch.command("ZREM", self._keys.reported, about + b"\0" + known)
        return _reports(entries)[known.decode()]

    async def forget(self, user: str) -> int:
        """Close what was reported by `user`, or about them; how many these were."""
        theirs = [id for id, report in (await self.open()).items() if user in (report.by, report.user)]
        return sum([await self.close(id) is not None for id in theirs])


def _reports(entries: list[tuple[bytes, Any]]) -> dict[str, Report]:
    return {id.decode(): Report(**orjson.loads(dict(pairs(fields))[b"report"])) for id, fields in entries}
