"""`Failure`: the story of one failed attempt, kept beside a dead letter."""

from __future__ import annotations

import os
import socket
import traceback
from collections.abc import Callable
from datetime import UTC, datetime

import attrs


@attrs.frozen(kw_only=True)
class Failure:
    """Why an event was given up.

    Attributes:
        error_type: The exception's dotted type name.
        error_message: What the exception says.
        traceback: The formatted traceback; empty where nothing was raised.
        failed_at: When, in UTC.
        first_failed_at: When an attempt at the event failed first, in UTC, as far as it is known.
        listener: The listener that gave it up.
        attempt: The attempt that failed, counted from 1.
        service_name: The listener's service.
        process_name: The worker's process.
        hostname: The worker's machine.
        pid: The worker's process id.
    """

    error_type: str
    error_message: str
    traceback: str = attrs.field(repr=False)
    failed_at: datetime
    first_failed_at: datetime
    listener: str
    attempt: int
    service_name: str
    process_name: str
    hostname: str = attrs.field(factory=socket.gethostname)
    pid: int = attrs.field(factory=os.getpid)

    @classmethod
    def of(
        cls,
        error: BaseException,
        *,
        listener: str,
        attempt: int,
        service_name: str,
        process_name: str,
        first_failed_at: datetime | None = None,
    ) -> Failure:
        """Return the story of `error`.

        Args:
            error: What was raised; what it fails to tell of itself is replaced.
            listener: The listener that gives the event up.
            attempt: The attempt that failed, counted from 1.
            service_name: The listener's service.
            process_name: This process.
            first_failed_at: When an attempt at the event failed first, in UTC; None for now.
        """
        raised_as, now = type(error), datetime.now(UTC)
        return cls(
            error_type=_encodable(f"{raised_as.__module__}.{raised_as.__qualname__}"),
            error_message=_told(lambda: str(error)),
            traceback=_told(lambda: "".join(traceback.format_exception(error)))
            if error.__traceback__
            else "",
            failed_at=now,
            first_failed_at=first_failed_at or now,
            listener=listener,
            attempt=attempt,
            service_name=service_name,
            process_name=process_name,
        )


def _told(tell: Callable[[], str]) -> str:
    # A user's exception may fail to print itself; its event must still become a dead letter.
    try:
        return _encodable(tell())
    except Exception as broken:
        return _encodable(f"<telling it raised {type(broken).__qualname__}>")


def _encodable(text: str) -> str:
    # A lone surrogate, as in the name of a file that is no UTF-8, could be stored nowhere.
    return text.encode("utf-8", "replace").decode()
