"""The paths of a bus, and the bus module."""

from __future__ import annotations

import copy
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

import lightbus
from core.apis import AuditApi, AuthApi, TicketApi
from core.support import MakeBus, Received
from lightbus import Bus, EventMessage, Worker
from lightbus.exceptions import (
    ApiError,
    ConfigError,
)

Fire = Callable[..., Awaitable[EventMessage]]


@pytest.fixture
def bus(make_bus: MakeBus) -> Bus:
    """A bus that knows the APIs of the tests."""
    return make_bus(AuthApi, TicketApi, AuditApi)


async def test_a_path_has_the_parts_of_an_api_name_with_dots(bus: Bus) -> None:
    fired = await bus.help_desk.ticket.ticket_created.fire_async(title="Help")

    assert fired.canonical_name == "help_desk.ticket.ticket_created"
    assert fired.version == 3


def test_calling_an_event_raises_an_error_that_names_fire(bus: Bus) -> None:
    with pytest.raises(ApiError, match=r"bus\.auth\.user_deleted\.fire\(\.\.\.\)"):
        bus.auth.user_deleted(username="ann")


def test_a_remote_procedure_call_is_refused(bus: Bus) -> None:
    with pytest.raises(ApiError, match="remote procedure call, which Lightbus does not support"):
        bus.auth.check_password(username="ann", password="hunter2")


@pytest.mark.parametrize("call", [lambda bus: bus(), lambda bus: bus.auth()])
def test_neither_a_bus_nor_an_api_can_be_called(bus: Bus, call: Callable[[Bus], Any]) -> None:
    with pytest.raises(ApiError):
        call(bus)


def test_a_path_of_the_bus_can_be_copied(bus: Bus) -> None:
    path = copy.copy(bus.auth)

    assert repr(path) == "<BusPath bus.auth>"
    assert path.user_created is not bus.auth.user_created


def test_completion_offers_the_names_of_registered_apis_and_events(bus: Bus) -> None:
    assert {"auth", "audit", "help_desk", "client"} <= set(dir(bus))
    assert {"user_created", "user_deleted", "fire"} <= set(dir(bus.auth))
    assert "ticket" in dir(bus.help_desk)
    assert "ticket_created" in dir(bus.help_desk.ticket)


def test_the_repr_of_a_path_is_its_expression(bus: Bus) -> None:
    assert repr(bus.auth.user_deleted) == "<BusPath bus.auth.user_deleted>"
    assert repr(bus) == "<Bus of service 'shop'>"


def test_a_path_has_none_of_the_protocols_of_python(bus: Bus) -> None:
    assert not hasattr(bus.auth, "__iter__")
    assert not hasattr(bus.auth, "_repr_html_")


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
def test_an_error_says_where_a_bus_module_was_looked_for(name: str) -> None:
    with pytest.raises(ConfigError, match=f"'{name}' was not found; looked in {Path.cwd()}"):
        lightbus.get_bus(name)


@pytest.mark.parametrize("text", ["raise SystemExit('no database')", "1 / 0", "bus ="])
def test_an_error_says_why_and_where_a_bus_module_failed(
    bus_module: Callable[[str], str], text: str
) -> None:
    name = bus_module(text)

    with pytest.raises(ConfigError, match=rf"'{name}' raised \w+: .*{name}\.py"):
        lightbus.get_bus(name)
