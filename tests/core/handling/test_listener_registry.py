"""Listeners are checked when they are added."""

from __future__ import annotations

import logging
from typing import Any

import pytest

import lightbus
from core.apis import AuditApi, AuthApi, TicketApi
from core.support import MakeBus, ignore
from lightbus import Bus, OnError
from lightbus.exceptions import (
    ApiError,
    DuplicateListenerName,
    EventNotFound,
    InvalidEventListener,
    InvalidName,
)


@pytest.fixture
def bus(make_bus: MakeBus) -> Bus:
    """A bus that knows the APIs of the tests."""
    return make_bus(AuthApi, TicketApi, AuditApi)


def test_a_path_that_is_not_an_event_cannot_be_listened_for(bus: Bus) -> None:
    for path in (bus, bus.auth):
        with pytest.raises(ApiError, match=r"bus\.<api name>\.<event name>"):
            path.listen(ignore, listener_name="gather")


def test_the_same_listener_name_twice_on_one_api_is_refused(bus: Bus) -> None:
    bus.auth.user_created.listen(ignore, listener_name="gather")

    with pytest.raises(DuplicateListenerName) as raised:
        bus.auth.user_deleted.listen(ignore, listener_name="gather")

    assert (raised.value.listener_name, raised.value.api_name) == ("gather", "auth")
    assert "'gather'" in str(raised.value)
    assert len(bus.client.listeners) == 1


def test_the_same_listener_name_on_two_apis_is_accepted(bus: Bus) -> None:
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
def test_a_name_that_brokers_refuse_is_refused(bus: Bus, name: Any, reason: str) -> None:
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
def test_on_error_is_the_argument_or_else_the_setting_of_the_api(
    settings: dict[str, Any], argument: OnError | None, expected: OnError
) -> None:
    bus = lightbus.create({"apis": settings})
    bus.auth.user_created.listen(lambda username: None, listener_name="welcome", on_error=argument)

    (listener,) = bus.client.listeners
    assert listener.on_error is expected


def test_a_listener_without_a_name_gets_the_name_of_its_function_with_a_warning(
    bus: Bus, caplog: pytest.LogCaptureFixture
) -> None:
    bus.auth.user_deleted.listen(ignore)

    assert [listener.name for listener in bus.client.listeners] == ["ignore"]
    (warning,) = caplog.records
    assert warning.levelno == logging.WARNING
    assert "listener=ignore" in warning.getMessage()


def test_listening_for_an_unknown_event_of_a_registered_api_is_refused(bus: Bus) -> None:
    with pytest.raises(EventNotFound, match="Did you mean 'user_deleted'"):
        bus.auth.user_delete.listen(ignore, listener_name="gather")


def test_a_handler_that_requires_an_unknown_field_is_refused(bus: Bus) -> None:
    def handle_deleted(username: str, email: str) -> None:
        """As in the user's own example."""

    with pytest.raises(InvalidEventListener) as raised:
        bus.auth.user_deleted.listen(handle_deleted, listener_name="gather")

    message = str(raised.value)
    assert "handle_deleted() requires 'email'" in message
    assert "auth.user_deleted" in message
    assert "it has 'username'" in message
    assert list(bus.client.listeners) == []


def test_a_handler_that_requires_an_unknown_field_is_accepted_for_an_unregistered_api(
    make_bus: MakeBus,
) -> None:
    bus = make_bus(AuditApi)

    def handle_deleted(username: str, email: str) -> None:
        """As in the user's own example."""

    bus.auth.user_deleted.listen(handle_deleted, listener_name="user_deleted")

    assert len(bus.client.listeners) == 1


def test_a_refused_pair_of_events_adds_no_listener(bus: Bus) -> None:
    with pytest.raises(EventNotFound):
        bus.client.listen_for_events(
            [("auth", "user_deleted"), ("audit", "nothing")], ignore, listener_name="gather"
        )

    assert list(bus.client.listeners) == []


def test_a_listener_without_events_is_refused(bus: Bus) -> None:
    with pytest.raises(InvalidEventListener, match="'gather' has no events to listen for"):
        bus.client.listen_for_events([], ignore, listener_name="gather")


def test_events_that_are_not_pairs_of_names_are_refused_with_an_example(bus: Bus) -> None:
    events: Any = ("auth", "user_deleted")

    with pytest.raises(InvalidEventListener, match=r"pairs of names, such as \[\('auth', "):
        bus.client.listen_for_events(events, ignore, listener_name="gather")


@pytest.mark.parametrize("concurrency", [0, -1, 1.5, "2", None])
def test_a_concurrency_below_one_is_refused(bus: Bus, concurrency: Any) -> None:
    with pytest.raises(InvalidEventListener, match=r"concurrency is .*; pass 1 or more"):
        bus.auth.user_deleted.listen(ignore, listener_name="gather", concurrency=concurrency)


@pytest.mark.parametrize("on_error", ["shutdown", 3, OnError])
def test_an_unknown_on_error_is_refused(bus: Bus, on_error: Any) -> None:
    with pytest.raises(
        InvalidEventListener, match=r"on_error is .*; pass a member of lightbus\.OnError"
    ):
        bus.auth.user_deleted.listen(ignore, listener_name="gather", on_error=on_error)


@pytest.mark.parametrize("handler", [None, "ignore", 3])
def test_an_object_that_is_not_callable_cannot_listen(bus: Bus, handler: Any) -> None:
    with pytest.raises(InvalidEventListener, match="it is not callable"):
        bus.auth.user_deleted.listen(handler, listener_name="gather")
