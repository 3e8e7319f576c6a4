"""Threads, event loops and forks have connections of their own. No test here is a coroutine."""

from __future__ import annotations

import asyncio
import functools
import os
import sys
import threading
import traceback
from collections.abc import Callable, Iterator

import pytest

from lightbus import Bus, Worker, create
from lightbus.exceptions import CannotBlockHere
from rabbitmq_support import AuthApi, Seen


@pytest.fixture
def bus(rabbitmq_url: str) -> Iterator[Bus]:
    default = {"event_transport": {"rabbitmq": {"url": rabbitmq_url}}}
    bus = create({"apis": {"default": default}}, service_name="shop")
    bus.client.register_api(AuthApi)
    yield bus
    bus.client.close()


def listen(bus: Bus, seen: Seen[str]) -> None:
    bus.auth.user_created.listen(lambda username: seen.add(username), listener_name="welcome")


async def served(bus: Bus, seen: Seen[str], count: int) -> list[str]:
    async with Worker(bus):
        return sorted(await seen.wait_for(count))


def test_a_second_asyncio_run_works(bus: Bus) -> None:
    seen = Seen[str]()
    listen(bus, seen)

    for name in ("ada", "bob", "cyd"):
        asyncio.run(fire(bus, name))

    assert asyncio.run(served(bus, seen, 3)) == ["ada", "bob", "cyd"]


async def fire(bus: Bus, name: str) -> None:
    await bus.auth.user_created.fire_async(username=name, email="e")


def test_fire_works_before_beside_and_after_an_event_loop(bus: Bus) -> None:
    seen = Seen[str]()
    listen(bus, seen)

    bus.auth.user_created.fire(username="before", email="e")
    asyncio.run(fire(bus, "within"))
    bus.auth.user_created.fire(username="after", email="e")

    assert asyncio.run(served(bus, seen, 3)) == ["after", "before", "within"]


def test_fire_on_a_thread_with_a_running_loop_names_fire_async(bus: Bus) -> None:
    async def fire_blocking() -> None:
        bus.auth.user_created.fire(username="ada", email="e")

    with pytest.raises(CannotBlockHere, match="fire_async"):
        asyncio.run(fire_blocking())


def test_sixteen_threads_fire_at_once(bus: Bus) -> None:
    seen = Seen[str]()
    listen(bus, seen)
    names = [f"t{thread}-{number}" for thread in range(16) for number in range(10)]

    def fire_ten(thread: int) -> None:
        for number in range(10):
            bus.auth.user_created.fire(username=f"t{thread}-{number}", email="e")

    in_parallel(fire_ten, 16)

    assert asyncio.run(served(bus, seen, 160)) == sorted(names)


def test_event_loops_in_two_threads_each_have_their_own_connections(bus: Bus) -> None:
    seen = Seen[str]()
    listen(bus, seen)

    in_parallel(lambda number: asyncio.run(fire(bus, f"u{number}")), 2)

    assert asyncio.run(served(bus, seen, 2)) == ["u0", "u1"]


def in_parallel(work: Callable[[int], None], count: int) -> None:
    threads = [threading.Thread(target=work, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_forked_children_fire_through_connections_of_their_own(bus: Bus) -> None:
    """Like in a pre-fork server, the parent fires before it forks its workers."""
    seen = Seen[str]()
    listen(bus, seen)
    bus.auth.user_created.fire(username="parent", email="e")

    children = [fork(functools.partial(fire_some, bus, f"child{number}")) for number in range(4)]
    for number in range(25):
        bus.auth.user_created.fire(username=f"parent{number}", email="e")
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]

    assert codes == [0, 0, 0, 0]
    assert len(asyncio.run(served(bus, seen, 126))) == 126


def fire_some(bus: Bus, name: str) -> None:
    for number in range(25):
        bus.auth.user_created.fire(username=f"{name}-{number}", email="e")
    bus.client.close()


def fork(work: Callable[[], None]) -> int:
    child = os.fork()
    if child:
        return child
    try:
        work()
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
    os._exit(0)
