"""Errands: a bug in one hurts nobody else, and none is left behind."""

from __future__ import annotations

import asyncio

import pytest
from structlog.testing import capture_logs

from chatd.errands import Errands


async def test_a_bug_in_one_is_logged_and_the_others_are_done() -> None:
    done = list[str]()

    async def buggy() -> None:
        raise ZeroDivisionError

    async def well() -> None:
        await asyncio.sleep(0)
        done.append("well")

    with capture_logs() as logged:
        async with (errands := Errands()):
            errands.begin(buggy())
            errands.begin(well())
            assert errands
    assert done == ["well"]
    assert [(entry["event"], type(entry["exc_info"])) for entry in logged] == [("errand failed", ZeroDivisionError)]
    assert not errands


async def test_the_last_is_waited_for_though_it_began_meanwhile() -> None:
    done = list[str]()

    async def last() -> None:
        await asyncio.sleep(0)
        done.append("last")

    async def first() -> None:
        await asyncio.sleep(0)
        errands.begin(last())
        done.append("first")

    async with (errands := Errands()):
        errands.begin(first())
    assert done == ["first", "last"]


async def test_after_an_error_they_are_cancelled() -> None:
    ends = list[str]()

    async def endless() -> None:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            ends.append("cancelled")

    with pytest.raises(ZeroDivisionError):
        async with (errands := Errands()):
            errands.begin(endless())
            await asyncio.sleep(0)
            raise ZeroDivisionError
    assert ends == ["cancelled"]
    assert not errands
