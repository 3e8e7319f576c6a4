"""`tail`: the events that services fire, as they come."""

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
from lightbus.transport.features import Tail, require

_log = get_logger(__name__)

# How long to wait before a broker that was lost is tried again, in seconds.
_PAUSE = 1.0


class Events:
    """The events that are seen, for several tasks to iterate over, until the block is left."""

    def __init__(self) -> None:
        self._received: asyncio.Queue[EventMessage | Exception | None] = asyncio.Queue(maxsize=100)

    def __aiter__(self) -> Self:
        """Return itself."""
        return self

    async def __anext__(self) -> EventMessage:
        """Return the next event, once there is one; wait for a broker that is away.

        Raises:
            StopAsyncIteration: The block was left.
            TransportError: No more events can be seen.
        """
        found = await self._received.get()
        if isinstance(found, EventMessage):
            return found
        self.end(found)  # for the next task that waits
        raise found or StopAsyncIteration

    async def put(self, message: EventMessage) -> None:
        """Add an event, once there is room."""
        await self._received.put(message)

    def end(self, error: Exception | None = None) -> None:
        """Have the iteration end, or raise `error`; what nobody has read is left out."""
        while not self._received.empty():
            self._received.get_nowait()
        self._received.put_nowait(error)


@contextlib.asynccontextmanager
async def tail(client: BusClient, pattern: str = "*") -> AsyncGenerator[Events]:
    """Give the events that are fired, by whichever service, while the block runs.

    Listeners get all of them, too. Events that come much faster than they are read are left out.

    Args:
        client: The client of a bus whose configuration says where they are.
        pattern: Of canonical names, such as ``"auth.*"``; ``*`` stands for anything, as in
            `fnmatch`. Of APIs that neither it nor this process names, nothing is known.

    Raises:
        InvalidName: No API is known that the pattern could be of.
        TransportRefused: The transport of an API cannot show them.
        TransportError: A broker could not be reached.
    """
    shown = Events()
    tasks: list[asyncio.Task[None]] = []
    async with contextlib.AsyncExitStack() as begun:
        try:
            for api_name in _api_names(client, pattern):
                events = await _begun(client, api_name)
                begun.push_async_callback(events.aclose)
                keeping = _keep(client, api_name, events, pattern, shown)
                tasks.append(asyncio.create_task(keeping))
            yield shown
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            shown.end()


def _api_names(client: BusClient, pattern: str) -> list[str]:
    named, _, _ = pattern.rpartition(".")
    known = client.known_api_names
    # The names of APIs may hold dots, and the pattern's last part may be of several.
    found = {name for name in known if fnmatchcase(name, named) or fnmatchcase(f"{name}.", pattern)}
    if named and not any(special in named for special in "*?["):
        found.add(named)
    if not found:
        raise InvalidName(
            "event pattern",
            pattern,
            "no API is known that it could be of; name one, as in 'auth.*'",
        )
    return sorted(found)


async def _keep(
    client: BusClient,
    api_name: str,
    events: AsyncGenerator[EventMessage] | None,
    pattern: str,
    shown: Events,
) -> None:
    """Hand on the events of one API, over lost connections too."""
    while True:
        try:
            async with contextlib.aclosing(events or await _begun(client, api_name)) as seen:
                async for message in seen:
                    if fnmatchcase(message.canonical_name, pattern):
                        await shown.put(message)
        except TransportUnavailable as error:
            _log.warning("Events cannot be seen; trying again.", reason=str(error))
        except Exception as error:
            shown.end(error)
            return
        events = None
        await asyncio.sleep(_PAUSE)


async def _begun(client: BusClient, api_name: str) -> AsyncGenerator[EventMessage]:
    transport = await client.opened_transport(api_name)
    return await require(transport, Tail, "Showing events while they are sent").tail(api_name)
