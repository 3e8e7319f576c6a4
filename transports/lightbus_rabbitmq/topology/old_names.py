"""The names that an earlier version gave to the shared objects, and what replaces each of them."""

from __future__ import annotations

import attrs

from lightbus_rabbitmq import names
from lightbus_rabbitmq.topology.declarations import Binding, DesiredTopology, Exchange, Queue

DELAY = Exchange(names.OLD_DELAY_EXCHANGE)
RETURN = Exchange(names.OLD_RETURN_EXCHANGE, arguments={"alternate-exchange": names.OLD_UNROUTED})
UNROUTED = Exchange(names.OLD_UNROUTED, "fanout")

# In the order in which events pass through them, which is also the order of deletion. The last one
# shows whether the others can exist: alone, the first could be the exchange of an API "delay".
EXCHANGES = (DELAY, RETURN, UNROUTED)


@attrs.frozen
class RenamedQueue:
    """A queue under its old name.

    Attributes:
        old_name: The old name.
        old_binding: The binding of the old queue.
        queue: The queue that replaces it.
    """

    old_name: str
    old_binding: Binding
    queue: Queue


def delay_queues(desired: DesiredTopology) -> list[RenamedQueue]:
    """Return the old queues of the delays that the service uses."""
    return [
        _renamed(queue, names.OLD_DELAY_EXCHANGE, binding.routing_key)
        for queue in desired.queues
        for binding in desired.bindings_of(queue)[:1]
        if queue.refill_exchange == names.DELAY_EXCHANGE
    ]


def unrouted_queues(desired: DesiredTopology) -> list[RenamedQueue]:
    """Return the old queue of unrouted events, if the topology has a new one."""
    return [
        _renamed(queue, names.OLD_UNROUTED, "")
        for queue in desired.queues
        if queue.name == names.UNROUTED
    ]


def return_bindings(desired: DesiredTopology) -> list[Binding]:
    """Return the bindings from the old return exchange to the listeners' queues."""
    return [
        attrs.evolve(binding, exchange=names.OLD_RETURN_EXCHANGE)
        for binding in desired.bindings
        if binding.exchange == names.RETURN_EXCHANGE
    ]


def _renamed(queue: Queue, old_exchange: str, routing_key: str) -> RenamedQueue:
    old_name = names.old_name(queue.name)
    return RenamedQueue(old_name, Binding(old_name, old_exchange, routing_key), queue)
