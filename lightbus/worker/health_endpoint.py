"""`HealthEndpoint`: reports over HTTP whether a worker is alive and ready."""

from __future__ import annotations

import asyncio
import concurrent.futures
import json
import threading
from collections.abc import Callable, Coroutine
from http import HTTPStatus
from typing import Any, Generic, TypeVar

from lightbus.client import BusClient
from lightbus.exceptions import ConfigError
from lightbus.handling.middleware import MetricsSource
from lightbus.log import get_logger
from lightbus.worker.http_server import Answer, HTTPServer
from lightbus.worker.worker import Worker

_log = get_logger(__name__)

T = TypeVar("T")

# Seconds to wait for the event loop of the worker.
LOOP_TIMEOUT = 5.0

# Seconds to wait for the metrics; Prometheus waits as long by default.
_METRICS_TIMEOUT = 10.0


class HealthEndpoint:
    """Serves ``/live``, ``/ready`` and, if the program has metrics, ``/metrics``.

    It runs on its own thread, so that it answers while the event loop is blocked. Create it on the
    event loop of the worker.

    Args:
        worker: The worker to report on.
        client: The client of its bus.
        host: The address to listen at.
        port: The port; 0 for any free one.

    Raises:
        ConfigError: The port cannot be used.
    """

    def __init__(self, worker: Worker, client: BusClient, *, host: str, port: int) -> None:
        loop = asyncio.get_running_loop()

        def on_loop(check: Callable[[], Coroutine[Any, Any, list[str]]]) -> _Shared[list[str]]:
            return _Shared(lambda: asyncio.run_coroutine_threadsafe(check(), loop))

        self._client = client
        self._live, self._ready = on_loop(_find_no_problem), on_loop(worker.check_health)
        self._metrics = _Shared(lambda: _in_thread(self._render_metrics))
        try:
            self._server = HTTPServer(self.answer, host=host, port=port)
        except (OSError, ValueError, TypeError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise ConfigError(f"Health port {port} on {host} cannot be used: {reason}.") from error

    @property
    def address(self) -> str:
        """The URL that it listens at."""
        host, port = self._server.address
        return f"http://{f'[{host}]' if ':' in host else host}:{port}"

    async def answer(self, target: str) -> Answer:
        """Return the answer to a request. Await it on another event loop than the worker's.

        Args:
            target: The path of the request, such as ``/live``, with its query.
        """
        match target.partition("?")[0]:
            case "/live":
                return await _answer_of("live", self._live)
            case "/ready":
                return await _answer_of("ready", self._ready)
            case "/metrics" if self._metrics_source is not None:
                return await self._answer_metrics()
            case _:
                others = [] if self._metrics_source is None else ["/metrics"]
                return _json(HTTPStatus.NOT_FOUND, {"paths": ["/live", "/ready", *others]})

    def close(self) -> None:
        """Stop answering requests."""
        self._server.close()

    @property
    def _metrics_source(self) -> MetricsSource | None:
        sources = [one for one in self._client.middleware if isinstance(one, MetricsSource)]
        return sources[-1] if sources else None

    async def _answer_metrics(self) -> Answer:
        try:
            return await self._metrics(_METRICS_TIMEOUT)
        except TimeoutError:
            reason = f"The metrics took longer than {_METRICS_TIMEOUT:g} s.\n".encode()
            return Answer(HTTPStatus.SERVICE_UNAVAILABLE, "text/plain", reason)

    def _render_metrics(self) -> Answer:
        source = self._metrics_source
        assert source is not None  # noqa: S101 - for the type checker
        try:
            return Answer(HTTPStatus.OK, *source.metrics_page())
        except Exception:  # the metrics of a program may raise any
            _log.exception("Cannot render the metrics.")
            return Answer(HTTPStatus.INTERNAL_SERVER_ERROR, "text/plain", b"See the log.\n")


class _Shared(Generic[T]):
    """Runs `work` once at a time. Concurrent callers share its result, so that many requests do not
    cause many runs.
    """

    def __init__(self, work: Callable[[], concurrent.futures.Future[T]]) -> None:
        self._work = work
        self._running: asyncio.Future[T] | None = None

    async def __call__(self, timeout: float) -> T:
        if self._running is None or self._running.done():
            self._running = asyncio.wrap_future(self._work())
            # Read the error, so that asyncio does not log it if every caller has timed out.
            self._running.add_done_callback(lambda done: done.cancelled() or done.exception())
        return await asyncio.wait_for(asyncio.shield(self._running), timeout)


def _in_thread(function: Callable[[], T]) -> concurrent.futures.Future[T]:
    """Return a future for the result of `function`, which runs in a daemon thread."""
    result: concurrent.futures.Future[T] = concurrent.futures.Future()
    threading.Thread(
        target=lambda: result.set_result(function()), name="lightbus-metrics", daemon=True
    ).start()
    return result


async def _answer_of(name: str, check: _Shared[list[str]]) -> Answer:
    try:
        problems = await check(LOOP_TIMEOUT)
    except TimeoutError:
        problems = [
            f"The event loop did not answer within {LOOP_TIMEOUT:g} s: something blocks it."
        ]
    status = HTTPStatus.SERVICE_UNAVAILABLE if problems else HTTPStatus.OK
    return _json(status, {name: not problems, "problems": problems})


def _json(status: HTTPStatus, content: dict[str, Any]) -> Answer:
    return Answer(status, "application/json", json.dumps(content).encode() + b"\n")


async def _find_no_problem() -> list[str]:
    return []
