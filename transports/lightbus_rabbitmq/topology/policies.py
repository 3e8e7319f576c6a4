"""Finds policies at the broker with which events can be lost.

``docs/rabbitmq.rst`` says what each of them does.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from lightbus.transport.records import BrokerObject, ObjectState
from lightbus_rabbitmq.topology.declarations import Queue
from lightbus_rabbitmq.topology.management_api import ManagementAPI, Policy

_KIND = "policies"
_NAME = "all queues"
_NOT_SET = "not set"
_KEPT = "reject-publish"
_OVERFLOW = "overflow"

_REMEDY = "An operator removes it from {kind} {name!r}."

_EFFECTS = {
    "expires": "RabbitMQ deletes a queue that nobody uses for that long, with all its events.",
    "message-ttl": "Events that wait for longer become dead letters, and dead letters are lost.",
    "max-length": "A full queue may drop events.",
    "max-length-bytes": "A full queue may drop events.",
    _OVERFLOW: "A queue with a maximum length drops its oldest events.",
    "delivery-limit": "Events become dead letters after fewer returns, and dead letters are lost.",
    "dead-letter-exchange": "Dropped and expired messages are sent elsewhere.",
    "dead-letter-routing-key": "Dropped and expired messages are sent elsewhere.",
    "dead-letter-strategy": "RabbitMQ may lose messages that it dead-letters.",
}


def unknown() -> BrokerObject:
    """Return what stands for policies that cannot be seen."""
    return BrokerObject(
        kind=_KIND,
        name=_NAME,
        state=ObjectState.UNKNOWN,
        note="AMQP shows neither policies nor the list of queues. Set `management_url` to have "
        "policies checked, and unused queues listed.",
    )


async def compare(management: ManagementAPI, queues: Iterable[Queue]) -> list[BrokerObject]:
    """Return the settings of policies with which events of these queues can be lost.

    Raises:
        TransportRefused: The management API refused, or answered with something else.
        TransportUnavailable: It did not answer in time.
    """
    found: list[BrokerObject] = []
    for kind, of_operators in (("policy", False), ("operator policy", True)):
        policies = await management.policies(of_operators=of_operators)
        unreadable = [policy for policy in policies if not _is_readable(policy)]
        found += [_unreadable(kind, policy) for policy in unreadable]
        readable = [policy for policy in policies if policy not in unreadable]
        for queue in queues:
            for policy in _effective(readable, queue):
                found += _harmful_settings(kind, policy, queue)
    return found or [BrokerObject(kind=_KIND, name=_NAME, state=ObjectState.OK)]


def _is_readable(policy: Policy) -> bool:
    # Erlang knows the regular expressions of Perl, and Python most of these.
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
        note=f"Which queues its pattern {policy.pattern!r} matches is unknown.",
    )


def _effective(policies: list[Policy], queue: Queue) -> list[Policy]:
    """Return the policies of the highest priority among those that match a queue.

    Of several, RabbitMQ uses one, and does not say which.
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
            wanted=_KEPT if key == _OVERFLOW else _NOT_SET,
            actual=str(value),
            note=f"{_EFFECTS[key]} {_REMEDY.format(kind=kind, name=policy.name)}",
        )
        for key, value in policy.definition.items()
        if key in _EFFECTS and _is_harmful(key, value, policy, queue)
    ]


def _is_harmful(key: str, value: Any, policy: Policy, queue: Queue) -> bool:
    argument = queue.arguments.get(f"x-{key}")
    if key == _OVERFLOW:
        return bool(value != _KEPT)
    if key.startswith("max-length"):
        # A queue that refuses what is too much loses nothing: who sends it waits.
        overflow = policy.definition.get(_OVERFLOW, queue.arguments.get(f"x-{_OVERFLOW}"))
        return bool(overflow != _KEPT)
    if key == "delivery-limit":
        is_higher = isinstance(value, int) and isinstance(argument, int) and value >= argument
        return not is_higher
    if key.startswith("dead-letter-"):
        return argument is None  # what a queue is declared with goes before a policy
    return True
