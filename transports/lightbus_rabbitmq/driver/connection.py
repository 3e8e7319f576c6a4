"""`ReconnectingConnection`: a connection to RabbitMQ that is made again when it was lost."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Awaitable, Callable
from typing import TypeVar

import aio_pika
import aiormq.abc
from yarl import URL

from lightbus.exceptions import (
    TransportClosed,
    TransportError,
    TransportRefused,
    TransportUnavailable,
)
from lightbus.log import get_logger
from lightbus_rabbitmq.driver.channel import Channel
from lightbus_rabbitmq.driver.errors import (
    ConnectionLost,
    NoFreeChannel,
    is_cancelled,
    reason,
    refused_by,
    translated,
    words_of,
)
from lightbus_rabbitmq.driver.frame_reader import FrameStream
from lightbus_rabbitmq.driver.waiting import Backoff, abandon, growing_waits, unless_lost
from lightbus_rabbitmq.settings import RabbitMQSettings, TLSSettings, shown

T = TypeVar("T")

_log = get_logger(__name__)

_CLOSE_TIMEOUT = 2.0

# The two alarms at which RabbitMQ stops reading from a connection that sends.
# https://www.rabbitmq.com/docs/alarms
_SHORT = "it is short of memory or of disk space"

# How many channels may wait for the broker's answer at once
_MOST_OPENING = 16

# What every broker must take (AMQP 0-9-1, section 4.2.3), for when there is no connection to ask.
_SMALLEST_FRAME = 4096


class _Connection(aio_pika.Connection):
    """The driver's connection, on a wire of ours."""

    def __init__(self, url: URL, context: ssl.SSLContext | None, name: str) -> None:
        super().__init__(url, ssl_context=context, client_properties={"connection_name": name})
        self.wire = FrameStream()
        self.kwargs["transport_factory"] = self.wire


