"""`TransportPool`: the transports of each event loop, thread and process.

Each event loop has its own transports, which are closed when the loop ends. Blocking calls share
one loop in a background thread. A forked child starts without transports, and never uses those of
its parent.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import sys
import weakref
from collections.abc import Awaitable, Callable, Collection, Coroutine
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, TypeVar

from lightbus.concurrency import green
from lightbus.concurrency.background import BackgroundLoop, NotStarted, run_apart_from_greenlets
from lightbus.concurrency.busy_threads import may_wait
from lightbus.exceptions import ApiError, CannotBlockHere, TransportClosed, TransportUnavailable
from lightbus.transport.contract import EventTransport
from lightbus.transport.loop_end import LoopEnd
from lightbus.transport.records import Subscription

T = TypeVar("T")

_CLOSE_TIMEOUT = 5.0

# A child shares sockets and pollers with its parent. To close its copies would disturb the parent,
# so the child keeps references to them, and never uses them.
_inherited: list[object] = []


def new_event_loop() -> asyncio.AbstractEventLoop:
    """Return a new event loop, from uvloop if that is installed, because it is faster."""
    if green.is_gevent():
        # gevent replaces the selector of Python's loop, so that other greenlets of the thread run.
        return asyncio.new_event_loop()
    try:
        import uvloop  # noqa: PLC0415 - it is optional, and slow to import
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


def running_loop() -> asyncio.AbstractEventLoop | None:
    """Return the event loop that runs on this thread; None if there is none."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def asyncio_loop(call: str) -> asyncio.AbstractEventLoop:
    """Return the event loop that runs on this thread. `call` names the caller in the error.

    Raises:
        ApiError: No event loop runs on this thread.
    """
    try:
        return asyncio.get_running_loop()
    except RuntimeError as error:
        raise ApiError(
            f"{call} needs a running asyncio event loop, and this thread has none. Under another "
            "framework, call the blocking fire() in a thread, for example with "
            "`await trio.to_thread.run_sync(...)`, and run listeners with `lightbus run`."
        ) from error


class OpenTransport:
    """A transport on one event loop, opened on first use, and its declared subscriptions."""

    def __init__(self, transport: EventTransport) -> None:
        self.transport = transport
        self.declared: set[Subscription] = set()
        self._is_open = False
        self._opening = asyncio.Lock()

    def is_ready_for(self, subscriptions: Collection[Subscription]) -> bool:
        """Return whether the transport is open, and has declared all of `subscriptions`."""
        return self._is_open and self.declared.issuperset(subscriptions)

    async def opened(self, *, timeout: float) -> EventTransport:
        """Open the transport if necessary, and return it.

        Raises:
            TransportError: The transport could not be opened within `timeout` seconds.
        """
        if not self._is_open:
            now = asyncio.get_running_loop().time
            deadline = now() + timeout
            try:
                async with asyncio.timeout(timeout):
                    await self._opening.acquire()
            except TimeoutError as error:
                raise TransportUnavailable(
                    f"Another call did not open the transport within {timeout:.3g} s."
                ) from error
            try:
                if not self._is_open:
                    await self.transport.open(timeout=deadline - now())
                    self._is_open = True
            finally:
                self._opening.release()
        return self.transport

    async def declare(self, subscription: Subscription, *, timeout: float) -> None:
        """Declare `subscription`, unless it was declared before.

        Raises:
            TransportError: It could not be declared within `timeout` seconds.
        """
        if subscription not in self.declared:
            await self.transport.declare(subscription, timeout=timeout)
            self.declared.add(subscription)


