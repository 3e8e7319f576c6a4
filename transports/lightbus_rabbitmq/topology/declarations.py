"""The exchanges, queues and bindings that Lightbus declares at RabbitMQ.

``docs/rabbitmq.rst`` says what each is for.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any, ClassVar, TypeVar

import attrs

from lightbus.transport.records import Subscription
from lightbus_rabbitmq import names
from lightbus_rabbitmq.driver.operations import AMQPChannel

DELIVERY_LIMIT = 20

_QUORUM = {"x-queue-type": "quorum"}

# RabbitMQ loses no message that it dead-letters only if both of these are set.
# https://www.rabbitmq.com/docs/quorum-queues#dead-lettering
_LOSSLESS_DEAD_LETTERING = {
    "x-dead-letter-strategy": "at-least-once",
    "x-overflow": "reject-publish",
}

# Reading dead letters requeues them, and RabbitMQ 4 drops messages that reach the delivery limit.
_UNLIMITED_DELIVERIES = {**_QUORUM, "x-delivery-limit": 1_000_000_000}


@attrs.frozen
class Exchange:
    """A durable exchange."""

    kind: ClassVar[str] = "exchange"

    name: str
    type: str = "topic"
    arguments: Mapping[str, Any] = attrs.field(factory=dict)

    async def declare(self, channel: AMQPChannel, *, passive: bool = False) -> None:
        """Declare the exchange. With `passive`, only check that it exists."""
        await channel.exchange_declare(
            exchange=self.name,
            exchange_type=self.type,
            durable=True,
            passive=passive,
            arguments=dict(self.arguments),
        )


@attrs.frozen
class Queue:
    """A durable queue.

    Attributes:
        name: The name.
        arguments: The arguments, such as ``x-queue-type``.
        api_name: The API whose events the queue holds; empty if it holds events of several APIs.
        refill_exchange: The exchange through which a migration sends events into the queue, with
            the routing keys that they had; empty for the default exchange.
    """

    kind: ClassVar[str] = "queue"

    name: str
    arguments: Mapping[str, Any]
    api_name: str = ""
    refill_exchange: str = ""

    async def declare(self, channel: AMQPChannel, *, passive: bool = False) -> None:
        """Declare the queue. With `passive`, only check that it exists."""
        await channel.queue_declare(
            queue=self.name, durable=True, passive=passive, arguments=dict(self.arguments)
        )

    @property
    def temporary(self) -> Queue:
        """The queue that holds the events while a migration recreates this one."""
        # A migration that is killed requeues events, which must not become dead letters because of
        # that. The temporary queue of a delay queue ends delays as the delay queue itself does.
        return attrs.evolve(
            self,
            name=names.temporary_queue(self.name),
            arguments=_UNLIMITED_DELIVERIES if self.api_name else self.arguments,
        )


@attrs.frozen
class Binding:
    """A binding from an exchange to a queue."""

    queue: str
    exchange: str
    routing_key: str

    @property
    def name(self) -> str:
        """The name of the binding in messages and errors."""
        return f"{self.exchange} -> {self.queue} ({self.routing_key})"

    async def declare(self, channel: AMQPChannel) -> None:
        """Bind the queue. This does nothing if the binding exists."""
        await channel.queue_bind(
            queue=self.queue, exchange=self.exchange, routing_key=self.routing_key
        )

    async def remove(self, channel: AMQPChannel) -> None:
        """Unbind the queue. This does nothing if the binding does not exist."""
        await channel.queue_unbind(
            queue=self.queue, exchange=self.exchange, routing_key=self.routing_key
        )


Declaration = Exchange | Queue | Binding
Named = TypeVar("Named", Exchange, Queue)


@attrs.frozen(kw_only=True)
class DesiredTopology:
    """All objects that a service needs at a broker, each of them once.

    Attributes:
        exchanges: The exchanges.
        queues: The queues.
        bindings: The bindings of the queues.
        stale_bindings: Bindings of the queues that may exist, and that a migration removes.
    """

    exchanges: list[Exchange]
    queues: list[Queue]
    bindings: list[Binding]
    stale_bindings: list[Binding]

    @classmethod
    def of(
        cls, subscriptions: Collection[Subscription], events: Mapping[str, Collection[str]]
    ) -> DesiredTopology:
        """Return the objects for these subscriptions, and for firing the events of these APIs.

        Args:
            subscriptions: The listeners of the service.
            events: The events of each API that the service knows, by the API's name.
        """
        needed: list[Declaration] = [api_exchange(api_name) for api_name in events]
        stale: list[Binding] = []
        for subscription in subscriptions:
            needed += of_subscription(subscription)
            other_events = set(events.get(subscription.api_name, ())) - subscription.events
            stale += event_bindings(subscription, other_events)
        return cls(
            exchanges=_unique(item for item in needed if isinstance(item, Exchange)),
            queues=_unique(item for item in needed if isinstance(item, Queue)),
            bindings=[item for item in needed if isinstance(item, Binding)],
            stale_bindings=stale,
        )

    def bindings_of(self, queue: Queue) -> list[Binding]:
        """Return the bindings that a queue needs."""
        return [binding for binding in self.bindings if binding.queue == queue.name]

    def stale_bindings_of(self, queue: Queue) -> list[Binding]:
        """Return the bindings of a queue that a migration removes."""
        return [binding for binding in self.stale_bindings if binding.queue == queue.name]


def _unique(items: Iterable[Named]) -> list[Named]:
    return list({item.name: item for item in items}.values())


def api_exchange(api_name: str) -> Exchange:
    """Return the exchange of an API."""
    return Exchange(names.api_exchange(api_name))


def dead_letter_queue(service_name: str) -> Queue:
    """Return the queue for the dead letters of a service."""
    return Queue(names.dead_letter_queue(service_name), _UNLIMITED_DELIVERIES)


def of_subscription(subscription: Subscription) -> list[Declaration]:
    """Return what a listener needs, in an order in which it can be declared."""
    name = names.listener_queue(subscription)
    dead_letters = dead_letter_queue(subscription.service_name)
    arguments = {
        **_dead_lettering_to("", dead_letters.name),
        "x-delivery-limit": DELIVERY_LIMIT,
    }
    return [
        api_exchange(subscription.api_name),
        *_shared_objects(),
        dead_letters,
        Queue(name, arguments, api_name=subscription.api_name),
        Binding(name, names.RETURN_EXCHANGE, f"*.{name}"),
        *(
            declaration
            for delay in sorted(subscription.delays)
            for declaration in _delay_queue(names.in_milliseconds(delay))
        ),
        *event_bindings(subscription, subscription.events),
    ]


def event_bindings(subscription: Subscription, event_names: Iterable[str]) -> list[Binding]:
    """Return the bindings that route events of the subscription's API to its queue."""
    queue, exchange = names.listener_queue(subscription), names.api_exchange(subscription.api_name)
    return [Binding(queue, exchange, name) for name in sorted(event_names)]


