"""The house keeps its plan: which room may import what, read from the source and not from what happens to be loaded.

Imports inside functions count as well, but for cycles: there they are how a command loads only what it needs.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import chatd

HOUSE = Path(chatd.__file__).parent
FILES = sorted(HOUSE.rglob("*.py"))
SCRIPTS = sorted(HOUSE.rglob("*.lua"))

# Third parties that a room may import, by the first part of a module's name; what is not listed may import none.
OUTSIDE = {
    "frames": {"websockets"},  # masking in C, a function of bytes
    "wire": {"orjson", "msgspec", "google"},  # google.protobuf
    "auth": {"jwt", "cryptography"},
    "store": {"redis", "hiredis", "orjson", "structlog"},
    "hub": {"structlog"},
    "chat": {"structlog"},
    "hooks": {"structlog", "orjson", "httpcore"},
    "api": {"structlog", "msgspec"},  # schemas of dataclasses
    "reaper": {"structlog"},
    "sweep": {"structlog"},
    "node": {"structlog"},
    "membership": {"structlog"},
    "errands": {"structlog"},
    "telemetry": {"structlog", "prometheus_client"},
    "transport": {"uvicorn", "httptools", "websockets", "structlog"},
    "web": {"uvicorn", "starlette", "structlog", "cryptography"},  # when a certificate ends
    "cli": {"click", "rich", "structlog", "uvloop", "orjson", "websockets"},  # for `chatd chat`
}

# Those that decide: no clock, no event loop, nothing to wait for.
PURE = {"model", "events", "errors", "cast", "room", "frames", "rules", "control", "names", "measures", "words"}
WAITING = {"asyncio", "time", "socket", "threading", "selectors", "subprocess"}

# Arrows that are missing on purpose: room -> rooms of ours that it must not know.
MISSING = {
    "model": {"*"},
    "errors": {"*"},
    "events": {"*"},
    "methods": {"*"},
    "settings": {"*"},
    "journal": {"*"},
    "names": {"store", "hub", "session", "transport", "web", "cli", "node", "chat", "settings"},
    "frames": {"store", "hub", "session", "transport", "web", "cli", "node", "wire"},
    "wire": {"store", "hub", "session", "transport", "web", "cli", "node", "chat"},
    "auth": {"store", "hub", "session", "transport", "web", "cli", "node", "chat"},
    "rules": {"store", "hub", "session", "transport", "web", "cli", "node", "chat"},
    "control": {"store", "hub", "session", "transport", "web", "cli", "node", "chat"},
    "measures": {"store", "hub", "session", "transport", "web", "cli", "node", "chat"},
    "words": {"store", "hub", "session", "transport", "web", "cli", "node", "chat", "settings"},
    "office": {"hub", "session", "transport", "web", "cli", "node", "chat"},
    "steward": {"hub", "session", "transport", "web", "cli", "node", "chat"},
    "session": {"transport", "store", "hub", "web", "cli", "node", "chat"},
    "cast": {"transport", "store", "hub", "web", "cli", "node", "chat"},
    "room": {"transport", "store", "hub", "web", "cli", "node", "chat", "cast"},
    "outlets": {"*"},
    "errands": {"*"},
    "batched": {"*"},
    "basic": {"*"},
    "hub": {"transport", "store", "web", "cli", "node", "chat"},
    "store": {"hub", "session", "transport", "web", "cli", "node", "chat"},
    "chat": {"transport", "web", "cli", "node"},
    "reaper": {"transport", "web", "cli", "node"},
    "respond": {"transport", "web", "cli", "node"},
    "membership": {"transport", "web", "cli", "node"},
    "telemetry": {"store", "hub", "session", "transport", "web", "cli", "node", "chat"},
    "drain": {"store", "transport", "web", "cli", "node", "chat"},
    "sweep": {"hub", "session", "transport", "web", "cli", "node", "chat"},
    "hooks": {"hub", "session", "transport", "web", "cli", "node", "chat"},
    "api": {"transport", "web", "cli", "node", "respond"},
    "transport": {"store", "hub", "cli", "node", "chat"},
    "node": {"cli", "transport"},
    "web": {"cli"},
}


def module_of(file: Path) -> str:
    parts = file.relative_to(HOUSE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room_of(module: str) -> str:
    """`chatd.store.feed` is in room `store`; `chatd` itself is the porch."""
    return module.split(".")[1] if "." in module else "porch"


MODULES = {module_of(file): file for file in FILES}


def drawn(folder: Path) -> str:
    """The lines of a folder's docstring that say of names what they are; "" where it has no map."""
    doc = ast.get_docstring(ast.parse((folder / "__init__.py").read_text())) or ""
    return "\n".join(re.findall(r"^ *\w+(?:, \w+)* {2,}\S.*", doc, re.M))


