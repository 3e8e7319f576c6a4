"""The frame reader passes messages to channels, and all other bytes to the driver."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiormq.exceptions import AMQPConnectionError, InvalidFrameError
from hypothesis import given
from hypothesis import strategies as st
from pamqp import commands, frame
from pamqp.body import ContentBody
from pamqp.header import ContentHeader
from pamqp.heartbeat import Heartbeat
from yarl import URL

from lightbus import Worker
from lightbus_rabbitmq.driver.channel import Channel
from lightbus_rabbitmq.driver.frame_reader import FrameReader, FrameStream
from ports import free_ports
from rabbitmq_support import CONNECTION_LOST, MakeBus, Seen

TAG = "ctag"
HEARTBEAT = Heartbeat().marshal()


class Taking(Channel):
    """A channel without a connection, with one consumer."""

    def __init__(self) -> None:
        self.received: list[tuple[int | None, bytes]] = []
        self._incoming = None
        self._receivers = {TAG: self._receive}

    def __repr__(self) -> str:
        return "<a channel of no connection>"

    def _receive(self, message: Any) -> None:
        self.received.append((message.delivery_tag, message.body))


async def reader_for(channel: Channel) -> FrameReader:
    reader = FrameReader(asyncio.get_running_loop())
    reader.channels = {1: channel}  # `attach` would also start the heartbeats
    return reader


async def left_in(reader: FrameReader) -> bytes:
    reader.feed_eof()
    return await reader.read()


def message(tag: int, parts: list[bytes], channel: int = 1, consumer: str = TAG) -> bytes:
    header = ContentHeader(body_size=len(b"".join(parts)))
    frames = [
        deliver(tag, channel, consumer),
        frame.marshal(header, channel),
        *(frame.marshal(ContentBody(part), channel) for part in parts),
    ]
    return b"".join(frames)


def deliver(tag: int, channel: int = 1, consumer: str = TAG) -> bytes:
    method = commands.Basic.Deliver(
        consumer_tag=consumer, delivery_tag=tag, exchange="lightbus:auth", routing_key="happened"
    )
    return frame.marshal(method, channel)


MESSAGES = st.lists(st.lists(st.binary(min_size=1, max_size=20), max_size=3), max_size=5)
OTHERS = [
    frame.marshal(commands.Basic.CancelOk(TAG), 1),
    frame.marshal(commands.Connection.Blocked("memory"), 0),
    message(9, [b"of another consumer"], consumer="other"),
    message(9, [b"of another channel"], channel=2),
    HEARTBEAT,
]


@given(
    bodies=MESSAGES,
    others=st.lists(st.sampled_from(OTHERS), max_size=5),
    size=st.integers(min_value=1, max_value=60),
    order=st.randoms(use_true_random=False),
)
def test_messages_reach_their_channel_and_other_frames_the_driver_in_order(
    bodies: list[list[bytes]], others: list[bytes], size: int, order: Any
) -> None:
    sent = [(message(tag, parts), True) for tag, parts in enumerate(bodies)]
    for other in others:
        sent.insert(order.randint(0, len(sent)), (other, False))
    stream = b"".join(each for each, _ in sent)

    async def read() -> bytes:
        reader = await reader_for(channel)
        for start in range(0, len(stream), size):
            reader.feed_data(stream[start : start + size])
        return await left_in(reader)

    channel = Taking()
    left = asyncio.run(read())

    assert channel.received == [(tag, b"".join(parts)) for tag, parts in enumerate(bodies)]
    assert left == b"".join(each for each, is_taken in sent if not is_taken)


async def test_a_frame_that_cannot_be_decoded_is_passed_to_the_driver() -> None:
    channel = Taking()
    reader = await reader_for(channel)
    whole = message(1, [b"body"])
    size = 8 + int.from_bytes(whole[3:7], "big")
    damaged = whole[: size - 1] + b"\x00" + whole[size:]

    reader.feed_data(damaged)

    assert channel.received == []
    assert await left_in(reader) == damaged


async def test_bytes_that_are_not_amqp_are_passed_to_the_driver() -> None:
    reader = await reader_for(Taking())
    told = b"HTTP/1.1 400 Bad Request\r\n"

    reader.feed_data(told[:10])
    reader.feed_data(told[10:])

    assert await left_in(reader) == told


async def test_an_unexpected_frame_ends_the_reading() -> None:
    reader = await reader_for(Taking())

    reader.feed_data(deliver(1) + deliver(2))

    with pytest.raises(InvalidFrameError):
        await reader.readexactly(1)


async def test_an_incomplete_frame_at_the_end_is_passed_to_the_driver() -> None:
    reader = await reader_for(Taking())

    reader.feed_data(HEARTBEAT[:3])
    reader.feed_eof()

    assert await left_in(reader) == HEARTBEAT[:3]


async def test_a_frame_of_the_negotiation_may_arrive_in_pieces() -> None:
    reader = FrameReader(asyncio.get_running_loop())
    start = frame.marshal(commands.Connection.Start(server_properties={}), 0)

    reader.feed_data(start[:20])
    reader.feed_data(start[20:])

    assert await left_in(reader) == start


async def test_a_url_without_a_broker_raises_an_error_of_the_driver() -> None:
    (port,) = free_ports(1)

    with pytest.raises(AMQPConnectionError):
        await FrameStream().create(URL(f"amqp://127.0.0.1:{port}"), ssl_context_provider=None)


@pytest.mark.faults
async def test_a_connection_that_receives_only_events_is_not_considered_lost(
    make_bus: MakeBus, caplog: pytest.LogCaptureFixture
) -> None:
    bus = make_bus(transport={"heartbeat": 1})
    seen = Seen[str]()
    bus.auth.user_created.listen(lambda username: seen.add(username), listener_name="welcome")
    async with Worker(bus):
        await bus.auth.user_created.fire_async(username="ada", email="e")
        # The driver waits for three heartbeats and a second.
        now = asyncio.get_running_loop().time
        fired, until = 1, now() + 7
        while now() < until:
            await bus.auth.user_created.fire_async(username="ada", email="e")
            fired += 1

        assert len(await seen.wait_for(fired)) == fired
    assert CONNECTION_LOST not in caplog.text
