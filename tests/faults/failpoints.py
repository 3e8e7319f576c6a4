"""Ends a process at a chosen point of its work, which no timing could hit, as a crash would."""

from __future__ import annotations

import functools
import os
import signal
from pathlib import Path
from typing import Any


def kill_once(owner: type, method: str, *, when: str, marker: str = "killed") -> None:
    """Have this process killed when it calls an async method of a class.

    Args:
        owner: The class.
        method: The method's name.
        when: ``"before"`` the method does anything, or ``"after"`` it has returned.
        marker: A file in the current folder. Where it exists, a process was killed before, and this
            one is not.
    """
    original = getattr(owner, method)

    @functools.wraps(original)
    async def call(*args: Any, **kwargs: Any) -> Any:
        result = None if when == "before" else await original(*args, **kwargs)
        if not Path(marker).exists():
            Path(marker).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return await original(*args, **kwargs) if when == "before" else result

    setattr(owner, method, call)
