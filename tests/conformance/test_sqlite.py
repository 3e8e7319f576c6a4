"""The SQLite transport passes the conformance suite."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lightbus.testing.conformance import *  # noqa: F403


@pytest.fixture
def event_transport(tmp_path: Path) -> dict[str, Any]:
    return {"sqlite": {"path": str(tmp_path / "events.db"), "lease": 1.0}}
