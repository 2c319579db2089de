"""The JSON that the store keeps: publications and client infos, as the SDK door sends them.

It is made once in the cluster, when somebody speaks; every door and every node passes these bytes on. The store adds
the offset and the time, which only it knows (append.lua), so a publication is made here without its closing brace.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec
import orjson

from chatd.model import ClientInfo, Json


def client_info(info: ClientInfo) -> Json:
    """`info` as the protocol's ClientInfo; `conn_info` and `chan_info` are JSON already and go in as they are."""
    parts = [b'{"user":', orjson.dumps(info.user), b',"client":', orjson.dumps(info.client)]
    if info.conn_info is not None:
        parts += [b',"conn_info":', info.conn_info]
    if info.chan_info is not None:
        parts += [b',"chan_info":', info.chan_info]
    return b"".join([*parts, b"}"])


class _Data(msgspec.Struct):
    data: msgspec.Raw


class Publication(NamedTuple):
    """A publication of the store, taken apart.

    Attributes:
        time: Unix ms.
        user: who said it; None: the server, or somebody forgotten.
        type: of its tags; "message" where they name none.
        of: offsets of what it is about; an event that tells of somebody forgotten names many.
        data: as parsed.
        body: all of it, as the store has it.
    """

    offset: int
    time: int
    user: str | None
    type: str
    of: tuple[int, ...]
    data: Any
    body: Json

    @property
    def raw(self) -> Json:
        """The data as it was said, byte for byte."""
        return bytes(msgspec.json.decode(self.body, type=_Data).data)

    @property
    def is_message(self) -> bool:
        """Whether it was said by somebody, and is no event about what was."""
        return self.type == "message" or (self.type == "deleted" and not self.of)

    @property
    def members(self) -> Mapping[str, Any]:
        """The members of its data; none where that is no object."""
        return self.data if isinstance(self.data, dict) else {}


def parse(body: Json) -> Publication:
    """What `head` began and append.lua ended; a publication without history has offset 0."""
    parts = orjson.loads(body)
    tags, info = parts.get("tags", {}), parts.get("info")
    of = tuple(int(offset) for offset in tags.get("of", "").split(",") if offset.isdecimal())
    user = None if info is None else info["user"]
    kind = tags.get("type", "message")
    return Publication(parts.get("offset", 0), parts["time"], user, kind, of, parts["data"], body)


def head(data: Json, info: Json | None, tags: Mapping[str, str]) -> bytes:
    """A publication up to where the store goes on.

    Args:
        data: the author's own JSON, untouched.
        info: who says it, from `client_info`; None: the server itself.
        tags: what kind of message it is; only the server writes them.
    """
    parts = [b'{"data":', data]
    if info is not None:
        parts += [b',"info":', info]
    if tags:
        parts += [b',"tags":', orjson.dumps(dict(tags))]
    return b"".join(parts)
