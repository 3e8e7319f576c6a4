"""`lightbus config`, in processes of its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from command import Command


@pytest.fixture(autouse=True)
def bus_module(tmp_path: Path) -> Path:
    file = tmp_path / "bus.py"
    file.write_text("import lightbus\nbus = lightbus.create()\n")
    return file


def test_a_valid_configuration_is_printed(
    command: Command, tmp_path: Path, config: dict[str, Any]
) -> None:
    config["apis"]["slow"] = {"acknowledgement_timeout": 300}
    (tmp_path / "lightbus.json").write_text(json.dumps(config))
    code, printed, said = command("config", "check")
    assert (code, said) == (0, "")
    assert "Valid: lightbus.json" in printed
    assert "service shop" in printed
    assert printed.splitlines()[2:] == [
        f"default: sqlite ({tmp_path}/events.db)",
        "    acknowledgement_timeout 60 s, max_attempts 20, on_error shutdown, fire_timeout 30 s",
        f"slow: sqlite ({tmp_path}/events.db)",
        "    acknowledgement_timeout 300 s, max_attempts 20, on_error shutdown, fire_timeout 30 s",
    ]


def test_the_settings_of_a_bus_module_are_printed(command: Command, tmp_path: Path) -> None:
    (tmp_path / "named.py").write_text(
        "import lightbus\nbus = lightbus.create({'apis': {}}, service_name='shop')\n"
    )
    code, printed, said = command("config", "check", "--bus", "named")
    assert (code, said) == (0, "")
    assert printed.startswith("Valid: the config given to create()\nservice shop, process ")


def test_without_a_bus_module_the_config_file_is_checked(
    command: Command, config: dict[str, Any], bus_module: Path
) -> None:
    bus_module.unlink()
    code, printed, said = command("config", "check")
    assert (code, said) == (0, "")
    assert "service shop" in printed


def test_no_password_of_a_configuration_is_shown(
    command: Command, tmp_path: Path, config: dict[str, Any]
) -> None:
    url = "amqp://shop:hunter2@localhost/"
    config["apis"]["default"]["event_transport"] = {"rabbitmq": {"url": url}}
    (tmp_path / "lightbus.json").write_text(json.dumps(config))
    _, printed, _ = command("config", "check")
    assert "amqp://localhost:5672/" in printed
    assert "hunter2" not in printed


def test_a_wrong_configuration_is_reported_in_one_line(
    command: Command, tmp_path: Path, config: dict[str, Any]
) -> None:
    config["apis"]["default"]["fire_timout"] = 3
    (tmp_path / "lightbus.json").write_text(json.dumps(config))
    code, printed, said = command("config", "check")
    assert (code, printed) == (2, "")
    assert "$.apis.default: unknown setting 'fire_timout'. Did you mean" in said


def test_an_invalid_name_is_a_wrong_configuration(
    command: Command, tmp_path: Path, config: dict[str, Any]
) -> None:
    config["service_name"] = "two words"
    config["$schema"] = "config.json"
    (tmp_path / "lightbus.json").write_text(json.dumps(config))
    code, printed, said = command("config", "check")
    assert (code, printed) == (2, "")
    assert "Invalid service name 'two words'" in said


@pytest.mark.parametrize("option", ["--config", "--bus", "--service-name", "--process-name"])
def test_an_empty_option_is_refused(command: Command, option: str) -> None:
    code, _, said = command("config", "check", option, "")
    assert code == 2
    assert "it is empty" in said
