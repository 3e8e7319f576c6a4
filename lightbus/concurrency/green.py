"""Support for gevent, and refusal of eventlet: both replace Python's threads by greenlets."""

from __future__ import annotations

import importlib
import sys
from typing import Any

from lightbus.exceptions import EventletNotSupported


def is_gevent() -> bool:
    """Return whether gevent has replaced the threads of this process."""
    monkey: Any = sys.modules.get("gevent.monkey")
    return monkey is not None and bool(monkey.is_module_patched("threading"))


def is_gevent_hub() -> bool:
    """Return whether this runs as a callback of gevent's own loop, which cannot wait."""
    if not is_gevent():
        return False
    gevent: Any = sys.modules["gevent"]
    return gevent.getcurrent() is gevent.get_hub()


def refuse_eventlet() -> None:
    """Raise where eventlet has replaced modules of Python.

    Raises:
        EventletNotSupported: It has.
    """
    patcher: Any = sys.modules.get("eventlet.patcher")
    if patcher is not None and patcher.already_patched:
        raise EventletNotSupported


def original(module: str, name: str) -> Any:
    """Return Python's own object of a module, even if gevent has replaced it."""
    monkey: Any = sys.modules.get("gevent.monkey")
    if monkey is None:
        return getattr(importlib.import_module(module), name)
    return monkey.get_original(module, name)
