"""`FileTransport`: a transport that stores events in a directory."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import msgspec

from lightbus.exceptions import SendRefused, TransportClosed, TransportError, TransportRefused
from lightbus.transport.failure import Failure
from lightbus.message import EventMessage
from lightbus.transport.features import (
    DeadLetter,
    DeadLetterStore,
    HealthCheck,
    QueueStats,
    SharedBroker,
)
from lightbus.transport.contract import Delivery, DeliveryStream, EventTransport
from lightbus.transport.kit import check_delay
from lightbus.transport.records import QueueAddress, Subscription, SubscriptionStats
from lightbus_files import folder
from lightbus_files.folder import Name, Queue, Worker

T = TypeVar("T")

# How often a stream polls its queue, in seconds
PERIOD = 0.02


class FileSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The settings below ``files:`` in the configuration.

    Attributes:
        path: The directory. All processes that share it run on one machine.
    """

    path: str

    def __post_init__(self) -> None:
        # Resolve the path once, so that a later change of the current directory has no effect.
        msgspec.structs.force_setattr(self, "path", str(Path(self.path).absolute()))

    def __str__(self) -> str:
        return self.path


class DeadLetterFile(msgspec.Struct, frozen=True):
    """The content of a dead letter's file."""

    message: EventMessage
    failure: Failure


class FileTransport(EventTransport, SharedBroker, DeadLetterStore, HealthCheck, QueueStats):
    """Stores each event of each listener in a file."""

    Settings: ClassVar[type[Any]] = FileSettings

    def __init__(self, settings: FileSettings, *, client_name: str) -> None:
        self._root = Path(settings.path)
        self._streams: list[FileStream] = []
        self._is_closed = False

    async def open(self, *, timeout: float) -> None:
        await self.run(lambda: folder.prepare(self._root))

    async def send(
        self,
        message: EventMessage,
        *,
        timeout: float,
        require_listeners: bool = False,
        to: QueueAddress | None = None,
        attempt: int = 1,
    ) -> None:
        # The order of the calls counts, not the order in which threads write the files.
        name, content = Name.new(attempt=attempt), msgspec.json.encode(message)
        if to is not None:
            queue = self._queue(to)
            await self.run(lambda: queue.add(content, name))
            return

        def write() -> bool:
            queues = [*folder.queues_of_event(self._root, message.api_name, message.event_name)]
            for queue in queues:
                queue.add(content, name)
            return bool(queues)

        if not await self.run(write) and require_listeners:
            raise SendRefused(message.id, "it has no listener")

    async def declare(self, subscription: Subscription, *, timeout: float) -> None:
        await self.run(lambda: self._queue(subscription).declare(subscription.events))

    async def subscribe(self, subscription: Subscription) -> FileStream:
        await self.declare(subscription, timeout=0)
        worker = await self.run(lambda: Worker(self._root))
        stream = FileStream(self, self._root, self._queue(subscription), subscription, worker)
        self._streams.append(stream)
        return stream

    async def stats(self, queue: QueueAddress) -> SubscriptionStats:
        files = self._queue(queue)
        return SubscriptionStats(
            waiting=await self.run(lambda: files.count("waiting")),
            delayed=await self.run(lambda: files.count("delayed")),
            in_flight=await self.run(lambda: files.count("in_flight")),
        )

    async def dead_letters(self, service_name: str) -> AsyncGenerator[FileDeadLetter]:
        letters = await self.run(lambda: folder.dead_letter_folder(self._root, service_name))
        for file in await self.run(lambda: sorted(letters.iterdir())):
            yield FileDeadLetter(self, file, await self.run(file.read_bytes))

    async def add_dead_letter(
        self, service_name: str, message: EventMessage, failure: Failure, *, timeout: float
    ) -> None:
        name, content = Name.new(), msgspec.json.encode(DeadLetterFile(message, failure))

        def write() -> None:
            letters = folder.dead_letter_folder(self._root, service_name)
            folder.write(self._root, content, letters / str(name))

        await self.run(write)

    async def check_health(self, *, timeout: float) -> list[str]:
        try:
            await self.open(timeout=timeout)
        except TransportError as error:
            return [str(error)]
        return []

    async def close(self) -> None:
        streams, self._streams = self._streams, []
        for stream in streams:
            await stream.aclose()
        self._is_closed = True

    async def run(self, work: Callable[[], T]) -> T:
        """Run `work`, which uses files, in a thread. It completes even if the caller is cancelled.

        Raises:
            TransportClosed: The transport was closed.
            TransportRefused: The operating system refused access to a file.
        """
        if self._is_closed:
            raise TransportClosed(f"The transport for {self._root} was closed.")
        try:
            return await asyncio.shield(asyncio.to_thread(work))
        except OSError as error:
            raise TransportRefused(
                f"Directory {self._root} is not usable: {error.strerror}."
            ) from error

    def _queue(self, address: QueueAddress) -> Queue:
        return Queue.named(
            self._root,
            address.api_name,
            address.service_name,
            address.listener_name,
        )


