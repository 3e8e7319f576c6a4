"""`ChannelWriter`: buffers the frames of a channel, and writes many of them at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from aiormq.abc import ChannelFrame

Write = Callable[[bytes], bool]

# Senders wait while more bytes than this are not yet written.
_MAX_UNWRITTEN = 1 << 20

# How long to wait before the connection's full queue is tried again, in seconds
_QUEUE_FULL_PAUSE = 0.001


class ChannelWriter:
    """The write buffer of one channel.

    Args:
        loop: The event loop.
        write_now: Writes to the connection at once, and returns whether it could.
        queue: The driver's queue of frames for the connection, for when it could not.
        is_lost: Returns whether the channel is closed.
        add_acks: Called before each write. It may call `write`.

    Attributes:
        unwritten_bytes: How many bytes are in the buffer.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        write_now: Write,
        queue: asyncio.Queue[ChannelFrame],
        *,
        is_lost: Callable[[], bool],
        add_acks: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._write_now = write_now
        self._queue = queue
        self._is_lost = is_lost
        self._add_acks = add_acks
        self._unwritten: list[bytes] = []
        self.unwritten_bytes = 0
        self._has_room = _set_event()
        self._is_idle = _set_event()

    async def wait_for_room(self) -> None:
        """Wait while the buffer is full."""
        # All waiting senders wake at once, and the first ones may fill the buffer again.
        while not self._has_room.is_set():
            await self._has_room.wait()

    async def wait_until_idle(self) -> None:
        """Wait until the buffer is written."""
        while not self._is_idle.is_set():
            await self._is_idle.wait()

    def write(self, frames: bytes) -> None:
        """Add frames to the buffer, which is written soon."""
        self._unwritten.append(frames)
        self.unwritten_bytes += len(frames)
        if self.unwritten_bytes > _MAX_UNWRITTEN:
            self._has_room.clear()
        self.write_soon()

    def write_soon(self) -> None:
        """Write the buffer and the acknowledgements in the next iteration of the event loop."""
        if self._is_idle.is_set():
            self._is_idle.clear()
            self._loop.call_soon(self._write_all)

    def discard(self) -> None:
        """Drop the buffer, because the channel was lost, and wake the tasks that wait."""
        self._unwritten.clear()
        self._has_room.set()
        self._is_idle.set()

    def _write_all(self) -> None:
        """Write everything to the connection, and continue when the connection has written it."""
        self._add_acks()
        if self._is_lost() or not self._unwritten:
            self._is_idle.set()
            return
        frames = b"".join(self._unwritten)
        if self._write_now(frames):
            self._clear()
            self._is_idle.set()
            return
        written: asyncio.Future[None] = self._loop.create_future()
        try:
            self._queue.put_nowait(ChannelFrame(frames, should_close=False, drain_future=written))
        except asyncio.QueueFull:
            # The other channels of the connection have filled the queue.
            self._loop.call_later(_QUEUE_FULL_PAUSE, self._write_all)
            return
        self._clear()
        written.add_done_callback(lambda _: self._write_all())

    def _clear(self) -> None:
        self._unwritten.clear()
        self.unwritten_bytes = 0
        self._has_room.set()


def _set_event() -> asyncio.Event:
    event = asyncio.Event()
    event.set()
    return event
