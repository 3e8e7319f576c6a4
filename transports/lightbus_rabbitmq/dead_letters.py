"""Reads the dead letters of a service: either all of them, or none."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Coroutine
from typing import Any, TypeVar

from aiormq.abc import DeliveredMessage
from aiormq.exceptions import ChannelInvalidStateError, ChannelNotFoundEntity
from pamqp.commands import Basic

from lightbus.exceptions import QueueInUse, TransportUnavailable
from lightbus.transport.features import DeadLetter
from lightbus.transport.records import DeadLetterCount
from lightbus_rabbitmq import dead_letter_headers, names
from lightbus_rabbitmq.driver.connection import ReconnectingConnection
from lightbus_rabbitmq.driver.errors import ConnectionLost, translate_error
from lightbus_rabbitmq.driver.operations import (
    AMQPChannel,
    QueueCounts,
    queue_counts,
    queue_counts_on,
)
from lightbus_rabbitmq.driver.waiting import run_while_connected
from lightbus_rabbitmq.topology.lock import BrokerLock, LockHeld

T = TypeVar("T")

# How long to wait for another reader and for messages that another client holds, in seconds.
# RabbitMQ requeues the messages of a reader that was killed, once it notices that.
ACQUIRE_TIMEOUT = 10.0
_CHECK_PERIOD = 0.05

# How long RabbitMQ may take to update its counts, in seconds
COUNTS_TIMEOUT = 2.0

# How many messages are requeued at once. A quorum queue counts each message that was fetched with
# `basic.get` as one consumer. It keeps the order in which consumers requeue messages only if 32
# commands at most are in flight.
_REQUEUE_BATCH = 16


class RabbitMQDeadLetter(DeadLetter):
    """A dead letter, which its reader holds until the iteration ends."""

    def __init__(self, delivered: DeliveredMessage, reader: DeadLetterReader) -> None:
        self.message, self.failure = dead_letter_headers.dead_letter_of(delivered)
        self._tag = int(delivered.delivery_tag or 0)
        self._reader = reader

    async def discard(self) -> None:
        try:
            await self._reader.discard(self._tag)
        except ChannelInvalidStateError as error:
            raise TransportUnavailable(
                f"Dead letter {self.message.id} was not discarded: the connection was lost."
            ) from error


class DeadLetterReader:
    """Reads the dead letters of a service once, while no other Lightbus client does.

    RabbitMQ does not deliver a message to one client while another holds it. So the reader acquires
    a lock, and checks that no client without the lock, such as the management UI, holds messages.

    Args:
        connection: A connection that nothing else uses. The caller closes it.
        service_name: The service.
        timeout: How long the broker may take for one answer, in seconds.
    """

    def __init__(
        self, connection: ReconnectingConnection, service_name: str, *, timeout: float
    ) -> None:
        self._lock = BrokerLock(connection, names.reading_lock(service_name), timeout=timeout)
        self._service_name = service_name
        self._queue = names.dead_letter_queue(service_name)
        self._timeout = timeout
        self._channel: AMQPChannel | None = None
        # The delivery tags, in the order of delivery
        self._held: dict[int, None] = {}
        self._expected = 0
        self._found = 0

    async def start(self, client_name: str) -> bool:
        """Acquire the lock, and wait until no client holds dead letters.

        Returns:
            Whether the dead letter queue exists.

        Raises:
            QueueInUse: Another client still uses them, or a migration has moved some of them.
            ConnectionLost: The connection was lost, or the broker did not answer.
            TransportRefused: The broker's permissions do not allow it.
        """
        now = asyncio.get_running_loop().time
        deadline = now() + ACQUIRE_TIMEOUT
        try:
            await self._lock.acquire(client_name, timeout=ACQUIRE_TIMEOUT)
        except LockHeld as error:
            raise self._in_use(
                f"{error.holder} reads them", "Wait until it has finished, or stop it."
            ) from error
        counts = await self._count(self._queue)
        while counts is not None and counts.users:
            if now() >= deadline:
                raise self._held_by_others(counts.users)
            await asyncio.sleep(_CHECK_PERIOD)
            counts = await self._count(self._queue)
        if await self._count(names.temporary_queue(self._queue)) is not None:
            raise self._in_use(
                "a migration of their queue was interrupted, or is running",
                "`lightbus topology --migrate` completes it.",
            )
        if counts is None:
            return False  # no listener of the service ever started
        self._expected = counts.ready
        self._channel = await self._lock.channel()
        return True

    async def letters(self) -> AsyncGenerator[RabbitMQDeadLetter]:
        """Yield all dead letters, oldest first.

        These are the dead letters that existed at the start, and those that arrived until they were
        read. Then it ends, because new ones may arrive as fast as they are read.

        Raises:
            QueueInUse: Another client used some of them in the meantime, so that they were
                not read.
            ConnectionLost: The connection was lost, or the broker did not answer.
            TransportRefused: The broker's permissions do not allow it.
        """
        limit, is_last_round = self._expected, False
        while True:
            while self._found < limit and (got := await self._get()) is not None:
                self._found += 1
                tag = int(got.delivery_tag or 0)
                self._held[tag] = None
                yield RabbitMQDeadLetter(got, self)
            ready = await self._ready()
            is_round_complete = self._found >= limit
            if not ready or (is_round_complete and is_last_round):
                return
            if is_round_complete:
                limit, is_last_round = self._found + ready, True

    async def discard(self, tag: int) -> None:
        """Remove the message with this delivery tag.

        Raises:
            ChannelInvalidStateError: The channel was closed.
        """
        if self._channel is None:
            raise ChannelInvalidStateError
        await self._channel.basic_ack(tag, wait=False)
        self._held.pop(tag, None)

    async def close(self) -> None:
        """Requeue the dead letters that were not discarded, in their order.

        Raises:
            ConnectionLost: The connection was lost, or the broker did not answer.
        """
        channel, self._channel = self._channel, None
        if channel is None or channel.is_closed:
            return
        held = list(self._held)
        is_only_user = True
        for first in range(0, len(held), _REQUEUE_BATCH):
            # If another client has started to consume, the count stays too high.
            if first and is_only_user:
                is_only_user = await self._wait_for_users(channel, len(held) - first)
            for tag in held[first : first + _REQUEUE_BATCH]:
                await channel.basic_nack(tag, requeue=True, wait=False)
        # RabbitMQ answers after it has handled every acknowledgement.
        await self._answer(channel, channel.close())

    async def _wait_for_users(self, channel: AMQPChannel, limit: int) -> bool:
        """Wait until the queue has `limit` users at most; return whether that happened in time."""
        now = asyncio.get_running_loop().time
        deadline = now() + COUNTS_TIMEOUT
        while now() < deadline:
            counts = await self._answer(channel, queue_counts_on(channel, self._queue))
            if counts is None or counts.users <= limit:
                return True
            await asyncio.sleep(0)
        return False

    async def _ready(self) -> int:
        """Return how many messages are ready. They arrived or were requeued in the meantime.

        Raises:
            QueueInUse: Another client holds or has removed messages.
        """
        now = asyncio.get_running_loop().time
        deadline = now() + COUNTS_TIMEOUT
        while True:
            counts = await self._count(self._queue)
            if counts is None:
                raise self._in_use("their queue was deleted in the meantime", "Try again.")
            # A quorum queue counts each message that was fetched with `basic.get` as one user.
            if counts.users <= len(self._held):
                break
            if now() >= deadline:
                raise self._held_by_others(counts.users - len(self._held))
            await asyncio.sleep(_CHECK_PERIOD)
        if not counts.ready and self._found < self._expected:
            raise self._in_use(
                f"another client removed {self._expected - self._found:,} of {self._expected:,} "
                "in the meantime",
                "Stop it, and try again.",
            )
        return counts.ready

    def _held_by_others(self, users: int) -> QueueInUse:
        return self._in_use(
            f"another AMQP client, such as the management UI, holds some of them or consumes from "
            f"queue {self._queue!r} ({users:,} consumers or unacknowledged messages)",
            "Stop that client, and try again.",
        )

    def _in_use(self, reason: str, remedy: str) -> QueueInUse:
        owner = f"the dead letters of service {self._service_name!r}"
        return QueueInUse(owner, f"{reason}. {remedy}")

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
            raise self._in_use("their queue was deleted in the meantime", "Try again.") from error
        except (Exception, asyncio.CancelledError) as error:
            if meaning := translate_error(error, f"to read {self._queue!r}"):
                raise meaning from error
            raise
        return None if isinstance(got.delivery, Basic.GetEmpty) else got

    async def _answer(self, channel: AMQPChannel, work: Coroutine[Any, Any, T]) -> T:
        try:
            async with asyncio.timeout(self._timeout):
                return await run_while_connected(channel.connection, work)
        except TimeoutError as error:
            raise ConnectionLost(f"RabbitMQ did not answer within {self._timeout:g} s") from error


async def dead_letters_of(
    connection: ReconnectingConnection, service_name: str, *, client_name: str, timeout: float
) -> AsyncGenerator[RabbitMQDeadLetter]:
    """Yield all dead letters of a service, oldest first.

    Args:
        connection: A connection that nothing else uses. The caller closes it.
        service_name: The service.
        client_name: The name of this client, which another client sees that wants to read them.
        timeout: How long the broker may take for one answer, in seconds.

    Raises:
        QueueInUse: Another client uses them, so that not all of them can be read.
        TransportUnavailable: RabbitMQ did not answer in `timeout` seconds.
        TransportRefused: The broker's permissions do not allow it.
    """
    reader = DeadLetterReader(connection, service_name, timeout=timeout)
    try:
        await connection.open(timeout=timeout)
        try:
            if await reader.start(client_name):
                async with contextlib.aclosing(reader.letters()) as letters:
                    async for letter in letters:
                        yield letter
        finally:
            await reader.close()
    except ConnectionLost as error:
        raise TransportUnavailable(
            f"The dead letters of service {service_name!r} could not be read: {error}."
        ) from error


async def count_dead_letters(
    connection: ReconnectingConnection, service_name: str, *, timeout: float
) -> DeadLetterCount:
    """Count the dead letters of a service.

    The errors are those of `run_on_new_channel`.
    """
    queue = names.dead_letter_queue(service_name)
    total = 0
    for name in (queue, names.temporary_queue(queue)):
        counts = await queue_counts(connection, name, timeout=timeout)
        if counts is not None and counts.users:
            # RabbitMQ does not report how many messages its consumers hold.
            return DeadLetterCount(total=None)
        total += counts.ready if counts else 0
    return DeadLetterCount(total=total)
