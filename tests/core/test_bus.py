"""Firing and listening by a bus's paths, and what bad input gets."""

from __future__ import annotations

import copy
import logging
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, get_args

import pytest

import lightbus
from core.apis import AuditApi, AuthApi, TicketApi
from core.support import MakeBus, Received, take_waiting
from lightbus import Api, Bus, Event, EventMessage, OnError, Worker
from lightbus.bus import BusPath
from lightbus.config import OnErrorName
from lightbus.exceptions import (
    ApiError,
    ConfigError,
    DuplicateListenerName,
    EventNotFound,
    InvalidApi,
    InvalidEventArguments,
    InvalidEventListener,
    InvalidName,
    LightbusException,
    SendRefused,
    UnencodableValue,
)
from lightbus_memory.broker import Broker

Fire = Callable[..., Awaitable[EventMessage]]


def ignore(username: str) -> None:
    """A handler for tests in which none is called."""


@pytest.fixture
def bus(make_bus: MakeBus) -> Bus:
    """A bus that knows the APIs of the tests."""
    return make_bus(AuthApi, TicketApi, AuditApi)


# Firing


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


async def test_each_event_has_an_id_of_its_own(bus: Bus) -> None:
    fired = [await bus.auth.user_deleted.fire_async(username="ann") for _ in range(3)]

    assert len({message.id for message in fired}) == 3


async def test_an_api_whose_name_holds_dots_is_reached_by_them(bus: Bus) -> None:
    fired = await bus.help_desk.ticket.ticket_created.fire_async(title="Help")

    assert fired.canonical_name == "help_desk.ticket.ticket_created"
    assert fired.version == 3


async def test_a_default_travels_where_the_argument_is_left_out(bus: Bus) -> None:
    ticket_created = bus.help_desk.ticket.ticket_created

    assert (await ticket_created.fire_async(title="a")).kwargs == {"title": "a", "urgent": False}
    assert (await ticket_created.fire_async(title="b", urgent=True)).kwargs["urgent"] is True


async def test_a_wildcard_admits_further_arguments(bus: Bus) -> None:
    fired = await bus.audit.anything.fire_async(what="sold", price=3)

    assert fired.kwargs == {"what": "sold", "price": 3}


async def test_the_repr_of_a_message_does_not_show_what_it_carries(bus: Bus) -> None:
    fired = await bus.auth.user_deleted.fire_async(username="hunter2")

    assert "hunter2" not in repr(fired)
    assert fired.id in repr(fired)


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


async def test_firing_an_event_that_the_api_has_not_names_it_and_the_near_one(
    bus: Bus, fire: Fire
) -> None:
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


async def test_the_slip_in_the_users_own_example_is_told(bus: Bus, fire: Fire) -> None:
    with pytest.raises(InvalidEventArguments, match="missing 'email'; unexpected 'password'"):
        await fire(bus.auth.user_created, username="adam", password="adam@example.com")


async def test_an_event_without_some_arguments_can_not_be_fired_though_others_make_up_the_number(
    bus: Bus, fire: Fire
) -> None:
    with pytest.raises(InvalidEventArguments, match="missing 'username'; unexpected 'user'"):
        await fire(bus.auth.user_deleted, user="ann")


async def test_positional_arguments_are_refused_with_the_remedy(bus: Bus, fire: Fire) -> None:
    with pytest.raises(
        InvalidEventArguments, match=r"2 positional, but at most 0 expected.*fire\(name=value\)"
    ):
        await fire(bus.auth.user_created, "ann", "ann@example.com")


async def test_a_value_that_can_not_travel_is_named_with_its_type(bus: Bus, fire: Fire) -> None:
    with pytest.raises(UnencodableValue) as raised:
        await fire(bus.auth.user_created, username="ann", email=object())

    assert (raised.value.argument, raised.value.value_type) == ("email", object)
    assert "Argument 'email' of type object " in str(raised.value)


