"""A service on an SQLite file, and the commands about its dead letters."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

import lightbus
from command import TIMEOUT, Command
from core.apis import AuthApi
from core.cli.dead_letters.support import Run, subscription_of, transport_of
from lightbus import Bus


@pytest.fixture
async def bus(tmp_path: Path, config: dict[str, Any]) -> AsyncIterator[Bus]:
    """A bus of the service, with two listeners whose queues exist."""
    (tmp_path / "bus.py").write_text("import lightbus\nbus = lightbus.create()\n")
    bus = lightbus.create(config)
    bus.client.register_api(AuthApi)
    for name in ("welcome", "count"):
        bus.auth.user_created.listen(lambda username: None, listener_name=name)
        transport = await transport_of(bus)
        await transport.declare(subscription_of(bus, name), timeout=TIMEOUT)
    yield bus
    await bus.client.close_async()


@pytest.fixture
def dead_letters(bus: Bus, command: Command) -> Run:
    """Runs `lightbus dead-letters ...`, in a terminal that is wide enough for its tables."""

    def run(*arguments: str, **options: str) -> tuple[int, str, str]:
        return command("dead-letters", *arguments, COLUMNS="200", **options)

    return run
