"""The pytest plugin, which pytest loads if Lightbus is installed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from lightbus.testing.recording import RecordingBus

pytest.register_assert_rewrite("lightbus.testing.conformance")


@pytest.fixture
def recording_bus() -> Iterator[RecordingBus]:
    """Return a new bus of the service "test" that records fired events, on a broker in memory."""
    # Imported here, because every test run loads this module, and few of them need a bus.
    import lightbus  # noqa: PLC0415
    from lightbus.testing.recording import recording  # noqa: PLC0415

    with recording(lightbus.create({}, service_name="test")) as bus:
        yield bus
        bus.client.close()
