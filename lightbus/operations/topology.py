"""`Topology`: what the brokers of a service hold, against what its program wants of them."""

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
class _Wanted:
    """What is wanted of one transport."""

    transport: EventTransport
    subscriptions: list[Subscription]
    events: Mapping[str, set[str]]


class Topology:
    """Compares and migrates for the listeners and the registered APIs of a bus."""

    def __init__(self, service_name: str, wanted: list[_Wanted]) -> None:
        self._service_name = service_name
        self._wanted = wanted

    async def compare(self) -> list[BrokerObject]:
        """Compare what the brokers hold with what is wanted, and change nothing.

        Raises:
            TransportError: A broker did not tell.
        """
        found: list[BrokerObject] = []
        for wanted in self._wanted:
            if supports(wanted.transport, ManagedTopology):
                found += await wanted.transport.topology(wanted.subscriptions, wanted.events)
            found += await self._unused(wanted)
        return found

    async def _unused(self, wanted: _Wanted) -> list[BrokerObject]:
        queues = None
        if supports(wanted.transport, ListenerQueues):
            queues = await wanted.transport.listener_queues(self._service_name)
        if queues is None:
            unknown = BrokerObject(
                kind="listeners",
                name=self._service_name,
                state=ObjectState.UNKNOWN,
                note="The broker does not report which queues of this service no listener uses.",
            )
            return [unknown]
        used = {(one.listener_name, one.api_name) for one in wanted.subscriptions}
        return [
            BrokerObject(
                kind="listener",
                name=f"{queue.listener_name} on {queue.api_name}",
                state=ObjectState.UNUSED,
                note=f"Events in its queue: {queue.events:,}. Delete it with `lightbus listeners "
                f"remove {queue.listener_name} --api {queue.api_name}`.",
            )
            for queue in queues
            if (queue.listener_name, queue.api_name) not in used
        ]

    async def migrate(self, *, on_progress: Callable[[MigrationProgress], None]) -> None:
        """Have the brokers hold what is wanted. Broken off at any point, it can be called again to
        do the rest.

        Args:
            on_progress: Called repeatedly with the progress of the migration of an object.

        Raises:
            TransportRefused: It cannot be done now, and why.
            TransportError: A broker failed.
        """
        for wanted in self._wanted:
            if supports(wanted.transport, ManagedTopology):
                await wanted.transport.migrate(
                    wanted.subscriptions, wanted.events, on_progress=on_progress
                )


@contextlib.asynccontextmanager
async def topology_of(
    client: BusClient, *, unwanted: Iterable[tuple[str, str]] = ()
) -> AsyncGenerator[Topology]:
    """Give the topology of a bus, between its `on_start` hooks, which may add listeners, and its
    `on_stop` hooks.

    Args:
        client: The client of the bus.
        unwanted: Pairs of an API's and an event's name, of events that its listeners may have
            listened for once. Those of registered APIs are known without.

    Raises:
        TransportError: A transport cannot be opened.
        Exception: What a hook raised.
    """
    async with started(client):
        yield Topology(client.config.service_name, await _wanted_by(client, unwanted))


async def _wanted_by(client: BusClient, unwanted: Iterable[tuple[str, str]]) -> list[_Wanted]:
    events = _events_of(client, unwanted)
    # A place may have no events any more, and still have queues.
    by_place = {client.transports.describe(name): name for name in one_api_per_broker(client)}
    by_place.update((client.transports.describe(name), name) for name in events)
    wanted = []
    for place, api_name in by_place.items():
        here = {name: events[name] for name in events if client.transports.describe(name) == place}
        wanted.append(
            _Wanted(
                transport=await client.transports.open(api_name),
                subscriptions=[
                    listener.subscription(client.config.service_name)
                    for listener in client.listeners
                    if listener.api_name in here
                ],
                events=here,
            )
        )
    return wanted


def _events_of(client: BusClient, unwanted: Iterable[tuple[str, str]]) -> dict[str, set[str]]:
    """Return the events of each API, as far as they are known here."""
    events = {name: set(api.events) for name, api in sorted(client.apis.items())}
    for listener in client.listeners:
        events.setdefault(listener.api_name, set()).update(listener.events)
    for api_name, event_name in unwanted:
        events.setdefault(api_name, set()).add(event_name)
    return events
