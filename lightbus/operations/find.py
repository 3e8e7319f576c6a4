"""`find_event`: finds an event in the queues of listeners and among the dead letters."""

from __future__ import annotations

import contextlib

import attrs

from lightbus.client import BusClient
from lightbus.message import EventMessage
from lightbus.operations.dead_letters import DeadLetters, Filter
from lightbus.operations.known_apis import one_api_per_broker
from lightbus.transport.features import DeadLetter, FindEvent, supports
from lightbus.transport.records import EventLocation


@attrs.frozen(kw_only=True)
class FoundEvent:
    """An event, with its locations and its dead letters.

    Attributes:
        message: The event.
        locations: Its locations in the queues of listeners.
        dead_letters: Its dead letters, oldest first within each broker.
    """

    message: EventMessage
    locations: list[EventLocation]
    dead_letters: list[DeadLetter]


@attrs.frozen(kw_only=True)
class FindResult:
    """The result of `find_event`.

    Attributes:
        events: The events that match the id.
        is_complete: Whether all brokers could search the queues of listeners. If not, an event that
            is only in a queue may be missing.
    """

    events: list[FoundEvent]
    is_complete: bool


async def find_event(client: BusClient, event_id: str) -> FindResult:
    """Find the events whose id is `event_id`, or begins with it.

    Args:
        client: The client of the service's bus.
        event_id: A whole id, or its first 8 characters or more.

    Raises:
        TransportError: A broker failed.
    """
    locations, is_complete = await _find_in_queues(client, event_id)
    letters = DeadLetters(client).matching(Filter(ids=frozenset({event_id})))
    async with contextlib.aclosing(letters):
        dead = [letter async for letter in letters]
    messages = [location.message for location in locations] + [letter.message for letter in dead]
    events = [
        FoundEvent(
            message=message,
            locations=[location for location in locations if location.message.id == message.id],
            dead_letters=[letter for letter in dead if letter.message.id == message.id],
        )
        for message in {message.id: message for message in messages}.values()
    ]
    return FindResult(events=events, is_complete=is_complete)


async def _find_in_queues(client: BusClient, event_id: str) -> tuple[list[EventLocation], bool]:
    locations: list[EventLocation] = []
    is_complete = True
    for api_name in one_api_per_broker(client):
        transport = await client.transports.open(api_name)
        if supports(transport, FindEvent):
            locations += await transport.find(event_id)
        else:
            is_complete = False
    return locations, is_complete
