"""`Health`: answers whether a worker lives, and whether it is ready, over HTTP."""

from __future__ import annotations

import asyncio
import concurrent.futures
import json
import threading
from collections.abc import Coroutine
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

from lightbus.client import BusClient
from lightbus.exceptions import HealthPortUnusable
from lightbus.log import get_logger
from lightbus.worker import Worker

_log = get_logger(__name__)

# How long the event loop may take to answer, in seconds.
_LOOP_TIMEOUT = 5.0


class Health:
    """Serves ``/live`` and ``/ready`` from threads of its own, so that a stuck event loop is told;
    and ``/metrics``, where the program counts.

    Raises:
        HealthPortUnusable: It can not listen there.
    """

    def __init__(self, worker: Worker, client: BusClient, *, host: str, port: int) -> None:
        self._worker = worker
        self._client = client
        self._loop = asyncio.get_running_loop()
        health = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                status, content_type, body = health.answer(self.path)
                self.send_response(status)
                self.send_header("Content-Type", content_type)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        try:
            self._server = ThreadingHTTPServer((host, port), Handler)
        except (OSError, ValueError, TypeError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise HealthPortUnusable(host, port, reason) from error
        threading.Thread(
            target=self._server.serve_forever, name="lightbus-health", daemon=True
        ).start()

    @property
    def address(self) -> str:
        """Where it listens, as a URL."""
        host, port = self._server.server_address[:2]
        return f"http://{host!s}:{port}"

    def answer(self, path: str) -> tuple[HTTPStatus, str, bytes]:
        """Return the status, the content type and the body for a path; called from any thread but
        the loop's.
        """
        path = urlsplit(path).path
        if path == "/metrics" and self._client.metrics_page is not None:
            try:
                return HTTPStatus.OK, *self._client.metrics_page()
            except Exception:  # what a program counts beside events may raise any
                _log.exception("The metrics can not be shown.")
                return HTTPStatus.INTERNAL_SERVER_ERROR, "text/plain", b"See the log.\n"
        status, answer = self._answer(path)
        return status, "application/json", json.dumps(answer).encode() + b"\n"

    def _answer(self, path: str) -> tuple[HTTPStatus, dict[str, Any]]:
        match path:
            case "/live":
                return self._told("live", _nothing())
            case "/ready":
                return self._told("ready", self._worker.problems())
            case _:
                others = [] if self._client.metrics_page is None else ["/metrics"]
                return HTTPStatus.NOT_FOUND, {"paths": ["/live", "/ready", *others]}

    def close(self) -> None:
        """Answer no more."""
        self._server.shutdown()
        self._server.server_close()

    def _told(
        self, what: str, question: Coroutine[Any, Any, list[str]]
    ) -> tuple[HTTPStatus, dict[str, Any]]:
        asked = asyncio.run_coroutine_threadsafe(question, self._loop)
        try:
            problems = asked.result(_LOOP_TIMEOUT)
        except concurrent.futures.TimeoutError:
            asked.cancel()
            problems = [
                f"The event loop did not answer within {_LOOP_TIMEOUT:g} s: something blocks it."
            ]
        status = HTTPStatus.SERVICE_UNAVAILABLE if problems else HTTPStatus.OK
        return status, {what: not problems, "problems": problems}


async def _nothing() -> list[str]:
    return []
