"""A transport lists exactly the features that it implements."""

from __future__ import annotations

from typing import Any

import pytest

from lightbus.transport import features
from lightbus.transport.contract import EventTransport

FEATURES: dict[type[Any], tuple[str, ...]] = {
    features.AsyncAPISource: ("asyncapi",),
    features.DeadLetterStore: ("dead_letters", "add_dead_letter", "count_dead_letters"),
    features.FindEvent: ("find",),
    features.HealthCheck: ("check_health",),
    features.ListenerQueues: ("listener_queues", "remove_listener_queue"),
    features.ManagedTopology: ("topology", "migrate"),
    features.QueueStats: ("stats",),
    features.Tail: ("tail",),
}


class TestListedFeatures:
    @pytest.mark.parametrize("feature", FEATURES, ids=lambda feature: feature.__name__)
    def test_a_feature_is_listed_if_and_only_if_it_is_implemented(
        self, transport_class: type[EventTransport], feature: type[Any]
    ) -> None:
        implemented = [name for name in FEATURES[feature] if hasattr(transport_class, name)]
        is_listed = features.lists(transport_class, feature)

        assert implemented == (list(FEATURES[feature]) if is_listed else []), (
            f"{transport_class.__name__} must derive from {feature.__name__} if it has its methods."
        )

    def test_every_method_of_a_listed_feature_is_implemented(
        self, transport_class: type[EventTransport]
    ) -> None:
        missing = sorted(getattr(transport_class, "__abstractmethods__", ()))

        assert missing == [], f"{transport_class.__name__} does not implement these methods."
