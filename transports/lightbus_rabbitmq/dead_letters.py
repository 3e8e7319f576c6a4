"""Reads the dead letters of a service: all of them, or none."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Coroutine
from typing import Any, TypeVar

from aiormq.abc import DeliveredMessage
from aiormq.exceptions import ChannelInvalidStateError, ChannelNotFoundEntity
from pamqp.commands import Basic

from lightbus.exceptions import DeadLettersInUse, TransportUnavailable
from lightbus.transport.features import DeadLetter
from lightbus.transport.records import DeadLetterCount
from lightbus_rabbitmq import dead_letter_headers, names
from lightbus_rabbitmq.driver.connection import ReconnectingConnection
from lightbus_rabbitmq.driver.errors import ConnectionLost, translated
from lightbus_rabbitmq.driver.operations import (
    AMQPChannel,
    QueueCounts,
    queue_counts,
    queue_counts_on,
)
from lightbus_rabbitmq.driver.waiting import unless_lost
from lightbus_rabbitmq.topology.lock import Lock, LockHeld

T = TypeVar("T")

# How long to wait, in seconds, for another reader and for messages that a client holds. RabbitMQ
# requeues the messages of a reader that was killed after it has noticed that.
_PATIENCE = 10.0
_PERIOD = 0.05

# How long RabbitMQ may take to update its counts, in seconds.
_SETTLING = 2.0


# How many messages are requeued before RabbitMQ has processed the last of them. A quorum queue
# counts each message that `basic.get` took as a consumer of its own. It keeps the order in which
# consumers requeue messages, if no more than 32 commands are waiting.
_REQUEUED_AT_ONCE = 16


class RabbitMQDeadLetter(DeadLetter):
    """A message that is held while a service's dead letters are iterated over."""

    def __init__(self, delivered: DeliveredMessage, reading: Reading) -> None:
        self.message, self.failure = dead_letter_headers.dead_letter_of(delivered)
        self._tag = int(delivered.delivery_tag or 0)
        self._reading = reading

    async def discard(self) -> None:
        try:
            await self._reading.discard(self._tag)
        except ChannelInvalidStateError as error:
            raise TransportUnavailable(
                f"Dead letter {self.message.id} was not discarded: the connection was lost."
            ) from error


