"""The suite that every transport passes.

A transport's author runs it with one fixture, in a test file of two statements::

    from lightbus.testing.conformance import *

    @pytest.fixture
    def event_transport(tmp_path):
        return {"files": {"path": str(tmp_path)}}

The fixture returns what a configuration file says below ``event_transport``; the suite finds the
transport by that name. The broker may be a new one for each case, or the same for all. The suite
needs ``pip install 'lightbus[testing]'``.

`core` has the cases of the contract, and `features` those of each optional feature. The cases of a
feature are skipped for a transport that does not list it.
"""

from lightbus.testing.conformance.broker import broker, patience, transport_class
from lightbus.testing.conformance.core.consuming import TestConsuming
from lightbus.testing.conformance.core.failing import TestFailing
from lightbus.testing.conformance.core.lifecycle import TestLifecycle
from lightbus.testing.conformance.core.listed_features import TestListedFeatures
from lightbus.testing.conformance.core.model import TestModel
from lightbus.testing.conformance.core.publishing import TestPublishing
from lightbus.testing.conformance.core.resources import TestResources, bus_under_test
from lightbus.testing.conformance.core.settling import TestSettling
from lightbus.testing.conformance.features.asyncapi import TestAsyncAPISource
from lightbus.testing.conformance.features.dead_letters import TestDeadLetterStore
from lightbus.testing.conformance.features.find import TestFindEvent
from lightbus.testing.conformance.features.health import TestHealthCheck
from lightbus.testing.conformance.features.inexact_attempts import TestInexactAttempts
from lightbus.testing.conformance.features.listener_queues import TestListenerQueues
from lightbus.testing.conformance.features.queue_stats import TestQueueStats
from lightbus.testing.conformance.features.shared_broker import (
    TestSharedBroker,
    test_a_broker_in_one_process_refuses_a_forked_process,
)
from lightbus.testing.conformance.features.tail import TestTail
from lightbus.testing.conformance.features.topology import TestManagedTopology

__all__ = [
    "TestAsyncAPISource",
    "TestConsuming",
    "TestDeadLetterStore",
    "TestFailing",
    "TestFindEvent",
    "TestHealthCheck",
    "TestInexactAttempts",
    "TestLifecycle",
    "TestListedFeatures",
    "TestListenerQueues",
    "TestManagedTopology",
    "TestModel",
    "TestPublishing",
    "TestQueueStats",
    "TestResources",
    "TestSettling",
    "TestSharedBroker",
    "TestTail",
    "broker",
    "bus_under_test",
    "patience",
    "test_a_broker_in_one_process_refuses_a_forked_process",
    "transport_class",
]
