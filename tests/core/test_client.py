"""APIs are registered on the client of a bus."""

from __future__ import annotations

from typing import Any

import pytest

from core.apis import AuditApi, AuthApi, TicketApi
from core.support import MakeBus
from lightbus import Api, Bus, Event
from lightbus.exceptions import (
    ApiError,
)


@pytest.fixture
def bus(make_bus: MakeBus) -> Bus:
    """A bus that knows the APIs of the tests."""
    return make_bus(AuthApi, TicketApi, AuditApi)


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

    with pytest.raises(ApiError, match="Another API is already registered as 'auth'"):
        bus.client.register_api(Another)


@pytest.mark.parametrize("api", [Api, object, "auth", Event(), None])
def test_an_object_that_is_not_an_api_cannot_be_registered(bus: Bus, api: Any) -> None:
    with pytest.raises(ApiError, match=r"is not an Api"):
        bus.client.register_api(api)
