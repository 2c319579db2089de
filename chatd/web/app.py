"""The routes of one node."""

from __future__ import annotations

import functools
import secrets
from http import HTTPStatus
from importlib.resources import files

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Route, Router, WebSocketRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from chatd.chat import Chat
from chatd.node import Node

from .api import api_routes
from .doors import Doors, Refusal
from .health import Health
from .streams import Emulation, HttpStream, preflight

SDK, PLAIN = "/connection/websocket", "/chat/{username:path}"
PAGE = files(__package__).joinpath("page.html").read_text("utf-8")
# Only the page's own script and style run, and nothing is loaded from anywhere: user text cannot become code.
POLICY = (
    "default-src 'none'; style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'; connect-src 'self' ws: wss:; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


async def page(request: Request) -> Response:
    nonce = secrets.token_urlsafe(12)
    return HTMLResponse(
        PAGE.replace("{{nonce}}", nonce),
        headers={
            "Content-Security-Policy": POLICY.format(nonce=nonce),
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Cache-Control": "no-store",
        },
    )


async def no_handshake(doors: Doors, request: Request) -> Response:
    """Who comes to a door's path with a plain request: through a proxy that is not told of WebSockets, or to hear why a
    handshake was refused, which browsers tell no page."""
    try:
        with doors.admitted(request):
            await doors.identity(request)
    except Refusal as refusal:
        return refusal.response()
    sentence = (
        "expected a WebSocket handshake, a plain request came; a proxy between must pass on `Upgrade` and `Connection`"
    )
    return JSONResponse(
        {"error": sentence}, HTTPStatus.UPGRADE_REQUIRED, {"Upgrade": "websocket", "Connection": "Upgrade"}
    )


def build(node: Node) -> ASGIApp:
    """What the public listener serves."""
    doors = Doors(node.hub, node.chat, node.meters, lambda: node.state if node.state != "ready" else "")
    health, plain = Health(node), functools.partial(no_handshake, doors)
    sockets = Router(
        [
            WebSocketRoute(SDK, doors.sdk),
            WebSocketRoute(PLAIN, doors.plain),
        ],
        default=doors.nowhere,
    )
    requests = Starlette(
        routes=[
            Route("/", page),
            Route("/livez", health.livez),
            Route("/readyz", health.readyz),
            Route("/metrics", health.metrics_for_the_allowed),
            *(Route(path, plain, methods=["GET", "POST"]) for path in (SDK, PLAIN)),
            *stream_routes(doors, node.chat),
            *(api_routes(node) if node.settings.api.public else ()),
        ]
    )

    async def public(scope: Scope, receive: Receive, send: Send) -> None:
        # What Starlette puts around its router is for requests; sockets come by the thousand at once, and go past it.
        await (sockets if scope["type"] == "websocket" else requests)(scope, receive, send)

    return public


def stream_routes(doors: Doors, chat: Chat) -> list[BaseRoute]:
    """The SDK door for those who get no WebSocket through."""
    asked = functools.partial(preflight, doors)
    return [
        Route("/connection/http_stream", HttpStream(doors, chat), methods=["POST"]),
        Route("/emulation", Emulation(doors, chat).say, methods=["POST"]),
        *(Route(path, asked, methods=["OPTIONS"]) for path in ("/connection/http_stream", "/emulation")),
    ]


def build_admin(node: Node) -> Starlette:
    """What the admin listener serves."""
    return Starlette(routes=admin_routes(node))


def admin_routes(node: Node) -> list[BaseRoute]:
    health = Health(node)
    return [
        Route("/livez", health.livez),
        Route("/readyz", health.readyz),
        Route("/metrics", health.metrics),
        *api_routes(node),
    ]
