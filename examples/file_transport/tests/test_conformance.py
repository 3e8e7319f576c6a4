"""The whole of what a transport's author writes to know that it works."""

import pytest

from lightbus.testing.conformance import *  # noqa: F403


@pytest.fixture
def event_transport(tmp_path):
    return {"files": {"path": str(tmp_path)}}