class TransportPool:
    """The open transports of a bus, by event loop.

    Args:
        make_transport: Returns a new transport for the API of a name.
        key_of: Returns the key of an API's transport. APIs with the same key share a transport.
    """

    def __init__(
        self, make_transport: Callable[[str], EventTransport], key_of: Callable[[str], str]
    ) -> None:
        self._make_transport = make_transport
        self._key_of = key_of
        self._reset()
        _all_pools.add(self)

    def _reset(self) -> None:
        self._by_loop: dict[asyncio.AbstractEventLoop, dict[str, OpenTransport]] = {}
        self._ends: dict[asyncio.AbstractEventLoop, LoopEnd] = {}
        # Holds the background loop under one key, because a dict has atomic operations. A lock
        # could be held by the very code that a signal handler has interrupted.
        self._background: dict[None, BackgroundLoop] = {}
        self._background_loops: set[asyncio.AbstractEventLoop] = set()
        # A signal handler or a destructor that interrupts its owner gets it too.
        self._start_lock: AbstractContextManager[Any] = green.original("_thread", "RLock")()

    def forget_inherited(self) -> None:
        """Forget the transports of the parent process, in a forked child."""
        _inherited.append((self._by_loop, self._ends, self._background, self._background_loops))
        self._reset()

    def transport(self, api_name: str) -> OpenTransport:
        """Return the transport of an API on the running loop.

        Raises:
            ApiError: No event loop runs on this thread.
        """
        loop = asyncio_loop("fire_async()")
        transports = self._by_loop.get(loop)
        if transports is None:
            transports = self._add_loop(loop)
        key = self._key_of(api_name)
        found = transports.get(key)
        if found is None:
            found = transports[key] = OpenTransport(self._make_transport(api_name))
        return found

    def _add_loop(self, loop: asyncio.AbstractEventLoop) -> dict[str, OpenTransport]:
        green.refuse_eventlet()
        for known in list(self._by_loop):
            if known.is_closed():  # without closing its transports
                self._forget(known)
        self._ends[loop] = LoopEnd(self._close_this_loop)
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
            CannotBlockHere: An event loop runs on this thread, or the bus itself works on it.
            TransportClosed: The bus was closed during the call, or the interpreter is ending.
        """
        _check_may_block(blocking, instead)
        while True:
            with contextlib.suppress(NotStarted):  # it was closed meanwhile, so start another
                return self._background_loop().call(partial(function, *args))

    async def close(self) -> None:
        """Close all transports of all event loops. The next use opens new ones.

        Raises:
            ApiError: No event loop runs on this thread.
        """
        asyncio_loop("close_async()")
        background = self._background.pop(None, None)
        others = [loop for loop in list(self._by_loop) if loop not in self._background_loops]
        closing: list[Awaitable[None]] = [self._close_on(loop) for loop in others]
        if background is not None:
            background.request_stop()
            closing.append(asyncio.wrap_future(background.ended))
        # If the broker does not answer, it notices by the closed socket that the client is gone.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_TIMEOUT + 1):
                await asyncio.gather(*closing)

    def close_blocking(self) -> None:
        """Do the same as `close`, on a thread without an event loop.

        Raises:
            CannotBlockHere: An event loop runs on this thread, or the bus itself works on it.
        """
        _check_may_block("close()", "`await bus.client.close_async()`")
        run_apart_from_greenlets(lambda: asyncio.run(self.close()))

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
        if (end := self._ends.pop(loop, None)) is not None:
            end.cancel()
        return list(self._by_loop.pop(loop, {}).values())

    def _background_loop(self) -> BackgroundLoop:
        found = self._background.get(None)
        if found is not None:
            return found
        with self._start_lock:
            if (found := self._background.get(None)) is not None:
                return found
            started = self._start_background()
            found = self._background.setdefault(None, started)
            if found is not started:
                # A signal handler interrupted this thread, and has started another loop.
                started.request_stop()
            return found

    def _start_background(self) -> BackgroundLoop:
        def ended(loop: asyncio.AbstractEventLoop) -> None:
            self._forget(loop)
            self._background_loops.discard(loop)
            background = self._background.get(None)
            if background is not None and background.loop is loop:
                # Code that runs on the loop has stopped it.
                self._background.pop(None)

        started = BackgroundLoop(new_event_loop, before_end=self._close_this_loop, on_ended=ended)
        self._background_loops.add(started.loop)
        return started


def _check_may_block(blocking: str, instead: str) -> None:
    if sys.is_finalizing():  # no thread but this one runs any more
        raise TransportClosed(f"{blocking} did nothing, because the interpreter is shutting down.")
    green.refuse_eventlet()
    if running_loop() is not None:
        raise CannotBlockHere(
            blocking, f"would block the event loop that runs on this thread. Use {instead}."
        )
    if green.is_gevent_hub():
        raise CannotBlockHere(
            blocking, "would block the hub of gevent, which called it. Use gevent.spawn()."
        )
    if not may_wait():
        raise CannotBlockHere(
            blocking,
            "would wait forever, because a destructor, a weakref callback or a signal handler "
            "called it while the bus itself runs on this thread. Call it on another thread.",
        )


_all_pools: weakref.WeakSet[TransportPool] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for pool in list(_all_pools):
        pool.forget_inherited()


def _at_exit() -> None:
    for pool in list(_all_pools):
        pool.close_blocking()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
atexit.register(_at_exit)
