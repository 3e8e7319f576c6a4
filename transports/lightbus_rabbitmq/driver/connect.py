"""Opens one connection of the driver, and translates the errors."""

from __future__ import annotations

import asyncio
import contextlib
import ssl

import aio_pika
import aio_pika.abc
from yarl import URL

from lightbus.exceptions import TransportRefused
from lightbus_rabbitmq.driver.errors import (
    ConnectionLost,
    close_error,
    error_text,
    translate_error,
)
from lightbus_rabbitmq.driver.frame_reader import FrameStream
from lightbus_rabbitmq.settings import RabbitMQSettings, display_url

# In seconds
_CLOSE_TIMEOUT = 2.0


class DriverConnection(aio_pika.Connection):
    """The driver's connection, which reads and writes through a `FrameStream`."""

    def __init__(self, url: URL, context: ssl.SSLContext | None, name: str) -> None:
        super().__init__(url, ssl_context=context, client_properties={"connection_name": name})
        self.stream = FrameStream()
        self.kwargs["transport_factory"] = self.stream


async def connect(
    url: URL, context: ssl.SSLContext | None, settings: RabbitMQSettings, name: str
) -> DriverConnection:
    """Return a new connection to the broker at `url`.

    Args:
        url: The URL.
        context: The TLS context for ``amqps://``.
        settings: The timeouts.
        name: The name of the connection, which RabbitMQ's management UI shows.

    Raises:
        ConnectionLost: The broker was not reached.
        TransportRefused: The broker refused the connection, or is not trusted.
    """
    if "heartbeat" not in url.query:
        url = url.update_query(heartbeat=settings.heartbeat)
    doing = f"the connection to {display_url(url)}"
    connection = DriverConnection(url, context, name)
    try:
        await connection.connect(timeout=settings.connect_timeout)
    except TimeoutError as error:
        raise ConnectionLost(f"no answer within {settings.connect_timeout:g} s") from error
    except Exception as error:
        if connection.stream.close is not None:
            raise close_error(connection.stream.close, doing) from error
        # The driver wraps the TLS error and keeps only its text.
        if "[SSL:" in str(error):
            raise TransportRefused(
                f"No trusted connection to RabbitMQ at {display_url(url)}: {error_text(error)}."
            ) from error
        if meaning := translate_error(error, doing):
            raise meaning from error
        raise ConnectionLost(error_text(error)) from error
    if connection.transport is not None:
        connection.stream.attach(connection.transport.connection.channels)
    return connection


async def close_when_cancelled(connection: aio_pika.abc.AbstractConnection) -> None:
    """Wait until this task is cancelled, and then close the connection properly.

    An event loop may end while the bus is open, such as the loop of `asyncio.run`. The loop then
    cancels its tasks, and so this one.
    """
    try:
        await asyncio.get_running_loop().create_future()
    except asyncio.CancelledError:
        # Only if cancelled: a task that is collected as garbage cannot wait.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_TIMEOUT):
                await connection.close()
        raise
