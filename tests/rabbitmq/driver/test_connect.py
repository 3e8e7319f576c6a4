"""Connecting: refusals name the reason, and connections end with their event loop."""

from __future__ import annotations

import asyncio
import socket
import traceback

import aio_pika
import pytest

from lightbus.exceptions import TransportRefused, TransportUnavailable
from lightbus_rabbitmq.driver.connect import close_when_cancelled
from rabbitmq_server import RabbitMQServer
from rabbitmq_support import MakeBus


async def test_a_connection_whose_loop_is_collected_as_garbage_is_not_closed(
    rabbitmq_url: str,
) -> None:
    async with await aio_pika.connect(rabbitmq_url) as connection:
        closing = close_when_cancelled(connection)
        closing.send(None)

        closing.close()  # as the garbage collector does

        assert not connection.is_closed


async def test_an_unreachable_broker_is_named_with_the_reason(make_bus: MakeBus) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"amqp://guest:secret@127.0.0.1:{unused.getsockname()[1]}/"
        bus = make_bus(url=url, fire_timeout=0.5)

        with pytest.raises(TransportUnavailable) as raised:
            await bus.auth.user_created.fire_async(username="ada", email="e")

    assert "Connect call failed" in str(raised.value)
    assert "127.0.0.1" in str(raised.value)
    assert "secret" not in str(raised.value)


async def test_a_wrong_password_is_refused_at_once_and_not_shown(
    make_bus: MakeBus, rabbitmq_server: RabbitMQServer, rabbitmq_vhost: str
) -> None:
    bus = make_bus(url=rabbitmq_server.url(rabbitmq_vhost, password="hunter2"))

    with pytest.raises(TransportRefused) as raised:
        async with asyncio.timeout(5):
            await bus.auth.user_created.fire_async(username="ada", email="e")

    assert "ACCESS_REFUSED" in str(raised.value)
    assert "hunter2" not in "".join(traceback.format_exception(raised.value))


async def test_a_virtual_host_that_does_not_exist_is_refused_at_once(
    make_bus: MakeBus, rabbitmq_server: RabbitMQServer
) -> None:
    bus = make_bus(url=rabbitmq_server.url("nowhere"))

    with pytest.raises(TransportRefused, match="nowhere"):
        async with asyncio.timeout(5):
            await bus.auth.user_created.fire_async(username="ada", email="e")
