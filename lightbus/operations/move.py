"""`Move`: moves the events of a service from one broker to another without losing any.

Each event is stored at the new broker before it is removed from the old one. A move that was
interrupted can be started again. Events that were in flight at that moment may then exist twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

import attrs

from lightbus.client import BusClient
from lightbus.exceptions import ConfigError
from lightbus.handling.listener import Listener
from lightbus.operations.started import started
from lightbus.transport.contract import Delivery, DeliveryStream, EventTransport
from lightbus.transport.features import DeadLetterStore, QueueStats, SharedBroker, require
from lightbus.transport.records import Subscription, SubscriptionStats

# The number of events of one queue that are in flight at the same time
_MAX_IN_FLIGHT = 64

# The interval between counts of a queue, in seconds
_COUNT_INTERVAL = 0.25

# How much later than its delay an event may be redelivered, in seconds
_MARGIN = 1.0

# The time limit for requeuing an event that was not moved, in seconds
_REQUEUE_TIMEOUT = 1.0

# An event may be delivered twice. After more deliveries, the events move in a circle.
_MAX_DELIVERIES = 3


@attrs.define(eq=False)
class QueueMove:
    """The progress of moving the events of one listener.

    Attributes:
        listener: The listener.
        moved: The number of events that were moved.
        in_flight: The number of events that are being moved.
        left: The number of events that are left, as of the last count.
        is_done: Whether all events were moved.
        has_started: Whether the first event was moved.
        turn: The lock for the next event to send.
        first_id: The id of the first event.
        first_deliveries: How often the first event was delivered.
    """

    listener: Listener
    moved: int = 0
    in_flight: int = 0
    left: int = 0
    is_done: bool = False
    has_started: bool = False
    turn: asyncio.Lock = attrs.field(factory=asyncio.Lock)
    first_id: str = ""
    first_deliveries: int = 0


class Move:
    """Moves the waiting, delayed and dead events of the listeners of `source`.

    Args:
        source: The client of the service's bus.
        target: A client whose configuration names the target broker.

    Attributes:
        queues: The progress of each queue; empty before `run`.
        dead_letters: The number of dead letters that were moved.
    """

    def __init__(self, source: BusClient, target: BusClient) -> None:
        self.queues: list[QueueMove] = []
        self.dead_letters = 0
        self._source = source
        self._target = target

    async def run(self) -> None:
        """Run the `on_start` hooks, which may add listeners, and move all events.

        Running workers of the service still handle events meanwhile. If a broker does not report
        the number of delayed events, the move waits for the longest possible delay plus one second.

        Raises:
            ConfigError: Both configurations use the same broker for every listener, or the moved
                events come back.
            FeatureNotSupported: A transport keeps its events in one process, or cannot count them.
            TransportError: A broker failed; run again to move the rest.
            Exception: A hook raised it.
        """
        async with started(self._source):
            self.queues = [
                QueueMove(listener)
                for listener in self._source.listeners
                if self._is_elsewhere(listener.api_name)
            ]
            if not self.queues:
                raise ConfigError(
                    "every listener of this service has the same broker as in "
                    f"{self._source.config.source}, so there is nothing to move.",
                    source=self._target.config.source,
                )
            # Prepares all queues first, so that nothing is moved if one of them cannot be.
            for queue in self.queues:
                await self._prepare(queue.listener)
            await _run_all(self._move_queue(queue) for queue in self.queues)
            await self._move_dead_letters()

    def _is_elsewhere(self, api_name: str) -> bool:
        source, target = self._source, self._target
        return source.transports.describe(api_name) != target.transports.describe(api_name)

    async def _prepare(self, listener: Listener) -> None:
        for client in (self._source, self._target):
            transport = await client.transports.open(listener.api_name)
            require(transport, SharedBroker, "Moving events")
            timeout = client.config.api(listener.api_name).fire_timeout
            await transport.declare(_subscription(client, listener), timeout=timeout)

    async def _move_queue(self, queue: QueueMove) -> None:
        transport = await self._source.transports.open(queue.listener.api_name)
        subscription = _subscription(self._source, queue.listener)
        delays_end_at = asyncio.get_running_loop().time() + max(subscription.delays) + _MARGIN
        while not queue.is_done:
            stream = await transport.subscribe(
                attrs.evolve(subscription, concurrency=_MAX_IN_FLIGHT)
            )
            try:
                senders = [self._send_all(stream, queue) for _ in range(_MAX_IN_FLIGHT)]
                counting = self._count(queue, transport, subscription, delays_end_at)
                await _run_all([_run_both(counting, stream.stop), *senders])
            finally:
                await stream.aclose()
            # Only now, the count includes events that the stream prefetched and requeued.
            queue.is_done = (await _stats(transport, subscription)).waiting == 0

    async def _send_all(self, stream: DeliveryStream, queue: QueueMove) -> None:
        client, listener = self._target, queue.listener
        transport = await client.transports.open(listener.api_name)
        subscription = _subscription(client, listener)
        timeout = client.config.api(listener.api_name).fire_timeout
        async for delivery in stream:
            queue.in_flight += 1
            send = functools.partial(
                transport.send,
                delivery.message,
                to=subscription,
                attempt=delivery.attempt,
                timeout=timeout,
            )
            try:
                self._check_for_circle(queue, delivery.message.id)
                await self._send_in_turn(queue, send)
            except BaseException:
                await _requeue(delivery)
                raise
            await delivery.ack()
            queue.in_flight -= 1
            queue.moved += 1

    async def _send_in_turn(
        self, queue: QueueMove, send: Callable[[], Coroutine[Any, Any, None]]
    ) -> None:
        # A new queue may refuse the first events. To keep the order, the other events wait until
        # the first one is stored, and then are sent in order.
        async with queue.turn:
            if not queue.has_started:
                await send()
                queue.has_started = True
                return
        await send()

    def _check_for_circle(self, queue: QueueMove, event_id: str) -> None:
        queue.first_id = queue.first_id or event_id
        queue.first_deliveries += event_id == queue.first_id
        if queue.first_deliveries > _MAX_DELIVERIES:
            raise ConfigError(
                f"this is the same broker as in {self._source.config.source}, so the moved events "
                "come back.",
                source=self._target.config.source,
            )

    async def _count(
        self,
        queue: QueueMove,
        transport: EventTransport,
        subscription: Subscription,
        delays_end_at: float,
    ) -> None:
        """Count the events that are left, and return when there are none."""
        now = asyncio.get_running_loop().time
        moved_before = -1
        while True:
            stats = await _stats(transport, subscription)
            queue.left = stats.total
            is_known = stats.delayed is not None and stats.in_flight is not None
            is_quiet = queue.left == queue.in_flight == 0 and queue.moved == moved_before
            if is_quiet and (is_known or now() >= delays_end_at):
                return
            moved_before = queue.moved
            await asyncio.sleep(_COUNT_INTERVAL)

    async def _move_dead_letters(self) -> None:
        by_broker = {
            self._source.transports.describe(queue.listener.api_name): queue.listener.api_name
            for queue in self.queues
        }
        for broker, api_name in by_broker.items():
            transport = await self._source.transports.open(api_name)
            store = require(transport, DeadLetterStore, "Moving dead letters")
            letters = store.dead_letters(self._source.config.service_name)
            async with contextlib.aclosing(letters):
                async for letter in letters:
                    name = letter.message.api_name
                    if self._target.transports.describe(name) == broker:
                        continue
                    opened = await self._target.transports.open(name)
                    target = require(opened, DeadLetterStore, "Moving dead letters")
                    await target.add_dead_letter(
                        self._target.config.service_name,
                        letter.message,
                        letter.failure,
                        timeout=self._target.config.api(name).fire_timeout,
                    )
                    await letter.discard()
                    self.dead_letters += 1


async def _stats(transport: EventTransport, subscription: Subscription) -> SubscriptionStats:
    return await require(transport, QueueStats, "Moving events").stats(subscription)


def _subscription(client: BusClient, listener: Listener) -> Subscription:
    """Return the subscription that `listener` has with the configuration of `client`."""
    api = client.config.api(listener.api_name)
    configured = attrs.evolve(
        listener, acknowledgement_timeout=api.acknowledgement_timeout, retry=api.retry
    )
    return configured.subscription(client.config.service_name)


async def _requeue(delivery: Delivery) -> None:
    # After a timeout, closing the stream requeues the event, which may count as an attempt.
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_REQUEUE_TIMEOUT):
            await delivery.requeue()


async def _run_both(
    first: Coroutine[Any, Any, None], second: Callable[[], Coroutine[Any, Any, None]]
) -> None:
    await first
    await second()


async def _run_all(work: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Run all of `work` concurrently. If one part fails, cancel the others and raise its error."""
    try:
        async with asyncio.TaskGroup() as group:
            for part in work:
                group.create_task(part)
    except BaseExceptionGroup as failed:
        raise failed.exceptions[0] from None
