"""Events of a sender that may only fire, with forged headers of Lightbus."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from aiormq.abc import DeliveredMessage

from lightbus import Bus, EventMessage, OnError, Worker
from lightbus.transport.features import DeadLetter
from rabbitmq_support import DEAD, QUEUE, Broker, MakeBus, Seen, headers_of, transport_of

BODY = b'{"username": "ada"}'
LONG_AGO = "2001-01-01T00:00:00+00:00"

FORGED: dict[str, Any] = {
    "lightbus-attempt": 99,
    "lightbus-first-failed-at": LONG_AGO,
    "lightbus-listener": "other",
    "lightbus-service": "other",
    "lightbus-api": "other",
    "lightbus-error-type": "Forged",
    "lightbus-queue": "other",
    "x-delivery-count": 99,
    "x-acquired-count": 99,
}


@pytest.fixture
def bus(make_bus: MakeBus) -> Bus:
    """A bus with three attempts and a short delay."""
    return make_bus(acknowledgement_timeout=1, max_attempts=3, retry={"first": 0.1, "longest": 0.1})


def listen(bus: Bus, *, failures: int, on_error: OnError = OnError.RETRY) -> Seen[str]:
    """Listen for both events of the API, and fail that many times."""
    seen = Seen[str]()

    async def welcome(event: EventMessage) -> None:
        await seen.add(event.canonical_name)
        if len(seen.items) <= failures:
            raise ValueError(event.id)

    bus.client.listen_for_events(
        [("auth", "user_created"), ("auth", "user_deleted")],
        welcome,
        listener_name="welcome",
        on_error=on_error,
    )
    return seen


async def only_dead_letter(bus: Bus) -> DeadLetter:
    """Return the dead letter of the service."""
    (letter,) = [letter async for letter in transport_of(bus).dead_letters("shop")]
    return letter


async def test_the_routing_key_of_an_event_beats_its_type(bus: Bus, broker: Broker) -> None:
    seen = listen(bus, failures=1)
    async with Worker(bus):
        await broker.put(
            "lightbus:auth", "user_created", BODY, message_type="auth.user_deleted", headers=FORGED
        )
        # The copy, whose headers are trusted, has the same attempt.
        assert await seen.wait_for(2) == ["auth.user_created"] * 2


async def test_an_event_that_claims_to_be_at_its_last_attempt_has_all_of_them(
    bus: Bus, broker: Broker
) -> None:
    seen = listen(bus, failures=9)
    async with Worker(bus):
        await broker.put("lightbus:auth", "user_created", BODY, headers=FORGED)
        await broker.wait_for_count(DEAD, 1)

    assert len(seen.items) == 3
    failure = (await only_dead_letter(bus)).failure
    assert failure.attempt == 3
    assert failure.first_failed_at > datetime.now(UTC) - timedelta(minutes=5)
    assert (failure.listener, failure.service_name) == ("welcome", "shop")


async def test_the_first_failure_that_an_event_claims_is_not_trusted_after_a_delay(
    bus: Bus, broker: Broker
) -> None:
    seen = listen(bus, failures=9, on_error=OnError.ACKNOWLEDGE_AND_LOG)
    async with Worker(bus):
        pass
    await broker.put("lightbus:auth", "user_created", BODY, headers=FORGED)
    for _ in range(2):
        # Workers that the event kills
        lost = await broker.channel.connection.channel()
        await broker.wait_for_count(QUEUE, 1)
        await lost.basic_get(QUEUE)
        await lost.close()
    async with Worker(bus):
        await broker.wait_for_count(DEAD, 1)

    assert len(seen.items) == 1
    failure = (await only_dead_letter(bus)).failure
    assert failure.attempt == 3
    assert failure.first_failed_at > datetime.now(UTC) - timedelta(minutes=5)


async def test_a_delivery_count_from_the_sender_is_not_trusted_after_a_worker_stopped(
    bus: Bus, broker: Broker
) -> None:
    listen(bus, failures=9, on_error=OnError.ACKNOWLEDGE_AND_LOG)
    async with Worker(bus):
        pass
    await broker.put("lightbus:auth", "user_created", BODY, headers=FORGED)
    await broker.wait_for_count(QUEUE, 1)
    taken = await broker.channel.basic_get(QUEUE)
    await broker.channel.basic_nack(int(taken.delivery_tag or 0), requeue=True)
    async with Worker(bus):
        await broker.wait_for_count(DEAD, 1)

    # Before 4.3, RabbitMQ counts it. Later versions report how often the event was delivered.
    assert (await only_dead_letter(bus)).failure.attempt == 2


async def test_a_dead_letter_of_the_broker_has_the_details_of_the_broker(
    bus: Bus, broker: Broker
) -> None:
    listen(bus, failures=0)
    async with Worker(bus):
        pass
    await broker.put(
        "lightbus:auth", "user_created", BODY, message_type="auth.user_deleted", headers=FORGED
    )
    await give_up(broker)

    assert headers_of(await peek(broker, DEAD))["lightbus-listener"] == "other"
    letter = await only_dead_letter(bus)
    assert letter.message.canonical_name == "auth.user_created"
    failure = letter.failure
    assert (failure.listener, failure.service_name) == ("welcome", "shop")
    assert (failure.error_type, failure.attempt) == ("rabbitmq.delivery_limit", 1)
    assert failure.first_failed_at > datetime.now(UTC) - timedelta(minutes=5)


async def test_a_dead_letter_that_the_broker_made_of_a_copy_keeps_its_name_and_attempt(
    bus: Bus, broker: Broker
) -> None:
    listen(bus, failures=0)
    async with Worker(bus):
        pass
    await broker.put(
        "lightbus::return",
        f"100.{QUEUE}",
        BODY,
        message_type="auth.user_deleted",
        headers={"lightbus-attempt": 2, "lightbus-first-failed-at": LONG_AGO},
    )
    await give_up(broker)

    letter = await only_dead_letter(bus)
    assert letter.message.canonical_name == "auth.user_deleted"
    assert letter.failure.attempt == 2
    assert letter.failure.first_failed_at == datetime.fromisoformat(LONG_AGO)


async def give_up(broker: Broker) -> None:
    """Requeue an event until the broker dead-letters it."""

    async def reject(taken: DeliveredMessage) -> None:
        await broker.channel.basic_reject(int(taken.delivery_tag or 0))

    await broker.wait_for_count(QUEUE, 1)
    consumed = await broker.channel.basic_consume(QUEUE, reject)
    await broker.wait_for_count(DEAD, 1)
    await broker.channel.basic_cancel(str(consumed.consumer_tag))


async def peek(broker: Broker, queue: str) -> DeliveredMessage:
    """Return the first message of a queue, and leave it there."""
    channel = await broker.channel.connection.channel()
    taken = await channel.basic_get(queue)
    await channel.close()
    await broker.wait_for_count(queue, 1)
    return taken
