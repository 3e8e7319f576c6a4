"""Structured log messages, sent through the standard `logging`, whose settings apply.

A plain formatter shows the fields after the message. A formatter for structured output finds the
unformatted fields in `record.lightbus`.

Logging never raises, whatever the handlers of the application do. The threads of the bus never wait
for these handlers.
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

# Characters that control a terminal, end a line or reorder text: the control characters of Unicode
# except the tab and the line feed, line and paragraph separators, invisible format characters,
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
    """Return the structured logger `name`.

    `structlog.configure` does not affect it, and is left to the application.
    """
    return cast("structlog.stdlib.BoundLogger", _Logger(name))


class _Logger:
    """A structured logger that is created at the first message.

    Importing `structlog` takes as long as importing everything else.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # `copy` looks these up before the object has attributes
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
    # Another thread may wait for this one and hold the lock of a log handler. So the writer's
    # thread writes the message.
    if method == "exception" or fields.get("exc_info") is True:
        fields["exc_info"] = sys.exc_info()
    _writer.add(logger, method, args, fields)


def _write(logger: _Logger, method: str, args: tuple[Any, ...], fields: dict[str, Any]) -> None:
    try:
        getattr(logger.structured, method)(*args, **fields)
    except KeyboardInterrupt:
        raise
    except BaseException:  # a handler may even raise `SystemExit`
        if logging.raiseExceptions and sys.stderr is not None:
            with contextlib.suppress(Exception):
                sys.stderr.write(f"A logging handler failed for this message: {args}\n")
                traceback.print_exc()


class _Writer:
    """Writes messages to the log in its own thread, in order."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget the thread and the pending messages, which a forked child does not have."""
        self._lines: queue.SimpleQueue[Any] = queue.SimpleQueue()
        # Contains at most one thread. A dictionary has atomic operations. A lock could be held by
        # the code that a signal handler has interrupted.
        self._thread: dict[None, threading.Thread] = {}

    def add(self, *line: Any) -> None:
        """Add a message, to be written soon."""
        self._lines.put(line)
        if not self._thread:
            self._start()

    def _start(self) -> None:
        thread = threading.Thread(target=self._run, name="lightbus-log", daemon=True)
        if self._thread.setdefault(None, thread) is not thread:
            return
        try:
            thread.start()
        except RuntimeError:  # no thread could be started; the next message tries again
            self._thread.pop(None, None)

    def flush(self) -> None:
        """Wait until all messages are written, for at most one second."""
        thread = self._thread.pop(None, None)
        if thread is not None:
            self._lines.put(None)
            with contextlib.suppress(RuntimeError):  # the thread has not started yet
                thread.join(1)

    def _run(self) -> None:
        while (line := self._lines.get()) is not None:
            _write(*line)


_writer = _Writer()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_writer.reset)


def flush() -> None:
    """Wait until the messages of the bus's threads are written, for at most one second."""
    _writer.flush()


# Registered after `logging`, and therefore called before `logging` closes its handlers.
atexit.register(flush)


def printable(text: str) -> str:
    """Return `text` with characters escaped that control a terminal or reorder text.

    Names and values in an event may come from an untrusted sender. Line breaks are kept.
    """
    return UNSAFE_IN_TEXT.sub(_escape, text)


def in_one_line(value: object) -> str:
    """Return `value` as text on a single line, with characters escaped as by `printable`."""
    # A sender could otherwise forge a log message by a line break.
    return _UNSAFE_IN_LINE.sub(_escape, str(value))


def _escape(found: re.Match[str]) -> str:
    return repr(found.group())[1:-1]


def _to_standard_logging(
    _: Any, __: str, fields: MutableMapping[str, Any]
) -> tuple[tuple[str], dict[str, Any]]:
    arguments = {name: fields.pop(name) for name in _STANDARD_ARGUMENTS if name in fields}
    event = str(fields.pop("event"))
    field_texts = "".join(f" {name}={in_one_line(value)}" for name, value in fields.items())
    return (in_one_line(event) + field_texts,), {
        **arguments,
        "extra": {"lightbus": {"event": event, **fields}},
    }
