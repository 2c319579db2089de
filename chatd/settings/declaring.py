"""How a setting is declared: `option` as the default of a dataclass field."""

from __future__ import annotations

import math
from dataclasses import Field, dataclass, field, fields
from typing import Any, TypeVar

from .kinds import KINDS, Kind


class SettingsError(Exception):
    """One sentence for the operator: where, what was expected, what came, what to do. Never holds a secret."""


T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Option:
    """What is declared about a setting beside its name, kind and default.

    Attributes:
        doc: for the operator, in the words of the manual.
        least, most: bounds of a number, in its unit, both allowed.
        choices: the only values allowed; empty: any.
        reload: whether SIGHUP may change it.
    """

    doc: str
    least: float
    most: float
    choices: tuple[str, ...]
    reload: bool


def option(
    default: T,
    doc: str,
    *,
    least: float = 0,
    most: float = math.inf,
    choices: tuple[str, ...] = (),
    reload: bool = False,
) -> T:
    """Declare a setting, as the default of a dataclass field; the arguments are those of Option."""
    return field(default=default, metadata={"option": Option(doc, least, most, choices, reload)})


def options(section: type) -> dict[str, Field[Any]]:
    """The settings declared in `section`, by key; what is derived from them is left out."""
    return {each.name: each for each in fields(section) if "option" in each.metadata}


def kind_of(setting: Field[Any]) -> Kind:
    return KINDS[str(setting.type)]


def option_of(setting: Field[Any]) -> Option:
    declared: Option = setting.metadata["option"]
    return declared
