"""A delivery whose lease has ended."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from pathlib import Path

import pytest

from sqlite.support import (
    PATIENCE,
    SUBSCRIPTION,
    message,
    name_of,
    open_transport,
    receive_elsewhere,
)


@pytest.mark.parametrize("is_redelivered", [False, True])
async def test_a_delivery_whose_lease_ended_is_not_received(
    file: Path, *, is_redelivered: bool
) -> None:
    transport = await open_transport(file)
    for name in "abc":
        await transport.send(message(name), timeout=PATIENCE)
    stream = await transport.subscribe(SUBSCRIPTION)
    received = await anext(stream)
    with contextlib.closing(sqlite3.connect(file)) as clock, clock:
        clock.execute("UPDATE delivery SET available_at = 1 WHERE id > 1")

    if is_redelivered:
        elsewhere = await asyncio.to_thread(receive_elsewhere, file, within=1, lease=10.0)
        assert elsewhere == [("b", 1), ("c", 1)]
    await received.ack()

    if is_redelivered:
        await transport.send(message("d"), timeout=PATIENCE)
    async with asyncio.timeout(PATIENCE):
        following = await anext(stream)
    expected = "d" if is_redelivered else "b"
    assert (name_of(following), following.attempt) == (expected, 1)
    await transport.close()