class ReconnectingConnection:
    """One connection, made when it is first needed, and again, for as long as it takes.

    Attributes:
        last_problem: Why the latest try to connect failed, or why the connection was lost.
    """

    def __init__(self, settings: RabbitMQSettings, name: str) -> None:
        self.last_problem = "it has not answered"
        self._settings = settings
        self._places = ", ".join(shown(url) for url in settings.urls)
        self._name = name
        self._connection: _Connection | None = None
        self._holding: asyncio.Task[None] | None = None
        self._connecting: asyncio.Task[_Connection] | None = None
        self._was_connected = False
        self._backoff = Backoff()
        self._places_to_open = asyncio.Semaphore(_MOST_OPENING)
        self._context: ssl.SSLContext | None = None
        self._is_closed = False

    async def open(self, *, timeout: float) -> None:
        """Connect.

        Raises:
            TransportUnavailable: Not reached in `timeout` seconds.
            TransportRefused: Reached, and refused.
        """
        try:
            async with asyncio.timeout(timeout):
                await self._connected()
        except TimeoutError as error:
            raise await self.unavailable(timeout) from error

    async def until_connected(self, operation: Callable[[], Awaitable[T]], *, timeout: float) -> T:
        """Return what `operation` returns. Run it again if the connection was lost meanwhile.

        Raises:
            TransportUnavailable: It did not end in `timeout` seconds.
            Exception: What else it raised.
        """
        waits = growing_waits()
        try:
            async with asyncio.timeout(timeout):
                while True:
                    try:
                        return await operation()
                    except ConnectionLost as error:
                        self.last_problem = str(error)
                        await asyncio.sleep(next(waits))
        except TimeoutError as error:
            raise await self.unavailable(timeout) from error

    async def unavailable(self, timeout: float) -> TransportUnavailable:
        """Return the error that says why the broker took nothing for `timeout` seconds."""
        if await self._is_blocked():
            problem = f"takes no events for now (waited {timeout:.3g} s): {_SHORT}"
        else:
            problem = f"was not reached within {timeout:.3g} s: {self.last_problem}"
        return TransportUnavailable(f"RabbitMQ at {self._places} {problem}.")

    async def problem(self, *, timeout: float) -> str | None:
        """Return why nothing can be sent, in a sentence; None where it can. Connects if need be."""
        try:
            async with asyncio.timeout(timeout):
                underlay = (await self._connected()).transport
                if underlay is not None:
                    await underlay.connection.ready()
                    return self._channel_problem(underlay.connection)
        except TimeoutError:
            pass
        except TransportError as error:
            return str(error)
        return str(await self.unavailable(timeout))

    def _channel_problem(self, connection: aiormq.abc.AbstractConnection) -> str | None:
        most = connection.connection_tune.channel_max
        if not most or len(connection.channels.keys() - {0}) < most:
            return None
        return f"RabbitMQ at {self._places} has no free channel: {NoFreeChannel(most)}."

    async def _is_blocked(self) -> bool:
        underlay = self._connection.transport if self._connection else None
        if underlay is None or underlay.connection.is_closed:
            return False
        try:
            async with asyncio.timeout(0):
                await underlay.connection.ready()
        except TimeoutError:
            return True
        return False

    @property
    def frame_size(self) -> int:
        """The most bytes that a frame may have at this broker."""
        underlay = self._connection.transport if self._connection else None
        if underlay is None:
            return _SMALLEST_FRAME
        return int(underlay.connection.connection_tune.frame_max)

    async def channel(self, *, confirms: bool) -> Channel:
        """Return a new channel, once there is a connection.

        Raises:
            TransportRefused: The first connection was refused.
            TransportClosed: The link was closed.
            ConnectionLost: The connection went away meanwhile.
            NoFreeChannel: All that the broker allows on the connection are in use.
        """
        connection = await self._connected()
        underlay = connection.transport
        if underlay is None:
            raise ConnectionLost("the connection was closed")
        # The driver keeps what it asked for until the broker answers. So one who gives up leaves
        # the place taken, or a link that went silent would have every call ask for one more.
        await self._places_to_open.acquire()
        opening = asyncio.create_task(
            self._open_channel(underlay.connection, connection.wire, confirms=confirms)
        )
        opening.add_done_callback(lambda _: self._places_to_open.release())
        try:
            return await asyncio.shield(opening)
        except asyncio.CancelledError:
            opening.add_done_callback(_close_unused)
            raise

    async def _open_channel(
        self, connection: aiormq.abc.AbstractConnection, wire: FrameStream, *, confirms: bool
    ) -> Channel:
        try:
            async with asyncio.timeout(self._settings.operation_timeout):
                return await unless_lost(connection, _opened(connection, wire, confirms=confirms))
        except TimeoutError as error:
            raise ConnectionLost("RabbitMQ did not open a channel in time") from error
        except NoFreeChannel as error:
            self.last_problem = str(error)
            raise
        except (Exception, asyncio.CancelledError) as error:
            if meaning := translated(error, "a channel"):
                raise meaning from error
            raise

    async def close(self) -> None:
        """Disconnect. Closing again does nothing."""
        self._is_closed = True
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.wait({self._connecting})
        await self._disconnect()

    async def _connected(self) -> _Connection:
        if self._is_closed:
            raise TransportClosed("The connection to RabbitMQ was closed.")
        connection = self._connection
        if connection is not None and connection.connected.is_set():
            return connection
        if self._connecting is None or self._connecting.done():
            self._connecting = asyncio.create_task(self._connect())
        # Others wait for the same connection: one that gives up must not end it for them.
        return await asyncio.shield(self._connecting)

    async def _connect(self) -> _Connection:
        await self._pause_after_loss()
        await self._disconnect()
        while True:
            refusal: TransportError | None = None
            for url in self._settings.urls:
                try:
                    self._connection = await self._connect_to(url)
                except ConnectionLost as error:
                    self.last_problem = str(error)
                except TransportError as error:
                    refusal = error
                    self.last_problem = str(error)
                else:
                    self._note_connected(shown(url))
                    return self._connection
            if is_cancelled():
                raise asyncio.CancelledError
            # Once connected, a refusal may pass, as when the broker's user store restarts.
            if refusal is not None and not self._was_connected:
                raise refusal
            wait = self._backoff.after_failure()
            _log.warning(
                "RabbitMQ cannot be reached; trying again.",
                url=self._places,
                reason=self.last_problem,
                next_try_in=round(wait, 1),
            )
            await asyncio.sleep(wait)

    async def _pause_after_loss(self) -> None:
        """Note why the last connection ended, and wait where it ended soon after it was made."""
        lost = self._connection
        if lost is None:
            return
        close = lost.wire.close
        self.last_problem = words_of(close) if close else "the connection was lost"
        wait = self._backoff.after_loss()
        _log.warning(
            "The connection to RabbitMQ was lost; connecting again.",
            url=self._places,
            reason=self.last_problem,
            next_try_in=round(wait, 1),
        )
        await asyncio.sleep(wait)

    async def _connect_to(self, url: URL) -> _Connection:
        if "heartbeat" not in url.query:
            url = url.update_query(heartbeat=self._settings.heartbeat)
        context = await self._tls_context() if url.scheme == "amqps" else None
        connection = _Connection(url, context, self._name)
        try:
            await connection.connect(timeout=self._settings.connect_timeout)
        except TimeoutError as error:
            raise ConnectionLost(
                f"no answer within {self._settings.connect_timeout:g} s"
            ) from error
        except Exception as error:
            if connection.wire.close is not None:
                doing = f"the connection to {shown(url)}"
                raise refused_by(connection.wire.close, doing) from error
            # The driver wraps it, and keeps no more than its text.
            if "[SSL:" in str(error):
                raise TransportRefused(
                    f"No trusted connection to RabbitMQ at {shown(url)}: {reason(error)}."
                ) from error
            if meaning := translated(error, f"the connection to {shown(url)}"):
                raise meaning from error
            raise ConnectionLost(reason(error)) from error
        if connection.transport is not None:
            connection.wire.begin(connection.transport.connection.channels)
        self._holding = asyncio.create_task(_hold(connection))
        return connection

    async def _tls_context(self) -> ssl.SSLContext:
        if self._context is None:
            try:
                self._context = await asyncio.to_thread(_tls_context, self._settings.tls)
            except (OSError, ssl.SSLError) as error:
                raise TransportRefused(
                    f"The certificates for RabbitMQ at {self._places} cannot be used: "
                    f"{reason(error)}."
                ) from error
        return self._context

    def _note_connected(self, place: str) -> None:
        self._backoff.note_success()
        if self._was_connected:
            _log.info("Connected to RabbitMQ again.", url=place)
        self._was_connected = True

    async def _disconnect(self) -> None:
        self._connection = None
        if self._holding is not None:
            self._holding.cancel()
            await asyncio.wait({self._holding})


