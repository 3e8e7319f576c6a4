"""`FailurePolicy`: decides what happens to an event that a listener could not handle."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable
from typing import Any

from lightbus.exceptions import HandlerTimeout, TransportError
from lightbus.handling.listener import Listener
from lightbus.log import get_logger
from lightbus.policy import OnError
from lightbus.transport.contract import Delivery
from lightbus.transport.failure import Failure
from lightbus.transport.kit import backoff

_log = get_logger(__name__)


class FailurePolicy:
    """Retries or dead-letters the events that a listener could not handle.

    Args:
        listener: The listener, whose options decide.
        service_name: The name of the service, for dead letters.
        process_name: The name of this process, for dead letters.
        on_failure: Called with an error for which the worker must exit.
        on_error: Called with every error of an event.
    """

    def __init__(
        self,
        listener: Listener,
        *,
        service_name: str,
        process_name: str,
        on_failure: Callable[[BaseException], None],
        on_error: Callable[[BaseException], None],
    ) -> None:
        self._listener = listener
        self._service_name = service_name
        self._process_name = process_name
        self._on_failure = on_failure
        self._on_error = on_error

    async def delay(self, delivery: Delivery) -> None:
        """Delay an event that may be the reason why workers crashed. This is not an attempt."""
        after = self._listener.acknowledgement_timeout
        _log.warning(
            f"Event delayed by {after:g} s, because its workers crashed or timed out.",
            redeliveries=delivery.redeliveries,
            **self._log_fields(delivery),
        )
        await self.settle(delivery, functools.partial(delivery.retry, after=after, counts=False))

    async def handler_failed(self, delivery: Delivery, error: Exception) -> None:
        """Retry an event whose handler failed, or dead-letter it, according to `on_error`."""
        is_last = delivery.attempt >= self._listener.max_attempts
        if is_last or self._listener.on_error is OnError.ACKNOWLEDGE_AND_LOG:
            await self.give_up(delivery, error)
            return
        self._on_error(error)
        if self._listener.on_error is OnError.RETRY:
            after = self._listener.retry.delay_after(delivery.attempt)
            message = f"Handler failed; the event will be retried in {after:g} s."
        else:
            after = self._listener.acknowledgement_timeout
            message = f"Handler failed; worker exiting, the event will be retried in {after:g} s."
        _log.error(message, exc_info=error, **self._log_fields(delivery))
        if self._listener.on_error is OnError.SHUTDOWN:
            # Called first, so that an unreachable broker cannot keep the worker from exiting.
            self._on_failure(error)
        await self.settle(delivery, functools.partial(delivery.retry, after=after))

    async def handler_timed_out(self, delivery: Delivery, handler_ended: asyncio.Event) -> None:
        """Retry an event whose handler timed out, and wait for the handler to end.

        If the handler does not end within another timeout, the worker must exit.
        """
        timeout = self._listener.acknowledgement_timeout
        error = HandlerTimeout(self._listener.name, timeout)
        async with asyncio.TaskGroup() as group:
            # At the same time, so that an unreachable broker cannot hide a stuck handler.
            group.create_task(self._report_if_stuck(delivery, handler_ended))
            if delivery.attempt >= self._listener.max_attempts:
                await self.give_up(delivery, error)
            else:
                self._on_error(error)
                _log.error(f"{error} The event will be retried.", **self._log_fields(delivery))
                await self.settle(delivery, functools.partial(delivery.retry, after=0))

    async def _report_if_stuck(self, delivery: Delivery, handler_ended: asyncio.Event) -> None:
        timeout = self._listener.acknowledgement_timeout
        try:
            async with asyncio.timeout(timeout):
                await handler_ended.wait()
        except TimeoutError:
            stuck = HandlerTimeout(self._listener.name, timeout, is_stuck=True)
            _log.critical(str(stuck), **self._log_fields(delivery))
            self._on_failure(stuck)

    async def give_up(self, delivery: Delivery, error: Exception) -> None:
        """Dead-letter an event."""
        self._on_error(error)
        _log.error(
            "Event could not be handled; it becomes a dead letter.",
            exc_info=error,
            **self._log_fields(delivery),
        )
        failure = Failure.of(
            error,
            listener=self._listener.name,
            attempt=delivery.attempt,
            service_name=self._service_name,
            process_name=self._process_name,
            first_failed_at=delivery.first_failed_at,
        )
        await self.settle(delivery, functools.partial(delivery.dead_letter, failure))

    async def settle(self, delivery: Delivery, settle: Callable[[], Awaitable[None]]) -> None:
        """Call `settle` until it succeeds, with growing delays. Meanwhile the listener waits."""
        for wait in backoff(longest=30.0):
            try:
                await settle()
                return
            except TransportError as error:
                _log.error(
                    f"Could not settle the event at the broker; listener paused, retrying in "
                    f"{wait:.1f} s.",
                    reason=str(error),
                    **self._log_fields(delivery),
                )
                await asyncio.sleep(wait)

    def _log_fields(self, delivery: Delivery) -> dict[str, Any]:
        message = delivery.message
        return {
            "event_id": message.id,
            "api": message.api_name,
            "event_name": message.event_name,
            "listener": self._listener.name,
            "attempt": delivery.attempt,
        }
