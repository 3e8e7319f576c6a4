"""The memory transport passes the conformance suite."""

from __future__ import annotations

import secrets
from typing import Any

import pytest

from lightbus.testing.conformance import *  # noqa: F403


@pytest.fixture
def event_transport() -> dict[str, Any]:
    return {"memory": {"name": f"test-{secrets.token_hex(4)}"}}
