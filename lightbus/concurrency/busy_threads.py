"""Tracks the threads that must not wait for the bus, because the bus runs on them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from lightbus.concurrency.green import original

# The number of unbalanced calls of `forbid_waiting`, by thread id
_busy_threads: dict[int, int] = {}


def may_wait() -> bool:
    """Return whether this thread may wait for the bus.

    A destructor, a weakref callback or a signal handler of the application may run on any thread.
    On a thread of the bus, waiting for the bus would never end.
    """
    return original("_thread", "get_ident")() not in _busy_threads


def forbid_waiting() -> None:
    """Forbid this thread to wait for the bus, until as many calls of `permit_waiting`."""
    thread = original("_thread", "get_ident")()
    _busy_threads[thread] = _busy_threads.get(thread, 0) + 1


def permit_waiting() -> None:
    """Undo one `forbid_waiting` of this thread."""
    thread = original("_thread", "get_ident")()
    count = _busy_threads.pop(thread, 1) - 1
    if count:
        _busy_threads[thread] = count


@contextlib.contextmanager
def working_for_the_bus() -> Iterator[None]:
    """Mark this thread as a thread of the bus while the block runs."""
    forbid_waiting()
    try:
        yield
    finally:
        permit_waiting()


if hasattr(os, "register_at_fork"):
    # A forked child has one thread, and reuses the ids of its parent's other threads.
    os.register_at_fork(after_in_child=_busy_threads.clear)
