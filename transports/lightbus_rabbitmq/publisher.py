"""`Publisher`: sends and returns when the broker has confirmed, over lost connections too."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator

import aiormq.abc
import attrs
from aiormq.exceptions import ChannelNotFoundEntity, ChannelPreconditionFailed, DeliveryError
from pamqp.commands import Basic

from lightbus.exceptions import SendOutcomeUnknown, SendRefused, TransportClosed
from lightbus_rabbitmq import names, topology
from lightbus_rabbitmq.connection import Link, close_quietly, growing_waits
from lightbus_rabbitmq.errors import ConnectionLost, reason, translated

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
        was_written: Whether the broker may have it, by what is known so far.
    """

    exchange: str
    routing_key: str
    body: bytes
    properties: Basic.Properties
    must_route: bool
    was_written: bool = False

    @property
    def event_id(self) -> str:
        return str(self.properties.message_id)


class Publisher:
    """One channel with confirms, on which many sends are under way at once.

    What was not confirmed when the channel was lost, or was refused by a queue that is full for
    now, is sent again with the same message id.
    """

    def __init__(self, link: Link, *, operation_timeout: float) -> None:
        self._link = link
        self._operation_timeout = operation_timeout
        self._channel: aiormq.abc.AbstractChannel | None = None
        self._opened_at = 0.0
        self._closing: set[asyncio.Task[None]] = set()
        self._opening = asyncio.Lock()
        self._declared_apis: set[str] = set()
        self._under_way = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._waiting: dict[aiormq.abc.AbstractChannel, set[asyncio.Timeout]] = {}
        self._must_route: dict[str, asyncio.Event] = {}
        self._is_closed = False

    async def send_event(
        self,
        api_name: str,
        routing_key: str,
        body: bytes,
        properties: Basic.Properties,
        *,
        timeout: float,
        must_route: bool,
    ) -> None:
        """Send to the exchange of an API.

        Raises:
            TransportUnavailable: There was no connection for `timeout` seconds; it was not sent.
            SendOutcomeUnknown: It was sent, and not confirmed within `timeout` seconds.
            SendRefused: The broker did not take it; or no queue wants it, with `must_route`.
        """
        outgoing = _Outgoing(
            names.api_exchange(api_name), routing_key, body, properties, must_route=must_route
        )
        async with self._alone(outgoing) if must_route else contextlib.nullcontext():
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
        outgoing = _Outgoing(exchange, routing_key, body, properties, must_route=True)
        async with self._alone(outgoing):
            await self._send(
                outgoing, timeout=self._operation_timeout if timeout is None else timeout
            )

    @contextlib.asynccontextmanager
    async def _alone(self, outgoing: _Outgoing) -> AsyncIterator[None]:
        # The driver tells returned messages apart by their id, so one of an id goes at a time.
        event_id = outgoing.event_id
        while waiting := self._must_route.get(event_id):
            await waiting.wait()
        done = self._must_route[event_id] = asyncio.Event()
        try:
            yield
        finally:
            del self._must_route[event_id]
            done.set()

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
        nacked: _Nacked | None = None
        waits = growing_waits()
        self._under_way += 1
        self._idle.clear()
        try:
            async with asyncio.timeout(timeout):
                while True:
                    try:
                        await self._publish(await self._open_channel(api_name), outgoing)
                        return
                    except ConnectionLost:
                        await asyncio.sleep(_PAUSE)
                    except _Nacked as error:
                        outgoing.was_written, nacked = False, error
                        await asyncio.sleep(next(waits))
        except TimeoutError as error:
            if outgoing.was_written:
                raise SendOutcomeUnknown(outgoing.event_id, timeout) from error
            if nacked is not None:
                reason_ = f"a queue that it belongs in refused it for {timeout:.3g} s"
                raise SendRefused(outgoing.event_id, f"{reason_}, as a full one does") from nacked
            raise await self._link.unavailable(timeout) from error
        finally:
            self._under_way -= 1
            if self._under_way == 0:
                self._idle.set()

    async def _publish(self, channel: aiormq.abc.AbstractChannel, outgoing: _Outgoing) -> None:
        exchange, body = outgoing.exchange, outgoing.body
        waiting = self._waiting.setdefault(channel, set())
        try:
            # The driver may leave a sender waiting on a channel that was lost.
            async with asyncio.timeout(None) as until_lost:
                waiting.add(until_lost)
                # What is written while the broker does not read would fill this process, and hold
                # up the heartbeats behind it.
                await channel.connection.ready()
                outgoing.was_written = True
                confirmation = await channel.basic_publish(
                    body,
                    exchange=exchange,
                    routing_key=outgoing.routing_key,
                    properties=outgoing.properties,
                    mandatory=outgoing.must_route,
                )
        except TimeoutError as error:
            raise ConnectionLost("the channel was lost") from error
        except DeliveryError as error:
            self._leave(channel)
            raise _Nacked from error
        except ChannelNotFoundEntity as error:
            # Someone deleted the exchange: it is declared again before the next try.
            self._declared_apis.clear()
            raise ConnectionLost(reason(error)) from error
        except ChannelPreconditionFailed as error:
            # The channel is shared: the event that was too large may be another one.
            if _is_too_large(body, reason(error)):
                raise SendRefused(
                    outgoing.event_id, f"its {len(body)} bytes are too many: {reason(error)}"
                ) from error
            raise ConnectionLost(reason(error)) from error
        except (Exception, asyncio.CancelledError) as error:
            if meaning := translated(error, f"to send to exchange {exchange!r}"):
                raise meaning from error
            raise
        finally:
            waiting.discard(until_lost)
            self._note_settled(channel)
        if not isinstance(confirmation, Basic.Ack):
            raise SendRefused(
                outgoing.event_id,
                f"no queue is bound for {outgoing.routing_key!r} at {exchange!r}",
            )

    async def _open_channel(self, api_name: str | None) -> aiormq.abc.AbstractChannel:
        if self._channel is None or self._channel.is_closed:
            async with self._opening:
                if self._channel is None or self._channel.is_closed:
                    if self._channel is not None:
                        self._declared_apis.clear()
                    self._channel = await self._new_channel()
        if api_name is not None and api_name not in self._declared_apis:
            async with self._opening:
                if api_name not in self._declared_apis:
                    await topology.ensure_api(self._link, api_name, timeout=self._operation_timeout)
                    self._declared_apis.add(api_name)
            # The channel may have been left meanwhile.
            return await self._open_channel(api_name)
        return self._channel

    async def _new_channel(self) -> aiormq.abc.AbstractChannel:
        channel = await self._link.channel(confirms=True)
        self._opened_at = asyncio.get_running_loop().time()
        lost = channel.connection.closing
        lost.add_done_callback(lambda _: self._end_waiting(channel))
        channel.closing.add_done_callback(lambda _: lost.cancel())
        return channel

    def _leave(self, channel: aiormq.abc.AbstractChannel) -> None:
        """Send no more on a channel that refuses; it is closed when all that it has is settled."""
        # One that is first used for a queue while the queue's leader is gone may refuse for as long
        # as it lives (seen on 3.10.8): it asks the same dead node each time.
        age = asyncio.get_running_loop().time() - self._opened_at
        if channel is self._channel and age > _LEAVE_AFTER:
            self._channel = None

    def _note_settled(self, channel: aiormq.abc.AbstractChannel) -> None:
        if self._waiting.get(channel):
            return
        self._waiting.pop(channel, None)
        if channel is not self._channel and not channel.is_closed:
            closing = asyncio.create_task(close_quietly(channel, self._operation_timeout))
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)

    def _end_waiting(self, channel: aiormq.abc.AbstractChannel) -> None:
        for until_lost in self._waiting.pop(channel, set()):
            until_lost.reschedule(0)


def _is_too_large(body: bytes, problem: str) -> bool:
    found = re.search(r"message size (\d+)", problem)
    return found is not None and int(found.group(1)) == len(body)
