"""`BrokerUnderTest`: a broker, reached through the transport under test, and its fixtures."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import string
from collections.abc import AsyncIterator, Iterable
from datetime import UTC, datetime
from typing import Any, Self, TypeVar

import pytest
import pytest_asyncio

from lightbus.config import TransportSettings
from lightbus.encoding.settings import convert_settings
from lightbus.message import EventMessage
from lightbus.transport.contract import Delivery, DeliveryStream, EventTransport
from lightbus.transport.failure import Failure
from lightbus.transport.features import DeadLetter, DeadLetterStore, lists, require, supports
from lightbus.transport.records import QueueAddress, Subscription
from lightbus.transport.registry import find_transport

F = TypeVar("F")

# What the cases ask for as a short delay, in seconds.
DELAY = 0.3

# Every character that a name may contain, and names with a meaning for file systems and patterns.
NAMES = {
    "every character": string.ascii_letters + string.digits + "-_.,@/+",
    "folders": "../..",
    "long": "x" * 100,
    "case": "Aa",
}

_END = "end of the events: "


class BrokerUnderTest:
    """Makes transports to one broker, and closes them after the case.

    The names of its services and APIs are its own, so that cases may share a broker.

    Attributes:
        transport_class: The transport under test.
        event_transport: Its name and its settings, as in a configuration file.
        patience: How long something that must happen is waited for, in seconds.
        service_name: The service that listens, unless a case says otherwise.
        api_name: The API whose events are sent, unless a case says otherwise.
    """

    def __init__(
        self,
        transport_class: type[EventTransport],
        event_transport: TransportSettings,
        *,
        patience: float,
    ) -> None:
        self.transport_class = transport_class
        self.event_transport = event_transport
        self.patience = patience
        unique = secrets.token_hex(4)
        self.service_name = f"service-{unique}"
        self.api_name = f"api-{unique}.events"
        self._made: list[EventTransport] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for transport in self._made:
            async with asyncio.timeout(self.patience):
                await transport.close()

    def need(self, feature: type[Any]) -> None:
        """Skip the case if the transport does not list `feature`."""
        if not lists(self.transport_class, feature):
            pytest.skip(f"{self.transport_class.__name__} does not support {feature.__name__}.")

    async def open_with(self, feature: type[F]) -> tuple[EventTransport, F]:
        """Return a new open transport twice: as itself, and as one that supports `feature`. Skip
        the case if it does not.
        """
        self.need(feature)
        transport = await self.open()
        return transport, require(transport, feature, "the conformance suite")

    def make(self) -> EventTransport:
        """Return a new transport that is not open."""
        ((name, settings),) = self.event_transport.items()
        wanted = self.transport_class.Settings
        converted = convert_settings(
            settings or {}, wanted, source="the fixture event_transport", path=name
        )
        transport = self.transport_class(converted, client_name="conformance")
        self._made.append(transport)
        return transport

    async def open(self) -> EventTransport:
        """Return a new transport that is open."""
        transport = self.make()
        await transport.open(timeout=self.patience)
        return transport

    def subscription(
        self,
        listener_name: str = "listener",
        *,
        service_name: str | None = None,
        api_name: str | None = None,
        events: Iterable[str] = ("happened",),
        concurrency: int = 1,
    ) -> Subscription:
        """Return a subscription to events of the API."""
        return Subscription(
            service_name=service_name or self.service_name,
            listener_name=listener_name,
            api_name=api_name or self.api_name,
            events=frozenset(events),
            concurrency=concurrency,
            acknowledgement_timeout=60.0,
            delays=frozenset({DELAY, 60.0}),
        )

    def message(
        self,
        text: str = "",
        *,
        event_name: str = "happened",
        api_name: str | None = None,
        body: bytes | None = None,
    ) -> EventMessage:
        """Return an event that carries `text`, or that has this body."""
        api_name = api_name or self.api_name
        if body is not None:
            return EventMessage(api_name=api_name, event_name=event_name, body=body)
        return EventMessage.create(api_name, event_name, {"text": text}, service_name="sender")

    async def send(self, transport: EventTransport, *texts: str) -> None:
        """Send one event for each text, one after another."""
        for text in texts:
            await transport.send(self.message(text), timeout=self.patience)

    async def send_to(
        self, transport: EventTransport, queue: QueueAddress, text: str, *, attempt: int = 1
    ) -> None:
        """Send an event to one queue."""
        message = self.message(text, api_name=queue.api_name)
        await transport.send(message, to=queue, attempt=attempt, timeout=self.patience)

    async def receive(self, stream: DeliveryStream) -> Delivery:
        """Return the next delivery."""
        async with asyncio.timeout(self.patience):
            return await anext(stream)

    async def receive_many(self, stream: DeliveryStream, count: int) -> list[Delivery]:
        """Return the next `count` deliveries."""
        return [await self.receive(stream) for _ in range(count)]

    async def texts_before_end(
        self, transport: EventTransport, stream: DeliveryStream
    ) -> list[str]:
        """Send a last event; receive and acknowledge all before it, and return their texts.

        The last event reaches every subscription, and does not count in any.
        """
        end = f"{_END}{secrets.token_hex(4)}"
        await self.send(transport, end)
        texts: list[str] = []
        while not texts or texts[-1] != end:
            delivery = await self.receive(stream)
            await delivery.ack()
            texts.append(text_of(delivery))
        return [text for text in texts if not text.startswith(_END)]

    async def dead_letters(
        self, transport: EventTransport, service_name: str | None = None
    ) -> list[DeadLetter]:
        """Return the dead letters of the service; none if the transport does not list
        `DeadLetterStore`. They cannot be discarded any more.
        """
        if not supports(transport, DeadLetterStore):
            return []
        letters = transport.dead_letters(service_name or self.service_name)
        async with contextlib.aclosing(letters):
            return [letter async for letter in letters]

    def failure(self, message: str = "it broke", **others: Any) -> Failure:
        """Return an example of a failure."""
        values: dict[str, Any] = {
            "error_type": "builtins.ValueError",
            "error_message": message,
            "traceback": "Traceback (most recent call last): ...",
            "failed_at": datetime.now(UTC),
            "first_failed_at": datetime.now(UTC),
            "listener": "listener",
            "attempt": 1,
            "service_name": self.service_name,
            "process_name": "worker-1",
        }
        return Failure(**values | others)


def text_of(event: Delivery | DeadLetter) -> str:
    """Return what `BrokerUnderTest.message` was given."""
    return str(event.message.kwargs["text"])


def texts_of(events: Iterable[Delivery | DeadLetter]) -> list[str]:
    """Return the text of each."""
    return [text_of(event) for event in events]


@pytest.fixture
def transport_class(event_transport: TransportSettings) -> type[EventTransport]:
    """The transport under test: found by its name, as a program would."""
    (name,) = event_transport
    return find_transport(name)


@pytest.fixture
def patience() -> float:
    """How long something that must happen is waited for, in seconds."""
    return 20.0


@pytest_asyncio.fixture(loop_scope="function")
async def broker(
    transport_class: type[EventTransport],
    event_transport: TransportSettings,
    patience: float,
) -> AsyncIterator[BrokerUnderTest]:
    """The broker under test."""
    async with BrokerUnderTest(transport_class, event_transport, patience=patience) as under_test:
        yield under_test
