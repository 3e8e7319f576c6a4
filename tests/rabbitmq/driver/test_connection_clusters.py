"""Events go through any of three nodes, and survive the loss of one."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import secrets
from collections.abc import AsyncIterator, Iterator

import pytest

from lightbus import Bus, Worker, create
from lightbus.exceptions import (
    SendOutcomeUnknown,
    SendRefused,
    TransportRefused,
    TransportUnavailable,
)
from ports import free_ports
from rabbitmq_cluster import RabbitMQCluster, running_cluster
from rabbitmq_node import NEW_QUEUES_ARE_SAVED_AFTER
from rabbitmq_support import QUEUE, AuthApi, Seen

pytestmark = [pytest.mark.faults, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def cluster(own_rabbitmq: None) -> Iterator[RabbitMQCluster]:
    """Shared by the tests of this file."""
    with running_cluster() as cluster:
        yield cluster


@pytest.fixture
def vhost(cluster: RabbitMQCluster) -> Iterator[str]:
    vhost = f"test-{secrets.token_hex(4)}"
    cluster.create_vhost(vhost)
    yield vhost
    cluster.mend()  # a failed test may leave a partition
    cluster.nodes[0].delete_vhost(vhost)


@contextlib.asynccontextmanager
async def bus_on(urls: list[str], *, fire_timeout: float = 60) -> AsyncIterator[Bus]:
    rabbitmq = {"url": urls, "heartbeat": 2, "connect_timeout": 5}
    default = {"event_transport": {"rabbitmq": rabbitmq}, "fire_timeout": fire_timeout}
    bus = create({"apis": {"default": default}}, service_name="shop")
    bus.client.register_api(AuthApi)
    try:
        yield bus
    finally:
        await bus.client.close_async()


class Load:
    """Fires on one bus and handles on another; counts the confirmed and the handled events."""

    def __init__(self, firing: Bus, handling: Bus) -> None:
        self.confirmed: set[str] = set()
        self.handled: set[str] = set()
        self._fire = firing.auth.user_created.fire_async
        self._news = asyncio.Condition()
        handling.auth.user_created.listen(self._handle, listener_name="welcome", concurrency=20)

    @contextlib.asynccontextmanager
    async def firing(self) -> AsyncIterator[None]:
        """Fire, 50 events at once, until the block ends, and wait for the events in flight."""
        stopping = asyncio.Event()
        names = (f"u{number}" for number in itertools.count())

        async def fire_some() -> None:
            while not stopping.is_set():
                name = next(names)
                with contextlib.suppress(SendOutcomeUnknown):
                    await self._fire(username=name, email="e")
                    self.confirmed.add(name)
                await asyncio.sleep(0.05)  # a load that leaves time for other processes

        async with asyncio.TaskGroup() as tasks:
            for _ in range(50):
                tasks.create_task(fire_some())
            try:
                yield
            finally:
                stopping.set()

    async def _handle(self, username: str) -> None:
        async with self._news:
            self.handled.add(username)
            self._news.notify_all()

    async def wait_for_more(self, count: int) -> None:
        """Wait until so many more events are handled."""
        wanted = len(self.handled) + count
        async with asyncio.timeout(60), self._news:
            await self._news.wait_for(lambda: len(self.handled) >= wanted)

    async def wait_for_all(self) -> None:
        """Wait until all events that were confirmed are handled."""
        async with asyncio.timeout(60), self._news:
            await self._news.wait_for(lambda: self.confirmed <= self.handled)


@contextlib.asynccontextmanager
async def load_on(cluster: RabbitMQCluster, vhost: str) -> AsyncIterator[Load]:
    """A load whose producer is connected to the queue's leader, and its worker to another node."""
    leader, other, _ = cluster.nodes
    async with (
        bus_on(cluster.urls(vhost, first=leader)) as firing,
        bus_on(cluster.urls(vhost, first=other)) as handling,
    ):
        # The leader of a queue is the node through which it is declared.
        firing.auth.user_created.listen(lambda username: None, listener_name="welcome")
        async with Worker(firing):
            pass
        load = Load(firing, handling)
        async with Worker(handling):
            await asyncio.sleep(NEW_QUEUES_ARE_SAVED_AFTER)
            yield load


