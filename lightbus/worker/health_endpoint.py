"""`HealthEndpoint`: answers whether a worker lives, and whether it is ready, over HTTP."""

from __future__ import annotations

import asyncio
import concurrent.futures
import json
import threading
from collections.abc import Callable, Coroutine
from http import HTTPStatus
from typing import Any, Generic, TypeVar

from lightbus.client import BusClient
from lightbus.exceptions import HealthPortUnusable
from lightbus.log import get_logger
from lightbus.worker.http_server import Answer, HTTPServer
from lightbus.worker.worker import Worker

_log = get_logger(__name__)

T = TypeVar("T")

# How long the event loop may take to answer, in seconds.
_LOOP_TIMEOUT = 5.0

# How long the metrics may take, in seconds: as Prometheus waits by default.
_METRICS_TIMEOUT = 10.0


class HealthEndpoint:
    """Serves ``/live``, ``/ready`` and, if the program counts events, ``/metrics``. It has its own
    thread, so that it answers while the event loop is stuck.

    Raises:
        HealthPortUnusable: It cannot listen there.
    """

    def __init__(self, worker: Worker, client: BusClient, *, host: str, port: int) -> None:
        loop = asyncio.get_running_loop()

        def ask(
            question: Callable[[], Coroutine[Any, Any, list[str]]],
        ) -> _Shared[list[str]]:
            return _Shared(lambda: asyncio.run_coroutine_threadsafe(question(), loop))

        self._client = client
        self._live, self._ready = ask(_nothing), ask(worker.check_health)
        self._metrics = _Shared(lambda: _in_thread(self._metrics_answer))
        try:
            self._server = HTTPServer(self.answer, host=host, port=port)
        except (OSError, ValueError, TypeError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise HealthPortUnusable(host, port, reason) from error

    @property
    def address(self) -> str:
        """Where it listens, as a URL."""
        host, port = self._server.address
        return f"http://{f'[{host}]' if ':' in host else host}:{port}"

    async def answer(self, target: str) -> Answer:
        """Return the answer for the target of a request, on any event loop but the worker's."""
        match target.partition("?")[0]:
            case "/live":
                return await _told("live", self._live)
            case "/ready":
                return await _told("ready", self._ready)
            case "/metrics" if self._client.metrics_page is not None:
                return await self._metrics_page()
            case _:
                others = [] if self._client.metrics_page is None else ["/metrics"]
                return _json(HTTPStatus.NOT_FOUND, {"paths": ["/live", "/ready", *others]})

    def close(self) -> None:
        """Answer no more."""
        self._server.close()

    async def _metrics_page(self) -> Answer:
        try:
            return await self._metrics(_METRICS_TIMEOUT)
        except TimeoutError:
            reason = f"The metrics took longer than {_METRICS_TIMEOUT:g} s.\n".encode()
            return Answer(HTTPStatus.SERVICE_UNAVAILABLE, "text/plain", reason)

    def _metrics_answer(self) -> Answer:
        assert self._client.metrics_page is not None  # noqa: S101 - for the type checker
        try:
            return Answer(HTTPStatus.OK, *self._client.metrics_page())
        except Exception:  # metrics of the program may raise any error
            _log.exception("The metrics cannot be shown.")
            return Answer(HTTPStatus.INTERNAL_SERVER_ERROR, "text/plain", b"See the log.\n")


class _Shared(Generic[T]):
    """Does `work` once at a time. Concurrent callers share its result, so that many requests do not
    cause many runs.
    """

    def __init__(self, work: Callable[[], concurrent.futures.Future[T]]) -> None:
        self._work = work
        self._running: asyncio.Future[T] | None = None

    async def __call__(self, timeout: float) -> T:
        if self._running is None or self._running.done():
            self._running = asyncio.wrap_future(self._work())
            # If nobody waits for it any more, its error is ignored.
            self._running.add_done_callback(lambda done: done.cancelled() or done.exception())
        return await asyncio.wait_for(asyncio.shield(self._running), timeout)


def _in_thread(function: Callable[[], T]) -> concurrent.futures.Future[T]:
    """Return a future for the result of `function`, which runs in a daemon thread."""
    result: concurrent.futures.Future[T] = concurrent.futures.Future()
    threading.Thread(
        target=lambda: result.set_result(function()), name="lightbus-metrics", daemon=True
    ).start()
    return result


async def _told(what: str, question: _Shared[list[str]]) -> Answer:
    try:
        problems = await question(_LOOP_TIMEOUT)
    except TimeoutError:
        problems = [
            f"The event loop did not answer within {_LOOP_TIMEOUT:g} s: something blocks it."
        ]
    status = HTTPStatus.SERVICE_UNAVAILABLE if problems else HTTPStatus.OK
    return _json(status, {what: not problems, "problems": problems})


def _json(status: HTTPStatus, content: dict[str, Any]) -> Answer:
    return Answer(status, "application/json", json.dumps(content).encode() + b"\n")


async def _nothing() -> list[str]:
    return []
