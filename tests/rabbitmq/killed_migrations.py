"""A program that migrates, and kills itself after a number of steps. Tests start it.

For each number that it reads, it forks. The child migrates, and kills itself with SIGKILL when the
broker has answered that many requests that change something. The program writes the exit status of
the child.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from typing import Any

from aiormq.channel import Channel
from pamqp.commands import Basic, Exchange, Queue

import lightbus
from lightbus.operations.topology import topology_of
from lightbus_rabbitmq.driver.channel import Channel as PublishingChannel
from lightbus_rabbitmq.topology import queue_migration

_CHANGES = (Queue.Bind, Queue.Unbind, Queue.Delete, Exchange.Delete, Basic.Get)

Call = Callable[..., Awaitable[Any]]


def kill_after(steps: int) -> None:
    """Kill this process after `steps` requests that change something."""
    left = steps

    def count(_: object = None) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def counted(call: Call) -> Call:
        async def wrapper(self: Channel, *args: Any, **kwargs: Any) -> Any:
            result = await call(self, *args, **kwargs)
            if call.__name__ != "rpc" or _changes(args[0]):
                count()
            return result

        return wrapper

    def counted_send(self: PublishingChannel, *args: Any, **kwargs: Any) -> asyncio.Future[Any]:
        sent = send(self, *args, **kwargs)
        sent.add_done_callback(count)
        return sent

    for name in ("rpc", "basic_ack"):
        setattr(Channel, name, counted(getattr(Channel, name)))
    send = PublishingChannel.send
    setattr(PublishingChannel, "send", counted_send)  # noqa: B010 - it is no method to mypy


def _changes(request: Any) -> bool:
    if isinstance(request, Queue.Declare):
        return not request.passive and not request.exclusive
    return isinstance(request, _CHANGES)


async def migrate(config: str) -> None:
    """Migrate the topology of the test's service."""
    bus = lightbus.create(config)
    bus.auth.user_created.listen(lambda username: None, listener_name="welcome")
    async with topology_of(bus.client) as known:
        await known.migrate(on_progress=lambda _: None)
    await bus.client.close_async()


def main() -> None:
    """Fork for each number."""
    # There are many migrations, and no broker is killed.
    queue_migration.EMPTY_CHECKS = 2
    queue_migration.NEW_QUEUE_DELAY = 0.05
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            kill_after(int(line))
            asyncio.run(migrate(sys.argv[1]))
            os._exit(0)
        _, status = os.waitpid(child, 0)
        print(status, flush=True)  # noqa: T201 - for the test to read


if __name__ == "__main__":
    main()
