"""Supports gevent and refuses eventlet. Both replace Python's threads with greenlets."""

from __future__ import annotations

import importlib
import sys
from typing import Any

from lightbus.exceptions import ConfigError


def is_gevent() -> bool:
    """Return whether gevent has replaced the threads of this process."""
    monkey: Any = sys.modules.get("gevent.monkey")
    return monkey is not None and bool(monkey.is_module_patched("threading"))


def is_gevent_hub() -> bool:
    """Return whether this is a callback in gevent's own loop, which must not wait."""
    if not is_gevent():
        return False
    gevent: Any = sys.modules["gevent"]
    return gevent.getcurrent() is gevent.get_hub()


def refuse_eventlet() -> None:
    """Refuse to run under eventlet.

    Raises:
        ConfigError: eventlet has patched modules of Python.
    """
    patcher: Any = sys.modules.get("eventlet.patcher")
    if patcher is not None and patcher.already_patched:
        raise ConfigError(
            "Lightbus does not work under eventlet.monkey_patch(), which replaces threads that it "
            "needs. Run this process on threads, gevent or asyncio instead."
        )


def original(module: str, name: str) -> Any:
    """Return the original object from a module of Python, even if gevent has replaced it."""
    monkey: Any = sys.modules.get("gevent.monkey")
    if monkey is None:
        return getattr(importlib.import_module(module), name)
    return monkey.get_original(module, name)
