"""The suite that every transport passes.

A transport's author runs it with one fixture, in a test file of two statements::

    from lightbus.testing.conformance import *

    @pytest.fixture
    def event_transport(tmp_path):
        return {"files": {"path": str(tmp_path)}}

The fixture returns what a configuration file says below ``event_transport``; the transport is found
by that name. It may be a new broker for each case or the same for all. The suite needs
``pip install 'lightbus[testing]'``.
"""

from lightbus.testing.conformance.broker import broker, patience, transport_class
from lightbus.testing.conformance.consuming import TestConsuming
from lightbus.testing.conformance.crashing import (
    TestCrashing,
    test_what_can_not_be_shared_is_refused_in_a_forked_process,
)
from lightbus.testing.conformance.failing import TestFailing
from lightbus.testing.conformance.lifecycle import TestLifecycle
from lightbus.testing.conformance.listener_queues import TestListenerQueues, removing_transport
from lightbus.testing.conformance.model import TestModel
from lightbus.testing.conformance.publishing import TestPublishing
from lightbus.testing.conformance.resources import TestResources, bus_under_test
from lightbus.testing.conformance.settling import TestSettling
from lightbus.testing.conformance.tailing import TestTailing, tailed_transport

__all__ = [
    "TestConsuming",
    "TestCrashing",
    "TestFailing",
    "TestLifecycle",
    "TestListenerQueues",
    "TestModel",
    "TestPublishing",
    "TestResources",
    "TestSettling",
    "TestTailing",
    "broker",
    "bus_under_test",
    "patience",
    "removing_transport",
    "tailed_transport",
    "test_what_can_not_be_shared_is_refused_in_a_forked_process",
    "transport_class",
]
