"""The RabbitMQ parts of an AsyncAPI document: the server, and the channel of an event."""

from __future__ import annotations

from lightbus.transport.records import AsyncAPIParts
from lightbus_rabbitmq import names
from lightbus_rabbitmq.settings import RabbitMQSettings

# https://github.com/asyncapi/bindings/tree/master/amqp
_BINDING_VERSION = "0.3.0"


def asyncapi_parts(settings: RabbitMQSettings, api_name: str, event_name: str) -> AsyncAPIParts:
    """Return the parts for an event, without user and password."""
    url = settings.urls[0]
    virtual_host = url.path.removeprefix("/") or "/"
    return AsyncAPIParts(
        address=event_name,
        server={
            "host": f"{url.host}:{url.port}",
            "protocol": url.scheme,
            "protocolVersion": "0.9.1",
            "pathname": url.raw_path or "/",
        },
        channel={
            "amqp": {
                "is": "routingKey",
                "exchange": {
                    "name": names.api_exchange(api_name),
                    "type": "topic",
                    "durable": True,
                    "autoDelete": False,
                    "vhost": virtual_host,
                },
                "bindingVersion": _BINDING_VERSION,
            }
        },
    )