async def test_events_go_through_any_node_of_a_cluster(
    cluster: RabbitMQCluster, vhost: str
) -> None:
    seen = Seen[str]()
    async with contextlib.AsyncExitStack() as stack:
        buses = [
            await stack.enter_async_context(bus_on(cluster.urls(vhost, first=node)))
            for node in cluster.nodes
        ]
        buses[0].auth.user_created.listen(lambda username: seen.add(username), listener_name="all")
        async with Worker(buses[0]):
            for number, bus in enumerate(buses):
                await bus.auth.user_created.fire_async(username=f"u{number}", email="e")

            assert sorted(await seen.wait_for(3)) == ["u0", "u1", "u2"]


async def test_a_url_whose_node_is_down_is_skipped(cluster: RabbitMQCluster, vhost: str) -> None:
    (nobody,) = free_ports(1)
    urls = [f"amqp://guest:guest@127.0.0.1:{nobody}/", *cluster.urls(vhost)]
    async with bus_on(urls, fire_timeout=5) as bus:
        await bus.auth.user_created.fire_async(username="ada", email="e")


async def test_a_url_at_which_the_connection_is_refused_is_skipped(
    cluster: RabbitMQCluster, vhost: str
) -> None:
    refusing = cluster.nodes[0].url("no such virtual host")
    async with bus_on([refusing, *cluster.urls(vhost)], fire_timeout=20) as bus:
        await bus.auth.user_created.fire_async(username="ada", email="e")

    async with bus_on([refusing, refusing], fire_timeout=20) as bus:
        with pytest.raises(TransportRefused, match="no such virtual host"):
            await bus.auth.user_created.fire_async(username="ada", email="e")


async def test_the_killed_leader_of_a_queue_under_load_loses_no_event(
    cluster: RabbitMQCluster, vhost: str
) -> None:
    async with load_on(cluster, vhost) as load:
        async with load.firing():
            await load.wait_for_more(500)
            killed = await asyncio.to_thread(cluster.kill_leader, QUEUE, vhost)
            await load.wait_for_more(1000)
            await asyncio.to_thread(cluster.mend)
            await load.wait_for_more(500)
        await load.wait_for_all()

    assert killed is cluster.nodes[0]
    assert len(load.confirmed) >= 2000


async def test_a_partition_under_load_loses_nothing(cluster: RabbitMQCluster, vhost: str) -> None:
    async with load_on(cluster, vhost) as load:
        async with load.firing():
            await load.wait_for_more(500)
            leader = await asyncio.to_thread(cluster.leader_of, QUEUE, vhost)
            await asyncio.to_thread(cluster.partition, leader)
            await asyncio.sleep(5)  # the time itself is the fault
            await asyncio.to_thread(cluster.mend)
            await load.wait_for_more(1500)
        await load.wait_for_all()

    assert len(load.confirmed) >= 2000


async def test_a_node_without_a_majority_confirms_no_event_and_its_listeners_resume(
    cluster: RabbitMQCluster, vhost: str
) -> None:
    alone = cluster.nodes[2]
    seen = Seen[str]()
    async with bus_on([alone.url(vhost)], fire_timeout=4) as bus:
        bus.auth.user_created.listen(lambda username: seen.add(username), listener_name="welcome")
        async with Worker(bus):
            await bus.auth.user_created.fire_async(username="before", email="e")
            await seen.wait_for(1)
            await asyncio.to_thread(cluster.partition, alone)

            with pytest.raises((SendOutcomeUnknown, SendRefused, TransportUnavailable)):
                await bus.auth.user_created.fire_async(username="meanwhile", email="e")

            await asyncio.to_thread(cluster.mend)
            async with bus_on(cluster.urls(vhost)) as other:
                await other.auth.user_created.fire_async(username="after", email="e")
            await seen.wait_for_item("after", timeout=60)
