"""Threads for sync handlers."""

from __future__ import annotations

import contextlib
import threading

import pytest

from lightbus.handling.threads import HandlerThreads


async def test_a_function_whose_thread_could_not_start_does_not_run_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    threads, calls = HandlerThreads(), list[str]()

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with contextlib.ExitStack() as ending:
        ending.callback(threads.shut_down)
        with monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "start", refuse)
            with pytest.raises(RuntimeError, match="can't start new thread"):
                await threads.call(lambda: calls.append("refused"))
        await threads.call(lambda: calls.append("later"))

    assert calls == ["later"]
    assert threads.running == 0
