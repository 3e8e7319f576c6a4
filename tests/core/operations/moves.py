"""Services whose events are moved from one SQLite file to another."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import lightbus
from command import TIMEOUT
from core.apis import AuthApi
from lightbus import Bus, OnError
from lightbus.transport.contract import EventTransport
from lightbus.transport.records import Subscription
from lightbus_sqlite import SQLiteTransport

SERVICE = "shop"


def config(file: Path, **api: Any) -> dict[str, Any]:
    """Return a configuration that leads to an SQLite file."""
    default = {"event_transport": {"sqlite": {"path": str(file), "lease": 1}}, **api}
    return {"service_name": SERVICE, "apis": {"default": default}}


@contextlib.asynccontextmanager
async def bus_on(file: Path) -> AsyncIterator[Bus]:
    """Give a bus of the service on an SQLite file."""
    bus = lightbus.create(config(file, acknowledgement_timeout=1))
    bus.client.register_api(AuthApi)
    yield bus
    await bus.client.close_async()


def listen(
    bus: Bus, handler: Callable[..., object], *, on_error: OnError = OnError.SHUTDOWN
) -> None:
    """Listen as the service does."""
    bus.auth.user_created.listen(handler, listener_name="welcome", on_error=on_error)
    bus.auth.user_deleted.listen(lambda username: None, listener_name="clean-up")


async def fire(file: Path, *names: str, at_once: bool = False) -> None:
    """Fire an event for each name, for the listeners of the service."""
    async with bus_on(file) as bus:
        listen(bus, lambda username: None)
        fired = [bus.auth.user_created.fire_async(username=name, email="e") for name in names]
        if at_once:
            await asyncio.gather(*fired)
        else:
            for one in fired:
                await one


async def transport_and_queue(bus: Bus) -> tuple[EventTransport, Subscription]:
    """Return the transport of a bus and the first of its subscriptions."""
    transport = await bus.client.transports.transport("auth").opened(timeout=TIMEOUT)
    return transport, next(iter(bus.client.listeners)).subscription(SERVICE)


async def waiting_in(file: Path) -> list[tuple[str, int]]:
    """Return the name and the attempt of each event that waits, in order."""
    async with bus_on(file) as bus:
        listen(bus, lambda username: None)
        transport, subscription = await transport_and_queue(bus)
        assert isinstance(transport, SQLiteTransport)
        stream = await transport.subscribe(subscription)
        count = (await transport.stats(subscription)).total
        deliveries = [await anext(stream) for _ in range(count)]
        return [(delivery.message.kwargs["username"], delivery.attempt) for delivery in deliveries]


async def dead_in(file: Path) -> list[tuple[str, str]]:
    """Return the name and the error of each dead letter."""
    async with bus_on(file) as bus:
        transport = await bus.client.transports.transport("auth").opened(timeout=TIMEOUT)
        assert isinstance(transport, SQLiteTransport)
        return [
            (letter.message.kwargs["username"], letter.failure.error_message)
            async for letter in transport.dead_letters(SERVICE)
        ]
