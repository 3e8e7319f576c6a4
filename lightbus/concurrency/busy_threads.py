"""Which threads must not wait for the bus, because the bus works on them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from lightbus.concurrency.green import original

# By thread id: how many reasons forbid it to wait for the bus.
_busy_threads: dict[int, int] = {}


def may_wait() -> bool:
    """Return whether this thread may wait for the bus: whether the bus can work meanwhile.

    A destructor, a weakref callback or a signal handler of the program may run on any thread, also
    on one that the bus works on.
    """
    return original("_thread", "get_ident")() not in _busy_threads


def forbid_waiting() -> None:
    """Forbid this thread to wait for the bus until `permit_waiting` has been called as often."""
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
    """Mark this thread, while the block runs, as one that the bus works on."""
    forbid_waiting()
    try:
        yield
    finally:
        permit_waiting()


if hasattr(os, "register_at_fork"):
    # A forked child has one thread, and reuses the ids of its parent's other threads.
    os.register_at_fork(after_in_child=_busy_threads.clear)
