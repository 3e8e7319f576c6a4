"""Code around the sending and the handling of events; and traces and metrics, which are such."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import attrs
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from prometheus_client import CollectorRegistry

from core.apis import AuthApi
from core.support import PATIENCE, Broken, MakeBus, Received, eventually
from lightbus import Bus, EventMessage, OnError, Worker
from lightbus.exceptions import ApiError, HandlerExited, TransportUnavailable
from lightbus.handling.middleware import Handle, Middleware, Send, run_on_handler_thread
from lightbus.integrations.opentelemetry import trace_events
from lightbus.integrations.prometheus import count_events


@pytest.fixture
def bus(make_bus: MakeBus) -> Bus:
    return make_bus(AuthApi)


class Noting(Middleware):
    def __init__(self, name: str, notes: list[str]) -> None:
        self._name = name
        self._notes = notes

    async def send(self, message: EventMessage, call_next: Send) -> None:
        self._notes.append(f"{self._name} sends {message.event_name}")
        await call_next(attrs.evolve(message, service_name=f"{message.service_name}+{self._name}"))
        self._notes.append(f"{self._name} has sent")

    async def handle(self, message: EventMessage, listener_name: str, call_next: Handle) -> None:
        self._notes.append(f"{self._name} handles for {listener_name}")
        await call_next()
        self._notes.append(f"{self._name} has handled")


async def test_what_was_added_first_is_outermost(bus: Bus, received: Received) -> None:
    notes: list[str] = []
    for name in ("outer", "inner"):
        bus.client.add_middleware(Noting(name, notes))
    bus.client.before_event_sent(lambda event_message: notes.append("hook before sending"))
    bus.auth.user_deleted.listen(received.add_name, listener_name="gather")

    async with Worker(bus):
        message = await bus.auth.user_deleted.fire_async(username="ann")
        assert await received.next() == "ann"

    assert message.service_name == "shop+outer+inner"
    sent = ["outer sends user_deleted", "inner sends user_deleted", "hook before sending"]
    assert [note for note in notes if "handle" not in note] == [
        *sent,
        "inner has sent",
        "outer has sent",
    ]
    assert [note for note in notes if "handle" in note] == [
        "outer handles for gather",
        "inner handles for gather",
        "inner has handled",
        "outer has handled",
    ]


def test_a_blocking_fire_returns_the_message_as_it_was_sent(bus: Bus) -> None:
    bus.client.add_middleware(Noting("outer", []))
    assert bus.auth.user_deleted.fire(username="ann").service_name == "shop+outer"


async def test_an_error_of_a_middleware_counts_as_the_handlers(
    bus: Bus, received: Received
) -> None:
    class Failing(Middleware):
        async def handle(
            self, message: EventMessage, listener_name: str, call_next: Handle
        ) -> None:
            await call_next()
            raise Broken

    bus.client.add_middleware(Failing())
    bus.auth.user_deleted.listen(received.add_name, listener_name="gather")
    worker = Worker(bus)
    await worker.start()
    await bus.auth.user_deleted.fire_async(username="ann")
    assert await received.next() == "ann"
    await worker.stop()
    assert isinstance(worker.failure, Broken)


@pytest.mark.parametrize("raised", [SystemExit(3), KeyboardInterrupt(), GeneratorExit()], ids=repr)
async def test_a_middleware_that_exits_counts_as_a_handler_that_does(
    bus: Bus, raised: BaseException
) -> None:
    class Exiting(Middleware):
        async def handle(
            self, message: EventMessage, listener_name: str, call_next: Handle
        ) -> None:
            raise raised

    bus.client.add_middleware(Exiting())
    bus.auth.user_deleted.listen(lambda username: None, listener_name="gather")
    worker = Worker(bus)
    await worker.start()
    await bus.auth.user_deleted.fire_async(username="ann")
    await eventually(lambda: worker.failure)
    await worker.stop()
    assert isinstance(worker.failure, HandlerExited)


async def test_what_a_middleware_raises_once_the_event_is_stored_is_logged(
    bus: Bus, received: Received, caplog: pytest.LogCaptureFixture
) -> None:
    class Failing(Middleware):
        async def send(self, message: EventMessage, call_next: Send) -> None:
            await call_next(message)
            raise Broken

    bus.client.add_middleware(Failing())
    bus.auth.user_deleted.listen(received.add_name, listener_name="gather")
    async with Worker(bus):
        await bus.auth.user_deleted.fire_async(username="ann")
        assert await received.next() == "ann"
    assert "Middleware failed after the event was stored." in caplog.text


# Traces


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
async def test_what_is_handled_is_a_child_of_what_was_fired(
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


async def test_a_handler_that_fails_is_told_in_its_span(
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


async def test_an_event_that_came_without_a_trace_begins_one(
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


async def test_a_handler_whose_time_is_over_is_told_in_its_span(make_bus: MakeBus) -> None:
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


async def test_a_trace_that_a_message_has_goes_on(bus: Bus, exported: InMemorySpanExporter) -> None:
    message = bus.client.publisher.message("auth", "user_deleted", {"username": "ann"})
    sent = await bus.client.fire_async(attrs.evolve(message, traceparent=TRACEPARENT))
    assert sent.traceparent.startswith(f"00-{'a' * 32}-")
    parent = spans(exported)["send auth.user_deleted"].parent
    assert parent is not None
    assert parent.span_id == int("b" * 16, 16)


async def test_a_trace_that_a_message_has_is_kept_where_no_spans_are_made(bus: Bus) -> None:
    trace_events(bus, trace.NoOpTracerProvider())
    message = bus.client.publisher.message("auth", "user_deleted", {"username": "ann"})
    sent = await bus.client.fire_async(attrs.evolve(message, traceparent=TRACEPARENT))
    assert sent.traceparent == TRACEPARENT


# Metrics


@pytest.fixture
def registry(bus: Bus) -> CollectorRegistry:
    found = CollectorRegistry()
    count_events(bus, found)
    return found


LISTENER = {"api": "auth", "event": "user_deleted", "listener": "gather"}


async def test_what_is_fired_and_handled_is_counted(
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
    assert bus.client.metrics_page is not None
    assert b"lightbus_events_handled_total" in bus.client.metrics_page()[1]


async def test_what_could_not_be_fired_or_took_too_long_is_counted_apart(
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


local = threading.local()


class Tenancy(Middleware):
    """Has the handler's thread know something."""

    async def handle(self, message: EventMessage, listener_name: str, call_next: Handle) -> None:
        await run_on_handler_thread(lambda: setattr(local, "tenant", "acme"))
        try:
            await call_next()
        finally:
            await run_on_handler_thread(lambda: delattr(local, "tenant"))


