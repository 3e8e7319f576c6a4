"""No setting, error or `repr` shows a password of a URL."""

from __future__ import annotations

from typing import Any

import pytest

import lightbus
from core.configs import default_api
from lightbus.config import Config, load
from lightbus.encoding.settings import convert_settings
from lightbus.exceptions import ConfigError, LightbusException
from lightbus_rabbitmq.settings import RabbitMQSettings

PASSWORD = "correct-horse"

pytestmark = pytest.mark.usefixtures("folder")


@pytest.mark.parametrize(
    "url",
    [
        f"amqp://shop:{PASSWORD}@rabbit.example:5672/vhost",
        f"amqp://shop:{PASSWORD}%40%2F@rabbit.example",
    ],
)
def test_no_repr_and_no_printed_setting_shows_the_password(url: str) -> None:
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
def test_no_error_shows_the_password(settings: dict[str, Any]) -> None:
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
def test_an_unknown_option_of_a_url_is_refused(options: str, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        lightbus.create(
            default_api(event_transport={"rabbitmq": {"url": f"amqp://localhost/?{options}"}})
        )


def test_the_known_options_of_a_url_are_accepted() -> None:
    url = "amqp://localhost/?heartbeat=600&auth=EXTERNAL"

    assert RabbitMQSettings(url=url).urls[0].query == {"heartbeat": "600", "auth": "EXTERNAL"}


@pytest.mark.parametrize("ending", ["", "'", '"', "`", " ", "@"])
def test_a_url_in_the_place_of_another_setting_shows_no_password(
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
