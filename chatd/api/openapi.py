"""The methods of the HTTP API as an OpenAPI 3.1 document, made from the table and its dataclasses."""

from __future__ import annotations

import inspect
from dataclasses import MISSING, fields
from functools import cache
from typing import Any, Final, TypeAlias

import msgspec

from chatd import __version__

from .desk import AS, BATCH, METHODS, As, Method

REF: Final = "#/components/schemas/{name}"
ERRORS: Final = {
    400: "the request is not what the method takes",
    401: "no key, or none we know",
    403: "the key may not do this",
    404: "there is no such method",
    413: "the request is too large",
}
AS_USER: Final = {
    "type": ["string", "null"],
    "minLength": 1,
    "description": "User as whom to act; without it, as the server.",
}
Schemas: TypeAlias = dict[type, dict[str, Any]]
"""By dataclass, where its schema stands."""
BATCH_SCHEMA: Final = {
    "type": "object",
    "required": ["commands"],
    "properties": {
        "commands": {"type": "array", "items": {"type": "object", "minProperties": 1, "maxProperties": 1}},
        "parallel": {"type": ["boolean", "null"], "default": False},
    },
}


@cache
def document() -> dict[str, Any]:
    """The whole document; made once."""
    kinds = [kind for row in METHODS.values() for kind in (row.args, row.result) if kind is not None]
    references, schemas = msgspec.json.schema_components(kinds, ref_template=REF)
    by_kind: Schemas = dict(zip(kinds, references, strict=True))
    paths = {f"/api/{name}": {"post": _operation(name, row, by_kind)} for name, row in METHODS.items()}
    paths[f"/api/{BATCH}"] = {"post": _batch()}
    for row in METHODS.values():
        asked = by_kind[row.args]["$ref"].removeprefix(REF.format(name=""))
        schemas[asked] = _with_null(schemas[asked])
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "chatd",
            "version": __version__,
            "description": "For the application's back end. What chat refuses is answered with 200 and `error`.",
        },
        "security": [{"key": []}],
        "paths": paths,
        "components": {
            "schemas": {**{name: _renamed(schema) for name, schema in schemas.items()}, **_common()},
            "securitySchemes": {"key": {"type": "apiKey", "in": "header", "name": "X-API-Key"}},
        },
    }


def _operation(name: str, row: Method, by_kind: Schemas) -> dict[str, Any]:
    schema = by_kind[row.args]
    if row.as_user is not As.CANNOT:
        must = row.as_user is As.MUST
        user = {**AS_USER, "type": "string", "description": "User as whom to act."} if must else AS_USER
        member = {"type": "object", "properties": {AS: user}, **({"required": [AS]} if must else {})}
        schema = {"allOf": [schema, member]}
    result = by_kind[row.result] if row.result is not None else {"type": "object"}
    answer = {
        "type": "object",
        "properties": {"result": result, "error": {"$ref": REF.format(name="Error")}},
        "minProperties": 1,
        "maxProperties": 1,
    }
    needed = row.as_user is As.MUST or any(
        each.default is MISSING and each.default_factory is MISSING for each in fields(row.args)
    )
    return _post(name, description(row.args), schema, answer, needed=needed)


def _batch() -> dict[str, Any]:
    answer = {
        "type": "object",
        "required": ["replies"],
        "properties": {"replies": {"type": "array", "items": {"type": "object"}}},
    }
    text = "Several commands in one request: each reply is {method: result} or {error}, in order."
    return _post(BATCH, text, BATCH_SCHEMA, answer, needed=True)


def _post(name: str, text: str, schema: dict[str, Any], answer: dict[str, Any], *, needed: bool) -> dict[str, Any]:
    return {
        "operationId": name,
        "summary": text.split("\n\n")[0],
        "description": text,
        "requestBody": {"required": needed, "content": {"application/json": {"schema": schema}}},
        "responses": {
            "200": {"description": "done, or refused", "content": {"application/json": {"schema": answer}}},
            **{
                str(status): {
                    "description": sentence,
                    "content": {"application/json": {"schema": {"$ref": REF.format(name="Problem")}}},
                }
                for status, sentence in ERRORS.items()
            },
        },
    }


def _common() -> dict[str, Any]:
    return {
        "Error": {
            "type": "object",
            "required": ["code", "message"],
            "properties": {
                "code": {"type": "integer", "description": "As clients are refused with."},
                "message": {"type": "string"},
                "retry_after_ms": {"type": "integer"},
            },
        },
        "Problem": {"type": "object", "required": ["error"], "properties": {"error": {"type": "string"}}},
    }


def description(kind: type) -> str:
    """What a dataclass says of itself."""
    return inspect.cleandoc(kind.__doc__ or "")


def _with_null(schema: dict[str, Any]) -> dict[str, Any]:
    """A request's schema: what may be left out may be null as well."""
    needed = schema.get("required", [])
    properties = {
        name: each if name in needed else {"anyOf": [each, {"type": "null"}]}
        for name, each in schema.get("properties", {}).items()
    }
    return {**schema, "properties": properties}


def _renamed(schema: dict[str, Any]) -> dict[str, Any]:
    """A schema with its members named as on the wire: without the underscore behind Python's own words."""
    renamed = dict(schema)
    if "properties" in schema:
        renamed["properties"] = {name.removesuffix("_"): each for name, each in schema["properties"].items()}
    if "required" in schema:
        renamed["required"] = [name.removesuffix("_") for name in schema["required"]]
    return renamed
