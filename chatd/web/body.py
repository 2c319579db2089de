"""A request's body, of which no more is read than may come."""

from __future__ import annotations

from starlette.requests import Request


class TooLong(Exception):
    """More came than may."""


async def body_of(request: Request, limit: int) -> bytes:
    """Return the whole body.

    Args:
        limit: most bytes of it; 0: no limit.
    Raises:
        TooLong: it has more.
        ClientDisconnect: the client went before it was whole.
    """
    body = bytearray()
    async for part in request.stream():
        body += part
        if 0 < limit < len(body):
            raise TooLong
    return bytes(body)
