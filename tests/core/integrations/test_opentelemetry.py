"""Traces of fired and handled events."""

from __future__ import annotations

import asyncio

import attrs
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from core.apis import AuthApi
from core.support import PATIENCE, Broken, MakeBus, Received, eventually
from lightbus import Bus, EventMessage, OnError, Worker
from lightbus.integrations.opentelemetry import trace_events


@pytest.fixture
def bus(make_bus: MakeBus) -> Bus:
    return make_bus(AuthApi)


def provider_of(exporter: InMemorySpanExporter) -> TracerProvider:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return provider


@pytest.fixture
def exported(bus: Bus) -> InMemorySpanExporter:
    exporter = InMemorySpanExporter()
    trace_events(bus, provider_of(exporter))
    return exporter


def spans(exported: InMemorySpanExporter) -> dict[str, ReadableSpan]:
    return {span.name: span for span in exported.get_finished_spans()}


@pytest.mark.parametrize("is_async", [True, False])
async def test_the_span_of_a_handled_event_is_a_child_of_the_fired_one(
    bus: Bus, exported: InMemorySpanExporter, received: Received, *, is_async: bool
) -> None:
    def handle(message: EventMessage) -> None:
        received.add((message, trace.get_current_span().get_span_context().span_id))

    async def handle_async(message: EventMessage) -> None:
        handle(message)

    bus.auth.user_deleted.listen(handle_async if is_async else handle, listener_name="gather")
    async with Worker(bus):
        fired = await bus.auth.user_deleted.fire_async(username="ann")
        message, current = await received.next()

    assert message == fired
    found = spans(exported)
    send, process = found["send auth.user_deleted"], found["process auth.user_deleted"]
    assert (send.kind, process.kind) == (SpanKind.PRODUCER, SpanKind.CONSUMER)
    assert send.context is not None
    assert process.context is not None
    ids = f"{send.context.trace_id:032x}-{send.context.span_id:016x}"
    assert fired.traceparent.startswith(f"00-{ids}-")
    assert process.parent is not None
    assert process.parent.span_id == send.context.span_id
    assert process.context.trace_id == send.context.trace_id
    assert current == process.context.span_id
    assert process.attributes == {
        "messaging.system": "memory",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": "auth.user_deleted",
        "messaging.destination.subscription.name": "gather",
        "messaging.consumer.group.name": "shop",
        "messaging.message.id": fired.id,
        "messaging.message.body.size": len(fired.body),
    }


async def test_an_event_that_is_fired_by_a_handler_belongs_to_the_same_trace(
    bus: Bus, exported: InMemorySpanExporter, received: Received
) -> None:
    async def handle(username: str) -> None:
        await bus.auth.user_created.fire_async(username=username, email="e")
        received.add(username)

    bus.auth.user_deleted.listen(handle, listener_name="gather")
    async with Worker(bus):
        await bus.auth.user_deleted.fire_async(username="ann")
        await received.next()

    assert len({span.context.trace_id for span in spans(exported).values() if span.context}) == 1
    assert len(spans(exported)) == 3


async def test_the_span_of_a_failing_handler_has_the_error(
    bus: Bus, exported: InMemorySpanExporter
) -> None:
    def handle(username: str) -> None:
        raise Broken("oh")

    bus.auth.user_deleted.listen(
        handle, listener_name="gather", on_error=OnError.ACKNOWLEDGE_AND_LOG
    )
    async with Worker(bus):
        await bus.auth.user_deleted.fire_async(username="ann")
        await eventually(lambda: "process auth.user_deleted" in spans(exported))

    process = spans(exported)["process auth.user_deleted"]
    assert process.status.status_code is StatusCode.ERROR
    assert [event.name for event in process.events] == ["exception"]
    assert (process.attributes or {})["error.type"] == "core.support.Broken"


async def test_an_event_without_a_trace_starts_one(
    bus: Bus, exported: InMemorySpanExporter, received: Received
) -> None:
    bus.auth.user_deleted.listen(received.add_name, listener_name="gather")
    transport = await bus.client.transports.open("auth")
    async with Worker(bus):
        await transport.send(
            EventMessage.create("auth", "user_deleted", {"username": "ann"}), timeout=PATIENCE
        )
        await received.next()

    assert spans(exported)["process auth.user_deleted"].parent is None


async def test_the_span_of_a_late_handler_has_the_timeout(make_bus: MakeBus) -> None:
    bus = make_bus(AuthApi, acknowledgement_timeout=0.05, max_attempts=1)
    exporter = InMemorySpanExporter()
    trace_events(bus, provider_of(exporter))

    async def handle(username: str) -> None:
        await asyncio.Event().wait()

    bus.auth.user_deleted.listen(handle, listener_name="gather")
    async with Worker(bus):
        await bus.auth.user_deleted.fire_async(username="ann")
        await eventually(lambda: "process auth.user_deleted" in spans(exporter))
    process = spans(exporter)["process auth.user_deleted"]
    assert process.status.status_code is StatusCode.ERROR
    assert (process.attributes or {})["error.type"] == "cancelled"


TRACEPARENT = f"00-{'a' * 32}-{'b' * 16}-01"


async def test_a_trace_of_a_message_is_continued(bus: Bus, exported: InMemorySpanExporter) -> None:
    message = bus.client.publisher.message("auth", "user_deleted", {"username": "ann"})
    sent = await bus.client.fire_async(attrs.evolve(message, traceparent=TRACEPARENT))
    assert sent.traceparent.startswith(f"00-{'a' * 32}-")
    parent = spans(exported)["send auth.user_deleted"].parent
    assert parent is not None
    assert parent.span_id == int("b" * 16, 16)


async def test_a_trace_of_a_message_is_kept_without_spans(bus: Bus) -> None:
    trace_events(bus, trace.NoOpTracerProvider())
    message = bus.client.publisher.message("auth", "user_deleted", {"username": "ann"})
    sent = await bus.client.fire_async(attrs.evolve(message, traceparent=TRACEPARENT))
    assert sent.traceparent == TRACEPARENT
