"""What can go wrong with the store, in chatd's words: nobody outside this folder sees an exception of redis-py."""

from __future__ import annotations

import os
import re

from redis.asyncio.sentinel import MasterNotFoundError
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    ClusterDownError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    ResponseError,
    TryAgainError,
)


class StoreError(Exception):
    """The store could not do what was asked; the text is one sentence for an operator."""


class StoreUnavailable(StoreError):
    """The store did not answer. Whether it did what was asked is not known."""


class StoreFull(StoreError):
    """The store has no room left, and did not do what was asked."""


class StoreMisconfigured(StoreError):
    """The store cannot be used as it is set up; trying again will not help."""


def translated(error: BaseException) -> StoreError:
    """redis-py's error as ours; one of ours as it is."""
    if isinstance(error, StoreError):
        return error
    text = _plain(error)
    if isinstance(error, OutOfMemoryError):
        return StoreFull("the store has no memory left to write to; raise its maxmemory, or have rooms keep less")
    if text.startswith("MISCONF "):
        why = text.removeprefix("MISCONF ").partition(". ")[0]  # its own advice follows
        return StoreFull(f"the store cannot write to its disk: {why}")
    if isinstance(error, NoPermissionError):
        return StoreMisconfigured(f"the store does not let the user in redis.url do what chatd needs: {text}")
    if isinstance(error, AuthenticationError | AuthorizationError):
        return StoreMisconfigured(f"the store does not accept the user or password in redis.url: {text}")
    for words, sentence in _MISCONFIGURED.items():
        if words in text:
            return StoreMisconfigured(sentence)
    # A replica after a failover, a master without replicas, or half a cluster answers, but not usefully.
    if isinstance(error, ClusterDownError | ReadOnlyError | TryAgainError) or text.startswith(("BUSY ", "NOREPLICAS ")):
        return StoreUnavailable(f"the store is not ready: {text}")
    if isinstance(error, ResponseError):
        return StoreError(f"the store refused: {text}")
    if isinstance(error, MasterNotFoundError):  # its text lists the insides of every client
        return StoreUnavailable("no Sentinel knows a master of the service that redis.url names; see that they run")
    return StoreUnavailable(f"the store does not answer: {text or type(error).__name__}")


_MISCONFIGURED = {
    "Cluster mode is not enabled": "redis.url begins with redis+cluster://, and the server is none of a cluster; write "
    "redis://",
    "DB index is out of range": "redis.url ends with the number of a database that the store does not have; write /0",
}


def _plain(error: BaseException) -> str:
    """What it says, without numbers of errors and digests of scripts."""
    text = str(error).partition(" script: ")[0]
    if found := re.match(r"Error (-?\d+) connecting to (\S+)\. (.*)", text):
        number, address, why = found.groups()
        return f"{os.strerror(int(number)) if int(number) > 0 else why.rstrip('.')} at {address}"
    return text
