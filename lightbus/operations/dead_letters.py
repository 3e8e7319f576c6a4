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

# The number of characters that identify an event, of its whole id.
SHORT_ID = 8


@attrs.frozen(kw_only=True)
class LetterKey:
    """Identifies one dead letter among those of a service.

    Attributes:
        event_id: The id of its event, for which several listeners may have a dead letter.
        listener: The listener that failed.
        failed_at: When it failed, in UTC.
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
    """Selects dead letters. One that is None, or empty for `ids`, selects all.

    Attributes:
        ids: Only events with one of these ids; the first 8 characters of an id, or more, do.
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
            (not self.ids or any(_is_id_of(message.id, given) for given in self.ids))
            and (self.keys is None or LetterKey.of(letter) in self.keys)
            and self.listener in (None, failure.listener)
            and (self.event is None or fnmatchcase(message.canonical_name, self.event))
            and (self.error is None or any(fnmatchcase(name, self.error) for name in error_names))
            and (self.since is None or failure.failed_at >= self.since)
            and (self.until is None or failure.failed_at < self.until)
        )


def _is_id_of(event_id: str, given: str) -> bool:
    return event_id == given or (len(given) >= SHORT_ID and event_id.startswith(given))


class DeadLetters:
    """The dead letters of the service of `client`, at every broker that its APIs use."""

    def __init__(self, client: BusClient) -> None:
        self._client = client

    async def matching(self, wanted: Filter) -> AsyncGenerator[DeadLetter]:
        """Yield the dead letters that `wanted` selects, oldest first within each broker.

        Close the generator after use.

        Raises:
            TransportError: They cannot be read.
            TypeError: A time in `wanted` is naive.
        """
        service_name = self._client.config.service_name
        for api_name in one_api_per_broker(self._client):
            transport = await self._client.transports.open(api_name)
            store = require(transport, DeadLetterStore, "Reading dead letters")
            letters = store.dead_letters(service_name)
            async with contextlib.aclosing(letters):
                async for letter in letters:
                    if wanted.matches(letter):
                        yield letter

    async def replay(self, letter: DeadLetter, *, message: EventMessage | None = None) -> None:
        """Send the event to the listener that failed, as a first attempt, and then remove the dead
        letter. If this is interrupted in between, the event exists twice.

        Args:
            letter: The dead letter that `matching` yielded last.
            message: A corrected message to send in its place.

        Raises:
            TransportError: The event was not sent, for example because the listener's queue is
                gone, and the dead letter is unchanged. Or the event was sent, and the dead letter
                may still exist.
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