async def test_what_can_not_be_fired_is_not_sent(bus: Bus, broker: Broker, fire: Fire) -> None:
    bus.auth.user_deleted.listen(ignore, listener_name="gather")

    for bad in ({}, {"user": "ann"}, {"username": object()}):
        with pytest.raises(LightbusException):
            await fire(bus.auth.user_deleted, **bad)

    assert take_waiting(broker, bus) == []


async def test_what_is_no_event_can_not_be_fired(bus: Bus, fire: Fire) -> None:
    for path in (bus, bus.auth):
        with pytest.raises(ApiError, match=r"bus\.<api name>\.<event name>"):
            await fire(path)


def test_what_is_no_event_can_not_be_listened_for(bus: Bus) -> None:
    for path in (bus, bus.auth):
        with pytest.raises(ApiError, match=r"bus\.<api name>\.<event name>"):
            path.listen(ignore, listener_name="gather")


def test_an_event_that_is_called_says_that_it_is_fired(bus: Bus) -> None:
    with pytest.raises(ApiError, match=r"bus\.auth\.user_deleted\.fire\(\.\.\.\)"):
        bus.auth.user_deleted(username="ann")


def test_a_remote_procedure_call_is_told_to_be_unsupported(bus: Bus) -> None:
    with pytest.raises(ApiError, match="remote procedure call, which Lightbus does not support"):
        bus.auth.check_password(username="ann", password="hunter2")


@pytest.mark.parametrize("call", [lambda bus: bus(), lambda bus: bus.auth()])
def test_neither_a_bus_nor_an_api_can_be_called(bus: Bus, call: Callable[[Bus], Any]) -> None:
    with pytest.raises(ApiError):
        call(bus)


# Listening


def test_the_same_listener_name_twice_on_one_api_is_refused(bus: Bus) -> None:
    bus.auth.user_created.listen(ignore, listener_name="gather")

    with pytest.raises(DuplicateListenerName) as raised:
        bus.auth.user_deleted.listen(ignore, listener_name="gather")

    assert (raised.value.listener_name, raised.value.api_name) == ("gather", "auth")
    assert "'gather'" in str(raised.value)
    assert len(bus.client.listeners) == 1


def test_the_same_listener_name_on_two_apis_is_fine(bus: Bus) -> None:
    bus.auth.user_created.listen(ignore, listener_name="gather")
    bus.audit.anything.listen(ignore, listener_name="gather")

    assert [listener.api_name for listener in bus.client.listeners] == ["auth", "audit"]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("", "it is empty"),
        ("a:b", "the character ':'"),
        ("a b", "the character ' '"),
        ("a*", r"the character '\*'"),
        ("a" * 76, "it is longer than 75 characters"),
        (3, "it is not a string"),
    ],
)
def test_a_name_that_brokers_can_not_use_is_refused(bus: Bus, name: Any, reason: str) -> None:
    with pytest.raises(InvalidName, match=f"Invalid listener name .*: {reason}"):
        bus.auth.user_deleted.listen(ignore, listener_name=name)


@pytest.mark.parametrize(
    ("settings", "argument", "expected"),
    [
        ({}, None, OnError.SHUTDOWN),
        ({"default": {"on_error": "retry"}}, None, OnError.RETRY),
        (
            {"default": {"on_error": "retry"}, "auth": {"on_error": "shutdown"}},
            None,
            OnError.SHUTDOWN,
        ),
        ({"auth": {"on_error": "acknowledge_and_log"}}, None, OnError.ACKNOWLEDGE_AND_LOG),
        ({"auth": {"on_error": "retry"}}, OnError.SHUTDOWN, OnError.SHUTDOWN),
    ],
)
def test_a_listener_fails_as_its_argument_says_or_else_as_its_api_is_configured(
    settings: dict[str, Any], argument: OnError | None, expected: OnError
) -> None:
    bus = lightbus.create({"apis": settings})
    bus.auth.user_created.listen(lambda username: None, listener_name="welcome", on_error=argument)

    (listener,) = bus.client.listeners
    assert listener.on_error is expected


