"""`tail`: shows the events that services fire, while they are sent."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from fnmatch import fnmatchcase
from typing import Self

from lightbus.client import BusClient
from lightbus.exceptions import InvalidName, TransportUnavailable
from lightbus.log import get_logger
from lightbus.message import EventMessage
from lightbus.operations.known_apis import known_api_names
from lightbus.transport.features import Tail, require

_log = get_logger(__name__)

# Seconds before the next attempt to reach a broker that was lost.
_RECONNECT_DELAY = 1.0

# Events that wait for a reader. The transport drops more.
_MAX_UNREAD = 100

# An event; or the end of the iteration, with the error that ended it.
_Queue = asyncio.Queue[EventMessage | Exception | None]


class Events:
    """The events that `tail` shows. Several tasks may iterate over them at once."""

    def __init__(self, queue: _Queue) -> None:
        self._queue = queue

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> EventMessage:
        """Wait for the next event, and for the broker if the connection is lost.

        Raises:
            StopAsyncIteration: The block of `tail` was left.
            TransportError: The transport cannot show more events.
        """
        event = await self._queue.get()
        if isinstance(event, EventMessage):
            return event
        _end(self._queue, event)  # for the next task that iterates
        raise event or StopAsyncIteration


@contextlib.asynccontextmanager
async def tail(client: BusClient, pattern: str = "*") -> AsyncGenerator[Events]:
    """Show the events that any service fires while the block runs.

    Listeners still receive all events. If events arrive faster than they are read, some are not
    shown.

    Args:
        client: The client of a bus whose configuration has the brokers.
        pattern: A pattern of canonical names, such as ``"auth.*"``, in the syntax of `fnmatch`. An
            API that this program does not know is shown only if the pattern names it in full.

    Raises:
        InvalidName: The pattern matches no known API.
        FeatureNotSupported: The transport of an API cannot show events.
        TransportError: A broker could not be reached.
    """
    queue = _Queue(maxsize=_MAX_UNREAD)
    tasks: list[asyncio.Task[None]] = []
    async with contextlib.AsyncExitStack() as opened:
        try:
            for api_name in _matching_apis(client, pattern):
                events = await _tail_api(client, api_name)
                opened.push_async_callback(events.aclose)
                forwarding = _forward(client, api_name, events, pattern, queue)
                tasks.append(asyncio.create_task(forwarding))
            yield Events(queue)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            _end(queue)


def _matching_apis(client: BusClient, pattern: str) -> list[str]:
    api_pattern, _, _ = pattern.rpartition(".")
    # API names may contain dots, so the last part of the pattern may match parts of an API name.
    api_names = {
        name
        for name in known_api_names(client)
        if fnmatchcase(name, api_pattern) or fnmatchcase(f"{name}.", pattern)
    }
    if api_pattern and not any(special in api_pattern for special in "*?["):
        api_names.add(api_pattern)
    if not api_names:
        raise InvalidName(
            "event pattern", pattern, "it matches no known API; name an API, as in 'auth.*'"
        )
    return sorted(api_names)


async def _forward(
    client: BusClient,
    api_name: str,
    events: AsyncGenerator[EventMessage] | None,
    pattern: str,
    queue: _Queue,
) -> None:
    """Add the events of one API to the queue. Reconnect when the connection is lost."""
    while True:
        try:
            async with contextlib.aclosing(events or await _tail_api(client, api_name)) as shown:
                async for message in shown:
                    if fnmatchcase(message.canonical_name, pattern):
                        await queue.put(message)
        except TransportUnavailable as error:
            _log.warning("Connection lost; reconnecting to show events.", reason=str(error))
        except Exception as error:
            _end(queue, error)
            return
        events = None
        await asyncio.sleep(_RECONNECT_DELAY)


def _end(queue: _Queue, error: Exception | None = None) -> None:
    """End the iteration, with `error` if there is one. Drop events that were not read."""
    while not queue.empty():
        queue.get_nowait()
    queue.put_nowait(error)


async def _tail_api(client: BusClient, api_name: str) -> AsyncGenerator[EventMessage]:
    transport = await client.transports.open(api_name)
    return await require(transport, Tail, "Showing events while they are sent").tail(api_name)
