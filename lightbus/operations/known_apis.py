"""The APIs that a program knows, and the brokers that they use."""

from __future__ import annotations

from lightbus.client import BusClient


def known_api_names(client: BusClient) -> set[str]:
    """Return the names of the APIs that the program registers, listens to or configures."""
    configured = {name for name in client.config.apis if name != "default"}
    listened_to = {listener.api_name for listener in client.listeners}
    return {*client.apis, *listened_to, *configured}


def one_api_per_broker(client: BusClient) -> list[str]:
    """Return one of the known APIs for each broker. Without any, return ``["default"]``."""
    api_names = sorted(known_api_names(client))
    by_broker = {client.transports.describe(name): name for name in api_names}
    return list(by_broker.values()) or ["default"]