def test_a_path_of_the_bus_can_be_copied(bus: Bus) -> None:
    path = copy.copy(bus.auth)

    assert repr(path) == "<BusPath bus.auth>"
    assert path.user_created is not bus.auth.user_created


def test_every_way_to_handle_an_error_can_be_configured() -> None:
    assert set(get_args(OnErrorName)) == {member.value for member in OnError}


def test_a_listener_without_a_name_has_its_functions_and_a_warning(
    bus: Bus, caplog: pytest.LogCaptureFixture
) -> None:
    bus.auth.user_deleted.listen(ignore)

    assert [listener.name for listener in bus.client.listeners] == ["ignore"]
    (warning,) = caplog.records
    assert warning.levelno == logging.WARNING
    assert "listener=ignore" in warning.getMessage()


def test_listening_for_an_event_that_a_registered_api_has_not_is_refused(bus: Bus) -> None:
    with pytest.raises(EventNotFound, match="Did you mean 'user_deleted'"):
        bus.auth.user_delete.listen(ignore, listener_name="gather")


def test_a_handler_that_requires_a_field_which_the_event_has_not_is_refused(bus: Bus) -> None:
    def handle_deleted(username: str, email: str) -> None:
        """As in the user's own example."""

    with pytest.raises(InvalidEventListener) as raised:
        bus.auth.user_deleted.listen(handle_deleted, listener_name="gather")

    message = str(raised.value)
    assert "handle_deleted() requires 'email'" in message
    assert "auth.user_deleted" in message
    assert "it has 'username'" in message
    assert list(bus.client.listeners) == []


def test_where_the_api_is_not_registered_the_same_handler_is_taken(make_bus: MakeBus) -> None:
    bus = make_bus(AuditApi)

    def handle_deleted(username: str, email: str) -> None:
        """As in the user's own example."""

    bus.auth.user_deleted.listen(handle_deleted, listener_name="user_deleted")

    assert len(bus.client.listeners) == 1


def test_a_refused_pair_of_events_leaves_no_listener_behind(bus: Bus) -> None:
    with pytest.raises(EventNotFound):
        bus.client.listen_for_events(
            [("auth", "user_deleted"), ("audit", "nothing")], ignore, listener_name="gather"
        )

    assert list(bus.client.listeners) == []


def test_listening_for_no_event_at_all_is_refused(bus: Bus) -> None:
    with pytest.raises(InvalidEventListener, match="'gather' has no events to listen for"):
        bus.client.listen_for_events([], ignore, listener_name="gather")


def test_events_that_are_no_pairs_of_names_are_refused_with_an_example(bus: Bus) -> None:
    events: Any = ("auth", "user_deleted")

    with pytest.raises(InvalidEventListener, match=r"pairs of names, such as \[\('auth', "):
        bus.client.listen_for_events(events, ignore, listener_name="gather")


@pytest.mark.parametrize("concurrency", [0, -1, 1.5, "2", None])
def test_a_concurrency_below_one_is_refused(bus: Bus, concurrency: Any) -> None:
    with pytest.raises(InvalidEventListener, match=r"concurrency is .*; pass 1 or more"):
        bus.auth.user_deleted.listen(ignore, listener_name="gather", concurrency=concurrency)


@pytest.mark.parametrize("on_error", ["shutdown", 3, OnError])
def test_an_on_error_that_is_none_of_ours_is_refused(bus: Bus, on_error: Any) -> None:
    with pytest.raises(
        InvalidEventListener, match=r"on_error is .*; pass a member of lightbus\.OnError"
    ):
        bus.auth.user_deleted.listen(ignore, listener_name="gather", on_error=on_error)


@pytest.mark.parametrize("handler", [None, "ignore", 3])
def test_what_is_not_callable_can_not_listen(bus: Bus, handler: Any) -> None:
    with pytest.raises(InvalidEventListener, match="it is not callable"):
        bus.auth.user_deleted.listen(handler, listener_name="gather")


# Registering


def test_an_api_is_registered_by_its_class_or_an_instance_of_it(make_bus: MakeBus) -> None:
    for api in (AuthApi, AuthApi()):
        bus = make_bus(AuditApi)
        bus.client.register_api(api)
        bus.client.register_api(api)

        assert bus.client.apis["auth"] is AuthApi


