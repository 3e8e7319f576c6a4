"""`Publisher`: sends messages until the broker confirms them, also after lost connections."""

from __future__ import annotations

import asyncio
import itertools
import re
import struct
from collections.abc import Awaitable, Callable

import attrs
from aiormq.exceptions import (
    ChannelAccessRefused,
    ChannelNotFoundEntity,
    ChannelPreconditionFailed,
)
from pamqp.commands import Basic

from lightbus.exceptions import (
    SendOutcomeUnknown,
    SendRefused,
    TransportClosed,
    TransportError,
)
from lightbus.message import EventMessage
from lightbus.transport.kit import backoff
from lightbus_rabbitmq import names
from lightbus_rabbitmq.driver.channel import Channel
from lightbus_rabbitmq.driver.confirms import Outcome
from lightbus_rabbitmq.driver.connection import ReconnectingConnection
from lightbus_rabbitmq.driver.encoding import encode, encode_publish
from lightbus_rabbitmq.driver.errors import ConnectionLost, translate_error
from lightbus_rabbitmq.driver.publishing_channel import PublishingChannel

# The wait before a message is sent again for the first time, in seconds
_FIRST_WAIT = 0.05

# How long `close` waits for confirmations, in seconds
_FLUSH_TIMEOUT = 4.0


class _Nacked(Exception):
    """A queue refused the message for now: it is full, or it has no leader."""


@attrs.define
class _Outgoing:
    """A message that the broker has not confirmed.

    Attributes:
        event_id: The id of the event.
        exchange: The exchange that it is sent to.
        routing_key: The routing key.
        size: The size of the body, in bytes.
        is_mandatory: Whether to refuse a message that no queue is bound for.
        frames: Encodes the message for a channel.
        was_written: Whether the broker may have the message.
        was_refused: Whether a queue refused it.
    """

    event_id: str
    exchange: str
    routing_key: str
    size: int
    is_mandatory: bool
    frames: Callable[[Channel], bytes]
    was_written: bool = False
    was_refused: bool = False


