"""`SocketTransport`: the transport contract, and no feature that has methods, over a TCP socket."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from datetime import UTC, datetime
from typing import Any, ClassVar

import msgspec

from lightbus.exceptions import (
    NotDeclared,
    SendOutcomeUnknown,
    SendRefused,
    TransportClosed,
    TransportUnavailable,
)
from lightbus.log import get_logger
from lightbus.message import EventMessage
from lightbus.transport.contract import EventTransport
from lightbus.transport.failure import Failure
from lightbus.transport.features import SharedBroker
from lightbus.transport.kit import (
    BufferedStream,
    OpenStreams,
    SettleOnce,
    SharedTask,
    backoff,
    check_delay,
)
from lightbus.transport.records import QueueAddress, Subscription
from lightbus_socket.connection import Connection

_log = get_logger(__name__)

# Seconds that the broker may take to settle a delivery, or to stop a stream.
TIMEOUT = 10.0


class SocketSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the configuration may say below ``socket:``."""

    host: str = "127.0.0.1"
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


class SocketTransport(EventTransport, SharedBroker):
    """Sends requests to the broker of `lightbus_socket.broker`."""

    Settings: ClassVar[type[Any]] = SocketSettings

    def __init__(self, settings: SocketSettings, *, client_name: str) -> None:
        self._settings = settings
        self._connecting = asyncio.Lock()
        self._connection: Connection | None = None
        self._streams: OpenStreams[SocketStream] = OpenStreams()
        self._closing = SharedTask(self._close)
        self._is_closed = False

    async def open(self, *, timeout: float) -> None:
        await self.connected(timeout=timeout)

    async def close(self) -> None:
        await self._closing()

    async def declare(self, subscription: Subscription, *, timeout: float) -> None:
        events = sorted(subscription.events)
        await self.request("declare", **_queue(subscription), events=events, timeout=timeout)

    async def send(
        self,
        message: EventMessage,
        *,
        timeout: float,
        require_listeners: bool = False,
        to: QueueAddress | None = None,
        attempt: int = 1,
    ) -> None:
        data = msgspec.to_builtins(message)
        connection = await self.connected(timeout=timeout)
        try:
            async with asyncio.timeout(timeout):
                if to is not None:
                    was_stored = await connection.request(
                        "send_to", **_queue(to), message=data, attempt=attempt
                    )
                else:
                    was_stored = await connection.request(
                        "send", api=message.api_name, event=message.event_name, message=data
                    )
        except (ConnectionError, TimeoutError) as error:
            raise SendOutcomeUnknown(message.id, timeout) from error
        if not was_stored and to is not None:
            raise NotDeclared(f"Listener {to.listener_name!r} on {to.api_name} has no queue.")
        if not was_stored and require_listeners:
            raise SendRefused(message.id, "no listener receives it")

    async def subscribe(self, subscription: Subscription) -> SocketStream:
        for wait in backoff():
            with contextlib.suppress(TransportUnavailable):
                await self.declare(subscription, timeout=TIMEOUT)
                break
            await asyncio.sleep(wait)
        return self._streams.add(SocketStream(self, subscription))

    async def connected(self, *, timeout: float) -> Connection:
        """Return a connection that was made within `timeout` seconds."""
        if self._is_closed:
            raise TransportClosed(f"The connection to the broker at {self._settings} was closed.")
        try:
            async with asyncio.timeout(timeout), self._connecting:
                waits = backoff()
                while self._connection is None or self._connection.is_lost:
                    try:
                        self._connection = await Connection.open(
                            self._settings.host, self._settings.port
                        )
                    except OSError:
                        await asyncio.sleep(next(waits))
                return self._connection
        except TimeoutError as error:
            raise TransportUnavailable(f"No broker answered at {self._settings}.") from error

    async def request(self, do: str, *, timeout: float | None = TIMEOUT, **arguments: Any) -> Any:
        """Return the result of a request. A `timeout` of None waits as long as it takes."""
        connection = await self.connected(timeout=timeout or TIMEOUT)
        try:
            async with asyncio.timeout(timeout):
                return await connection.request(do, **arguments)
        except (ConnectionError, TimeoutError) as error:
            raise TransportUnavailable(f"No broker answered at {self._settings}.") from error

    async def _close(self) -> None:
        await self._streams.close()
        self._is_closed = True
        async with self._connecting:
            if self._connection is not None:
                await self._connection.close()


