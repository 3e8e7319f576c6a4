"""One delivery through one listener: decode, call, settle."""

from __future__ import annotations

import asyncio
import functools
import itertools
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from lightbus.client import BusClient
from lightbus.exceptions import (
    AttemptsExhausted,
    EventRequeued,
    HandlerExited,
    HandlerTimeout,
    TransportError,
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
from lightbus.log import get_logger
from lightbus.message import EventMessage
from lightbus.policy import OnError
from lightbus.transport.contract import Delivery, DeliveryStream
from lightbus.transport.failure import Failure
from lightbus.transport.features import LastAttempt
from lightbus.transport.kit import backoff

_log = get_logger(__name__)

# One redelivery is an accident; from the second on, the event may be what kills its workers.
_SUSPICIOUS_REDELIVERIES = 2

_EVENTS_IN_A_TURN = 20


class Dispatcher:
    """Takes the deliveries of one listener through its handler.

    Args:
        listener: Whose deliveries these are.
        client: Offers the hooks and the event's fields.
        threads: Where a sync handler runs.
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
        self._on_failure = on_failure
        self._on_error = on_error
        self._is_async = is_async(listener.handler)
        self._process_name = client.config.process_name()
        self._plans = {name: self._plan(name) for name in listener.events}

    def _plan(self, event_name: str) -> CallPlan:
        listener = self._listener
        return self._client.listeners.plan_call(listener.handler, listener.api_name, event_name)

    async def run(self, stream: DeliveryStream, stopping: asyncio.Event) -> None:
        """Dispatch the deliveries of `stream`, one after another, until it is closed or `stopping`
        is set.
        """
        limit = self._new_limit()
        turns = itertools.cycle(range(_EVENTS_IN_A_TURN))
        try:
            async for delivery in stream:
                await self._dispatch(delivery, limit)
                if stopping.is_set():
                    return  # the stream gives back what is left
                # Neither a stream nor a handler need ever wait, and others must have their turn.
                if next(turns) == 0:
                    await asyncio.sleep(0)
        finally:
            limit.close()

    async def dispatch(self, delivery: Delivery) -> None:
        """Call the handler with one delivery, and settle it.

        Cancelled, it gives the delivery back.
        """
        limit = self._new_limit()
        try:
            await self._dispatch(delivery, limit)
        finally:
            limit.close()

    def _new_limit(self) -> TimeLimit[Delivery]:
        return TimeLimit(self._listener.acknowledgement_timeout, self._timed_out)

    async def _dispatch(self, delivery: Delivery, limit: TimeLimit[Delivery]) -> None:
        try:
            most = self._listener.max_attempts
            if delivery.redeliveries >= _SUSPICIOUS_REDELIVERIES and delivery.attempt <= most:
                await self._defer(delivery)
            elif delivery.attempt >= most and delivery.attempt > 1:
                await self._attempt_last(delivery, limit)
            else:
                await self._attempt(delivery, limit)
        except asyncio.CancelledError:
            await delivery.requeue()
            raise

    async def _attempt_last(self, delivery: Delivery, limit: TimeLimit[Delivery]) -> None:
        most = self._listener.max_attempts
        last: Delivery | None = None

        async def start() -> None:
            nonlocal last
            if isinstance(delivery, LastAttempt):
                last = await delivery.last_attempt(most)
            else:
                last = delivery if delivery.attempt <= most else None

        try:
            await self._settle(delivery, start)
        except EventRequeued:
            return
        if last is None:
            error = AttemptsExhausted(self._listener.name, most)
            self._on_error(error)
            await self._give_up(delivery, error)
            return
        try:
            await self._attempt(last, limit)
        except asyncio.CancelledError:
            await last.requeue()
            raise

    async def _defer(self, delivery: Delivery) -> None:
        after = self._listener.acknowledgement_timeout
        _log.warning(
            "Workers were lost, or timed out, with this event; it waits before the next try.",
            redeliveries=delivery.redeliveries,
            after=after,
            **self._fields(delivery),
        )
        await self._settle(delivery, functools.partial(delivery.retry, after=after, counts=False))

    async def _attempt(self, delivery: Delivery, limit: TimeLimit[Delivery]) -> None:
        try:
            call = self._call_for(delivery.message)
        except (UndecodableEvent, UnfitEvent, UnexpectedEvent) as error:
            self._on_error(error)
            await self._give_up(delivery, error)
            return
        except Exception as error:
            await self._failed(delivery, error)
            return
        try:
            is_in_time = await limit.run(self._handle(call, delivery.message), delivery)
        except WorkCancelled as error:
            await self._failed(delivery, HandlerExited(self._listener.name, error))
        except Exception as error:
            await self._failed(delivery, error)
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
        """Call the handler, with what is around it; all sync code of it on one thread."""
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
        """Await `work`. Turn an attempt to end the process into an `Exception`."""
        try:
            result = await work()
            if result is not None:
                await finish(result, self._listener.handler)
        except (Exception, asyncio.CancelledError):
            raise
        except BaseException as error:
            raise HandlerExited(self._listener.name, error) from error

    async def _timed_out(self, delivery: Delivery, handler_ended: asyncio.Event) -> None:
        timeout = self._listener.acknowledgement_timeout
        error = HandlerTimeout(self._listener.name, timeout)
        self._on_error(error)
        async with asyncio.TaskGroup() as both:
            # Beside the settlement, so that a broker that is away cannot hide a stuck handler.
            both.create_task(self._report_if_stuck(delivery, handler_ended))
            if delivery.attempt >= self._listener.max_attempts:
                await self._give_up(delivery, error)
            else:
                _log.error(f"{error} The event will be retried.", **self._fields(delivery))
                await self._settle(delivery, functools.partial(delivery.retry, after=0))

    async def _report_if_stuck(self, delivery: Delivery, handler_ended: asyncio.Event) -> None:
        # Until the handler has really ended, it counts among the listener's concurrent ones.
        timeout = self._listener.acknowledgement_timeout
        try:
            async with asyncio.timeout(timeout):
                await handler_ended.wait()
        except TimeoutError:
            stuck = HandlerTimeout(self._listener.name, timeout, is_stuck=True)
            _log.critical(str(stuck), **self._fields(delivery))
            self._on_failure(stuck)

    async def _failed(self, delivery: Delivery, error: Exception) -> None:
        self._on_error(error)
        is_last = delivery.attempt >= self._listener.max_attempts
        if is_last or self._listener.on_error is OnError.ACKNOWLEDGE_AND_LOG:
            await self._give_up(delivery, error)
            return
        if self._listener.on_error is OnError.RETRY:
            after = self._listener.retry.delay_after(delivery.attempt)
            message = "A listener failed; the event will be retried."
        else:
            after = self._listener.acknowledgement_timeout
            message = "A listener failed; the event will be retried, and the worker exits."
        _log.error(message, after=after, exc_info=error, **self._fields(delivery))
        if self._listener.on_error is OnError.SHUTDOWN:
            # Called first, so that an unreachable broker cannot keep the worker from exiting.
            self._on_failure(error)
        await self._settle(delivery, functools.partial(delivery.retry, after=after))

    async def _give_up(self, delivery: Delivery, error: Exception) -> None:
        _log.error(
            "An event could not be handled; it is kept as a dead letter.",
            exc_info=error,
            **self._fields(delivery),
        )
        failure = Failure.of(
            error,
            listener=self._listener.name,
            attempt=delivery.attempt,
            service_name=self._client.config.service_name,
            process_name=self._process_name,
            first_failed_at=delivery.first_failed_at,
        )
        await self._settle(delivery, functools.partial(delivery.dead_letter, failure))

    async def _settle(self, delivery: Delivery, settle: Callable[[], Awaitable[None]]) -> None:
        for wait in backoff(longest=30.0):
            try:
                await settle()
                return
            except TransportError as error:
                _log.error(
                    "Could not settle the event at the broker; listener paused.",
                    reason=str(error),
                    next_try_in=round(wait, 1),
                    **self._fields(delivery),
                )
                await asyncio.sleep(wait)

    def _fields(self, delivery: Delivery) -> dict[str, Any]:
        message = delivery.message
        return {
            "event_id": message.id,
            "api": message.api_name,
            "event_name": message.event_name,
            "listener": self._listener.name,
            "attempt": delivery.attempt,
        }
