"""`Consumer`: consumes from a queue on one channel, with a prefetch that can be changed."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Callable
from typing import Any

from aiormq.abc import DeliveredMessage

from lightbus_rabbitmq.driver.channel import Channel
from lightbus_rabbitmq.driver.errors import ConnectionLost, translate_error
from lightbus_rabbitmq.driver.waiting import close_quietly, run_while_connected

# How long events take to arrive, at most, after the prefetch allows them, in seconds
_ARRIVAL_TIMEOUT = 0.1


class Consumer:
    """The consumer of one channel.

    Args:
        channel: The channel. Nothing else consumes on it.
        queue: The name of the queue.
        receive: Called with this consumer and each delivery. It sets `arrived`.
        timeout: How long the broker may take for one answer, in seconds.

    Attributes:
        channel: The channel.
        prefetch: How many deliveries may be unsettled.
        arrived: Set when a delivery arrives.
    """

    def __init__(
        self,
        channel: Channel,
        queue: str,
        receive: Callable[[Consumer, DeliveredMessage], None],
        *,
        timeout: float,
    ) -> None:
        self.channel = channel
        self.prefetch = 0
        self.arrived = asyncio.Event()
        self._queue = queue
        self._receive = functools.partial(receive, self)
        self._timeout = timeout
        self._tag = ""
        self._started_after = 0
        self._started_at = 0.0

    @property
    def is_full(self) -> bool:
        """Whether the broker delivers no more until a delivery is settled."""
        return self.channel.unsettled_after(self._started_after) >= self.prefetch

    async def start(self, prefetch: int) -> None:
        """Start to consume, for the first time or after `stop`.

        Raises:
            ConnectionLost: The connection was lost, or the broker did not answer.
            TransportError: The broker refused.
        """
        channel = self.channel
        self.prefetch = prefetch
        self._started_after = channel.last_received
        self._started_at = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(self._timeout):
                await run_while_connected(
                    channel.connection, channel.basic_qos(prefetch_count=prefetch)
                )
                self._tag = await run_while_connected(
                    channel.connection, channel.consume(self._queue, self._receive)
                )
        except TimeoutError as error:
            channel.give_up()
            await close_quietly(channel, self._timeout)
            raise ConnectionLost("RabbitMQ did not start a consumer in time") from error
        except (Exception, asyncio.CancelledError) as error:
            channel.give_up()  # cancelled, the driver closes it
            if meaning := translate_error(error, f"to consume from {self._queue!r}"):
                raise meaning from error
            raise

    async def stop(self) -> None:
        """Stop to consume. Deliveries that arrived stay unsettled."""
        # The broker requeues deliveries that are in flight to a cancelled consumer, counts them as
        # redelivered, and puts them ahead of older events. So no more are requested, and those in
        # flight get time to arrive.
        self.channel.withhold_acks()
        try:
            await self._wait_until_full()
            await self._cancel()
        finally:
            self.channel.send_acks()

    async def _wait_until_full(self) -> None:
        had_room_since = max(self.channel.settled_at, self._started_at)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(had_room_since + _ARRIVAL_TIMEOUT):
                while not self.channel.is_lost and not self.is_full:
                    self.arrived.clear()
                    await self.arrived.wait()

    async def _cancel(self) -> None:
        channel = self.channel
        if channel.is_lost:
            return

        async def cancel() -> None:
            # Inside the task: cancelled before its first step, it would leave this unawaited.
            await run_while_connected(channel.connection, channel.basic_cancel(self._tag))

        cancelling = asyncio.create_task(cancel())
        try:
            await asyncio.wait({cancelling}, timeout=self._timeout)
            if not cancelling.done():
                # Cancelled, the driver closes the channel. The acknowledgements go first.
                await channel.flush(self._timeout)
                channel.give_up()
        finally:
            cancelling.cancel()
            await asyncio.wait({cancelling})
        _raise_unknown_error(cancelling)


def _raise_unknown_error(cancelling: asyncio.Task[Any]) -> None:
    """Raise the error of a task, unless it is one of the driver or the connection."""
    if cancelling.cancelled():
        return
    error = cancelling.exception()
    if error is None or isinstance(error, ConnectionLost):
        return
    if translate_error(error, "to cancel a consumer") is None:
        raise error
