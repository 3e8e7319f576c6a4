"""Translates errors of the driver and the broker to errors of Lightbus."""

from __future__ import annotations

import asyncio
import re

from aiormq.exceptions import (
    AMQPError,
    AuthenticationError,
    ChannelAccessRefused,
    ChannelInvalidStateError,
    ChannelPreconditionFailed,
    IncompatibleProtocolError,
    ProbableAuthenticationError,
)
from pamqp.commands import Connection

from lightbus.exceptions import TopologyMismatch, TransportError, TransportRefused

_REFUSALS = (
    AuthenticationError,
    ProbableAuthenticationError,
    ChannelAccessRefused,
    IncompatibleProtocolError,
)

# The codes with which RabbitMQ refuses the credentials and the virtual host of a connection (AMQP
# 0-9-1, section 1.5).
_ACCESS_REFUSED = 403
_NOT_ALLOWED = 530

# A later attempt may succeed: a limit of the node, the user or the virtual host was reached, or the
# virtual host has not started yet.
_LIMIT_REACHED = re.compile(r"\blimit\b.*\b(reached|exceeded)\b|\breached\b.*\blimit\b")
_TEMPORARY = re.compile(rf"^(?!.* not found$).*({_LIMIT_REACHED.pattern}|\bis down$)")

_DIFFERENCE = re.compile(
    r"arg '(?P<argument>[^']*)' .*: received (?P<wanted>.*) but current is (?P<actual>.*)"
)


class ConnectionLost(Exception):
    """The connection or the channel was lost. The operation can be tried again on a new one."""


class NoFreeChannel(ConnectionLost):
    """Every channel that the broker allows on the connection is in use.

    Attributes:
        channel_max: The number of channels that the broker allows.
    """

    def __init__(self, channel_max: int) -> None:
        self.channel_max = channel_max
        super().__init__(
            f"all {channel_max} channels that the broker allows on a connection (channel_max) are "
            "in use"
        )


def close_reason(close: Connection.Close) -> str:
    """Return the broker's text that says why it closed a connection."""
    return " ".join(str(close.reply_text).split()).rstrip(".")


def close_error(close: Connection.Close, doing: str) -> TransportRefused | ConnectionLost:
    """Return the error for the broker's answer to `doing` something, a `close`."""
    text = close_reason(close)
    is_refusal = close.reply_code in (_ACCESS_REFUSED, _NOT_ALLOWED)
    if is_refusal and not _TEMPORARY.search(text):
        return TransportRefused(f"RabbitMQ refused {doing}: {text}.")
    return ConnectionLost(text)


def translate_error(error: BaseException, doing: str) -> TransportError | ConnectionLost | None:
    """Return the error of Lightbus for an error of the driver.

    Args:
        error: The error.
        doing: The operation that raised it, such as ``"to declare queue 'a'"``.

    Returns:
        `TransportRefused` or `TopologyMismatch` if another try will not help, `ConnectionLost` if
        it may, and None if the error is not one of the driver.
    """
    if isinstance(error, _REFUSALS):
        return TransportRefused(f"RabbitMQ refused {doing}: {error_text(error)}.")
    if isinstance(error, ChannelPreconditionFailed):
        return _precondition_error(error_text(error), doing)
    if isinstance(error, AMQPError | ChannelInvalidStateError | OSError):
        return ConnectionLost(error_text(error))
    if isinstance(error, asyncio.CancelledError) and not is_task_cancelled():
        return ConnectionLost("the channel was closed")
    # The driver raises these in tasks that wait on a channel that was closed without a reason.
    if type(error) in (Exception, RuntimeError):
        return ConnectionLost(str(error) or "the channel was closed")
    return None


def _precondition_error(text: str, doing: str) -> TransportRefused | TopologyMismatch:
    """Return the error for a precondition of `doing` something that failed."""
    if _LIMIT_REACHED.search(text):
        return TransportRefused(f"RabbitMQ refused {doing}: {text}.")
    found = _DIFFERENCE.search(text)
    return TopologyMismatch(
        f"RabbitMQ refused {doing}: {text}. `lightbus topology` shows all differences, and can "
        "migrate them.",
        argument=found["argument"] if found else "",
        declared=_value(found["wanted"] if found else ""),
        actual=_value(found["actual"] if found else ""),
    )


def _value(text: str) -> str:
    # For example: '20', or: none, or: the value '20' of type 'byte'
    found = re.search(r"'([^']*)'", text)
    return found[1] if found else text


def error_text(error: BaseException) -> str:
    """Return the text of an error on one line, without a full stop at its end."""
    text = str(error).strip() or type(error).__name__
    return " ".join(text.split()).rstrip(".")


def is_task_cancelled() -> bool:
    """Return whether the current task was cancelled.

    The driver also raises CancelledError if only the channel was closed, and it raises other errors
    if the task was cancelled.
    """
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
