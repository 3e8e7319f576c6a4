"""The arguments of a handler."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest

import lightbus
from core.handling.calls import FIELDS, MESSAGE, Call, called, message_of
from lightbus import EventMessage
from lightbus.exceptions import InvalidEventListener
from lightbus.handling.calling import is_async, name_of
from lightbus.handling.signatures import plan_call


class Methods:
    """Handlers that are no plain functions."""

    def bound(self, username: str) -> Call:
        return (username,), {}

    @classmethod
    def of_class(cls, username: str) -> Call:
        return (username,), {}

    @staticmethod
    def static(username: str) -> Call:
        return (username,), {}

    def __call__(self, username: str) -> Call:
        return (username,), {}


def with_prefix(prefix: str, username: str) -> Call:
    return (username,), {}


def logged(handler: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(handler)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return handler(*args, **kwargs)

    return wrapper


def test_fields_are_passed_by_name_and_others_are_omitted() -> None:
    assert called(lambda email: email) == "a@b"
    assert called(lambda: "nothing") == "nothing"
    assert called(lambda *, username: username) == "ann"
    assert called(lambda email, username: (email, username)) == ("a@b", "ann")


def test_a_handler_may_take_all_fields() -> None:
    assert called(lambda **fields: fields) == FIELDS
    assert called(lambda username, **others: (username, others)) == ("ann", {"email": "a@b"})


def test_a_handler_may_take_fields_by_position() -> None:
    def handler(email: str, username: str, /) -> tuple[str, str]:
        return email, username

    assert called(handler) == ("a@b", "ann")


def test_a_default_replaces_a_missing_field() -> None:
    assert called(lambda username, age=7: (username, age)) == ("ann", 7)


@pytest.mark.parametrize(
    "handler",
    [
        Methods().bound,
        Methods.of_class,
        Methods.static,
        Methods(),
        functools.partial(with_prefix, "Dr."),
        functools.partial(with_prefix, prefix="Dr."),
        logged(Methods().bound),
    ],
    ids=["method", "class method", "static", "callable", "partial", "keyword partial", "wrapped"],
)
def test_any_callable_can_listen(handler: Callable[..., Any]) -> None:
    assert called(handler) == (("ann",), {})


def by_hint(first: EventMessage, email: str) -> tuple[EventMessage, str]:
    return first, email


def by_text(first: lightbus.EventMessage, email: str) -> tuple[EventMessage, str]:
    return first, email


def beside_unknown(first: EventMessage, email: NotDefined) -> Any:  # type: ignore[name-defined]  # noqa: F821
    return first, email


@pytest.mark.parametrize("is_known", [True, False], ids=["API known", "API unknown"])
@pytest.mark.parametrize(
    "handler",
    [
        lambda event, email: (event, email),
        lambda event_message, email: (event_message, email),
        by_hint,
        by_text,
        beside_unknown,
    ],
    ids=["event", "event_message", "hint", "dotted hint", "beside an unknown hint"],
)
def test_a_first_parameter_for_the_message_gets_it(
    handler: Callable[..., Any],
    is_known: bool,  # noqa: FBT001 - a case of the test
) -> None:
    assert called(handler, is_known=is_known) == (MESSAGE, "a@b")


def test_a_first_parameter_that_is_not_a_field_gets_the_message() -> None:
    assert called(lambda message, email: (message, email)) == (MESSAGE, "a@b")


def test_a_misspelt_first_parameter_is_refused() -> None:
    with pytest.raises(InvalidEventListener, match="requires 'usernam', which event"):
        plan_call(lambda usernam, email: None, "auth.user_created", tuple(FIELDS))


def test_a_first_parameter_with_a_default_that_is_not_a_field_keeps_the_default() -> None:
    assert called(lambda retries=3: retries) == 3


def test_a_first_parameter_is_a_field_if_the_fields_are_unknown() -> None:
    assert called(lambda username: username, is_known=False) == "ann"


def test_an_unknown_field_is_named_when_the_call_is_planned() -> None:
    with pytest.raises(InvalidEventListener) as raised:
        plan_call(lambda username, phone, fax: None, "auth.user_created", tuple(FIELDS))

    assert "requires 'phone', 'fax', which event auth.user_created does not have" in str(
        raised.value
    )
    assert "it has 'username', 'email'" in str(raised.value)


def test_a_missing_field_is_named_on_delivery() -> None:
    plan = plan_call(lambda username, email: None, "auth.user_deleted", None)

    with pytest.raises(InvalidEventListener, match=r"requires 'email'.*it has 'username'"):
        plan.arguments(message_of({"username": "ann"}))


@pytest.mark.parametrize("handler", [None, "handle", 3])
def test_an_object_that_is_not_callable_is_refused(handler: Any) -> None:
    with pytest.raises(InvalidEventListener, match="it is not callable"):
        plan_call(handler, "auth.user_created", None)


def test_a_callable_without_a_signature_is_refused() -> None:
    with pytest.raises(InvalidEventListener, match="its signature cannot be read"):
        plan_call(dict, "auth.user_created", None)


@pytest.mark.parametrize(
    ("handler", "name"),
    [
        (with_prefix, "with_prefix"),
        (functools.partial(with_prefix, "Dr."), "with_prefix"),
        (Methods().bound, "bound"),
        (Methods(), "Methods"),
    ],
    ids=["function", "partial", "method", "callable"],
)
def test_the_name_of_a_handler_can_be_read(handler: Callable[..., Any], name: str) -> None:
    assert name_of(handler) == name


class AsyncCallable:
    """Async when called."""

    async def __call__(self, username: str) -> None: ...

    async def method(self, username: str) -> None: ...


@pytest.mark.parametrize(
    "handler",
    [AsyncCallable(), AsyncCallable().method, functools.partial(AsyncCallable().method, "ann")],
    ids=["callable", "method", "partial"],
)
def test_a_function_that_returns_a_coroutine_is_async(handler: Callable[..., Any]) -> None:
    assert is_async(handler)


@pytest.mark.parametrize("handler", [with_prefix, Methods(), AsyncCallable])
def test_a_function_that_returns_no_coroutine_is_not_async(handler: Callable[..., Any]) -> None:
    assert not is_async(handler)


def test_a_field_with_the_name_of_the_message_parameter_is_omitted() -> None:
    def handler(event: EventMessage, **fields: Any) -> None: ...

    plan = plan_call(handler, "auth.user_created", None)

    message = message_of({"event": 1, "email": 2})
    assert plan.arguments(message) == ([message], {"email": 2})


def test_an_error_names_the_fields_of_an_event_up_to_a_limit() -> None:
    def handler(username: str) -> None: ...

    plan = plan_call(handler, "auth.user_created", None)

    with pytest.raises(InvalidEventListener, match="99,980 more") as raised:
        plan.arguments(message_of({f"{number}{'x' * 1_000}": 1 for number in range(100_000)}))
    assert len(str(raised.value)) < 5_000


# Types
