"""`chatd doctor`: looks at everything that chatd stands on, and says of each whether it holds and how to mend it.

Every judgement is a plain function of what was found; finding it is the second half of the file.
"""

from __future__ import annotations

import asyncio
import errno
import json
import resource
import socket
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from enum import StrEnum
from http.client import HTTPConnection, HTTPException
from typing import NamedTuple

import click

from chatd.control import SCHEMA_VERSION, Answers, Status
from chatd.node import verifier
from chatd.settings import Settings, SettingsError, host_and_port, unix_path, warnings
from chatd.store.errors import StoreError
from chatd.store.redis import Store
from chatd.web.sockets import bind, tidy

from .cluster import office, opened, run
from .common import FAILED, Failure, loaded
from .output import Column, Row, json_option, on_terminal, plural, print_json, print_rows

# Sockets and files of chatd's own: the listener, the store's connections, logs, the event loop.
OWN_FILES = 64
# Tokens are judged by a node's clock and messages dated by the store's: a second is what a person may notice in a
# message's time, and half a minute what makes fresh tokens "not valid yet".
SKEW_NOTICED_S = 1.0
SKEW_HARMFUL_S = 30.0
# Whoever answers /readyz on this machine does so at once or is stuck.
PATIENCE_S = 2.0


class State(StrEnum):
    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


class Check(NamedTuple):
    """One thing looked at, in one sentence; `remedy` is empty where there is nothing to mend."""

    name: str
    state: State
    finding: str
    remedy: str = ""


COLUMNS = (
    Column("state", "STATE"),
    Column("name", "CHECK"),
    Column("finding", "FINDING"),
    Column("remedy", "REMEDY"),
)


@click.command(help="Look for what is wrong with the configuration, this machine, the store and the nodes.")
@json_option
@click.pass_context
def doctor(context: click.Context, as_json: bool) -> None:
    checks = run(examined(context))
    healthy = all(check.state is not State.FAIL for check in checks)
    if as_json:
        rows = [check._asdict() for check in checks]
        print_json({"schema_version": SCHEMA_VERSION, "ok": healthy, "checks": rows})
    elif on_terminal():
        print_rows(COLUMNS[:3], beneath(checks))
    else:
        print_rows(COLUMNS, [check._asdict() for check in checks])
    if not healthy:
        context.exit(FAILED)


def beneath(checks: list[Check]) -> Iterator[Row]:
    """Rows for a terminal, where four columns of sentences are too many: each remedy under its finding."""
    for check in checks:
        yield check._asdict()
        if check.remedy:
            yield {"finding": f"-> {check.remedy}"}


# --- judging ----------------------------------------------------------------------------------------------------------


def open_files(allowed: int, connections: int) -> Check:
    """`allowed` is `ulimit -n`; a connection is an open file. `connections` as the setting: 0 for no limit."""
    wanted = connections + OWN_FILES
    finding = f"{allowed} open files allowed here, limits.connections wants {wanted}"
    if connections == 0 or allowed >= wanted:
        return Check("open files", State.OK, finding)
    remedy = f"`ulimit -n {wanted}` before `chatd serve`, LimitNOFILE={wanted} in the unit, or a lower limit"
    return Check("open files", State.WARN, finding, remedy)


def who_listens(name: str, address: str, readiness: Mapping[str, object] | None) -> Check:
    """`readiness` is what the one who holds the port says at /readyz; None: something that is no chatd."""
    if readiness is None:
        remedy = "end that program, or listen elsewhere"
        return Check(name, State.FAIL, f"{address} is held by another program", remedy)
    if not readiness["ready"]:
        return Check(name, State.WARN, f"chatd at {address} is not ready: {readiness['reason']}", "look at its log")
    return Check(name, State.OK, f"chatd answers at {address} and is ready")


def persistence(facts: Mapping[str, str]) -> Check:
    """Whether what the store acknowledged outlives it; `facts` as in its INFO."""
    if facts.get("aof_enabled") == "1":
        if facts.get("aof_last_write_status", "ok") != "ok":
            return Check("persistence", State.FAIL, "the store cannot write its append-only file", "look at its disk")
        return Check("persistence", State.OK, "the store writes an append-only file")
    if facts.get("rdb_last_bgsave_status", "ok") != "ok":
        return Check("persistence", State.FAIL, "the store's last snapshot failed", "look at its disk and its log")
    finding = "the store keeps snapshots at most: if it dies, acknowledged messages are lost"
    return Check("persistence", State.WARN, finding, "`appendonly yes` in the store's configuration")


def eviction(facts: Mapping[str, str]) -> Check:
    """Whether a store that is full throws away what chatd needs, or refuses, which chatd says to its clients."""
    policy = facts.get("maxmemory_policy", "noeviction")
    if facts.get("maxmemory", "0") == "0" or policy == "noeviction":
        return Check("eviction", State.OK, "the store throws nothing away when memory is short")
    finding = f"the store throws keys away when memory is short (maxmemory-policy {policy})"
    return Check("eviction", State.FAIL, finding, "`maxmemory-policy noeviction` in the store's configuration")


