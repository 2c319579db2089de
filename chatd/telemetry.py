"""What chatd says of itself: its log, and the numbers behind /metrics and `chatd status`.

On the hot path a number is a plain int or one bisect; Prometheus text is made when somebody asks for it. Labels are few
and fixed: never a user, a room or an address. The log is for a person on a terminal, for systemd's journal
(journal.py), or JSON lines, and text that users chose is escaped in all.
"""

from __future__ import annotations

import io
import logging
import os
import resource
import sys
from bisect import bisect_left
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, MutableMapping
from typing import Any, Final, TextIO

import structlog

from . import errors, journal
from .errors import Disconnect, Reject
from .names import printable

# Upper bounds in seconds, from one small room to a room of fifty thousand.
SECONDS_BOUNDS: Final = (0.0001, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
# Rates are over this many seconds, quantiles over as many samples: what an operator means by "now".
WINDOW: Final = 10
SAMPLES: Final = 600

# Why somebody was not taken for who they said they were, by the code with which they were refused.
AUTH_FAILURES: Final = {
    errors.TOKEN_EXPIRED.code: "expired",
    errors.CONNECTION_EXPIRED.code: "expired",
    errors.INVALID_TOKEN.code: "invalid",
    errors.REVOKED.code: "revoked",
}
# The goodbyes that are told apart. Clients may say any of 4,000 codes: those that are in no table count together.
OTHER_CODE: Final = 0
GOODBYES: Final = {
    **{row.code: row.reason for row in vars(errors).values() if isinstance(row, Disconnect)},
    errors.NORMAL.code: "normal",
    errors.GOING_AWAY.code: "going away",
    OTHER_CODE: "other",
}


class Histogram:
    """Seconds, counted in buckets since the start, with the latest kept for quantiles."""

    __slots__ = ("counts", "recent", "total")

    def __init__(self) -> None:
        self.counts = [0] * (len(SECONDS_BOUNDS) + 1)
        self.total = 0.0
        self.recent: deque[float] = deque(maxlen=SAMPLES)

    def observe(self, seconds: float) -> None:
        self.counts[bisect_left(SECONDS_BOUNDS, seconds)] += 1
        self.total += seconds
        self.recent.append(seconds)

    def quantile(self, q: float) -> float:
        """Of the latest samples; 0.0 when there is none."""
        ordered = sorted(self.recent)
        return ordered[min(len(ordered) - 1, int(q * len(ordered)))] if ordered else 0.0

    def buckets(self) -> Iterator[tuple[str, int]]:
        """Cumulative, as Prometheus wants them."""
        reached = 0
        for bound, count in zip((*map(str, SECONDS_BOUNDS), "+Inf"), self.counts, strict=True):
            reached += count
            yield bound, reached


class Rate:
    """How fast a counter moves, over the last WINDOW seconds."""

    __slots__ = ("_samples",)

    def __init__(self) -> None:
        self._samples: deque[tuple[float, int]] = deque(maxlen=WINDOW + 1)

    def sample(self, now: float, count: int) -> None:
        self._samples.append((now, count))

    def per_second(self) -> float:
        if len(self._samples) < 2:
            return 0.0
        (began, first), (ended, last) = self._samples[0], self._samples[-1]
        return (last - first) / (ended - began) if ended > began else 0.0


class Meters:
    """This node's counters. Whoever does a thing counts it; who reads them does not matter to him."""

    def __init__(self) -> None:
        self.opened: Counter[str] = Counter()  # by door
        self.closed: Counter[int] = Counter()  # by code
        self.refused: Counter[int] = Counter()  # handshakes, by HTTP status
        self.reaped: Counter[str] = Counter()  # by reason
        self.auth_failures: Counter[str] = Counter()  # by reason
        self.store_failures: Counter[str] = Counter()  # by script or command
        self.store_seconds: defaultdict[str, Histogram] = defaultdict(Histogram)  # by script or command
        self.hooks: Counter[str] = Counter()  # by what became of them
        self.fan_out = Histogram()
        self.delivery = Histogram()
        self.feed_lag = Histogram()
        self.loop_lag = Histogram()
        self.messages_in = Rate()
        self.messages_out = Rate()

    def round_done(self, seconds: float, since_arrival: float) -> None:
        """A round of fan-out has ended; see Hub.on_round."""
        self.fan_out.observe(seconds)
        self.delivery.observe(since_arrival)

    def closed_with(self, code: int) -> None:
        """A connection has ended."""
        self.closed[code if code in GOODBYES else OTHER_CODE] += 1

    def auth_failed(self, why: Reject | Disconnect) -> None:
        """Count a refusal if it is about who somebody is; any other is not counted here."""
        reason = "missing" if str(why) == errors.NO_TOKEN.reason else AUTH_FAILURES.get(why.code)
        if reason is not None:
            self.auth_failures[reason] += 1

    def store_answered(self, name: str, seconds: float) -> None:
        self.store_seconds[name].observe(seconds)

    def store_failed(self, name: str) -> None:
        self.store_failures[name] += 1


def metric_lines(families: Iterable[tuple[str, str, str, Iterable[tuple[dict[str, str], float]]]]) -> str:
    """Prometheus text of (name, type, help, samples) through prometheus-client, which knows the format's corners."""
    from prometheus_client import CollectorRegistry, generate_latest
    from prometheus_client.core import Metric

    class Collector:
        def collect(self) -> Iterator[Metric]:
            for name, kind, text, samples in families:
                metric = Metric(name, text, kind)
                for labels, value in samples:
                    suffix = "_total" if kind == "counter" else labels.pop("__suffix__", "")
                    metric.add_sample(name + suffix, labels, value)
                yield metric

    registry = CollectorRegistry(auto_describe=False)
    registry.register(Collector())
    return generate_latest(registry).decode()


def histogram_samples(histogram: Histogram) -> Iterator[tuple[dict[str, str], float]]:
    for bound, count in histogram.buckets():
        yield {"__suffix__": "_bucket", "le": bound}, count
    yield {"__suffix__": "_sum"}, histogram.total
    yield {"__suffix__": "_count"}, sum(histogram.counts)


def resident_bytes() -> int:
    """This process's resident memory; 0 where /proc does not say."""
    try:
        with open("/proc/self/statm", "rb") as statm:
            return int(statm.read().split()[1]) * resource.getpagesize()  # 4 KiB, and up to 64 on ARM
    except OSError:
        return 0


# --- the log ----------------------------------------------------------------------------------------------------------


def configure_log(level: str, form: str, stream: Any = None) -> None:
    """Set up structlog and the standard library's logging behind it, once, to `stream` (default: stderr).

    Args:
        level: "debug", "info", "warning", "error".
        form: "human", "json", or "auto": human on a terminal, fields in systemd's journal, else json.
    """
    out = stream or sys.stderr
    shared: list[Any] = [structlog.contextvars.merge_contextvars, structlog.processors.add_log_level, _escape]
    last, factory = _output(form, out)
    structlog.configure(
        processors=[*shared, *last],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=factory,
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(handlers=[_ToStructlog()], level=logging.WARNING, force=True)


def _output(form: str, out: Any) -> tuple[list[Any], Callable[..., Any]]:
    """The last processors, and what makes the loggers that they hand their result to.

    A line is one write, its end included: several processes may have the same stderr.
    """
    stamp = structlog.processors.TimeStamper(fmt="iso", utc=True)
    if form == "auto" and journal.reads(out, os.environ):
        sink = journal.Journal(out, journal.ADDRESS)
        return [structlog.processors.format_exc_info, _whole], lambda *_: sink
    if form == "human" or (form == "auto" and out.isatty()):
        human = structlog.dev.ConsoleRenderer(colors=out.isatty(), exception_formatter=_traceback)
        return [stamp, human], structlog.WriteLoggerFactory(out)
    json = [stamp, structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    return json, structlog.WriteLoggerFactory(out)


def _traceback(out: TextIO, error: Any) -> None:
    """A plain traceback: rich ones print local variables, and a token may be among them."""
    text = io.StringIO()
    structlog.dev.plain_traceback(text, error)
    out.write("\n".join(map(printable, text.getvalue().split("\n"))))


def _whole(_: Any, __: str, event: MutableMapping[str, Any]) -> tuple[tuple[Any], dict[str, Any]]:
    """Hand the event to the logger as it is: structlog would take a mapping for keyword arguments."""
    return (event,), {}


class _ToStructlog(logging.Handler):
    """Libraries' warnings in our own form. Their INFO stays out: uvicorn logs paths with their query strings there."""

    def emit(self, record: logging.LogRecord) -> None:
        structlog.get_logger(record.name).log(record.levelno, record.getMessage(), exc_info=record.exc_info)


def _escape(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Make every text harmless on a terminal: users choose names, and terminals obey escape sequences."""
    for key, value in event.items():
        if isinstance(value, str) and not value.isalnum():
            event[key] = printable(value)
    return event
