"""Buses on a real RabbitMQ, each test in a virtual host of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path
from typing import Any

import aiormq
import pytest
from aiormq.abc import AbstractChannel

from lightbus import Api, Bus, create
from lightbus_rabbitmq.driver.channel import Channel
from lightbus_rabbitmq.driver.connection import ReconnectingConnection
from lightbus_rabbitmq.settings import RabbitMQSettings
from lightbus_rabbitmq.topology import queue_migration
from rabbitmq.topology_support import KilledMigrations, TopologyCommand
from rabbitmq_server import RabbitMQServer
from rabbitmq_support import AuthApi, Broker, MakeBus, Topology


@pytest.fixture
async def make_bus(rabbitmq_url: str) -> AsyncIterator[MakeBus]:
    """Makes buses of the service "shop"; keyword arguments are settings of every API."""
    made: list[Bus] = []

    def make(
        *,
        apis: Iterable[type[Api]] = (AuthApi,),
        service_name: str = "shop",
        url: str = rabbitmq_url,
        transport: dict[str, Any] | None = None,
        **api_settings: Any,
    ) -> Bus:
        settings = {"url": url, **(transport or {})}
        default = {"event_transport": {"rabbitmq": settings}, **api_settings}
        bus = create({"apis": {"default": default}}, service_name=service_name)
        for api in apis:
            bus.client.register_api(api)
        made.append(bus)
        return bus

    yield make
    for bus in made:
        await bus.client.close_async()


@pytest.fixture
async def connection(rabbitmq_url: str) -> AsyncIterator[ReconnectingConnection]:
    """A connection of the driver, on the test's virtual host."""
    connection = ReconnectingConnection(RabbitMQSettings(url=rabbitmq_url), "a test")
    yield connection
    await connection.close()


@pytest.fixture
def opened_channels(monkeypatch: pytest.MonkeyPatch) -> list[Channel]:
    """The channels that the driver opens during the test, in order."""
    opened: list[Channel] = []
    open_on = Channel.open_on

    async def open_and_note(*args: Any, **kwargs: Any) -> Channel:
        channel = await open_on(*args, **kwargs)
        opened.append(channel)
        return channel

    monkeypatch.setattr(Channel, "open_on", open_and_note)
    return opened


@pytest.fixture
async def broker(rabbitmq_url: str) -> AsyncIterator[Broker]:
    """A connection of the test's own."""
    connection = await aiormq.connect(rabbitmq_url)
    yield Broker(await connection.channel())
    await connection.close()


@pytest.fixture
def topology(rabbitmq_server: RabbitMQServer, rabbitmq_vhost: str) -> Topology:
    """What exists in the test's virtual host."""
    return Topology(rabbitmq_server, rabbitmq_vhost)


@pytest.fixture
def command(tmp_path: Path, rabbitmq_url: str) -> TopologyCommand:
    """Runs `lightbus topology` for a service on the test's virtual host."""
    return TopologyCommand(tmp_path / "shop", rabbitmq_url)


@pytest.fixture
def killed_migrations(command: TopologyCommand) -> Iterator[KilledMigrations]:
    migrations = KilledMigrations(command.folder)
    yield migrations
    migrations.end()


@pytest.fixture
def quick_migrations(monkeypatch: pytest.MonkeyPatch) -> None:
    """Migrations in this process do not wait for queues to be safe from a broker that is killed."""
    monkeypatch.setattr(queue_migration, "NEW_QUEUE_DELAY", 0.05)
    monkeypatch.setattr(queue_migration, "EMPTY_CHECKS", 3)


@pytest.fixture
async def other_client(broker: Broker) -> AsyncIterator[AbstractChannel]:
    """A channel of an AMQP client that is not Lightbus."""
    channel = await broker.channel.connection.channel()
    yield channel
    await channel.close()
