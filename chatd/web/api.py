"""POST /api/<method> over HTTP: the key, the size, the status. What is asked for is the api's business."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from chatd.api import openapi
from chatd.api.desk import ApiError, Desk
from chatd.node import Node
from chatd.office import Office

from .body import TooLong, body_of

KEY_HEADER = "X-API-Key"


def api_routes(node: Node) -> list[BaseRoute]:
    """What a listener answers the application's back end with."""
    api = Api(node)
    return [
        Route("/api/openapi.json", openapi_json, methods=["GET"]),
        Route("/api/{method}", api.call, methods=["POST"]),
    ]


async def openapi_json(request: Request) -> Response:
    return JSONResponse(openapi.document())


class Api:
    def __init__(self, node: Node) -> None:
        self._node = node
        self._desk = Desk(node.chat, lambda by: Office(node.store, patience=node.settings.cluster.answer, by=by))

    async def call(self, request: Request) -> Response:
        try:
            key = self._desk.known(request.headers.get(KEY_HEADER, ""))
            body = await _body(request, self._node.settings.api.body)
            return Response(await self._desk.call(key, request.path_params["method"], body), 200, JSON)
        except ApiError as error:
            return JSONResponse({"error": error.sentence}, error.status)
        except ClientDisconnect:
            return Response(status_code=400)


JSON: Mapping[str, str] = {"Content-Type": "application/json"}


async def _body(request: Request, limit: int) -> bytes:
    try:
        return await body_of(request, limit)
    except TooLong:
        sentence = f"expected at most {limit} bytes, more came; see api.body, or send less at a time"
        raise ApiError(413, sentence) from None
