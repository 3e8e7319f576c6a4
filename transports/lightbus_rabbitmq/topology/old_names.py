"""The old names of the bus's own objects, and the objects that replace them."""

from __future__ import annotations

import attrs

from lightbus_rabbitmq import names
from lightbus_rabbitmq.topology.declarations import Binding, DesiredTopology, Exchange, Queue

DELAY = Exchange(names.OLD_DELAY_EXCHANGE)
RETURN = Exchange(names.OLD_RETURN_EXCHANGE, arguments={"alternate-exchange": names.OLD_UNROUTED})
UNROUTED = Exchange(names.OLD_UNROUTED, "fanout")

# In the order in which events pass through them, and so in which they can be deleted. The last one
# shows whether the others can be there: the first alone would look like that of an API "delay".
EXCHANGES = (DELAY, RETURN, UNROUTED)


@attrs.frozen
class RenamedQueue:
    """A queue under its old name.

    Attributes:
        old_name: That name.
        old_binding: What leads to it.
        queue: The queue that replaces it.
    """

    old_name: str
    old_binding: Binding
    queue: Queue


def delay_queues(wanted: DesiredTopology) -> list[RenamedQueue]:
    """Return the old queues of the delays that are wanted."""
    return [
        _renamed(queue, names.OLD_DELAY_EXCHANGE, binding.routing_key)
        for queue in wanted.queues
        for binding in wanted.bindings_of(queue)[:1]
        if queue.refilled_through == names.DELAY_EXCHANGE
    ]


def unrouted_queues(wanted: DesiredTopology) -> list[RenamedQueue]:
    """Return the old queue of events whose listener is gone, where a new one is wanted."""
    return [
        _renamed(queue, names.OLD_UNROUTED, "")
        for queue in wanted.queues
        if queue.name == names.UNROUTED
    ]


def return_bindings(wanted: DesiredTopology) -> list[Binding]:
    """Return what leads from the old return exchange to the listeners' queues."""
    return [
        attrs.evolve(binding, exchange=names.OLD_RETURN_EXCHANGE)
        for binding in wanted.bindings
        if binding.exchange == names.RETURN_EXCHANGE
    ]


def _renamed(queue: Queue, old_exchange: str, routing_key: str) -> RenamedQueue:
    old_name = names.old_name(queue.name)
    return RenamedQueue(old_name, Binding(old_name, old_exchange, routing_key), queue)
