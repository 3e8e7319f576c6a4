"""The exchanges, queues and bindings that Lightbus wants of RabbitMQ.

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

# Dead-lettering within the broker loses nothing only with both of these.
# https://www.rabbitmq.com/docs/quorum-queues#dead-lettering
_LOSSLESS_DEAD_LETTERING = {
    "x-dead-letter-strategy": "at-least-once",
    "x-overflow": "reject-publish",
}

# Looking at a queue's events returns them, and what is returned too often, RabbitMQ 4 drops.
_STORE = {**_QUORUM, "x-delivery-limit": 1_000_000_000}


@attrs.frozen
class Exchange:
    """A durable exchange."""

    kind: ClassVar[str] = "exchange"

    name: str
    type: str = "topic"
    arguments: Mapping[str, Any] = attrs.field(factory=dict)

    async def declare(self, channel: AMQPChannel, *, passive: bool = False) -> None:
        """Declare it; passively: only ask whether there is one of its name."""
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
        name: Its name.
        arguments: Its arguments.
        api_name: The API whose events wait in it; empty where they are of many.
        refilled_through: The exchange through which what is taken from it can be put back, with the
            routing key that it had; empty for the default exchange.
    """

    kind: ClassVar[str] = "queue"

    name: str
    arguments: Mapping[str, Any]
    api_name: str = ""
    refilled_through: str = ""

    async def declare(self, channel: AMQPChannel, *, passive: bool = False) -> None:
        """Declare it; passively: only ask whether there is one of its name."""
        await channel.queue_declare(
            queue=self.name, durable=True, passive=passive, arguments=dict(self.arguments)
        )

    @property
    def temporary(self) -> Queue:
        """The queue that takes the place of this one while it is made anew."""
        # What is taken from a listener's queue and returned, as by a move that was killed, must not
        # become a dead letter. A delay queue's deputy ends waits as the queue itself does.
        return attrs.evolve(
            self,
            name=names.temporary_queue(self.name),
            arguments=_STORE if self.api_name else self.arguments,
        )


@attrs.frozen
class Binding:
    """What leads from an exchange to a queue."""

    queue: str
    exchange: str
    routing_key: str

    @property
    def name(self) -> str:
        """What it is, for people."""
        return f"{self.exchange} -> {self.queue} ({self.routing_key})"

    async def declare(self, channel: AMQPChannel) -> None:
        """Bind. Doing so again does nothing."""
        await channel.queue_bind(
            queue=self.queue, exchange=self.exchange, routing_key=self.routing_key
        )

    async def remove(self, channel: AMQPChannel) -> None:
        """Unbind. Doing so again does nothing."""
        await channel.queue_unbind(
            queue=self.queue, exchange=self.exchange, routing_key=self.routing_key
        )


Declaration = Exchange | Queue | Binding
Named = TypeVar("Named", Exchange, Queue)


@attrs.frozen(kw_only=True)
class DesiredTopology:
    """All that a service wants of a broker, each object once.

    Attributes:
        exchanges: What can be compared by itself.
        queues: Likewise.
        bindings: What is to lead to the queues.
        unwanted: What may lead to them, and is to go.
    """

    exchanges: list[Exchange]
    queues: list[Queue]
    bindings: list[Binding]
    unwanted: list[Binding]

    @classmethod
    def of(
        cls, subscriptions: Collection[Subscription], events: Mapping[str, Collection[str]]
    ) -> DesiredTopology:
        """Return what the subscriptions, and firing events of these APIs, need."""
        wanted: list[Declaration] = [api_exchange(api_name) for api_name in events]
        unwanted: list[Binding] = []
        for subscription in subscriptions:
            wanted += of_subscription(subscription)
            others = set(events.get(subscription.api_name, ())) - subscription.events
            unwanted += event_bindings(subscription, others)
        return cls(
            exchanges=_once(one for one in wanted if isinstance(one, Exchange)),
            queues=_once(one for one in wanted if isinstance(one, Queue)),
            bindings=[one for one in wanted if isinstance(one, Binding)],
            unwanted=unwanted,
        )

    def bindings_of(self, queue: Queue) -> list[Binding]:
        """Return what is to lead to a queue."""
        return [binding for binding in self.bindings if binding.queue == queue.name]

    def unwanted_of(self, queue: Queue) -> list[Binding]:
        """Return what may lead to a queue, and is to go."""
        return [binding for binding in self.unwanted if binding.queue == queue.name]


def _once(found: Iterable[Named]) -> list[Named]:
    return list({one.name: one for one in found}.values())


def api_exchange(api_name: str) -> Exchange:
    """Return what firing the events of an API needs."""
    return Exchange(names.api_exchange(api_name))


def dead_letter_queue(service_name: str) -> Queue:
    """Return the queue that keeps the dead letters of a service."""
    return Queue(names.dead_letter_queue(service_name), _STORE)


def of_subscription(subscription: Subscription) -> list[Declaration]:
    """Return what a listener needs, each after what it needs itself."""
    name = names.listener_queue(subscription)
    dead = dead_letter_queue(subscription.service_name)
    arguments = {
        **_dead_lettering_to("", dead.name),
        "x-delivery-limit": DELIVERY_LIMIT,
    }
    return [
        api_exchange(subscription.api_name),
        *_returns(),
        dead,
        Queue(name, arguments, api_name=subscription.api_name),
        Binding(name, names.RETURN_EXCHANGE, f"*.{name}"),
        *(
            wanted
            for delay in sorted(subscription.delays)
            for wanted in _delay(names.in_milliseconds(delay))
        ),
        *event_bindings(subscription, subscription.events),
    ]


def event_bindings(subscription: Subscription, event_names: Iterable[str]) -> list[Binding]:
    """Return what leads events of the subscription's API to its queue."""
    queue, exchange = names.listener_queue(subscription), names.api_exchange(subscription.api_name)
    return [Binding(queue, exchange, name) for name in sorted(event_names)]


def _returns() -> list[Declaration]:
    unrouted = names.UNROUTED
    return [
        Exchange(unrouted, "fanout"),
        Queue(unrouted, _STORE, refilled_through=unrouted),
        Binding(unrouted, unrouted, ""),
        Exchange(names.DELAY_EXCHANGE),
        Exchange(names.RETURN_EXCHANGE, arguments={"alternate-exchange": unrouted}),
    ]


def _delay(milliseconds: int) -> list[Declaration]:
    name = names.delay_queue(milliseconds)
    # No routing key: an event keeps the one that leads it back to its listener.
    arguments = {**_dead_lettering_to(names.RETURN_EXCHANGE), "x-message-ttl": milliseconds}
    return [
        Queue(name, arguments, refilled_through=names.DELAY_EXCHANGE),
        Binding(name, names.DELAY_EXCHANGE, f"{milliseconds}.#"),
    ]


def _dead_lettering_to(exchange: str, routing_key: str | None = None) -> dict[str, Any]:
    arguments = {**_QUORUM, "x-dead-letter-exchange": exchange, **_LOSSLESS_DEAD_LETTERING}
    if routing_key is not None:
        arguments["x-dead-letter-routing-key"] = routing_key
    return arguments
