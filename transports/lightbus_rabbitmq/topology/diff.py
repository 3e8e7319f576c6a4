"""Compares what RabbitMQ holds with what is wanted, as far as AMQP lets it be seen."""

from __future__ import annotations

from aiormq.exceptions import ChannelNotFoundEntity

from lightbus.exceptions import TopologyMismatch
from lightbus.transport.records import BrokerObject, ObjectState
from lightbus_rabbitmq.driver.connection import ReconnectingConnection
from lightbus_rabbitmq.driver.operations import AMQPChannel, queue_counts, run_on_new_channel
from lightbus_rabbitmq.topology import declarations, old_names
from lightbus_rabbitmq.topology.declarations import Binding, DesiredTopology, Exchange, Queue

_BY_HAND = (
    "It cannot be changed. Stop what fires through it, delete it, and run "
    "`lightbus topology --migrate` in every service that listens."
)


async def compare(
    link: ReconnectingConnection, wanted: DesiredTopology, *, timeout: float
) -> list[BrokerObject]:
    """Compare the exchanges and queues; say of the bindings that they are not seen.

    The errors are those of `run_on_new_channel`.
    """
    found = [await compared_with(link, exchange, timeout=timeout) for exchange in wanted.exchanges]
    for queue in wanted.queues:
        found.append(await compared_with(link, queue, timeout=timeout))
        left = await queue_counts(link, queue.temporary.name, timeout=timeout)
        if left is not None:
            found.append(_unfinished(queue, left.ready))
        if queue.api_name:
            found.append(_bindings(queue, wanted))
    return found + await _old(link, wanted, timeout=timeout)


async def _old(
    link: ReconnectingConnection, wanted: DesiredTopology, *, timeout: float
) -> list[BrokerObject]:
    """Return those of the bus's own objects that exist under their old names."""

    async def exists(exchange: Exchange) -> bool:
        compared = await compared_with(link, exchange, timeout=timeout)
        return compared.state is ObjectState.OK

    queues = [*old_names.delay_queues(wanted), *old_names.unrouted_queues(wanted)]
    if not queues or not await exists(old_names.UNROUTED):
        return []
    found = []
    for renamed in queues:
        if (held := await queue_counts(link, renamed.old_name, timeout=timeout)) is not None:
            note = (
                f"An old name: {renamed.queue.name!r} replaces it. {held.ready:,} events "
                "wait in it. Stop the workers of all services; `lightbus topology --migrate` then "
                "moves the events, and deletes the queue when nothing uses it any more."
            )
            found.append(_old_object("queue", renamed.old_name, note))
    for exchange in old_names.EXCHANGES:
        if await exists(exchange):
            note = (
                "An old name. `lightbus topology --migrate` deletes it when nothing is bound to it "
                "any more: run it in every service that listens."
            )
            found.append(_old_object("exchange", exchange.name, note))
    return found


def _old_object(kind: str, name: str, note: str) -> BrokerObject:
    return BrokerObject(kind=kind, name=name, state=ObjectState.OLD, note=note)


def _unfinished(queue: Queue, ready: int) -> BrokerObject:
    return BrokerObject(
        kind=queue.kind,
        name=queue.temporary.name,
        state=ObjectState.UNFINISHED,
        note=f"A migration was broken off, or is under way: {ready:,} events wait in it. "
        "`lightbus topology --migrate` goes on.",
    )


def _bindings(queue: Queue, wanted: DesiredTopology) -> BrokerObject:
    exchange = declarations.api_exchange(queue.api_name).name

    def names_of(bindings: list[Binding]) -> str:
        names = [one.routing_key for one in bindings if one.exchange == exchange]
        return ", ".join(names) or "none"

    return BrokerObject(
        kind="bindings",
        name=queue.name,
        state=ObjectState.UNKNOWN,
        note="AMQP does not show bindings. --migrate binds "
        f"{names_of(wanted.bindings_of(queue))}, and "
        f"unbinds {names_of(wanted.unwanted_of(queue))}.",
    )


async def compared_with(
    link: ReconnectingConnection, wanted: Exchange | Queue, *, timeout: float
) -> BrokerObject:
    """Compare one object, and leave it as it is.

    The errors are those of `run_on_new_channel`.
    """
    doing = f"to look at {wanted.kind} {wanted.name!r}"

    async def exists(channel: AMQPChannel) -> bool:
        try:
            await wanted.declare(channel, passive=True)
        except ChannelNotFoundEntity:
            return False
        return True

    state = ObjectState.OK
    argument = to_be = actual = note = ""
    if not await run_on_new_channel(link, exists, doing=doing, timeout=timeout):
        state = ObjectState.MISSING
    else:
        try:
            # Declaring what exists changes nothing, and only that tells what differs.
            await run_on_new_channel(link, wanted.declare, doing=doing, timeout=timeout)
        except TopologyMismatch as error:
            state = ObjectState.DIFFERENT
            argument, to_be, actual = error.argument, error.wanted, error.actual
            note = _BY_HAND if isinstance(wanted, Exchange) else ""
    return BrokerObject(
        kind=wanted.kind,
        name=wanted.name,
        state=state,
        argument=argument,
        wanted=to_be,
        actual=actual,
        note=note,
    )
