"""Leases: what a blocked event loop keeps, and what it does not."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import attrs
import pytest

import lightbus
from core.apis import AuthApi
from lightbus import OnError
from sqlite.support import PATIENCE, SUBSCRIPTION, message, name_of, open_transport

LEASE = 0.3


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "events.db"


def taken_elsewhere(file: Path, *, within: float) -> list[tuple[str, int]]:
    """Return the name and the attempt of what a worker with another event loop gets."""

    async def take() -> list[tuple[str, int]]:
        transport = await open_transport(file, lease=LEASE)
        stream = await transport.subscribe(SUBSCRIPTION)
        taken = []
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within):
                async for delivery in stream:
                    taken.append((name_of(delivery), delivery.attempt))
                    await delivery.ack()
        await transport.close()
        return taken

    return asyncio.run(take())


async def test_a_blocked_event_loop_keeps_what_it_has_received_and_what_it_holds_ahead(
    file: Path,
) -> None:
    transport = await open_transport(file, lease=LEASE)
    for name in "abc":
        await transport.send(message(name), timeout=PATIENCE)
    stream = await transport.subscribe(SUBSCRIPTION)
    received = await anext(stream)

    with ThreadPoolExecutor(1) as other:
        taking = other.submit(taken_elsewhere, file, within=5 * LEASE)
        time.sleep(6 * LEASE)  # noqa: ASYNC251 - it blocks the loop on purpose
        assert taking.result(PATIENCE) == []

    await received.ack()
    rest = [await anext(stream) for _ in range(2)]
    assert [(name_of(one), one.attempt) for one in rest] == [("b", 1), ("c", 1)]
    assert (await transport.stats(SUBSCRIPTION)).taken == 2
    await transport.close()


async def test_a_handler_that_blocks_the_loop_for_longer_than_the_lease_succeeds_once(
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
            taking = other.submit(taken_elsewhere, file, within=8 * LEASE)
            async with asyncio.timeout(PATIENCE):
                await is_over.wait()
        elsewhere = taking.result(PATIENCE)
    await bus.client.close_async()

    # The other worker may have been the first to lease some, and never gets what was handled.
    assert sorted(calls + [name for name, _ in elsewhere]) == ["a", "b", "c"]
    assert all(attempt == 1 for _, attempt in elsewhere)


async def test_a_loop_that_is_blocked_for_longer_than_a_handler_may_take_loses_its_leases(
    file: Path,
) -> None:
    transport = await open_transport(file, lease=LEASE)
    for name in "abc":
        await transport.send(message(name), timeout=PATIENCE)
    stream = await transport.subscribe(attrs.evolve(SUBSCRIPTION, acknowledgement_timeout=0.1))
    assert name_of(await anext(stream)) == "a"

    with ThreadPoolExecutor(1) as other:
        taken = other.submit(taken_elsewhere, file, within=8 * LEASE).result(PATIENCE)

    # Only the first had been received, and what is held ahead is not received any more.
    assert taken == [("a", 2), ("b", 1), ("c", 1)]
    await transport.send(message("d"), timeout=PATIENCE)
    async with asyncio.timeout(PATIENCE):
        assert name_of(await anext(stream)) == "d"
    await transport.close()


@pytest.mark.parametrize("is_taken", [False, True])
async def test_a_delivery_whose_lease_ended_is_not_received(file: Path, *, is_taken: bool) -> None:
    transport = await open_transport(file)
    for name in "abc":
        await transport.send(message(name), timeout=PATIENCE)
    stream = await transport.subscribe(SUBSCRIPTION)
    received = await anext(stream)
    with contextlib.closing(sqlite3.connect(file)) as clock, clock:
        clock.execute("UPDATE delivery SET available_at = 1 WHERE id > 1")

    if is_taken:
        elsewhere = await asyncio.to_thread(taken_elsewhere, file, within=1)
        assert elsewhere == [("b", 1), ("c", 1)]
    await received.ack()

    if is_taken:
        await transport.send(message("d"), timeout=PATIENCE)
    async with asyncio.timeout(PATIENCE):
        following = await anext(stream)
    assert (name_of(following), following.attempt) == ("d" if is_taken else "b", 1)
    await transport.close()


async def test_what_was_marked_as_received_and_was_not_is_no_attempt(file: Path) -> None:
    transport = await open_transport(file)
    for name in "ab":
        await transport.send(message(name), timeout=PATIENCE)
    stream = await transport.subscribe(SUBSCRIPTION)
    await (await anext(stream)).ack()  # which marks the next one

    # As if the process had been suspended just then.
    for waiting in stream._begun:
        waiting.leased_until = 0
    async with asyncio.timeout(PATIENCE):
        delivery = await anext(stream)

    assert (name_of(delivery), delivery.attempt, delivery.returns) == ("b", 1, 0)
    await transport.close()


async def test_a_closed_stream_keeps_no_lease(file: Path) -> None:
    transport = await open_transport(file, lease=LEASE)
    stream = await transport.subscribe(SUBSCRIPTION)
    await transport.send(message("a"), timeout=PATIENCE)
    await anext(stream)

    await stream.aclose()

    elsewhere = await asyncio.to_thread(taken_elsewhere, file, within=3 * LEASE)
    assert elsewhere == [("a", 2)]
    await transport.close()
