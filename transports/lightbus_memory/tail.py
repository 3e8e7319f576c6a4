"""`TailedEvents`: the latest events of an API, for a reader that shows events live."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque

from lightbus.message import EventMessage

# How many events are held for a slow reader; older ones are dropped.
_MAX_EVENTS = 1000


class TailedEvents:
    """A bounded buffer of events. Its reader is on the event loop that creates it."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._events: deque[EventMessage] = deque(maxlen=_MAX_EVENTS)
        self._wake = asyncio.Event()
        self._is_wake_scheduled = False
        self.is_closed = False

    def append(self, message: EventMessage) -> None:
        """Add an event. Any thread may call this."""
        self._events.append(message)
        # Scheduled once until the loop runs it, so that a busy loop does not collect callbacks.
        if not self._is_wake_scheduled:
            self._is_wake_scheduled = True
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._wake.set)

    def close(self) -> None:
        """Wake the reader, which receives None after the events that are left."""
        self.is_closed = True
        self._wake.set()

    async def next(self) -> EventMessage | None:
        """Wait for the next event; return None if the buffer is closed and empty."""
        while not self._events and not self.is_closed:
            self._wake.clear()
            self._is_wake_scheduled = False
            if not self._events:  # none was added in between
                await self._wake.wait()
        return self._events.popleft() if self._events else None
