"""The lock at RabbitMQ that a reader of dead letters holds."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from typing import Any

import pytest
from aiormq.abc import AbstractChannel
from aiormq.exceptions import ChannelNotFoundEntity

from lightbus.exceptions import QueueInUse
from lightbus_rabbitmq import dead_letters
from lightbus_rabbitmq.driver.channel import Channel
from rabbitmq.dead_letter_support import add_dead_letters, read_dead_letters
from rabbitmq_support import Broker, MakeBus, transport_of

LOCK = "lightbus::reading:shop"


async def test_a_reader_that_waits_too_long_learns_who_holds_the_lock(
    make_bus: MakeBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dead_letters, "ACQUIRE_TIMEOUT", 0.3)
    bus = make_bus()
    ids = await add_dead_letters(bus, 3)
    first = transport_of(bus).dead_letters("shop")
    async with contextlib.aclosing(first):
        await anext(first)

        with pytest.raises(QueueInUse) as caught:
            await read_dead_letters(make_bus())

    assert caught.value.owner == "the dead letters of service 'shop'"
    assert f"pid {os.getpid()} on host {socket.gethostname()}" in caught.value.reason
    assert await read_dead_letters(make_bus()) == ids


async def test_a_reader_acquires_the_lock_even_if_another_deletes_its_description(
    make_bus: MakeBus, other_client: AbstractChannel, monkeypatch: pytest.MonkeyPatch
) -> None:
    bus = make_bus()
    ids = await add_dead_letters(bus, 3)
    bind = Channel.queue_bind

    async def delete_and_bind(channel: Channel, *args: Any, **kwargs: Any) -> Any:
        # As another client does that asks for the holder at the same time
        await other_client.exchange_delete(LOCK, if_unused=True)
        return await bind(channel, *args, **kwargs)

    monkeypatch.setattr(Channel, "queue_bind", delete_and_bind)

    assert await read_dead_letters(bus) == ids


async def test_the_lock_of_a_killed_reader_is_replaced(
    make_bus: MakeBus, broker: Broker, other_client: AbstractChannel
) -> None:
    bus = make_bus()
    ids = await add_dead_letters(bus, 1)
    # As if it was killed before the lock had a description
    await other_client.exchange_declare(exchange=LOCK, exchange_type="fanout")

    assert await read_dead_letters(bus) == ids

    # The broker deletes the exchange after the queue of the lock.
    async with asyncio.timeout(20):
        with contextlib.suppress(ChannelNotFoundEntity):
            while True:
                await other_client.exchange_declare(exchange=LOCK, passive=True)
