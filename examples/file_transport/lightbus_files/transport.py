"""`BasicFileTransport`: the transport contract over a directory, without optional features."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar, ParamSpec, TypeVar

import msgspec

from lightbus.exceptions import SendRefused, TransportClosed, TransportRefused
from lightbus.message import EventMessage
from lightbus.transport.contract import DeliveryStream, EventTransport
from lightbus.transport.failure import Failure
from lightbus.transport.kit import OpenStreams, SettleOnce, check_delay
from lightbus.transport.records import QueueAddress, Subscription
from lightbus_files import folder
from lightbus_files.folder import FileName, Queue, Worker

P = ParamSpec("P")
T = TypeVar("T")

# How often a stream polls its queue, in seconds
POLL_PERIOD = 0.02


class FileSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The configuration below ``files:``.

    Attributes:
        path: The directory. All processes that share it run on one machine.
    """

    path: str

    def __post_init__(self) -> None:
        # Made absolute now, because the current directory may change later.
        msgspec.structs.force_setattr(self, "path", str(Path(self.path).absolute()))

    def __str__(self) -> str:
        return self.path


class DeadLetterFile(msgspec.Struct, frozen=True):
    """The content of the file of a dead letter."""

    message: EventMessage
    failure: Failure


class BasicFileTransport(EventTransport):
    """Stores events in files."""

    Settings: ClassVar[type[Any]] = FileSettings

    def __init__(self, settings: FileSettings, *, client_name: str) -> None:
        self.root = Path(settings.path)
        self._streams: OpenStreams[FileStream] = OpenStreams()
        self._is_closed = False

    async def open(self, *, timeout: float) -> None:
        await self.run(folder.create, self.root)

    async def close(self) -> None:
        await self._streams.close()
        self._is_closed = True

    async def declare(self, subscription: Subscription, *, timeout: float) -> None:
        await self.run(Queue(self.root, subscription).declare, subscription.events)

    async def send(
        self,
        message: EventMessage,
        *,
        timeout: float,
        require_listeners: bool = False,
        to: QueueAddress | None = None,
        attempt: int = 1,
    ) -> None:
        # The name decides the order, and threads may run in another order than the calls.
        name, content = str(FileName.new(attempt)), msgspec.json.encode(message)

        def write() -> bool:
            queues = [Queue(self.root, to).path] if to else folder.queues_for(self.root, message)
            for queue in queues:
                folder.write(self.root, content, queue / "waiting" / name)
            return bool(queues)

        if not await self.run(write) and require_listeners:
            raise SendRefused(message.id, "no listener receives it")

    async def subscribe(self, subscription: Subscription) -> FileStream:
        await self.declare(subscription, timeout=0)
        worker = await self.run(Worker, self.root)
        return self._streams.add(FileStream(self, subscription, worker))

    async def write_dead_letter(self, service: str, message: EventMessage, why: Failure) -> None:
        """Store a dead letter of a service."""
        name, content = FileName.new(1), msgspec.json.encode(DeadLetterFile(message, why))
        letters = await self.run(folder.dead_letter_folder, self.root, service)
        await self.run(folder.write, self.root, content, letters / str(name))

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call `work`, which uses files, in a thread. If the caller is cancelled, it still runs.

        Raises:
            TransportRefused: The operating system reported an error.
            TransportClosed: The transport was closed.
        """
        if self._is_closed:
            raise TransportClosed(f"Directory {self.root} was closed.")
        try:
            return await asyncio.shield(asyncio.to_thread(work, *args, **kwargs))
        except OSError as error:
            message = f"Directory {self.root} is not usable: {error.strerror}."
            raise TransportRefused(message) from error


class FileStream(DeliveryStream):
    """Polls the directory of a queue."""

    def __init__(
        self, transport: BasicFileTransport, subscription: Subscription, worker: Worker
    ) -> None:
        self.transport = transport
        self.subscription = subscription
        self.queue = Queue(transport.root, subscription)
        self.unsettled: set[FileDelivery] = set()
        self.is_closed = False
        self._worker = worker
        self._buffer: deque[FileDelivery] = deque()
        self._lock = asyncio.Lock()
        self._stopped = asyncio.Event()

    async def __anext__(self) -> FileDelivery:
        while not self._stopped.is_set():
            async with self._lock:
                if not self._buffer and not self._stopped.is_set():
                    # Through a buffer, so that no event is lost if this task is cancelled.
                    await self.transport.run(self._poll)
            if self._buffer:
                return self._buffer.popleft()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(POLL_PERIOD):
                    await self._stopped.wait()
        raise StopAsyncIteration

    def _poll(self) -> None:
        self.queue.redeliver_from_lost_workers()
        if file := self.queue.get(self._worker.name):
            delivery = FileDelivery(self, file)
            self.unsettled.add(delivery)
            self._buffer.append(delivery)

    async def stop(self) -> None:
        self._stopped.set()
        async with self._lock:
            while self._buffer:
                await self._buffer.popleft().requeue()

    async def aclose(self) -> None:
        await self.stop()
        async with self._lock:
            if not self.is_closed:
                self.is_closed = True
                for delivery in list(self.unsettled):
                    await delivery.retry(after=0)
                await self.transport.run(self._worker.close)


class FileDelivery(SettleOnce):
    """The file of an event in flight."""

    def __init__(self, stream: FileStream, file: Path) -> None:
        self._stream = stream
        self._file = file
        self._name = FileName.parse(file.name)
        self.message = msgspec.json.decode(file.read_bytes(), type=EventMessage)
        self.attempt = self._name.attempt
        self.redeliveries = self._name.redeliveries
        failed_at = self._name.first_failed_at
        self.first_failed_at = datetime.fromtimestamp(failed_at / 1e6, UTC) if failed_at else None

    async def ack(self) -> None:
        await self._settle(self._file.unlink, missing_ok=True)

    async def requeue(self) -> None:
        await self._settle(self._stream.queue.move, self._file, "waiting", self._name)

    async def retry(self, *, after: float, counts: bool = True) -> None:
        check_delay(self._stream.subscription, after, counts=counts)
        to, name = "waiting", self._name.redelivered()
        if after > 0:
            to, name = "delayed", self._name.delayed(after, counts=counts)
        await self._settle(self._stream.queue.move, self._file, to, name)

    async def dead_letter(self, failure: Failure) -> None:
        if self.can_settle():
            # The copy comes first, so that the event always exists.
            service = self._stream.subscription.service_name
            await self._stream.transport.write_dead_letter(service, self.message, failure)
            await self.ack()

    async def _settle(self, work: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> None:
        if self.can_settle():
            await self._stream.transport.run(work, *args, **kwargs)
            self.is_settled = True
            self._stream.unsettled.discard(self)
