"""`Move`: takes the events of a service from one broker to another, and loses none.

An event is stored at the new broker before the old one forgets it. Killed at any point, a move can
be started again: what was on its way may then exist twice.
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
from lightbus.transport.contract import Delivery, DeliveryStream, EventTransport
from lightbus.transport.features import DeadLetterStore, QueueStats, SharedBroker, require
from lightbus.transport.records import Subscription, SubscriptionStats

# How many events of one queue are on their way at once.
_AT_ONCE = 64

# How often the queues are counted, in seconds.
_PERIOD = 0.25

# How much longer than its delay an event may take to come back, in seconds.
_MARGIN = 1.0

# For giving back an event that was not moved, in seconds.
_GIVE_BACK_TIMEOUT = 1.0

# An event may come twice. One that comes more often goes round in a circle.
_MOST_TIMES_SEEN = 3


@attrs.define(eq=False)
class QueueMove:
    """How far the move of one listener's events is.

    Attributes:
        listener: Whose events these are.
        moved: How many have arrived.
        in_hand: How many are on their way.
        left: How many are known to be left, as counted a moment ago.
        is_done: Whether none is left.
        has_started: Whether the first has arrived.
        turn: Held by the one that is to be put next.
        first_id: The id of the first.
        times_seen: How often that one came.
    """

    listener: Listener
    moved: int = 0
    in_hand: int = 0
    left: int = 0
    is_done: bool = False
    has_started: bool = False
    turn: asyncio.Lock = attrs.field(factory=asyncio.Lock)
    first_id: str = ""
    times_seen: int = 0


class Move:
    """Moves the waiting, delayed and dead events of the listeners of `source`.

    Args:
        source: The client of the service's bus.
        target: A client whose configuration names the target broker.

    Attributes:
        queues: The progress of each queue; empty before `run`.
        dead_letters: How many dead letters have arrived.
    """

    def __init__(self, source: BusClient, target: BusClient) -> None:
        self.queues: list[QueueMove] = []
        self.dead_letters = 0
        self._source = source
        self._target = target

    async def run(self) -> None:
        """Call the `on_start` hooks, which may add listeners, and move until nothing is left.

        Running workers of the service share its events with the move. If a broker does not report
        how many events are delayed, the move waits for the longest possible delay and one second
        more.

        Raises:
            ConfigError: Both configurations use the same broker for every listener, or the moved
                events come back.
            FeatureNotSupported: A transport keeps its events in one process, or cannot count them.
            TransportError: A broker failed; run again to move the rest.
            Exception: What a hook raised.
        """
        await self._source.on_start.run(client=self._source)
        try:
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
            # All of them first, so that nothing is moved where something is in the way.
            for queue in self.queues:
                await self._prepare(queue.listener)
            await _together(self._move_queue(queue) for queue in self.queues)
            await self._move_dead_letters()
        finally:
            await self._source.on_stop.run(client=self._source)

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
            stream = await transport.subscribe(attrs.evolve(subscription, concurrency=_AT_ONCE))
            try:
                carriers = [self._carry(stream, queue) for _ in range(_AT_ONCE)]
                counting = self._count(queue, transport, subscription, delays_end_at)
                await _together([_then(counting, stream.stop), *carriers])
            finally:
                await stream.aclose()
            # What the stream held ahead and gave back is counted only now.
            queue.is_done = (await _stats(transport, subscription)).waiting == 0

    async def _carry(self, stream: DeliveryStream, queue: QueueMove) -> None:
        client, listener = self._target, queue.listener
        transport = await client.transports.open(listener.api_name)
        subscription = _subscription(client, listener)
        timeout = client.config.api(listener.api_name).fire_timeout
        async for delivery in stream:
            queue.in_hand += 1
            send = functools.partial(
                transport.send,
                delivery.message,
                to=subscription,
                attempt=delivery.attempt,
                timeout=timeout,
            )
            try:
                self._check_circle(queue, delivery.message.id)
                await self._send_in_turn(queue, send)
            except BaseException:
                await _give_back(delivery)
                raise
            await delivery.ack()
            queue.in_hand -= 1
            queue.moved += 1

    async def _send_in_turn(
        self, queue: QueueMove, send: Callable[[], Coroutine[Any, Any, None]]
    ) -> None:
        # A queue may refuse what comes in the first moments of its life, and take it later. So that
        # the order is kept, the others wait until it has taken the first, and then begin in turn.
        async with queue.turn:
            if not queue.has_started:
                await send()
                queue.has_started = True
                return
        await send()

    def _check_circle(self, queue: QueueMove, event_id: str) -> None:
        queue.first_id = queue.first_id or event_id
        queue.times_seen += event_id == queue.first_id
        if queue.times_seen > _MOST_TIMES_SEEN:
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
        """Return when nothing is left, as far as can be told while there is a stream."""
        now = asyncio.get_running_loop().time
        moved_before = -1
        while True:
            stats = await _stats(transport, subscription)
            queue.left = stats.total
            is_told = stats.delayed is not None and stats.in_flight is not None
            is_quiet = queue.left == queue.in_hand == 0 and queue.moved == moved_before
            if is_quiet and (is_told or now() >= delays_end_at):
                return
            moved_before = queue.moved
            await asyncio.sleep(_PERIOD)

    async def _move_dead_letters(self) -> None:
        by_place = {
            self._source.transports.describe(queue.listener.api_name): queue.listener.api_name
            for queue in self.queues
        }
        for place, api_name in by_place.items():
            transport = await self._source.transports.open(api_name)
            store = require(transport, DeadLetterStore, "Moving dead letters")
            letters = store.dead_letters(self._source.config.service_name)
            async with contextlib.aclosing(letters):
                async for letter in letters:
                    name = letter.message.api_name
                    if self._target.transports.describe(name) == place:
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
    """Return what `listener` would want under the configuration of `client`."""
    api = client.config.api(listener.api_name)
    configured = attrs.evolve(
        listener, acknowledgement_timeout=api.acknowledgement_timeout, retry=api.retry
    )
    return configured.subscription(client.config.service_name)


async def _give_back(delivery: Delivery) -> None:
    # Where this cannot be done soon, closing the stream does it, and counts an attempt.
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_GIVE_BACK_TIMEOUT):
            await delivery.requeue()


async def _then(
    first: Coroutine[Any, Any, None], then: Callable[[], Coroutine[Any, Any, None]]
) -> None:
    await first
    await then()


async def _together(work: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Do all of `work` at once; where one part fails, cancel the others and raise its error."""
    try:
        async with asyncio.TaskGroup() as group:
            for part in work:
                group.create_task(part)
    except BaseExceptionGroup as failed:
        raise failed.exceptions[0] from None
