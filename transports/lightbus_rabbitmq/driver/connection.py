"""`ReconnectingConnection`: a connection to RabbitMQ that reconnects when it is lost."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from typing import TypeVar

import aiormq.abc
from yarl import URL

from lightbus.exceptions import (
    TransportClosed,
    TransportError,
    TransportRefused,
    TransportUnavailable,
)
from lightbus.log import get_logger
from lightbus.transport.kit import backoff
from lightbus_rabbitmq.driver.backoff import ReconnectBackoff
from lightbus_rabbitmq.driver.channel import Channel
from lightbus_rabbitmq.driver.connect import DriverConnection, close_when_cancelled, connect
from lightbus_rabbitmq.driver.errors import (
    ConnectionLost,
    NoFreeChannel,
    close_reason,
    error_text,
    is_task_cancelled,
    translate_error,
)
from lightbus_rabbitmq.driver.frame_reader import FrameStream
from lightbus_rabbitmq.driver.tls import tls_context
from lightbus_rabbitmq.driver.waiting import keep_task, run_while_connected
from lightbus_rabbitmq.settings import RabbitMQSettings, display_url

T = TypeVar("T")

_log = get_logger(__name__)

# RabbitMQ raises two alarms at which it stops reading from connections that publish.
# https://www.rabbitmq.com/docs/alarms
_ALARM = "it is low on memory or disk space"

# How many channels may be opened at the same time
_MAX_OPENING = 16

# Every broker accepts frames of this size, in bytes (AMQP 0-9-1, section 4.2.3). It is used while
# there is no connection.
_MIN_FRAME_SIZE = 4096


class ReconnectingConnection:
    """One connection, opened when it is first needed, and opened again whenever it is lost.

    Args:
        settings: The URLs and timeouts.
        name: The name of the connection, which RabbitMQ's management UI shows.

    Attributes:
        last_error: Why the last attempt to connect failed, or why the connection was lost.
    """

    def __init__(self, settings: RabbitMQSettings, name: str) -> None:
        self.last_error = "it has not answered"
        self._settings = settings
        self._shown_urls = ", ".join(display_url(url) for url in settings.urls)
        self._name = name
        self._connection: DriverConnection | None = None
        self._closer: asyncio.Task[None] | None = None
        self._connecting: asyncio.Task[DriverConnection] | None = None
        self._was_connected = False
        self._backoff = ReconnectBackoff()
        self._opening_slots = asyncio.Semaphore(_MAX_OPENING)
        self._context: ssl.SSLContext | None = None
        self._is_closed = False

    async def open(self, *, timeout: float) -> None:
        """Connect.

        Raises:
            TransportUnavailable: The broker was not reached within `timeout` seconds.
            TransportRefused: The broker refused the connection.
        """
        try:
            async with asyncio.timeout(timeout):
                await self._get_connection()
        except TimeoutError as error:
            raise await self.unavailable(timeout) from error

    async def run_until_done(self, operation: Callable[[], Awaitable[T]], *, timeout: float) -> T:
        """Return what `operation` returns. Run it again if the connection is lost.

        Raises:
            TransportUnavailable: It did not succeed within `timeout` seconds.
            Exception: Any other error that `operation` raised.
        """
        delays = backoff()
        try:
            async with asyncio.timeout(timeout):
                while True:
                    try:
                        return await operation()
                    except ConnectionLost as error:
                        self.last_error = str(error)
                        await asyncio.sleep(next(delays))
        except TimeoutError as error:
            raise await self.unavailable(timeout) from error

    async def unavailable(self, timeout: float) -> TransportUnavailable:
        """Return the error for a broker that was not usable for `timeout` seconds."""
        if await self._is_blocked():
            problem = f"accepts no events at the moment (waited {timeout:.3g} s): {_ALARM}"
        else:
            problem = f"was not reached within {timeout:.3g} s: {self.last_error}"
        return TransportUnavailable(f"RabbitMQ at {self._shown_urls} {problem}.")

    async def check_health(self, *, timeout: float) -> str | None:
        """Connect if necessary; return a sentence that says why nothing can be sent, or None."""
        try:
            async with asyncio.timeout(timeout):
                transport = (await self._get_connection()).transport
                if transport is not None:
                    await transport.connection.ready()
                    return self._channel_problem(transport.connection)
        except TimeoutError:
            pass
        except TransportError as error:
            return str(error)
        return str(await self.unavailable(timeout))

    def _channel_problem(self, connection: aiormq.abc.AbstractConnection) -> str | None:
        limit = connection.connection_tune.channel_max
        if not limit or len(connection.channels.keys() - {0}) < limit:
            return None
        return f"RabbitMQ at {self._shown_urls} has no free channel: {NoFreeChannel(limit)}."

    async def _is_blocked(self) -> bool:
        transport = self._connection.transport if self._connection else None
        if transport is None or transport.connection.is_closed:
            return False
        try:
            async with asyncio.timeout(0):
                await transport.connection.ready()
        except TimeoutError:
            return True
        return False

    @property
    def frame_size(self) -> int:
        """The size of the largest frame that the broker accepts, in bytes."""
        transport = self._connection.transport if self._connection else None
        if transport is None:
            return _MIN_FRAME_SIZE
        return int(transport.connection.connection_tune.frame_max)

    async def channel(self, *, confirms: bool) -> Channel:
        """Connect if necessary, and return a new channel.

        Args:
            confirms: Whether the broker confirms messages that are sent on the channel.

        Raises:
            TransportRefused: The broker refused the first connection.
            TransportClosed: `close` was called.
            ConnectionLost: The connection was lost in the meantime.
            NoFreeChannel: All channels that the broker allows on the connection are in use.
        """
        connection = await self._get_connection()
        transport = connection.transport
        if transport is None:
            raise ConnectionLost("the connection was closed")
        # The driver keeps a channel that it asked for until the broker answers. So a caller that
        # is cancelled keeps its slot. Otherwise, each call on a silent connection would add a
        # channel.
        await self._opening_slots.acquire()
        opening = asyncio.create_task(
            self._open_channel(transport.connection, connection.stream, confirms=confirms)
        )
        opening.add_done_callback(lambda _: self._opening_slots.release())
        try:
            return await asyncio.shield(opening)
        except asyncio.CancelledError:
            opening.add_done_callback(_close_unused)
            raise

    async def _open_channel(
        self, connection: aiormq.abc.AbstractConnection, stream: FrameStream, *, confirms: bool
    ) -> Channel:
        try:
            async with asyncio.timeout(self._settings.operation_timeout):
                opening = _open_when_ready(connection, stream, confirms=confirms)
                return await run_while_connected(connection, opening)
        except TimeoutError as error:
            raise ConnectionLost("RabbitMQ did not open a channel in time") from error
        except NoFreeChannel as error:
            self.last_error = str(error)
            raise
        except (Exception, asyncio.CancelledError) as error:
            if meaning := translate_error(error, "a channel"):
                raise meaning from error
            raise

    async def close(self) -> None:
        """Disconnect. Calling it again does nothing."""
        self._is_closed = True
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.wait({self._connecting})
        await self._disconnect()

    async def _get_connection(self) -> DriverConnection:
        if self._is_closed:
            raise TransportClosed("The connection to RabbitMQ was closed.")
        connection = self._connection
        if connection is not None and connection.connected.is_set():
            return connection
        if self._connecting is None or self._connecting.done():
            self._connecting = asyncio.create_task(self._connect())
        # Shielded, because other callers wait for the same connection.
        return await asyncio.shield(self._connecting)

    async def _connect(self) -> DriverConnection:
        await self._pause_after_loss()
        await self._disconnect()
        while True:
            refusal: TransportError | None = None
            for url in self._settings.urls:
                try:
                    self._connection = await self._connect_to(url)
                except ConnectionLost as error:
                    self.last_error = str(error)
                except TransportError as error:
                    refusal = error
                    self.last_error = str(error)
                else:
                    self._note_connected(display_url(url))
                    return self._connection
            if is_task_cancelled():
                raise asyncio.CancelledError
            # A refusal after a successful connection is often temporary, such as while the broker
            # restarts its database of users.
            if refusal is not None and not self._was_connected:
                raise refusal
            wait = self._backoff.after_failure()
            _log.warning(
                "RabbitMQ unreachable; trying again.",
                url=self._shown_urls,
                reason=self.last_error,
                next_try_in=round(wait, 1),
            )
            await asyncio.sleep(wait)

    async def _pause_after_loss(self) -> None:
        """Wait if the last connection was lost soon after it was opened."""
        lost = self._connection
        if lost is None:
            return
        close = lost.stream.close
        self.last_error = close_reason(close) if close else "the connection was lost"
        wait = self._backoff.after_loss()
        _log.warning(
            "Connection to RabbitMQ lost; reconnecting.",
            url=self._shown_urls,
            reason=self.last_error,
            next_try_in=round(wait, 1),
        )
        await asyncio.sleep(wait)

    async def _connect_to(self, url: URL) -> DriverConnection:
        context = await self._get_tls_context() if url.scheme == "amqps" else None
        connection = await connect(url, context, self._settings, self._name)
        self._closer = asyncio.create_task(close_when_cancelled(connection))
        return connection

    async def _get_tls_context(self) -> ssl.SSLContext:
        if self._context is None:
            try:
                self._context = await asyncio.to_thread(tls_context, self._settings.tls)
            except (OSError, ssl.SSLError) as error:
                raise TransportRefused(
                    f"The certificates for RabbitMQ at {self._shown_urls} cannot be used: "
                    f"{error_text(error)}."
                ) from error
        return self._context

    def _note_connected(self, shown_url: str) -> None:
        self._backoff.note_success()
        if self._was_connected:
            _log.info("Reconnected to RabbitMQ.", url=shown_url)
        self._was_connected = True

    async def _disconnect(self) -> None:
        self._connection = None
        if self._closer is not None:
            self._closer.cancel()
            await asyncio.wait({self._closer})


async def _open_when_ready(
    connection: aiormq.abc.AbstractConnection, stream: FrameStream, *, confirms: bool
) -> Channel:
    # While RabbitMQ blocks the connection, it does not answer.
    await connection.ready()
    return await Channel.open_on(connection, stream.write, confirms=confirms)


def _close_unused(opening: asyncio.Task[Channel]) -> None:
    if opening.cancelled() or opening.exception() is not None:
        return
    channel = opening.result()

    async def close() -> None:
        # Inside the task: cancelled before its first step, it would leave this unawaited.
        await run_while_connected(channel.connection, channel.close())

    keep_task(asyncio.create_task(close()))