# What the commands share is told in words; of a command, `chatd --help` has a line.
MAPPED = sorted({file.parent for file in FILES if drawn(file.parent)} - {HOUSE / "cli"})


def imports(module: str, *, when_loaded: bool = False) -> Iterator[str]:
    """The absolute names of all that `module` imports, or of what it imports at once; of ours, modules only."""
    file = MODULES[module]
    package = module if file.name == "__init__.py" else module.rpartition(".")[0]
    tree = ast.parse(file.read_text())
    for node in tree.body if when_loaded else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package.split(".")[: len(package.split(".")) - node.level + 1]) if node.level else ""
            source = ".".join(filter(None, (base, node.module)))
            names = [f"{source}.{alias.name}" for alias in node.names]
            submodules = [name for name in names if name in MODULES]
            yield from submodules
            if len(submodules) < len(names):
                yield source


def outside(module: str) -> set[str]:
    return {name.split(".")[0] for name in imports(module)} - {"chatd"}


def ours(module: str) -> set[str]:
    return {name for name in imports(module) if name.split(".")[0] == "chatd"}


@pytest.mark.parametrize("module", MODULES)
def test_a_room_imports_only_what_it_may_from_outside(module: str) -> None:
    strangers = outside(module) - sys.stdlib_module_names
    assert strangers <= OUTSIDE.get(room_of(module), set())


@pytest.mark.parametrize("room", OUTSIDE)
def test_a_room_imports_all_that_it_may_from_outside(room: str) -> None:
    met = set().union(*(outside(module) for module in MODULES if room_of(module) == room))
    assert met >= OUTSIDE[room]


@pytest.mark.parametrize("room", sorted(PURE))
def test_what_decides_has_no_clock_and_waits_for_nothing(room: str) -> None:
    assert not outside(f"chatd.{room}") & WAITING


@pytest.mark.parametrize("module", MODULES)
def test_the_arrows_that_are_missing_stay_missing(module: str) -> None:
    room = room_of(module)
    met = {room_of(name) for name in ours(module)} - {room, "porch"}
    forbidden = MISSING.get(room, set())
    assert not (met if "*" in forbidden else met & forbidden)


def test_of_every_room_but_the_command_line_it_is_said_what_it_must_not_know() -> None:
    assert {room_of(module) for module in MODULES} - MISSING.keys() == {"porch", "__main__", "cli"}


def test_only_the_store_knows_redis() -> None:
    assert {room_of(module) for module in MODULES if "redis" in outside(module)} == {"store"}


def test_no_module_imports_itself_by_any_way_round() -> None:
    graph = {module: set(imports(module, when_loaded=True)) & MODULES.keys() - {module} for module in MODULES}
    try:
        list(TopologicalSorter(graph).static_order())
    except CycleError as cycle:
        pytest.fail(f"import cycle: {' -> '.join(cycle.args[1])}")


@pytest.mark.parametrize("module", MODULES)
def test_every_file_says_what_it_is(module: str) -> None:
    assert ast.get_docstring(ast.parse(MODULES[module].read_text()))


@pytest.mark.parametrize("folder", MAPPED, ids=lambda folder: folder.name)
def test_a_map_names_every_file_of_its_folder(folder: Path) -> None:
    the_map = drawn(folder)
    files = {file.stem for file in folder.glob("*.py") if not file.stem.startswith("__")}
    folders = {file.parent.name for file in folder.glob("*/__init__.py")}
    assert sorted(name for name in files | folders if not re.search(rf"\b{name}\b", the_map)) == []


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_a_script_says_at_its_head_what_it_takes_and_gives(script: Path) -> None:
    text = script.read_text()
    head = "".join(line for line in text.splitlines(keepends=True)[: text.split("\n\n")[0].count("\n") + 1])
    assert all(line.startswith("--") for line in head.splitlines())
    assert re.search(r"^-- \S.*\.$", head, re.M), "its first words are a sentence about what it does"
    assert re.search(r"^-- +KEYS +1 \w+", head, re.M)
    assert re.search(r"^-- Returns .*\.$", head, re.M | re.S)
    for kind in ("KEYS", "ARGV"):
        used = max((int(n) for n in re.findall(rf"{kind}\[(\d+)\]", text)), default=0)
        named = re.search(rf"^-- {kind} .*(?:\n--  .*)*", head, re.M)
        assert (named is None) is (used == 0)
        for number in range(1, used + 1):
            assert named
            assert re.search(rf"\b{number} \w+", named[0]), f"{kind}[{number}] is used and not named"


def test_every_script_is_used() -> None:
    source = "".join(file.read_text() for file in (HOUSE / "store").glob("*.py"))
    assert not [script.name for script in SCRIPTS if f'"{script.stem}"' not in source]
