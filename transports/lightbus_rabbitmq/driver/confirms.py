"""`Confirms`: the messages that were sent on a channel, and that the broker has not confirmed."""

from __future__ import annotations

import asyncio
import enum
import itertools
from collections.abc import Callable

import attrs
from aiormq.abc import DeliveredMessage
from pamqp.commands import Basic


class Outcome(enum.Enum):
    """What the broker did with a message."""

    STORED = "every queue that it was routed to stored it"
    REFUSED = "a queue that it was routed to refused it"
    UNROUTED = "it was routed to no queue"


@attrs.frozen
class _Mandatory:
    """A mandatory message in flight."""

    tag: int
    is_confirmed: asyncio.Event = attrs.field(factory=asyncio.Event)


class Confirms:
    """The messages in flight on one channel, by their delivery tags."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._outcomes: dict[int, asyncio.Future[Outcome]] = {}
        # RabbitMQ returns a mandatory message with its id, and without its delivery tag.
        self._mandatory: dict[str, _Mandatory] = {}
        self._mandatory_ids: dict[int, str] = {}

    async def wait_for_id(self, message_id: str) -> None:
        """Wait while a mandatory message with this id is in flight."""
        while (mandatory := self._mandatory.get(message_id)) is not None:
            await mandatory.is_confirmed.wait()

    def add(self, tag: int, mandatory_id: str | None) -> asyncio.Future[Outcome]:
        """Add a message; return a future for its outcome.

        Args:
            tag: The delivery tag of the message.
            mandatory_id: The id of the message if it is mandatory.
        """
        outcome: asyncio.Future[Outcome] = self._loop.create_future()
        self._outcomes[tag] = outcome
        if mandatory_id is not None:
            self._mandatory[mandatory_id] = _Mandatory(tag)
            self._mandatory_ids[tag] = mandatory_id
        return outcome

    def on_confirm(self, frame: Basic.Ack | Basic.Nack) -> None:
        """Set the outcome of the messages that the broker confirmed or refused."""
        last = frame.delivery_tag or 0
        outcome = Outcome.STORED if isinstance(frame, Basic.Ack) else Outcome.REFUSED
        tags = [last]
        if frame.multiple:
            tags = list(itertools.takewhile(lambda tag: tag <= last, self._outcomes))
        for tag in tags:
            waiting = self._outcomes.pop(tag, None)
            if waiting is not None and not waiting.done():
                waiting.set_result(outcome)
            if tag in self._mandatory_ids:
                self._forget_mandatory(tag)

    def on_returned(self, message: DeliveredMessage) -> None:
        """Set the outcome of a mandatory message that the broker returned."""
        mandatory = self._mandatory.get(str(message.header.properties.message_id))
        waiting = self._outcomes.get(mandatory.tag) if mandatory else None
        if waiting is not None and not waiting.done():
            waiting.set_result(Outcome.UNROUTED)

    def fail_all(self, error: Callable[[], Exception]) -> None:
        """Fail all messages in flight, each with an error of its own."""
        outcomes, self._outcomes = self._outcomes, {}
        for tag in list(self._mandatory_ids):
            self._forget_mandatory(tag)
        for waiting in outcomes.values():
            if not waiting.done():
                waiting.set_exception(error())

    def _forget_mandatory(self, tag: int) -> None:
        self._mandatory.pop(self._mandatory_ids.pop(tag)).is_confirmed.set()
