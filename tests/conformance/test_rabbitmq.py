"""The RabbitMQ transport passes the suite, on a real RabbitMQ."""

from __future__ import annotations

from typing import Any

import pytest

from lightbus.testing.conformance import *  # noqa: F403


@pytest.fixture
def event_transport(rabbitmq_url: str) -> dict[str, Any]:
    return {"rabbitmq": {"url": rabbitmq_url}}