def test_two_apis_of_one_name_are_refused(bus: Bus) -> None:
    class Another(Api):
        class Meta:
            name = "auth"

    with pytest.raises(InvalidApi, match="Another API is already registered as 'auth'"):
        bus.client.register_api(Another)


@pytest.mark.parametrize("api", [Api, object, "auth", Event(), None])
def test_what_is_no_api_can_not_be_registered(bus: Bus, api: Any) -> None:
    with pytest.raises(InvalidApi, match=r"is not an Api"):
        bus.client.register_api(api)


# Paths


def test_completion_offers_the_names_of_registered_apis_and_events(bus: Bus) -> None:
    assert {"auth", "audit", "help_desk", "client"} <= set(dir(bus))
    assert {"user_created", "user_deleted", "fire"} <= set(dir(bus.auth))
    assert "ticket" in dir(bus.help_desk)
    assert "ticket_created" in dir(bus.help_desk.ticket)


def test_a_path_looks_like_what_was_written(bus: Bus) -> None:
    assert repr(bus.auth.user_deleted) == "<BusPath bus.auth.user_deleted>"
    assert repr(bus) == "<Bus of service 'shop'>"


def test_python_finds_none_of_its_own_protocols_on_a_path(bus: Bus) -> None:
    assert not hasattr(bus.auth, "__iter__")
    assert not hasattr(bus.auth, "_repr_html_")


# Buses


async def test_two_buses_in_one_thread_share_nothing(make_bus: MakeBus, received: Received) -> None:
    one, other = make_bus(AuthApi), make_bus(AuditApi)
    one.auth.user_deleted.listen(received.add_name, listener_name="gather")

    assert list(other.client.apis) == ["audit"]
    assert list(other.client.listeners) == []
    async with Worker(one):
        await one.auth.user_deleted.fire_async(username="ann")
        assert await received.next() == "ann"


@pytest.fixture
def bus_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """Writes a module that can be imported, and returns its name."""
    monkeypatch.syspath_prepend(tmp_path)
    name = f"bus_of_{tmp_path.name}"
    monkeypatch.setitem(sys.modules, name, None)  # so that it is restored, which is: removed
    monkeypatch.delitem(sys.modules, name)

    def write(text: str) -> str:
        (tmp_path / f"{name}.py").write_text(text)
        return name

    return write


def test_get_bus_imports_the_bus_module(
    bus_module: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    name = bus_module("import lightbus\nbus = lightbus.create({}, service_name='found')")
    monkeypatch.setenv("LIGHTBUS_MODULE", name)

    assert lightbus.get_bus() is lightbus.get_bus(name)
    assert lightbus.get_bus().client.config.service_name == "found"


@pytest.mark.parametrize("name", ["not_there_at_all", "not_there.at_all"])
def test_a_missing_bus_module_says_where_it_was_looked_for(name: str) -> None:
    with pytest.raises(ConfigError, match=f"'{name}' was not found; looked in {Path.cwd()}"):
        lightbus.get_bus(name)


@pytest.mark.parametrize("text", ["raise SystemExit('no database')", "1 / 0", "bus ="])
def test_a_bus_module_that_can_not_be_imported_says_why_and_where(
    bus_module: Callable[[str], str], text: str
) -> None:
    name = bus_module(text)

    with pytest.raises(ConfigError, match=rf"'{name}' raised \w+: .*{name}\.py"):
        lightbus.get_bus(name)


async def test_an_event_that_nobody_listens_for_is_refused_where_the_configuration_says_so(
    make_bus: MakeBus,
) -> None:
    bus = make_bus(require_listeners=True)

    with pytest.raises(SendRefused, match="no listener wants it"):
        await bus.auth.user_deleted.fire_async(username="ann")
    bus.auth.user_deleted.listen(lambda username: None, listener_name="gather")
    await bus.auth.user_deleted.fire_async(username="ann")
