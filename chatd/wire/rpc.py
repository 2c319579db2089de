"""The data of `rpc` and of the HTTP API as what methods.py describes, and answers as JSON."""

from __future__ import annotations

import keyword
from collections.abc import Iterable, Mapping
from dataclasses import is_dataclass
from functools import cache
from typing import Any, TypeVar, get_args, get_type_hints

import msgspec

from chatd.errors import BAD_REQUEST, NOT_AVAILABLE
from chatd.methods import METHODS
from chatd.model import Json
from chatd.wire.payload import forgiving, whole

T = TypeVar("T")


def decode(method: str, data: Json | None) -> Any:
    """Return `data` as an object of METHODS[method]; members that it does not know are left out.

    Raises:
        Reject 108: there is no such method. Reject 107: a member is missing, or of another type.
    """
    kind = METHODS.get(method)
    if kind is None:
        raise NOT_AVAILABLE.because(f"there is no method {method[:64]!r}")
    return converted(method, members(method, data), kind)


def members(method: str, data: Json | None) -> dict[str, Any]:
    """Return `data`, which is to be a JSON object.

    Raises:
        Reject 107: it is none.
    """
    try:
        return forgiving(_object, data or b"{}")
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BAD_REQUEST.because(f"{method}: {error}") from None


def _object(json: bytes) -> dict[str, Any]:
    return msgspec.json.decode(json, type=dict[str, Any])


def converted(method: str, members: Mapping[str, Any], kind: type[T]) -> T:
    """Return `members` as a `kind`, which is a dataclass; those that it does not know are left out.

    Whole numbers are taken as 5.0, too: to JSON it is the same number, and some encoders have no other.

    Raises:
        Reject 107: a member is missing, or of another type.
    """
    try:
        return msgspec.convert(_fields(members, kind), kind)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise BAD_REQUEST.because(f"{method}: {error}") from None


def encode(answer: object) -> Json:
    return msgspec.json.encode(answer)


def raw(json: Json) -> object:
    """JSON that `encode` passes on as it is."""
    return msgspec.Raw(json)


def _fields(members: Mapping[str, Any], kind: type) -> dict[str, Any]:
    types = _types(kind)
    return {(name := _field(member)): _fitting(value, types.get(name, ())) for member, value in members.items()}


def _fitting(value: object, types: Iterable[type]) -> object:
    if isinstance(value, float) and int in types:
        return whole(value)
    if isinstance(value, dict):
        return next((_fields(value, kind) for kind in types if is_dataclass(kind)), value)
    return value


@cache
def _types(kind: type) -> Mapping[str, tuple[type, ...]]:
    """What each field of a dataclass may be."""
    return {name: get_args(hint) or (hint,) for name, hint in get_type_hints(kind).items()}


def _field(name: str) -> str:
    return f"{name}_" if keyword.iskeyword(name) else name
