"""The configuration: where it comes from, what it may say, and how a mistake in it is told."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import msgspec
import pytest

import lightbus
from lightbus.config import Config, Overrides, load, overridden
from lightbus.encoding.settings import convert_settings
from lightbus.exceptions import ConfigError, InvalidName, LightbusException
from lightbus_rabbitmq.settings import RabbitMQSettings

PASSWORD = "correct-horse"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: empty, and called "shop"."""
    shop = tmp_path / "shop"
    shop.mkdir()
    monkeypatch.chdir(shop)
    return shop


def problem_of(config: dict[str, Any]) -> ConfigError:
    """Return the error that creating a bus from `config` ends with."""
    with pytest.raises(ConfigError) as raised:
        lightbus.create(config)
    return raised.value


def default_api(**settings: Any) -> dict[str, Any]:
    return {"apis": {"default": settings}}


# Where it comes from


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


def test_without_a_file_there_are_defaults_and_the_folders_name() -> None:
    config = load()

    assert (config.service_name, config.is_service_named) == ("shop", False)
    assert config.api("auth").acknowledgement_timeout == 60
    assert config.api("auth").max_attempts == 20
    assert config.api("auth").fire_timeout == 30
    assert config.process_name().endswith(f"-{os.getpid()}")


@pytest.mark.parametrize("placeholder", ["{random8}", "{friendly}", "{hostname}"])
def test_a_process_has_one_name_for_as_long_as_it_lives(
    monkeypatch: pytest.MonkeyPatch, placeholder: str
) -> None:
    config = load(process_name=placeholder)
    name = config.process_name()

    monkeypatch.setattr("socket.gethostname", lambda: "renamed")

    assert {config.process_name() for _ in range(100)} == {name}


def test_an_empty_file_says_nothing(folder: Path) -> None:
    (folder / "lightbus.yaml").write_text("# nothing yet\n")

    assert load().service_name == "shop"


def test_two_files_in_one_folder_are_an_error(folder: Path) -> None:
    (folder / "lightbus.yaml").touch()
    (folder / "lightbus.toml").touch()

    with pytest.raises(ConfigError, match=r"lightbus\.yaml and lightbus\.toml both exist"):
        load()


