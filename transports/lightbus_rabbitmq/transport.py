"""`RabbitMQTransport`: implements the transport contract with RabbitMQ."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import AsyncGenerator, Callable, Collection, Mapping
from typing import Any, ClassVar

from lightbus.exceptions import NotDeclared, TransportClosed, TransportRefused
from lightbus.message import EventMessage
from lightbus.transport.contract import EventTransport
from lightbus.transport.failure import Failure
from lightbus.transport.features import (
    AsyncAPISource,
    DeadLetterStore,
    HealthCheck,
    InexactAttempts,
    ListenerQueues,
    ManagedTopology,
    QueueStats,
    SharedBroker,
    Tail,
)
from lightbus.transport.kit import OpenStreams, SharedTask
from lightbus.transport.records import (
    AsyncAPIParts,
    BrokerObject,
    DeadLetterCount,
    ListenerQueue,
    MigrationProgress,
    QueueAddress,
    Subscription,
    SubscriptionStats,
)
from lightbus_rabbitmq import asyncapi, dead_letter_headers, headers, names
from lightbus_rabbitmq.dead_letters import (
    RabbitMQDeadLetter,
    count_dead_letters,
    dead_letters_of,
)
from lightbus_rabbitmq.driver.connection import ReconnectingConnection
from lightbus_rabbitmq.driver.errors import NoFreeChannel
from lightbus_rabbitmq.driver.operations import queue_counts
from lightbus_rabbitmq.last_attempt import LastAttemptNote
from lightbus_rabbitmq.publisher import Publisher
from lightbus_rabbitmq.settings import RabbitMQSettings
from lightbus_rabbitmq.stream import RabbitMQStream
from lightbus_rabbitmq.tail import tail_of
from lightbus_rabbitmq.topology import listener_queues, migration, policies
from lightbus_rabbitmq.topology.declarations import DesiredTopology
from lightbus_rabbitmq.topology.declare import (
    declare_api,
    declare_dead_letter_queue,
    declare_subscription,
)
from lightbus_rabbitmq.topology.diff import compare
from lightbus_rabbitmq.topology.management_api import ManagementAPI


class RabbitMQTransport(
    EventTransport,
    SharedBroker,
    InexactAttempts,
    AsyncAPISource,
    DeadLetterStore,
    HealthCheck,
    ListenerQueues,
    ManagedTopology,
    QueueStats,
    Tail,
):
    """Sends and receives events through RabbitMQ, with AMQP 0-9-1.

    It sends and consumes on separate connections, because a broker that is low on memory blocks
    connections that publish.
    """

    Settings: ClassVar[type[Any]] = RabbitMQSettings

    def __init__(self, settings: RabbitMQSettings, *, client_name: str) -> None:
        self._settings = settings
        self._client_name = client_name
        self._sending = ReconnectingConnection(settings, f"{client_name} sending")
        self._consuming = ReconnectingConnection(settings, f"{client_name} consuming")
        # For notes of last attempts: RabbitMQ may block the connection for sending, and listeners
        # may use all channels of the connection for consuming.
        self._noting = ReconnectingConnection(settings, f"{client_name} noting last attempts")
        self._publisher = Publisher(
            self._sending,
            declare_api=functools.partial(
                declare_api, self._sending, timeout=settings.operation_timeout
            ),
            operation_timeout=settings.operation_timeout,
        )
        self._streams = OpenStreams[RabbitMQStream]()
        # The connections of operations that hold a lock
        self._own_connections: set[ReconnectingConnection] = set()
        self._closing = SharedTask(self._close)

    async def open(self, *, timeout: float) -> None:
        await self._sending.open(timeout=timeout)

    async def send(
        self,
        message: EventMessage,
        *,
        timeout: float,
        require_listeners: bool = False,
        to: QueueAddress | None = None,
        attempt: int = 1,
    ) -> None:
        if to is None:
            await self._publisher.send_event(
                message, timeout=timeout, is_mandatory=require_listeners
            )
            return
        properties = headers.properties_of(message, **{headers.ATTEMPT: attempt})
        await self._publisher.send_copy(
            "", names.listener_queue(to), message.body, properties, timeout=timeout
        )

    async def declare(self, subscription: Subscription, *, timeout: float) -> None:
        await self._sending.run_until_done(
            lambda: declare_subscription(
                self._sending, subscription, timeout=self._settings.operation_timeout
            ),
            timeout=timeout,
        )

    async def subscribe(self, subscription: Subscription) -> RabbitMQStream:
        stream = RabbitMQStream(
            self._consuming,
            self._publisher,
            self._settings,
            subscription,
            make_note=functools.partial(
                LastAttemptNote, self._noting, timeout=self._settings.operation_timeout
            ),
        )
        try:
            await stream.start()
        except NoFreeChannel as error:
            await stream.aclose()
            raise self._too_many_listeners(subscription, error) from error
        except BaseException:
            await stream.aclose()
            raise
        if self._closing.has_started:
            await stream.aclose()
            self._check_open()
        return self._streams.add(stream)

    def _too_many_listeners(
        self, subscription: Subscription, error: NoFreeChannel
    ) -> TransportRefused:
        listening = len(list(self._streams))
        return TransportRefused(
            f"Listener {subscription.listener_name!r} on {subscription.api_name} cannot start: "
            f"RabbitMQ at {self._settings} allows {error.channel_max} channels on a connection "
            f"(channel_max), each listener needs one, and {listening} listeners have one. Raise "
            "channel_max in rabbitmq.conf, or divide the listeners among several services."
        )

    async def stats(self, queue: QueueAddress) -> SubscriptionStats:
        operation_timeout = self._settings.operation_timeout
        name = names.listener_queue(queue)
        counts = await self._sending.run_until_done(
            lambda: queue_counts(self._sending, name, timeout=operation_timeout),
            timeout=operation_timeout,
        )
        if counts is None:
            raise NotDeclared(f"RabbitMQ has no queue {name!r}: its listener never ran.")
        return SubscriptionStats(
            waiting=counts.ready, delayed=None, in_flight=None, workers=counts.users
        )

    async def tail(self, api_name: str) -> AsyncGenerator[EventMessage]:
        timeout = self._settings.operation_timeout
        return await self._consuming.run_until_done(
            lambda: tail_of(self._consuming, api_name, timeout=timeout), timeout=timeout
        )

    @classmethod
    def asyncapi(cls, settings: Any, api_name: str, event_name: str) -> AsyncAPIParts:
        return asyncapi.asyncapi_parts(settings, api_name, event_name)

    async def topology(
        self, subscriptions: Collection[Subscription], events: Mapping[str, Collection[str]]
    ) -> list[BrokerObject]:
        operation_timeout = self._settings.operation_timeout
        desired = DesiredTopology.of(subscriptions, events)
        found = await self._sending.run_until_done(
            lambda: compare(self._sending, desired, timeout=operation_timeout),
            timeout=operation_timeout,
        )
        if self._settings.management_url is None:
            return [*found, policies.unknown()]
        return found + await policies.compare(ManagementAPI(self._settings), desired.queues)

    async def migrate(
        self,
        subscriptions: Collection[Subscription],
        events: Mapping[str, Collection[str]],
        *,
        on_progress: Callable[[MigrationProgress], None],
    ) -> None:
        async with self._own_connection("migrating") as connection:
            await migration.migrate(
                connection,
                DesiredTopology.of(subscriptions, events),
                client_name=self._client_name,
                timeout=self._settings.operation_timeout,
                on_progress=on_progress,
            )

    async def listener_queues(self, service_name: str) -> list[ListenerQueue] | None:
        if self._settings.management_url is None:
            return None
        timeout = self._settings.operation_timeout
        return await self._sending.run_until_done(
            lambda: listener_queues.all_of(
                self._sending, ManagementAPI(self._settings), service_name, timeout=timeout
            ),
            timeout=timeout,
        )

    async def remove_listener_queue(self, queue: QueueAddress, *, discard: bool = False) -> int:
        async with self._own_connection("removing a listener") as connection:
            return await listener_queues.remove(
                connection,
                queue,
                client_name=self._client_name,
                discard=discard,
                timeout=self._settings.operation_timeout,
            )

    async def dead_letters(self, service_name: str) -> AsyncGenerator[RabbitMQDeadLetter]:
        async with self._own_connection("reading dead letters") as connection:
            letters = dead_letters_of(
                connection,
                service_name,
                client_name=self._client_name,
                timeout=self._settings.operation_timeout,
            )
            async with contextlib.aclosing(letters):
                async for letter in letters:
                    yield letter

    async def count_dead_letters(self, service_name: str) -> DeadLetterCount:
        operation_timeout = self._settings.operation_timeout
        return await self._sending.run_until_done(
            lambda: count_dead_letters(self._sending, service_name, timeout=operation_timeout),
            timeout=operation_timeout,
        )

    async def add_dead_letter(
        self, service_name: str, message: EventMessage, failure: Failure, *, timeout: float
    ) -> None:
        await self._sending.run_until_done(
            lambda: declare_dead_letter_queue(
                self._sending, service_name, timeout=self._settings.operation_timeout
            ),
            timeout=timeout,
        )
        added = dead_letter_headers.failure_headers(
            failure, message, queue="", frame_size=self._sending.frame_size
        )
        await self._publisher.send_copy(
            "",
            names.dead_letter_queue(service_name),
            message.body,
            headers.properties_of(message, **added),
            timeout=timeout,
        )

    async def check_health(self, *, timeout: float) -> list[str]:
        results = [await self._sending.check_health(timeout=timeout)]
        results += [stream.check_health() for stream in self._streams]
        return [result for result in results if result is not None]

    async def close(self) -> None:
        await self._closing()

    async def _close(self) -> None:
        await self._streams.close()
        await self._publisher.close()
        await asyncio.gather(*(connection.close() for connection in self._own_connections))
        await self._noting.close()
        await self._consuming.close()
        await self._sending.close()

    @contextlib.asynccontextmanager
    async def _own_connection(self, purpose: str) -> AsyncGenerator[ReconnectingConnection]:
        """Yield a connection for an operation that holds a lock, and close it."""
        self._check_open()
        connection = ReconnectingConnection(self._settings, f"{self._client_name} {purpose}")
        self._own_connections.add(connection)
        try:
            yield connection
        finally:
            self._own_connections.discard(connection)
            await connection.close()

    def _check_open(self) -> None:
        if self._closing.has_started:
            raise TransportClosed("The connection to RabbitMQ was closed.")
