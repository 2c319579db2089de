"""Where values come from: the file, systemd's credentials, the environment, flags; the later the stronger."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from .complaints import complaints
from .declaring import SettingsError, options
from .judging import Given, dotted, judged, judged_table, type_name, unknown
from .keys import Key
from .rooms import RoomRules, Rooms
from .secrets import TABLES, read_bytes_of, unreadable, with_hook_secret, with_material
from .tree import SECTIONS, Settings

DEFAULT_FILE = Path("/etc/chatd/chatd.toml")


NO_FLAGS: Mapping[str, object] = MappingProxyType({})


def load(file: Path | None, environ: Mapping[str, str], flags: Mapping[str, object] = NO_FLAGS) -> Settings:
    """Return what file, credentials, environment and flags say together, judged; read afresh at every call.

    Args:
        file: what --config named; None: what CHATD_CONFIG names, else /etc/chatd/chatd.toml if there is one.
        environ: as in `os.environ`.
        flags: from "section.key" to a value or its text; None: the flag was not given.
    Raises:
        SettingsError: something is unknown, wrong, missing or unreadable; the first thing found.
    """
    source = _read_source(file, environ)
    values: dict[str, dict[str, Any]] = {section: {} for section in SECTIONS}
    sources: dict[str, str] = {}
    for given in (*_in_file(source), *_in_credentials(environ), *_in_environment(environ), *_in_flags(flags)):
        if given.section not in SECTIONS:
            raise unknown(f"{given.section}.{given.key}", given.where)
        values[given.section][given.key] = judged(SECTIONS[given.section], given.section, given)
        sources[f"{given.section}.{given.key}"] = given.where
    given_tables = {(section, key): tuple(_tables_in_file(source, section, key)) for section, key in TABLES}
    given_tables["auth", "keys"] += tuple(_keys_in_credentials(environ))
    for (section, key), rows in given_tables.items():
        if rows:
            values[section][key] = rows
            sources[f"{section}.{key}"] = ", ".join(row.where for row in rows)
    rooms = _rooms_in_file(source, sources)
    sections = {name: section(**values[name]) for name, section in SECTIONS.items()}
    sections["hooks"] = with_hook_secret(sections["hooks"], sources.get("hooks.secret_file", ""))
    settings = Settings(**sections, rooms=rooms, sources=sources)
    for key, complaint in complaints(settings):
        raise SettingsError(f"{sources.get(key, key)}: {complaint}")
    return settings


@dataclass(frozen=True, slots=True)
class _Source:
    """The file. `lines` has the line of each table and key, by path: ("server", "port"), ("auth", "keys", "0")."""

    path: Path
    document: Mapping[str, Any] = field(default_factory=dict)
    lines: Mapping[tuple[str, ...], int] = field(default_factory=dict)

    def where(self, *path: str) -> str:
        """The file and the line of `path`, or of the nearest table around it whose line is known."""
        around = (path[:length] for length in range(len(path), 0, -1))
        known = next((each for each in around if each in self.lines), None)
        return str(self.path) if known is None else f"{self.path}:{self.lines[known]}"

    def table(self, *path: str) -> Mapping[str, Any]:
        """The table at `path`; empty when there is none."""
        table: Mapping[str, Any] = self.document
        for part in path:
            inner = table.get(part, {})
            if not isinstance(inner, dict):
                raise SettingsError(f"{self.where(*path)}: expected a table [{dotted(*path)}], got {type_name(inner)}")
            table = inner
        return table


def _read_source(file: Path | None, environ: Mapping[str, str]) -> _Source:
    named = file or (Path(environ["CHATD_CONFIG"]) if environ.get("CHATD_CONFIG") else None)
    path = named or DEFAULT_FILE
    try:
        text = path.read_text("utf-8")
        return _Source(path, tomllib.loads(text), _lines(text))
    except OSError as error:
        if named is None and isinstance(error, FileNotFoundError):
            return _Source(path)
        raise SettingsError(unreadable("the configuration", path, error)) from None
    except ValueError as error:
        # Not TOML, or not UTF-8. The text of either names a place, and at most one character.
        raise SettingsError(f"{path}: expected TOML, got something else: {error}") from None


def _lines(text: str) -> dict[tuple[str, ...], int]:
    """Where each table and key stands.

    Looks at lines one by one, so a line within a multi-line value that looks like a key counts as one; such a line can
    only be named wrongly in a message.
    """
    lines: dict[tuple[str, ...], int] = {}
    table: tuple[str, ...] = ()
    for number, line in enumerate(map(str.strip, text.split("\n")), start=1):
        if line.startswith("["):
            table = _key_path(line)
            if line.startswith("[["):
                lines.setdefault(table, number)
                table = (*table, str(sum(1 for each in lines if each[:-1] == table)))
            lines.setdefault(table, number)
        elif "=" in line and not line.startswith("#"):
            lines.setdefault((*table, *_key_path(line.partition("=")[0] + "= 0")), number)
    return lines


def _key_path(line: str) -> tuple[str, ...]:
    """The path that one line of TOML alone opens or sets; () when it does not stand alone."""
    try:
        value: Any = tomllib.loads(line)
    except ValueError:
        return ()
    path = []
    while isinstance(value, dict | list) and value:
        if isinstance(value, list):
            value = value[0]
            continue
        [(key, value)] = value.items()
        path.append(key)
    return tuple(path)


def _in_file(source: _Source) -> Iterator[Given]:
    for section in source.document:
        if section == "rooms":
            continue
        if section not in SECTIONS:
            raise unknown(section, source.where(section))
        for key, value in source.table(section).items():
            if (section, key) not in TABLES:
                yield Given(section, key, _placed(source, section, key, value), source.where(section, key))


def _placed(source: _Source, section: str, key: str, value: object) -> object:
    """The value, or where it is a path the path from where we are."""
    setting = options(SECTIONS[section]).get(key)
    is_path = setting is not None and setting.type == "File" and isinstance(value, str) and value
    return str(source.path.parent / str(value)) if is_path else value


def _tables_in_file(source: _Source, section: str, key: str) -> Iterator[Any]:
    table, rows = TABLES[section, key], source.table(section).get(key, [])
    name = f"{section}.{key}"
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise SettingsError(f"{source.where(section, key)}: expected [[{name}]] tables, got {type_name(rows)}")
    for index, row in enumerate(rows):
        where = partial(source.where, section, key, str(index))
        declared = table.kind(**judged_table(table.kind, name, row, where), where=where())
        yield table.complete(declared, source.path.parent)


def _rooms_in_file(source: _Source, sources: dict[str, str]) -> Rooms:
    """The patterns, judged; `sources` is told where each value stands."""
    overrides = {}
    for pattern in source.table("rooms"):
        title = dotted("rooms", pattern)
        where = partial(source.where, "rooms", pattern)
        overrides[pattern] = judged_table(RoomRules, title, source.table("rooms", pattern), where)
        sources.update({f"{title}.{key}": where(key) for key in overrides[pattern]})
        if file := overrides[pattern].get("words_file"):
            listed = read_bytes_of("words_file", source.path.parent / file, where("words_file")).decode(
                errors="replace"
            )
            overrides[pattern]["words"] = (*overrides[pattern].get("words", ()), *listed.splitlines())
    return Rooms(overrides)


def _in_credentials(environ: Mapping[str, str]) -> Iterator[Given]:
    for path in _credential(environ, "chatd.redis-url"):
        yield Given("redis", "url", read_bytes_of("redis.url", path, str(path)).decode(errors="replace"), str(path))

    for name in ("certificate", "key"):
        for path in _credential(environ, f"chatd.tls-{name}"):
            yield Given("tls", name, str(path), str(path))


def _keys_in_credentials(environ: Mapping[str, str]) -> Iterator[Key]:
    for path in _credential(environ, "chatd.jwt-secret"):
        key = Key(kid="credential", algorithm="HS256", secret_file=str(path), where=str(path))
        yield with_material(key, path.parent)


def _credential(environ: Mapping[str, str], name: str) -> list[Path]:
    """The file of a systemd credential (systemd.exec, LoadCredential=), if it was passed."""
    path = Path(environ.get("CREDENTIALS_DIRECTORY", ""), name)
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError:  # there may be one: whoever reads it says why it cannot be read
        pass
    return [path] if environ.get("CREDENTIALS_DIRECTORY") else []


def _in_environment(environ: Mapping[str, str]) -> Iterator[Given]:
    # Variables without a double underscore are not ours: beside a service named chatd, Kubernetes sets CHATD_PORT and
    # CHATD_SERVICE_HOST.
    for name, text in environ.items():
        section, double, key = name.removeprefix("CHATD_").partition("__")
        if name.startswith("CHATD_") and double:
            yield Given(section.lower(), key.lower(), text, name, is_text=True)


def _in_flags(flags: Mapping[str, object]) -> Iterator[Given]:
    for name, value in flags.items():
        section, _, key = name.partition(".")
        if value is not None:
            yield Given(section, key, value, "--" + key.replace("_", "-"), is_text=isinstance(value, str))
