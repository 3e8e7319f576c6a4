"""`lightbus fire` and `lightbus config`, in processes of their own."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
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


async def test_an_id_that_can_not_be_printed_makes_no_event_that_was_not_stored(
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
        assert (fired.returncode, b"Traceback" in said, b"is stored" in said) == (0, False, True)
        assert await received.next() == "adam"
    await bus.client.close_async()


async def test_a_value_is_text_where_its_type_takes_it(
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
    ("args", "code", "told"),
    [
        (["auth.user_created", "username=adam"], 1, "missing 'age'"),
        (["auth.user_crated"], 1, "Did you mean 'user_created'?"),
        (["mail.sent"], 1, "API 'mail' is not registered here"),
        (
            ["auth.user_renamed", "name=a", "at=soon"],
            1,
            "Expected `int | null`, got `str` - at `$.at`",
        ),
        (["user_created"], 2, "'user_created' is not of the form api.event."),
        (["auth.user_created", "username=a", "username=b"], 2, "'username' is given twice."),
        (["auth.user_created", "username=a", f"age={'[' * 5000}", "x=1"], 1, "unexpected 'x'"),
        (["auth.user_created", "adam"], 2, "'adam' is not of the form name=value."),
    ],
)
def test_what_can_not_be_fired_is_told_in_a_line(
    command: Command, config: dict[str, Any], args: list[str], code: int, told: str
) -> None:
    ended_with, printed, said = command("fire", *args)
    assert (ended_with, printed) == (code, "")
    assert told in said


def test_a_right_configuration_is_shown(
    command: Command, tmp_path: Path, config: dict[str, Any]
) -> None:
    config["apis"]["slow"] = {"acknowledgement_timeout": 300}
    (tmp_path / "lightbus.json").write_text(json.dumps(config))
    code, printed, said = command("config", "check")
    assert (code, said) == (0, "")
    assert "Right: lightbus.json" in printed
    assert "service shop" in printed
    assert printed.splitlines()[2:] == [
        f"default: sqlite ({tmp_path}/events.db)",
        "    acknowledgement_timeout 60 s, max_attempts 20, fire_timeout 30 s",
        f"slow: sqlite ({tmp_path}/events.db)",
        "    acknowledgement_timeout 300 s, max_attempts 20, fire_timeout 30 s",
    ]


def test_what_a_bus_module_says_itself_is_shown(command: Command, tmp_path: Path) -> None:
    (tmp_path / "named.py").write_text(
        "import lightbus\nbus = lightbus.create({'apis': {}}, service_name='shop')\n"
    )
    code, printed, said = command("config", "check", "--bus", "named")
    assert (code, said) == (0, "")
    assert printed.startswith("Right: the config given to create()\nservice shop, process ")


def test_without_a_bus_module_the_config_file_is_checked(
    command: Command, config: dict[str, Any], bus_module: Path
) -> None:
    bus_module.unlink()
    code, printed, said = command("config", "check")
    assert (code, said) == (0, "")
    assert "service shop" in printed


def test_a_bus_module_that_is_named_and_missing_is_told(command: Command, tmp_path: Path) -> None:
    for setting in ({"LIGHTBUS_MODULE": "nope"}, {"LIGHTBUS_CONFIG": "named.json"}):
        (tmp_path / "named.json").write_text('{"bus": "nope"}')
        code, _, said = command("config", "check", **setting)
        assert code == 2
        assert "'nope' was not found" in said


@pytest.mark.parametrize("name", ["bus.py", "./bus"])
def test_a_bus_module_is_named_and_no_file(command: Command, name: str) -> None:
    code, _, said = command("status", "--bus", name)
    assert code == 2
    assert "is no module's dotted name, such as 'bus'" in said


@pytest.mark.parametrize("subcommand", ["status", "topology", "schema dump", "dead-letters list"])
def test_a_mistake_in_the_bus_module_is_told_with_its_place(
    command: Command, tmp_path: Path, subcommand: str
) -> None:
    with (tmp_path / "bus.py").open("a") as bus:
        bus.write("bus.auth.paid.listen(print, concurrency=0)\n")
    code, _, said = command(*subcommand.split())
    assert code == 2
    assert "concurrency is 0; give 1 or more." in said
    assert f"bus.py, line {len(BUS.splitlines()) + 1})" in said


@pytest.mark.parametrize("subcommand", ["status", "topology", "tail", "schema asyncapi"])
def test_a_hook_that_fails_is_told_in_a_line(
    command: Command, tmp_path: Path, subcommand: str
) -> None:
    with (tmp_path / "bus.py").open("a") as bus:
        bus.write("@bus.client.on_start()\ndef fails():\n    raise OSError('no database')\n")
    code, _, said = command(*subcommand.split())
    assert (code, said) == (1, "Error: OSError: no database\n")


def test_no_password_of_a_configuration_is_shown(
    command: Command, tmp_path: Path, config: dict[str, Any]
) -> None:
    url = "amqp://shop:hunter2@localhost/"
    config["apis"]["default"]["event_transport"] = {"rabbitmq": {"url": url}}
    (tmp_path / "lightbus.json").write_text(json.dumps(config))
    _, printed, _ = command("config", "check")
    assert "amqp://localhost:5672/" in printed
    assert "hunter2" not in printed


def test_a_wrong_configuration_is_told_in_a_line(
    command: Command, tmp_path: Path, config: dict[str, Any]
) -> None:
    config["apis"]["default"]["fire_timout"] = 3
    (tmp_path / "lightbus.json").write_text(json.dumps(config))
    code, printed, said = command("config", "check")
    assert (code, printed) == (2, "")
    assert "$.apis.default: there is no setting 'fire_timout'. Did you mean" in said


def test_a_name_that_can_not_be_one_is_a_wrong_configuration(
    command: Command, tmp_path: Path, config: dict[str, Any]
) -> None:
    config["service_name"] = "two words"
    config["$schema"] = "config.json"
    (tmp_path / "lightbus.json").write_text(json.dumps(config))
    code, printed, said = command("config", "check")
    assert (code, printed) == (2, "")
    assert "Invalid service name 'two words'" in said


def errors(schema: dict[str, Any], config: dict[str, Any]) -> list[str]:
    validator = jsonschema.Draft202012Validator(schema)
    return [error.json_path for error in validator.iter_errors(config)]


def test_the_schema_of_the_configuration_takes_what_is_right_and_refuses_what_is_wrong(
    command: Command, config: dict[str, Any]
) -> None:
    code, printed, _ = command("config", "schema")
    assert code == 0
    schema = json.loads(printed)
    jsonschema.Draft202012Validator.check_schema(schema)
    assert errors(schema, config) == []
    assert errors(schema, {}) == []
    assert errors(schema, {"shutdown_timeout": "${SECONDS}", "$schema": "config.json"}) == []
    assert errors(schema, {"apis": {"a": {"max_attempts": "${COUNT}"}}}) == []
    assert errors(schema, {"apis": {"a": {"max_attempts": "many"}}})
    assert errors(schema, {"apis": {"a": {"event_transport": {"sqlite": None}}}}) == []
    assert errors(schema, {"apis": {"a": {"event_transport": {}}}})
    assert errors(schema, {"apis": {"a": {"event_transport": {"redis": {}}}}})
    assert errors(schema, {"apis": {"a": {"event_transport": {"rabbitmq": {"url": 3}}}}})
    assert errors(schema, {"apis": {"a": {"max_attempts": 0}}})
    assert errors(schema, {"servce_name": "shop"})
