"""The configuration selects the transport of each API."""

from __future__ import annotations

import pytest

from core.apis import AuditApi, AuthApi
from core.support import MakeBus
from lightbus.exceptions import ConfigError

ELSEWHERE = {"event_transport": {"memory": {"name": "elsewhere"}}}


async def test_apis_with_the_same_settings_share_a_transport(make_bus: MakeBus) -> None:
    transports = make_bus(AuthApi, AuditApi, others={"audit": {}}).client.transports

    assert transports.transport("auth") is transports.transport("audit")
    assert transports.describe("auth") == transports.describe("audit")


async def test_apis_with_different_settings_have_different_transports(make_bus: MakeBus) -> None:
    transports = make_bus(others={"audit": ELSEWHERE}).client.transports

    assert transports.transport("auth") is not transports.transport("audit")
    assert transports.describe("auth") != transports.describe("audit")


async def test_a_transport_is_opened_once(make_bus: MakeBus) -> None:
    transports = make_bus().client.transports

    opened = await transports.open("auth")
    assert await transports.open("auth") is opened
    assert isinstance(opened, transports.transport_class("auth"))


def test_an_override_applies_to_every_api_while_the_block_runs(make_bus: MakeBus) -> None:
    transports = make_bus(others={"audit": ELSEWHERE}).client.transports
    before = transports.describe("audit")

    with transports.override({"memory": {"name": "override"}}):
        assert transports.describe("auth") == transports.describe("audit") != before
        assert "override" in transports.describe("auth")
    assert transports.describe("audit") == before


def test_an_invalid_override_is_refused(make_bus: MakeBus) -> None:
    transports = make_bus().client.transports

    with pytest.raises(ConfigError), transports.override({"memory": {"colour": "red"}}):
        pass
