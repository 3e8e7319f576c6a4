"""`tail`: the events that services fire, as they come."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from fnmatch import fnmatchcase

from lightbus.client import BusClient
from lightbus.exceptions import TransportUnavailable
from lightbus.log import get_logger
from lightbus.message import EventMessage

_log = get_logger(__name__)

# How long to wait before a broker that was lost is tried again, in seconds.
_PAUSE = 1.0


@contextlib.asynccontextmanager
async def tail(
    client: BusClient, pattern: str = "*"
) -> AsyncGenerator[AsyncGenerator[EventMessage]]:
    """Give the events that are fired, by whichever service, while the block runs.

    Listeners get all of them, too. Events that come much faster than they are read are left out.

    Args:
        pattern: Of canonical names, such as ``"auth.*"``; ``*`` stands for anything. Of APIs that
            neither it nor this process names, nothing is known.

    Raises:
        TransportRefused: The transport of an API can not show them.
        TransportError: A broker could not be reached.
    """
    received: asyncio.Queue[EventMessage | Exception] = asyncio.Queue(maxsize=100)
    tasks: list[asyncio.Task[None]] = []
    shown = _shown(received)
    async with contextlib.AsyncExitStack() as begun:
        try:
            for api_name in _api_names(client, pattern):
                transport = await client.opened_transport(api_name)
                events = await transport.tail(api_name)
                begun.push_async_callback(events.aclose)
                keeping = _keep(client, api_name, events, pattern, received)
                tasks.append(asyncio.create_task(keeping))
            yield shown
        finally:
            await shown.aclose()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


def _api_names(client: BusClient, pattern: str) -> list[str]:
    named, _, _ = pattern.rpartition(".")
    if named and "*" not in named and "?" not in named and "[" not in named:
        return [named]
    configured = {name for name in client.config.apis if name != "default"}
    known = {*client.apis, *(listener.api_name for listener in client.listeners), *configured}
    return sorted(name for name in known if not named or fnmatchcase(name, named))


async def _shown(
    received: asyncio.Queue[EventMessage | Exception],
) -> AsyncGenerator[EventMessage]:
    while True:
        found = await received.get()
        if isinstance(found, Exception):
            raise found
        yield found


async def _keep(
    client: BusClient,
    api_name: str,
    events: AsyncGenerator[EventMessage],
    pattern: str,
    received: asyncio.Queue[EventMessage | Exception],
) -> None:
    """Hand on the events of one API, over lost connections too."""
    while True:
        try:
            async with contextlib.aclosing(events):
                async for message in events:
                    if fnmatchcase(message.canonical_name, pattern):
                        await received.put(message)
        except TransportUnavailable as error:
            _log.warning("Events can not be seen; trying again.", reason=str(error))
        except Exception as error:
            await received.put(error)
            return
        await asyncio.sleep(_PAUSE)
        events = await _begun_again(client, api_name)


async def _begun_again(client: BusClient, api_name: str) -> AsyncGenerator[EventMessage]:
    while True:
        try:
            transport = await client.opened_transport(api_name)
            return await transport.tail(api_name)
        except TransportUnavailable as error:
            _log.warning("Events can not be seen; trying again.", reason=str(error))
            await asyncio.sleep(_PAUSE)
