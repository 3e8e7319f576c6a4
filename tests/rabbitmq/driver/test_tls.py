"""``amqps://``, with a certificate authority of the tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

import lightbus
from lightbus import Bus, Worker
from lightbus.exceptions import ConfigError, TransportRefused, TransportUnavailable
from lightbus_rabbitmq.settings import TLSSettings
from rabbitmq_node import RabbitMQNode, running_node
from rabbitmq_support import AuthApi, Seen


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with certificates for both sides, and with ones that neither should accept."""
    folder = tmp_path_factory.mktemp("tls")
    authority, stranger = trustme.CA(), trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    stranger.cert_pem.write_to_path(str(folder / "stranger-ca.pem"))
    for name, issued in (
        ("server", authority.issue_cert("127.0.0.1", "localhost")),
        ("client", authority.issue_cert("shop@example.com")),
        ("stranger", stranger.issue_cert("shop@example.com")),
    ):
        issued.private_key_pem.write_to_path(str(folder / f"{name}.key"))
        for part in issued.cert_chain_pems:
            part.write_to_path(str(folder / f"{name}.pem"), append=True)
    return folder


@pytest.fixture(scope="module")
def node(certificates: Path, own_rabbitmq: None) -> Iterator[RabbitMQNode]:
    with running_node(tls=certificates) as node:
        yield node


def made_bus(node: RabbitMQNode, tls: dict[str, str], *, fire_timeout: float = 10) -> Bus:
    """Return a bus whose URL leads to the encrypted port."""
    rabbitmq = {"url": f"amqps://guest:guest@127.0.0.1:{node.tls_port}/", "tls": tls}
    default = {"event_transport": {"rabbitmq": rabbitmq}, "fire_timeout": fire_timeout}
    bus = lightbus.create({"apis": {"default": default}}, service_name="shop")
    bus.client.register_api(AuthApi)
    return bus


def files(folder: Path, **names: str) -> dict[str, str]:
    return {key: str(folder / name) for key, name in names.items()}


async def test_events_travel_encrypted_with_certificates_on_both_sides(
    node: RabbitMQNode, certificates: Path
) -> None:
    bus = made_bus(
        node,
        files(certificates, ca_file="ca.pem", certificate_file="client.pem", key_file="client.key"),
    )
    seen = Seen[str]()
    bus.auth.user_created.listen(lambda username: seen.add(username), listener_name="welcome")

    async with Worker(bus):
        await bus.auth.user_created.fire_async(username="ada", email="e")
        assert await seen.wait_for(1) == ["ada"]
    connections = node.api("GET", "connections")
    assert all(connection["ssl"] for connection in connections)
    await bus.client.close_async()


WRONG = {
    "a broker of a strange authority": (
        {"ca_file": "stranger-ca.pem", "certificate_file": "client.pem", "key_file": "client.key"},
        "certificate verify failed",
    ),
    "a broker that the system does not know": (
        {"certificate_file": "client.pem", "key_file": "client.key"},
        "certificate verify failed",
    ),
    "a file that is not there": ({"ca_file": "no-such.pem"}, "No such file"),
    "a key that belongs to another": (
        {"ca_file": "ca.pem", "certificate_file": "client.pem", "key_file": "server.key"},
        "cannot be used",
    ),
}


@pytest.mark.parametrize(("names", "told"), list(WRONG.values()), ids=list(WRONG))
async def test_invalid_certificates_are_reported_at_once(
    node: RabbitMQNode, certificates: Path, names: dict[str, str], told: str
) -> None:
    bus = made_bus(node, files(certificates, **names))

    with pytest.raises(TransportRefused) as raised:
        await bus.auth.user_created.fire_async(username="ada", email="e")

    assert told in str(raised.value).lower() or told in str(raised.value)
    assert "guest" not in str(raised.value)
    await bus.client.close_async()


async def test_a_broker_whose_certificate_has_another_name_is_refused(tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    elsewhere = authority.issue_cert("elsewhere.example.com")
    elsewhere.private_key_pem.write_to_path(str(tmp_path / "server.key"))
    elsewhere.cert_chain_pems[0].write_to_path(str(tmp_path / "server.pem"))
    with running_node(tls=tmp_path) as node:
        bus = made_bus(node, files(tmp_path, ca_file="ca.pem"))
        with pytest.raises(TransportRefused, match="certificate is not valid for"):
            await bus.auth.user_created.fire_async(username="ada", email="e")
        await bus.client.close_async()


@pytest.mark.parametrize("certificate", ["none", "stranger"])
async def test_a_client_that_the_broker_does_not_trust_sends_nothing(
    node: RabbitMQNode, certificates: Path, certificate: str
) -> None:
    names = {"ca_file": "ca.pem"}
    if certificate == "stranger":
        names |= {"certificate_file": "stranger.pem", "key_file": "stranger.key"}
    bus = made_bus(node, files(certificates, **names), fire_timeout=2)

    # The broker may close the connection without a reason.
    with pytest.raises((TransportRefused, TransportUnavailable)):
        await bus.auth.user_created.fire_async(username="ada", email="e")
    await bus.client.close_async()


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"url": "amqp://h/", "tls": {"ca_file": "x"}}, "does not begin with amqps://"),
        ({"url": "amqps://h/", "tls": {"key_file": "x"}}, "without `certificate_file`"),
        ({"url": "amqps://h/", "tls": {"cafile": "x"}}, "Did you mean 'ca_file'?"),
    ],
)
def test_invalid_settings_are_refused(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError) as raised:
        lightbus.create({"apis": {"default": {"event_transport": {"rabbitmq": settings}}}})

    assert told in str(raised.value)


def test_the_certificates_stay_the_same_files_whatever_folder_is_current_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)

    settings = TLSSettings(ca_file="ca.pem", certificate_file="~/client.pem", key_file="/k.pem")

    assert settings.ca_file == str(tmp_path / "ca.pem")
    assert settings.certificate_file == str(tmp_path / "home" / "client.pem")
    assert settings.key_file == "/k.pem"
