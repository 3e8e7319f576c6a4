"""`lightbus fire`, in a process of its own."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import lightbus
from command import Command
from core.support import Received
from lightbus import Worker

BUS = """
from decimal import Decimal

import lightbus
from lightbus import Api, Event, Parameter, event

bus = lightbus.create()


class AuthApi(Api):
    user_created = Event(parameters=("username", "age"))
    paid = Event(parameters=(Parameter("cents", Decimal), Parameter("by", str | None)))

    @event
    def user_renamed(self, *, name: str, at: int | None = None) -> None: ...

    class Meta:
        name = "auth"


bus.client.register_api(AuthApi)
"""


@pytest.fixture(autouse=True)
def bus_module(tmp_path: Path) -> Path:
    file = tmp_path / "bus.py"
    file.write_text(BUS)
    return file


async def test_an_event_is_fired_with_values_as_json_or_as_text(
    command: Command, config: dict[str, Any], received: Received
) -> None:
    bus = lightbus.create(config)
    bus.auth.user_created.listen(lambda **fields: received.add(fields), listener_name="created")
    bus.auth.user_renamed.listen(lambda **fields: received.add(fields), listener_name="renamed")
    async with Worker(bus):
        code, printed, said = command("fire", "auth.user_created", "username=adam", "age=[3, 4]")
        assert (code, said, len(printed.strip())) == (0, "", 36)
        assert await received.next() == {"username": "adam", "age": [3, 4]}
        code, _, said = command("fire", "auth.user_renamed", "name=3", "at=4")
        assert (code, said) == (0, "")
        assert await received.next() == {"name": "3", "at": 4}
    await bus.client.close_async()


async def test_an_event_is_stored_even_if_its_id_cannot_be_printed(
    command: Command, config: dict[str, Any], received: Received, tmp_path: Path
) -> None:
    bus = lightbus.create(config)
    bus.auth.user_created.listen(received.add_name, listener_name="created")
    async with Worker(bus):
        fire = f"{sys.executable} -m lightbus.cli fire auth.user_created username=adam age=3"
        fired = await asyncio.create_subprocess_shell(
            f"{fire} >/dev/full", cwd=tmp_path, stderr=subprocess.PIPE
        )
        _, said = await fired.communicate()
        assert (fired.returncode, b"Traceback" in said, b"Fired " in said) == (0, False, True)
        assert await received.next() == "adam"
    await bus.client.close_async()


async def test_a_value_is_text_if_its_type_accepts_text(
    command: Command, config: dict[str, Any], received: Received
) -> None:
    bus = lightbus.create(config)
    bus.auth.paid.listen(lambda **fields: received.add(fields), listener_name="paid")
    async with Worker(bus):
        code, _, said = command("fire", "auth.paid", "cents=12345678901234567.89", "by=007")
        assert (code, said) == (0, "")
        assert await received.next() == {"cents": "12345678901234567.89", "by": "007"}
    await bus.client.close_async()


@pytest.mark.parametrize(
    ("args", "code", "expected"),
    [
        (["auth.user_created", "username=adam"], 1, "missing 'age'"),
        (["auth.user_crated"], 1, "Did you mean 'user_created'?"),
        (["mail.sent"], 1, "API 'mail' is not registered"),
        (["auth.user_renamed", "name=a", "at=soon"], 1, "at `$.at`"),
        (["user_created"], 2, "'user_created' is not of the form API.EVENT."),
        (["auth.user_created", "username=a", "username=b"], 2, "'username' is given twice."),
        (["auth.user_created", "username=a", f"age={'[' * 5000}", "x=1"], 1, "unexpected 'x'"),
        (["auth.user_created", "adam"], 2, "'adam' is not of the form NAME=VALUE."),
    ],
)
def test_an_event_that_cannot_be_fired_is_reported_in_one_line(
    command: Command, config: dict[str, Any], args: list[str], code: int, expected: str
) -> None:
    ended_with, printed, said = command("fire", *args)
    assert (ended_with, printed) == (code, "")
    assert expected in said
