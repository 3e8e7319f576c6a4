"""How events are declared, and what they are fired with."""

from __future__ import annotations

from typing import Any, Optional

import pytest

from lightbus import Api, Bus, Event, Parameter, WildcardParameter
from lightbus.bus import BusPath
from lightbus.exceptions import EventNotFound, InvalidApi, InvalidEventArguments, InvalidName


def api_with_meta(**options: Any) -> type[Api]:
    """Define an API whose ``Meta`` has these options."""
    return type("SomeApi", (Api,), {"Meta": type("Meta", (), options)})


# Apis


def test_an_api_knows_its_name_its_version_and_its_events() -> None:
    class AuthApi(Api):
        user_created = Event(parameters=("username", "email"))

        class Meta:
            name = "auth"
            version = 2

    assert (AuthApi.meta.name, AuthApi.meta.version, AuthApi.meta.internal) == ("auth", 2, False)
    assert list(AuthApi.events) == ["user_created"]
    assert repr(AuthApi.events["user_created"]) == "<Event user_created(username, email)>"


def test_an_api_inherits_the_events_of_its_base_and_may_replace_them() -> None:
    class Base(Api):
        created = Event("name")
        deleted = Event("name")

        class Meta:
            name = "base"

    class Derived(Base):
        deleted = Event("reason")

        class Meta:
            name = "derived"

    assert list(Derived.events) == ["created", "deleted"]
    assert list(Derived.event("deleted").parameters) == ["reason"]


def test_an_api_that_inherits_needs_a_name_of_its_own() -> None:
    base = api_with_meta(name="base")

    with pytest.raises(InvalidApi, match="Derived has no name"):
        type("Derived", (base,), {})


@pytest.mark.parametrize("options", [{}, {"version": 2}])
def test_an_api_without_a_name_is_told_how_to_get_one(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidApi, match=r"SomeApi has no name.*class Meta:.*name = "):
        api_with_meta(**options)


def test_an_option_that_meta_does_not_have_is_named_with_the_near_one() -> None:
    with pytest.raises(InvalidApi, match=r"Meta\.verion is not an option.* mean 'version'"):
        api_with_meta(name="auth", verion=2)


def test_an_api_can_not_take_the_name_that_stands_for_all() -> None:
    with pytest.raises(InvalidApi, match="cannot be named 'default'"):
        api_with_meta(name="default")


@pytest.mark.parametrize("name", ["", "a:b", "a b", "a#", None, 3])
def test_an_api_can_not_have_a_name_that_brokers_can_not_use(name: Any) -> None:
    with pytest.raises(InvalidName, match="Invalid API name"):
        api_with_meta(name=name)


@pytest.mark.parametrize("version", [None, 1.5, "2", True, -1, 10**30])
def test_a_version_is_a_number_that_every_broker_can_carry(version: Any) -> None:
    with pytest.raises(InvalidApi, match="give a whole number up to"):
        api_with_meta(name="auth", version=version)


@pytest.mark.parametrize(
    "name", ["client", "fire.auth", "auth.listen", "_auth", "auth._user", "a..b", ".a", "a."]
)
def test_an_api_can_not_have_a_name_that_leads_elsewhere_on_a_bus(name: str) -> None:
    with pytest.raises(InvalidApi, match="a bus has something else there"):
        api_with_meta(name=name)


@pytest.mark.parametrize("name", ["über", "a" * 76])
def test_an_event_can_not_have_a_name_that_brokers_can_not_use(name: str) -> None:
    meta = type("Meta", (), {"name": "auth"})

    with pytest.raises(InvalidName, match="Invalid event name"):
        type("AuthApi", (Api,), {"Meta": meta, name: Event()})


PUBLIC = {name for name in (*dir(Api), *dir(BusPath)) if not name.startswith("_")}
TAKEN = {*PUBLIC, *Api.__annotations__, "Meta", "mro", "__init__", "__call__", "_path"}


@pytest.mark.parametrize("name", sorted(TAKEN))
@pytest.mark.parametrize("is_inherited", [False, True])
def test_an_event_cannot_have_a_name_that_every_api_or_its_path_uses(
    name: str, *, is_inherited: bool
) -> None:
    base = api_with_meta(name="base")
    events = {name: Event()}
    bases = (base, type("Events", (), events)) if is_inherited else (base,)
    members = {} if is_inherited else events

    with pytest.raises(InvalidApi, match=f"cannot have an event named '{name}'"):
        type("SomeApi", bases, {"Meta": type("Meta", (), {"name": "some"}), **members})


