"""What a stream does when writes are delayed or cancelled, and when it is closed."""

from __future__ import annotations

import asyncio
from pathlib import Path

import attrs
import pytest

from lightbus_sqlite.delivery import SQLiteDelivery
from sqlite.support import (
    PATIENCE,
    SUBSCRIPTION,
    count_waiting,
    lock_file,
    message,
    name_of,
    open_transport,
    receive_elsewhere,
)

LEASE = 0.3


async def test_receiving_and_acknowledging_wait_for_a_locked_file(file: Path) -> None:
    transport = await open_transport(file)
    await transport.send(message("ann"), timeout=PATIENCE)
    with lock_file(file):
        subscribing = asyncio.create_task(transport.subscribe(SUBSCRIPTION))
        await asyncio.wait({subscribing}, timeout=0.4)

    stream = await subscribing
    async with asyncio.timeout(PATIENCE):
        delivery = await anext(stream)
    with lock_file(file):
        acking = asyncio.create_task(delivery.ack())
        await asyncio.wait({acking}, timeout=0.4)
        assert not acking.done()
    await acking
    await transport.close()
    assert await count_waiting(file) == 0


async def test_stopping_again_after_a_cancelled_stop_requeues_deliveries_that_were_not_received(
    file: Path,
) -> None:
    transport = await open_transport(file)
    await transport.send(message("a"), timeout=PATIENCE)
    await transport.send(message("b"), timeout=PATIENCE)
    stream = await transport.subscribe(SUBSCRIPTION)
    await (await anext(stream)).ack()
    stopping = asyncio.create_task(stream.stop())
    await asyncio.sleep(0)
    stopping.cancel()
    await asyncio.wait({stopping})

    await stream.stop()

    assert (await transport.stats(SUBSCRIPTION)).waiting == 1
    delivery = await anext(await transport.subscribe(SUBSCRIPTION))
    assert (name_of(delivery), delivery.attempt) == ("b", 1)
    await transport.close()


async def test_a_cancelled_write_leases_no_deliveries(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    transport = await open_transport(file, lease=0.5)
    stream = await transport.subscribe(attrs.evolve(SUBSCRIPTION, concurrency=2))
    for number in range(30):
        await transport.send(message(str(number)), timeout=PATIENCE)
    held = await anext(stream)  # so that leases are renewed
    monkeypatch.setattr("lightbus_sqlite.database.OPERATION_TIMEOUT", 0.3)
    monkeypatch.setattr("lightbus_sqlite.stream.PAUSE", 0.1)
    with lock_file(file):
        # Writes that are cancelled meanwhile must not be done once the file is unlocked.
        patient = asyncio.create_task(transport.send(message("30"), timeout=PATIENCE))
        await asyncio.sleep(1)
    await patient

    async with asyncio.timeout(PATIENCE):
        for _ in range(30):
            await (await anext(stream)).ack()
    await held.ack()
    assert (await transport.stats(SUBSCRIPTION)).in_flight == 0
    await transport.close()


async def test_closing_a_stream_ends_its_leases(file: Path) -> None:
    transport = await open_transport(file, lease=LEASE)
    stream = await transport.subscribe(SUBSCRIPTION)
    await transport.send(message("a"), timeout=PATIENCE)
    await anext(stream)

    await stream.aclose()

    elsewhere = await asyncio.to_thread(receive_elsewhere, file, within=3 * LEASE, lease=LEASE)
    assert elsewhere == [("a", 2)]
    await transport.close()


async def test_a_delivery_whose_lease_ended_in_the_buffer_is_not_counted_as_an_attempt(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    transport = await open_transport(file)
    for name in "ab":
        await transport.send(message(name), timeout=PATIENCE)
    stream = await transport.subscribe(SUBSCRIPTION)
    await (await anext(stream)).ack()  # which also marks "b" as received

    # The process is suspended here for longer than a lease.
    is_leased = iter([False])
    monkeypatch.setattr(SQLiteDelivery, "is_leased", property(lambda _: next(is_leased, True)))
    async with asyncio.timeout(PATIENCE):
        delivery = await anext(stream)

    assert (name_of(delivery), delivery.attempt, delivery.redeliveries) == ("b", 1, 0)
    await transport.close()
