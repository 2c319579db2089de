"""The data of `rpc` and of the HTTP API as what methods.py describes, and answers as JSON."""

from __future__ import annotations

import keyword
from collections.abc import Mapping
from typing import Any

import msgspec

from chatd.errors import BAD_REQUEST, NOT_AVAILABLE
from chatd.methods import METHODS
from chatd.model import Json


def decode(method: str, data: Json | None) -> Any:
    """Return `data` as an object of METHODS[method]; members that it does not know are left out.

    Raises:
        Reject 108: there is no such method. Reject 107: a member is missing, or of another type.
    """
    kind = METHODS.get(method)
    if kind is None:
        raise NOT_AVAILABLE.because(f"there is no method {method[:64]!r}")
    try:
        members = msgspec.json.decode(data or b"{}", type=dict[str, Any])
        return msgspec.convert({_field(name): value for name, value in members.items()}, kind)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise BAD_REQUEST.because(f"{method}: {error}") from None


def encode(answer: Mapping[str, Any]) -> Json:
    return msgspec.json.encode(answer)


def _field(name: str) -> str:
    return f"{name}_" if keyword.iskeyword(name) else name
