"""How long a worker keeps its leases: slow, blocked, or stuck."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import attrs

import lightbus
from core.apis import AuthApi
from lightbus import OnError
from sqlite.support import (
    PATIENCE,
    SUBSCRIPTION,
    message,
    name_of,
    open_transport,
    receive_elsewhere,
)

# In seconds
LEASE = 0.3


async def test_a_blocked_event_loop_keeps_its_leases(
    file: Path,
) -> None:
    transport = await open_transport(file, lease=LEASE)
    for name in "abc":
        await transport.send(message(name), timeout=PATIENCE)
    stream = await transport.subscribe(SUBSCRIPTION)
    received = await anext(stream)

    with ThreadPoolExecutor(1) as other:
        receiving = other.submit(receive_elsewhere, file, within=5 * LEASE, lease=LEASE)
        time.sleep(6 * LEASE)  # noqa: ASYNC251 - it blocks the loop on purpose
        assert receiving.result(PATIENCE) == []

    await received.ack()
    rest = [await anext(stream) for _ in range(2)]
    assert [(name_of(one), one.attempt) for one in rest] == [("b", 1), ("c", 1)]
    assert (await transport.stats(SUBSCRIPTION)).in_flight == 2
    await transport.close()


async def test_a_handler_that_blocks_the_event_loop_for_longer_than_a_lease_runs_once(
    file: Path,
) -> None:
    calls: list[str] = []
    settings = {"event_transport": {"sqlite": {"path": str(file), "lease": LEASE}}}
    bus = lightbus.create({"apis": {"default": settings}}, service_name="shop")
    bus.client.register_api(AuthApi)
    is_over = asyncio.Event()

    async def handle(username: str) -> None:
        time.sleep(3 * LEASE)  # noqa: ASYNC251 - it blocks the loop on purpose
        calls.append(username)
        if len(calls) == 3:
            is_over.set()

    bus.auth.user_deleted.listen(handle, listener_name="gather", on_error=OnError.RETRY)
    for name in "abc":
        await bus.auth.user_deleted.fire_async(username=name)
    with ThreadPoolExecutor(1) as other:
        async with lightbus.Worker(bus):
            receiving = other.submit(receive_elsewhere, file, within=8 * LEASE, lease=LEASE)
            async with asyncio.timeout(PATIENCE):
                await is_over.wait()
        elsewhere = receiving.result(PATIENCE)
    await bus.client.close_async()

    # The other worker may have leased some events first.
    assert sorted(calls + [name for name, _ in elsewhere]) == ["a", "b", "c"]
    assert all(attempt == 1 for _, attempt in elsewhere)


async def test_an_event_loop_that_is_blocked_beyond_the_acknowledgement_timeout_loses_its_leases(
    file: Path,
) -> None:
    transport = await open_transport(file, lease=LEASE)
    for name in "abc":
        await transport.send(message(name), timeout=PATIENCE)
    stream = await transport.subscribe(attrs.evolve(SUBSCRIPTION, acknowledgement_timeout=0.1))
    assert name_of(await anext(stream)) == "a"

    with ThreadPoolExecutor(1) as other:
        elsewhere = other.submit(receive_elsewhere, file, within=8 * LEASE, lease=LEASE).result(
            PATIENCE
        )

    # Only "a" was received. The stream drops the others, whose leases have ended.
    assert elsewhere == [("a", 2), ("b", 1), ("c", 1)]
    await transport.send(message("d"), timeout=PATIENCE)
    async with asyncio.timeout(PATIENCE):
        assert name_of(await anext(stream)) == "d"
    await transport.close()


async def test_a_slow_worker_keeps_its_leases(
    file: Path,
) -> None:
    slow = await open_transport(file, lease=0.5)
    await slow.send(message("ann"), timeout=PATIENCE)
    delivery = await anext(await slow.subscribe(SUBSCRIPTION))
    other = await open_transport(file, lease=0.5)
    stream = await other.subscribe(SUBSCRIPTION)
    waiting = asyncio.create_task(anext(stream, None))

    # For four times the duration of a lease
    done, _ = await asyncio.wait({waiting}, timeout=2)
    assert not done
    await delivery.ack()

    assert (await other.stats(SUBSCRIPTION)).waiting == 0
    await other.close()
    assert await waiting is None
    await slow.close()
