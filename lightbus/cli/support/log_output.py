"""Formats the log of a command: as text on a terminal, and as JSON lines otherwise."""

from __future__ import annotations

import io
import logging
import os
import sys
from collections.abc import MutableMapping
from typing import Any, TextIO

import structlog

from lightbus.cli.support.console import err
from lightbus.log import in_one_line, printable

FORMATS = ("auto", "console", "json")
LEVELS = ("debug", "info", "warning", "error", "critical")

# The transport logs what these loggers would report, such as a lost connection.
_SILENCED = ("aio_pika", "aiormq")


def set_up_logging(log_format: str, level: str) -> None:
    """Send every log line of this process to standard error.

    Args:
        log_format: One of `FORMATS`; ``"auto"`` is console on a terminal and JSON otherwise.
        level: One of `LEVELS`.
    """
    is_console = log_format == "console" or (log_format == "auto" and sys.stderr.isatty())
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[
                _with_own_fields,
                structlog.stdlib.add_log_level,
                structlog.stdlib.add_logger_name,
                structlog.processors.TimeStamper(
                    fmt="%H:%M:%S" if is_console else "iso", utc=not is_console
                ),
            ],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *(_for_console() if is_console else _for_json()),
            ],
        )
    )
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)
    for name in _SILENCED:
        logging.getLogger(name).setLevel(logging.CRITICAL)


def _with_own_fields(
    _: Any, __: str, event_dict: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    event_dict.update(getattr(event_dict["_record"], "lightbus", {}))
    return event_dict


def _for_console() -> list[structlog.types.Processor]:
    return [
        _without_logger,
        _safe_for_terminals,
        structlog.dev.ConsoleRenderer(
            # Only on a terminal with colors, and see https://no-color.org.
            colors=err.color_system is not None and not os.environ.get("NO_COLOR"),
            sort_keys=False,
            pad_event_to=0,
            pad_level=False,
            exception_formatter=_format_traceback,
        ),
    ]


def _without_logger(
    _: Any, __: str, event_dict: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    event_dict.pop("logger", None)
    return event_dict


class _Escaped:
    """A value whose text is safe for a terminal."""

    def __init__(self, value: object) -> None:
        self._text = in_one_line(repr(value))

    def __repr__(self) -> str:
        return self._text


def _safe_for_terminals(
    _: Any, __: str, event_dict: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    for name, value in event_dict.items():
        if name in ("event", "stack"):
            event_dict[name] = _indented(str(value))
        elif name != "exc_info":
            text = value if isinstance(value, str) else repr(value)
            if in_one_line(text) != text:
                event_dict[name] = _Escaped(value)
    return event_dict


def _indented(text: str) -> str:
    """Return `text` for a terminal, with each line but the first indented.

    Only the log itself begins lines at the margin, so no sender can forge an entry.
    """
    return printable(text).replace("\n", "\n    ")


def _format_traceback(file: TextIO, exc_info: Any) -> None:
    shown = io.StringIO()
    structlog.dev.plain_traceback(shown, exc_info)
    file.write(_indented(shown.getvalue().rstrip("\n")))


def _for_json() -> list[structlog.types.Processor]:
    return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(default=str)]
