"""`Publisher`: sends and returns when the broker has confirmed, over lost connections too."""

from __future__ import annotations

import asyncio
import itertools
import re
import struct
from collections import Counter
from collections.abc import Callable

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
from lightbus_rabbitmq import names
from lightbus_rabbitmq.driver.channel import Channel, Outcome
from lightbus_rabbitmq.driver.connection import ReconnectingConnection
from lightbus_rabbitmq.driver.encoding import encoded, encoded_method
from lightbus_rabbitmq.driver.errors import ConnectionLost, translated
from lightbus_rabbitmq.driver.waiting import close_quietly, growing_waits
from lightbus_rabbitmq.topology.declare import declare_api

_PAUSE = 0.05
_FLUSH_TIMEOUT = 4.0

# Seconds, so that many events which a full queue refuses do not open many channels.
_LEAVE_AFTER = 1.0


class _Nacked(Exception):
    """A queue did not take the event for now: it is full, or has no leader."""


@attrs.define
class _Outgoing:
    """One message on its way to the broker.

    Attributes:
        frames: Encodes it for a channel.
        was_written: Whether the broker may have it, by what is known so far.
        was_refused: Whether a queue did not take it.
    """

    event_id: str
    exchange: str
    routing_key: str
    size: int
    must_route: bool
    frames: Callable[[Channel], bytes]
    was_written: bool = False
    was_refused: bool = False


