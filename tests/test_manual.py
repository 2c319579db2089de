"""What is written for people about methods, events, codes and settings is what the code says."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import chatd
from chatd import errors, methods
from chatd.api import manual
from chatd.api.desk import METHODS
from chatd.chat.rows import METHOD_ROWS
from chatd.errors import Disconnect, Reject
from chatd.events import EVENTS
from chatd.settings import HOOK_EVENTS
from chatd.store.changes import What

HOUSE = Path(chatd.__file__).parent
REFERENCE = HOUSE.parent / "config" / "API.md"
SPEAKERS = [*HOUSE.glob("chat/*.py"), *HOUSE.glob("store/*.py"), HOUSE / "steward.py"]


def test_the_reference_is_what_the_tables_say() -> None:
    assert REFERENCE.read_text() == manual.text(), "write it anew with `chatd config reference > config/API.md`"


def test_every_method_and_every_code_stands_in_the_reference() -> None:
    text = REFERENCE.read_text()
    assert methods.METHODS.keys() == METHOD_ROWS.keys()
    for name in METHODS:
        assert f"- **`{name}`** " in text, name
    for row in vars(errors).values():
        if isinstance(row, Reject | Disconnect):
            assert f"| {row.code} | " in text, row.code
    for event in (*EVENTS, *HOOK_EVENTS):
        assert f"| `{event}` | " in text, event


def test_every_code_of_the_tables_is_sent_or_met_by_somebody() -> None:
    source = "".join(file.read_text() for file in HOUSE.rglob("*.py") if file != Path(errors.__file__))
    rows = [name for name, row in vars(errors).items() if isinstance(row, Reject | Disconnect)]
    unsubscribed = [name for name in vars(errors) if name.startswith("UNSUBSCRIBED_")]
    assert [name for name in (*rows, *unsubscribed) if not re.search(rf"\b{name}\b", source)] == []


def test_the_readme_has_every_code_of_chatds_own() -> None:
    text = (HOUSE.parent / "README.md").read_text()
    own = [row for row in vars(errors).values() if isinstance(row, Reject) and 400 <= row.code < 500]
    assert [f"| {row.code} | {row.text} |" for row in own if f"| {row.code} | {row.text} |" not in text] == []
    assert len({row.code for row in own}) == len(own), "one code a reason"


def test_every_method_says_what_it_does_and_answers() -> None:
    for name, row in METHODS.items():
        says, _ = manual._parted(manual.description(row.args))
        assert says.endswith("."), name
        assert len(says) > 10, name


def types_in(file: Path) -> set[str]:
    """The event types that a file of the house writes: as `"type"` of tags, or as what somebody is told of."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Dict):
            found |= {
                value.value
                for key, value in zip(node.keys, node.values, strict=True)
                if isinstance(key, ast.Constant) and key.value == "type" and isinstance(value, ast.Constant)
            }
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) == "_tell":
            found |= {arg.value for arg in node.args if isinstance(arg, ast.Constant) and isinstance(arg.value, str)}
    return found


def test_every_event_that_the_code_writes_is_in_the_table_and_none_besides() -> None:
    written = set().union(*map(types_in, SPEAKERS)) | set(What)
    assert written <= EVENTS.keys()
    source = "".join(file.read_text() for file in SPEAKERS) + (HOUSE / "store" / "append.lua").read_text()
    unheard_of = [
        name for name in EVENTS if name not in written and f'"{name}"' not in source and f"'{name}'" not in source
    ]
    assert not unheard_of
