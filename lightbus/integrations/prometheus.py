"""Numbers of what is fired and handled, for Prometheus."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager

from lightbus.bus import Bus
from lightbus.exceptions import PackageMissing
from lightbus.handling.middleware import Handle, Middleware, Send
from lightbus.message import EventMessage

try:
    from prometheus_client import (
        CONTENT_TYPE_LATEST,
        REGISTRY,
        CollectorRegistry,
        Counter,
        Gauge,
        Histogram,
        generate_latest,
    )
except ModuleNotFoundError as error:
    raise PackageMissing("To count events", "prometheus") from error

_EVENT = ("api", "event")
_LISTENER = (*_EVENT, "listener")

# Seconds
_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


def count_events(bus: Bus, registry: CollectorRegistry = REGISTRY) -> None:
    """Count the events that `bus` fires and that its listeners handle, and how long that takes, in
    seconds.

    ``lightbus run --health-port`` shows the numbers at ``/metrics``, in the text format of
    Prometheus.

    Args:
        bus: Whose events these are.
        registry: Where the numbers go; each registry takes those of one bus.

    Raises:
        PackageMissing: On import, where the extra ``lightbus[prometheus]`` is not installed.
        ValueError: `registry` has such numbers already, of this bus or of another.
    """
    bus.client.add_middleware(_Metrics(registry))
    bus.client.metrics_page = lambda: (CONTENT_TYPE_LATEST, generate_latest(registry))


class _Metrics(Middleware):
    def __init__(self, registry: CollectorRegistry) -> None:
        self._fired = Counter(
            "lightbus_events_fired",
            "Events that were fired; the outcome is stored, or failed.",
            (*_EVENT, "outcome"),
            registry=registry,
        )
        self._fire_seconds = Histogram(
            "lightbus_fire_seconds",
            "From fire() to the broker's confirm, or an error.",
            _EVENT,
            buckets=_BUCKETS,
            registry=registry,
        )
        self._handled = Counter(
            "lightbus_events_handled",
            "Attempts; the outcome is handled, failed, or cancelled (timed out, or stopped).",
            (*_LISTENER, "outcome"),
            registry=registry,
        )
        self._handle_seconds = Histogram(
            "lightbus_handle_seconds",
            "How long a handler took, whatever the outcome.",
            _LISTENER,
            buckets=_BUCKETS,
            registry=registry,
        )
        self._running = Gauge(
            "lightbus_handlers_running",
            "Handlers that run now.",
            _LISTENER,
            registry=registry,
        )
        self._delay_seconds = Histogram(
            "lightbus_delay_seconds",
            "From fire() to an attempt, the first or a later one, by the clocks of both machines.",
            _LISTENER,
            buckets=(*_BUCKETS, 300, 1800, 7200),
            registry=registry,
        )

    async def send(self, message: EventMessage, call_next: Send) -> None:
        labels = (message.api_name, message.event_name)
        with _counted(self._fired, labels, "stored"), self._fire_seconds.labels(*labels).time():
            await call_next(message)

    async def handle(self, message: EventMessage, listener_name: str, call_next: Handle) -> None:
        labels = (message.api_name, message.event_name, listener_name)
        delay = max(time.time() - message.fired_at.timestamp(), 0)
        self._delay_seconds.labels(*labels).observe(delay)
        with (
            _counted(self._handled, labels, "handled"),
            self._running.labels(*labels).track_inprogress(),
            self._handle_seconds.labels(*labels).time(),
        ):
            await call_next()


@contextmanager
def _counted(counter: Counter, labels: tuple[str, ...], good: str) -> Iterator[None]:
    outcome = good
    try:
        yield
    except asyncio.CancelledError:
        outcome = "cancelled"
        raise
    except BaseException:
        outcome = "failed"
        raise
    finally:
        counter.labels(*labels, outcome).inc()
