"""Runs the conformance suite on the transport."""

import pytest

from lightbus.testing.conformance import *  # noqa: F403


@pytest.fixture
def event_transport(tmp_path):
    return {"files": {"path": str(tmp_path)}}
