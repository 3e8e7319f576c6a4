"""Which connections belong to which event loop, thread and process.

Each event loop has transports of its own. Blocking calls share one loop in a background thread. A
forked child starts with none, and leaves its parent's alone.
"""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import contextlib
import os
import threading
import weakref
from collections.abc import Callable, Collection, Coroutine
from typing import Any, TypeVar

from lightbus.exceptions import CannotBlockHere, TransportClosed, TransportUnavailable
from lightbus.transport import EventTransport, Subscription

T = TypeVar("T")

_CLOSE_TIMEOUT = 5.0

# Closing what a parent process opened would reach through the shared sockets and pollers into the
# parent itself. So a child keeps these alive, and untouched, for as long as it lives.
_inherited: list[object] = []


def new_event_loop() -> asyncio.AbstractEventLoop:
    """Return a new event loop: one of uvloop's where that is installed, for it is faster."""
    try:
        import uvloop  # noqa: PLC0415 - it is optional, and takes its time
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


def running_loop() -> asyncio.AbstractEventLoop | None:
    """Return the event loop that runs on this thread; None where none does."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


class OpenTransport:
    """One transport on one loop, opened on first use, and what was declared through it."""

    def __init__(self, transport: EventTransport) -> None:
        self.transport = transport
        self.declared: set[Subscription] = set()
        self._is_open = False
        self._opening = asyncio.Lock()

    def is_ready_for(self, subscriptions: Collection[Subscription]) -> bool:
        """Return whether it is open, and these were declared through it."""
        return self._is_open and self.declared.issuperset(subscriptions)

    async def opened(self, *, timeout: float) -> EventTransport:
        """Return the transport once it is open.

        Raises:
            TransportError: It can not be opened in `timeout` seconds.
        """
        if not self._is_open:
            now = asyncio.get_running_loop().time
            deadline = now() + timeout
            try:
                async with asyncio.timeout(timeout):
                    await self._opening.acquire()
            except TimeoutError as error:
                raise TransportUnavailable(
                    f"The transport was not opened by another call within {timeout:.3g} s."
                ) from error
            try:
                if not self._is_open:
                    await self.transport.open(timeout=deadline - now())
                    self._is_open = True
            finally:
                self._opening.release()
        return self.transport

    async def declare(self, subscription: Subscription, *, timeout: float) -> None:
        """Declare `subscription` through this transport once.

        Raises:
            TransportError: It can not be declared in `timeout` seconds.
        """
        if subscription not in self.declared:
            await self.transport.declare(subscription, timeout=timeout)
            self.declared.add(subscription)


class Loops:
    """The open transports of a bus, by event loop.

    Args:
        make_transport: Makes the transport of an API, given the API's name.
        key_of: Names the transport of an API; APIs of one key share a transport.
    """

    def __init__(
        self, make_transport: Callable[[str], EventTransport], key_of: Callable[[str], str]
    ) -> None:
        self._make_transport = make_transport
        self._key_of = key_of
        self._start_afresh()
        _all_loops.add(self)

    def _start_afresh(self) -> None:
        self._by_loop: dict[asyncio.AbstractEventLoop, dict[str, OpenTransport]] = {}
        self._background: _BackgroundLoop | None = None
        self._background_loops: set[asyncio.AbstractEventLoop] = set()
        self._lock = threading.Lock()

    def forget_inherited(self) -> None:
        """Start with no connections, in a forked child."""
        _inherited.append((self._by_loop, self._background, self._background_loops, self._lock))
        self._start_afresh()

    def transport(self, api_name: str) -> OpenTransport:
        """Return the transport of an API on the running loop."""
        loop = asyncio.get_running_loop()
        transports = self._by_loop.get(loop)
        if transports is None:
            transports = self._add_loop(loop)
        key = self._key_of(api_name)
        found = transports.get(key)
        if found is None:
            found = transports[key] = OpenTransport(self._make_transport(api_name))
        return found

    def _add_loop(self, loop: asyncio.AbstractEventLoop) -> dict[str, OpenTransport]:
        with self._lock:
            for known in [known for known in self._by_loop if known.is_closed()]:
                del self._by_loop[known]
            return self._by_loop.setdefault(loop, {})

    def call_blocking(
        self,
        function: Callable[..., Coroutine[Any, Any, T]],
        *args: Any,
        blocking: str,
        instead: str,
    ) -> T:
        """Run `function` on the background loop and wait for its result.

        Raises:
            CannotBlockHere: An event loop runs on this thread.
        """
        if running_loop() is not None:
            raise CannotBlockHere(blocking, instead)
        # Within the lock, so that what is begun on the background loop is begun before it stops.
        with self._lock:
            if self._background is None:
                self._background = self._begin_background()
            under_way = self._background.begin(function(*args))
        return _result(under_way)

    async def close(self) -> None:
        """Close every transport of every loop. The next use opens new ones."""
        with self._lock:
            background, self._background = self._background, None
            others = [loop for loop in self._by_loop if loop not in self._background_loops]
        closing = [self._close_on(loop) for loop in others]
        if background is not None:
            closing.append(background.stop())
        # A broker that does not answer notices by the closed socket that its client is gone.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_TIMEOUT + 1):
                await asyncio.gather(*closing)

    def close_blocking(self) -> None:
        """Do what `close` does, on a thread without an event loop.

        Raises:
            CannotBlockHere: An event loop runs on this thread.
        """
        if running_loop() is not None:
            raise CannotBlockHere("close()", "`await bus.client.close_async()`")
        asyncio.run(self.close())

    async def _close_on(self, loop: asyncio.AbstractEventLoop) -> None:
        if loop is asyncio.get_running_loop():
            await self._close_this_loop()
        elif loop.is_running():
            closing = asyncio.run_coroutine_threadsafe(self._close_this_loop(), loop)
            await asyncio.wrap_future(closing)

    async def _close_this_loop(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_TIMEOUT):
                opened = self._forget(asyncio.get_running_loop())
                await asyncio.gather(*(one.transport.close() for one in opened))

    def _forget(self, loop: asyncio.AbstractEventLoop) -> list[OpenTransport]:
        with self._lock:
            return list(self._by_loop.pop(loop, {}).values())

    def _begin_background(self) -> _BackgroundLoop:
        def ended() -> None:
            self._forget(loop)
            self._background_loops.discard(loop)

        loop = new_event_loop()
        self._background_loops.add(loop)
        return _BackgroundLoop(loop, before_end=self._close_this_loop, on_ended=ended)


class _BackgroundLoop:
    """An event loop in a daemon thread.

    Args:
        loop: A new loop.
        before_end: Awaited on the loop when it is stopped.
        on_ended: Called once the loop is closed.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        before_end: Callable[[], Coroutine[Any, Any, None]],
        on_ended: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._before_end = before_end
        self._on_ended = on_ended
        self._stopping = asyncio.Event()
        self._ended: concurrent.futures.Future[None] = concurrent.futures.Future()
        # One who gives up waiting for the end must not cancel it for the others.
        self._ended.set_running_or_notify_cancel()
        threading.Thread(target=self._run, name="lightbus", daemon=True).start()

    def begin(self, coroutine: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
        """Run `coroutine` on the loop. What was begun when it stops is cancelled."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    async def stop(self) -> None:
        """Have the loop end, and wait for that."""
        self._loop.call_soon_threadsafe(self._stopping.set)
        await asyncio.wrap_future(self._ended)

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
                runner.run(self._until_stopped())
        finally:
            self._on_ended()
            self._ended.set_result(None)

    async def _until_stopped(self) -> None:
        await self._stopping.wait()
        await self._before_end()


def _result(under_way: concurrent.futures.Future[T]) -> T:
    try:
        return under_way.result()
    except concurrent.futures.CancelledError as error:
        raise TransportClosed(
            "The bus was closed while this call was under way; its outcome is unknown."
        ) from error
    except BaseException:
        # The waiting thread was interrupted, as by Ctrl-C; nobody wants the result any more.
        under_way.cancel()
        raise


_all_loops: weakref.WeakSet[Loops] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for loops in list(_all_loops):
        loops.forget_inherited()


def _at_exit() -> None:
    for loops in list(_all_loops):
        loops.close_blocking()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
atexit.register(_at_exit)