class Reading:
    """One reading of the dead letters of a service, which no other Lightbus client interrupts.

    A message that one client holds is not delivered to another. So a reading takes a lock, and
    checks that no client without the lock, such as the management UI, holds any messages.

    Args:
        link: A connection that nothing else uses; the caller closes it.
        service_name: The service.
        timeout: How long the broker may take for one answer, in seconds.
    """

    def __init__(self, link: ReconnectingConnection, service_name: str, *, timeout: float) -> None:
        self._lock = Lock(link, names.reading_lock(service_name), timeout=timeout)
        self._service_name = service_name
        self._queue = names.dead_letter_queue(service_name)
        self._timeout = timeout
        self._channel: AMQPChannel | None = None
        # In the order in which they came
        self._held: dict[int, None] = {}
        self._expected = 0
        self._found = 0

    async def begin(self, client_name: str) -> bool:
        """Take the lock, and wait until nobody holds dead letters; return whether the queue exists.

        Raises:
            DeadLettersInUse: Another client still uses them, or a migration has moved some away.
            ConnectionLost: The connection went away, or the broker did not answer.
            TransportRefused: The broker's permissions do not allow it.
        """
        now = asyncio.get_running_loop().time
        deadline = now() + _PATIENCE
        try:
            await self._lock.take(client_name, patience=_PATIENCE)
        except LockHeld as error:
            raise self._in_use(
                f"{error.holder} reads them", "Wait until it has finished, or stop it."
            ) from error
        counted = await self._count(self._queue)
        while counted is not None and counted.users:
            if now() >= deadline:
                raise self._held_by_others(counted.users)
            await asyncio.sleep(_PERIOD)
            counted = await self._count(self._queue)
        if await self._count(names.temporary_queue(self._queue)) is not None:
            raise self._in_use(
                "a migration of their queue was interrupted, or is running",
                "`lightbus topology --migrate` completes it.",
            )
        if counted is None:
            return False  # No listener of the service was ever started.
        self._expected = counted.ready
        self._channel = await self._lock.channel()
        return True

    async def letters(self) -> AsyncGenerator[RabbitMQDeadLetter]:
        """Yield all dead letters, oldest first.

        These are the ones at the start, and those that came until they were read. It then ends:
        others may come as fast as they are read.

        Raises:
            DeadLettersInUse: Another client used them meanwhile, so that some were not seen.
            ConnectionLost: As `begin` does.
            TransportRefused: Likewise.
        """
        most, is_last_round = self._expected, False
        while True:
            while self._found < most and (got := await self._get()) is not None:
                self._found += 1
                tag = int(got.delivery_tag or 0)
                self._held[tag] = None
                yield RabbitMQDeadLetter(got, self)
            ready = await self._ready()
            is_round_complete = self._found >= most
            if not ready or (is_round_complete and is_last_round):
                return
            if is_round_complete:
                most, is_last_round = self._found + ready, True

    async def discard(self, tag: int) -> None:
        """Remove the message with this delivery tag.

        Raises:
            ChannelInvalidStateError: The channel was closed.
        """
        if self._channel is None:
            raise ChannelInvalidStateError
        await self._channel.basic_ack(tag, wait=False)
        self._held.pop(tag, None)

    async def end(self) -> None:
        """Requeue what was not discarded, in its order.

        Raises:
            ConnectionLost: The connection went away, or the broker did not answer.
        """
        channel, self._channel = self._channel, None
        if channel is None or channel.is_closed:
            return
        held = list(self._held)
        is_only_user = True
        for first in range(0, len(held), _REQUEUED_AT_ONCE):
            # Another client that has started to consume is counted, too, for as long as it does.
            if first and is_only_user:
                is_only_user = await self._wait_for_users(channel, len(held) - first)
            for tag in held[first : first + _REQUEUED_AT_ONCE]:
                await channel.basic_nack(tag, requeue=True, wait=False)
        # RabbitMQ answers once it has seen every acknowledgement.
        await self._answer(channel, channel.close())

    async def _wait_for_users(self, channel: AMQPChannel, most: int) -> bool:
        """Wait until the queue has `most` users or fewer; return whether that happened in time."""
        now = asyncio.get_running_loop().time
        deadline = now() + _SETTLING
        while now() < deadline:
            counted = await self._answer(channel, queue_counts_on(channel, self._queue))
            if counted is None or counted.users <= most:
                return True
            await asyncio.sleep(0)
        return False

    async def _ready(self) -> int:
        """Return how many messages are left, which came or were requeued meanwhile.

        Raises:
            DeadLettersInUse: Another client holds or has removed messages.
        """
        now = asyncio.get_running_loop().time
        deadline = now() + _SETTLING
        while True:
            counted = await self._count(self._queue)
            if counted is None:
                raise self._in_use("their queue was deleted meanwhile", "Try again.")
            # A quorum queue counts each message that `basic.get` took as one user.
            if counted.users <= len(self._held):
                break
            if now() >= deadline:
                raise self._held_by_others(counted.users - len(self._held))
            await asyncio.sleep(_PERIOD)
        if not counted.ready and self._found < self._expected:
            raise self._in_use(
                f"another client removed {self._expected - self._found:,} of {self._expected:,} "
                "meanwhile",
                "Stop it, and try again.",
            )
        return counted.ready

    def _held_by_others(self, users: int) -> DeadLettersInUse:
        return self._in_use(
            f"another AMQP client, such as the management UI, holds some of them or consumes from "
            f"queue {self._queue!r} ({users:,} consumers or unacknowledged messages)",
            "Stop that client, and try again.",
        )

    def _in_use(self, reason: str, remedy: str) -> DeadLettersInUse:
        return DeadLettersInUse(self._service_name, reason=reason, remedy=remedy)

    async def _count(self, queue: str) -> QueueCounts | None:
        return await self._lock.run(
            lambda channel: queue_counts_on(channel, queue), f"to look at queue {queue!r}"
        )

    async def _get(self) -> DeliveredMessage | None:
        channel = self._channel
        if channel is None:
            raise ConnectionLost("the connection was lost")
        try:
            got = await self._answer(channel, channel.basic_get(self._queue))
        except ChannelNotFoundEntity as error:
            raise self._in_use("their queue was deleted meanwhile", "Try again.") from error
        except (Exception, asyncio.CancelledError) as error:
            if meaning := translated(error, f"to read {self._queue!r}"):
                raise meaning from error
            raise
        return None if isinstance(got.delivery, Basic.GetEmpty) else got

    async def _answer(self, channel: AMQPChannel, work: Coroutine[Any, Any, T]) -> T:
        try:
            async with asyncio.timeout(self._timeout):
                return await unless_lost(channel.connection, work)
        except TimeoutError as error:
            raise ConnectionLost(f"RabbitMQ did not answer within {self._timeout:g} s") from error


async def dead_letters_of(
    link: ReconnectingConnection, service_name: str, *, client_name: str, timeout: float
) -> AsyncGenerator[RabbitMQDeadLetter]:
    """Yield all dead letters of a service, oldest first.

    Args:
        link: A connection that nothing else uses; the caller closes it.
        service_name: The service.
        client_name: The name of this client, for others that want to read them meanwhile.
        timeout: How long the broker may take for one answer, in seconds.

    Raises:
        DeadLettersInUse: Another client uses them, so that not all can be seen.
        TransportUnavailable: RabbitMQ did not answer in `timeout` seconds.
        TransportRefused: The broker's permissions do not allow it.
    """
    reading = Reading(link, service_name, timeout=timeout)
    try:
        await link.open(timeout=timeout)
        try:
            if await reading.begin(client_name):
                async with contextlib.aclosing(reading.letters()) as letters:
                    async for letter in letters:
                        yield letter
        finally:
            await reading.end()
    except ConnectionLost as error:
        raise TransportUnavailable(
            f"The dead letters of service {service_name!r} could not be read: {error}."
        ) from error


async def count_dead_letters(
    link: ReconnectingConnection, service_name: str, *, timeout: float
) -> DeadLetterCount:
    """Count the dead letters of a service.

    The errors are those of `run_on_new_channel`.
    """
    queue = names.dead_letter_queue(service_name)
    total = 0
    for name in (queue, names.temporary_queue(queue)):
        counted = await queue_counts(link, name, timeout=timeout)
        if counted is not None and counted.users:
            # RabbitMQ does not report how many messages its consumers hold.
            return DeadLetterCount(total=None)
        total += counted.ready if counted else 0
    return DeadLetterCount(total=total)
