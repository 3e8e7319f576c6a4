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

# The codes with which RabbitMQ refuses to open a connection: for the credentials, and for the
# virtual host (AMQP 0-9-1, section 1.5, constants).
_ACCESS_REFUSED = 403
_NOT_ALLOWED = 530

# A limit of the node, the user or the virtual host was reached, or a virtual host has not started
# yet. A later attempt may succeed.
_LIMIT_REACHED = re.compile(r"\blimit\b.*\b(reached|exceeded)\b|\breached\b.*\blimit\b")
_MAY_PASS = re.compile(rf"^(?!.* not found$).*({_LIMIT_REACHED.pattern}|\bis down$)")

_DIFFERENCE = re.compile(
    r"arg '(?P<argument>[^']*)' .*: received (?P<wanted>.*) but current is (?P<actual>.*)"
)


class ConnectionLost(Exception):
    """The connection or the channel went away; the operation may be done again on another."""


class NoFreeChannel(ConnectionLost):
    """Every channel that the broker allows on the connection is in use.

    Attributes:
        channel_max: How many channels that are.
    """

    def __init__(self, channel_max: int) -> None:
        self.channel_max = channel_max
        super().__init__(
            f"all {channel_max} channels that the broker allows on a connection (channel_max) are "
            "in use"
        )


def words_of(close: Connection.Close) -> str:
    """Return why the broker closed a connection, in its own words."""
    return " ".join(str(close.reply_text).split()).rstrip(".")


def refused_by(close: Connection.Close, doing: str) -> TransportRefused | ConnectionLost:
    """Return the error for a `close` with which the broker answered `doing`."""
    words = words_of(close)
    is_refusal = close.reply_code in (_ACCESS_REFUSED, _NOT_ALLOWED)
    if is_refusal and not _MAY_PASS.search(words):
        return TransportRefused(f"RabbitMQ refused {doing}: {words}.")
    return ConnectionLost(words)


def translated(error: BaseException, doing: str) -> TransportError | ConnectionLost | None:
    """Return what `error`, raised by the driver while `doing` something, means.

    Returns:
        `TransportRefused` or `TopologyMismatch` for what another try will not mend,
        `ConnectionLost` for what it may, and None for what is not of the driver's making.
    """
    if isinstance(error, _REFUSALS):
        return TransportRefused(f"RabbitMQ refused {doing}: {reason(error)}.")
    if isinstance(error, ChannelPreconditionFailed):
        return _unmet(reason(error), doing)
    if isinstance(error, AMQPError | ChannelInvalidStateError | OSError):
        return ConnectionLost(reason(error))
    if isinstance(error, asyncio.CancelledError) and not is_cancelled():
        return ConnectionLost("the channel was closed")
    # The driver rejects what waits on a channel that was closed without a reason with these.
    if type(error) in (Exception, RuntimeError):
        return ConnectionLost(str(error) or "the channel was closed")
    return None


def _unmet(words: str, doing: str) -> TransportRefused | TopologyMismatch:
    """Return what it means that a precondition of `doing` something was not met."""
    if _LIMIT_REACHED.search(words):
        return TransportRefused(f"RabbitMQ refused {doing}: {words}.")
    found = _DIFFERENCE.search(words)
    return TopologyMismatch(
        f"RabbitMQ refused {doing}: {words}. `lightbus topology` shows all that differs, and can "
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
