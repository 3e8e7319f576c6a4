"""A channel confirms and settles each message, and a failure affects only its own event."""

from __future__ import annotations

import asyncio
import random

import pytest
from aiormq.abc import DeliveredMessage
from pamqp.commands import Basic

from lightbus import Api, Event
from lightbus.exceptions import TransportRefused
from lightbus.transport.contract import Delivery
from lightbus_rabbitmq.driver.connection import ReconnectingConnection
from lightbus_rabbitmq.driver.errors import ConnectionLost
from lightbus_rabbitmq.driver.frame_reader import FrameReader
from rabbitmq_server import RabbitMQServer
from rabbitmq_support import CONNECTION_LOST, QUEUE, Broker, MakeBus, subscription, transport_of

ACK = Basic.Ack.index.to_bytes(4, "big")


class OtherApi(Api):
    happened = Event(parameters=("number",))

    class Meta:
        name = "other"


@pytest.mark.parametrize("seed", range(8))
async def test_deliveries_may_be_settled_in_any_order(
    make_bus: MakeBus, broker: Broker, seed: int
) -> None:
    choose = random.Random(seed)
    bus = make_bus()
    bus.auth.user_created.listen(lambda username: None, listener_name="welcome")
    for number in range(60):
        await bus.auth.user_created.fire_async(username=str(number), email="e")
    transport = transport_of(bus)
    stream = await transport.subscribe(subscription(concurrency=100))
    deliveries = [await anext(stream) for _ in range(60)]
    choose.shuffle(deliveries)
    settled: dict[str, str] = {}
    for delivery in deliveries:
        how = choose.choice(["ack", "ack", "ack", "requeue", "leave"])
        settled[username(delivery)] = how
        if how == "ack":
            await delivery.ack()
        elif how == "requeue":
            await delivery.requeue()
        if choose.random() < 0.3:
            await asyncio.sleep(0)  # the settlements so far may be written now

    await stream.aclose()

    left = sorted(name for name, how in settled.items() if how != "ack")
    await broker.wait_for_count(QUEUE, len(left))
    again = await transport.subscribe(subscription(concurrency=100))
    assert sorted([username(await anext(again)) for _ in left]) == left
    await again.aclose()


