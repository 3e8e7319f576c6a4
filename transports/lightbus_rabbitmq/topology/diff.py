"""Compares the objects at RabbitMQ with the desired topology, as far as AMQP allows.

AMQP does not show the settings of an object. But declaring an object that exists changes nothing,
and fails if a setting differs.
"""

from __future__ import annotations

from aiormq.exceptions import ChannelNotFoundEntity

from lightbus.exceptions import TopologyMismatch
from lightbus.transport.records import BrokerObject, ObjectState
from lightbus_rabbitmq.driver.connection import ReconnectingConnection
from lightbus_rabbitmq.driver.operations import AMQPChannel, queue_counts, run_on_new_channel
from lightbus_rabbitmq.topology import declarations, old_names
from lightbus_rabbitmq.topology.declarations import Binding, DesiredTopology, Exchange, Queue

_EXCHANGE_REMEDY = (
    "It cannot be changed. Stop the programs that fire through it, delete it, and run "
    "`lightbus topology --migrate` in every service that listens."
)


async def compare(
    connection: ReconnectingConnection, desired: DesiredTopology, *, timeout: float
) -> list[BrokerObject]:
    """Return the state of each exchange and queue. The state of bindings is unknown.

    The errors are those of `run_on_new_channel`.
    """
    found = [
        await compare_object(connection, exchange, timeout=timeout)
        for exchange in desired.exchanges
    ]
    for queue in desired.queues:
        found.append(await compare_object(connection, queue, timeout=timeout))
        temporary = await queue_counts(connection, queue.temporary.name, timeout=timeout)
        if temporary is not None:
            found.append(_unfinished_queue(queue, temporary.ready))
        if queue.api_name:
            found.append(_bindings_of(queue, desired))
    return found + await _old_objects(connection, desired, timeout=timeout)


async def _old_objects(
    connection: ReconnectingConnection, desired: DesiredTopology, *, timeout: float
) -> list[BrokerObject]:
    """Return the shared objects that exist under their old names."""

    async def exists(exchange: Exchange) -> bool:
        compared = await compare_object(connection, exchange, timeout=timeout)
        return compared.state is ObjectState.OK

    queues = [*old_names.delay_queues(desired), *old_names.unrouted_queues(desired)]
    if not queues or not await exists(old_names.UNROUTED):
        return []
    found = []
    for renamed in queues:
        counts = await queue_counts(connection, renamed.old_name, timeout=timeout)
        if counts is not None:
            note = (
                f"An old name: {renamed.queue.name!r} replaces it. It holds {counts.ready:,} "
                "events. Stop the workers of all services; `lightbus topology --migrate` then "
                "moves the events, and deletes the queue when nothing uses it."
            )
            found.append(_old_object("queue", renamed.old_name, note))
    for exchange in old_names.EXCHANGES:
        if await exists(exchange):
            note = (
                "An old name. `lightbus topology --migrate` deletes it when nothing is bound to "
                "it: run it in every service that listens."
            )
            found.append(_old_object("exchange", exchange.name, note))
    return found


def _old_object(kind: str, name: str, note: str) -> BrokerObject:
    return BrokerObject(kind=kind, name=name, state=ObjectState.OLD, note=note)


def _unfinished_queue(queue: Queue, ready: int) -> BrokerObject:
    return BrokerObject(
        kind=queue.kind,
        name=queue.temporary.name,
        state=ObjectState.UNFINISHED,
        note=f"A migration was interrupted, or is running. The queue holds {ready:,} events. "
        "`lightbus topology --migrate` continues.",
    )


def _bindings_of(queue: Queue, desired: DesiredTopology) -> BrokerObject:
    exchange = declarations.api_exchange(queue.api_name).name

    def events_of(bindings: list[Binding]) -> str:
        events = [binding.routing_key for binding in bindings if binding.exchange == exchange]
        return ", ".join(events) or "none"

    return BrokerObject(
        kind="bindings",
        name=queue.name,
        state=ObjectState.UNKNOWN,
        note="AMQP does not show bindings. --migrate binds "
        f"{events_of(desired.bindings_of(queue))}, and "
        f"unbinds {events_of(desired.stale_bindings_of(queue))}.",
    )


async def compare_object(
    connection: ReconnectingConnection, desired: Exchange | Queue, *, timeout: float
) -> BrokerObject:
    """Compare one object with its desired settings, and change nothing.

    The errors are those of `run_on_new_channel`.
    """
    doing = f"to look at {desired.kind} {desired.name!r}"

    async def exists(channel: AMQPChannel) -> bool:
        try:
            await desired.declare(channel, passive=True)
        except ChannelNotFoundEntity:
            return False
        return True

    state = ObjectState.OK
    argument = wanted = actual = note = ""
    if not await run_on_new_channel(connection, exists, doing=doing, timeout=timeout):
        state = ObjectState.MISSING
    else:
        try:
            await run_on_new_channel(connection, desired.declare, doing=doing, timeout=timeout)
        except TopologyMismatch as error:
            state = ObjectState.DIFFERENT
            argument, wanted, actual = error.argument, error.declared, error.actual
            note = _EXCHANGE_REMEDY if isinstance(desired, Exchange) else ""
    return BrokerObject(
        kind=desired.kind,
        name=desired.name,
        state=state,
        argument=argument,
        wanted=wanted,
        actual=actual,
        note=note,
    )
