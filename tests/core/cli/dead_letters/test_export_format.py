"""The file that `lightbus dead-letters export` writes, which `discard --exported` reads."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import lightbus
from command import TIMEOUT, Command
from core.apis import AuthApi
from golden_files import assert_format, with_placeholders
from lightbus import OnError, Worker

VARYING = {
    "id": "id of the event",
    "fired_at": "time of the firing",
    "failed_at": "time of the failure",
    "first_failed_at": "time of the first failure",
    "last_failed_at": "time of the last failure",
    "traceback": "traceback",
    "process_name": "process name",
    "process": "process name",
    "hostname": "host name",
    "host": "host name",
    "pid": "process id",
}


async def test_the_format_of_an_export_is_unchanged(tmp_path: Path) -> None:
    config = {
        "service_name": "shop",
        "apis": {"default": {"event_transport": {"sqlite": {"path": str(tmp_path / "e.db")}}}},
    }
    (tmp_path / "lightbus.json").write_text(json.dumps(config))
    (tmp_path / "bus.py").write_text("import lightbus\nbus = lightbus.create()\n")
    bus = lightbus.create(config)
    bus.client.register_api(AuthApi)

    was_called = asyncio.Event()

    async def fails(username: str) -> None:
        was_called.set()
        raise ValueError(username)

    bus.auth.user_deleted.listen(
        fails, listener_name="welcome", on_error=OnError.ACKNOWLEDGE_AND_LOG
    )
    async with Worker(bus):
        await bus.auth.user_deleted.fire_async(username="ada")
        async with asyncio.timeout(TIMEOUT):
            await was_called.wait()
    await bus.client.close_async()

    with Command(tmp_path) as command:
        code, printed, _ = command("dead-letters", "export")

    assert code == 0
    lines = [with_placeholders(json.loads(line), VARYING) for line in printed.splitlines()]
    assert_format("export.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
