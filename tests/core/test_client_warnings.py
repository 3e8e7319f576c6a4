"""Warnings about fields whose types are not checked or not converted."""

from __future__ import annotations

from typing import Any

import pytest

from core.support import MakeBus, fields_of
from lightbus import Api, Event, Parameter, Worker


class Unknown:
    """A class that cannot be read from JSON."""


class PaidApi(Api):
    paid = Event([Parameter("payments", list[Unknown])])

    class Meta:
        name = "paid"


def test_a_field_whose_type_is_not_checked_is_named_once_when_its_api_is_registered(
    make_bus: MakeBus, caplog: pytest.LogCaptureFixture
) -> None:
    bus = make_bus(PaidApi)
    bus.client.register_api(PaidApi)

    (warning,) = caplog.records
    assert "values of this field are not validated" in warning.getMessage()
    fields = fields_of(warning)
    assert (fields["api"], fields["event_name"]) == ("paid", "paid")
    assert fields["path"] == "$.payments[...]"
    assert "Unknown" in fields["reason"]


@pytest.mark.parametrize(
    ("hint", "place"),
    [(list[Unknown], "$.payments[...]"), ("NotImportable", "$.payments")],
    ids=str,
)
async def test_a_field_that_a_listener_receives_as_json_is_named_once_when_it_is_added(
    make_bus: MakeBus, caplog: pytest.LogCaptureFixture, hint: Any, place: str
) -> None:
    def handle(payments: Any) -> None: ...

    handle.__annotations__["payments"] = hint
    bus = make_bus()
    bus.client.listen_for_event("paid", "paid", handle, listener_name="ledger")
    async with Worker(bus):
        pass

    (warning,) = [r for r in caplog.records if "type hint is not supported" in r.getMessage()]
    fields = fields_of(warning)
    assert (fields["listener"], fields["event_name"], fields["path"]) == ("ledger", "paid", place)


@pytest.mark.parametrize("cast_values", ["off", False])
def test_no_warning_is_logged_if_values_are_neither_checked_nor_converted(
    make_bus: MakeBus, caplog: pytest.LogCaptureFixture, cast_values: Any
) -> None:
    def handle(payments: list[Unknown]) -> None: ...

    bus = make_bus(PaidApi, cast_values=cast_values, validate=False)
    bus.paid.paid.listen(handle, listener_name="ledger")
    assert caplog.records == []
