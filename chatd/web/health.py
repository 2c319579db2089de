"""What machines ask of a node: does it live, may one send people here, and how is it.

/livez looks at nothing but the event loop that answers it: a store that is away is no reason to restart us. /readyz
says in one sentence why nobody should be sent here. /metrics is in Prometheus' text format.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from chatd import rules
from chatd.node import Node
from chatd.telemetry import histogram_samples, metric_lines, resident_bytes

from .origin import client_address

Samples = list[tuple[dict[str, str], float]]


class Health:
    def __init__(self, node: Node) -> None:
        self._node = node

    async def livez(self, request: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readyz(self, request: Request) -> Response:
        reason = self._node.unready()
        return JSONResponse({"ready": not reason, "reason": reason or None}, 503 if reason else 200)

    async def metrics(self, request: Request) -> Response:
        server = self._node.settings.server
        peer = request.client.host if request.client is not None else None
        trusted = rules.networks(server.trusted_proxies)
        address = client_address(peer, request.headers.getlist("x-forwarded-for"), trusted)
        allowed = rules.networks(server.metrics_allow)
        if address != "unix" and not rules.within(address, allowed):
            return PlainTextResponse("metrics are for the addresses in server.metrics_allow\n", 403)
        return PlainTextResponse(metric_lines(families(self._node)), media_type="text/plain; version=0.0.4")


def families(node: Node) -> Iterator[tuple[str, str, str, Any]]:
    """Every metric: name, type, help, samples."""
    meters, hub, chat, store = node.meters, node.hub, node.chat, node.store
    queued = sum(session.link.buffered() for session in hub.sessions())
    yield "chatd_connections", "gauge", "Connections now.", _one(hub.size)
    yield "chatd_connections_unknown", "gauge", "Connections that have not logged in.", _one(len(hub.unknown))
    yield "chatd_rooms", "gauge", "Rooms with a reader on this node.", _one(len(hub.rooms))
    yield "chatd_opened", "counter", "Connections accepted.", _by("door", meters.opened)
    yield "chatd_closed", "counter", "Connections ended, by close code.", _by("code", meters.closed)
    yield "chatd_handshakes_refused", "counter", "Handshakes refused, by status.", _by("status", meters.refused)
    yield "chatd_reaped", "counter", "Connections and nodes found dead.", _by("reason", meters.reaped)
    yield "chatd_messages_in", "counter", "Messages accepted into rooms.", _one(chat.messages_in)
    yield "chatd_messages_out", "counter", "Frames written by fan-out.", _one(hub.delivered)
    yield "chatd_fan_out_seconds", "histogram", "One round of fan-out.", histogram_samples(meters.fan_out)
    yield "chatd_loop_lag_seconds", "histogram", "Lateness of the event loop.", histogram_samples(meters.loop_lag)
    yield "chatd_queued_bytes", "gauge", "Bytes waiting for clients.", _one(queued)
    yield "chatd_resident_memory_bytes", "gauge", "Memory of this process.", _one(resident_bytes())
    yield "chatd_store_up", "gauge", "Whether the store answers.", _one(store.batch.round_trip_s is not None)
    yield "chatd_store_round_trip_seconds", "gauge", "Latest round trip.", _one(store.batch.round_trip_s or 0.0)
    silent = store.feed.silent_for(node.clock())
    yield "chatd_feed_silent_seconds", "gauge", "Since we last heard our own probe.", _one(min(silent, 1e9))
    yield "chatd_draining", "gauge", "Whether this node is draining.", _one(node.state == "draining")


def _by(label: str, counter: dict[Any, int]) -> Samples:
    return [({label: str(value)}, count) for value, count in sorted(counter.items())]


def _one(value: float) -> Samples:
    return [({}, value)]
