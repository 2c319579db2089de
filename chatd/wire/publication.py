"""The JSON that the store keeps: publications and client infos, as the SDK door sends them.

It is made once in the cluster, when somebody speaks; every door and every node passes these bytes on. The store adds
the offset and the time, which only it knows (publish.lua), so a publication is made here without its closing brace.
"""

from __future__ import annotations

from collections.abc import Mapping

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
