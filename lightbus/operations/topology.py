"""`Topology`: compares the objects at the brokers with those that a service needs, and migrates."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping

import attrs

from lightbus.client import BusClient
from lightbus.operations.known_apis import one_api_per_broker
from lightbus.operations.started import started
from lightbus.transport.contract import EventTransport
from lightbus.transport.features import ListenerQueues, ManagedTopology, supports
from lightbus.transport.records import BrokerObject, MigrationProgress, ObjectState, Subscription


@attrs.frozen(kw_only=True)
class _Target:
    """The subscriptions and events that the objects of one transport must serve."""

    transport: EventTransport
    subscriptions: list[Subscription]
    events: Mapping[str, set[str]]


class Topology:
    """The broker objects for the listeners and the registered APIs of a bus."""

    def __init__(self, service_name: str, targets: list[_Target]) -> None:
        self._service_name = service_name
        self._targets = targets

    async def compare(self) -> list[BrokerObject]:
        """Compare the objects at the brokers with the needed ones, without changing them.

        Raises:
            TransportError: A broker failed.
        """
        objects: list[BrokerObject] = []
        for target in self._targets:
            if supports(target.transport, ManagedTopology):
                objects += await target.transport.topology(target.subscriptions, target.events)
            objects += await self._unused(target)
        return objects

    async def _unused(self, target: _Target) -> list[BrokerObject]:
        queues = None
        if supports(target.transport, ListenerQueues):
            queues = await target.transport.listener_queues(self._service_name)
        if queues is None:
            unknown = BrokerObject(
                kind="listeners",
                name=self._service_name,
                state=ObjectState.UNKNOWN,
                note="The broker does not report which queues of this service no listener uses.",
            )
            return [unknown]
        used_queues = {(one.listener_name, one.api_name) for one in target.subscriptions}
        return [
            BrokerObject(
                kind="listener",
                name=f"{queue.listener_name} on {queue.api_name}",
                state=ObjectState.UNUSED,
                note=f"Events in its queue: {queue.events:,}. Delete it with `lightbus listeners "
                f"remove {queue.listener_name} --api {queue.api_name}`.",
            )
            for queue in queues
            if (queue.listener_name, queue.api_name) not in used_queues
        ]

    async def migrate(self, *, on_progress: Callable[[MigrationProgress], None]) -> None:
        """Declare missing objects and migrate different ones. Call it again after an interruption.

        Args:
            on_progress: Called repeatedly with the progress of the migration of an object.

        Raises:
            TransportRefused: The migration is not possible now. The message states why.
            TransportError: A broker failed.
        """
        for target in self._targets:
            if supports(target.transport, ManagedTopology):
                await target.transport.migrate(
                    target.subscriptions, target.events, on_progress=on_progress
                )


@contextlib.asynccontextmanager
async def topology_of(
    client: BusClient, *, former_events: Iterable[tuple[str, str]] = ()
) -> AsyncGenerator[Topology]:
    """Yield the topology of a bus.

    The `on_start` hooks, which may add listeners, run before, and the `on_stop` hooks after.

    Args:
        client: The client of the bus.
        former_events: Events for which its listeners may have listened in the past, as pairs of
            the names of the API and the event. Events of registered APIs are included anyway.

    Raises:
        TransportError: A transport cannot be opened.
        Exception: A hook raised it.
    """
    async with started(client):
        yield Topology(client.config.service_name, await _targets(client, former_events))


async def _targets(client: BusClient, former_events: Iterable[tuple[str, str]]) -> list[_Target]:
    events = _known_events(client, former_events)
    # Includes brokers without events, which may still have queues.
    by_broker = {client.transports.describe(name): name for name in one_api_per_broker(client)}
    by_broker.update((client.transports.describe(name), name) for name in events)
    targets = []
    for broker, api_name in by_broker.items():
        here = {name: events[name] for name in events if client.transports.describe(name) == broker}
        targets.append(
            _Target(
                transport=await client.transports.open(api_name),
                subscriptions=[
                    listener.subscription(client.config.service_name)
                    for listener in client.listeners
                    if listener.api_name in here
                ],
                events=here,
            )
        )
    return targets


def _known_events(
    client: BusClient, former_events: Iterable[tuple[str, str]]
) -> dict[str, set[str]]:
    """Return the known events of each API."""
    events = {name: set(api.events) for name, api in sorted(client.apis.items())}
    for listener in client.listeners:
        events.setdefault(listener.api_name, set()).update(listener.events)
    for api_name, event_name in former_events:
        events.setdefault(api_name, set()).add(event_name)
    return events
