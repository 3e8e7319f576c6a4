"""`Worker`: runs the listeners and tasks of a bus until a stop is requested, or one fails."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from contextvars import ContextVar
from types import TracebackType
from typing import Any, Self

from lightbus.bus import Bus
from lightbus.exceptions import ApiError, HandlerExited, TransportClosed
from lightbus.handling.listener import Listener
from lightbus.handling.tasks import BackgroundTask, ScheduledTask, Task
from lightbus.handling.threads import HandlerThreads
from lightbus.transport.contract import DeliveryStream, EventTransport
from lightbus.transport.features import HealthCheck, supports
from lightbus.transport.kit import SharedTask
from lightbus.transport.loop_end import LoopEnd
from lightbus.transport.pool import asyncio_loop, running_loop
from lightbus.worker.dispatch import Dispatcher
from lightbus.worker.loop_watch import LoopWatch
from lightbus.worker.running_tasks import CLEAN_UP_TIMEOUT, RunningTasks

# The worker to which the running code belongs: its handler, task or hook
_serving: ContextVar[Worker | None] = ContextVar("serving", default=None)


class Worker:
    """Runs the listeners and the tasks of `bus` on the running event loop, once.

    `run` runs the worker until it stops. As an async context manager, a worker runs beside other
    code. Leaving the block stops the worker, and raises the error of a listener or task that
    failed. Listeners and tasks that are added while the worker runs are started too.

    Args:
        bus: The bus.
        serves_events: Whether to run the listeners.
        runs_tasks: Whether to run the scheduled and background tasks.

    Attributes:
        failure: The error that made the worker stop; None if there was none.
        has_served: Whether all listeners have been started.
    """

    def __init__(self, bus: Bus, *, serves_events: bool = True, runs_tasks: bool = True) -> None:
        self.serves_events = serves_events
        self.runs_tasks = runs_tasks
        self.failure: BaseException | None = None
        self.has_served = False
        self._client = bus.client
        self._threads = HandlerThreads()
        self._stop_requested = asyncio.Event()
        self._stop_now_requested = asyncio.Event()
        self._is_used = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._was_asked_to_stop = False
        self._is_serving = False
        self._starting: asyncio.Task[None] | None = None
        self._watching: asyncio.Task[None] | None = None
        self._stopping = SharedTask(self._stop)
        self._served: set[Listener | Task] = set()
        self._subscribed: dict[Listener, EventTransport] = {}
        self._streams: list[DeliveryStream] = []
        self._tasks = RunningTasks(self._fail)
        self._remove_callbacks: list[Callable[[], None]] = []
        self._loop_end: LoopEnd | None = None
        self._loop_watch: LoopWatch | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()
        if error is None and self.failure is not None:
            raise self.failure

    @property
    def unfinished(self) -> int:
        """The number of handlers, their hooks, and tasks that are running.

        After `stop`, it is the number of those that could not be stopped, including `on_start`
        hooks.
        """
        is_starting = self._starting is not None and not self._starting.done()
        return self._threads.running + len(self._tasks) + is_starting

    async def check_health(self, *, timeout: float = 2.0) -> list[str]:
        """Return why listeners cannot receive events, or the process cannot send them.

        Each reason is a sentence. If the worker is healthy, the list is empty.

        Args:
            timeout: The time limit for the answer of one broker, in seconds.
        """
        if not self._is_serving:
            return ["The worker is starting or stopping."]
        reasons = [
            f"Listener {listener.name!r} on {listener.api_name} has not started yet."
            for listener in self._client.listeners
            if listener not in self._subscribed and self.serves_events
        ]
        transports = set(self._subscribed.values())
        checks = [
            transport.check_health(timeout=timeout)
            for transport in transports
            if supports(transport, HealthCheck)
        ]
        for problems in await asyncio.gather(*checks):
            reasons += problems
        return reasons

    async def run(self, *, on_started: Callable[[], None] = lambda: None) -> None:
        """Start the worker, and run it until `request_stop` or a failure.

        Args:
            on_started: Called once all listeners have started.

        Raises:
            ApiError: The worker was started or stopped before, or a listener does not fit an API
                that was registered after it.
            TransportError: The broker could not be used.
            HandlerExited: A handler tried to exit the process, or cancelled its own task.
            HandlerTimeout: A handler that timed out could not be stopped.
            CallbackExited: A task tried to exit the process, or cancelled itself.
            Exception: A hook, handler or task raised it, and that stops the worker.
        """
        self._mark_as_used()
        starting = self._starting = asyncio.create_task(self._start())
        stopping = asyncio.create_task(self._stop_requested.wait())
        try:
            await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if starting.done():
                starting.result()
                on_started()
                await stopping
        finally:
            stopping.cancel()
            await asyncio.wait({stopping})
            await self.stop()
        if self.failure is not None:
            raise self.failure

    def request_stop(self) -> None:
        """Request the worker to stop: it finishes running handlers, and requeues other events.

        A second request stops the worker at once. This method does not wait, and may be called on
        any thread. After a call on the worker's loop, no other handler starts.
        """
        if self._loop is None or self._loop is running_loop():
            self._record_stop_request()
        else:
            self._call_soon(self._record_stop_request)

    def _call_soon(self, function: Callable[..., None], *args: Any) -> None:
        """Call a function on the worker's loop, unless the loop is closed."""
        assert self._loop is not None  # noqa: S101 - for the type checker
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(function, *args)

    def _record_stop_request(self) -> None:
        if self._was_asked_to_stop:
            self._stop_now_requested.set()
        self._was_asked_to_stop = True
        self._stop_requested.set()

    async def start(self) -> None:
        """Call the `on_start` hooks, and start the listeners and tasks.

        From then on, the worker stops by itself when a listener or task fails. If the worker cannot
        start, it is stopped.

        Raises:
            ApiError: The worker was started or stopped before, or a listener does not fit an API
                that was registered after it.
            TransportError: The broker could not be used.
            Exception: An `on_start` hook raised it.
        """
        self._mark_as_used()
        self._starting = asyncio.create_task(self._start())
        try:
            await self._starting
        except asyncio.CancelledError:
            await self.stop()
            current = asyncio.current_task()
            if current is not None and current.cancelling():
                raise
            return  # the worker was stopped meanwhile
        except BaseException:
            await self.stop()
            raise
        self._watching = asyncio.create_task(self._stop_when_requested())

    def _mark_as_used(self) -> None:
        if self._is_used:
            raise ApiError("A worker runs only once. Make another: lightbus.Worker(bus).")
        self._loop = asyncio_loop("A worker")
        self._is_used = True

    async def _stop_when_requested(self) -> None:
        await self._stop_requested.wait()
        self._stopping.start()

    async def _start(self) -> None:
        _serving.set(self)
        self._loop_end = LoopEnd(self._release)
        self._loop_watch = LoopWatch()
        self._remove_callbacks = [
            self._client.listeners.on_added(
                lambda listener: self._call_soon(self._serve_soon, listener)
            ),
            self._client.tasks.on_added(lambda task: self._call_soon(self._run_soon, task)),
        ]
        await self._client.on_start.run()
        self._is_serving = True
        for listener in self._client.listeners:
            await self._serve(listener)
        for task in self._client.tasks:
            self._run_task(task)
        self.has_served = True

    # Ignored before the worker serves: `_start` itself starts what `on_start` hooks add.

    def _serve_soon(self, listener: Listener) -> None:
        if self._is_serving:
            self._create_task(self._serve(listener))

    def _run_soon(self, task: Task) -> None:
        if self._is_serving:
            self._run_task(task)

    def _run_task(self, task: Task) -> None:
        if not self.runs_tasks or task in self._served:
            return
        # A coroutine can be awaited only once, by the first worker that runs tasks.
        is_coroutine = isinstance(task, BackgroundTask) and task.coroutine is not None
        if is_coroutine and not self._client.tasks.claim(task):
            return
        if isinstance(task, ScheduledTask):
            self._served.add(task)
            self._create_task(
                task.run(self._threads, self._stop_requested), name=f"Task {task.name!r}"
            )
            return
        if task.coroutine is None:
            self._served.add(task)
        self._create_task(task.run(), name=f"Task {task.name!r}", is_background=True)

    async def _serve(self, listener: Listener) -> None:
        if not self.serves_events or listener in self._served:
            return
        self._served.add(listener)
        dispatcher = Dispatcher(
            listener, client=self._client, threads=self._threads, on_failure=self._fail
        )
        transport = await self._client.transports.open(listener.api_name)
        service_name = self._client.config.service_name
        stream = await transport.subscribe(listener.subscription(service_name))
        self._subscribed[listener] = transport
        self._streams.append(stream)
        for _ in range(listener.concurrency):
            self._create_task(
                self._dispatch(dispatcher, stream, listener),
                name=f"Listener {listener.name!r} on {listener.api_name}",
            )

    async def _dispatch(
        self, dispatcher: Dispatcher, stream: DeliveryStream, listener: Listener
    ) -> None:
        """Run `dispatcher` until the worker stops. If it ends earlier, that is a failure."""
        try:
            await dispatcher.run(stream, self._stop_requested)
        except asyncio.CancelledError as error:
            if self._stopping.has_started:
                raise
            raise HandlerExited(listener.name, error) from error
        if not self._stop_requested.is_set():
            raise TransportClosed(
                f"Listener {listener.name!r} stopped, because its transport was closed."
            )

    def _create_task(
        self,
        work: Coroutine[Any, Any, None],
        *,
        name: str | None = None,
        is_background: bool = False,
    ) -> None:
        async def run() -> None:
            _serving.set(self)
            await work

        self._tasks.create(run(), name=name, is_background=is_background)

    def _fail(self, error: BaseException) -> None:
        self.failure = self.failure or error
        self._stop_requested.set()

    async def stop(self) -> None:
        """Stop the worker. Stopping again does nothing.

        The worker receives no more events, waits up to `shutdown_timeout` seconds for running
        handlers, requeues other events, and calls the `on_stop` hooks. In a handler, task or hook
        of this worker, this method returns at once, because the worker waits for them.

        Raises:
            Exception: An `on_stop` hook raised it.
        """
        self._is_used = True
        self._stop_requested.set()
        if _serving.get() is self:
            self._stopping.start()
        else:
            await self._stopping()

    async def _stop(self) -> None:
        _serving.set(self)
        if self._starting is not None:
            self._starting.cancel()
            await asyncio.wait({self._starting}, timeout=CLEAN_UP_TIMEOUT)
        was_serving, self._is_serving = self._is_serving, False
        self._ignore_additions()
        self._tasks.cancel_background()
        await asyncio.gather(*(stream.stop() for stream in self._streams))
        await self._tasks.drain(
            timeout=self._client.config.shutdown_timeout, stop_now=self._stop_now_requested
        )
        await asyncio.gather(*(stream.aclose() for stream in self._streams))
        self._release_threads()
        if self._loop_end is not None:
            self._loop_end.cancel()
        if was_serving:
            await self._client.on_stop.run()

    async def _release(self) -> None:
        """Release threads and callbacks if the event loop ends before the worker is stopped."""
        self._ignore_additions()
        self._release_threads()

    def _release_threads(self) -> None:
        self._threads.shut_down()
        if self._loop_watch is not None:
            self._loop_watch.close()

    def _ignore_additions(self) -> None:
        remove_callbacks, self._remove_callbacks = self._remove_callbacks, []
        for remove_callback in remove_callbacks:
            remove_callback()
