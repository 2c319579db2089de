"""`chatd doctor`: looks at everything that chatd stands on, and says of each whether it holds and how to mend it.

What is found is judged in checks.
"""

from __future__ import annotations

import asyncio
import errno
import json
import os
import resource
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path

import click

from chatd.control import SCHEMA_VERSION, Answers, Status
from chatd.node import verifier
from chatd.settings import Settings, SettingsError, host_and_port, numbered, unix_path, warnings
from chatd.store.errors import StoreError
from chatd.store.redis import Store
from chatd.web import tls
from chatd.web.sockets import bind, tidy

from .checks import (
    OWN_FILES,
    Check,
    State,
    certificate,
    certificate_shown,
    clocks,
    copies,
    eviction,
    installation,
    memory,
    nodes,
    open_files,
    persistence,
    proxy,
    refused,
    stranger,
    who_listens,
    writes,
)
from .cluster import office, opened, run
from .common import FAILED, NO_DAEMON, Failure, loaded
from .here import anybody, reachable
from .output import Column, Row, json_option, on_terminal, plural, print_json, print_rows

# Where the examples of this repository go on Debian.
PROXY_FILES = tuple(map(Path, ("/etc/nginx/conf.d/chatd.conf", "/etc/nginx/sites-enabled/chatd.conf")))
# Whoever answers /readyz on this machine does so at once or is stuck.
PATIENCE_S = 2.0


COLUMNS = (
    Column("state", "STATE"),
    Column("name", "CHECK"),
    Column("finding", "FINDING"),
    Column("remedy", "REMEDY"),
)


@click.command(help="Look for what is wrong with the configuration, this machine, the store and the nodes.")
@click.option(
    "--proxy",
    "proxy_file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The configuration of NGINX or HAProxy in front of chatd; else those that are where Debian has them.",
)
@json_option
@click.pass_context
def doctor(context: click.Context, proxy_file: Path | None, as_json: bool) -> None:
    checks = run(examined(context, proxy_file))
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


# --- finding ----------------------------------------------------------------------------------------------------------


async def examined(context: click.Context, proxy_file: Path | None) -> list[Check]:
    """All checks; without a configuration that can be read there is nothing else to look at."""
    try:
        settings = loaded(context)
        tokens = verifier(settings)
        tls.context(settings.tls)
    except (SettingsError, ValueError) as error:
        return [Check("configuration", State.FAIL, str(error), "mend it; `chatd config check` says when it is right")]
    unwise = [Check("configuration", State.WARN, sentence) for sentence in warnings(settings, os.environ)]
    right = Check("configuration", State.OK, f"is right; {settings.auth.effective_mode} mode")
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = settings.limits.connections + OWN_FILES if hard == resource.RLIM_INFINITY else hard
    of_store, answers = await store_checks(settings)
    return [
        right,
        *unwise,
        *[
            Check("key sets", State.FAIL, sentence, "see that the file or address can be read from here")
            for sentence in await tokens.read_key_sets()
        ],
        open_files(allowed, settings.limits.connections),
        installation(sys.prefix, Path("/run/systemd/system").is_dir()),
        *surroundings(settings, proxy_file),
        *await asyncio.to_thread(listeners, settings, answers),
        *of_store,
    ]


def surroundings(settings: Settings, proxy_file: Path | None) -> Iterator[Check]:
    """The certificate, and the proxies whose configuration was named or is where one expects it."""
    if settings.tls.certificate:
        yield certificate(tls.expires_at(settings.tls.certificate), datetime.now(UTC))
    for file in PROXY_FILES if proxy_file is None else (proxy_file,):
        try:
            yield proxy(str(file), file.read_text(errors="replace"), settings.heartbeat.interval)
        except OSError as error:
            if proxy_file is not None:
                remedy = "check the path and who may read it"
                yield Check("proxy", State.WARN, f"cannot read {file}: {error.strerror}", remedy)


