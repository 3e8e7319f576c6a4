"""Adds and reads dead letters through the transport."""

from __future__ import annotations

import contextlib

from lightbus import Bus, EventMessage
from lightbus.transport.failure import Failure
from lightbus_rabbitmq import RabbitMQTransport
from rabbitmq_support import transport_of


async def add_dead_letters(bus: Bus, count: int, *, first: int = 0) -> list[str]:
    """Add dead letters; return their ids."""
    failure = Failure.of(
        ValueError("broken"), listener="welcome", attempt=1, service_name="shop", process_name="p"
    )
    messages = [
        EventMessage.create("auth", "user_created", {"username": str(number)})
        for number in range(first, first + count)
    ]
    transport = await bus.client.transports.open("auth")
    assert isinstance(transport, RabbitMQTransport)
    for message in messages:
        await transport.add_dead_letter("shop", message, failure, timeout=20)
    return [message.id for message in messages]


async def read_dead_letters(bus: Bus) -> list[str]:
    """Return the ids of all dead letters."""
    letters = transport_of(bus).dead_letters("shop")
    async with contextlib.aclosing(letters):
        return [letter.message.id async for letter in letters]