def _tls_context(settings: TLSSettings) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=settings.ca_file)
    if settings.certificate_file is not None:

        def no_password() -> str:
            # OpenSSL would ask the terminal.
            raise OSError(f"the key of {settings.certificate_file} has a password")

        context.load_cert_chain(settings.certificate_file, settings.key_file, no_password)
    return context


async def _opened(
    connection: aiormq.abc.AbstractConnection, wire: FrameStream, *, confirms: bool
) -> Channel:
    # A broker that does not read would not answer.
    await connection.ready()
    return await Channel.opened(connection, wire.write, confirms=confirms)


async def _hold(connection: _Connection) -> None:
    """Keep `connection` until this task is cancelled, and then close it in good order.

    A loop may end without anyone having closed the bus, as that of `asyncio.run` does; it then
    cancels its tasks, this one among them.
    """
    try:
        await asyncio.get_running_loop().create_future()
    except asyncio.CancelledError:
        # Not for what collects this task as garbage, which cannot wait.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_TIMEOUT):
                await connection.close()
        raise


def _close_unused(opening: asyncio.Task[Channel]) -> None:
    if opening.cancelled() or opening.exception() is not None:
        return
    channel = opening.result()

    async def close() -> None:
        # Inside the task: cancelled before its first step, it would leave this unawaited.
        await unless_lost(channel.connection, channel.close())

    abandon(asyncio.create_task(close()))
