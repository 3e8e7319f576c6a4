"""Returns an AsyncAPI document of the events that a service fires and listens for."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from lightbus.client import BusClient
from lightbus.schema.events import schema_of
from lightbus.schema.json_schema import definition_name, escape_key, with_subschemas
from lightbus.transport.records import AsyncAPIParts

VERSION = "3.0.0"

Document = dict[str, Any]


def asyncapi_of(client: BusClient, *, version: str = "1") -> Document:
    """Return the AsyncAPI document (3.0.0) of a service.

    The service sends the events of its registered APIs, and receives the events of its listeners.
    Run the `on_start` hooks before, because they may add listeners. The fields of events are
    described in JSON Schema draft 7, which AsyncAPI uses.

    Args:
        client: The client of the service's bus.
        version: The version of the document.

    Raises:
        ApiError: The declaration of an event is not valid.
    """
    sent = {(api.meta.name, event) for api in client.apis.values() for event in api.events}
    received = [
        (listener.api_name, event, listener.name)
        for listener in client.listeners
        for event in sorted(listener.events)
    ]
    channels = sorted(sent | {(api, event) for api, event, _ in received})
    parts = {channel: client.transports.asyncapi(*channel) for channel in channels}
    servers = _servers(parts.values())
    return {
        "asyncapi": VERSION,
        "info": {"title": client.config.service_name, "version": version},
        "defaultContentType": "application/json",
        "servers": servers,
        "channels": {
            _key(api, event): _channel(api, event, parts[api, event], servers)
            for api, event in channels
        },
        "operations": _operations(sent, received),
        "components": _components(client, channels),
    }


def _key(api_name: str, event_name: str) -> str:
    """Return a unique key for an event."""
    return f"{escape_key(api_name)}.{_part_of_key(event_name)}"


def _part_of_key(name: str) -> str:
    """Return `name` as a part of a key whose parts are joined by dots."""
    return escape_key(name).replace(".", "-x2e")


def _servers(parts: Iterable[AsyncAPIParts]) -> Document:
    servers: list[Document] = []
    for part in parts:
        if part.server and part.server not in servers:
            servers.append(dict(part.server))
    return {f"server{number}": server for number, server in enumerate(servers, 1)}


def _channel(api_name: str, event_name: str, parts: AsyncAPIParts, servers: Document) -> Document:
    key = _key(api_name, event_name)
    used = [{"$ref": f"#/servers/{key}"} for key, known in servers.items() if known == parts.server]
    return {
        "address": parts.address or f"{api_name}.{event_name}",
        "messages": {_part_of_key(event_name): {"$ref": f"#/components/messages/{key}"}},
        **({"servers": used} if used else {}),
        **({"bindings": dict(parts.channel)} if parts.channel else {}),
    }


def _operations(
    sent: Iterable[tuple[str, str]], received: Iterable[tuple[str, str, str]]
) -> Document:
    operations = {
        f"send.{_key(api, event)}": _operation("send", api, event) for api, event in sorted(sent)
    }
    for api, event, listener in received:
        key = f"receive.{_part_of_key(listener)}.{_key(api, event)}"
        operations[key] = _operation("receive", api, event)
    return operations


def _components(client: BusClient, channels: list[tuple[str, str]]) -> Document:
    events = schema_of(client.apis.values())
    schemas = {name: _as_draft_7(schema) for name, schema in events["properties"].items()}
    return {
        "messages": {
            _key(api, event): _message(f"{api}.{event}", schemas) for api, event in channels
        },
        "schemas": {
            escape_key(name): _as_draft_7(schema) for name, schema in events["$defs"].items()
        },
    }


def _operation(action: str, api_name: str, event_name: str) -> Document:
    channel = f"#/channels/{_key(api_name, event_name)}"
    return {
        "action": action,
        "channel": {"$ref": channel},
        "messages": [{"$ref": f"{channel}/messages/{_part_of_key(event_name)}"}],
    }


def _message(name: str, documented: Document) -> Document:
    schema = dict(documented.get(name, {"type": "object"}))
    description = schema.pop("description", "")
    return {
        "name": name,
        **({"description": description} if description else {}),
        "contentType": "application/json",
        "payload": schema,
    }


def _as_draft_7(schema: Any) -> Any:
    """Convert a schema to draft 7, which AsyncAPI extends, and adapt its references."""
    converted = with_subschemas(schema, _as_draft_7)
    if not isinstance(converted, dict):
        return converted
    if (name := definition_name(converted.get("$ref"))) is not None:
        converted["$ref"] = f"#/components/schemas/{escape_key(name)}"
    # In AsyncAPI, this keyword has another meaning.
    converted.pop("discriminator", None)
    if "prefixItems" in converted:
        converted["additionalItems"] = converted.pop("items", True)
        converted["items"] = converted.pop("prefixItems")
    return converted