class SocketStream(BufferedStream["SocketDelivery"]):
    """Takes one event for each task that waits."""

    def __init__(self, transport: SocketTransport, subscription: Subscription) -> None:
        super().__init__()
        self.transport = transport
        self.subscription = subscription
        self.is_closed = False
        self._id = secrets.token_hex(8)
        self._receivers = 0
        self._takes: set[asyncio.Task[None]] = set()
        self._stopping = SharedTask(self._stop)
        self._closing = SharedTask(self._close)

    async def __anext__(self) -> SocketDelivery:
        self._receivers += 1
        self._takes = {take for take in self._takes if not take.done()}
        if not self.is_ended and len(self._takes) < self._receivers:
            # A task of its own: a receiver that is cancelled leaves its event to the next one.
            self._takes.add(asyncio.create_task(self._take()))
        try:
            return await super().__anext__()
        finally:
            self._receivers -= 1

    async def stop(self) -> None:
        await self._stopping()

    async def aclose(self) -> None:
        await self._closing()

    async def _take(self) -> None:
        for wait in backoff():
            try:
                queue = _queue(self.subscription)
                entry = await self.transport.request("take", **queue, stream=self._id, timeout=None)
                break
            except TransportUnavailable as error:
                _log.warning("Listener receives no events; trying again.", reason=str(error))
                await asyncio.sleep(wait)
        if entry is not None:
            self.feed(SocketDelivery(self, entry))

    async def _stop(self) -> None:
        left = self.end()
        with contextlib.suppress(TransportUnavailable):
            await self.transport.request("stop", stream=self._id)
        if self._takes:
            await asyncio.wait(self._takes, timeout=TIMEOUT)
        for delivery in [*left, *self.end()]:
            await delivery.requeue()

    async def _close(self) -> None:
        await self.stop()
        self.is_closed = True
        with contextlib.suppress(TransportUnavailable):
            await self.transport.request("close", stream=self._id)


class SocketDelivery(SettleOnce):
    """An event that the broker has delivered to this connection."""

    def __init__(self, stream: SocketStream, entry: dict[str, Any]) -> None:
        self.message = msgspec.convert(entry["message"], EventMessage)
        self.attempt = entry["attempt"]
        self.redeliveries = entry["redeliveries"]
        failed_at = entry["first_failed_at"]
        self.first_failed_at = datetime.fromtimestamp(failed_at, UTC) if failed_at else None
        self._stream = stream
        self._number = entry["delivery"]

    async def ack(self) -> None:
        with contextlib.suppress(TransportUnavailable):  # then the broker requeues the event
            await self._settle("ack")

    async def requeue(self) -> None:
        with contextlib.suppress(TransportUnavailable):
            await self._settle("requeue", is_attempt=False)

    async def retry(self, *, after: float, counts: bool = True) -> None:
        check_delay(self._stream.subscription, after, counts=counts)
        if after == 0:
            await self._settle("requeue", is_attempt=True)
        else:
            await self._settle("delay", seconds=after, is_attempt=counts)

    async def dead_letter(self, failure: Failure) -> None:
        await self._settle("dead_letter", failure=msgspec.to_builtins(failure))

    async def _settle(self, do: str, **arguments: Any) -> None:
        if not self.can_settle():
            return
        was_held = await self._stream.transport.request(do, delivery=self._number, **arguments)
        self.is_settled = True
        if not was_held:
            _log.warning("Delivery lost; the event is redelivered.", event_id=self.message.id)


def _queue(address: QueueAddress) -> dict[str, str]:
    return {"api": address.api_name, "queue": f"{address.service_name}:{address.listener_name}"}
