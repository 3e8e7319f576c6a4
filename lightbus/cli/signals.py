"""SIGINT and SIGTERM: they stop a command, and forked children handle them by themselves."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)

# The handlers from before the event loop, which children restore. None while there is no loop.
_handlers: dict[signal.Signals, Any] | None = None

_forking = threading.local()


@contextlib.contextmanager
def signals_of_children_kept() -> Iterator[None]:
    """Restore the previous signal handlers in children that are forked while the block runs.

    An event loop writes signals to a socket, which a child shares: without this, a signal that is
    sent to the child would stop its parent.
    """
    global _handlers  # noqa: PLW0603 - signals belong to the process
    _handlers = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    if _handlers[signal.SIGTERM] is signal.default_int_handler:  # the command has set it
        _handlers[signal.SIGTERM] = signal.SIG_DFL
    try:
        yield
    finally:
        _handlers = None


def _before_fork() -> None:
    # A signal that reaches the child before it has its handlers waits.
    if _handlers is not None:
        _forking.mask = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)


def _after_fork() -> None:
    mask = vars(_forking).pop("mask", None)
    if mask is not None:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _after_fork_in_child() -> None:
    global _handlers  # noqa: PLW0603 - signals belong to the process
    if _handlers is not None:
        signal.set_wakeup_fd(-1)
        for number, handler in _handlers.items():
            # None stands for a handler that is not of Python.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        _handlers = None
    _after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork_in_child
    )
