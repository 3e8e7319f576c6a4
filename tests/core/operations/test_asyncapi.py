"""A service as an AsyncAPI document."""

from __future__ import annotations

import dataclasses
import re
from typing import Any, Generic, TypedDict, TypeVar
from urllib.parse import unquote

import pydantic
import pytest

from core.support import MakeBus
from lightbus import Api, Bus, Event, Parameter, event
from lightbus.operations.asyncapi import asyncapi_of

T = TypeVar("T")


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


def leads_somewhere(document: Any, reference: str) -> bool:
    """Return whether a reference, which is a URI with a JSON Pointer, is one into `document`."""
    assert re.fullmatch(r"#(/[a-zA-Z0-9._~!$&'()*+,;=:@%-]*)*", reference)
    place = document
    parts = unquote(reference).removeprefix("#/").split("/")
    for part in (part.replace("~1", "/").replace("~0", "~") for part in parts):
        if not isinstance(place, dict) or part not in place:
            return False
        place = place[part]
    return True


def test_every_reference_leads_somewhere(make_bus: MakeBus) -> None:
    document = document_of(make_bus(AuthApi))
    references = references_in(document)
    assert len(references) >= 7
    assert all(leads_somewhere(document, reference) for reference in references)


class Cat(pydantic.BaseModel):
    lives: int


class Page(pydantic.BaseModel, Generic[T]):
    items: list[T]


Size: Any = dataclasses.make_dataclass("Größe", [("höhe", int)])


@pytest.mark.parametrize("name", ["team/auth", "a@b", "a+b", "a,b", "a-b.c", "a-x40b", "a_.-/@+,"])
@pytest.mark.parametrize("hint", [int, Page[Cat], list[Size], dict[str, Page[Cat] | None]], ids=str)
def test_references_and_keys_are_valid_for_all_names(
    make_bus: MakeBus, name: str, hint: Any
) -> None:
    members = {
        "ev": Event([Parameter("x", hint)]),
        "Meta": type("Meta", (), {"name": name}),
    }
    bus = make_bus(type("AnApi", (Api,), members))
    bus.client.listen_for_events([(f"{name}-too", "ev/1")], lambda **_: None, listener_name=name)

    document = asyncapi_of(bus.client)

    for reference in references_in(document):
        assert leads_somewhere(document, reference)
    parts = [document["channels"], document["operations"], *document["components"].values()]
    for key in (key for part in parts for key in part):
        assert re.fullmatch(r"[a-zA-Z0-9._-]+", key)
    assert f"{name}.ev" in {one["name"] for one in document["components"]["messages"].values()}


def test_names_that_are_alike_do_not_share_a_key(make_bus: MakeBus) -> None:
    bus = make_bus()
    names = ["a@b", "a-x40b", "a-40b", "a.b", "a-x2eb"]
    events = [("a.b", "c"), ("a", "b.c"), ("a", "b-x2ec")]
    for name in names:
        bus.client.listen_for_events(events, lambda **_: None, listener_name=name)

    document = asyncapi_of(bus.client)

    assert len([key for key in document["channels"] if key.startswith("a.")]) == len(events)
    assert len([key for key in document["operations"] if key.startswith("receive.")]) == 15


def test_fields_that_are_named_like_keywords_stay_as_they_are(make_bus: MakeBus) -> None:
    odd = TypedDict("odd", {"prefixItems": int, "items": str, "$ref": str})
    members = {
        "ev": Event([Parameter("prefixItems", int), Parameter("items", odd)]),
        "Meta": type("Meta", (), {"name": "a"}),
    }

    document = asyncapi_of(make_bus(type("AnApi", (Api,), members)).client)

    payload = document["components"]["messages"]["a.ev"]["payload"]
    assert list(payload["properties"]) == ["prefixItems", "items"]
    assert list(document["components"]["schemas"]["odd"]["properties"]) == sorted(
        odd.__annotations__
    )