def clocks(skew_s: float) -> Check:
    """`skew_s` is how far the store's clock is ahead of ours."""
    finding = f"the store's clock and ours are {abs(skew_s):.2f} s apart"
    if abs(skew_s) < SKEW_NOTICED_S:
        return Check("clocks", State.OK, finding)
    state = State.WARN if abs(skew_s) < SKEW_HARMFUL_S else State.FAIL
    return Check("clocks", state, finding, "run NTP on both (`timedatectl set-ntp true`)")


def nodes(answers: Answers) -> Iterator[Check]:
    """Which nodes answer, and whether each hears the store."""
    if not answers.by_node and not answers.missing:
        yield Check("nodes", State.WARN, "no chatd is alive on this store", "`chatd serve`")
    for node in answers.missing:
        remedy = "look at its log; the cluster clears up after it when its lease ends"
        yield Check(f"node {node}", State.FAIL, "does not answer", remedy)
    for node, answer in sorted(answers.by_node.items()):
        feed = answer["node"]["store"]["feed"]
        if feed == "live":
            yield Check(f"node {node}", State.OK, "answers, and its feed from the store is live")
        else:
            yield Check(f"node {node}", State.WARN, f"answers, and says: {feed}", "look at its log")


# --- finding ----------------------------------------------------------------------------------------------------------


async def examined(context: click.Context) -> list[Check]:
    """All checks; without a configuration that can be read there is nothing else to look at."""
    try:
        settings = loaded(context)
        tokens = verifier(settings)
    except (SettingsError, ValueError) as error:
        return [Check("configuration", State.FAIL, str(error), "mend it; `chatd config check` says when it is right")]
    unwise = [Check("configuration", State.WARN, sentence) for sentence in warnings(settings)]
    right = Check("configuration", State.OK, f"is right; {settings.auth.effective_mode} mode")
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = settings.limits.connections + OWN_FILES if soft == resource.RLIM_INFINITY else soft
    return [
        right,
        *unwise,
        *[
            Check("key sets", State.FAIL, sentence, "see that the file or address can be read from here")
            for sentence in await tokens.read_key_sets()
        ],
        open_files(allowed, settings.limits.connections),
        *await asyncio.to_thread(listeners, settings),
        *[check async for check in store_checks(settings)],
    ]


def listeners(settings: Settings) -> list[Check]:
    """Whether `chatd serve` could listen where it is to, or one does already. Blocks, for PATIENCE_S each at most."""
    server, admin = settings.server, settings.admin
    checks = [port("port", server.host, server.port, "server.host and server.port")]
    if admin.listen:
        checks.append(port("admin port", *host_and_port(admin.listen), "admin.listen"))
    return checks


def port(name: str, host: str, number: int, setting: str) -> Check:
    address = host if unix_path(host) else f"[{host}]:{number}" if ":" in host else f"{host}:{number}"
    try:
        bind(host, number, 0o600).close()
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return who_listens(name, address, readiness(host, number))
        remedy = f"set {setting} to what this machine has and you may use"
        return Check(name, State.FAIL, f"cannot listen on {address}: {error.strerror}", remedy)
    tidy(address)
    free = number or unix_path(host)
    return Check(name, State.OK, f"{address} is free" if free else "a free one is taken at the start")


def readiness(host: str, number: int) -> Mapping[str, object] | None:
    """What a chatd there says at /readyz; None: whoever is there is no chatd."""
    anywhere = {"0.0.0.0": "127.0.0.1", "::": "::1"}
    connection = HTTPConnection(anywhere.get(host, host), number, timeout=PATIENCE_S)
    try:
        if path := unix_path(host):
            connection.sock = socket.socket(socket.AF_UNIX)
            connection.sock.settimeout(PATIENCE_S)
            connection.sock.connect(path)
        connection.request("GET", "/readyz")
        reply = json.loads(connection.getresponse().read(4096))
    except (OSError, HTTPException, ValueError):
        return None
    finally:
        connection.close()
    return reply if isinstance(reply, dict) and {"ready", "reason"} <= reply.keys() else None


async def store_checks(settings: Settings) -> AsyncIterator[Check]:
    try:
        async with opened(settings) as store:
            for check in await asked_the_store(store, settings):
                yield check
    except Failure as failure:  # the embedded store runs with the daemon, and none runs
        yield Check("store", State.WARN, str(failure))
    except StoreError as error:
        yield Check("store", State.FAIL, str(error), "start it, or set redis.url to where it is")


async def asked_the_store(store: Store, settings: Settings) -> list[Check]:
    facts = await store.facts()
    skew = await store.clock() - time.time()
    answers = await office(store, settings).ask(Status())
    return [
        Check(
            "store", State.OK, f"answers; {product(facts)}, {plural(int(facts.get('connected_clients', 0)), 'client')}"
        ),
        persistence(facts),
        eviction(facts),
        clocks(skew),
        *nodes(answers),
    ]


def product(facts: Mapping[str, str]) -> str:
    if "valkey_version" in facts:
        return f"Valkey {facts['valkey_version']}"
    return f"Redis {facts.get('redis_version', 'of an unknown version')}"
