"""A broker's password is shown nowhere: in no error, log line, representation or output."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from rich.pretty import pretty_repr
from yarl import URL

import lightbus
from command import Command, ended
from lightbus import Worker
from lightbus.config import load
from lightbus.encoding.settings import convert_settings
from lightbus.exceptions import LightbusException
from lightbus_rabbitmq.settings import RabbitMQSettings
from rabbitmq_node import RabbitMQNode
from rabbitmq_support import MakeBus, Seen

PASSWORDS = ["hunter2", "p@ss/w0rd#é"]
ENCODED = {password: quote(password, safe="") for password in PASSWORDS}
BUS_MODULE = """\
import lightbus

bus = lightbus.create()
bus.client.listen_for_event("auth", "user_created", print, listener_name="welcome")
"""


def shows(text: str) -> list[str]:
    """Return the passwords in `text`: plain, or encoded for a URL, JSON or `repr`."""
    return [
        password
        for password in PASSWORDS
        for form in (
            password,
            ENCODED[password],
            json.dumps(password)[1:-1],
            ENCODED[password].lower(),
        )
        if form in text
    ]


def all_of(error: BaseException) -> str:
    """Return the texts and attributes of an error and its causes."""
    told = "".join(traceback.format_exception(error))
    behind: BaseException | None = error
    while behind is not None:
        told += f"{behind} {behind!r} {behind.args!r} {vars(behind)!r}"
        behind = behind.__cause__ or behind.__context__
    return told


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """The log of all loggers, including the driver's, at every level."""
    names = ["", "lightbus", "aio_pika", "aiormq", "aiormq.connection", "aiormq.channel", "asyncio"]
    before = {name: logging.getLogger(name).level for name in names}
    for name in names:
        logging.getLogger(name).setLevel(logging.DEBUG)
    with caplog.at_level(logging.DEBUG):
        yield caplog
    for name, level in before.items():
        logging.getLogger(name).setLevel(level)


@pytest.mark.parametrize("password", PASSWORDS)
async def test_no_error_of_sending_shows_the_password(
    make_bus: MakeBus,
    rabbitmq_node: RabbitMQNode,
    rabbitmq_vhost: str,
    log: pytest.LogCaptureFixture,
    password: str,
) -> None:
    rabbitmq_node.add_user("poor", password, vhost=rabbitmq_vhost, configure="^$")
    wrong = URL(rabbitmq_node.url(rabbitmq_vhost, password=password))
    places: dict[str, str | list[str]] = {
        "wrong password": str(wrong),
        "not there": str(wrong.with_port(1)),
        "several": [str(wrong.with_port(1)), str(wrong)],
        "no such host": str(wrong.with_host("no-such-host.invalid")),
        "no such virtual host": rabbitmq_node.url("nowhere", user="poor", password=password),
        "not TLS": str(wrong.with_scheme("amqps")),
        "not RabbitMQ": str(wrong.with_port(rabbitmq_node.management_port)),
        "no permission": rabbitmq_node.url(rabbitmq_vhost, user="poor", password=password),
    }

    async def error_at(url: str | list[str]) -> BaseException:
        bus = make_bus(url=url, fire_timeout=1)
        with pytest.raises(LightbusException) as raised:
            await bus.auth.user_created.fire_async(username="ada", email="e")
        return raised.value

    errors = await asyncio.gather(*(error_at(url) for url in places.values()))

    assert {
        place: shown
        for place, error in zip(places, errors, strict=True)
        if (shown := shows(all_of(error)))
    } == {}
    assert "aiormq" in {record.name.partition(".")[0] for record in log.records}
    assert shows(log.text) == []


def lightbus_objects() -> list[object]:
    """Return the instances of the classes of Lightbus and its RabbitMQ transport."""
    return [
        found for found in gc.get_objects() if str(type(found).__module__).startswith("lightbus")
    ]


@pytest.mark.parametrize("password", PASSWORDS)
async def test_no_object_and_no_log_shows_the_password_while_all_is_well(
    make_bus: MakeBus,
    rabbitmq_node: RabbitMQNode,
    rabbitmq_vhost: str,
    log: pytest.LogCaptureFixture,
    password: str,
) -> None:
    rabbitmq_node.add_user("shop", password, vhost=rabbitmq_vhost)
    bus = make_bus(url=rabbitmq_node.url(rabbitmq_vhost, user="shop", password=password))
    seen = Seen[str]()
    bus.auth.user_created.listen(lambda username: seen.add(username), listener_name="welcome")
    async with Worker(bus):
        await bus.auth.user_created.fire_async(username="ada", email="e")
        await seen.wait_for(1)
        await asyncio.to_thread(rabbitmq_node.close_connections, rabbitmq_vhost)
        await bus.auth.user_created.fire_async(username="bob", email="e")
        await seen.wait_for(2)
        objects = [bus.auth.user_created, *lightbus_objects()]
        assert {
            f"{type(found)}: {shown}"
            for found in objects
            if (shown := shows(f"{found} {found!r} {pretty_repr(found)}"))
        } == set()
        assert shows(bus.client.transports.describe("auth")) == []
    assert shows(log.text) == []


