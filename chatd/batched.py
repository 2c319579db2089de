"""`itertools.batched` as Python has it from 3.12 on, but of slices. What is done with them is not known here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")


def batched(items: Sequence[T], n: int) -> Iterator[Sequence[T]]:
    """`items` in their order, `n` at a time; the last may be fewer."""
    for start in range(0, len(items), n):
        yield items[start : start + n]