class FileStream(DeliveryStream):
    """Receives events from a queue by polling its directory."""

    def __init__(
        self,
        transport: FileTransport,
        root: Path,
        queue: Queue,
        subscription: Subscription,
        worker: Worker,
    ) -> None:
        self.transport = transport
        self.queue = queue
        self.subscription = subscription
        self.worker = worker
        self.unsettled: set[FileDelivery] = set()
        self._prefetched: deque[FileDelivery] = deque()
        self._lock = asyncio.Lock()
        self._is_stopped = asyncio.Event()
        self._is_closed = False

    async def __anext__(self) -> FileDelivery:
        while not self._is_stopped.is_set():
            async with self._lock:
                if not self._prefetched and not self._is_stopped.is_set():
                    # A cancelled caller must not lose the event, so it is stored in the stream first.
                    await self.transport.run(self._prefetch)
            if self._prefetched:
                return self._prefetched.popleft()
            try:
                async with asyncio.timeout(PERIOD):
                    await self._is_stopped.wait()
            except TimeoutError:
                pass  # poll again
        raise StopAsyncIteration

    def _prefetch(self) -> None:
        self.queue.requeue_from_lost_workers()
        if event := self.queue.deliver(self.worker.name):
            delivery = FileDelivery(self, *event)
            self.unsettled.add(delivery)
            self._prefetched.append(delivery)

    async def stop(self) -> None:
        self._is_stopped.set()
        async with self._lock:
            while self._prefetched:
                await self._prefetched.popleft().requeue()

    async def aclose(self) -> None:
        await self.stop()
        async with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
            for delivery in list(self.unsettled):
                await delivery.retry(after=0)
            await self.transport.run(self.worker.end)


class FileDelivery(Delivery):
    """An event in flight."""

    def __init__(self, stream: FileStream, name: Name, content: bytes) -> None:
        self.message = msgspec.json.decode(content, type=EventMessage)
        self.attempt = name.attempt
        self.redeliveries = name.redeliveries
        self.first_failed_at = None
        if name.first_failed_at:
            self.first_failed_at = datetime.fromtimestamp(name.first_failed_at / 1e6, UTC)
        self._stream = stream
        self._name = name

    async def ack(self) -> None:
        await self._settle(lambda: self._queue.remove(self._name, self._worker))

    async def requeue(self) -> None:
        await self._settle(lambda: self._queue.requeue(self._name, self._worker, is_attempt=False))

    async def retry(self, *, after: float, counts: bool = True) -> None:
        check_delay(self._stream.subscription, after, counts=counts)
        if after == 0:
            await self._settle(
                lambda: self._queue.requeue(self._name, self._worker, is_attempt=True)
            )
        else:
            await self._settle(
                lambda: self._queue.delay(
                    self._name, self._worker, seconds=after, is_failure=counts
                )
            )

    async def dead_letter(self, failure: Failure) -> None:
        if self in self._stream.unsettled:
            # Store the copy before removing the original, so that a crash cannot lose the event.
            service_name = self._stream.subscription.service_name
            await self._stream.transport.add_dead_letter(
                service_name, self.message, failure, timeout=0
            )
            await self.ack()

    async def _settle(self, settle: Callable[[], object]) -> None:
        if self in self._stream.unsettled:
            await self._stream.transport.run(settle)
            self._stream.unsettled.discard(self)

    @property
    def _queue(self) -> Queue:
        return self._stream.queue

    @property
    def _worker(self) -> str:
        return self._stream.worker.name


class FileDeadLetter(DeadLetter):
    """A file in the directory of a service's dead letters."""

    def __init__(self, transport: FileTransport, file: Path, content: bytes) -> None:
        letter = msgspec.json.decode(content, type=DeadLetterFile)
        self.message = letter.message
        self.failure = letter.failure
        self._transport = transport
        self._file = file

    async def discard(self) -> None:
        await self._transport.run(lambda: self._file.unlink(missing_ok=True))
