"""Firing while the broker blocks connections that publish, and how much memory that needs."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import tracemalloc
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any

import aiormq
import pytest
from yarl import URL

from lightbus import Api, Event, OnError, Worker
from lightbus.exceptions import SendOutcomeUnknown, TransportUnavailable
from lightbus_rabbitmq.driver.channel import Channel
from rabbitmq_node import RabbitMQNode, running_node
from rabbitmq_support import CONNECTION_LOST, DEAD, QUEUE, Broker, MakeBus, Seen, transport_of
from tcp_proxy import running_proxy

IN_FLIGHT = 200
BODY = "x" * 10_240

# The arguments of `rabbitmqctl` that raise an alarm, and that end it
ALARMS = {
    "memory": [("set_vm_memory_high_watermark", limit) for limit in ("0.00000001", "0.4")],
    "disk space": [("set_disk_free_limit", limit) for limit in ("1000000GB", "50MB")],
}


class BillingApi(Api):
    """An API whose exchange is not declared before the alarm."""

    paid = Event(parameters=("amount",))

    class Meta:
        name = "billing"


@pytest.fixture(scope="module")
def node() -> Iterator[RabbitMQNode]:
    """A node for these tests, because an alarm blocks all senders."""
    with running_node() as node:
        yield node


@contextlib.asynccontextmanager
async def alarm(node: RabbitMQNode, short_of: str) -> AsyncIterator[None]:
    begin, end = ALARMS[short_of]
    await asyncio.to_thread(node.ctl, *begin)
    try:
        yield
    finally:
        await asyncio.to_thread(node.ctl, *end)


async def outcomes(*firing: Coroutine[Any, Any, Any]) -> list[BaseException | Any]:
    return await asyncio.gather(*firing, return_exceptions=True)


def held() -> int:
    """Return how many bytes were allocated since tracing started, and are still in use."""
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


async def grown_by(work: Callable[[], Coroutine[Any, Any, None]], *, rounds: int) -> int:
    """Return how many more bytes are in use after `rounds` of `work` than after two."""
    tracemalloc.start()
    try:
        for _ in range(2):
            await work()
        before = held()
        for _ in range(rounds - 2):
            await work()
        return held() - before
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("short_of", list(ALARMS))
async def test_firing_while_the_broker_blocks_senders_raises_transport_unavailable(
    make_bus: MakeBus, node: RabbitMQNode, short_of: str
) -> None:
    node.create_vhost(short_of)
    bus = make_bus(url=node.url(short_of), fire_timeout=1)
    patient = make_bus(url=node.url(short_of), fire_timeout=30)
    fire = bus.auth.user_created.fire_async
    bus.auth.user_created.listen(lambda username: None, listener_name="welcome")
    await fire(username="before", email="e")
    async with alarm(node, short_of):
        # The broker reports the alarm when a client publishes, and may store that event.
        (first,) = await outcomes(fire(username="first", email="e"))
        assert isinstance(first, SendOutcomeUnknown)

        started = asyncio.get_running_loop().time()
        with pytest.raises(TransportUnavailable, match="low on memory or disk space"):
            await fire(username="second", email="e")
        assert asyncio.get_running_loop().time() - started == pytest.approx(1, abs=0.5)

        blocking = [
            asyncio.to_thread(bus.auth.user_created.fire, username=f"thread {i}", email="e")
            for i in range(2)
        ]
        assert {type(outcome) for outcome in await outcomes(*blocking)} <= {
            SendOutcomeUnknown,
            TransportUnavailable,
        }
        late = asyncio.create_task(patient.auth.user_created.fire_async(username="late", email="e"))
    await late
    await fire(username="after", email="e")

    stored = await usernames(node.url(short_of))
    assert stored.items() >= {"before": 1, "late": 1, "after": 1}.items()
    assert "second" not in stored


@pytest.mark.faults
async def test_the_memory_of_firing_at_a_blocked_connection_does_not_grow(
    make_bus: MakeBus,
    node: RabbitMQNode,
    caplog: pytest.LogCaptureFixture,
    opened_channels: list[Channel],
) -> None:
    node.create_vhost("growth")
    # The shortest heartbeat, so that a delayed one would be noticed.
    bus = make_bus(url=node.url("growth"), fire_timeout=0.5, transport={"heartbeat": 1})
    bus.client.register_api(BillingApi)
    bus.auth.user_created.listen(lambda username: None, listener_name="welcome")
    await bus.auth.user_created.fire_async(username="before", email="e")
    unknown: set[str] = set()

    async def fire_many() -> None:
        names = [f"u{len(unknown)}-{number}" for number in range(IN_FLIGHT)]
        fire, pay = bus.auth.user_created.fire_async, bus.billing.paid.fire_async
        errors = await outcomes(*(fire(username=name, email=BODY) for name in names), pay(amount=1))
        assert {type(error) for error in errors} <= {SendOutcomeUnknown, TransportUnavailable}
        fired = zip(names, errors, strict=False)
        unknown.update(name for name, error in fired if isinstance(error, SendOutcomeUnknown))

    async with alarm(node, "memory"):
        with contextlib.suppress(SendOutcomeUnknown):
            await bus.auth.user_created.fire_async(username="first", email="e")
        # Long enough for the broker to close a connection that sends no heartbeats.
        assert await grown_by(fire_many, rounds=16) < 500_000

        (channel,) = [channel for channel in opened_channels if not channel.is_closed]
        assert len(channel.connection.channels) <= 2
        assert len(asyncio.all_tasks()) < 50
    await bus.auth.user_created.fire_async(username="after", email="e")

    assert CONNECTION_LOST not in caplog.text
    stored = await usernames(node.url("growth"))
    assert {"before", "after"} <= set(stored) <= {"before", "first", "after"} | unknown


async def test_a_redelivered_event_has_its_last_attempt_while_the_broker_blocks_senders(
    make_bus: MakeBus, node: RabbitMQNode
) -> None:
    node.create_vhost("last")
    bus = make_bus(
        url=node.url("last"), fire_timeout=1, max_attempts=1, transport={"operation_timeout": 2}
    )
    seen = Seen[str]()
    bus.auth.user_created.listen(lambda username: seen.add(username), listener_name="welcome")
    async with Worker(bus):
        pass
    await bus.auth.user_created.fire_async(username="ada", email="e")
    connection = await aiormq.connect(node.url("last"))
    await (await connection.channel()).basic_get(QUEUE)
    await connection.close()

    async with alarm(node, "memory"):
        with pytest.raises((SendOutcomeUnknown, TransportUnavailable)):
            await bus.auth.user_deleted.fire_async(username="bob")
        async with Worker(bus):
            assert await seen.wait_for(1) == ["ada"]


async def test_events_are_handled_while_the_broker_blocks_senders_and_failed_ones_wait(
    make_bus: MakeBus, node: RabbitMQNode
) -> None:
    node.create_vhost("listening")
    bus = make_bus(
        url=node.url("listening"), fire_timeout=1, transport={"prefetch": 1, "operation_timeout": 2}
    )
    release = asyncio.Event()
    seen = Seen[str]()

    async def welcome(username: str) -> None:
        await release.wait()
        await seen.add(username)
        if username == "bad":
            raise ValueError(username)

    bus.auth.user_created.listen(
        welcome, listener_name="welcome", on_error=OnError.ACKNOWLEDGE_AND_LOG
    )
    connection = await aiormq.connect(node.url("listening"))
    broker = Broker(await connection.channel())
    async with Worker(bus):
        for username in ("ann", "bob", "bad", "cid"):
            await bus.auth.user_created.fire_async(username=username, email="e")
        async with alarm(node, "memory"):
            with contextlib.suppress(SendOutcomeUnknown):
                await bus.auth.user_created.fire_async(username="first", email="e")
            release.set()
            assert await seen.wait_for(3) == ["ann", "bob", "bad"]

        await broker.wait_for_count(DEAD, 1)
        assert (await seen.wait_for(4))[3] == "cid"
    await connection.close()


@pytest.mark.faults
async def test_the_memory_of_firing_on_a_silent_connection_does_not_grow(
    make_bus: MakeBus,
    rabbitmq_node: RabbitMQNode,
    rabbitmq_url: str,
    opened_channels: list[Channel],
) -> None:
    async with running_proxy(rabbitmq_node.amqp_port) as proxy:
        url = str(URL(rabbitmq_url).with_port(proxy.port))
        bus = make_bus(url=url, fire_timeout=0.2)
        bus.client.register_api(BillingApi)
        await bus.auth.user_created.fire_async(username="ada", email="e")
        proxy.silence()

        async def fire_later(wait: float) -> None:
            # Each times out at another time, so that each could open a new channel.
            await asyncio.sleep(wait)
            await outcomes(
                bus.auth.user_created.fire_async(username="u", email=BODY),
                bus.billing.paid.fire_async(amount=BODY),
            )

        async def fire_many() -> None:
            await asyncio.gather(*(fire_later(number / 500) for number in range(IN_FLIGHT)))

        connection = opened_channels[-1].connection
        assert await grown_by(fire_many, rounds=5) < 3_000_000
        assert len(connection.channels) < 25
        proxy.resume()
        await bus.client.close_async()


async def test_a_connection_keeps_no_references_to_finished_operations(
    make_bus: MakeBus, opened_channels: list[Channel]
) -> None:
    bus = make_bus()
    bus.auth.user_created.listen(lambda username: None, listener_name="welcome")
    await bus.auth.user_created.fire_async(username="ada", email="e")
    transport = transport_of(bus)
    (listener,) = bus.client.listeners
    subscription = listener.subscription("shop")

    async def ask() -> None:
        for _ in range(20):
            await transport.stats(subscription)

    await ask()
    connection = opened_channels[-1].connection
    before = observers(connection)
    await ask()

    assert observers(connection) == before


def observers(connection: aiormq.abc.AbstractConnection) -> int:
    """Return how many callbacks wait for a connection to be closed."""
    closing: Any = connection._closing  # type: ignore[attr-defined]
    return len(closing._callbacks)


@pytest.mark.faults
@pytest.mark.timeout(120)
async def test_a_sender_that_a_broker_blocked_continues_after_the_broker_restarted(
    make_bus: MakeBus, private_rabbitmq_node: RabbitMQNode
) -> None:
    node = private_rabbitmq_node
    bus = make_bus(url=node.url(), fire_timeout=60)
    await bus.auth.user_created.fire_async(username="first", email="e")
    await asyncio.to_thread(node.ctl, *ALARMS["memory"][0])
    # The broker reports the alarm when a client publishes.
    firing = [
        asyncio.create_task(bus.auth.user_created.fire_async(username="u", email="e"))
        for _ in range(3)
    ]
    await asyncio.wait(firing, timeout=2)
    late = asyncio.create_task(bus.auth.user_created.fire_async(username="late", email="e"))
    await asyncio.wait({late}, timeout=0.5)

    await asyncio.to_thread(node.kill)
    await asyncio.to_thread(node.start)  # the alarm is over

    async with asyncio.timeout(25):
        await asyncio.gather(late, *firing)


async def test_a_listener_with_slow_handlers_holds_only_its_prefetch(
    make_bus: MakeBus, broker: Broker
) -> None:
    bus = make_bus(transport={"prefetch": 5})
    release, begun = asyncio.Event(), asyncio.Event()

    async def welcome(username: str) -> None:
        begun.set()
        await release.wait()

    bus.auth.user_created.listen(welcome, listener_name="welcome")
    async with Worker(bus):
        await asyncio.gather(
            *(bus.auth.user_created.fire_async(username="u", email=BODY) for _ in range(50))
        )
        await begun.wait()

        # The first event was prefetched alone.
        await broker.wait_for_count(QUEUE, 44)
        release.set()
        await broker.wait_for_count(QUEUE, 0)


async def usernames(url: str) -> dict[str, int]:
    """Get all events of the listener's queue; return how many there are of each username."""
    connection = await aiormq.connect(url)
    channel = await connection.channel()
    broker = Broker(channel)
    found: dict[str, int] = {}
    while (await broker.count(QUEUE)) > 0:
        username = json.loads((await broker.get(QUEUE)).body)["username"]
        found[username] = found.get(username, 0) + 1
    await connection.close()
    return found
