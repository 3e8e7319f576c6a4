"""APIs: their names, options and events."""

from __future__ import annotations

from typing import Any

import pytest

from lightbus import Api, Bus, Event
from lightbus.bus import BusPath
from lightbus.exceptions import (
    ApiError,
    EventNotFound,
    InvalidName,
)


def api_with_meta(**options: Any) -> type[Api]:
    """Define an API whose ``Meta`` has these options."""
    return type("SomeApi", (Api,), {"Meta": type("Meta", (), options)})


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


def test_an_api_that_inherits_needs_its_own_name() -> None:
    base = api_with_meta(name="base")

    with pytest.raises(ApiError, match="Derived has no name"):
        type("Derived", (base,), {})


@pytest.mark.parametrize("options", [{}, {"version": 2}])
def test_an_api_without_a_name_is_refused_with_the_remedy(options: dict[str, Any]) -> None:
    with pytest.raises(ApiError, match=r"SomeApi has no name.*class Meta:.*name = "):
        api_with_meta(**options)


def test_an_unknown_option_of_meta_is_named_with_the_near_one() -> None:
    with pytest.raises(ApiError, match=r"Meta\.verion is not an option.* mean 'version'"):
        api_with_meta(name="auth", verion=2)


def test_an_api_cannot_be_named_default() -> None:
    with pytest.raises(ApiError, match="cannot be named 'default'"):
        api_with_meta(name="default")


@pytest.mark.parametrize("name", ["", "a:b", "a b", "a#", None, 3])
def test_an_api_cannot_have_a_name_that_brokers_refuse(name: Any) -> None:
    with pytest.raises(InvalidName, match="Invalid API name"):
        api_with_meta(name=name)


@pytest.mark.parametrize("version", [None, 1.5, "2", True, -1, 10**30])
def test_a_version_is_a_number_that_every_broker_can_store(version: Any) -> None:
    with pytest.raises(ApiError, match="Use an integer from 0 to"):
        api_with_meta(name="auth", version=version)


@pytest.mark.parametrize(
    "name", ["client", "fire.auth", "auth.listen", "_auth", "auth._user", "a..b", ".a", "a."]
)
def test_an_api_cannot_have_the_name_of_another_attribute_of_a_bus(name: str) -> None:
    with pytest.raises(ApiError, match="this name is reserved"):
        api_with_meta(name=name)


@pytest.mark.parametrize("name", ["über", "a" * 76])
def test_an_event_cannot_have_a_name_that_brokers_refuse(name: str) -> None:
    meta = type("Meta", (), {"name": "auth"})

    with pytest.raises(InvalidName, match="Invalid event name"):
        type("AuthApi", (Api,), {"Meta": meta, name: Event()})


PUBLIC = {name for name in (*dir(Api), *dir(BusPath)) if not name.startswith("_")}
TAKEN = {*PUBLIC, *Api.__annotations__, "Meta", "mro", "__init__", "__call__", "_path", "_private"}


@pytest.mark.parametrize("name", sorted(TAKEN))
@pytest.mark.parametrize("is_inherited", [False, True])
def test_an_event_cannot_have_a_name_that_every_api_or_its_path_uses(
    name: str, *, is_inherited: bool
) -> None:
    base = api_with_meta(name="base")
    events = {name: Event()}
    bases = (base, type("Events", (), events)) if is_inherited else (base,)
    members = {} if is_inherited else events

    with pytest.raises(ApiError, match=f"cannot have an event named '{name}'"):
        type("SomeApi", bases, {"Meta": type("Meta", (), {"name": "some"}), **members})


def test_the_name_of_an_api_cannot_begin_with_a_name_that_a_bus_uses() -> None:
    for name in {name for name in dir(Bus) if not name.startswith("_")} | {"client", "schema"}:
        with pytest.raises(ApiError, match="this name is reserved"):
            api_with_meta(name=name)
        with pytest.raises(ApiError, match="this name is reserved"):
            api_with_meta(name=f"{name}.v1")


def test_an_unknown_event_is_named_with_the_known_ones() -> None:
    class SomeApi(Api):
        created = Event()

        class Meta:
            name = "x"

    with pytest.raises(
        EventNotFound, match=r"has no event 'create'\. Its events: 'created'"
    ) as raised:
        SomeApi.event("create")

    assert (raised.value.api_name, raised.value.event_name) == ("x", "create")


def test_a_method_without_the_decorator_is_no_event() -> None:
    class CalledApi(Api):
        def check_password(self, password: str) -> bool:
            raise NotImplementedError

        class Meta:
            name = "called"

    assert CalledApi.events == {}


class PaidApi(Api):
    paid = Event("number")

    class Meta:
        name = "payments"


def test_one_event_under_two_names_is_refused() -> None:
    with pytest.raises(ApiError, match="user_added is the same object as event 'user_created'"):

        class TwiceApi(Api):
            user_created = Event("username")
            user_added = user_created

            class Meta:
                name = "twice"

    with pytest.raises(ApiError, match="paid_again is the same object as event 'paid'"):

        class OtherApi(Api):
            paid_again = PaidApi.paid

            class Meta:
                name = "other"


def test_a_derived_api_can_remove_an_event() -> None:
    class Later(PaidApi):
        paid = None  # type: ignore[assignment]

        class Meta:
            name = "later"

    assert "paid" not in Later.events
    assert "paid" in PaidApi.events
