"""The faults that a run makes. Each mends what it broke, and notes when it was made."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Mapping, Sequence

from faults.soak import QUEUES, Fault, Soak
from rabbitmq_node import NEW_QUEUES_ARE_SAVED_AFTER, NodeFailed

QUEUE, _ = QUEUES

# Bytes a second. What is fired and handled takes more.
SLOW = 50_000


async def kill_worker(soak: Soak) -> None:
    soak.replace_worker()


async def freeze_worker(soak: Soak) -> None:
    worker = soak.any_worker()
    with soak.disrupting("freeze_worker", worker.name):
        worker.process.send_signal(signal.SIGSTOP)
        try:
            await asyncio.sleep(6)  # longer than heartbeats, or leases, wait
        finally:
            worker.process.send_signal(signal.SIGCONT)


async def kill_producer(soak: Soak) -> None:
    soak.replace_producer()


async def cut_link(soak: Soak) -> None:
    with soak.disrupting("cut_link"):
        soak.proxy.cut()


async def silence_link(soak: Soak) -> None:
    with soak.disrupting("silence_link"):
        soak.proxy.silence()
        try:
            await asyncio.sleep(6)
        finally:
            soak.proxy.resume()


async def slow_link(soak: Soak) -> None:
    with soak.disrupting("slow_link"):
        soak.proxy.bytes_per_second = SLOW
        try:
            await asyncio.sleep(4)
        finally:
            soak.proxy.bytes_per_second = None


async def close_connections(soak: Soak) -> None:
    with (
        soak.disrupting("close_connections"),
        contextlib.suppress(NodeFailed),  # one that has gone by itself meanwhile
    ):
        await asyncio.to_thread(soak.node.close_connections, "/")


async def close_channel(soak: Soak) -> None:
    worker = soak.any_worker()
    with soak.disrupting("close_channel", worker.name):
        worker.process.send_signal(signal.SIGUSR1)


async def delete_queue(soak: Soak) -> None:
    """Delete the queue that all consume from, which takes what is in it along, when that is
    nothing.
    """
    async with soak.everything_settled() as is_empty:
        if not is_empty:
            return
        with soak.disrupting("delete_queue"):
            await asyncio.to_thread(soak.node.delete_queue, "/", QUEUE)
            # Until it is there again, events are confirmed that nobody listens for.
            await asyncio.to_thread(soak.node.wait_for_consumers, "/", QUEUE)
        await asyncio.sleep(NEW_QUEUES_ARE_SAVED_AFTER)


async def restart_broker(soak: Soak) -> None:
    with soak.disrupting("restart_broker"):
        await asyncio.to_thread(soak.node.stop)
        await asyncio.to_thread(soak.node.start)


async def restart_broker_slowly(soak: Soak) -> None:
    with soak.disrupting("restart_broker_slowly"):
        await asyncio.to_thread(soak.node.stop)
        await asyncio.sleep(8)
        await asyncio.to_thread(soak.node.start)


async def kill_broker(soak: Soak) -> None:
    with soak.disrupting("kill_broker"):
        await asyncio.to_thread(soak.node.kill)
        await asyncio.to_thread(soak.node.start)


async def freeze_broker(soak: Soak) -> None:
    with soak.disrupting("freeze_broker"):
        soak.node.freeze()
        try:
            await asyncio.sleep(6)
        finally:
            soak.node.thaw()


async def fill_memory(soak: Soak) -> None:
    await _with_alarm(soak, "set_vm_memory_high_watermark", "0.00000001", "0.4")


async def fill_disk(soak: Soak) -> None:
    await _with_alarm(soak, "set_disk_free_limit", "1000000GB", "50MB")


async def _with_alarm(soak: Soak, command: str, low: str, normal: str) -> None:
    await asyncio.to_thread(soak.node.ctl, command, low)
    try:
        await asyncio.sleep(2)
    finally:
        await asyncio.to_thread(soak.node.ctl, command, normal)


async def kill_leader(soak: Soak) -> None:
    """Kill the node that leads the queue that all consume from, and bring it back."""
    with soak.disrupting("kill_leader"):
        await asyncio.to_thread(soak.cluster.kill_leader, QUEUE)
        await asyncio.sleep(5)
        await asyncio.to_thread(soak.cluster.mend)


async def partition(soak: Soak) -> None:
    """Part one node of a cluster from the others for a while."""
    with soak.disrupting("partition"):
        await asyncio.to_thread(soak.cluster.partition, soak.choose(soak.cluster.nodes))
        try:
            await asyncio.sleep(10)
        finally:
            await asyncio.to_thread(soak.cluster.mend)


ON: Mapping[str, Sequence[Fault]] = {
    "cluster": (kill_worker, freeze_worker, kill_producer, close_channel, kill_leader, partition),
    "sqlite": (kill_worker, kill_producer, freeze_worker),
    "rabbitmq": (
        kill_worker,
        freeze_worker,
        kill_producer,
        cut_link,
        silence_link,
        slow_link,
        close_connections,
        close_channel,
        delete_queue,
        restart_broker,
        restart_broker_slowly,
        kill_broker,
        freeze_broker,
        fill_memory,
        fill_disk,
    ),
}
