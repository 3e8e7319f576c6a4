"""`FileTransport`: the optional features of the transport."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator
from pathlib import Path

import msgspec

from lightbus.exceptions import TransportError
from lightbus.message import EventMessage
from lightbus.transport.failure import Failure
from lightbus.transport.features import (
    DeadLetter,
    DeadLetterStore,
    HealthCheck,
    QueueStats,
    SharedBroker,
)
from lightbus.transport.records import QueueAddress, SubscriptionStats
from lightbus_files import folder
from lightbus_files.transport import BasicFileTransport, DeadLetterFile


class FileTransport(BasicFileTransport, SharedBroker, DeadLetterStore, HealthCheck, QueueStats):
    """Stores events in files, reads dead letters, counts events and checks its health."""

    async def stats(self, queue: QueueAddress) -> SubscriptionStats:
        files = folder.Queue(self.root, queue).path
        return SubscriptionStats(
            waiting=len(await self.run(os.listdir, files / "waiting")),
            delayed=len(await self.run(os.listdir, files / "delayed")),
            in_flight=len(await self.run(os.listdir, files / "in_flight")),
        )

    async def dead_letters(self, service_name: str) -> AsyncGenerator[FileDeadLetter]:
        letters = await self.run(folder.dead_letter_folder, self.root, service_name)
        for name in sorted(await self.run(os.listdir, letters)):
            file = letters / name
            yield FileDeadLetter(self, file, await self.run(file.read_bytes))

    async def add_dead_letter(
        self, service_name: str, message: EventMessage, failure: Failure, *, timeout: float
    ) -> None:
        await self.write_dead_letter(service_name, message, failure)

    async def check_health(self, *, timeout: float) -> list[str]:
        try:
            await self.open(timeout=timeout)
        except TransportError as error:
            return [str(error)]
        return []


class FileDeadLetter(DeadLetter):
    """A file of a dead letter."""

    def __init__(self, transport: BasicFileTransport, file: Path, content: bytes) -> None:
        letter = msgspec.json.decode(content, type=DeadLetterFile)
        self.message = letter.message
        self.failure = letter.failure
        self._transport = transport
        self._file = file

    async def discard(self) -> None:
        await self._transport.run(self._file.unlink, missing_ok=True)
