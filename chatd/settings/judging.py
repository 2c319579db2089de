"""One value that was given: whether there is such a setting, and whether the value can be its."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import Field
from typing import Any, NamedTuple

from .declaring import SettingsError, kind_of, option_of, options
from .kinds import Mode, show_bool, show_text, show_texts
from .tree import SECTIONS


class Given(NamedTuple):
    """A value that somebody gave, not judged yet; `where` is what origin() tells. `is_text`: from outside of TOML."""

    section: str
    key: str
    value: object
    where: str
    is_text: bool = False


def judged_table(section: type, title: str, table: Mapping[str, object], where: Callable[..., str]) -> dict[str, Any]:
    return {key: judged(section, title, Given(title, key, value, where(key))) for key, value in table.items()}


def judged(section: type, title: str, given: Given) -> Any:
    """The value that was given, as ours; SettingsError when there is no such key, or the value cannot be its."""
    setting = options(section).get(given.key)
    if setting is None:
        raise unknown(f"{title}.{given.key}", given.where, known=[f"{title}.{key}" for key in options(section)])
    kind = kind_of(setting)
    raw = kind.from_text(given.value) if given.is_text and isinstance(given.value, str) else given.value
    try:
        value = kind.read(raw)
    except ValueError:
        value = None
    if value is None or not _allowed(setting, value):
        came = "something else" if kind.secret else _came(raw)
        expected = _expected(setting, value)
        raise SettingsError(f"{given.where}: expected {title}.{given.key} to be {expected}, got {came}")
    return value


def _allowed(setting: Field[Any], value: object) -> bool:
    declared = option_of(setting)
    if isinstance(value, int | float):
        return declared.least <= value <= _most(setting)
    return not declared.choices or value in declared.choices


def _most(setting: Field[Any]) -> float:
    return min(option_of(setting).most, kind_of(setting).most)


def _expected(setting: Field[Any], value: object) -> str:
    """What to write instead of `value`, which is None where it could not be read."""
    kind, declared = kind_of(setting), option_of(setting)
    if declared.choices:
        return f"one of {', '.join(map(show_text, declared.choices))}"
    if not isinstance(setting.default, int | float) or isinstance(setting.default, bool | Mode):
        return kind.expected
    # What holds for every number of the kind is said only to who went beyond it.
    beyond = isinstance(value, int | float) and value > kind.most
    most = f" and at most {kind.show(_most(setting))}" if beyond or declared.most < math.inf else ""
    return f"{kind.expected}, at least {kind.show(declared.least)}{most}"


def _came(value: object) -> str:
    """A TOML value as it may stand in a sentence."""
    if isinstance(value, bool):
        return show_bool(value)
    if isinstance(value, str):
        return show_text(value)
    if isinstance(value, dict):
        return "a table"
    return show_texts(map(str, value)) if isinstance(value, list | tuple) else str(value)


def type_name(value: object) -> str:
    """For values in a place where a whole table should be, which may hold anything, a secret too."""
    return {str: "text", bool: "true or false", int: "a number", float: "a number", list: "a list"}.get(
        type(value), "something else"
    )


def dotted(section: str, *pattern: str) -> str:
    """A table's path as TOML writes it: a pattern is quoted, for its `*`."""
    return ".".join((section, *map(show_text, pattern)))


def unknown(name: str, where: str, known: Sequence[str] = ()) -> SettingsError:
    near = _nearest(name, [*SECTIONS, "rooms", *setting_names(), *known])
    hint = f"did you mean {near}?" if near else "`chatd config init` shows all there are"
    return SettingsError(f"{where}: expected a setting that exists, got {name}; {hint}")


def setting_names() -> list[str]:
    return [f"{title}.{key}" for title, section in SECTIONS.items() for key in options(section)]


def _nearest(name: str, known: Sequence[str]) -> str:
    """What is spelt most like the last part of `name`, in its own section before others; "" when nothing is near."""
    import difflib  # 5 ms that only a mistake needs to pay

    title, _, last = name.rpartition(".")
    own_section_last = sorted(known, key=lambda each: each.rpartition(".")[0] == title)
    by_last = {each.rpartition(".")[2]: each for each in own_section_last}
    close = difflib.get_close_matches(last, by_last, 1)
    return by_last[close[0]] if close else ""
