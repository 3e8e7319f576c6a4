"""Log lines with fields, sent through the standard `logging`, whose settings decide what is seen.

A plain formatter shows the fields behind the text. A record also carries them, unrendered, as
`record.lightbus`, for formatters that know what to do with them.

Logging never raises, whatever the handlers of the program do, and threads on which the bus works
never wait for them.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import logging
import os
import queue
import re
import sys
import threading
import traceback
from collections.abc import MutableMapping
from typing import TYPE_CHECKING, Any, cast

from lightbus.concurrency.busy_threads import may_wait
from lightbus.concurrency.lazy import lazy_property

if TYPE_CHECKING:
    import structlog

# What steers a terminal, ends a line or reorders text: the control characters of Unicode but for
# the tab and the line feed, its line and paragraph separators, invisible format characters,
# bidirectional overrides and isolates (UAX #9), and surrogates.
_UNSAFE = (
    r"\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff"
    r"\ufff9-\ufffb\ud800-\udfff"
)
UNSAFE_IN_TEXT = re.compile(f"[{_UNSAFE}]")
_UNSAFE_IN_LINE = re.compile(rf"[\t\n{_UNSAFE}]")

_METHODS = ("debug", "info", "warning", "error", "exception", "critical")

_STANDARD_ARGUMENTS = ("exc_info", "stack_info", "stacklevel")


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """Return the structured logger called `name`.

    Its settings are its own: `structlog.configure` is left to the application.
    """
    return cast("structlog.stdlib.BoundLogger", _Logger(name))


class _Logger:
    """Stands for a structured logger, and makes it when something is first logged: to import
    `structlog` takes as long as to import all of the rest.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # also asked for while this is copied, and has no attributes yet
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        if name not in _METHODS:
            return getattr(self.structured, name)
        method = functools.partial(_log_safely, self, name)
        setattr(self, name, method)
        return method

    @lazy_property
    def structured(self) -> structlog.stdlib.BoundLogger:
        import structlog  # noqa: PLC0415

        logger: structlog.stdlib.BoundLogger = structlog.wrap_logger(
            logging.getLogger(self._name),
            processors=[structlog.stdlib.filter_by_level, _to_standard_logging],
            wrapper_class=structlog.stdlib.BoundLogger,
            context_class=dict,
            cache_logger_on_first_use=True,
        )
        return logger


def _log_safely(logger: _Logger, method: str, *args: Any, **fields: Any) -> None:
    if may_wait():
        _write(logger, method, args, fields)
        return
    # Code that waits for this thread may hold the lock of a handler. So another thread writes the
    # line.
    if method == "exception" or fields.get("exc_info") is True:
        fields["exc_info"] = sys.exc_info()
    _writer.put(logger, method, args, fields)


def _write(logger: _Logger, method: str, args: tuple[Any, ...], fields: dict[str, Any]) -> None:
    try:
        getattr(logger.structured, method)(*args, **fields)
    except KeyboardInterrupt:
        raise
    except BaseException:  # a handler may even try to end the process
        if logging.raiseExceptions and sys.stderr is not None:
            with contextlib.suppress(Exception):
                sys.stderr.write(f"A handler of the log failed at this line: {args}\n")
                traceback.print_exc()


class _Writer:
    """Writes lines to the log in a thread of its own, in order."""

    def __init__(self) -> None:
        self.start_afresh()

    def start_afresh(self) -> None:
        """Start with no thread and no lines, in a forked child."""
        self._lines: queue.SimpleQueue[Any] = queue.SimpleQueue()
        # Holds the thread under one key, because a dict has atomic operations. A lock could be held
        # by the very code that a signal handler has interrupted.
        self._thread: dict[None, threading.Thread] = {}

    def put(self, *line: Any) -> None:
        """Write a line soon."""
        self._lines.put(line)
        if not self._thread:
            self._start()

    def _start(self) -> None:
        thread = threading.Thread(target=self._run, name="lightbus-log", daemon=True)
        if self._thread.setdefault(None, thread) is not thread:
            return
        try:
            thread.start()
        except RuntimeError:  # no thread is left: the next line tries again
            self._thread.pop(None, None)

    def flush(self) -> None:
        """Wait until what was put is written, for a second at most."""
        thread = self._thread.pop(None, None)
        if thread is not None:
            self._lines.put(None)
            with contextlib.suppress(RuntimeError):  # it has not started yet
                thread.join(1)

    def _run(self) -> None:
        while (line := self._lines.get()) is not None:
            _write(*line)


_writer = _Writer()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_writer.start_afresh)


def flush() -> None:
    """Wait until what the threads of the bus have logged is written, for a second at most."""
    _writer.flush()


# Registered later than the handlers of `logging`, so called before they are closed.
atexit.register(flush)


def printable(text: str) -> str:
    """Return `text` for a terminal: what could steer it or reorder text is escaped.

    Names and values of an event can come from anyone. Lines remain lines.
    """
    return UNSAFE_IN_TEXT.sub(_escape, text)


def in_one_line(value: object) -> str:
    """Return `value` as text for a terminal, as `printable` does, and without a line break."""
    # A line that a sender could begin would be taken for one of the log's own.
    return _UNSAFE_IN_LINE.sub(_escape, str(value))


def _escape(found: re.Match[str]) -> str:
    return repr(found.group())[1:-1]


def _to_standard_logging(
    _: Any, __: str, fields: MutableMapping[str, Any]
) -> tuple[tuple[str], dict[str, Any]]:
    arguments = {name: fields.pop(name) for name in _STANDARD_ARGUMENTS if name in fields}
    event = str(fields.pop("event"))
    shown = "".join(f" {name}={in_one_line(value)}" for name, value in fields.items())
    return (in_one_line(event) + shown,), {
        **arguments,
        "extra": {"lightbus": {"event": event, **fields}},
    }
