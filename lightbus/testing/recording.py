"""`recording`: replaces the broker of a bus in tests, and records the fired events."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any

from lightbus.bus import Bus
from lightbus.client import BusClient
from lightbus.encoding import json_codec
from lightbus.exceptions import NotDeclared
from lightbus.handling.listener import Listener
from lightbus.handling.threads import HandlerThreads
from lightbus.message import EventMessage
from lightbus.names import did_you_mean
from lightbus.transport.features import QueueStats, require
from lightbus.worker.dispatch import Dispatcher

_ABSENT = object()


class RecordingBus(Bus):
    """A bus that records fired events. Its handlers run when a test calls `drain`.

    Attributes:
        failures: The errors that handlers raised, in order.
    """

    def __init__(self, client: BusClient) -> None:
        super().__init__(client)
        self._broker = f"recording-{secrets.token_hex(8)}"
        self.failures: list[BaseException] = []
        self._fired: list[EventMessage] = []
        self._draining = asyncio.Lock()

    def in_use(self) -> AbstractContextManager[None]:
        """Return a context in which the bus uses the broker of this recording."""
        transport = {"memory": {"name": self._broker}}
        return self.client.transports.override(transport, on_sent=self._fired.append)

    def fired_events(self, name: str | None = None) -> list[EventMessage]:
        """Return the fired events, in order.

        Args:
            name: Return only events of this name, for example ``"auth.user_created"``.
        """
        return [message for message in self._fired if name in (None, message.canonical_name)]

    def assert_fired(self, name: str, /, **fields: Any) -> EventMessage:
        """Return the first event `name` that was fired with at least these fields.

        Raises:
            AssertionError: No such event was fired. The message lists the fired events.
            UnencodableValue: A value in `fields` cannot be encoded as JSON.
        """
        expected = json_codec.decode(json_codec.encode(fields))
        for message in self.fired_events(name):
            if all(message.kwargs.get(key, _ABSENT) == value for key, value in expected.items()):
                return message
        raise AssertionError(
            f"{_describe(name, expected)} was not fired."
            f"{did_you_mean(name, {m.canonical_name for m in self._fired} - {name})} "
            f"{self._describe_fired()}"
        )

    def assert_not_fired(self, name: str, /, **fields: Any) -> None:
        """Check that no event `name` was fired with at least these fields.

        Raises:
            AssertionError: Such an event was fired. The message lists the fired events.
            UnencodableValue: A value in `fields` cannot be encoded as JSON.
        """
        try:
            message = self.assert_fired(name, **fields)
        except AssertionError:
            return
        raise AssertionError(
            f"{_describe(name, message.kwargs)} was fired. {self._describe_fired()}"
        )

    async def drain(self) -> None:
        """Run the handlers of all fired events, and of events that handlers fire.

        As in a worker, an event whose handler failed is retried or becomes a dead letter. `drain`
        does not wait for delayed retries.

        Raises:
            ApiError: A listener does not fit an API that was registered after it.
            Exception: A handler raised it. It is raised after all other handlers have run. Several
                errors are raised as an `ExceptionGroup`.
        """
        async with self._draining:
            with self.in_use():
                await self._drain()

    async def _drain(self) -> None:
        failure_count = len(self.failures)
        threads = HandlerThreads()
        try:
            is_done = False
            while not is_done:
                is_done = True
                for listener in self.client.listeners:
                    if await self._drain_one(listener, threads):
                        is_done = False
        finally:
            threads.shut_down()
        new_failures = self.failures[failure_count:]
        if len(new_failures) == 1:
            raise new_failures[0]
        if new_failures:
            raise BaseExceptionGroup("handlers failed", new_failures)

    async def _drain_one(self, listener: Listener, threads: HandlerThreads) -> bool:
        """Handle the backlog of one listener, and return whether there was any."""
        transport = await self.client.transports.open(listener.api_name)
        subscription = listener.subscription(self.client.config.service_name)
        stats = require(transport, QueueStats, "A recording")
        try:
            waiting = (await stats.stats(subscription)).waiting
        except NotDeclared:
            return False
        if not waiting:
            return False
        dispatcher = Dispatcher(
            listener,
            client=self.client,
            threads=threads,
            on_failure=lambda _: None,
            on_error=self.failures.append,
        )
        stream = await transport.subscribe(subscription)
        try:
            for _ in range(waiting):
                await dispatcher.dispatch(await anext(stream))
        finally:
            await stream.aclose()
        return True

    def _describe_fired(self) -> str:
        if not self._fired:
            return "Nothing was fired."
        return "Fired:" + "".join(
            f"\n  {_describe(message.canonical_name, message.kwargs)}" for message in self._fired
        )


def _describe(name: str, fields: Mapping[str, Any]) -> str:
    return f"{name}({', '.join(f'{key}={value!r}' for key, value in fields.items())})"


@contextlib.contextmanager
def recording(bus: Bus) -> Iterator[RecordingBus]:
    """Replace the broker of `bus` with one in memory while the block runs.

    The APIs, listeners and hooks of `bus` stay. Events that are fired on `bus` are recorded by the
    bus that this yields, and reach no other broker. If recordings of the same bus overlap, the one
    that started last records the events.
    """
    recorder = RecordingBus(bus.client)
    with recorder.in_use():
        yield recorder
