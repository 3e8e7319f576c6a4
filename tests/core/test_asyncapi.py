"""A service as an AsyncAPI document."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from command import Command
from core.support import MakeBus
from lightbus import Api, Bus, event
from lightbus.asyncapi import asyncapi_of


@dataclasses.dataclass
class Address:
    street: str
    place: tuple[float, float]


class AuthApi(Api):
    @event
    def user_created(self, *, username: str, address: Address) -> None:
        """Someone has an account now."""

    class Meta:
        name = "auth"


def document_of(bus: Bus) -> dict[str, Any]:
    bus.mail.bounced.listen(lambda **_: None, listener_name="bounces")
    return asyncapi_of(bus.client, version="7")


def references_in(node: Any) -> list[str]:
    children = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    own = [node["$ref"]] if isinstance(node, dict) and "$ref" in node else []
    return own + [found for child in children for found in references_in(child)]


def test_a_service_sends_its_events_and_receives_those_it_listens_for(make_bus: MakeBus) -> None:
    document = document_of(make_bus(AuthApi))
    assert (document["asyncapi"], document["info"]) == ("3.0.0", {"title": "shop", "version": "7"})
    assert {name: one["action"] for name, one in document["operations"].items()} == {
        "send.auth.user_created": "send",
        "receive.bounces.mail.bounced": "receive",
    }
    assert list(document["channels"]) == ["auth.user_created", "mail.bounced"]
    assert document["servers"] == {}


def test_a_message_has_the_events_schema_and_docstring(make_bus: MakeBus) -> None:
    components = document_of(make_bus(AuthApi))["components"]
    message = components["messages"]["auth.user_created"]
    assert message["description"] == "Someone has an account now."
    assert message["payload"] == {
        "type": "object",
        "properties": {
            "username": {"type": "string"},
            "address": {"$ref": "#/components/schemas/Address"},
        },
        "required": ["username", "address"],
    }
    # A tuple, as draft 7 has it
    assert components["schemas"]["Address"]["properties"]["place"] == {
        "type": "array",
        "items": [{"type": "number"}, {"type": "number"}],
        "additionalItems": False,
        "minItems": 2,
        "maxItems": 2,
    }


def test_every_reference_leads_somewhere(make_bus: MakeBus) -> None:
    document = document_of(make_bus(AuthApi))
    references = references_in(document)
    assert len(references) >= 7
    for reference in references:
        place: Any = document
        for part in reference.removeprefix("#/").split("/"):
            place = place[part]


BUS = """
import lightbus

bus = lightbus.create(service_name="mail")


@bus.client.on_start()
def on_start():
    bus.auth.user_created.listen(print, listener_name="welcome")
"""


def test_the_command_prints_the_document_with_listeners_of_hooks(
    command: Command, tmp_path: Path
) -> None:
    (tmp_path / "bus.py").write_text(BUS)
    code, printed, said = command("schema", "asyncapi", "--api-version", "2")
    assert (code, said) == (0, "")
    document = json.loads(printed)
    assert document["info"] == {"title": "mail", "version": "2"}
    assert list(document["operations"]) == ["receive.welcome.auth.user_created"]
