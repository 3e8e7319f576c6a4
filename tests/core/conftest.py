"""Buses on a broker in memory that is the test's own, and commands in its folder."""

from __future__ import annotations

import json
import secrets
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

import lightbus
from command import Command
from core.apis import AuthApi
from core.support import PATIENCE, MakeBus, Received
from lightbus import Api, Bus
from lightbus_memory.broker import Broker, get_broker

ENVIRONMENT = (
    "LIGHTBUS_CONFIG",
    "LIGHTBUS_MODULE",
    "LIGHTBUS_PROCESS_NAME",
    "LIGHTBUS_SERVICE_NAME",
)


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No setting from outside reaches a test, and no event of a test the user's own file."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    for variable in ENVIRONMENT:
        monkeypatch.delenv(variable, raising=False)


@pytest.fixture
def broker_name() -> str:
    """The name of a broker that only this test uses."""
    return f"test-{secrets.token_hex(4)}"


@pytest.fixture
def broker(broker_name: str) -> Broker:
    """The broker that only this test uses."""
    return get_broker(broker_name)


@pytest_asyncio.fixture
async def make_bus(broker_name: str) -> AsyncIterator[MakeBus]:
    """Makes buses, with `AuthApi` where no APIs are named, and closes them after the test."""
    made: list[Bus] = []

    def make(
        *apis: type[Api],
        service_name: str = "shop",
        shutdown_timeout: float = PATIENCE,
        others: dict[str, Any] | None = None,
        **settings: Any,
    ) -> Bus:
        default = {"event_transport": {"memory": {"name": broker_name}}, **settings}
        config = {
            "shutdown_timeout": shutdown_timeout,
            "apis": {"default": default, **(others or {})},
        }
        bus = lightbus.create(config, service_name=service_name)
        for api in apis or (AuthApi,):
            bus.client.register_api(api)
        made.append(bus)
        return bus

    yield make
    for bus in made:
        await bus.client.close_async()


@pytest_asyncio.fixture
async def received() -> Received:
    """Gathers what handlers received."""
    return Received()


@pytest.fixture
def command(tmp_path: Path) -> Iterator[Command]:
    """Runs `lightbus` in the test's folder."""
    with Command(tmp_path) as command:
        yield command


@pytest.fixture
def config(tmp_path: Path) -> dict[str, Any]:
    """A configuration that leads to an SQLite file of the test, and is in its folder."""
    sqlite = {"path": str(tmp_path / "events.db")}
    found = {"service_name": "shop", "apis": {"default": {"event_transport": {"sqlite": sqlite}}}}
    (tmp_path / "lightbus.json").write_text(json.dumps(found))
    return found


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: empty, and called "shop"."""
    shop = tmp_path / "shop"
    shop.mkdir()
    monkeypatch.chdir(shop)
    return shop
