"""`Status`: counts the waiting, delayed and dead events of each listener of a service."""

from __future__ import annotations

from collections import Counter

import attrs

from lightbus.client import BusClient
from lightbus.exceptions import NotDeclared
from lightbus.handling.listener import Listener
from lightbus.operations.known_apis import one_api_per_broker
from lightbus.transport.contract import EventTransport
from lightbus.transport.features import DeadLetterStore, QueueStats, supports
from lightbus.transport.records import DeadLetterCount, SubscriptionStats


@attrs.frozen(kw_only=True)
class ListenerStatus:
    """The numbers of events of one listener on one API.

    Attributes:
        name: The name of the listener.
        api_name: The name of the API.
        stats: The numbers of events in its queue; None if the listener has no queue yet.
        dead: The number of its dead letters; None if the broker does not report it.
        dead_in_service: The number of dead letters of the service; None if the broker does not
            report it, for example while a client reads them.
    """

    name: str
    api_name: str
    stats: SubscriptionStats | None
    dead: int | None
    dead_in_service: int | None


class Status:
    """Counts the events of the listeners of a bus."""

    def __init__(self, client: BusClient) -> None:
        self._client = client

    async def listeners(self) -> list[ListenerStatus]:
        """Return the current numbers of events of each listener.

        Raises:
            TransportError: A broker failed.
        """
        dead = await self._dead()
        by_listener = dead.by_listener
        return [
            ListenerStatus(
                name=listener.name,
                api_name=listener.api_name,
                stats=await self._stats(listener),
                dead=None
                if by_listener is None
                else by_listener.get((listener.api_name, listener.name), 0),
                dead_in_service=dead.total,
            )
            for listener in self._client.listeners
        ]

    async def _stats(self, listener: Listener) -> SubscriptionStats | None:
        transport = await self._client.transports.open(listener.api_name)
        if not supports(transport, QueueStats):
            return SubscriptionStats(waiting=None, delayed=None, in_flight=None)
        try:
            return await transport.stats(listener.subscription(self._client.config.service_name))
        except NotDeclared:
            return None

    async def _dead(self) -> DeadLetterCount:
        """Count the dead letters of the service at all brokers that its APIs use."""
        total: int | None = 0
        by_listener: Counter[tuple[str, str]] | None = Counter()
        for api_name in one_api_per_broker(self._client):
            transport = await self._client.transports.open(api_name)
            count = await _count(transport, self._client.config.service_name)
            total = None if total is None or count.total is None else total + count.total
            if by_listener is None or count.by_listener is None:
                by_listener = None
            else:
                by_listener.update(count.by_listener)
        return DeadLetterCount(total=total, by_listener=by_listener)


async def _count(transport: EventTransport, service_name: str) -> DeadLetterCount:
    if not supports(transport, DeadLetterStore):
        return DeadLetterCount(total=None)
    return await transport.count_dead_letters(service_name)