BROKEN_FILES = {
    "broken.yaml": "apis:\n  default:\n    event_transport:\n      rabbitmq: {url: 'URL', : : }\n",
    "tabbed.yaml": "apis:\n  default: {event_transport: {rabbitmq:\n        {url: 'URL'\n\tx: 1\n",
    "tagged.yaml": "apis: !secret URL\n",
    "broken.json": '{"apis": {"default": {"event_transport": {"rabbitmq": {"url": "URL" "x"}}}}}',
    "broken.toml": '[apis.default.event_transport.rabbitmq]\nurl = "URL" x\n',
    "twice.toml": '[apis.default.event_transport.rabbitmq]\nurl = "URL"\nurl = "URL"\n',
    "key.yaml": "apis:\n  default:\n    event_transport:\n      rabbitmq: {'URL': 1}\n",
    "transport.yaml": "apis:\n  default:\n    event_transport: {'URL': {}}\n",
    "transports.yaml": "apis:\n  default:\n    event_transport: {'URL': {}, rabbitmq: {}}\n",
    "text.yaml": "apis:\n  default:\n    event_transport: 'URL'\n",
    "setting.yaml": "apis:\n  default: {'URL': 1}\n",
    "top.yaml": "'URL': 1\n",
    "service.yaml": "service_name: 'URL'\n",
    "process.yaml": "process_name: 'URL'\n",
    "number.yaml": "shutdown_timeout: 'URL'\n",
    "api.yaml": "apis: {'URL': {max_attempts: 0}}\n",
    "variable.yaml": "apis: {default: {event_transport: {rabbitmq: {url: ['${AMQP_URL}', 3]}}}}\n",
    "nested.yaml": "apis: {default: {event_transport: {rabbitmq: {tls: ['${AMQP_URL}']}}}}\n",
    "prefix.yaml": "apis: {default: {event_transport: {rabbitmq: {url: 'x${AMQP_URL}'}}}}\n",
}


@pytest.mark.parametrize("password", PASSWORDS)
@pytest.mark.parametrize("name", list(BROKEN_FILES))
def test_no_mistake_in_a_file_shows_the_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, password: str
) -> None:
    url = f"amqp://shop:{ENCODED[password]}@rabbit.example/"
    monkeypatch.setenv("AMQP_URL", url)
    file = tmp_path / name
    file.write_text(BROKEN_FILES[name].replace("URL", url).replace("${AMQP_" + url, "${AMQP_URL"))

    with pytest.raises(LightbusException) as raised:
        lightbus.create(file)

    assert shows(all_of(raised.value)) == []


@pytest.mark.parametrize(
    "url",
    [
        "amqp://shop:pass/w0rd@rabbit.example/",
        "amqp://shop:12/w0rd@rabbit.example/",
        "amqp://shop:12#w0rd@rabbit.example/",
        "amqp://shop:12?w0rd@rabbit.example/",
        "amqp://shop:pass@w/w0rd@rabbit.example/",
        "amqp://shop:@/w0rd@rabbit.example/",
    ],
)
def test_a_url_whose_password_is_not_encoded_is_refused_and_not_shown(url: str) -> None:
    settings = {"apis": {"default": {"event_transport": {"rabbitmq": {"url": url}}}}}

    with pytest.raises(LightbusException, match="Percent-encode") as raised:
        lightbus.create(settings)

    assert "w0rd" not in all_of(raised.value)


COMMANDS = {
    "run": ["run", "--log-level", "debug", "--log-format", "console"],
    "run, JSON": ["run", "--log-level", "debug", "--log-format", "json"],
    "move": ["move", "--to", "other.yaml"],
    "dead letters": ["dead-letters", "list"],
}


@pytest.mark.parametrize("password", PASSWORDS)
def test_no_command_shows_the_password(
    tmp_path: Path, rabbitmq_node: RabbitMQNode, password: str
) -> None:
    (tmp_path / "bus.py").write_text(BUS_MODULE)
    (tmp_path / "lightbus.yaml").write_text(
        "service_name: shop\n"
        "apis: {default: {fire_timeout: 1, event_transport: {rabbitmq: {url: '${AMQP_URL}'}}}}\n"
    )
    (tmp_path / "other.yaml").write_text("apis: {default: {event_transport: {memory: {}}}}\n")
    url = rabbitmq_node.url(password=password)
    with Command(tmp_path) as command:
        running = {
            name: command.start(*arguments, AMQP_URL=url) for name, arguments in COMMANDS.items()
        }
        told = {name: "".join(ended(process)[1:]) for name, process in running.items()}

    assert all("ACCESS_REFUSED" in text for text in told.values()), told
    assert {name: shown for name, text in told.items() if (shown := shows(text))} == {}


def test_settings_are_pretty_without_the_password() -> None:
    settings: Any = convert_settings(
        {"url": "amqp://shop:hunter2@rabbit.example/"}, RabbitMQSettings, source="test"
    )
    config = load({"apis": {"default": {"event_transport": {"rabbitmq": {"url": settings.url}}}}})

    assert "hunter2" not in pretty_repr([settings, config, config.api("auth")])
