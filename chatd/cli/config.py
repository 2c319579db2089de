"""`chatd config`: is the configuration right, what does it say, and how does one begin."""

from __future__ import annotations

import asyncio
import os
import re
import tomllib
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import click

from chatd.control import SCHEMA_VERSION
from chatd.names import printable
from chatd.settings import HEAD, TABLES, Settings, matches, options, origin, to_toml, warnings

from .common import fail, loaded, note, settings_file
from .output import json_option, print_json


@click.group(help="Check, show and begin the configuration.")
def config() -> None:
    pass


@config.command(help="Say whether chatd could run with this configuration, and what in it is unwise.")
@json_option
@click.pass_context
def check(context: click.Context, as_json: bool) -> None:
    from chatd.node import verifier  # 0.3 s that `show` and `init` need not wait for
    from chatd.store.connect import servers
    from chatd.web import tls

    settings = loaded(context)
    verifier(settings)
    if settings.redis.url:
        servers(settings.redis.url, settings.redis.timeout)
    tls.context(settings.tls)
    unwise = [*warnings(settings, os.environ), *unread(settings), *ending(settings), *vain_scopes(settings)]
    if as_json:
        print_json({"schema_version": SCHEMA_VERSION, "ok": True, "warnings": unwise})
    else:
        click.echo("ok")
        for sentence in unwise:
            note(f"warning: {sentence}")


def unread(settings: Settings) -> list[str]:
    """Which key sets cannot be read from their files. Those at an address are doctor's, as they want the network."""
    from chatd.node import verifier

    files = tuple(key for key in settings.auth.keys if key.jwks_file)
    return asyncio.run(verifier(replace(settings, auth=replace(settings.auth, keys=files))).read_key_sets())


def ending(settings: Settings) -> Iterator[str]:
    """Whether the certificate has ended, or soon will."""
    from chatd.cli.checks import certificate
    from chatd.web.tls import expires_at

    if settings.tls.certificate:
        judged = certificate(expires_at(settings.tls.certificate), datetime.now(UTC))
        if judged.remedy:
            yield f"{judged.finding}; {judged.remedy}"


def vain_scopes(settings: Settings) -> Iterator[str]:
    """Which scopes of API keys let nobody do anything, since no method is called so."""
    from chatd.api.desk import BATCH, METHODS

    for key in settings.api.keys:
        for scope in key.scopes:
            if not any(matches(scope, method) for method in (*METHODS, BATCH)):
                what = f'the scope "{printable(scope)}", which is no method\'s'
                yield f"key {printable(key.name)} of [[api.keys]] has {what}; see `chatd config reference`"


@config.command(help="Show every setting as it holds, secrets as ***.")
@click.option("--origin", "with_origin", is_flag=True, help="Say after each where it came from.")
@json_option
@click.pass_context
def show(context: click.Context, with_origin: bool, as_json: bool) -> None:
    settings = loaded(context)
    sources = origins(settings)
    if as_json:
        reply = {"schema_version": SCHEMA_VERSION, "settings": tomllib.loads(to_toml(settings))}
        print_json({**reply, "origin": sources} if with_origin else reply)
        return
    for name, line in named_lines(to_toml(settings)):
        click.echo(f"{line}  # {printable(sources[name])}" if with_origin and name else line)


@config.command(help="Write a configuration with every setting at its default and explained, to PATH or to stdout.")
@click.argument("path", required=False, type=click.Path(path_type=Path))
@click.pass_context
def init(context: click.Context, path: Path | None) -> None:
    if settings_file(context) is not None:
        raise click.UsageError("expected no --config, since nothing is read; say where to write as PATH")
    manual = HEAD + to_toml(Settings())
    if path is None:
        click.echo(manual, nl=False)
        return
    write_new(path, manual)
    note(f"wrote {path}; `chatd config check --config {path}` says whether it is right")


def origins(settings: Settings) -> dict[str, str]:
    """As settings.origin, with each key's settings by their number: auth.keys.0.secret."""
    keys = {
        f"{section}.{key}.{index}.{name}": row.where
        for (section, key), table in TABLES.items()
        for index, row in enumerate(getattr(getattr(settings, section), key))
        for name in options(table.kind)
    }
    return {**origin(settings), **keys}


def named_lines(toml: str) -> Iterator[tuple[str, str]]:
    """Each line that is not explanation, with the name of the setting it gives; "" for the head of a table."""
    table, numbers = "", Counter[str]()
    for line in toml.splitlines():
        if line.startswith("[["):
            name = line.strip("[]")
            table = f"{name}.{numbers[name]}"
            numbers[name] += 1
            yield "", f"\n{line}"
        elif line.startswith("["):
            table = line[1:-1]
            yield "", f"\n{line}" if table != "server" else line
        elif found := re.match(r"(\w+) = ", line):
            yield f"{table}.{found[1]}", line


def write_new(path: Path, text: str) -> None:
    """Make the file, for our eyes only: it will hold secrets. One that is there is left alone."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        fail(f"expected a new file to write to, got {path}, which exists; name another, or remove it")
    except OSError as error:
        fail(f"expected to write {path}, got: {error.strerror}; check the directory and who may write there")
    with os.fdopen(descriptor, "w") as file:
        file.write(text)


@config.command(help="Print the reference of what programs meet: methods, events, codes and hooks, as Markdown.")
def reference() -> None:
    from chatd.api.manual import text  # it knows all of chat

    click.echo(text(), nl=False)
