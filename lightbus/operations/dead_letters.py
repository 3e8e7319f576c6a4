"""`DeadLetters`: the events that a service gave up, to look at, to send again, or to forget."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator
from datetime import datetime
from fnmatch import fnmatchcase

import attrs

from lightbus.client import BusClient
from lightbus.message import EventMessage
from lightbus.transport.features import DeadLetter
from lightbus.transport.records import Subscription

# How many characters of an id tell it from others, as far as people are concerned.
SHORT_ID = 8


@attrs.frozen(kw_only=True)
class Filter:
    """Which dead letters are meant; what is None, or empty, leaves none out.

    Attributes:
        ids: Events of these ids, or whose ids begin with one of them, of 8 characters or more.
        listener: Given up by this listener.
        event: Of this event, such as ``"auth.user_created"``; ``*`` stands for anything, as in
            `fnmatch`.
        error: With an exception of this type, with or without its module; ``*`` likewise.
        since: Given up at this time or later; the time has to say its offset from UTC.
        until: Given up before this time; it has to say its offset, too.
    """

    ids: frozenset[str] = frozenset()
    listener: str | None = None
    event: str | None = None
    error: str | None = None
    since: datetime | None = None
    until: datetime | None = None

    @property
    def is_empty(self) -> bool:
        """Whether every dead letter is meant."""
        return self == Filter()

    def matches(self, letter: DeadLetter) -> bool:
        """Return whether `letter` is meant.

        Raises:
            TypeError: `since` or `until` is a naive time.
        """
        message, failure = letter.message, letter.failure
        error_names = (failure.error_type, failure.error_type.rpartition(".")[2])
        return (
            (not self.ids or any(_is_meant(message.id, given) for given in self.ids))
            and self.listener in (None, failure.listener)
            and (self.event is None or fnmatchcase(message.canonical_name, self.event))
            and (self.error is None or any(fnmatchcase(name, self.error) for name in error_names))
            and (self.since is None or failure.failed_at >= self.since)
            and (self.until is None or failure.failed_at < self.until)
        )


def _is_meant(event_id: str, given: str) -> bool:
    return event_id == given or (len(given) >= SHORT_ID and event_id.startswith(given))


@attrs.frozen(kw_only=True)
class LetterKey:
    """Identifies one dead letter among those of a service.

    Attributes:
        event_id: The id of its event, which several listeners may have given up.
        listener: The listener that gave it up.
        failed_at: When it did so, in UTC.
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


class DeadLetters:
    """The dead letters of the service of `client`, in every place where its APIs keep theirs."""

    def __init__(self, client: BusClient) -> None:
        self._client = client

    async def matching(self, wanted: Filter) -> AsyncGenerator[DeadLetter]:
        """Yield those that are meant, oldest first within each place; close it after use.

        Raises:
            TransportError: They cannot be read.
            TypeError: A time in `wanted` is naive.
        """
        service_name = self._client.config.service_name
        for api_name in self._client.one_api_of_each_place():
            transport = await self._client.opened_transport(api_name)
            letters = transport.dead_letters(service_name)
            async with contextlib.aclosing(letters):
                async for letter in letters:
                    if wanted.matches(letter):
                        yield letter

    async def replay(self, letter: DeadLetter, *, message: EventMessage | None = None) -> None:
        """Send the event to the listener that gave it up, as a first attempt, and forget the dead
        letter. Where this is interrupted in between, the event exists twice.

        Args:
            letter: One that `matching` yields just now.
            message: What to send in its place, for parameters that were wrong.

        Raises:
            TransportError: The event was not sent, for example because the listener's queue is
                gone; the dead letter is still there. Or it was sent, and the dead letter may still
                be there.
        """
        message = message or letter.message
        subscription = Subscription(
            service_name=letter.failure.service_name or self._client.config.service_name,
            listener_name=letter.failure.listener,
            api_name=message.api_name,
            events=frozenset({message.event_name}),
            concurrency=1,
            acknowledgement_timeout=1,
            delays=frozenset(),
        )
        transport = await self._client.opened_transport(message.api_name)
        timeout = self._client.config.api(message.api_name).fire_timeout
        await transport.put(subscription, message, attempt=1, timeout=timeout)
        await letter.discard()
