"""Waits that end when the connection that they are for is lost, and waits between tries."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Coroutine, Iterator
from typing import Any, TypeVar

import aiormq.abc

from lightbus_rabbitmq.driver.errors import ConnectionLost, reason, translated

T = TypeVar("T")

_LONGEST_WAIT = 10.0

# What is lost sooner than this, in seconds, is not tried again without a pause.
_SHORTEST_LIFE = 1.0

_abandoned: set[asyncio.Task[Any]] = set()


async def unless_lost(connection: aiormq.abc.AbstractConnection, work: Coroutine[Any, Any, T]) -> T:
    """Return what `work` on `connection` returns.

    The driver can leave one waiting for the answer of a broker that is gone.

    Raises:
        ConnectionLost: The connection was closed before `work` was done.
        Exception: What `work` raised.
    """
    working, closing = asyncio.create_task(work), connection.closing
    try:
        await asyncio.wait({working, closing}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        closing.cancel()  # else the connection keeps this observer of it for as long as it lives
        if not working.done():
            working.cancel()
            abandon(working)
    if not working.done():
        raise ConnectionLost(_why_closed(closing))
    return working.result()


def _why_closed(closing: asyncio.Future[Any]) -> str:
    cause = None if closing.cancelled() or not closing.done() else closing.exception()
    return reason(cause) if cause is not None else "the connection was closed"


async def close_quietly(channel: aiormq.abc.AbstractChannel, timeout: float) -> None:
    """Close a channel; where the broker is away, it notices by itself that the channel is gone."""
    await quietly(channel, channel.close(), doing="to close a channel", timeout=timeout)


async def quietly(
    channel: aiormq.abc.AbstractChannel,
    work: Coroutine[Any, Any, Any],
    *,
    doing: str,
    timeout: float,
) -> None:
    """Do `work` on a channel, which matters to no one where the broker refuses it or is away."""
    try:
        async with asyncio.timeout(timeout):
            await unless_lost(channel.connection, work)
    except (TimeoutError, ConnectionLost):
        pass
    except (Exception, asyncio.CancelledError) as error:
        if translated(error, doing) is None:
            raise


def abandon(task: asyncio.Task[Any]) -> None:
    """Hold on to a task for which nobody waits, until it ends."""
    _abandoned.add(task)
    task.add_done_callback(_forget)


def _forget(abandoned: asyncio.Task[Any]) -> None:
    _abandoned.discard(abandoned)
    if not abandoned.cancelled():
        abandoned.exception()  # reading it is what keeps it from being reported as unread


def growing_waits() -> Iterator[float]:
    """Yield, for ever, how many seconds to wait before each next try."""
    # Jittered, so that a fleet does not come back to a restarted broker in one instant.
    longest = 0.2
    while True:
        yield random.uniform(longest / 2, longest)
        longest = min(longest * 2, _LONGEST_WAIT)


class Backoff:
    """The delays between attempts to get a resource, such as a connection.

    They grow with each failure, and also if the resource is lost again at once. They start again
    when it has lasted for longer than the last delay.
    """

    def __init__(self) -> None:
        self._waits = growing_waits()
        self._last_wait = 0.0
        self._got_at: float | None = None

    def note_success(self) -> None:
        """Note that the resource was just acquired."""
        self._got_at = time.monotonic()

    def after_failure(self) -> float:
        """Return how many seconds to wait after a failed attempt."""
        self._last_wait = next(self._waits)
        return self._last_wait

    def after_loss(self) -> float:
        """Return how many seconds to wait after the resource was lost; 0 if it had lasted."""
        got_at, self._got_at = self._got_at, None
        if got_at is None:
            return 0.0
        if time.monotonic() - got_at < max(_SHORTEST_LIFE, 2 * self._last_wait):
            return self.after_failure()
        self._waits, self._last_wait = growing_waits(), 0.0
        return 0.0
