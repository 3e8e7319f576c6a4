"""The RabbitMQ parts of an AsyncAPI document. They need no broker."""

from __future__ import annotations

import json
from typing import Any

import pytest

import lightbus
from lightbus import Api, Event
from lightbus.operations.asyncapi import asyncapi_of


class AuthApi(Api):
    user_created = Event("username")

    class Meta:
        name = "auth"


def document_for(url: Any) -> dict[str, Any]:
    transport = {"event_transport": {"rabbitmq": {"url": url}}}
    bus = lightbus.create({"apis": {"default": transport}}, service_name="shop")
    bus.client.register_api(AuthApi)
    bus.mail.bounced.listen(lambda **_: None, listener_name="bounces")
    return asyncapi_of(bus.client)


def test_an_event_is_sent_to_the_exchange_of_its_api() -> None:
    document = document_for("amqp://user:hunter2@rabbit.example.com/shop")
    assert document["servers"] == {
        "server1": {
            "host": "rabbit.example.com:5672",
            "protocol": "amqp",
            "protocolVersion": "0.9.1",
            "pathname": "/shop",
        }
    }
    channel = document["channels"]["auth.user_created"]
    assert (channel["address"], channel["servers"]) == (
        "user_created",
        [{"$ref": "#/servers/server1"}],
    )
    assert channel["bindings"]["amqp"]["exchange"] == {
        "name": "lightbus:auth",
        "type": "topic",
        "durable": True,
        "autoDelete": False,
        "vhost": "shop",
    }
    assert "hunter2" not in json.dumps(document)


@pytest.mark.parametrize(
    ("path", "virtual_host"), [("", "/"), ("/", "/"), ("/%2F", "/"), ("/a%2Fb", "a/b")]
)
def test_the_virtual_host_is_named_as_the_broker_names_it(path: str, virtual_host: str) -> None:
    document = document_for([f"amqps://one{path}", "amqps://two"])
    exchange = document["channels"]["mail.bounced"]["bindings"]["amqp"]["exchange"]
    assert exchange["vhost"] == virtual_host
    assert document["servers"]["server1"]["host"] == "one:5671"
