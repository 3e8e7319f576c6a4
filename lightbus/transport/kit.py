"""What transports share, so that none writes it again."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from typing import Any, Generic, Protocol, TypeVar, cast

from lightbus.log import get_logger
from lightbus.message import EventMessage
from lightbus.transport.contract import Delivery, DeliveryStream
from lightbus.transport.records import Subscription

_log = get_logger(__name__)


class SharedTask:
    """Runs `work` once, in a task of its own, and has every caller wait for its end.

    A caller that is cancelled does not cancel the task.
    """

    def __init__(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._work = work
        self._task: asyncio.Task[None] | None = None

    @property
    def has_started(self) -> bool:
        """Whether it was called."""
        return self._task is not None

    def start(self) -> asyncio.Task[None]:
        """Start the task, unless it was started before, and return it."""
        if self._task is None:
            self._task = asyncio.create_task(self._work())
        return self._task

    async def __call__(self) -> None:
        await asyncio.shield(self.start())


def backoff(*, first: float = 0.2, longest: float = 10.0) -> Iterator[float]:
    """Yield for ever how many seconds to wait before the next attempt.

    The delays double from `first` up to `longest`. Each is up to a half shorter, by chance, so that
    the clients of a restarted broker do not all return at the same time.
    """
    delay = first
    while True:
        yield random.uniform(delay / 2, delay)
        delay = min(delay * 2, longest)


def check_delay(subscription: Subscription, after: float, *, counts: bool = True) -> None:
    """Check the arguments of `Delivery.retry`.

    Raises:
        ValueError: `after` is not one of the subscription's delays, and is not 0 for an attempt
            that counts.
    """
    if after not in subscription.delays and not (after == 0 and counts):
        delays = ", ".join(f"{delay:g}" for delay in sorted(subscription.delays))
        raise ValueError(f"after is {after} s; give one of the subscription's delays ({delays})")


class SettleOnce(Delivery):
    """A delivery whose first settlement counts.

    Attributes:
        is_settled: Whether it was settled. The transport sets it.
    """

    is_settled = False

    def can_settle(self) -> bool:
        """Return whether the delivery is unsettled. Log a second settlement."""
        if self.is_settled:
            _log.debug("Delivery is settled already.", event_id=self.message.id)
        return not self.is_settled


class _Stream(Protocol):
    is_closed: bool

    async def aclose(self) -> None: ...


StreamT = TypeVar("StreamT", bound=_Stream)


class OpenStreams(Generic[StreamT]):
    """The streams of a transport. It forgets those that are closed."""

    def __init__(self) -> None:
        self._streams: list[StreamT] = []

    def __iter__(self) -> Iterator[StreamT]:
        return (stream for stream in self._streams if not stream.is_closed)

    def add(self, stream: StreamT) -> StreamT:
        """Add a stream, and return it."""
        self._streams = [*self, stream]
        return stream

    async def close(self) -> None:
        """Close all of them."""
        await asyncio.gather(*(stream.aclose() for stream in self._streams))


D = TypeVar("D", bound=Delivery)


class BufferedStream(DeliveryStream, Generic[D]):
    """A stream over a buffer that the transport feeds, and whose size it bounds."""

    def __init__(self) -> None:
        # None marks the end.
        self._buffer: asyncio.Queue[D | None] = asyncio.Queue()
        self._error: Exception | None = None
        self.is_ended = False

    def feed(self, delivery: D) -> None:
        """Add a delivery to the buffer."""
        self._buffer.put_nowait(delivery)

    def end(self, error: Exception | None = None) -> list[D]:
        """End the stream, with `error` for its tasks, and return what no task has received."""
        self.is_ended, self._error = True, self._error or error
        left = []
        while not self._buffer.empty():
            if (delivery := self._buffer.get_nowait()) is not None:
                left.append(delivery)
        self._buffer.put_nowait(None)
        return left

    async def __anext__(self) -> D:
        delivery = None if self.is_ended else await self._buffer.get()
        if delivery is not None:
            return delivery
        self._buffer.put_nowait(None)  # for the next task that waits
        if self._error is not None:
            raise self._error
        raise StopAsyncIteration


async def start_generator(
    events: AsyncGenerator[EventMessage | None],
) -> AsyncGenerator[EventMessage]:
    """Start `events`, which yields None first and events after that; return it without the None.

    A generator that never started would not run its clean-up when it is closed.

    Raises:
        Exception: What `events` raised before the None.
    """
    await anext(events)
    return cast("AsyncGenerator[EventMessage]", events)
