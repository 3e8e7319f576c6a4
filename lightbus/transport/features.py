"""What a transport can offer beyond the contract."""

from __future__ import annotations

import enum
from abc import abstractmethod
from collections.abc import AsyncGenerator
from typing import Protocol, cast

from lightbus.message import EventMessage
from lightbus.transport.failure import Failure


class Capability(enum.Enum):
    """What a transport need not be able to do, if it says so and refuses it clearly.

    Attributes:
        SHARED: Processes share the broker, and its events outlive them.
    """

    SHARED = "processes share the broker, and its events outlive them"
    EXACT_ATTEMPTS = "only what a listener received is counted as an attempt"


class DeadLetter(Protocol):
    """An event that was given up, and why.

    Attributes:
        message: The event.
        failure: Why.
    """

    message: EventMessage
    failure: Failure

    @abstractmethod
    async def discard(self) -> None:
        """Remove it, at the latest when the iteration over dead letters that it came from ends.

        Raises:
            TransportError: It may still be there.
        """


async def start_generator(
    events: AsyncGenerator[EventMessage | None],
) -> AsyncGenerator[EventMessage]:
    """Return `events`, which yields None once it has begun and events after that, with that None
    taken from it.

    What it wants of the broker is wanted from now on, and closing one that was not begun would end
    nothing.

    Raises:
        Exception: What `events` raised before it had begun.
    """
    await anext(events)
    return cast("AsyncGenerator[EventMessage]", events)
