"""Counters and durations of events."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from core.apis import AuthApi
from core.support import Broken, MakeBus, Received, eventually
from lightbus import Bus, EventMessage, OnError, Worker
from lightbus.exceptions import TransportUnavailable
from lightbus.handling.middleware import MetricsSource
from lightbus.integrations.prometheus import count_events


@pytest.fixture
def bus(make_bus: MakeBus) -> Bus:
    return make_bus(AuthApi)


@pytest.fixture
def registry(bus: Bus) -> CollectorRegistry:
    found = CollectorRegistry()
    count_events(bus, found)
    return found


LISTENER = {"api": "auth", "event": "user_deleted", "listener": "gather"}


async def test_fired_and_handled_events_are_counted(
    bus: Bus, registry: CollectorRegistry, received: Received
) -> None:
    def handle(username: str) -> None:
        running = registry.get_sample_value("lightbus_handlers_running", LISTENER)
        received.add(running)
        if username == "bob":
            raise Broken

    bus.auth.user_deleted.listen(
        handle, listener_name="gather", on_error=OnError.ACKNOWLEDGE_AND_LOG
    )

    def handled(outcome: str) -> float | None:
        labels = {**LISTENER, "outcome": outcome}
        return registry.get_sample_value("lightbus_events_handled_total", labels)

    async with Worker(bus):
        for username in ("ann", "bob", "cid"):
            await bus.auth.user_deleted.fire_async(username=username)
        assert await received.next_ones(3) == [1, 1, 1]
        await eventually(lambda: handled("handled") == 2)

    event = {"api": "auth", "event": "user_deleted"}
    assert handled("failed") == 1
    value = registry.get_sample_value
    assert value("lightbus_events_fired_total", {**event, "outcome": "stored"}) == 3
    assert value("lightbus_fire_seconds_count", event) == 3
    assert value("lightbus_handle_seconds_count", LISTENER) == 3
    assert value("lightbus_delay_seconds_count", LISTENER) == 3
    assert value("lightbus_handlers_running", LISTENER) == 0
    (metrics,) = bus.client.middleware
    assert isinstance(metrics, MetricsSource)
    assert b"lightbus_events_handled_total" in metrics.metrics_page()[1]


async def test_events_that_failed_or_took_too_long_are_counted_separately(
    make_bus: MakeBus, received: Received
) -> None:
    bus, registry = make_bus(AuthApi, acknowledgement_timeout=0.05), CollectorRegistry()
    count_events(bus, registry)

    async def handle(username: str) -> None:
        received.add(username)
        await asyncio.Event().wait()

    def handled(outcome: str) -> float | None:
        labels = {**LISTENER, "outcome": outcome}
        return registry.get_sample_value("lightbus_events_handled_total", labels)

    @bus.client.before_event_sent()
    def refuse(event_message: EventMessage) -> None:
        if event_message.kwargs["username"] == "bob":
            raise TransportUnavailable("the broker is away")

    bus.auth.user_deleted.listen(handle, listener_name="gather")
    async with Worker(bus):
        await bus.auth.user_deleted.fire_async(username="ann")
        with pytest.raises(TransportUnavailable):
            await bus.auth.user_deleted.fire_async(username="bob")
        await eventually(lambda: handled("cancelled"))

    labels: dict[str, Any] = {"api": "auth", "event": "user_deleted", "outcome": "failed"}
    assert registry.get_sample_value("lightbus_events_fired_total", labels) == 1
