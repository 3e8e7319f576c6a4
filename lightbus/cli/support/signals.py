"""SIGINT and SIGTERM: they stop a command, and forked children handle them by themselves."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from typing import Any, Self

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class ForkSafeSignals:
    """A context manager that restores the previous signal handlers in forked children.

    Enter it before the event loop sets its own handlers. An event loop writes signals to a socket,
    which a child shares: without this, a signal to the child would stop the parent.

    Python cannot unregister fork hooks, so each instance registers its own and turns them off when
    the block ends. A command enters one block per process.
    """

    def __init__(self) -> None:
        self._handlers: dict[signal.Signals, Any] = {}
        self._forking = threading.local()

    def __enter__(self) -> Self:
        self._handlers = {number: signal.getsignal(number) for number in STOP_SIGNALS}
        if self._handlers[signal.SIGTERM] is signal.default_int_handler:  # the command has set it
            self._handlers[signal.SIGTERM] = signal.SIG_DFL
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(
                before=self._before_fork,
                after_in_parent=self._after_fork,
                after_in_child=self._after_fork_in_child,
            )
        return self

    def __exit__(self, *_: object) -> None:
        self._handlers = {}

    def _before_fork(self) -> None:
        # Signals wait until the child has restored its handlers.
        if self._handlers:
            self._forking.mask = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)

    def _after_fork(self) -> None:
        mask = vars(self._forking).pop("mask", None)
        if mask is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def _after_fork_in_child(self) -> None:
        if self._handlers:
            signal.set_wakeup_fd(-1)
            for number, handler in self._handlers.items():
                # None stands for a handler that was not set from Python.
                signal.signal(number, signal.SIG_DFL if handler is None else handler)
            self._handlers = {}
        self._after_fork()


def cancel_on_signals(task: asyncio.Task[Any] | None = None) -> None:
    """Cancel `task` on SIGINT and SIGTERM; by default, the running task."""
    cancelled = task or asyncio.current_task()
    assert cancelled is not None  # noqa: S101 - for the type checker
    loop = asyncio.get_running_loop()
    for number in STOP_SIGNALS:
        loop.add_signal_handler(number, cancelled.cancel)
