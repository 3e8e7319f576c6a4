"""`ListenerQueues`: finds and deletes the queues of listeners that no longer exist."""

from __future__ import annotations

import contextlib

import attrs

from lightbus.client import BusClient
from lightbus.exceptions import NotDeclared, QueueInUse, TransportError, TransportRefused
from lightbus.operations.known_apis import one_api_per_broker
from lightbus.transport import features
from lightbus.transport.contract import EventTransport
from lightbus.transport.features import QueueStats, require
from lightbus.transport.records import ListenerQueue, QueueAddress


@attrs.frozen(kw_only=True)
class FoundQueue:
    """A queue that no listener of the bus uses.

    Attributes:
        queue: The queue.
        transport: The transport of its broker.
    """

    queue: ListenerQueue
    transport: features.ListenerQueues


class ListenerQueues:
    """The queues of the listeners of the service of `client`.

    The `on_start` hooks, which may add listeners, must have run.
    """

    def __init__(self, client: BusClient) -> None:
        self._client = client
        self._service_name = client.config.service_name

    async def find(self, listener_name: str, api_name: str | None) -> list[FoundQueue]:
        """Return the queues of a listener that the bus no longer has.

        Args:
            listener_name: The name of the listener.
            api_name: The name of the API; None for every API.

        Raises:
            QueueInUse: The bus still has the listener.
            NotDeclared: The listener has no queue.
            TransportRefused: `api_name` is needed, because a broker does not list its queues.
            TransportError: A broker failed.
        """
        client = self._client
        api_names = one_api_per_broker(client) + ([api_name] if api_name else [])
        brokers = {client.transports.describe(name): name for name in api_names}
        found: list[FoundQueue] = []
        is_unknown = False
        for broker, api_of_broker in brokers.items():
            transport = await client.transports.open(api_of_broker)
            removable = require(transport, features.ListenerQueues, "Removing a listener")
            queues = await removable.listener_queues(self._service_name)
            if queues is None and api_name and client.transports.describe(api_name) == broker:
                queues = await self._existing_queue(transport, listener_name, api_name)
            is_unknown = is_unknown or queues is None
            for queue in queues or []:
                if queue.listener_name == listener_name and api_name in (None, queue.api_name):
                    self._check_unused(queue, broker)
                    found.append(FoundQueue(queue=queue, transport=removable))
        if not found:
            raise self._not_found(listener_name, api_name, is_unknown=is_unknown)
        return found

    def _not_found(
        self, listener_name: str, api_name: str | None, *, is_unknown: bool
    ) -> TransportError:
        if is_unknown and api_name is None:
            return TransportRefused(
                "The broker does not list its queues. Name the API of the listener with --api."
            )
        where = f" on {api_name}" if api_name else ""
        return NotDeclared(
            f"Service {self._service_name!r} has no queue for listener {listener_name!r}{where}."
        )

    def check_empty(self, found: list[FoundQueue]) -> None:
        """Check that all of these queues are empty.

        Raises:
            QueueInUse: A queue has events.
        """
        for queue in (one.queue for one in found):
            if queue.events:
                raise QueueInUse(self._address(queue).owner, events=queue.events)

    async def remove(self, found: FoundQueue, *, discard: bool) -> int:
        """Delete a queue, and return how many events were deleted with it.

        The errors are those of `lightbus.transport.features.ListenerQueues.remove_listener_queue`.
        """
        address = self._address(found.queue)
        return await found.transport.remove_listener_queue(address, discard=discard)

    def _address(self, queue: ListenerQueue) -> QueueAddress:
        return QueueAddress(
            service_name=self._service_name,
            listener_name=queue.listener_name,
            api_name=queue.api_name,
        )

    def _check_unused(self, queue: ListenerQueue, broker: str) -> None:
        for listener in self._client.listeners:
            if (listener.name, listener.api_name) == (
                queue.listener_name,
                queue.api_name,
            ) and self._client.transports.describe(listener.api_name) == broker:
                raise QueueInUse(
                    self._address(queue).owner,
                    "the bus module, or one of its on_start hooks, adds this listener. Remove it "
                    "there first",
                )

    async def _existing_queue(
        self, transport: EventTransport, listener_name: str, api_name: str
    ) -> list[ListenerQueue]:
        stats = require(transport, QueueStats, "Removing a listener")
        with contextlib.suppress(NotDeclared):
            address = QueueAddress(
                service_name=self._service_name, listener_name=listener_name, api_name=api_name
            )
            events = (await stats.stats(address)).total
            return [ListenerQueue(listener_name=listener_name, api_name=api_name, events=events)]
        return []