class Publisher:
    """Sends many messages at once on one channel with confirms.

    A message is sent again, with the same message id, if the channel is lost before the broker
    confirms it, or if a full queue refuses it.

    Args:
        connection: The connection for the channel.
        declare_api: Declares the exchange of an API, for `send_event`.
        operation_timeout: How long the broker may take for one answer, in seconds.
    """

    def __init__(
        self,
        connection: ReconnectingConnection,
        *,
        declare_api: Callable[[str], Awaitable[None]],
        operation_timeout: float,
    ) -> None:
        self._connection = connection
        self._operation_timeout = operation_timeout
        self._channel = PublishingChannel(connection, declare_api, timeout=operation_timeout)
        self._in_flight = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._is_closed = False

    async def send_event(
        self, message: EventMessage, *, timeout: float, is_mandatory: bool
    ) -> None:
        """Send an event to the exchange of its API.

        Args:
            message: The event.
            timeout: How long to try, in seconds.
            is_mandatory: Whether to refuse an event that no queue is bound for.

        Raises:
            TransportUnavailable: There was no connection for `timeout` seconds. The event was not
                sent.
            SendOutcomeUnknown: The event was sent, and not confirmed within `timeout` seconds.
            SendRefused: The broker refused it; or no queue is bound for it, with `is_mandatory`.
        """

        def frames(channel: Channel) -> bytes:
            return channel.event_encoder.encode(message, is_mandatory=is_mandatory)

        api_name = message.api_name
        outgoing = _Outgoing(
            message.id,
            names.api_exchange(api_name),
            message.event_name,
            len(message.body),
            is_mandatory,
            frames,
        )
        await self._send(outgoing, timeout=timeout, api_name=api_name)

    async def send_copy(
        self,
        exchange: str,
        routing_key: str,
        body: bytes,
        properties: Basic.Properties,
        *,
        timeout: float | None = None,
    ) -> None:
        """Send a copy of an event, which must be routed to a queue.

        The errors are those of `send_event`.
        """

        def frames(channel: Channel) -> bytes:
            number = channel.number
            method = encode_publish(exchange, routing_key, is_mandatory=True, channel_number=number)
            frame_size = channel.connection.connection_tune.frame_max
            return method + encode(properties, body, channel_number=number, frame_size=frame_size)

        event_id = str(properties.message_id)
        outgoing = _Outgoing(event_id, exchange, routing_key, len(body), True, frames)  # noqa: FBT003
        await self._send(outgoing, timeout=self._operation_timeout if timeout is None else timeout)

    async def close(self) -> None:
        """Wait some seconds for the messages in flight to be confirmed, and stop sending."""
        self._is_closed = True
        try:
            async with asyncio.timeout(_FLUSH_TIMEOUT):
                await self._idle.wait()
        except TimeoutError:
            pass  # the senders raise SendOutcomeUnknown
        await self._channel.close()

    async def _send(
        self, outgoing: _Outgoing, *, timeout: float, api_name: str | None = None
    ) -> None:
        if self._is_closed:
            raise TransportClosed("The connection to RabbitMQ was closed.")
        self._in_flight += 1
        self._idle.clear()
        try:
            async with asyncio.timeout(timeout):
                await self._publish_until_stored(outgoing, api_name)
        except TransportClosed as error:
            if outgoing.was_written:
                raise SendOutcomeUnknown(outgoing.event_id, timeout) from error
            raise
        except TimeoutError as error:
            raise await self._failure(outgoing, timeout) from error
        finally:
            self._in_flight -= 1
            if self._in_flight == 0:
                self._idle.set()

    async def _publish_until_stored(self, outgoing: _Outgoing, api_name: str | None) -> None:
        # The first wait is not jittered, so that the messages of a lost channel keep their order.
        delays = itertools.chain([_FIRST_WAIT], backoff())
        while True:
            try:
                await self._publish(await self._channel.get(api_name), outgoing)
                return
            except ConnectionLost:
                pass
            except _Nacked:
                outgoing.was_written, outgoing.was_refused = False, True
            await asyncio.sleep(next(delays))

    async def _failure(self, outgoing: _Outgoing, timeout: float) -> TransportError:
        """Return the error for a message that was not confirmed within `timeout` seconds."""
        if outgoing.was_written:
            return SendOutcomeUnknown(outgoing.event_id, timeout)
        if outgoing.was_refused:
            return SendRefused(
                outgoing.event_id,
                f"a queue that it is routed to refused it for {timeout:.3g} s. Is the queue full?",
            )
        return await self._connection.unavailable(timeout)

    async def _publish(self, channel: Channel, outgoing: _Outgoing) -> None:
        mandatory_id = outgoing.event_id if outgoing.is_mandatory else None
        channel.senders += 1
        try:
            await channel.ready()
            if mandatory_id is not None:
                await channel.wait_for_id(mandatory_id)
            confirmation = channel.send(_frames(outgoing, channel), mandatory_id=mandatory_id)
            outgoing.was_written = True
            outcome = await confirmation
        except ConnectionLost as lost:
            raise self._error_of(lost, outgoing) from lost.__cause__
        finally:
            self._channel.release(channel)
        if outcome is Outcome.REFUSED:
            self._channel.replace(channel)
            raise _Nacked
        if outcome is Outcome.UNROUTED:
            raise SendRefused(
                outgoing.event_id,
                f"no queue is bound for {outgoing.routing_key!r} at {outgoing.exchange!r}",
            )

    def _error_of(
        self, lost: ConnectionLost, outgoing: _Outgoing
    ) -> TransportError | ConnectionLost:
        """Return the error for a message that was in flight on a channel that was lost."""
        cause = lost.__cause__
        if isinstance(cause, ChannelNotFoundEntity):
            # The exchange was deleted. It is declared again before the next try.
            self._channel.forget_declarations()
            return lost
        if isinstance(cause, ChannelPreconditionFailed):
            # Many events share the channel, so another one may be too large.
            if _is_too_large(outgoing.size, str(lost)):
                return SendRefused(
                    outgoing.event_id,
                    f"its {outgoing.size} bytes exceed the broker's limit: {lost}",
                )
            return lost
        if isinstance(cause, ChannelAccessRefused) and f"'{outgoing.exchange}'" not in str(lost):
            return lost  # it is another event that was refused
        doing = f"to send to exchange {outgoing.exchange!r}"
        return (translate_error(cause, doing) if cause else None) or lost


def _frames(outgoing: _Outgoing, channel: Channel) -> bytes:
    try:
        return outgoing.frames(channel)
    except (OverflowError, TypeError, ValueError, struct.error) as error:
        raise SendRefused(
            outgoing.event_id, f"AMQP 0-9-1 cannot represent one of its fields: {error}"
        ) from error


def _is_too_large(size: int, problem: str) -> bool:
    found = re.search(r"message size (\d+)", problem)
    return found is not None and int(found.group(1)) == size
