"""The store, and through it the nodes: how a command that asks or acts reaches the cluster.

Whoever has the configuration can reach it, whichever node is stuck. Nothing is started here: a store that runs only
beside a daemon is not there when no daemon is.
"""

from __future__ import annotations

import asyncio
import getpass
import os
import signal
import socket
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar

from chatd import control
from chatd.control import Answers, Question
from chatd.office import Office
from chatd.settings import Settings
from chatd.store.embedded import Embedded
from chatd.store.redis import Store

from .common import NO_DAEMON, Failure, fail, note

T = TypeVar("T")


def run(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(work)


def until_interrupted(work: Coroutine[Any, Any, None]) -> None:
    """Run what goes on until SIGINT or SIGTERM ends it, which is no failure.

    Both are asked for, since a shell has SIGINT ignored in what it runs in the background.
    """
    asyncio.run(_watched(work))


async def _watched(work: Coroutine[Any, Any, None]) -> None:
    following = asyncio.ensure_future(work)
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, following.cancel)
    with suppress(asyncio.CancelledError):
        await following


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[Store]:
    """The configured store, connected.

    Raises:
        Failure: it is the embedded one, and no daemon runs that would keep it.
        StoreError: it does not answer, or is none we can use.
    """
    url = str(settings.redis.url) or embedded_url(settings)
    async with Store.of(settings.redis, url) as store:
        store.outbox.hooks = settings.hooks
        yield store


def embedded_url(settings: Settings) -> str:
    """Where the embedded store is.

    Raises:
        Failure: there is none, or we may not look.
    """
    embedded = Embedded.of(settings.redis, os.environ)
    try:
        embedded.socket.stat()
    except (FileNotFoundError, NotADirectoryError):
        raise Failure(
            f"no chatd runs on the state directory {embedded.directory}; start one with `chatd serve`, or name the "
            "configuration of one that runs with --config",
            NO_DAEMON,
        ) from None
    except OSError as error:
        raise Failure(
            f"expected to reach the store at {embedded.socket}, got: {error.strerror}; run this as the user that runs "
            "chatd"
        ) from None
    return embedded.url


def operator() -> str:
    """Who types, as login@host, for the audit stream; a login is believed, not proven."""
    try:
        login = getpass.getuser()
    except (KeyError, OSError):  # no name for this number, as in many containers
        login = str(os.getuid())
    return f"{login}@{socket.gethostname()}"


def office(store: Store, settings: Settings) -> Office:
    """Where whoever types this acts."""
    return Office(store, patience=settings.cluster.answer, by=operator())


async def ask(store: Store, settings: Settings, question: Question) -> Answers:
    """Put `question` to every node alive.

    Raises:
        Failure: there is none.
    """
    return somebody(await office(store, settings).ask(question))


def somebody(answers: Answers) -> Answers:
    """The answers, if anybody could give one.

    Raises:
        Failure: no node is alive.
    """
    if not answers.by_node and not answers.missing:
        raise Failure(
            "the store answers, but no chatd is alive on it; start one with `chatd serve`, or, if one runs, see "
            "`chatd doctor`",
            NO_DAEMON,
        )
    return answers


def see_nobody(answers: Answers) -> None:
    """Where no node is alive, what was written down waits for one: that is no failure, and is said."""
    if not answers.by_node and not answers.missing:
        note("no chatd is alive on this store; it holds for each that comes")


def asked(settings: Settings, question: Question) -> Answers:
    """One question on a connection of its own, from outside of a loop."""

    async def asking() -> Answers:
        async with opened(settings) as store:
            return await ask(store, settings, question)

    return run(asking())


async def living(store: Store) -> list[tuple[str, str]]:
    """(user, node id) of every connection that the registry holds on nodes alive."""
    leases = await store.nodes()
    return [(entry.user, control.node_of(entry.lease)) for entry in await store.registered() if entry.lease in leases]


def own_up(answers: Answers) -> None:
    """When not all nodes answered, say so and fail: what was printed is not the whole truth."""
    if answers.missing:
        fail(silence(answers))


def silence(answers: Answers) -> str:
    count = len(answers.missing)
    nodes = f"node {answers.missing[0]}" if count == 1 else f"{count} nodes, {', '.join(answers.missing)},"
    return f"{nodes} did not answer in time; what is shown is without {'it' if count == 1 else 'them'}"