async def test_a_middleware_runs_code_on_the_thread_of_a_handler_also_where_that_fails(
    bus: Bus, received: Received
) -> None:
    bus.client.add_middleware(Tenancy())

    def handle(username: str) -> None:
        received.add(local.tenant)
        raise Broken

    bus.auth.user_deleted.listen(
        handle, listener_name="gather", on_error=OnError.ACKNOWLEDGE_AND_LOG
    )
    async with Worker(bus):
        await bus.auth.user_deleted.fire_async(username="ann")
        await bus.auth.user_deleted.fire_async(username="bob")

        assert await received.next_ones(2) == ["acme", "acme"]


async def test_a_middleware_around_an_async_handler_shares_a_thread_with_the_sync_hooks(
    bus: Bus, received: Received
) -> None:
    bus.client.add_middleware(Tenancy())
    bus.client.before_event_execution(lambda: received.add(local.tenant))

    async def handle(username: str) -> None: ...

    bus.auth.user_deleted.listen(handle, listener_name="gather")
    async with Worker(bus):
        await bus.auth.user_deleted.fire_async(username="ann")

        assert await received.next() == "acme"


async def test_code_that_would_wait_for_a_handlers_thread_is_refused_at_once(
    bus: Bus, received: Received
) -> None:
    raised: list[BaseException] = []

    async def run_there() -> None:
        try:
            await run_on_handler_thread(lambda: None)
        except ApiError as error:
            raised.append(error)

    await run_there()
    assert len(raised) == 1

    bus.client.before_event_sent(run_there)

    def handle(username: str) -> None:
        if username == "ann":
            bus.auth.user_deleted.fire(username="bob")
        received.add(username)

    bus.auth.user_deleted.listen(handle, listener_name="gather")
    async with Worker(bus):
        await bus.auth.user_deleted.fire_async(username="ann")
        assert await received.next_ones(2) == ["ann", "bob"]

    assert len(raised) == 3
