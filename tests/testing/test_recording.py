"""Buses that record what is fired: what programs test themselves with."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from datetime import date

import pytest

import lightbus
from core.apis import AuthApi, TicketApi
from lightbus import Api, Bus, Event, EventMessage, OnError
from lightbus.testing import RecordingBus, recording


class MailApi(Api):
    sent = Event(parameters=("to", "on"))

    class Meta:
        name = "mail"


@pytest.fixture
def bus(recording_bus: RecordingBus) -> RecordingBus:
    for api in (AuthApi, MailApi, TicketApi):
        recording_bus.client.register_api(api)
    return recording_bus


def adding_to(names: list[str]) -> Callable[[str], None]:
    """Return a handler."""

    def add(username: str) -> None:
        names.append(username)

    return add


def fail(username: str) -> None:
    """Be a handler that fails."""
    raise LookupError(username)


# What was fired


async def test_fired_events_can_be_read(bus: RecordingBus) -> None:
    await bus.auth.user_deleted.fire_async(username="ann")
    await bus.auth.user_created.fire_async(username="bob", email="b@x")

    assert [event.canonical_name for event in bus.fired_events()] == [
        "auth.user_deleted",
        "auth.user_created",
    ]
    (created,) = bus.fired_events("auth.user_created")
    assert created.kwargs == {"username": "bob", "email": "b@x"}


def test_a_blocking_fire_is_recorded_too(bus: RecordingBus) -> None:
    bus.auth.user_deleted.fire(username="ann")

    bus.assert_fired("auth.user_deleted", username="ann")


async def test_fired_events_are_found_by_some_of_their_fields(bus: RecordingBus) -> None:
    await bus.auth.user_created.fire_async(username="ann", email="a@x")
    await bus.auth.user_created.fire_async(username="bob", email="b@x")

    assert bus.assert_fired("auth.user_created", username="bob").kwargs["email"] == "b@x"
    assert bus.assert_fired("auth.user_created").kwargs["username"] == "ann"


async def test_fields_are_compared_as_they_are_encoded(bus: RecordingBus) -> None:
    await bus.mail.sent.fire_async(to="ann", on=date(2024, 2, 29))

    bus.assert_fired("mail.sent", on=date(2024, 2, 29))
    bus.assert_fired("mail.sent", on="2024-02-29")


async def test_a_missing_event_is_reported_with_the_fired_ones(bus: RecordingBus) -> None:
    await bus.auth.user_created.fire_async(username="ann", email="a@x")

    with pytest.raises(AssertionError) as raised:
        bus.assert_fired("auth.user_created", username="bob")
    assert str(raised.value) == (
        "auth.user_created(username='bob') was not fired. Fired:\n"
        "  auth.user_created(username='ann', email='a@x')"
    )
    with pytest.raises(AssertionError, match=r"Did you mean 'auth\.user_created'"):
        bus.assert_fired("auth.user_creatd")


def test_an_error_says_that_nothing_was_fired(bus: RecordingBus) -> None:
    with pytest.raises(AssertionError, match="Nothing was fired"):
        bus.assert_fired("auth.user_created")


async def test_an_unexpected_event_fails_the_test_by_name(bus: RecordingBus) -> None:
    await bus.auth.user_deleted.fire_async(username="ann")

    bus.assert_not_fired("auth.user_created")
    bus.assert_not_fired("auth.user_deleted", username="bob")
    with pytest.raises(AssertionError, match=r"auth.user_deleted\(username='ann'\) was fired"):
        bus.assert_not_fired("auth.user_deleted")


async def test_an_event_that_a_hook_stopped_was_not_fired(bus: RecordingBus) -> None:
    @bus.client.before_event_sent()
    def refuse() -> None:
        raise PermissionError

    with pytest.raises(PermissionError):
        await bus.auth.user_deleted.fire_async(username="ann")

    bus.assert_not_fired("auth.user_deleted")


# Draining


async def test_drain_runs_the_handlers_also_of_events_that_handlers_fire(
    bus: RecordingBus,
) -> None:
    deleted: list[str] = []

    async def send_mail(username: str) -> None:
        await bus.mail.sent.fire_async(to=username, on=None)

    def forget(to: str) -> None:
        bus.auth.user_deleted.fire(username=to)

    bus.auth.user_created.listen(send_mail, listener_name="mail")
    bus.mail.sent.listen(forget, listener_name="forget")
    bus.auth.user_deleted.listen(adding_to(deleted), listener_name="gather")
    await bus.auth.user_created.fire_async(username="ann", email="a@x")
    assert bus.fired_events("mail.sent") == []

    await bus.drain()

    bus.assert_fired("mail.sent", to="ann")
    assert deleted == ["ann"]


def test_a_test_without_an_event_loop_can_drain(bus: RecordingBus) -> None:
    handled: list[str] = []
    bus.auth.user_deleted.listen(adding_to(handled), listener_name="gather")
    bus.auth.user_deleted.fire(username="ann")

    asyncio.run(bus.drain())

    assert handled == ["ann"]


async def test_drain_can_run_twice_at_once(bus: RecordingBus) -> None:
    handled: list[str] = []
    bus.auth.user_deleted.listen(adding_to(handled), listener_name="gather")
    for username in ("ann", "bob"):
        await bus.auth.user_deleted.fire_async(username=username)

    async with asyncio.timeout(5):
        await asyncio.gather(bus.drain(), bus.drain())

    assert handled == ["ann", "bob"]


async def test_drain_without_events_does_nothing(bus: RecordingBus) -> None:
    await bus.drain()
    bus.auth.user_deleted.listen(print, listener_name="gather")
    await bus.drain()


@pytest.mark.parametrize("on_error", list(OnError))
async def test_an_error_of_a_handler_is_raised(bus: RecordingBus, on_error: OnError) -> None:
    handled: list[str] = []

    bus.auth.user_deleted.listen(fail, listener_name="fails", on_error=on_error)
    bus.auth.user_deleted.listen(adding_to(handled), listener_name="works")
    await bus.auth.user_deleted.fire_async(username="ann")

    with pytest.raises(LookupError, match="ann") as raised:
        await bus.drain()

    assert bus.failures == [raised.value]
    assert handled == ["ann"]
    await bus.drain()


async def test_errors_of_several_handlers_are_raised_together(bus: RecordingBus) -> None:
    bus.auth.user_deleted.listen(fail, listener_name="fails")
    for username in ("ann", "bob"):
        await bus.auth.user_deleted.fire_async(username=username)

    with pytest.raises(ExceptionGroup, match="handlers failed") as raised:
        await bus.drain()

    assert [str(error) for error in raised.value.exceptions] == ["ann", "bob"]


async def test_an_event_that_its_handler_cannot_receive_is_a_failure(bus: RecordingBus) -> None:
    bus.auth.user_deleted.listen(print, listener_name="gather")
    await bus.client.fire_async(
        EventMessage(api_name="auth", event_name="user_deleted", body=b"not json")
    )

    with pytest.raises(lightbus.exceptions.UndecodableEvent):
        await bus.drain()


# A program's own bus


@pytest.fixture
def programs_bus() -> Bus:
    """One whose configuration leads elsewhere."""
    unusable = {"event_transport": {"sqlite": {"path": "/dev/null/events.db"}}}
    bus = lightbus.create({"apis": {"default": unusable, "mail": unusable}}, service_name="shop")
    bus.client.register_api(AuthApi)
    bus.client.register_api(MailApi)
    return bus


async def test_the_bus_of_a_program_fires_into_memory_while_it_is_recorded(
    programs_bus: Bus,
) -> None:
    handled: list[str] = []
    programs_bus.auth.user_deleted.listen(adding_to(handled), listener_name="gather")

    with recording(programs_bus) as recorded:
        await programs_bus.auth.user_deleted.fire_async(username="ann")
        await programs_bus.mail.sent.fire_async(to="ann", on=None)
        await recorded.drain()

    recorded.assert_fired("mail.sent", to="ann")
    assert handled == ["ann"]
    with pytest.raises(lightbus.exceptions.TransportRefused):
        await programs_bus.auth.user_deleted.fire_async(username="bob")
    assert len(recorded.fired_events()) == 2


async def test_recordings_are_independent(programs_bus: Bus) -> None:
    handled: list[str] = []
    programs_bus.auth.user_deleted.listen(adding_to(handled), listener_name="gather")
    with recording(programs_bus):
        await programs_bus.auth.user_deleted.fire_async(username="ann")

    with recording(programs_bus) as second:
        await second.drain()

    assert second.fired_events() == []
    assert handled == []


async def test_nested_recordings_record_their_own_events(programs_bus: Bus) -> None:
    with recording(programs_bus) as outer:
        await programs_bus.auth.user_deleted.fire_async(username="ann")
        with recording(programs_bus) as inner:
            await programs_bus.auth.user_deleted.fire_async(username="bob")
        await programs_bus.auth.user_deleted.fire_async(username="cem")

    assert [event.kwargs["username"] for event in outer.fired_events()] == ["ann", "cem"]
    assert [event.kwargs["username"] for event in inner.fired_events()] == ["bob"]


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_overlapping_recordings_restore_the_bus(programs_bus: Bus, order: tuple[int, ...]) -> None:
    before = programs_bus.client.transports.describe("auth")
    recordings = [recording(programs_bus) for _ in order]
    recorded = {number: one.__enter__() for number, one in enumerate(recordings)}
    running = set(recorded)
    for number in order:
        programs_bus.auth.user_deleted.fire(username=f"before {number} ends")
        last = recorded[max(running)].fired_events()[-1]
        assert last.kwargs["username"] == f"before {number} ends"
        recordings[number].__exit__(None, None, None)
        running.remove(number)

    assert programs_bus.client.transports.describe("auth") == before
    assert sum(len(one.fired_events()) for one in recorded.values()) == len(order)
    with pytest.raises(lightbus.exceptions.TransportRefused):
        programs_bus.auth.user_deleted.fire(username="ann")
    programs_bus.client.close()


async def test_a_recording_drains_its_own_events_while_another_is_in_use(programs_bus: Bus) -> None:
    handled: list[str] = []
    programs_bus.auth.user_deleted.listen(adding_to(handled), listener_name="gather")

    with recording(programs_bus) as outer:
        await programs_bus.auth.user_deleted.fire_async(username="ann")
        with recording(programs_bus) as inner:
            await programs_bus.auth.user_deleted.fire_async(username="bob")
            await outer.drain()
            assert handled == ["ann"]
    await inner.drain()

    assert handled == ["ann", "bob"]


async def test_an_event_is_recorded_even_if_a_hook_fails(programs_bus: Bus) -> None:
    @programs_bus.client.after_event_sent()
    def fail_after() -> None:
        raise LookupError

    with recording(programs_bus) as recorded:
        await programs_bus.auth.user_deleted.fire_async(username="ann")

    recorded.assert_fired("auth.user_deleted")
