"""`LoopWatch`: logs a warning when a task blocks the event loop."""

from __future__ import annotations

import asyncio
import threading
import time

from lightbus.concurrency.green import is_gevent
from lightbus.log import get_logger

_log = get_logger(__name__)

# The time limit for the loop to respond, and the interval between checks, in seconds
LIMIT = 2.0
PERIOD = 0.5

_REMEDY = (
    "Meanwhile the worker acknowledges no event and sends no heartbeat, so the broker may "
    "redeliver its events. Use a sync handler, or `asyncio.to_thread`."
)


class LoopWatch:
    """Checks from a thread whether the running event loop responds, and logs if it does not.

    The log message names the task that blocks the loop. The name of a listener's task contains that
    of the listener. Under gevent, nothing is checked, because its threads are greenlets.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._answered = threading.Event()
        self._is_ended = threading.Event()
        if not is_gevent():
            threading.Thread(target=self._watch, name="lightbus-watch", daemon=True).start()

    def close(self) -> None:
        """Stop watching. Closing again does nothing."""
        self._is_ended.set()
        self._answered.set()

    def _watch(self) -> None:
        while not self._is_ended.wait(PERIOD):
            self._answered.clear()
            asked_at = time.monotonic()
            try:
                self._loop.call_soon_threadsafe(self._answered.set)
            except RuntimeError:
                return  # the loop is closed
            if not self._answered.wait(LIMIT) and self._is_watched:
                self._report(asked_at)

    @property
    def _is_watched(self) -> bool:
        return not self._is_ended.is_set() and self._loop.is_running()

    def _report(self, asked_at: float) -> None:
        culprit = self._culprit()
        _log.warning(f"{culprit} has blocked the event loop for {LIMIT:g} s. {_REMEDY}")
        while not self._answered.wait(PERIOD):
            if not self._is_watched:
                return
        seconds = time.monotonic() - asked_at
        if self._is_watched:
            _log.warning(f"{culprit} blocked the event loop for at least {seconds:.1f} s.")

    def _culprit(self) -> str:
        task = asyncio.current_task(self._loop)
        return task.get_name() if task is not None else "A callback"
