"""Creates OpenTelemetry spans for fired and handled events, linked across services."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any

import attrs

from lightbus.bus import Bus
from lightbus.exceptions import ConfigError
from lightbus.handling.middleware import Handle, Middleware, Send
from lightbus.message import EventMessage

try:
    from opentelemetry import trace
    from opentelemetry.context import Context
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
except ModuleNotFoundError as error:
    raise ConfigError(
        "Tracing needs the extra `opentelemetry`. Install it: "
        "pip install 'lightbus[opentelemetry]'."
    ) from error

_TRACEPARENT = "traceparent"


def trace_events(bus: Bus, tracer_provider: trace.TracerProvider | None = None) -> None:
    """Create a span for each event that `bus` fires, and for each that its listeners handle.

    If an event was fired in a span, in this or another service, the span of its handler is a child
    of that span. The event contains the ``traceparent`` of W3C Trace Context (section 3.2), but no
    ``tracestate``. Names and attributes follow OpenTelemetry's semantic conventions for messaging.

    Args:
        bus: The bus to trace.
        tracer_provider: The provider of the tracer. Default: the global provider.

    Raises:
        ConfigError: On import: the extra ``lightbus[opentelemetry]`` is not installed.
    """
    bus.client.add_middleware(_Tracing(bus, tracer_provider))


class _Tracing(Middleware):
    def __init__(self, bus: Bus, tracer_provider: trace.TracerProvider | None) -> None:
        self._client = bus.client
        self._tracer = trace.get_tracer("lightbus", tracer_provider=tracer_provider)
        self._propagator = TraceContextTextMapPropagator()

    async def send(self, message: EventMessage, call_next: Send) -> None:
        is_in_span = trace.get_current_span().get_span_context().is_valid
        with self._tracer.start_as_current_span(
            f"send {message.canonical_name}",
            context=None if is_in_span else self._context_of(message),
            kind=trace.SpanKind.PRODUCER,
            attributes=self._attributes(message, "send"),
        ) as span:
            carrier: dict[str, str] = {}
            self._propagator.inject(carrier)
            traceparent = carrier.get(_TRACEPARENT, message.traceparent)
            with _recording_errors(span):
                await call_next(attrs.evolve(message, traceparent=traceparent))

    async def handle(self, message: EventMessage, listener_name: str, call_next: Handle) -> None:
        with (
            self._tracer.start_as_current_span(
                f"process {message.canonical_name}",
                context=self._context_of(message),
                kind=trace.SpanKind.CONSUMER,
                attributes={
                    **self._attributes(message, "process"),
                    "messaging.consumer.group.name": self._client.config.service_name,
                    "messaging.destination.subscription.name": listener_name,
                },
            ) as span,
            _recording_errors(span),
        ):
            await call_next()

    def _context_of(self, message: EventMessage) -> Context:
        return self._propagator.extract({_TRACEPARENT: message.traceparent})

    def _attributes(self, message: EventMessage, operation: str) -> dict[str, Any]:
        return {
            "messaging.system": self._client.transports.name(message.api_name),
            "messaging.operation.name": operation,
            "messaging.operation.type": operation,
            "messaging.destination.name": message.canonical_name,
            "messaging.message.id": message.id,
            "messaging.message.body.size": len(message.body),
        }


@contextlib.contextmanager
def _recording_errors(span: trace.Span) -> Iterator[None]:
    """Record in a span that it ended with an error, or a cancellation, such as a timeout."""
    try:
        yield
    except Exception as error:
        # The SDK records the error and sets the status, but does not set this attribute.
        span.set_attribute("error.type", f"{type(error).__module__}.{type(error).__qualname__}")
        raise
    except asyncio.CancelledError:
        span.set_status(trace.StatusCode.ERROR, "cancelled")
        span.set_attribute("error.type", "cancelled")
        raise