def test_what_is_closer_to_the_command_line_counts(
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

    with overridden(Overrides(service_name="from-option", process_name="from-option")):
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
    with overridden(Overrides(config_file="option.json")):
        assert load("argument.json").service_name == "option"


def test_what_says_nothing_of_an_api_leaves_it_as_it_is() -> None:
    assert load({"apis": {"default": None, "auth": None}}).api("auth") == load({}).api("auth")


def test_an_api_takes_from_default_what_it_does_not_say_itself() -> None:
    apis = {"default": {"max_attempts": 3, "fire_timeout": 1}, "auth": {"max_attempts": 5}}
    config = load({"apis": apis})

    assert (config.api("auth").max_attempts, config.api("auth").fire_timeout) == (5, 1)
    assert config.api("other").max_attempts == 3


# Variables


def test_a_variable_is_filled_in_wherever_text_stands(
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


def test_a_variable_that_is_not_set_is_named_with_its_place(folder: Path) -> None:
    (folder / "lightbus.yaml").write_text(
        "apis: {default: {event_transport: {rabbitmq: {url: '${NOT_SET_AT_ALL}'}}}}"
    )

    with pytest.raises(ConfigError, match="'NOT_SET_AT_ALL' is not set") as raised:
        load()

    assert raised.value.source == "lightbus.yaml"
    assert raised.value.path == "$.apis.default.event_transport.rabbitmq.url"


# Mistakes


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
            "the home folder cannot be found",
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
def test_a_mistake_is_told_with_its_place(config: dict[str, Any], path: str, problem: str) -> None:
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
def test_a_file_that_can_not_be_read_says_why(
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


def test_a_mistake_is_told_with_the_near_name_wherever_settings_stand() -> None:
    with pytest.raises(ConfigError, match=r"'flor'\. Did you mean 'floor'\?"):
        convert_settings({"inner": {"flor": 1}}, Settings, source="a test", path="$")
    with pytest.raises(ConfigError, match=r"'limts'\. Did you mean 'limits'\?"):
        convert_settings({"limts": {}}, Settings, source="a test", path="$")


def test_a_file_that_is_not_there_says_so() -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml: cannot be read: "):
        load("none.yaml")


def test_a_transport_that_no_package_offers_is_named_with_the_near_one() -> None:
    with pytest.raises(ConfigError, match=r"'rabitmq' is not installed\. Did you mean 'rabb"):
        lightbus.create(default_api(event_transport={"rabitmq": {}}))


@pytest.mark.parametrize("name", ["", "a:b", "{nobody}", "a b"])
def test_a_service_needs_a_name_that_can_be_used(name: str) -> None:
    with pytest.raises(InvalidName):
        load({}, service_name=name)


@pytest.mark.parametrize("setting", ["service_name", "process_name", "bus"])
def test_an_empty_setting_does_not_stand_for_its_default(setting: str) -> None:
    with pytest.raises(ConfigError) as raised:
        load({setting: ""})

    assert raised.value.path == f"$.{setting}"


def test_an_empty_argument_does_not_stand_for_a_default() -> None:
    with pytest.raises(ConfigError, match="path of the config file is empty"):
        load("")
    with pytest.raises(InvalidName):
        load({}, process_name="")


# Secrets


@pytest.mark.parametrize("path", ["", "/", "/%2F", "/%2f", "?heartbeat=5"])
def test_a_virtual_host_is_one_place_however_it_is_written(path: str) -> None:
    assert str(RabbitMQSettings(url=f"amqp://localhost{path}")) == "amqp://localhost:5672/"


@pytest.mark.parametrize(
    "url",
    [
        f"amqp://shop:{PASSWORD}@rabbit.example:5672/vhost",
        f"amqp://shop:{PASSWORD}%40%2F@rabbit.example",
    ],
)
def test_nothing_that_people_see_shows_the_password(url: str) -> None:
    bus = lightbus.create(default_api(event_transport={"rabbitmq": {"url": url}}))
    config: Config = bus.client.config
    settings = convert_settings({"url": url}, RabbitMQSettings, source="test")

    for shown in (bus, bus.client, config, config.api("auth"), config.apis, settings):
        assert PASSWORD not in repr(shown) + str(shown)
    assert PASSWORD not in bus.client.transports.describe("auth")
    assert "rabbit.example" in bus.client.transports.describe("auth")


@pytest.mark.parametrize(
    "settings",
    [
        {"url": f"amqp//shop:{PASSWORD}@rabbit.example"},
        {"url": f"amqp://shop:{PASSWORD}@rabbit.example:port/"},
        {"url": f"amqp://rabbit.example/?password={PASSWORD}"},
        {"url": f"amqp://rabbit.example/?{PASSWORD}"},
        {"url": f"amqp://rabbit.example/?heartbeat={PASSWORD}"},
        {"url": f"amqp://rabbit.example/?auth={PASSWORD}"},
        {"url": f"amqp://rabbit.example/#{PASSWORD}"},
        {"url": f"amqp://shop:{PASSWORD}@[::1/"},
        {"url": [f"amqp://shop:{PASSWORD}@rabbit.example", 3]},
        {"url": f"amqp://shop:{PASSWORD}@rabbit.example", "heartbeat": 0},
        {"url": f"amqp://shop:{PASSWORD}@rabbit.example", "prefetch": "x"},
    ],
    ids=[
        "no scheme",
        "no port",
        "unknown option",
        "option without a value",
        "no number",
        "no authentication",
        "fragment",
        "no host",
        "no text",
        "bad heartbeat",
        "bad prefetch",
    ],
)
def test_no_mistake_makes_an_error_show_the_password(settings: dict[str, Any]) -> None:
    with pytest.raises(LightbusException) as raised:
        lightbus.create(default_api(event_transport={"rabbitmq": settings}))

    error: BaseException | None = raised.value
    while error is not None:
        assert PASSWORD not in f"{error} {error!r} {vars(error)}"
        error = error.__cause__ or error.__context__


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ("heartbeat=abc", "'heartbeat'.*1 to 600"),
        ("heartbeat=", "'heartbeat'.*1 to 600"),
        ("heartbeat=0", "'heartbeat'.*1 to 600"),
        ("heartbeat=601", "'heartbeat'.*1 to 600"),
        ("heartbeat=1.5", "'heartbeat'.*1 to 600"),
        ("heartbeat=5&heartbeat=6", "'heartbeat' more than once"),
        ("hartbeat=5", "'hartbeat'. Did you mean 'heartbeat'"),
        ("cacertfile=ca.pem", "'cacertfile'. Use the setting `tls.ca_file`"),
        ("no_verify_ssl=1", "'no_verify_ssl'. Known: heartbeat, auth"),
        ("auth=amqplain", "'auth'.*plain or external"),
    ],
)
def test_an_option_of_a_url_that_is_not_understood_is_refused(options: str, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        lightbus.create(
            default_api(event_transport={"rabbitmq": {"url": f"amqp://localhost/?{options}"}})
        )


def test_the_options_of_a_url_that_are_known_are_accepted() -> None:
    url = "amqp://localhost/?heartbeat=600&auth=EXTERNAL"

    assert RabbitMQSettings(url=url).urls[0].query == {"heartbeat": "600", "auth": "EXTERNAL"}


def test_with_no_config_all_services_of_a_user_meet_in_one_file(tmp_path: Path) -> None:
    bus = lightbus.create({})

    file = tmp_path / "state" / "lightbus" / "events.db"
    assert bus.client.transports.describe("auth") == f"sqlite ({file})"


@pytest.mark.parametrize("ending", ["", "'", '"', "`", " ", "@"])
def test_a_url_where_something_else_belongs_shows_no_password(
    monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    url = f"amqp://guest:{ending}{PASSWORD}{ending}@localhost/"
    wrongs: list[Any] = [
        url,
        {"apis": {url: {"wrong": 1}}},
        {"apis": {"default": {"event_transport": {url: {}}}}},
        {"service_name": url},
    ]

    for wrong in wrongs:
        with pytest.raises(LightbusException) as raised:
            lightbus.create(wrong)
        assert PASSWORD not in str(raised.value)
    monkeypatch.setenv("LIGHTBUS_CONFIG", url)
    with pytest.raises(ConfigError, match="got a URL"):
        load()
