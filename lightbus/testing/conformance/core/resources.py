"""Threads, files and sockets, which end with their event loop."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lightbus.api import Api
from lightbus.bus import Bus, create
from lightbus.config import TransportSettings
from lightbus.events import Event
from lightbus.testing.conformance.broker import BrokerUnderTest
from lightbus.transport.contract import EventTransport
from lightbus.worker.worker import Worker

# What a process opens once and keeps shows after so many runs.
_RUNS_BEFORE = 3
_RUNS = 20


class Resources:
    """The threads and the open files and sockets of this process."""

    def __init__(self) -> None:
        self.threads = set(threading.enumerate())
        self.files = _count_files()

    def wait_until_gone(self, patience: float) -> None:
        """Wait until no more are open than when this object was made.

        Raises:
            AssertionError: There is more after `patience` seconds.
        """
        deadline = time.monotonic() + patience
        while True:
            # A thread that is done, and a socket, may go a moment later.
            gc.collect()
            threads = set(threading.enumerate()) - self.threads
            files = _count_files() - self.files
            if not threads and files <= 0:
                return
            assert time.monotonic() < deadline, f"{threads} and {files} files are left"
            time.sleep(0.01)


def _count_files() -> int:
    return len(list(Path("/dev/fd").iterdir()))


@pytest.fixture
def bus_under_test(
    transport_class: type[EventTransport], event_transport: TransportSettings, patience: float
) -> Iterator[Bus]:
    """A bus on the transport under test, with an API."""
    names = BrokerUnderTest(transport_class, event_transport, patience=patience)

    class ResourcesApi(Api):
        happened = Event(parameters=("text",))

        class Meta:
            name = names.api_name

    settings = {name: dict(given or {}) for name, given in event_transport.items()}
    bus = create(
        {"apis": {"default": {"event_transport": settings}}}, service_name=names.service_name
    )
    bus.client.register_api(ResourcesApi)
    yield bus
    bus.client.close()


async def fire(bus: Bus, text: str = "") -> None:
    """Fire one event."""
    (api,) = bus.client.apis
    await bus.client.fire_async(bus.client.publisher.message(api, "happened", {"text": text}))


def listen(bus: Bus) -> threading.Event:
    """Add a sync listener; return an event that is set when it is called."""
    was_called = threading.Event()

    def handle() -> None:
        was_called.set()

    (api,) = bus.client.apis
    bus.client.listen_for_event(api, "happened", handle, listener_name="listener")
    return was_called


class TestResources:
    def test_asyncio_run_leaves_nothing_open(self, bus_under_test: Bus, patience: float) -> None:
        for _ in range(_RUNS_BEFORE):
            asyncio.run(fire(bus_under_test))
        before = Resources()

        for _ in range(_RUNS):
            asyncio.run(fire(bus_under_test))

        before.wait_until_gone(patience)

    def test_a_worker_that_was_not_stopped_leaves_nothing_open(
        self, bus_under_test: Bus, patience: float
    ) -> None:
        was_called = listen(bus_under_test)

        async def serve_without_stopping() -> None:
            was_called.clear()
            await Worker(bus_under_test).start()
            await fire(bus_under_test)
            assert await asyncio.to_thread(was_called.wait, patience)

        for _ in range(_RUNS_BEFORE):
            asyncio.run(serve_without_stopping())
        before = Resources()

        for _ in range(_RUNS):
            asyncio.run(serve_without_stopping())

        before.wait_until_gone(patience)