def _shared_objects() -> list[Declaration]:
    unrouted = names.UNROUTED
    return [
        Exchange(unrouted, "fanout"),
        Queue(unrouted, _UNLIMITED_DELIVERIES, refill_exchange=unrouted),
        Binding(unrouted, unrouted, ""),
        Exchange(names.DELAY_EXCHANGE),
        Exchange(names.RETURN_EXCHANGE, arguments={"alternate-exchange": unrouted}),
    ]


def _delay_queue(milliseconds: int) -> list[Declaration]:
    name = names.delay_queue(milliseconds)
    # Without a routing key of its own: the event keeps the key that routes it to its listener.
    arguments = {**_dead_lettering_to(names.RETURN_EXCHANGE), "x-message-ttl": milliseconds}
    return [
        Queue(name, arguments, refill_exchange=names.DELAY_EXCHANGE),
        Binding(name, names.DELAY_EXCHANGE, f"{milliseconds}.#"),
    ]


def _dead_lettering_to(exchange: str, routing_key: str | None = None) -> dict[str, Any]:
    arguments = {**_QUORUM, "x-dead-letter-exchange": exchange, **_LOSSLESS_DEAD_LETTERING}
    if routing_key is not None:
        arguments["x-dead-letter-routing-key"] = routing_key
    return arguments
