"""Firing events: the message that is sent, and what cannot be fired."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from core.apis import AuditApi, AuthApi, TicketApi
from core.support import MakeBus, ignore, take_waiting
from lightbus import Bus, EventMessage
from lightbus.bus import BusPath
from lightbus.exceptions import (
    ApiError,
    EventNotFound,
    InvalidEventArguments,
    LightbusException,
    SendRefused,
    UnencodableValue,
)
from lightbus_memory.broker import Broker

Fire = Callable[..., Awaitable[EventMessage]]


@pytest.fixture
def bus(make_bus: MakeBus) -> Bus:
    """A bus that knows the APIs of the tests."""
    return make_bus(AuthApi, TicketApi, AuditApi)


def test_fire_returns_the_message_that_was_sent(bus: Bus, broker: Broker) -> None:
    bus.auth.user_deleted.listen(ignore, listener_name="gather")

    fired = bus.auth.user_deleted.fire(username="ann")

    (entry,) = take_waiting(broker, bus)
    assert entry.message == fired
    assert (fired.api_name, fired.event_name, fired.canonical_name) == (
        "auth",
        "user_deleted",
        "auth.user_deleted",
    )
    assert fired.kwargs == {"username": "ann"}
    assert fired.service_name == "shop"


async def test_fire_async_returns_the_message_that_was_sent(bus: Bus, broker: Broker) -> None:
    bus.auth.user_deleted.listen(ignore, listener_name="gather")

    fired = await bus.auth.user_deleted.fire_async(username="ann")

    assert [entry.message for entry in take_waiting(broker, bus)] == [fired]


async def test_a_default_is_sent_if_the_argument_is_missing(bus: Bus) -> None:
    ticket_created = bus.help_desk.ticket.ticket_created

    assert (await ticket_created.fire_async(title="a")).kwargs == {"title": "a", "urgent": False}
    assert (await ticket_created.fire_async(title="b", urgent=True)).kwargs["urgent"] is True


async def test_a_wildcard_accepts_other_arguments(bus: Bus) -> None:
    fired = await bus.audit.anything.fire_async(what="sold", price=3)

    assert fired.kwargs == {"what": "sold", "price": 3}


@pytest.fixture(params=["fire", "fire_async"])
def fire(request: pytest.FixtureRequest) -> Fire:
    """Fires by `fire` and by `fire_async`; nothing in these tests reaches the broker."""

    async def call(path: BusPath, *args: Any, **kwargs: Any) -> EventMessage:
        if request.param == "fire":
            return path.fire(*args, **kwargs)
        return await path.fire_async(*args, **kwargs)

    return call


async def test_firing_on_an_api_that_is_not_registered_names_it_and_the_near_one(
    bus: Bus, fire: Fire
) -> None:
    with pytest.raises(EventNotFound) as raised:
        await fire(bus.aut.user_deleted, username="ann")

    assert raised.value.api_name == "aut"
    assert "'aut' is not registered" in str(raised.value)
    assert "register_api" in str(raised.value)
    assert "Did you mean 'auth'?" in str(raised.value)


async def test_firing_an_unknown_event_names_it_and_the_near_one(bus: Bus, fire: Fire) -> None:
    with pytest.raises(EventNotFound) as raised:
        await fire(bus.auth.user_delete, username="ann")

    assert (raised.value.api_name, raised.value.event_name) == ("auth", "user_delete")
    assert "Did you mean 'user_deleted'?" in str(raised.value)


async def test_missing_and_unexpected_arguments_are_all_named_at_once(bus: Bus, fire: Fire) -> None:
    with pytest.raises(InvalidEventArguments) as raised:
        await fire(bus.auth.user_created, name="ann", password="hunter2")

    assert raised.value.missing == ("username", "email")
    assert raised.value.unexpected == ("name", "password")
    message = str(raised.value)
    assert "auth.user_created" in message
    assert all(f"'{name}'" in message for name in ("username", "email", "name", "password"))
    assert "hunter2" not in message


async def test_positional_arguments_are_refused_with_the_remedy(bus: Bus, fire: Fire) -> None:
    with pytest.raises(
        InvalidEventArguments, match=r"2 positional, but at most 0 expected.*fire\(name=value\)"
    ):
        await fire(bus.auth.user_created, "ann", "ann@example.com")


async def test_a_value_that_cannot_be_encoded_is_named_with_its_type(bus: Bus, fire: Fire) -> None:
    with pytest.raises(UnencodableValue) as raised:
        await fire(bus.auth.user_created, username="ann", email=object())

    assert (raised.value.argument, raised.value.value_type) == ("email", object)
    assert "Argument 'email' of type object " in str(raised.value)


async def test_an_invalid_event_is_not_sent(bus: Bus, broker: Broker, fire: Fire) -> None:
    bus.auth.user_deleted.listen(ignore, listener_name="gather")

    for bad in ({}, {"user": "ann"}, {"username": object()}):
        with pytest.raises(LightbusException):
            await fire(bus.auth.user_deleted, **bad)

    assert take_waiting(broker, bus) == []


async def test_a_path_that_is_not_an_event_cannot_be_fired(bus: Bus, fire: Fire) -> None:
    for path in (bus, bus.auth):
        with pytest.raises(ApiError, match=r"bus\.<api name>\.<event name>"):
            await fire(path)


async def test_an_event_without_listeners_is_refused_if_the_configuration_says_so(
    make_bus: MakeBus,
) -> None:
    bus = make_bus(require_listeners=True)

    with pytest.raises(SendRefused):
        await bus.auth.user_deleted.fire_async(username="ann")
    bus.auth.user_deleted.listen(lambda username: None, listener_name="gather")
    await bus.auth.user_deleted.fire_async(username="ann")
