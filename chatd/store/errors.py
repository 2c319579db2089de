"""What can go wrong with the store, in chatd's words: nobody outside this folder sees an exception of redis-py."""

from __future__ import annotations


class StoreError(Exception):
    """The store could not do what was asked; the text is one sentence for an operator."""


class StoreUnavailable(StoreError):
    """The store did not answer. Whether it did what was asked is not known."""


class StoreMisconfigured(StoreError):
    """The store cannot be used as it is set up; trying again will not help."""
