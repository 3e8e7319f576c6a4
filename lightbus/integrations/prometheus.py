"""Prometheus metrics of fired and handled events."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from lightbus.bus import Bus
from lightbus.exceptions import ConfigError
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
    raise ConfigError(
        "Metrics need the extra `prometheus`. Install it: pip install 'lightbus[prometheus]'."
    ) from error

_EVENT = ("api", "event")
_LISTENER = (*_EVENT, "listener")

# Seconds
_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


def count_events(bus: Bus, registry: CollectorRegistry = REGISTRY) -> None:
    """Count the events that `bus` fires and its listeners handle, and measure the durations.

    ``lightbus run --health-port`` serves the metrics at ``/metrics``, in the text format of
    Prometheus.

    Args:
        bus: The bus to measure.
        registry: The registry for the metrics. A registry supports one bus.

    Raises:
        ConfigError: On import: the extra ``lightbus[prometheus]`` is not installed.
        ValueError: `registry` already contains the metrics of a bus.
    """
    bus.client.add_middleware(_Metrics(registry))


class _Metrics(Middleware):
    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        counter = partial(Counter, registry=registry)
        gauge = partial(Gauge, registry=registry)
        histogram = partial(Histogram, registry=registry)
        self._fired = counter(
            "lightbus_events_fired",
            "Fired events, by outcome: stored or failed.",
            (*_EVENT, "outcome"),
        )
        self._fire_seconds = histogram(
            "lightbus_fire_seconds",
            "Time from fire() to the confirmation of the broker, or to an error.",
            _EVENT,
            buckets=_BUCKETS,
        )
        self._handled = counter(
            "lightbus_events_handled",
            "Attempts, by outcome: handled, failed or cancelled (timeout, or the worker stopped).",
            (*_LISTENER, "outcome"),
        )
        self._handle_seconds = histogram(
            "lightbus_handle_seconds",
            "Duration of a handler, for all outcomes.",
            _LISTENER,
            buckets=_BUCKETS,
        )
        self._running = gauge(
            "lightbus_handlers_running",
            "Handlers that are running.",
            _LISTENER,
        )
        self._delay_seconds = histogram(
            "lightbus_delay_seconds",
            "Time from fire() to an attempt, first or later, by the clocks of both machines.",
            _LISTENER,
            buckets=(*_BUCKETS, 300, 1800, 7200),
        )

    def metrics_page(self) -> tuple[str, bytes]:
        return CONTENT_TYPE_LATEST, generate_latest(self._registry)

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
def _counted(counter: Counter, labels: tuple[str, ...], success: str) -> Iterator[None]:
    outcome = success
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
