"""The driver's errors, sorted into what they mean for the bus."""

from __future__ import annotations

import asyncio
import re

from aiormq.exceptions import (
    AMQPError,
    AuthenticationError,
    ChannelAccessRefused,
    ChannelInvalidStateError,
    ChannelPreconditionFailed,
    ConnectionNotAllowed,
    IncompatibleProtocolError,
    ProbableAuthenticationError,
)

from lightbus.exceptions import TopologyMismatch, TransportError, TransportRefused

_REFUSALS = (
    AuthenticationError,
    ProbableAuthenticationError,
    ConnectionNotAllowed,
    ChannelAccessRefused,
    IncompatibleProtocolError,
)


_DIFFERENCE = re.compile(
    r"arg '(?P<argument>[^']*)' .*: received (?P<wanted>.*) but current is (?P<actual>.*)"
)


class ConnectionLost(Exception):
    """The connection or the channel went away; the operation may be done again on another."""


def translated(error: BaseException, doing: str) -> TransportError | ConnectionLost | None:
    """Return what `error`, raised by the driver while `doing` something, means.

    Returns:
        `TransportRefused` or `TopologyMismatch` for what another try will not mend,
        `ConnectionLost` for what it may, and None for what is not of the driver's making.
    """
    if isinstance(error, _REFUSALS):
        return TransportRefused(f"RabbitMQ refused {doing}: {reason(error)}.")
    if isinstance(error, ChannelPreconditionFailed):
        return _mismatch(reason(error), doing)
    if isinstance(error, AMQPError | ChannelInvalidStateError | OSError):
        return ConnectionLost(reason(error))
    if isinstance(error, asyncio.CancelledError) and not is_cancelled():
        return ConnectionLost("the channel was closed")
    # The driver rejects what waits on a channel that was closed without a reason with these.
    if type(error) in (Exception, RuntimeError):
        return ConnectionLost(str(error) or "the channel was closed")
    return None


def _mismatch(told: str, doing: str) -> TopologyMismatch:
    found = _DIFFERENCE.search(told)
    return TopologyMismatch(
        f"RabbitMQ refused {doing}: {told}. `lightbus topology` shows all that differs, and can "
        "migrate it.",
        argument=found["argument"] if found else "",
        wanted=_value(found["wanted"] if found else ""),
        actual=_value(found["actual"] if found else ""),
    )


def _value(told: str) -> str:
    # '20', or: none, or: the value '20' of type 'byte'
    found = re.search(r"'([^']*)'", told)
    return found[1] if found else told


def reason(error: BaseException) -> str:
    """Return one line that says why, without what the driver wraps around it."""
    text = str(error).strip() or type(error).__name__
    return " ".join(text.split()).rstrip(".")


def is_cancelled() -> bool:
    """Whether this task was cancelled.

    The driver also raises CancelledError where not the task, but the channel, was ended; and it
    raises others where the task was cancelled.
    """
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