def listeners(settings: Settings, answers: Answers | None) -> list[Check]:
    """Whether `chatd serve` could listen where it is to, or one does already. Blocks, for PATIENCE_S each at most.

    Args:
        answers: what the nodes of our store say; None: the store could not be asked.
    """
    server, admin = settings.server, settings.admin
    secure = bool(settings.tls.certificate)
    checks = [port("port", server.host, server.port, "server.host and server.port", answers, secure=secure)]
    if secure and (shown := shown_at(server.host, server.port)) is not None:
        checks.append(certificate_shown(tls.shown_until(shown), tls.expires_at(settings.tls.certificate)))
    for number in range(1, server.workers + 1) if admin.listen else ():
        name = "admin port" if number == 1 else f"admin port of worker {number}"
        checks.append(port(name, *host_and_port(numbered(admin.listen, number)), "admin.listen"))
    return checks


def port(
    name: str, host: str, number: int, setting: str, answers: Answers | None = None, *, secure: bool = False
) -> Check:
    """`answers`: of the nodes of which one should be there; None: whose chatd it is cannot be told."""
    address = host if unix_path(host) else f"[{host}]:{number}" if ":" in host else f"{host}:{number}"
    try:
        bind(host, number, 0o600).close()
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            reply = readiness(host, number, secure=secure)
            if reply is not None and answers is not None and not at_home(address, answers):
                return stranger(name, address, setting)
            return who_listens(name, address, reply)
        remedy = f"set {setting} to what this machine has and you may use"
        return Check(name, State.FAIL, f"cannot listen on {address}: {error.strerror}", remedy)
    tidy(address)
    free = number or unix_path(host)
    return Check(name, State.OK, f"{address} is free" if free else "a free one is taken at the start")


def at_home(address: str, answers: Answers) -> bool:
    """Whether a node of our store may be the one at `address`.

    Ports are compared, as a host has several names; and who did not answer in time may be anywhere.
    """
    ports = {str(answer["node"]["address"]).rpartition(":")[2] for answer in answers.by_node.values()}
    return bool(answers.missing) or address.rpartition(":")[2] in ports


def readiness(host: str, number: int, *, secure: bool) -> Mapping[str, object] | None:
    """What a chatd there says at /readyz; None: whoever is there is no chatd."""
    here = reachable(host)
    connection = HTTPConnection(here, number, timeout=PATIENCE_S)
    if secure:
        connection = HTTPSConnection(here, number, timeout=PATIENCE_S, context=anybody())
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


def shown_at(host: str, number: int) -> bytes | None:
    """The certificate that whoever listens there shows; None: nobody does, or shows none."""
    if unix_path(host) or not number:
        return None
    try:
        with (
            socket.create_connection((reachable(host), number), PATIENCE_S) as tcp,
            anybody().wrap_socket(tcp) as secure,
        ):
            return secure.getpeercert(binary_form=True)
    except OSError:
        return None


async def store_checks(settings: Settings) -> tuple[list[Check], Answers | None]:
    """What is found of the store, and what its nodes say; None: whether there are any cannot be told.

    What it says of itself comes first, for a full one does not pass on what is asked through it.
    """
    checks: list[Check] = []
    try:
        async with opened(settings) as store:
            checks += await asked_the_store(store, settings.redis.wait_replicas)
            answers = await office(store, settings).ask(Status())
            writable = all(check.state is not State.FAIL for check in checks if check.name in ("writes", "memory"))
            return [*checks, *nodes(answers, writable=writable)], answers
    except Failure as failure:  # the embedded store runs with the daemon, and none runs
        none_alive = Answers({}) if failure.code == NO_DAEMON else None
        return [Check("store", State.WARN, str(failure))], none_alive
    except StoreError as error:
        # It may have answered, and fail at what is asked through it.
        return [*checks, refused("store commands" if checks else "store", error)], None


async def asked_the_store(store: Store, replicas: int) -> list[Check]:
    facts = await store.facts()
    skew = await store.clock() - time.time()
    clients = plural(int(facts.get("connected_clients", 0)), "client")
    return [
        Check("store", State.OK, f"answers; {product(facts)}, {clients}"),
        writes(facts),
        *([copies(facts, replicas)] if replicas else []),
        persistence(facts),
        memory(facts),
        eviction(facts),
        clocks(skew),
    ]


def product(facts: Mapping[str, str]) -> str:
    if "valkey_version" in facts:
        return f"Valkey {facts['valkey_version']}"
    return f"Redis {facts.get('redis_version', 'of an unknown version')}"
