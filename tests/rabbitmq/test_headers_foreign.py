"""Events of other programs, in forms that Lightbus does not send."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from lightbus import EventMessage, OnError, Worker
from rabbitmq_support import DEAD, QUEUE, Broker, MakeBus, Raw, Seen, headers_of

HARMFUL_HEADERS: dict[str, dict[str, Any]] = {
    "too large to be sent again": {"theirs": "v" * 125_000},
    "not UTF-8": {"theirs": "raw-\N{LATIN SMALL LETTER Y WITH DIAERESIS}"},
    "a first failure of too many letters": {"lightbus-first-failed-at": "v" * 125_000},
    "fired before all time": {"cloudEvents:time": "0001-01-01T00:00:00+00:00"},
    "returned a million times": {"x-delivery-count": 10**6},
}


@pytest.mark.parametrize("body", [b"", b"\xff\xfe", b"[1, 2]", b'"text"', b"{" * 100_000])
async def test_a_body_that_is_no_json_object_becomes_a_dead_letter(
    make_bus: MakeBus, broker: Broker, body: bytes
) -> None:
    bus = make_bus()
    seen = Seen[str]()
    bus.auth.user_created.listen(lambda username: seen.add(username), listener_name="welcome")
    async with Worker(bus) as worker:
        await broker.put("lightbus:auth", "user_created", body)
        letter = await broker.wait_for_message(DEAD)
        await bus.auth.user_created.fire_async(username="ada", email="e")
        await seen.wait_for(1)
        assert worker.failure is None

    assert letter.body == body
    assert headers_of(letter)["lightbus-error-type"].endswith("UndecodableEvent")


async def test_hostile_headers_harm_nothing(make_bus: MakeBus, broker: Broker) -> None:
    bus = make_bus()
    seen = Seen[EventMessage]()

    async def welcome(event: EventMessage) -> None:
        await seen.add(event)

    bus.auth.user_created.listen(welcome, listener_name="welcome")
    hostile = {
        "lightbus-attempt": "many",
        "lightbus-api-version": -7,
        "cloudEvents:time": "yesterday",
        "lightbus-first-failed-at": {"a": [1]},
    }
    async with Worker(bus):
        await broker.put("lightbus:auth", "user_created", b"{}", headers=hostile)
        await broker.put("lightbus:auth", "user_created", b"{}", message_type="other.thing")
        events = await seen.wait_for(2)

    assert [event.canonical_name for event in events] == ["auth.user_created"] * 2
    assert events[0].version == 1


async def test_another_program_needs_to_send_only_a_json_body(
    make_bus: MakeBus, broker: Broker
) -> None:
    bus = make_bus()
    seen = Seen[EventMessage]()

    async def welcome(event: EventMessage, username: str) -> None:
        await seen.add(event)

    bus.auth.user_created.listen(welcome, listener_name="welcome")
    async with Worker(bus):
        await broker.put("lightbus:auth", "user_created", b'{"username": "ada"}')
        (event,) = await seen.wait_for(1)

    assert event.kwargs == {"username": "ada"}
    assert event.id


@pytest.fixture(params=list(HARMFUL_HEADERS.values()), ids=list(HARMFUL_HEADERS))
def harmful(request: pytest.FixtureRequest) -> Raw:
    """Properties with a header that cannot be copied."""
    return Raw(headers=request.param)


async def test_an_event_with_any_headers_can_be_dead_lettered(
    make_bus: MakeBus, broker: Broker, harmful: Raw
) -> None:
    bus = make_bus()
    seen = Seen[str]()

    async def welcome(username: str) -> None:
        await seen.add(username)
        if username == "ada":
            raise ValueError(username)

    bus.auth.user_created.listen(
        welcome, listener_name="welcome", on_error=OnError.ACKNOWLEDGE_AND_LOG
    )
    async with Worker(bus):
        await broker.put_raw("lightbus:auth", "user_created", b'{"username": "ada"}', harmful)
        letter = await broker.wait_for_message(DEAD)
        await bus.auth.user_created.fire_async(username="bob", email="e")
        async with asyncio.timeout(20):
            while "bob" not in seen.items:
                await seen.wait_for(len(seen.items) + 1)

    assert letter.body == b'{"username": "ada"}'
    assert headers_of(letter)["lightbus-listener"] == "welcome"


async def test_an_event_with_any_headers_can_be_retried(make_bus: MakeBus, broker: Broker) -> None:
    bus = make_bus(acknowledgement_timeout=0.1)
    seen = Seen[str]()

    async def welcome(username: str) -> None:
        await seen.add(username)
        if len(seen.items) == 1:
            raise ValueError(username)

    bus.auth.user_created.listen(welcome, listener_name="welcome")
    first = asyncio.create_task(Worker(bus).run())
    await broker.wait_for_consumer(QUEUE)
    too_large = Raw(headers=HARMFUL_HEADERS["too large to be sent again"])
    await broker.put_raw("lightbus:auth", "user_created", b'{"username": "ada"}', too_large)
    with pytest.raises(ValueError, match="ada"):
        await first

    async with Worker(bus):
        assert await seen.wait_for(2) == ["ada", "ada"]


async def test_a_copy_ignores_the_cc_header_of_the_sender(
    make_bus: MakeBus, broker: Broker
) -> None:
    bus = make_bus()
    await broker.channel.queue_declare("theirs")

    def welcome(username: str) -> None:
        raise ValueError(username)

    bus.auth.user_created.listen(
        welcome, listener_name="welcome", on_error=OnError.ACKNOWLEDGE_AND_LOG
    )
    async with Worker(bus):
        await broker.put(
            "lightbus:auth", "user_created", b'{"username": "ada"}', headers={"CC": ["theirs"]}
        )
        await broker.wait_for_message(DEAD)

    assert await broker.count("theirs") == 0


@pytest.mark.parametrize(
    "unreadable", [Raw(message_id="raw-ÿ"), Raw(headers={"raw-ÿ": 1})], ids=["id", "header's name"]
)
async def test_an_event_that_the_driver_cannot_read_does_not_affect_later_ones(
    make_bus: MakeBus, broker: Broker, unreadable: Raw
) -> None:
    bus = make_bus()
    seen = Seen[str]()
    bus.auth.user_created.listen(lambda username: seen.add(username), listener_name="welcome")
    async with Worker(bus):
        await broker.put_raw("lightbus:auth", "user_created", b'{"username": "ada"}', unreadable)
        for username in ("bob", "cid"):
            await bus.auth.user_created.fire_async(username=username, email="e")

        assert await seen.wait_for(2) == ["bob", "cid"]
        await broker.wait_for_count(DEAD, 1)


async def test_a_restored_consumer_prefetches_several_events_again(
    make_bus: MakeBus, broker: Broker
) -> None:
    bus = make_bus(transport={"prefetch": 4})
    release = asyncio.Event()
    seen = Seen[str]()

    async def welcome(username: str) -> None:
        await seen.add(username)
        await release.wait()

    bus.auth.user_created.listen(welcome, listener_name="welcome", concurrency=4)
    async with Worker(bus):
        await broker.channel.queue_delete(QUEUE)
        await broker.wait_for_consumer(QUEUE)
        for number in range(4):
            await bus.auth.user_created.fire_async(username=f"u{number}", email="e")

        assert await seen.wait_for(4) == ["u0", "u1", "u2", "u3"]
        release.set()