async def test_the_return_of_a_cancelled_send_is_not_taken_for_that_of_the_next_send(
    make_bus: MakeBus, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    bus = make_bus()
    await bus.auth.user_created.fire_async(username="first", email="e")
    transport = transport_of(bus)
    message = bus.client.publisher.message(
        "auth", "user_created", {"username": "ada", "email": "e"}
    )
    held_back: list[tuple[FrameReader, bytes]] = []
    feed_data = FrameReader.feed_data

    def hold_back(reader: FrameReader, data: bytes) -> None:
        held_back.append((reader, data))

    # No queue is bound for the event, and the sender gives up before the answer is read.
    monkeypatch.setattr(FrameReader, "feed_data", hold_back)
    unroutable = asyncio.create_task(transport.send(message, timeout=20, require_listeners=True))
    async with asyncio.timeout(10):
        while not any(ACK in data for _, data in held_back):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    unroutable.cancel()
    await asyncio.gather(unroutable, return_exceptions=True)
    await broker.channel.queue_declare("late", exclusive=True)
    await broker.channel.queue_bind("late", "lightbus:auth", "user_created")
    again = asyncio.create_task(transport.send(message, timeout=20, require_listeners=True))
    await asyncio.sleep(0)
    monkeypatch.setattr(FrameReader, "feed_data", feed_data)
    for reader, data in held_back:
        reader.feed_data(data)

    await again

    assert await broker.count("late") == 1


async def test_a_deleted_exchange_does_not_close_the_connection(
    make_bus: MakeBus, broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    bus = make_bus()
    bus.client.register_api(OtherApi)
    await bus.auth.user_created.fire_async(username="first", email="e")
    await bus.other.happened.fire_async(number=0)
    is_done = False

    async def fire_on() -> None:
        while not is_done:
            await bus.other.happened.fire_async(number=1)

    firing = [asyncio.create_task(fire_on()) for _ in range(100)]
    for _ in range(3):
        await broker.channel.exchange_delete("lightbus:auth")
        await bus.auth.user_created.fire_async(username="again", email="e")
    is_done = True
    await asyncio.gather(*firing)

    assert CONNECTION_LOST not in caplog.text


async def test_an_event_that_may_not_be_sent_does_not_affect_others(
    make_bus: MakeBus,
    rabbitmq_server: RabbitMQServer,
    rabbitmq_vhost: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    rabbitmq_server.add_user("some", "secret", vhost=rabbitmq_vhost, write="^(?!lightbus:other)")
    bus = make_bus(url=rabbitmq_server.url(rabbitmq_vhost, user="some", password="secret"))
    bus.client.register_api(OtherApi)
    bus.auth.user_created.listen(lambda username: None, listener_name="welcome")
    await bus.auth.user_created.fire_async(username="first", email="e")
    is_done = False

    async def fire_on() -> None:
        while not is_done:
            await bus.auth.user_created.fire_async(username="ada", email="e")

    firing = [asyncio.create_task(fire_on()) for _ in range(50)]
    for _ in range(3):
        with pytest.raises(TransportRefused):
            await bus.other.happened.fire_async(number=0)
    is_done = True
    await asyncio.gather(*firing)

    assert CONNECTION_LOST not in caplog.text


async def test_an_event_that_cannot_be_received_is_redelivered_and_delays_no_acks(
    make_bus: MakeBus, broker: Broker, connection: ReconnectingConnection
) -> None:
    bus = make_bus()
    bus.auth.user_created.listen(lambda username: None, listener_name="welcome")
    await bus.auth.user_created.fire_async(username="ada", email="e")
    await bus.auth.user_created.fire_async(username="bob", email="e")
    channel = await connection.channel(confirms=False)
    taken = asyncio.Queue[int]()

    def take(delivered: DeliveredMessage) -> None:
        tag = int(delivered.delivery_tag or 0)
        if tag == 1:
            raise LookupError
        channel.ack(tag)
        taken.put_nowait(tag)

    await channel.consume(QUEUE, take)
    async with asyncio.timeout(10):
        assert [await taken.get(), await taken.get()] == [2, 3]
    await channel.close()

    assert channel.last_received == 3
    assert channel.unsettled_after(0) == 0
    assert await broker.count(QUEUE) == 0


async def test_a_channel_that_opens_while_its_connection_ends_raises_connection_lost(
    connection: ReconnectingConnection, rabbitmq_server: RabbitMQServer, rabbitmq_vhost: str
) -> None:
    await connection.open(timeout=20)
    # More channels than are opened at once, so that some of them wait
    waiting = [asyncio.create_task(connection.channel(confirms=False)) for _ in range(100)]
    await asyncio.sleep(0)

    closing = asyncio.create_task(connection.close())

    results = await asyncio.gather(*waiting, return_exceptions=True)
    await closing
    assert any(isinstance(result, ConnectionLost) for result in results)
    errors = [result for result in results if isinstance(result, BaseException)]
    assert all(isinstance(error, ConnectionLost) for error in errors)


async def test_deliveries_settled_while_their_channel_closes_do_not_close_the_connection(
    make_bus: MakeBus, connection: ReconnectingConnection, caplog: pytest.LogCaptureFixture
) -> None:
    bus = make_bus()
    bus.auth.user_created.listen(lambda username: None, listener_name="welcome")
    for number in range(20):
        await bus.auth.user_created.fire_async(username=f"{number}", email="e")
    channel = await connection.channel(confirms=False)
    taken = asyncio.Queue[int]()
    await channel.consume(QUEUE, lambda delivered: taken.put_nowait(delivered.delivery_tag or 0))
    async with asyncio.timeout(10):
        tags = [await taken.get() for _ in range(20)]

    closing = asyncio.create_task(channel.close())
    while tags and not closing.done():
        if not channel.is_lost:
            channel.ack(tags.pop(0))
        await asyncio.sleep(0)
    await closing
    await (await connection.channel(confirms=False)).close()

    assert CONNECTION_LOST not in caplog.text


def username(delivery: Delivery) -> str:
    return str(delivery.message.kwargs["username"])
