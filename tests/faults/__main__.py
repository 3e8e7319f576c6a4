"""Makes faults while events go through a transport, and counts what became of them.

::

    cd tests
    python -m faults sqlite --events 100000 --every 1
    python -m faults rabbitmq --events 1000000
    python -m faults rabbitmq --faults kill_broker,cut_link
    python -m faults cluster --events 20000

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
from faults.disruptions import ON
from faults.soak import CLOCK_LIBRARY, Plan, Soak
from rabbitmq_cluster import running_cluster
from rabbitmq_node import running_node
from tcp_proxy import running_proxy


@contextlib.asynccontextmanager
async def soak_on(transport: str, plan: Plan) -> AsyncIterator[Soak]:
    """Give a run on a broker that is made for it."""
    with tempfile.TemporaryDirectory(prefix="lightbus-faults-") as name:
        folder = Path(name)
        if transport == "sqlite":
            settings = {"sqlite": {"path": str(folder / "events.db"), "lease": 2}}
            yield Soak(folder, settings, plan)
            return
        if transport == "cluster":
            with running_cluster() as cluster:
                print(f"{len(cluster.nodes)} nodes of RabbitMQ {cluster.nodes[0].version}")
                settings = {"rabbitmq": {"url": cluster.urls(), "heartbeat": 2}}
                yield Soak(folder, settings, plan, cluster=cluster)
                return
        with running_node() as node:
            print(f"RabbitMQ {node.version}", flush=True)
            async with running_proxy(node.amqp_port) as proxy:
                url = f"amqp://guest:guest@127.0.0.1:{proxy.port}/"
                settings = {"rabbitmq": {"url": url, "heartbeat": 2}}
                yield Soak(folder, settings, plan, node=node, proxy=proxy)


async def run(transport: str, plan: Plan) -> Result:
    """Run, and tell what happened."""
    started = time.monotonic()
    async with soak_on(transport, plan) as soak:
        result = await soak.run()
    made = ", ".join(f"{name} {count}" for name, count in soak.made.most_common())
    clocks = "wrong by up to a day" if plan.skews_clocks else "right"
    print(f"{result}\nfaults: {made or 'none'}")
    print(f"wall clocks: {clocks}; {time.monotonic() - started:.0f} s")
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description="Make faults, and count what became of events.")
    parser.add_argument("transport", choices=sorted(ON))
    parser.add_argument("--events", type=int, default=20_000)
    parser.add_argument("--every", type=float, default=5.0, metavar="SECONDS")
    parser.add_argument("--rate", type=float, default=0.0, metavar="EVENTS A SECOND")
    parser.add_argument("--faults", metavar="NAME,...", help="by default, all that there are")
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(4)))
    given = parser.parse_args()
    faults = {fault.__name__: fault for fault in ON[given.transport]}
    names = faults if given.faults is None else given.faults.split(",")
    if unknown := set(names) - set(faults):
        parser.error(f"no fault {', '.join(sorted(unknown))}; there are {', '.join(faults)}")
    plan = Plan(
        events=given.events,
        rate=given.rate,
        faults=[faults[name] for name in names],
        every=given.every,
        seed=given.seed,
        # The leases of SQLite are kept by the wall clock; those of RabbitMQ need none.
        skews_clocks=given.transport != "sqlite" and CLOCK_LIBRARY is not None,
    )
    print(f"seed {given.seed}", flush=True)
    # That connections are lost is what is asked for.
    logging.disable(logging.CRITICAL)
    sys.exit(not asyncio.run(run(given.transport, plan)).kept_the_promise)


if __name__ == "__main__":
    main()
