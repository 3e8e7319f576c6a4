"""`Worker`: runs the listeners and tasks of a bus until it is asked to stop, or one fails."""

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
from lightbus.log import get_logger
from lightbus.transport.contract import DeliveryStream, EventTransport
from lightbus.transport.features import HealthCheck, supports
from lightbus.transport.kit import SharedTask
from lightbus.transport.loop_end import LoopEnd
from lightbus.transport.pool import asyncio_loop, running_loop
from lightbus.worker.dispatch import Dispatcher
from lightbus.worker.loop_watch import LoopWatch

_log = get_logger(__name__)

# For ending cancelled handlers, and for giving their events back, once no more time is granted to
# them, in seconds.
CANCEL_TIMEOUT = 1.0
CLEAN_UP_TIMEOUT = 5.0

# The worker that the running code is a part of: a handler, a task or a hook of it.
_serving: ContextVar[Worker | None] = ContextVar("serving", default=None)


class Worker:
    """Runs the listeners and the tasks of `bus` on the running event loop, once.

    `run` does the whole. As an async context manager, a worker runs beside other code; leaving the
    block stops it, and raises what a listener or a task failed with. Those that are added while it
    runs are served too.

    Args:
        bus: Whose listeners and tasks these are.
        serves_events: Whether its listeners take events.
        runs_tasks: Whether its scheduled and background tasks run.

    Attributes:
        failure: What made the worker stop; None while all is well.
        has_served: Whether the worker came so far that every listener takes events.
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
        self._tasks: set[asyncio.Task[None]] = set()
        self._background: set[asyncio.Task[None]] = set()
        self._end_notices: list[Callable[[], None]] = []
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
        """How many handlers, hooks around them and tasks run; after `stop`, how many of them, and
        of the `on_start` hooks, could not be ended.
        """
        is_starting = self._starting is not None and not self._starting.done()
        return self._threads.running + len(self._tasks) + is_starting

    async def check_health(self, *, timeout: float = 2.0) -> list[str]:
        """Say what keeps this worker's listeners from taking events, or its process from sending
        them, just now: a sentence each, and none where all is well.

        Args:
            timeout: How long one broker may take to answer, in seconds.
        """
        if not self._is_serving:
            return ["The worker does not serve: it is starting, or stopping."]
        found = [
            f"Listener {listener.name!r} on {listener.api_name} is not started yet."
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
            found += problems
        return found

    async def run(self, *, on_started: Callable[[], None] = lambda: None) -> None:
        """Start, serve until `request_stop` or a failure, and stop.

        Args:
            on_started: Called once every listener takes events.

        Raises:
            ApiError: The worker was started or stopped before, or a listener does not fit an API
                that was registered after it.
            TransportError: The broker could not be used.
            HandlerExited: A handler tried to end the process, or cancelled its own task.
            HandlerTimeout: A handler that timed out could not be stopped.
            CallbackExited: A task tried to end the process, or cancelled itself.
            Exception: What a hook, a handler or a task raised, where that ends the worker.
        """
        self._claim()
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
        """Ask the worker to stop: finish running handlers, requeue the other events. Called again,
        stop at once.

        It does not wait, and may be called on any thread. From a handler or a signal handler on the
        worker's loop, it has no other handler begin.
        """
        if self._loop is None or self._loop is running_loop():
            self._note_request()
        else:
            self._call_soon(self._note_request)

    def _call_soon(self, function: Callable[..., None], *args: Any) -> None:
        """Call it on the worker's loop. Where that is closed, there is nobody to tell."""
        assert self._loop is not None  # noqa: S101 - for the type checker
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(function, *args)

    def _note_request(self) -> None:
        if self._was_asked_to_stop:
            self._stop_now_requested.set()
        self._was_asked_to_stop = True
        self._stop_requested.set()

    async def start(self) -> None:
        """Call the `on_start` hooks, then serve the listeners; return once they all take events.

        From then on the worker stops by itself when a listener fails. Where it cannot start, it is
        stopped too.

        Raises:
            ApiError: The worker was started or stopped before, or a listener does not fit an API
                that was registered after it.
            TransportError: The broker could not be used.
            Exception: What an `on_start` hook raised.
        """
        self._claim()
        self._starting = asyncio.create_task(self._start())
        try:
            await self._starting
        except asyncio.CancelledError:
            await self.stop()
            current = asyncio.current_task()
            if current is not None and current.cancelling():
                raise
            return  # it was stopped meanwhile
        except BaseException:
            await self.stop()
            raise
        self._watching = asyncio.create_task(self._stop_when_requested())

    def _claim(self) -> None:
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
        self._end_notices = [
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

    # What on_start hooks add, start() serves, and raises the errors of.

    def _serve_soon(self, listener: Listener) -> None:
        if self._is_serving:
            self._own(self._serve(listener))

    def _run_soon(self, task: Task) -> None:
        if self._is_serving:
            self._run_task(task)

    def _run_task(self, task: Task) -> None:
        if not self.runs_tasks or task in self._served:
            return
        # A coroutine can be awaited once, by the first worker that runs tasks.
        is_coroutine = isinstance(task, BackgroundTask) and task.coroutine is not None
        if is_coroutine and not self._client.tasks.claim(task):
            return
        if isinstance(task, ScheduledTask):
            self._served.add(task)
            self._own(task.run(self._threads, self._stop_requested), name=f"Task {task.name!r}")
            return
        if task.coroutine is None:
            self._served.add(task)
        running = self._own(task.run(), name=f"Task {task.name!r}")
        self._background.add(running)
        running.add_done_callback(self._background.discard)

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
            self._own(
                self._dispatch(dispatcher, stream, listener),
                name=f"Listener {listener.name!r} on {listener.api_name}",
            )

    async def _dispatch(
        self, dispatcher: Dispatcher, stream: DeliveryStream, listener: Listener
    ) -> None:
        """Have `dispatcher` run until the worker stops; that it ends before is a failure."""
        try:
            await dispatcher.run(stream, self._stop_requested)
        except asyncio.CancelledError as error:
            if self._stopping.has_started:
                raise
            raise HandlerExited(listener.name, error) from error
        if not self._stop_requested.is_set():
            raise TransportClosed(
                f"Listener {listener.name!r} takes no more events: its transport was closed."
            )

    def _own(
        self, work: Coroutine[Any, Any, None], *, name: str | None = None
    ) -> asyncio.Task[None]:
        async def guarded() -> None:
            _serving.set(self)
            try:
                await work
            except Exception as error:
                self._fail(error)

        task = asyncio.create_task(guarded(), name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _fail(self, error: BaseException) -> None:
        self.failure = self.failure or error
        self._stop_requested.set()

    async def stop(self) -> None:
        """Take no more events, let running handlers finish for `shutdown_timeout` seconds, give
        back the rest, and call the `on_stop` hooks. Stopping again does nothing.

        Handlers, tasks and hooks of this worker are what is waited for, so that to them, and to
        what they await, it returns at once.

        Raises:
            Exception: What an `on_stop` hook raised.
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
        for task in list(self._background):
            task.cancel()
        await asyncio.gather(*(stream.stop() for stream in self._streams))
        await self._drain()
        await asyncio.gather(*(stream.aclose() for stream in self._streams))
        self._release_threads()
        if self._loop_end is not None:
            self._loop_end.cancel()
        if was_serving:
            await self._client.on_stop.run()

    async def _release(self) -> None:
        """Release what would outlive an event loop that ends before the worker was stopped."""
        self._ignore_additions()
        self._release_threads()

    def _release_threads(self) -> None:
        self._threads.shut_down()
        if self._loop_watch is not None:
            self._loop_watch.close()

    def _ignore_additions(self) -> None:
        end_notices, self._end_notices = self._end_notices, []
        for end_notice in end_notices:
            end_notice()

    async def _drain(self) -> None:
        tasks = set(self._tasks)
        if not tasks:
            return
        hurried = asyncio.create_task(self._stop_now_requested.wait())
        finished = asyncio.create_task(asyncio.wait(tasks))
        await asyncio.wait(
            {hurried, finished},
            timeout=self._client.config.shutdown_timeout,
            return_when=asyncio.FIRST_COMPLETED,
        )
        hurried.cancel()
        finished.cancel()
        unfinished = {task for task in tasks if not task.done()}
        if unfinished:
            _log.warning("Handlers or tasks did not finish in time. Their events are requeued.")
            # Cancelled once, a handler may clean up. Cancelled again, a thread is left to itself.
            for timeout in (CANCEL_TIMEOUT, CLEAN_UP_TIMEOUT):
                for task in unfinished:
                    task.cancel()
                await asyncio.wait(unfinished, timeout=timeout)
