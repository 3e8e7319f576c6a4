"""docs/configuration.rst, run."""

from __future__ import annotations

import re
from pathlib import Path

import attrs
import msgspec
import pytest

from docs.conftest import Shell
from docs.pages import Page
from lightbus import config
from lightbus_rabbitmq.settings import RabbitMQSettings

PAGE = Page("configuration")


def load(text: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> config.Config:
    monkeypatch.setenv("AMQP_URL", "amqp://localhost/")
    path = folder / "lightbus.yaml"
    path.write_text(text)
    return config.load(path)


def test_every_setting_is_shown_with_its_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = PAGE.block("shutdown_timeout: 30")
    shown = load(text, tmp_path, monkeypatch)
    default = load("service_name: shop", tmp_path, monkeypatch)

    api = shown.api("default")
    assert msgspec.structs.replace(api, event_transport={}) == msgspec.structs.replace(
        default.api("default"), event_transport={}
    )
    assert attrs.evolve(shown, bus_module=None, apis={}) == attrs.evolve(default, apis={})
    settings = api.event_transport["rabbitmq"]
    assert settings is not None
    assert msgspec.convert(settings, RabbitMQSettings) == RabbitMQSettings(url=settings["url"])

    def is_shown(name: str) -> bool:
        return re.search(rf"^ *{name}:", text, re.MULTILINE) is not None

    documented = {*config.Document.__struct_fields__, *config.ApiConfig.__struct_fields__}
    documented |= set(RabbitMQSettings.__struct_fields__)
    assert {name for name in documented if not is_shown(name)} == {
        "schema",
        "tls",
        "management_url",
    }


def test_apis_of_one_program_use_different_transports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mixed = load(PAGE.block("marketing.analytics:\n    event_transport"), tmp_path, monkeypatch)

    assert list(mixed.api("auth").event_transport) == ["rabbitmq"]
    assert list(mixed.api("marketing.analytics").event_transport) == ["sqlite"]


def test_a_wrong_setting_is_reported_as_on_the_page(shell: Shell) -> None:
    (shown,) = re.findall(r"^    (lightbus\.yaml: .*)$", PAGE.text, re.MULTILINE)
    shell.use("rabbitmq", url="amqp://localhost/", prefetc="5")

    assert shown in shell.run("lightbus run", exit_code=2)
