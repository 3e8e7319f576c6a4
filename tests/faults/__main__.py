"""Makes faults while events go through a transport, and counts what became of them.

::

    cd tests
    python -m faults sqlite --events 100000 --every 1
    python -m faults rabbitmq --events 100000

It ends with 1 where an event was lost, or came from nowhere.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

from faults.checker import Result
from faults.soak import ON_RABBITMQ, ON_SQLITE, Soak
from rabbitmq_node import running_node
from tcp_proxy import running_proxy


@contextlib.asynccontextmanager
async def soak_on(
    transport: str, *, events: int, every: float, seed: int, rate: float | None
) -> AsyncIterator[Soak]:
    """Give a run on a broker that is made for it."""
    with tempfile.TemporaryDirectory(prefix="lightbus-faults-") as name:
        folder = Path(name)
        if transport == "sqlite":
            settings = {"sqlite": {"path": str(folder / "events.db"), "lease": 2}}
            yield Soak(
                folder, settings, events=events, faults=ON_SQLITE, every=every, seed=seed, rate=rate
            )
            return
        with running_node() as node:
            async with running_proxy(node.amqp_port) as proxy:
                url = f"amqp://guest:guest@127.0.0.1:{proxy.port}/"
                yield Soak(
                    folder,
                    {"rabbitmq": {"url": url, "heartbeat": 2}},
                    events=events,
                    faults=ON_RABBITMQ,
                    every=every,
                    seed=seed,
                    rate=rate,
                    node=node,
                    proxy=proxy,
                )


async def run(given: argparse.Namespace) -> Result:
    """Run, and tell what happened."""
    started = time.monotonic()
    async with soak_on(
        given.transport,
        events=given.events,
        every=given.every,
        seed=given.seed,
        rate=given.rate,
    ) as soak:
        result = await soak.run()
    made = ", ".join(f"{name} {count}" for name, count in soak.made.most_common())
    print(f"{result}\nfaults: {made or 'none'}; {time.monotonic() - started:.0f} s")
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description="Make faults, and count what became of events.")
    parser.add_argument("transport", choices=["sqlite", "rabbitmq"])
    parser.add_argument("--events", type=int, default=20_000)
    parser.add_argument("--every", type=float, default=5.0, metavar="SECONDS")
    parser.add_argument("--rate", type=float, metavar="EVENTS A SECOND")
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(4)))
    given = parser.parse_args()
    print(f"seed {given.seed}", flush=True)
    # That connections are lost is what is asked for.
    logging.disable(logging.CRITICAL)
    sys.exit(not asyncio.run(run(given)).kept_the_promise)


if __name__ == "__main__":
    main()
