"""`Dispatcher`: decodes a delivery, calls the handler of a listener, and settles the delivery."""

from __future__ import annotations

import asyncio
import functools
import itertools
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from lightbus.client import BusClient
from lightbus.exceptions import (
    AttemptsExhausted,
    HandlerExited,
    UndecodableEvent,
    UnexpectedEvent,
    UnfitEvent,
)
from lightbus.handling.calling import finish, is_async
from lightbus.handling.listener import Listener
from lightbus.handling.middleware import handle_through
from lightbus.handling.signatures import CallPlan
from lightbus.handling.threads import HandlerThread, HandlerThreads, handler_thread
from lightbus.handling.time_limit import TimeLimit, WorkCancelled
from lightbus.message import EventMessage
from lightbus.transport.contract import Delivery, DeliveryStream
from lightbus.transport.features import LastAttempt
from lightbus.transport.records import EventRequeued
from lightbus.worker.failures import FailurePolicy

# One redelivery may be an accident. After two, the event itself may be why its workers crash.
_SUSPICIOUS_REDELIVERIES = 2

_EVENTS_BEFORE_YIELD = 20


class Dispatcher:
    """Handles the deliveries of one listener.

    Args:
        listener: The listener.
        client: Has the hooks, the middleware and the declared fields of events.
        threads: The threads for sync handlers.
        on_failure: Called with an error for which the worker must exit.
        on_error: Called with every error of an event.

    Raises:
        InvalidEventListener: The handler cannot be called with one of the events.
    """

    def __init__(
        self,
        listener: Listener,
        *,
        client: BusClient,
        threads: HandlerThreads,
        on_failure: Callable[[BaseException], None],
        on_error: Callable[[BaseException], None] = lambda _: None,
    ) -> None:
        self._listener = listener
        self._client = client
        self._threads = threads
        self._is_async = is_async(listener.handler)
        self._failures = FailurePolicy(
            listener,
            service_name=client.config.service_name,
            process_name=client.config.process_name(),
            on_failure=on_failure,
            on_error=on_error,
        )
        self._plans = {name: self._plan(name) for name in listener.events}

    def _plan(self, event_name: str) -> CallPlan:
        listener = self._listener
        return self._client.listeners.plan_call(listener.handler, listener.api_name, event_name)

    async def run(self, stream: DeliveryStream, stopping: asyncio.Event) -> None:
        """Handle the deliveries of `stream`, one after the other.

        Returns when the stream ends, or `stopping` is set.
        """
        limit = self._new_limit()
        turns = itertools.cycle(range(_EVENTS_BEFORE_YIELD))
        try:
            async for delivery in stream:
                await self._dispatch(delivery, limit)
                if stopping.is_set():
                    return  # the stream requeues its other deliveries
                # Lets other tasks run, even if neither the stream nor the handler ever waits.
                if next(turns) == 0:
                    await asyncio.sleep(0)
        finally:
            limit.close()

    async def dispatch(self, delivery: Delivery) -> None:
        """Call the handler with one delivery, and settle the delivery.

        If this call is cancelled, the delivery is requeued.
        """
        limit = self._new_limit()
        try:
            await self._dispatch(delivery, limit)
        finally:
            limit.close()

    def _new_limit(self) -> TimeLimit[Delivery]:
        timeout = self._listener.acknowledgement_timeout
        return TimeLimit(timeout, self._failures.handler_timed_out)

    async def _dispatch(self, delivery: Delivery, limit: TimeLimit[Delivery]) -> None:
        try:
            maximum = self._listener.max_attempts
            if delivery.redeliveries >= _SUSPICIOUS_REDELIVERIES and delivery.attempt <= maximum:
                await self._failures.delay(delivery)
            elif delivery.attempt >= maximum and delivery.attempt > 1:
                await self._attempt_last(delivery, limit)
            else:
                await self._attempt(delivery, limit)
        except asyncio.CancelledError:
            await delivery.requeue()
            raise

    async def _attempt_last(self, delivery: Delivery, limit: TimeLimit[Delivery]) -> None:
        maximum = self._listener.max_attempts
        last: Delivery | None = None

        async def start() -> None:
            nonlocal last
            if isinstance(delivery, LastAttempt):
                last = await delivery.last_attempt(maximum)
            else:
                last = delivery if delivery.attempt <= maximum else None

        try:
            await self._failures.settle(delivery, start)
        except EventRequeued:
            return
        if last is None:
            await self._failures.give_up(delivery, AttemptsExhausted(self._listener.name, maximum))
            return
        try:
            await self._attempt(last, limit)
        except asyncio.CancelledError:
            await last.requeue()
            raise

    async def _attempt(self, delivery: Delivery, limit: TimeLimit[Delivery]) -> None:
        try:
            call = self._call_for(delivery.message)
        except (UndecodableEvent, UnfitEvent, UnexpectedEvent) as error:
            await self._failures.give_up(delivery, error)
            return
        except Exception as error:
            await self._failures.handler_failed(delivery, error)
            return
        try:
            is_in_time = await limit.run(self._handle(call, delivery.message), delivery)
        except WorkCancelled as error:
            exited = HandlerExited(self._listener.name, error)
            await self._failures.handler_failed(delivery, exited)
        except Exception as error:
            await self._failures.handler_failed(delivery, error)
        else:
            if is_in_time:
                await delivery.ack()

    def _call_for(self, message: EventMessage) -> Callable[[], Any]:
        plan = self._plans.get(message.event_name)
        if plan is None:
            raise UnexpectedEvent(self._listener.name, message.canonical_name)
        args, kwargs = plan.arguments(message)
        return functools.partial(self._listener.handler, *args, **kwargs)

    def _handle(self, call: Callable[[], Any], message: EventMessage) -> Coroutine[Any, Any, None]:
        client = self._client
        if (
            not self._is_async
            or client.middleware
            or client.before_event_execution
            or client.after_event_execution
        ):
            return self._handle_with_thread(call, message)
        return self._guarded(call)

    async def _handle_with_thread(self, call: Callable[[], Any], message: EventMessage) -> None:
        """Call the handler with its hooks and middleware. Their sync code runs on one thread."""
        with self._threads.reserve() as thread:
            handler_thread.set(thread)
            handle = functools.partial(self._handle_between_hooks, call, message, thread)
            await self._guarded(
                functools.partial(
                    handle_through, self._client.middleware, message, self._listener.name, handle
                )
            )

    async def _handle_between_hooks(
        self, call: Callable[[], Any], message: EventMessage, thread: HandlerThread
    ) -> None:
        client = self._client
        hook_arguments = {"event_message": message, "listener_name": self._listener.name}
        if client.before_event_execution:
            await client.before_event_execution.run(thread.call, **hook_arguments)
        result = await (call() if self._is_async else thread.call(call))
        if result is not None:
            await finish(result, self._listener.handler)
        if client.after_event_execution:
            await client.after_event_execution.run(thread.call, **hook_arguments)

    async def _guarded(self, work: Callable[[], Awaitable[object]]) -> None:
        """Await `work`, and convert errors such as `SystemExit` into an `Exception`."""
        try:
            result = await work()
            if result is not None:
                await finish(result, self._listener.handler)
        except (Exception, asyncio.CancelledError):
            raise
        except BaseException as error:
            raise HandlerExited(self._listener.name, error) from error
