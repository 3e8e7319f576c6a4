"""Forked processes start with transports of their own."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from core.apis import AuditApi, AuthApi
from core.support import MakeBus, ignore
from lightbus import Bus
from lightbus.transport.contract import EventTransport
from lightbus.transport.features import QueueStats, require


@pytest.fixture
def bus(make_bus: MakeBus) -> Bus:
    """A bus with a listener, for which the broker keeps what is fired."""
    bus = make_bus(AuthApi, AuditApi)
    bus.auth.user_deleted.listen(ignore, listener_name="gather")
    return bus


@pytest.fixture
def shared_bus(make_bus: MakeBus, tmp_path: Path) -> Bus:
    """Such a bus on a broker that processes can share."""
    bus = make_bus(event_transport={"sqlite": {"path": str(tmp_path / "events.db")}})
    bus.auth.user_deleted.listen(ignore, listener_name="gather")
    return bus


async def transport_of(bus: Bus, api_name: str = "auth") -> EventTransport:
    return bus.client.transports.transport(api_name).transport


async def count_waiting(bus: Bus) -> int:
    """Return how many events wait for the only listener of `bus`."""
    (listener,) = bus.client.listeners
    subscription = listener.subscription("shop")
    transport = require(await transport_of(bus), QueueStats, "the test")
    return (await transport.stats(subscription)).total


def in_a_fork(child: Callable[[], object]) -> tuple[int, str]:
    """Run `child` in a forked process; return its exit code and what went wrong there."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            child()
            code = 0
        except BaseException as error:
            os.write(writing, repr(error).encode())
        finally:
            os._exit(code)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        problem = pipe.read().decode()
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status), problem


# Since 3.12, Python warns of each fork beside a thread. These tests show that such a fork works.
forking = pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")


@forking
def test_a_forked_child_fires_through_its_own_transport(shared_bus: Bus) -> None:
    bus = shared_bus
    bus.auth.user_deleted.fire(username="before the fork")

    def child() -> None:
        bus.auth.user_deleted.fire(username="child")
        asyncio.run(bus.auth.user_deleted.fire_async(username="child's loop"))
        bus.client.close()

    assert in_a_fork(child) == (0, "")
    bus.auth.user_deleted.fire(username="after the fork")
    assert asyncio.run(count_waiting(bus)) == 4


@forking
async def test_a_child_forked_beside_a_running_loop_starts_with_no_transport(
    shared_bus: Bus,
) -> None:
    bus = shared_bus
    mine = await transport_of(bus)
    closed: list[str] = []
    mine.close = lambda: closed.append("closed")  # type: ignore[method-assign,assignment,return-value]

    def child() -> None:
        bus.client.close()
        assert asyncio.run(transport_of(bus)) is not mine
        bus.auth.user_deleted.fire(username="child")
        bus.client.close()
        assert closed == [], "the child closed a transport of its parent"

    assert in_a_fork(child) == (0, "")
    del mine.close
    assert await transport_of(bus) is mine
    await bus.auth.user_deleted.fire_async(username="parent")
    assert await count_waiting(bus) == 2


@forking
def test_a_child_cannot_fire_into_a_copy_of_its_parents_memory(bus: Bus) -> None:
    bus.auth.user_deleted.fire(username="parent")

    code, problem = in_a_fork(lambda: bus.auth.user_deleted.fire(username="child"))

    assert code == 1
    assert "TransportRefused" in problem


@forking
def test_a_child_has_its_own_process_name(bus: Bus) -> None:
    mine = bus.client.config.process_name()

    def child() -> None:
        assert str(os.getpid()) in bus.client.config.process_name()
        assert bus.client.config.process_name() != mine

    assert in_a_fork(child) == (0, "")
