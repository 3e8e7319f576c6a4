"""The permissions in ``docs/rabbitmq.rst`` are sufficient."""

from __future__ import annotations

import contextlib
import json

import aiormq
import pytest
from aiormq.exceptions import ChannelAccessRefused

from lightbus import EventMessage, OnError, Worker
from lightbus.exceptions import TransportRefused
from lightbus.operations.topology import topology_of
from lightbus_rabbitmq import RabbitMQTransport
from rabbitmq_server import RabbitMQServer
from rabbitmq_support import Broker, MakeBus, Seen

FIRING = {"configure": "^lightbus:auth$", "write": "^lightbus:auth$", "read": "^$"}
LISTENING = {
    "configure": "^lightbus:",
    "write": r"^(lightbus:|amq\.default$)",
    "read": "^lightbus:",
}


async def test_one_user_that_only_fires_and_one_that_only_listens(
    make_bus: MakeBus, rabbitmq_server: RabbitMQServer, rabbitmq_vhost: str, broker: Broker
) -> None:
    rabbitmq_server.add_user("fires", "secret", vhost=rabbitmq_vhost, **FIRING)
    rabbitmq_server.add_user("listens", "secret", vhost=rabbitmq_vhost, **LISTENING)
    firing = make_bus(url=rabbitmq_server.url(rabbitmq_vhost, user="fires", password="secret"))
    listening = make_bus(
        url=rabbitmq_server.url(rabbitmq_vhost, user="listens", password="secret"),
        retry={"first": 0.1, "longest": 0.1},
        max_attempts=2,
    )
    seen = Seen[str]()

    async def fail(username: str) -> None:
        await seen.add(username)
        raise LookupError(username)

    listening.auth.user_created.listen(fail, listener_name="welcome", on_error=OnError.RETRY)
    async with Worker(listening) as worker:
        await firing.auth.user_created.fire_async(username="ada", email="e")

        # Handled, delayed, retried, and dead-lettered: all operations of a listener
        assert await seen.wait_for(2) == ["ada", "ada"]
        await broker.wait_for_count("lightbus:shop:dead", 1)
        assert await worker.check_health() == []
    transport = await listening.client.transports.transport("auth").opened(timeout=10)
    assert isinstance(transport, RabbitMQTransport)
    (letter,) = [letter async for letter in transport.dead_letters("shop")]
    assert json.loads(letter.message.body)["username"] == "ada"


@pytest.mark.faults
async def test_a_user_that_listens_can_migrate(
    make_bus: MakeBus, rabbitmq_server: RabbitMQServer, rabbitmq_vhost: str, broker: Broker
) -> None:
    rabbitmq_server.add_user("listens", "secret", vhost=rabbitmq_vhost, **LISTENING)
    queue = "lightbus:shop:welcome:auth"
    await broker.channel.queue_declare(queue, durable=True)
    await broker.put("", queue, b'{"username": "ada"}')
    bus = make_bus(url=rabbitmq_server.url(rabbitmq_vhost, user="listens", password="secret"))
    bus.auth.user_created.listen(lambda username: None, listener_name="welcome")

    async with topology_of(bus.client) as known:
        await known.migrate(on_progress=lambda _: None)

        assert all(one.state.is_good for one in await known.compare())
    assert await broker.count(queue) == 1


async def test_a_user_that_may_only_fire_cannot_listen(
    make_bus: MakeBus, rabbitmq_server: RabbitMQServer, rabbitmq_vhost: str
) -> None:
    rabbitmq_server.add_user("fires", "secret", vhost=rabbitmq_vhost, **FIRING)
    bus = make_bus(url=rabbitmq_server.url(rabbitmq_vhost, user="fires", password="secret"))
    bus.auth.user_created.listen(lambda username: None, listener_name="welcome")

    with pytest.raises(TransportRefused, match=r"access to .* refused for user 'fires'") as raised:
        await Worker(bus).start()

    assert "secret" not in str(raised.value)


async def test_a_topic_permission_limits_the_events_that_a_user_can_fire(
    make_bus: MakeBus, rabbitmq_server: RabbitMQServer, rabbitmq_vhost: str
) -> None:
    rabbitmq_server.add_user("fires", "secret", vhost=rabbitmq_vhost, **FIRING)
    allowed = {"exchange": "lightbus:auth", "write": "^user_created$", "read": "^$"}
    url = rabbitmq_server.url(rabbitmq_vhost, user="fires", password="secret")
    connection = await aiormq.connect(url)
    foreign = Broker(await connection.channel())
    bus = make_bus()
    seen = Seen[str]()

    async def welcome(event: EventMessage) -> None:
        await seen.add(event.canonical_name)

    events = [("auth", "user_created"), ("auth", "user_deleted")]
    bus.client.listen_for_events(events, welcome, listener_name="welcome")
    async with Worker(bus):
        rabbitmq_server.api("PUT", f"topic-permissions/{rabbitmq_vhost}/fires", allowed)
        with pytest.raises(TransportRefused, match="access to topic"):
            await make_bus(url=url).auth.user_deleted.fire_async(username="ada")
        await foreign.put("lightbus:auth", "user_created", b"{}", message_type="auth.user_deleted")
        # An old RabbitMQ does not compare these with the permission.
        with contextlib.suppress(ChannelAccessRefused):
            copied_in = {"CC": ["user_deleted"]}
            await foreign.put("lightbus:auth", "user_created", b"{}", headers=copied_in)
        await bus.auth.user_deleted.fire_async(username="ada")
        await seen.wait_for_item("auth.user_deleted")

    assert set(seen.items[:-1]) == {"auth.user_created"}
    await connection.close()
