"""What machines ask of a node: does it live, may one send people here, and how is it.

/livez looks at nothing but the event loop that answers it: a store that is away is no reason to restart us. /readyz
says in one sentence why nobody should be sent here. /metrics is in Prometheus' text format.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from time import process_time
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from chatd import __version__, rules
from chatd.cast import READERS, WATCHERS
from chatd.errors import SLOW
from chatd.node import Node
from chatd.session import Session
from chatd.telemetry import GOODBYES, histogram_samples, metric_lines, resident_bytes

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
        return PlainTextResponse(metric_lines(families(self._node)), media_type="text/plain; version=0.0.4")

    async def metrics_for_the_allowed(self, request: Request) -> Response:
        """Where the public comes in too, numbers are for the addresses that the settings name."""
        server = self._node.settings.server
        peer = request.client.host if request.client is not None else None
        trusted = rules.networks(server.trusted_proxies)
        address = client_address(peer, request.headers.getlist("x-forwarded-for"), trusted)
        allowed = rules.networks(server.metrics_allow)
        if address != "unix" and not rules.within(address, allowed):
            return PlainTextResponse("metrics are for the addresses in server.metrics_allow\n", 403)
        return await self.metrics(request)


Family = tuple[str, str, str, Any]
"""Name, type, help, samples."""


def families(node: Node) -> Iterator[Family]:
    """Every metric. Labels come from tables of ours: what clients choose is never one."""
    yield from _connections(node)
    yield from _messages(node)
    yield from _store(node)
    yield from _hooks(node)
    yield from _process(node)


def _connections(node: Node) -> Iterator[Family]:
    meters, hub = node.meters, node.hub
    queued = sum(session.link.buffered() for session in hub.sessions())
    closed = [
        ({"code": str(code) if code else "other", "reason": GOODBYES[code]}, count)
        for code, count in sorted(meters.closed.items())
    ]
    yield "chatd_connections", "gauge", "Connections now.", _one(hub.size)
    most = node.settings.limits.connections
    yield "chatd_connections_max", "gauge", "Connections that limits.connections allows; 0: any number.", _one(most)
    yield "chatd_connections_unknown", "gauge", "Connections that have not logged in.", _one(len(hub.unknown))
    yield "chatd_rooms", "gauge", "Rooms with a reader on this node.", _one(len(hub.rooms))
    yield "chatd_opened", "counter", "Connections accepted.", _by("door", meters.opened)
    yield "chatd_closed", "counter", "Connections ended, by close code.", closed
    yield "chatd_handshakes_refused", "counter", "Handshakes refused, by status.", _by("status", meters.refused)
    yield "chatd_auth_failures", "counter", "Who was not believed, by reason.", _by("reason", meters.auth_failures)
    yield "chatd_reaped", "counter", "Connections and nodes found dead.", _by("reason", meters.reaped)
    yield "chatd_queued_bytes", "gauge", "Bytes waiting for clients.", _one(queued)
    yield "chatd_slow_readers", "counter", "Connections ended as too slow.", _one(meters.closed[SLOW.code])


def _messages(node: Node) -> Iterator[Family]:
    meters, hub, chat, traffic = node.meters, node.hub, node.chat, Session.traffic
    out = {
        "publication": hub.sent[READERS],
        "presence": hub.sent[WATCHERS],
        "reply": traffic.replies,
        "error": traffic.rejected.total(),
    }
    yield (
        "chatd_commands",
        "counter",
        'What was asked for: by clients, and as "api METHOD" by the application.',
        _by("command", lowered(chat.commands)),
    )
    yield "chatd_rejected", "counter", "Commands refused, by error code.", _by("code", traffic.rejected)
    yield "chatd_messages_in", "counter", "Messages accepted into rooms.", _one(chat.messages_in)
    yield "chatd_messages_out", "counter", "Messages written to clients.", _by("type", out)
    yield "chatd_frames_out", "counter", "Frames written by fan-out.", _one(hub.delivered)
    yield "chatd_received_bytes", "counter", "Bytes of messages from clients, inflated.", _one(traffic.bytes_in)
    yield "chatd_sent_bytes", "counter", "Bytes of frames to clients.", _one(traffic.bytes_out)
    yield "chatd_fan_out_seconds", "histogram", "One round of fan-out.", histogram_samples(meters.fan_out)
    # One clock only: what the store's or another node's clock says of a message's age is not comparable to ours. What
    # comes before is in chatd_store_seconds{command="publish"} of the author's node and in chatd_feed_lag_seconds.
    yield (
        "chatd_delivery_seconds",
        "histogram",
        "From a message's arrival from the store to its being written to its last reader here.",
        histogram_samples(meters.delivery),
    )


def _hooks(node: Node) -> Iterator[Family]:
    text = "Events told to the application, and questions asked before a message, by what became of them."
    yield "chatd_hooks", "counter", text, _by("result", node.meters.hooks)


def _store(node: Node) -> Iterator[Family]:
    meters, batch, feed = node.meters, node.store.batch, node.store.feed
    silent = feed.silent_for(node.clock())
    seconds = [
        ({"command": name, **labels}, value)
        for name, histogram in sorted(meters.store_seconds.items())
        for labels, value in histogram_samples(histogram)
    ]
    reconnects = {"commands": batch.reconnects, "feed": feed.interruptions}
    yield "chatd_store_up", "gauge", "Whether the store answers.", _one(batch.round_trip_s is not None)
    yield "chatd_store_round_trip_seconds", "gauge", "Latest round trip.", _one(batch.round_trip_s or 0.0)
    yield "chatd_store_seconds", "histogram", "From asking the store to its reply, waiting included.", seconds
    yield "chatd_store_failures", "counter", "Not answered or refused.", _by("command", meters.store_failures)
    yield "chatd_store_reconnects", "counter", "Connections to the store made anew.", _by("link", reconnects)
    yield (
        "chatd_feed_lag_seconds",
        "histogram",
        "A word sent to ourselves through the store and back, once a second.",
        histogram_samples(meters.feed_lag),
    )
    yield "chatd_feed_silent_seconds", "gauge", "Since we last heard such a word.", _one(min(silent, 1e9))


def _process(node: Node) -> Iterator[Family]:
    yield "chatd_build_info", "gauge", "The version that runs.", [({"version": __version__}, 1)]
    yield "chatd_uptime_seconds", "gauge", "Since the start.", _one(node.uptime_s())
    yield "chatd_cpu_seconds", "counter", "Processor time of this process.", _one(process_time())
    yield "chatd_loop_lag_seconds", "histogram", "Lateness of the event loop.", histogram_samples(node.meters.loop_lag)
    yield "chatd_resident_memory_bytes", "gauge", "Memory of this process.", _one(resident_bytes())
    ends: Samples = [({}, each.certificate_ends) for each in node.listeners if each.certificate_ends is not None]
    yield "chatd_certificate_end_timestamp_seconds", "gauge", "When the certificate that is shown ends.", ends
    yield "chatd_draining", "gauge", "Whether this node is draining.", _one(node.state in ("draining", "drained"))


def lowered(counter: Mapping[str, int]) -> dict[str, int]:
    return {name.lower(): count for name, count in counter.items()}


def _by(label: str, counter: Mapping[Any, int]) -> Samples:
    return [({label: str(value)}, count) for value, count in sorted(counter.items())]


def _one(value: float) -> Samples:
    return [({}, value)]
