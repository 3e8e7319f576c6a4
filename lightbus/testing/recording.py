"""`recording`: a bus on a broker in memory, for tests of what a program fires and handles."""

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
from lightbus.handling.listener import Listener
from lightbus.handling.threads import HandlerThreads
from lightbus.message import EventMessage
from lightbus.names import did_you_mean
from lightbus.transport.features import QueueStats, require
from lightbus.worker.dispatch import Dispatcher

_ABSENT = object()


class RecordingBus(Bus):
    """A bus that records what is fired, and whose handlers run when a test says so.

    Attributes:
        failures: What handlers raised, in that order.
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
        """Return the events that were fired, in that order.

        Args:
            name: Of those of one event only, for example ``"auth.user_created"``.
        """
        return [message for message in self._fired if name in (None, message.canonical_name)]

    def assert_fired(self, name: str, /, **fields: Any) -> EventMessage:
        """Return the first event of that name which was fired with at least these fields.

        Raises:
            AssertionError: There is none; it shows what was fired.
            UnencodableValue: One of `fields` cannot travel as JSON, and so was not fired.
        """
        wanted = json_codec.decode(json_codec.encode(fields))
        for message in self.fired_events(name):
            if all(message.kwargs.get(key, _ABSENT) == value for key, value in wanted.items()):
                return message
        raise AssertionError(
            f"{_shown(name, wanted)} was not fired."
            f"{did_you_mean(name, {m.canonical_name for m in self._fired} - {name})} "
            f"{self._all_shown()}"
        )

    def assert_not_fired(self, name: str, /, **fields: Any) -> None:
        """Pass where no event of that name was fired with at least these fields.

        Raises:
            AssertionError: One was; it shows what was fired.
            UnencodableValue: One of `fields` cannot travel as JSON, and so was not fired.
        """
        try:
            found = self.assert_fired(name, **fields)
        except AssertionError:
            return
        raise AssertionError(f"{_shown(name, found.kwargs)} was fired. {self._all_shown()}")

    async def drain(self) -> None:
        """Run the handlers of every recorded event that waits, and of what they fire, until none
        waits.

        An event whose handler failed is tried again, or kept as a dead letter, as in a worker; what
        has to wait for its next try is left waiting.

        Raises:
            ApiError: A listener does not fit an API that was registered after it.
            Exception: What a handler raised, once none waits; several come as an `ExceptionGroup`.
        """
        async with self._draining:
            with self.in_use():
                await self._drain()

    async def _drain(self) -> None:
        known = len(self.failures)
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
        new = self.failures[known:]
        if len(new) == 1:
            raise new[0]
        if new:
            raise BaseExceptionGroup("handlers failed", new)

    async def _drain_one(self, listener: Listener, threads: HandlerThreads) -> bool:
        """Run what waits for one listener; return whether there was anything."""
        transport = await self.client.transports.open(listener.api_name)
        subscription = listener.subscription(self.client.config.service_name)
        stats = require(transport, QueueStats, "A recording")
        waiting = (await stats.stats(subscription)).waiting
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

    def _all_shown(self) -> str:
        if not self._fired:
            return "Nothing was fired."
        return "Fired:" + "".join(
            f"\n  {_shown(message.canonical_name, message.kwargs)}" for message in self._fired
        )


def _shown(name: str, fields: Mapping[str, Any]) -> str:
    return f"{name}({', '.join(f'{key}={value!r}' for key, value in fields.items())})"


@contextlib.contextmanager
def recording(bus: Bus) -> Iterator[RecordingBus]:
    """Make `bus` use a broker in memory while the block runs, whatever its configuration says.

    Its APIs, listeners and hooks stay, and so does what programs imported: what is fired on `bus`
    is recorded by the bus that this gives, and reaches no other. If recordings of one bus overlap,
    the one that started last records the fired events.
    """
    recorder = RecordingBus(bus.client)
    with recorder.in_use():
        yield recorder
