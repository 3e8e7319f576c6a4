"""The write buffer of a channel is limited."""

from __future__ import annotations

import asyncio

import pytest

from lightbus_rabbitmq.driver.writer import ChannelWriter
from rabbitmq_support import MakeBus


async def test_many_large_events_fill_only_a_limited_write_buffer(
    make_bus: MakeBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    unwritten: list[int] = []
    write = ChannelWriter.write

    def write_and_note(writer: ChannelWriter, frames: bytes) -> None:
        write(writer, frames)
        unwritten.append(writer.unwritten_bytes)

    monkeypatch.setattr(ChannelWriter, "write", write_and_note)
    bus = make_bus()
    body = "x" * 100_000
    await bus.auth.user_created.fire_async(username="first", email="e")

    await asyncio.gather(
        *(bus.auth.user_created.fire_async(username="u", email=body) for _ in range(200))
    )

    assert max(unwritten) < 2_000_000
