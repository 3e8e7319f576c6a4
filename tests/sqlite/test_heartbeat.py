"""How other processes see that a worker consumes the queue of a listener."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from pathlib import Path

import attrs
import pytest

from core.support import eventually
from lightbus.message import EventMessage
from lightbus.transport.records import Subscription
from lightbus_sqlite import heartbeat
from sqlite.support import make_transport

SUBSCRIPTION = Subscription(
    service_name="shop",
    listener_name="old",
    api_name="auth",
    events=frozenset({"user_created"}),
    concurrency=1,
    acknowledgement_timeout=60,
    delays=frozenset(),
)


async def test_a_queue_can_be_removed_once_the_row_of_a_killed_worker_has_expired(
    file: Path,
) -> None:
    transport = make_transport(file)
    await transport.declare(SUBSCRIPTION, timeout=10)
    with sqlite3.connect(file) as connection:
        connection.execute("INSERT INTO consumer SELECT 'killed', id, 1.0 FROM listener")
    connection.close()

    assert await transport.remove_listener_queue(SUBSCRIPTION) == 0
    await transport.close()


async def test_the_row_of_a_worker_is_renewed_while_it_waits(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heartbeat, "RENEWAL_PERIOD", 0.02)
    transport = make_transport(file)
    stream = await transport.subscribe(SUBSCRIPTION)

    def expires_at() -> list[float]:
        connection = sqlite3.connect(file)
        found = [row[0] for row in connection.execute("SELECT expires_at FROM consumer")]
        connection.close()
        return found

    first = expires_at()
    await eventually(lambda: expires_at() != first)
    await stream.aclose()
    assert expires_at() == []
    await transport.close()


async def test_a_worker_logs_an_error_when_its_queue_is_removed(
    file: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(heartbeat, "RENEWAL_PERIOD", 0.02)
    transport = make_transport(file)
    stream = await transport.subscribe(SUBSCRIPTION)
    with sqlite3.connect(file) as connection:
        connection.execute("DELETE FROM listener")
    connection.close()

    with caplog.at_level(logging.ERROR):
        await eventually(lambda: "The queue of the listener was removed" in caplog.text)
    await stream.aclose()
    await transport.close()


async def test_a_worker_whose_queue_was_removed_receives_no_events_of_a_later_listener(
    file: Path,
) -> None:
    transport, other = make_transport(file), make_transport(file)
    old = await transport.subscribe(SUBSCRIPTION)
    with sqlite3.connect(file) as connection:  # as if its process had been suspended for minutes
        connection.execute("UPDATE consumer SET expires_at = 1.0")
    connection.close()
    await other.remove_listener_queue(SUBSCRIPTION)
    new = attrs.evolve(SUBSCRIPTION, listener_name="new")
    await other.declare(new, timeout=10)
    event = EventMessage.create("auth", "user_created", {"username": "ann"})
    await other.send(event, timeout=10)

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(anext(old), 0.5)
    async with asyncio.timeout(10):
        received = await anext(await other.subscribe(new))
    assert received.message.id == event.id
    await other.close()
    await transport.close()
