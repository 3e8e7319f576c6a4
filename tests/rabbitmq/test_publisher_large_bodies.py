"""Events as large as RabbitMQ accepts, and larger ones."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest

from lightbus import Worker
from lightbus.exceptions import SendRefused
from rabbitmq_node import RabbitMQNode
from rabbitmq_support import CONNECTION_LOST, QUEUE, Broker, MakeBus, Seen

# The limit is 16 MiB from RabbitMQ 4.0 on. This leaves room for the rest of the event.
LARGE = "x" * 15 * 1024 * 1024


async def test_15_mib_are_fired_and_handled_without_harm_to_other_events_or_connections(
    make_bus: MakeBus, caplog: pytest.LogCaptureFixture
) -> None:
    # The shortest heartbeat, so that a delayed one would be noticed.
    bus = make_bus(transport={"heartbeat": 1})
    seen = Seen[tuple[str, int]]()

    async def welcome(username: str, email: str) -> None:
        await seen.add((username, len(email)))

    bus.auth.user_created.listen(welcome, listener_name="welcome", concurrency=4)
    async with Worker(bus):
        fire = bus.auth.user_created.fire_async
        await fire(username="first", email="e")
        async with asyncio.TaskGroup() as firing:
            for number in range(3):
                firing.create_task(fire(username=f"large {number}", email=LARGE))
            for number in range(50):
                firing.create_task(fire(username=f"small {number}", email="e"))

        handled = await seen.wait_for(54)
    assert CONNECTION_LOST not in caplog.text
    assert len(handled) == 54
    assert {name for name, size in handled if size == len(LARGE)} == {
        f"large {n}" for n in range(3)
    }


@pytest.fixture
async def small_limit(rabbitmq_node: RabbitMQNode) -> AsyncIterator[int]:
    """The largest message that the node accepts on new channels, in bytes."""

    def evaluate(expression: str) -> str:
        return rabbitmq_node.ctl("eval", expression).strip()

    get = "{ok, Size} = application:get_env(rabbit, max_message_size), Size."
    before = await asyncio.to_thread(evaluate, get)
    # 3.10.8 reads the first setting, 4.0.5 and 4.3.6 the second.
    change = (
        "application:set_env(rabbit, max_message_size, {0}), "
        "persistent_term:put(max_message_size, {0})."
    )
    await asyncio.to_thread(evaluate, change.format(100_000))
    yield 100_000
    await asyncio.to_thread(evaluate, change.format(before))


async def test_an_event_that_is_too_large_is_refused_and_other_events_are_sent(
    make_bus: MakeBus, broker: Broker, small_limit: int
) -> None:
    bus = make_bus()
    fire = bus.auth.user_created.fire_async
    bus.auth.user_created.listen(lambda username: None, listener_name="welcome")
    names = {f"small {number}" for number in range(50)}

    beside = [asyncio.create_task(fire(username=name, email="e")) for name in names]
    with pytest.raises(SendRefused, match="exceed the broker's limit"):
        await fire(username="large", email="x" * small_limit)
    await asyncio.gather(*beside)

    stored = set()
    while await broker.count(QUEUE):
        stored.add(json.loads((await broker.get(QUEUE)).body)["username"])
    assert stored == names
