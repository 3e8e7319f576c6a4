"""`DeadLetters`: reads, replays and removes the dead letters of a service."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator
from datetime import datetime
from fnmatch import fnmatchcase

import attrs

from lightbus.client import BusClient
from lightbus.message import EventMessage
from lightbus.operations.known_apis import one_api_per_broker
from lightbus.transport.features import DeadLetter, DeadLetterStore, require
from lightbus.transport.records import QueueAddress

# The number of characters at the start of an id that identify an event
SHORT_ID = 8


@attrs.frozen(kw_only=True)
class LetterKey:
    """Identifies one dead letter among those of a service.

    Attributes:
        event_id: The id of the event. Several listeners may have a dead letter for the same event.
        listener: The name of the listener that failed.
        failed_at: When the listener failed, in UTC.
    """

    event_id: str
    listener: str
    failed_at: datetime

    @classmethod
    def of(cls, letter: DeadLetter) -> LetterKey:
        """Return the key of `letter`."""
        failure = letter.failure
        return cls(
            event_id=letter.message.id, listener=failure.listener, failed_at=failure.failed_at
        )


@attrs.frozen(kw_only=True)
class Filter:
    """Selects the dead letters that match all attributes. None, or no `ids`, matches everything.

    Attributes:
        ids: Only events with one of these ids. The first 8 or more characters of an id suffice.
        keys: Only these dead letters.
        listener: Only dead letters of this listener.
        event: Only this event, such as ``"auth.user_created"``; a pattern as in `fnmatch`.
        error: Only this exception type, with or without its module; a pattern as in `fnmatch`.
        since: Only events dead-lettered at this time or later; a time with an offset from UTC.
        until: Only events dead-lettered before this time; a time with an offset from UTC.
    """

    ids: frozenset[str] = frozenset()
    keys: frozenset[LetterKey] | None = None
    listener: str | None = None
    event: str | None = None
    error: str | None = None
    since: datetime | None = None
    until: datetime | None = None

    @property
    def is_empty(self) -> bool:
        """Whether the filter selects every dead letter."""
        return self == Filter()

    def matches(self, letter: DeadLetter) -> bool:
        """Return whether the filter selects `letter`.

        Raises:
            TypeError: `since` or `until` is a naive time.
        """
        message, failure = letter.message, letter.failure
        error_names = (failure.error_type, failure.error_type.rpartition(".")[2])
        return (
            (not self.ids or any(_matches_id(message.id, prefix) for prefix in self.ids))
            and (self.keys is None or LetterKey.of(letter) in self.keys)
            and self.listener in (None, failure.listener)
            and (self.event is None or fnmatchcase(message.canonical_name, self.event))
            and (self.error is None or any(fnmatchcase(name, self.error) for name in error_names))
            and (self.since is None or failure.failed_at >= self.since)
            and (self.until is None or failure.failed_at < self.until)
        )


def _matches_id(event_id: str, prefix: str) -> bool:
    return event_id == prefix or (len(prefix) >= SHORT_ID and event_id.startswith(prefix))


class DeadLetters:
    """The dead letters of the service of `client`, at every broker that its APIs use."""

    def __init__(self, client: BusClient) -> None:
        self._client = client

    async def matching(self, filter_: Filter) -> AsyncGenerator[DeadLetter]:
        """Yield the dead letters that `filter_` selects, oldest first within each broker.

        Close the generator after use.

        Raises:
            TransportError: The dead letters cannot be read.
            TypeError: A time in `filter_` is naive.
        """
        service_name = self._client.config.service_name
        for api_name in one_api_per_broker(self._client):
            transport = await self._client.transports.open(api_name)
            store = require(transport, DeadLetterStore, "Reading dead letters")
            letters = store.dead_letters(service_name)
            async with contextlib.aclosing(letters):
                async for letter in letters:
                    if filter_.matches(letter):
                        yield letter

    async def replay(self, letter: DeadLetter, *, message: EventMessage | None = None) -> None:
        """Send an event again to the listener that failed, and then remove the dead letter.

        The next attempt counts as the first one. If this is interrupted after the event was sent,
        the dead letter stays.

        Args:
            letter: The dead letter that `matching` yielded last.
            message: A corrected message to send instead.

        Raises:
            TransportError: The event was not sent, for example because the queue of the listener
                was deleted, and the dead letter is unchanged. Or the event was sent, and the dead
                letter may still exist.
        """
        message = message or letter.message
        queue = QueueAddress(
            service_name=letter.failure.service_name or self._client.config.service_name,
            listener_name=letter.failure.listener,
            api_name=message.api_name,
        )
        transport = await self._client.transports.open(message.api_name)
        timeout = self._client.config.api(message.api_name).fire_timeout
        await transport.send(message, to=queue, timeout=timeout)
        await letter.discard()
