"""Log lines with fields, sent through the standard `logging`, whose settings decide what is seen.

A plain formatter shows the fields behind the text. A record also carries them, unrendered, as
`record.lightbus`, for formatters that know what to do with them.
"""

from __future__ import annotations

import logging
from collections.abc import MutableMapping
from typing import Any

import structlog

_STANDARD_ARGUMENTS = ("exc_info", "stack_info", "stacklevel")


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """Return the structured logger called `name`.

    Its settings are its own: `structlog.configure` is left to the application.
    """
    logger: structlog.stdlib.BoundLogger = structlog.wrap_logger(
        logging.getLogger(name),
        processors=[structlog.stdlib.filter_by_level, _to_standard_logging],
        wrapper_class=structlog.stdlib.BoundLogger,
        context_class=dict,
        cache_logger_on_first_use=True,
    )
    return logger


def _to_standard_logging(
    _: Any, __: str, fields: MutableMapping[str, Any]
) -> tuple[tuple[str], dict[str, Any]]:
    arguments = {name: fields.pop(name) for name in _STANDARD_ARGUMENTS if name in fields}
    event = str(fields.pop("event"))
    shown = "".join(f" {name}={value}" for name, value in fields.items())
    return (event + shown,), {**arguments, "extra": {"lightbus": {"event": event, **fields}}}
