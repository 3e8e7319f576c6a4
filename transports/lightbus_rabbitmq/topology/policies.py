"""Finds policies at the broker that can lose events.

``docs/rabbitmq.rst`` describes them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from lightbus.transport.records import BrokerObject, ObjectState
from lightbus_rabbitmq.topology.declarations import Queue
from lightbus_rabbitmq.topology.management_api import ManagementAPI, Policy

_KIND = "policies"
_ALL_QUEUES = "all queues"
_NOT_SET = "not set"
_REJECT_PUBLISH = "reject-publish"
_OVERFLOW = "overflow"

_REMEDY = "Ask an operator to remove it from {kind} {name!r}."

_EFFECTS = {
    "expires": "RabbitMQ deletes a queue that is unused for that long, with all its events.",
    "message-ttl": "Events become dead letters after that time, and dead letters are deleted.",
    "max-length": "A full queue may drop events.",
    "max-length-bytes": "A full queue may drop events.",
    _OVERFLOW: "A queue with a maximum length drops its oldest events.",
    "delivery-limit": "Events become dead letters after fewer redeliveries; dead letters are lost.",
    "dead-letter-exchange": "Dropped and expired messages go elsewhere.",
    "dead-letter-routing-key": "Dropped and expired messages go elsewhere.",
    "dead-letter-strategy": "RabbitMQ may lose messages that it dead-letters.",
}


def unknown() -> BrokerObject:
    """Return the object that stands for policies whose state is unknown."""
    return BrokerObject(
        kind=_KIND,
        name=_ALL_QUEUES,
        state=ObjectState.UNKNOWN,
        note="AMQP shows neither policies nor the list of queues. Set `management_url` to check "
        "policies and to list unused queues.",
    )


async def compare(management_api: ManagementAPI, queues: Iterable[Queue]) -> list[BrokerObject]:
    """Return the settings of policies that can lose events of these queues.

    Raises:
        TransportRefused: The management API refused, or its answer was not RabbitMQ's.
        TransportUnavailable: It did not answer in time.
    """
    found: list[BrokerObject] = []
    for kind, are_operator_policies in (("policy", False), ("operator policy", True)):
        policies = await management_api.policies(are_operator_policies=are_operator_policies)
        unreadable = [policy for policy in policies if not _is_readable(policy)]
        found += [_unreadable(kind, policy) for policy in unreadable]
        readable = [policy for policy in policies if policy not in unreadable]
        for queue in queues:
            for policy in _effective(readable, queue):
                found += _harmful_settings(kind, policy, queue)
    return found or [BrokerObject(kind=_KIND, name=_ALL_QUEUES, state=ObjectState.OK)]


def _is_readable(policy: Policy) -> bool:
    # Erlang's regular expressions have some features that Python's lack.
    try:
        re.compile(policy.pattern)
    except re.error:
        return False
    return True


def _unreadable(kind: str, policy: Policy) -> BrokerObject:
    return BrokerObject(
        kind=kind,
        name=policy.name,
        state=ObjectState.UNKNOWN,
        note=f"It is unknown which queues its pattern {policy.pattern!r} matches.",
    )


def _effective(policies: list[Policy], queue: Queue) -> list[Policy]:
    """Return the matching policies with the highest priority.

    If there are several, RabbitMQ applies one of them, and it is unknown which.
    """
    matching = [
        policy
        for policy in policies
        if policy.apply_to in ("all", "queues", "quorum_queues")
        and re.search(policy.pattern, queue.name)
    ]
    highest = max((policy.priority for policy in matching), default=0)
    return [policy for policy in matching if policy.priority == highest]


def _harmful_settings(kind: str, policy: Policy, queue: Queue) -> list[BrokerObject]:
    return [
        BrokerObject(
            kind=kind,
            name=queue.name,
            state=ObjectState.DIFFERENT,
            argument=key,
            wanted=_REJECT_PUBLISH if key == _OVERFLOW else _NOT_SET,
            actual=str(value),
            note=f"{_EFFECTS[key]} {_REMEDY.format(kind=kind, name=policy.name)}",
        )
        for key, value in policy.definition.items()
        if key in _EFFECTS and _is_harmful(key, value, policy, queue)
    ]


def _is_harmful(key: str, value: Any, policy: Policy, queue: Queue) -> bool:
    argument = queue.arguments.get(f"x-{key}")
    if key == _OVERFLOW:
        return bool(value != _REJECT_PUBLISH)
    if key.startswith("max-length"):
        # A full queue that rejects messages loses none: the publisher waits.
        overflow = policy.definition.get(_OVERFLOW, queue.arguments.get(f"x-{_OVERFLOW}"))
        return bool(overflow != _REJECT_PUBLISH)
    if key == "delivery-limit":
        is_higher = isinstance(value, int) and isinstance(argument, int) and value >= argument
        return not is_higher
    if key.startswith("dead-letter-"):
        return argument is None  # the arguments of a queue take precedence over policies
    return True
