"""The figures, in the order in which they are measured: name, and what measures it. Each says at its head how."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.sitting import Sitting

from . import busy, fan_out, growth, idle, latency, publish, scale_out, slow, storm

FIGURES: dict[str, Callable[[Sitting], None]] = {
    "fan-out": fan_out.measure,
    "busy room": busy.measure,
    "publish": publish.measure,
    "idle": idle.measure,
    "storm": storm.measure,
    "latency": latency.measure,
    "scale-out": scale_out.measure,
    "slow readers": slow.measure,
    "growth": growth.measure,
}