class Publisher:
    """One channel with confirms, on which many sends are under way at once.

    What was not confirmed when the channel was lost, or was refused by a queue that is full for
    now, is sent again with the same message id.
    """

    def __init__(self, link: ReconnectingConnection, *, operation_timeout: float) -> None:
        self._link = link
        self._operation_timeout = operation_timeout
        self._channel: Channel | None = None
        self._opened_at = 0.0
        self._closing: set[asyncio.Task[None]] = set()
        self._opening = asyncio.Lock()
        self._waiting: Counter[str | None] = Counter()
        self._declared_apis: set[str] = set()
        self._under_way = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._is_closed = False

    async def send_event(self, message: EventMessage, *, timeout: float, must_route: bool) -> None:
        """Send to the exchange of the event's API.

        Raises:
            TransportUnavailable: There was no connection for `timeout` seconds; it was not sent.
            SendOutcomeUnknown: It was sent, and not confirmed within `timeout` seconds.
            SendRefused: The broker did not take it; or no queue wants it, with `must_route`.
        """

        def frames(channel: Channel) -> bytes:
            return channel.event_frames.encoded(message, is_mandatory=must_route)

        api_name = message.api_name
        outgoing = _Outgoing(
            message.id,
            names.api_exchange(api_name),
            message.event_name,
            len(message.body),
            must_route,
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
        """Send a copy that must reach a queue.

        Raises:
            TransportError: As `send_event` does.
        """

        def frames(channel: Channel) -> bytes:
            number = channel.number
            method = encoded_method(exchange, routing_key, is_mandatory=True, channel_number=number)
            frame_size = channel.connection.connection_tune.frame_max
            return method + encoded(properties, body, channel_number=number, frame_size=frame_size)

        event_id = str(properties.message_id)
        outgoing = _Outgoing(event_id, exchange, routing_key, len(body), True, frames)  # noqa: FBT003
        await self._send(outgoing, timeout=self._operation_timeout if timeout is None else timeout)

    async def close(self) -> None:
        """Let what is under way be confirmed, for a few seconds, and take no more."""
        self._is_closed = True
        try:
            async with asyncio.timeout(_FLUSH_TIMEOUT):
                await self._idle.wait()
        except TimeoutError:
            pass  # those who wait for a confirmation learn that its outcome is unknown
        for closing in self._closing:
            closing.cancel()
        await asyncio.gather(*self._closing, return_exceptions=True)

    async def _send(
        self, outgoing: _Outgoing, *, timeout: float, api_name: str | None = None
    ) -> None:
        if self._is_closed:
            raise TransportClosed("The connection to RabbitMQ was closed.")
        self._under_way += 1
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
            self._under_way -= 1
            if self._under_way == 0:
                self._idle.set()

    async def _publish_until_stored(self, outgoing: _Outgoing, api_name: str | None) -> None:
        # The first wait is the same for all that a lost channel held, which so keep their order.
        waits = itertools.chain([_PAUSE], growing_waits())
        while True:
            try:
                await self._publish(await self._open_channel(api_name), outgoing)
                return
            except ConnectionLost:
                pass
            except _Nacked:
                outgoing.was_written, outgoing.was_refused = False, True
            await asyncio.sleep(next(waits))

    async def _failure(self, outgoing: _Outgoing, timeout: float) -> TransportError:
        """Return the error of a message that was not known to be stored for `timeout` seconds."""
        if outgoing.was_written:
            return SendOutcomeUnknown(outgoing.event_id, timeout)
        if outgoing.was_refused:
            return SendRefused(
                outgoing.event_id,
                f"a queue that it belongs in refused it for {timeout:.3g} s, as a full one does",
            )
        return await self._link.unavailable(timeout)

    async def _publish(self, channel: Channel, outgoing: _Outgoing) -> None:
        returned_as = outgoing.event_id if outgoing.must_route else None
        channel.senders += 1
        try:
            await channel.ready()
            if returned_as is not None:
                await channel.is_unambiguous(returned_as)
            waiting = channel.send(_frames(outgoing, channel), returned_as=returned_as)
            outgoing.was_written = True
            outcome = await waiting
        except ConnectionLost as lost:
            raise self._meaning(lost, outgoing) from lost.__cause__
        finally:
            channel.senders -= 1
            if channel is not self._channel:
                self._close_unused(channel)
        if outcome is Outcome.REFUSED:
            self._leave(channel)
            raise _Nacked
        if outcome is Outcome.UNROUTED:
            raise SendRefused(
                outgoing.event_id,
                f"no queue is bound for {outgoing.routing_key!r} at {outgoing.exchange!r}",
            )

    def _meaning(
        self, lost: ConnectionLost, outgoing: _Outgoing
    ) -> TransportError | ConnectionLost:
        """Return what the end of a channel means for a message that was on its way."""
        cause = lost.__cause__
        if isinstance(cause, ChannelNotFoundEntity):
            # Someone deleted the exchange: it is declared again before the next try.
            self._declared_apis.clear()
            return lost
        if isinstance(cause, ChannelPreconditionFailed):
            # The channel is shared: the event that was too large may be another one.
            if _is_too_large(outgoing.size, str(lost)):
                return SendRefused(
                    outgoing.event_id, f"its {outgoing.size} bytes are too many: {lost}"
                )
            return lost
        if isinstance(cause, ChannelAccessRefused) and f"'{outgoing.exchange}'" not in str(lost):
            return lost  # likewise
        doing = f"to send to exchange {outgoing.exchange!r}"
        return (translated(cause, doing) if cause else None) or lost

    async def _open_channel(self, api_name: str | None) -> Channel:
        # Those who come while others wait are behind them: events go out as they were fired.
        channel = self._channel_for(api_name)
        if channel is not None and not self._waiting[api_name]:
            return channel
        self._waiting[api_name] += 1
        try:
            async with self._opening:
                while (channel := self._channel_for(api_name)) is None:
                    await self._prepare(api_name)
                return channel
        finally:
            self._waiting[api_name] -= 1

    def _channel_for(self, api_name: str | None) -> Channel | None:
        """Return the channel, if it is open and the exchange of the API is known to exist."""
        if self._channel is None or self._channel.is_lost:
            return None
        is_declared = api_name is None or api_name in self._declared_apis
        return self._channel if is_declared else None

    async def _prepare(self, api_name: str | None) -> None:
        if self._channel is None or self._channel.is_lost:
            if self._channel is not None:
                self._declared_apis.clear()
            self._channel = await self._link.channel(confirms=True)
            self._opened_at = asyncio.get_running_loop().time()
        if api_name is not None and api_name not in self._declared_apis:
            await declare_api(self._link, api_name, timeout=self._operation_timeout)
            self._declared_apis.add(api_name)

    def _leave(self, channel: Channel) -> None:
        """Send no more on a channel that refuses; it is closed when all that it has is settled."""
        # One that is first used for a queue while the queue's leader is gone may refuse for as long
        # as it lives (seen on 3.10.8): it asks the same dead node each time.
        age = asyncio.get_running_loop().time() - self._opened_at
        if channel is self._channel and age > _LEAVE_AFTER:
            self._channel = None
            self._close_unused(channel)

    def _close_unused(self, channel: Channel) -> None:
        if channel.senders == 0 and not channel.is_lost:
            closing = asyncio.create_task(close_quietly(channel, self._operation_timeout))
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)


def _frames(outgoing: _Outgoing, channel: Channel) -> bytes:
    try:
        return outgoing.frames(channel)
    except (OverflowError, TypeError, ValueError, struct.error) as error:
        raise SendRefused(
            outgoing.event_id, f"AMQP 0-9-1 has no form for one of its fields: {error}"
        ) from error


def _is_too_large(size: int, problem: str) -> bool:
    found = re.search(r"message size (\d+)", problem)
    return found is not None and int(found.group(1)) == size