def test_no_api_can_begin_with_a_name_that_a_bus_uses() -> None:
    for name in {name for name in dir(Bus) if not name.startswith("_")} | {"client", "schema"}:
        with pytest.raises(InvalidApi, match="a bus has something else there"):
            api_with_meta(name=name)


def test_an_event_that_the_api_has_not_is_named_with_those_it_has() -> None:
    class SomeApi(Api):
        created = Event()

        class Meta:
            name = "x"

    with pytest.raises(EventNotFound, match=r"has no event 'create'\. It has 'created'") as raised:
        SomeApi.event("create")

    assert (raised.value.api_name, raised.value.event_name) == ("x", "create")


def test_methods_on_an_api_are_no_events_and_no_error() -> None:
    class CalledApi(Api):
        def check_password(self, password: str) -> bool:
            raise NotImplementedError

        class Meta:
            name = "called"

    assert CalledApi.events == {}


# Parameters


def test_a_plain_string_is_one_parameter() -> None:
    assert list(Event(parameters="username").parameters) == ["username"]


def test_an_event_may_have_no_parameters() -> None:
    assert Event().arguments("x.y", {}) == {}


@pytest.mark.parametrize("name", ["", "two words", "1st", "class", 3])
def test_a_parameter_must_be_an_identifier(name: Any) -> None:
    with pytest.raises(InvalidApi, match="cannot name a parameter"):
        Parameter(name)


def test_two_parameters_of_one_name_are_refused() -> None:
    with pytest.raises(InvalidApi, match="two parameters named 'a'"):
        Event(parameters=("a", Parameter("a", int)))


def test_what_is_no_parameter_is_refused() -> None:
    given: Any = ["a", 3]

    with pytest.raises(InvalidApi, match="3 is not an event's parameter"):
        Event(parameters=given)


@pytest.mark.parametrize("parameter", [Parameter("a"), Parameter("a", int)], ids=repr)
def test_a_parameter_is_required(parameter: Parameter) -> None:
    assert parameter.is_required


@pytest.mark.parametrize(
    "parameter",
    [
        Parameter("a", int, default=0),
        Parameter("a", default=None),
        Parameter("a", int | None),
        Parameter("a", Optional[int]),  # noqa: UP045 - both spellings are in use
        Parameter("a", None),
    ],
    ids=repr,
)
def test_a_parameter_that_has_a_default_or_admits_none_is_not_required(
    parameter: Parameter,
) -> None:
    assert not parameter.is_required


# Arguments


def test_defaults_stand_in_for_what_was_not_given() -> None:
    event = Event(parameters=("a", Parameter("b", int, default=7), Parameter("c", int | None)))

    assert event.arguments("x.y", {"a": 1}) == {"a": 1, "b": 7, "c": None}
    assert event.arguments("x.y", {"a": 1, "b": 2, "c": 3}) == {"a": 1, "b": 2, "c": 3}


def test_all_that_is_missing_and_unexpected_is_named_at_once() -> None:
    event = Event(parameters=("a", "b", "c"))

    with pytest.raises(InvalidEventArguments) as raised:
        event.arguments("x.y", {"b": 1, "d": 2, "e": 3})

    assert (raised.value.missing, raised.value.unexpected) == (("a", "c"), ("d", "e"))
    assert "Event x.y" in str(raised.value)
    assert "missing 'a', 'c'; unexpected 'd', 'e'" in str(raised.value)


def test_an_unexpected_argument_is_refused_though_a_default_makes_up_the_number() -> None:
    event = Event(parameters=("a", Parameter("b", int, default=0)))

    with pytest.raises(InvalidEventArguments) as raised:
        event.arguments("x.y", {"a": 1, "c": 2})

    assert raised.value.unexpected == ("c",)


def test_a_wildcard_admits_further_arguments_and_still_requires_the_named_ones() -> None:
    event = Event(parameters=("a", WildcardParameter()))

    assert event.arguments("x.y", {"a": 1, "z": 2}) == {"a": 1, "z": 2}
    with pytest.raises(InvalidEventArguments, match="missing 'a'"):
        event.arguments("x.y", {"z": 2})
