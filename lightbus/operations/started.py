"""`started`: runs a program's `on_start` hooks without a worker."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator

from lightbus.client import BusClient


@contextlib.asynccontextmanager
async def started(client: BusClient) -> AsyncGenerator[None]:
    """Run the `on_start` hooks, which may add listeners, and the `on_stop` hooks at the end.

    Raises:
        Exception: A hook raised it. If it was an `on_start` hook, the `on_stop` hooks do not run.
    """
    await client.on_start.run()
    try:
        yield
    finally:
        await client.on_stop.run()
