"""The configuration: its sources, defaults and variables."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import get_args

import pytest

import lightbus
from lightbus import OnError
from lightbus.config import OnErrorName, Overrides, apply_overrides, load
from lightbus.exceptions import ConfigError
from lightbus_rabbitmq.settings import RabbitMQSettings

PASSWORD = "correct-horse"

pytestmark = pytest.mark.usefixtures("folder")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("lightbus.yaml", "service_name: bank"),
        ("lightbus.yml", "{service_name: bank}"),
        ("lightbus.json", '{"service_name": "bank"}'),
        ("lightbus.toml", 'service_name = "bank"'),
    ],
)
def test_a_file_in_the_current_folder_is_found(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(text)

    assert load().service_name == "bank"
    assert load().source == name


def test_without_a_file_there_are_defaults_and_the_name_of_the_folder() -> None:
    config = load()

    assert (config.service_name, config.is_service_named) == ("shop", False)
    assert config.api("auth").acknowledgement_timeout == 60
    assert config.api("auth").max_attempts == 20
    assert config.api("auth").fire_timeout == 30
    assert config.process_name().endswith(f"-{os.getpid()}")


@pytest.mark.parametrize("placeholder", ["{random8}", "{friendly}", "{hostname}"])
def test_the_name_of_a_process_does_not_change(
    monkeypatch: pytest.MonkeyPatch, placeholder: str
) -> None:
    config = load(process_name=placeholder)
    name = config.process_name()

    monkeypatch.setattr("socket.gethostname", lambda: "renamed")

    assert {config.process_name() for _ in range(100)} == {name}


def test_an_empty_file_changes_no_default(folder: Path) -> None:
    (folder / "lightbus.yaml").write_text("# nothing yet\n")

    assert load().service_name == "shop"


def test_two_files_in_one_folder_are_an_error(folder: Path) -> None:
    (folder / "lightbus.yaml").touch()
    (folder / "lightbus.toml").touch()

    with pytest.raises(ConfigError, match=r"lightbus\.yaml and lightbus\.toml both exist"):
        load()


def test_arguments_override_the_environment_and_that_overrides_the_file(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "lightbus.yaml").write_text("{service_name: from-file, process_name: from-file}")
    assert load().service_name == "from-file"

    monkeypatch.setenv("LIGHTBUS_SERVICE_NAME", "from-environment")
    monkeypatch.setenv("LIGHTBUS_PROCESS_NAME", "from-environment")
    assert load().service_name == "from-environment"
    assert load().process_name() == "from-environment"

    assert load(service_name="from-argument").service_name == "from-argument"
    assert load(process_name="from-argument").process_name() == "from-argument"

    with apply_overrides(Overrides(service_name="from-option", process_name="from-option")):
        assert load(service_name="from-argument").service_name == "from-option"
        assert load(process_name="from-argument").process_name() == "from-option"
    assert load(service_name="from-argument").service_name == "from-argument"


def test_the_file_can_be_named_in_three_ways(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("default", "environment", "argument", "option"):
        (folder / f"{name}.json").write_text(json.dumps({"service_name": name}))

    monkeypatch.setenv("LIGHTBUS_CONFIG", "environment.json")
    assert load().service_name == "environment"
    assert load("argument.json").service_name == "argument"
    assert lightbus.create(config_file="argument.json").client.config.service_name == "argument"
    with apply_overrides(Overrides(config_file="option.json")):
        assert load("argument.json").service_name == "option"


def test_an_api_without_settings_has_the_defaults() -> None:
    assert load({"apis": {"default": None, "auth": None}}).api("auth") == load({}).api("auth")


def test_an_api_inherits_settings_from_default() -> None:
    apis = {"default": {"max_attempts": 3, "fire_timeout": 1}, "auth": {"max_attempts": 5}}
    config = load({"apis": apis})

    assert (config.api("auth").max_attempts, config.api("auth").fire_timeout) == (5, 1)
    assert config.api("other").max_attempts == 3


def test_variables_are_replaced_in_every_text(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOST", "rabbit.example")
    monkeypatch.setenv("SECONDS", "1.5")
    (folder / "lightbus.yaml").write_text(
        "apis: {default: {acknowledgement_timeout: '${SECONDS}',"
        " event_transport: {rabbitmq: {url: ['amqp://${HOST}/', 'amqp://b.${HOST}/']}}}}"
    )
    api = load().api("auth")

    assert api.acknowledgement_timeout == 1.5
    assert api.event_transport["rabbitmq"] == {
        "url": ["amqp://rabbit.example/", "amqp://b.rabbit.example/"]
    }


@pytest.mark.parametrize("path", ["", "/", "/%2F", "/%2f", "?heartbeat=5"])
def test_a_virtual_host_has_one_identity_in_every_spelling(path: str) -> None:
    assert str(RabbitMQSettings(url=f"amqp://localhost{path}")) == "amqp://localhost:5672/"


def test_without_a_configuration_all_services_of_a_user_share_one_file(tmp_path: Path) -> None:
    bus = lightbus.create({})

    file = tmp_path / "state" / "lightbus" / "events.db"
    assert bus.client.transports.describe("auth") == f"sqlite ({file})"


def test_every_way_to_handle_an_error_can_be_configured() -> None:
    assert set(get_args(OnErrorName)) == {member.value for member in OnError}
