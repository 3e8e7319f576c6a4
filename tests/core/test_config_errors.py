"""Mistakes in a configuration are reported with their places."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import msgspec
import pytest

import lightbus
from core.configs import default_api, problem_of
from lightbus.config import load
from lightbus.encoding.settings import convert_settings
from lightbus.exceptions import ConfigError, InvalidName

pytestmark = pytest.mark.usefixtures("folder")


def test_an_unset_variable_is_named_with_its_place(folder: Path) -> None:
    (folder / "lightbus.yaml").write_text(
        "apis: {default: {event_transport: {rabbitmq: {url: '${NOT_SET_AT_ALL}'}}}}"
    )

    with pytest.raises(ConfigError, match="'NOT_SET_AT_ALL' is not set") as raised:
        load()

    assert raised.value.source == "lightbus.yaml"
    assert raised.value.path == "$.apis.default.event_transport.rabbitmq.url"


@pytest.mark.parametrize(
    ("config", "path", "problem"),
    [
        ({"servce_name": "x"}, "$", "unknown setting 'servce_name'. Did you mean 'service_name'?"),
        ({"service_name": 3}, "$.service_name", ""),
        (default_api(max_atempts=3), "$.apis.default", "Did you mean 'max_attempts'?"),
        (default_api(max_attempts=0), "$.apis.default.max_attempts", ">= 1"),
        (
            default_api(on_error="RETRY"),
            "$.apis.default.on_error",
            "'RETRY'; give one of acknowledge_and_log, retry, shutdown",
        ),
        (default_api(cast_values="yes please"), "$.apis.default.cast_values", "lax, off, strict"),
        (default_api(fire_timeout="x"), "$.apis.default.fire_timeout", ""),
        (default_api(fire_timeout=-1), "$.apis.default.fire_timeout", "> 0"),
        ({"apis": []}, "$.apis", ""),
        (default_api(fire_timeout=math.inf), "$.apis.default.fire_timeout", "<= 31536000.0"),
        (
            default_api(event_transport={"memory": {"nam": "x"}}),
            "$.apis.default.event_transport.memory",
            "Did you mean 'name'?",
        ),
        (
            default_api(event_transport={"memory": {}, "rabbitmq": {}}),
            "$.apis.default.event_transport",
            "expected one transport, got memory, rabbitmq.",
        ),
        (
            default_api(event_transport={}),
            "$.apis.default.event_transport",
            "expected one transport, got none.",
        ),
        (
            default_api(event_transport={"rabbitmq": {"url": "http://x/"}}),
            "$.apis.default.event_transport.rabbitmq",
            "not of the form amqp://user:password@host:5672/vhost",
        ),
        (
            default_api(event_transport={"rabbitmq": {}}),
            "$.apis.default.event_transport.rabbitmq",
            "`url`",
        ),
        (
            default_api(retry={"fist": 1}),
            "$.apis.default.retry",
            "Did you mean 'first'?",
        ),
        (
            default_api(event_transport={"sqlite": {"path": "~nobody-of-that-name/events.db"}}),
            "$.apis.default.event_transport.sqlite",
            "the home directory cannot be found",
        ),
        (
            default_api(event_transport={"sqlite": {"path": ""}}),
            "$.apis.default.event_transport.sqlite.path",
            "length >= 1",
        ),
        (
            default_api(event_transport={"sqlite": {"path": ":memory:"}}),
            "$.apis.default.event_transport.sqlite",
            "use the transport `memory`",
        ),
        (
            default_api(event_transport={"sqlite": {"path": "file::memory:?cache=shared"}}),
            "$.apis.default.event_transport.sqlite",
            "use the transport `memory`",
        ),
        (
            default_api(event_transport={"rabbitmq": {"url": "amqps://x", "tls": {"ca_file": ""}}}),
            "$.apis.default.event_transport.rabbitmq.tls.ca_file",
            "length >= 1",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_mistake_is_reported_with_its_place(
    config: dict[str, Any], path: str, problem: str
) -> None:
    error = problem_of(config)

    assert error.path == path
    assert problem in str(error)
    assert str(error).startswith(f"{error.source}: {path}: ")
    assert "\n" not in str(error)


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("bad.yaml", "a: b: c", r"not valid yaml: .* \(line 1\)"),
        ("bad.json", "{", "not valid json"),
        ("bad.toml", "=", "not valid toml"),
        ("bad.ini", "", "the name of a config file must end in"),
        ("bad.yaml", "- a list", r"\$: "),
        ("bad.yaml", "apis: &all {default: *all}", "contains itself"),
        ("bad.json", "[" * 100_000, "not valid json"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused_with_the_reason(
    folder: Path, name: str, text: str, problem: str
) -> None:
    (folder / name).write_text(text)

    with pytest.raises(ConfigError, match=f"^{name}: .*{problem}"):
        load(name)


class Inner(msgspec.Struct, forbid_unknown_fields=True):
    floor: int = 0


class Settings(msgspec.Struct, forbid_unknown_fields=True):
    inner: Inner | None = None
    limits: dict[str, int] = {}


def test_an_unknown_nested_setting_is_reported_with_the_near_name() -> None:
    with pytest.raises(ConfigError, match=r"'flor'\. Did you mean 'floor'\?"):
        convert_settings({"inner": {"flor": 1}}, Settings, source="a test", path="$")
    with pytest.raises(ConfigError, match=r"'limts'\. Did you mean 'limits'\?"):
        convert_settings({"limts": {}}, Settings, source="a test", path="$")


def test_a_missing_file_is_named() -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml: cannot be read: "):
        load("none.yaml")


def test_an_unknown_transport_is_named_with_the_near_one() -> None:
    with pytest.raises(ConfigError, match=r"'rabitmq' is not installed\. Did you mean 'rabb"):
        lightbus.create(default_api(event_transport={"rabitmq": {}}))


@pytest.mark.parametrize("name", ["", "a:b", "{nobody}", "a b"])
def test_an_invalid_service_name_is_refused(name: str) -> None:
    with pytest.raises(InvalidName):
        load({}, service_name=name)


@pytest.mark.parametrize("setting", ["service_name", "process_name", "bus"])
def test_an_empty_setting_is_refused(setting: str) -> None:
    with pytest.raises(ConfigError) as raised:
        load({setting: ""})

    assert raised.value.path == f"$.{setting}"


def test_an_empty_argument_is_refused() -> None:
    with pytest.raises(ConfigError, match="path of the config file is empty"):
        load("")
    with pytest.raises(InvalidName):
        load({}, process_name="")
