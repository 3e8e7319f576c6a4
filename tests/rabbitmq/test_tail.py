"""`tail` on a RabbitMQ that stops and starts again."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from lightbus.exceptions import TransportRefused
from lightbus.operations.tail import tail
from rabbitmq_node import RabbitMQNode
from rabbitmq_server import RabbitMQServer
from rabbitmq_support import Broker, MakeBus, Raw

PATIENCE = 40.0


@pytest.mark.faults
async def test_tail_continues_when_the_broker_is_back(
    make_bus: MakeBus, private_rabbitmq_node: RabbitMQNode
) -> None:
    node = private_rabbitmq_node
    bus = make_bus(url=node.url())
    async with tail(bus.client, "auth.*") as events, asyncio.timeout(PATIENCE):
        await bus.auth.user_created.fire_async(username="before", email="e")
        assert (await anext(events)).kwargs["username"] == "before"

        await asyncio.to_thread(node.stop)
        await asyncio.to_thread(node.start)

        seen = asyncio.ensure_future(anext(events))
        while not seen.done():
            await bus.auth.user_created.fire_async(username="after", email="e")
            await asyncio.wait({seen}, timeout=0.2)
        assert (await seen).kwargs["username"] == "after"


async def test_a_slow_reader_of_tail_misses_the_oldest_events_and_delays_no_sender(
    make_bus: MakeBus,
) -> None:
    bus = make_bus()
    async with tail(bus.client, "auth.*") as events, asyncio.timeout(PATIENCE):
        await asyncio.gather(
            *(
                bus.auth.user_created.fire_async(username=str(number), email="e")
                for number in range(3000)
            )
        )
        seen: list[str] = []
        with contextlib.suppress(TimeoutError):
            while seen[-1:] != ["2999"]:
                seen.append((await anext(events)).kwargs["username"])
    assert seen[0] == "0"
    assert 1000 <= len(seen) < 3000
    assert sorted(map(int, seen)) == list(map(int, seen))


async def test_reading_dead_letters_without_permission_is_refused(
    make_bus: MakeBus, rabbitmq_server: RabbitMQServer, rabbitmq_vhost: str
) -> None:
    only_fires = {"configure": "^lightbus:auth$", "write": "^lightbus:auth$", "read": "^$"}
    rabbitmq_server.add_user("fires", "secret", vhost=rabbitmq_vhost, **only_fires)
    bus = make_bus(url=rabbitmq_server.url(rabbitmq_vhost, user="fires", password="secret"))
    with pytest.raises(TransportRefused, match="refused for user 'fires'"):
        async with tail(bus.client, "auth.*"):
            pass


async def test_an_event_that_cannot_be_decoded_is_skipped_by_tail(
    make_bus: MakeBus, broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    bus = make_bus()
    async with tail(bus.client, "auth.*") as events, asyncio.timeout(PATIENCE):
        unreadable = Raw(message_id="raw-ÿ")
        await broker.put_raw("lightbus:auth", "user_created", b"{}", unreadable)
        for name in ("ann", "bob"):
            await bus.auth.user_created.fire_async(username=name, email="e")
            assert (await anext(events)).kwargs["username"] == name
    assert caplog.text.count("Event rejected: its properties cannot be decoded") == 1
