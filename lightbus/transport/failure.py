"""`Failure`: why an attempt failed, as a dead letter stores it."""

from __future__ import annotations

import os
import socket
import traceback
from collections.abc import Callable
from datetime import UTC, datetime

import attrs

from lightbus.exceptions import CallbackExited, UnexpectedEvent


@attrs.frozen(kw_only=True)
class Failure:
    """Why an event was dead-lettered.

    Attributes:
        error_type: The module and name of the type of the exception.
        error_message: The message of the exception.
        traceback: The formatted traceback; empty if nothing was raised.
        failed_at: When the attempt failed, in UTC.
        first_failed_at: When the first attempt failed, in UTC, as far as it is known.
        listener: The name of the listener.
        attempt: The number of the attempt, counted from 1.
        service_name: The service of the listener.
        process_name: The name of the worker process.
        hostname: The host of the worker.
        pid: The process id of the worker.
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
        """Describe `error`, which an attempt failed with.

        Args:
            error: The exception. If it cannot be formatted, the failure says so instead.
            listener: The name of the listener.
            attempt: The number of the attempt, counted from 1.
            service_name: The service of the listener.
            process_name: The name of this process.
            first_failed_at: When the first attempt failed, in UTC; None for now.
        """
        now = datetime.now(UTC)
        return cls(
            error_type=_encodable(_type_name(type(error))),
            error_message=_format(lambda: str(error)),
            traceback=_format(lambda: "".join(traceback.format_exception(error)))
            if error.__traceback__
            else "",
            failed_at=now,
            first_failed_at=first_failed_at or now,
            listener=listener,
            attempt=attempt,
            service_name=service_name,
            process_name=process_name,
        )


def _type_name(error_type: type[BaseException]) -> str:
    if issubclass(error_type, UnexpectedEvent | CallbackExited):
        return error_type.stored_name
    return f"{error_type.__module__}.{error_type.__qualname__}"


def _format(formatted: Callable[[], str]) -> str:
    # The `__str__` of an exception may raise, and its event must still become a dead letter.
    try:
        return _encodable(formatted())
    except Exception as error:
        return _encodable(f"<formatting it raised {type(error).__qualname__}>")


def _encodable(text: str) -> str:
    # No transport can store a lone surrogate, as in a file name that is not valid UTF-8.
    return text.encode("utf-8", "replace").decode()
