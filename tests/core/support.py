"""What several of the core's test files share."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection
from typing import Any, Protocol

from lightbus import Api, Bus, Worker
from lightbus_memory.broker import Broker
from lightbus_memory.queue import Entry

# Long enough for a slow machine; a test that waits so long has failed.
PATIENCE = 5.0

# A bus module whose listeners a hook adds, which a command has to call to know of them.
BUS = """
import lightbus
bus = lightbus.create()

@bus.client.on_start()
def on_start():
    bus.auth.user_created.listen(lambda username: None, listener_name="welcome")
    bus.auth.user_deleted.listen(lambda username: None, listener_name="clean-up")
"""


class MakeBus(Protocol):
    """Makes a bus on the test's own broker, with the settings given for all APIs."""

    def __call__(
        self,
        *apis: type[Api],
        service_name: str = "shop",
        shutdown_timeout: float = PATIENCE,
        others: dict[str, Any] | None = None,
        **settings: Any,
    ) -> Bus: ...


class Received:
    """What handlers add to it, from any thread, for the test's event loop to await."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._items: asyncio.Queue[Any] = asyncio.Queue()

    def add(self, item: Any) -> None:
        self._loop.call_soon_threadsafe(self._items.put_nowait, item)

    def add_name(self, username: str) -> None:
        """Serve as a handler."""
        self.add(username)

    async def next(self) -> Any:
        async with asyncio.timeout(PATIENCE):
            return await self._items.get()

    async def next_ones(self, count: int) -> list[Any]:
        return [await self.next() for _ in range(count)]

    @property
    def is_empty(self) -> bool:
        return self._items.empty()


class Broken(Exception):
    """What the handlers of the tests raise."""


def ignore(username: str) -> None:
    """A handler for tests in which none is called."""


async def raise_broken(username: str) -> None:
    """Fail, as a handler."""
    raise Broken(username)


async def eventually(condition: Callable[[], object]) -> None:
    """Return once `condition` holds, for what nothing tells of."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - as said
            await asyncio.sleep(0.005)


async def wait_until_stopping(worker: Worker) -> None:
    """Return once `worker` takes no more events."""
    async with asyncio.timeout(PATIENCE):
        while not await worker.check_health():  # noqa: ASYNC110 - nothing tells when it stops
            await asyncio.sleep(0.005)


def fields_of(record: logging.LogRecord) -> dict[str, Any]:
    """Return the fields that Lightbus gave a log record; none for another library's."""
    fields: dict[str, Any] = getattr(record, "lightbus", {})
    return fields


def take_waiting(broker: Broker, bus: Bus) -> list[Entry]:
    """Take and return the events that the broker would hand to the listeners of `bus` now."""
    queues = [broker.declare(listener.subscription("shop")) for listener in bus.client.listeners]
    return [entry for queue in queues for entry in iter(queue.get, None)]


def next_delay(broker: Broker, bus: Bus) -> float | None:
    """Return how long the first delayed event of the only listener has to wait."""
    (listener,) = bus.client.listeners
    return broker.declare(listener.subscription("shop")).next_delay()


def names(entries: Collection[Any]) -> list[str]:
    """Return the ``username`` of each of the entries or dead letters."""
    return [entry.message.kwargs["username"] for entry in entries]
