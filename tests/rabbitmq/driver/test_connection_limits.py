"""Limits of the broker, its virtual hosts and its users are reported until they are lifted."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from lightbus import Worker
from lightbus.exceptions import (
    TopologyMismatch,
    TransportRefused,
    TransportUnavailable,
)
from lightbus_rabbitmq import RabbitMQTransport
from rabbitmq_node import RabbitMQNode, running_node
from rabbitmq_server import RabbitMQServer
from rabbitmq_support import CONNECTION_LOST, MakeBus, Seen

CHANNEL_MAX = 6


@pytest.fixture(scope="module")
def small_node(own_rabbitmq: None) -> Iterator[RabbitMQNode]:
    """A node that allows few channels on a connection."""
    with running_node(settings={"channel_max": CHANNEL_MAX}) as node:
        yield node


@pytest.fixture
def limited_user(rabbitmq_server: RabbitMQServer, rabbitmq_vhost: str) -> Iterator[str]:
    """A user for this test, with limits of its own."""
    user = f"user-of-{rabbitmq_vhost}"
    rabbitmq_server.add_user(user, "secret", vhost=rabbitmq_vhost)
    yield user
    rabbitmq_server.api("DELETE", f"users/{user}")


def url_of(server: RabbitMQServer, vhost: str, user: str) -> str:
    return server.url(vhost, user=user, password="secret")


async def until_logged(log: pytest.LogCaptureFixture, text: str) -> None:
    async with asyncio.timeout(20):
        while text not in log.text:  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("limited", ["user-limits", "vhost-limits"])
async def test_a_connection_limit_is_reported_until_it_is_lifted(
    make_bus: MakeBus,
    rabbitmq_server: RabbitMQServer,
    rabbitmq_vhost: str,
    limited_user: str,
    caplog: pytest.LogCaptureFixture,
    *,
    limited: str,
) -> None:
    name = limited_user if limited == "user-limits" else rabbitmq_vhost
    limit = f"{limited}/{name}/max-connections"
    rabbitmq_server.api("PUT", limit, {"value": 0})
    url = url_of(rabbitmq_server, rabbitmq_vhost, limited_user)

    with pytest.raises(TransportUnavailable, match=r"connection limit \(0\) is reached"):
        await make_bus(url=url, fire_timeout=1).auth.user_created.fire_async(
            username="ada", email="e"
        )

    caplog.clear()
    firing = asyncio.create_task(
        make_bus(url=url).auth.user_created.fire_async(username="bob", email="e")
    )
    await until_logged(caplog, "connection limit (0) is reached")
    await asyncio.to_thread(rabbitmq_server.api, "DELETE", limit)
    await firing


async def test_a_missing_virtual_host_is_refused_at_once(
    make_bus: MakeBus, rabbitmq_server: RabbitMQServer
) -> None:
    bus = make_bus(url=rabbitmq_server.url("no reached limit"))

    with pytest.raises(TransportRefused, match="vhost no reached limit not found"):
        await bus.auth.user_created.fire_async(username="ada", email="e")


async def test_a_connection_that_the_broker_closes_at_once_is_opened_again_with_backoff(
    make_bus: MakeBus,
    rabbitmq_server: RabbitMQServer,
    rabbitmq_vhost: str,
    limited_user: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    rabbitmq_server.api("PUT", f"user-limits/{limited_user}/max-channels", {"value": 1})
    bus = make_bus(url=url_of(rabbitmq_server, rabbitmq_vhost, limited_user), fire_timeout=4)

    with pytest.raises(TransportUnavailable, match="maximum allowed user limit"):
        await bus.auth.user_created.fire_async(username="ada", email="e")

    lost = [record for record in caplog.records if CONNECTION_LOST in record.getMessage()]
    assert 1 < len(lost) < 10
    assert all("maximum allowed user limit" in record.getMessage() for record in lost)


async def test_a_queue_limit_is_not_a_topology_mismatch(
    make_bus: MakeBus, rabbitmq_server: RabbitMQServer, rabbitmq_vhost: str
) -> None:
    rabbitmq_server.api("PUT", f"vhost-limits/{rabbitmq_vhost}/max-queues", {"value": 0})
    bus = make_bus()
    bus.auth.user_created.listen(lambda username: None, listener_name="welcome")

    with pytest.raises(TransportRefused, match="queue limit") as raised:
        await Worker(bus).run()
    assert not isinstance(raised.value, TopologyMismatch)


async def test_more_listeners_than_channels_are_refused_with_both_numbers(
    make_bus: MakeBus, small_node: RabbitMQNode
) -> None:
    bus = make_bus(url=small_node.url(), service_name="many")
    for number in range(CHANNEL_MAX + 1):
        bus.auth.user_created.listen(lambda username: None, listener_name=f"listener-{number}")

    with pytest.raises(
        TransportRefused, match=rf"channel_max.*{CHANNEL_MAX} listeners have one.*rabbitmq\.conf"
    ):
        await Worker(bus).run()


async def test_as_many_listeners_as_channels_are_all_restored(
    make_bus: MakeBus, small_node: RabbitMQNode
) -> None:
    bus = make_bus(url=small_node.url(), service_name="few")
    seen = Seen[int]()
    for number in range(CHANNEL_MAX):

        async def handle(username: str, number: int = number) -> None:
            await seen.add(number)

        bus.auth.user_created.listen(handle, listener_name=f"listener-{number}")
    async with Worker(bus):
        await asyncio.to_thread(small_node.close_connections, "/")
        await bus.auth.user_created.fire_async(username="ada", email="e")

        assert set(await seen.wait_for(CHANNEL_MAX)) == set(range(CHANNEL_MAX))


@pytest.mark.timeout(60)
async def test_a_send_without_a_free_channel_raises_an_error_that_says_so(
    make_bus: MakeBus, own_rabbitmq: None
) -> None:
    with running_node(settings={"channel_max": 1}) as node:
        bus = make_bus(url=node.url(), fire_timeout=1)
        with pytest.raises(TransportUnavailable, match="channel_max"):
            await bus.auth.user_created.fire_async(username="ada", email="e")

        transport = bus.client.transports.transport("auth").transport
        assert isinstance(transport, RabbitMQTransport)
        assert "channel_max" in " ".join(await transport.check_health(timeout=2))
        await bus.client.close_async()
