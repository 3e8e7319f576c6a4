"""Schemas of events in files: what is read, what is refused, and what has to fit them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from core.support import MakeBus
from lightbus import Api, Event, Parameter
from lightbus.exceptions import ConfigError, InvalidEventArguments
from lightbus.schema.events import breaking_changes, read_schema, schema_of


class ShopApi(Api):
    sold = Event([Parameter("x", int), Parameter("y", list[str], default=[])])

    class Meta:
        name = "shop"


class LooseApi(Api):
    sold = Event([Parameter("x"), Parameter("y", default=[])])

    class Meta:
        name = "shop"


class OtherApi(Api):
    moved = Event("where")

    class Meta:
        name = "other"


@pytest.fixture
def schema_file(tmp_path: Path) -> Path:
    path = tmp_path / "old.json"
    path.write_text(json.dumps(schema_of([ShopApi])))
    return path


async def test_fired_events_are_checked_against_a_loaded_file(
    make_bus: MakeBus, schema_file: Path
) -> None:
    bus = make_bus(LooseApi, OtherApi)
    bus.schema.load_local(schema_file)
    assert (await bus.shop.sold.fire_async(x=1)).kwargs == {"x": 1, "y": []}
    await bus.other.moved.fire_async(where="not in the file")
    with pytest.raises(InvalidEventArguments) as raised:
        await bus.shop.sold.fire_async(x=1, y=["fine", {"password": "hunter2"}])
    reason = f"Expected `string`, got `dict` - at `$.y[1]`, by {schema_file}"
    assert raised.value.reason == reason
    assert "hunter2" not in str(raised.value)


async def test_a_file_that_refers_to_itself_without_end_is_reported(
    make_bus: MakeBus, tmp_path: Path
) -> None:
    bus = make_bus(LooseApi)
    path = tmp_path / "endless.json"
    endless = {"$ref": "#/$defs/a"}
    path.write_text(json.dumps({"properties": {"shop.sold": endless}, "$defs": {"a": endless}}))
    bus.schema.load_local(path)

    with pytest.raises(ConfigError, match="refers to itself without end"):
        await bus.shop.sold.fire_async(x=1)


def nested(depth: int) -> Any:
    schema: Any = {"type": "integer"}
    for _ in range(depth):
        schema = {"items": schema}
    return schema


def of_event(**event: Any) -> str:
    return json.dumps({"properties": {"a.e": event}})


def of_field(**field: Any) -> str:
    return of_event(properties={"x": field})


MALFORMED = [
    ("{", "is not JSON"),
    ('{"properties": {"a.e": {}, "a.e": {}}}', "the key 'a.e' is a duplicate"),
    ("", "is not JSON"),
    ("[" * 100_000, "is not JSON"),
    ('{"properties": {"a.e": {"properties": {"x": {"minimum": Infinity}}}}}', "is not JSON"),
    ("[]", "it has no events"),
    ("null", "it has no events"),
    ("{}", "it has no events"),
    ('{"properties": []}', "it has no events"),
    ('{"properties": {}, "$defs": []}', "it has no events"),
    ('{"properties": {"a.e": 3}}', "event 'a.e' is malformed"),
    ('{"properties": {"a.e": true}}', "event 'a.e' is malformed"),
    ('{"properties": {}, "$defs": {"A": 3}}', "definition 'A' is malformed"),
    (of_event(properties=[]), "event 'a.e' is malformed"),
    (of_event(properties={"x": 3}), "event 'a.e' is malformed"),
    (of_event(required=3), "event 'a.e' is malformed"),
    (of_event(required=[3]), "event 'a.e' is malformed"),
    (of_event(required=None), "event 'a.e' is malformed"),
    (of_field(type="strnig"), "event 'a.e' is malformed"),
    (of_field(type=["string", 3]), "event 'a.e' is malformed"),
    (of_field(enum="red"), "event 'a.e' is malformed"),
    (of_field(enum=None), "event 'a.e' is malformed"),
    (of_field(anyOf={}), "event 'a.e' is malformed"),
    (of_field(anyOf=[3]), "event 'a.e' is malformed"),
    (of_field(oneOf=None), "event 'a.e' is malformed"),
    (of_field(allOf=[]), "event 'a.e' is malformed"),
    (of_field(items=3), "event 'a.e' is malformed"),
    (of_field(items=[{}]), "event 'a.e' is malformed"),
    (of_field(prefixItems={}), "event 'a.e' is malformed"),
    (of_field(additionalProperties="no"), "event 'a.e' is malformed"),
    (of_field(propertyNames=3), "event 'a.e' is malformed"),
    (of_field(patternProperties=[]), "event 'a.e' is malformed"),
    (of_field(minimum="1"), "event 'a.e' is malformed"),
    (of_field(multipleOf=0), "event 'a.e' is malformed"),
    (of_field(minLength=-1), "event 'a.e' is malformed"),
    (of_field(maxItems="3"), "event 'a.e' is malformed"),
    (of_field(pattern=3), "event 'a.e' is malformed"),
    (of_field(format=[]), "event 'a.e' is malformed"),
    (of_field(title=3), "event 'a.e' is malformed"),
    (of_field(**{"$ref": 3}), "event 'a.e' is malformed"),
    (of_field(**{"x-lightbus-bits": "7"}), "event 'a.e' is malformed"),
    (of_field(**{"not": 3}), "event 'a.e' is malformed"),
    (of_field(**{"$ref": "#/$defs/x"}), "refers to '#/$defs/x', which is not in the file"),
    (of_field(**{"$dynamicRef": "#x"}), "refers to '#x', which is not in the file"),
    (of_field(**nested(300)), "event 'a.e' is nested too deeply"),
]


@pytest.mark.parametrize(("text", "said"), MALFORMED)
def test_a_file_that_is_not_a_schema_is_refused_with_the_reason(
    tmp_path: Path, text: str, said: str
) -> None:
    path = tmp_path / "old.json"
    path.write_text(text)
    with pytest.raises(ConfigError) as raised:
        read_schema(path)
    assert said in str(raised.value)
    assert raised.value.source == str(path)


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "missing.json", tmp_path):
        with pytest.raises(ConfigError, match="cannot be read"):
            read_schema(path)


def test_a_wrong_file_is_refused_when_it_is_loaded(make_bus: MakeBus, tmp_path: Path) -> None:
    path = tmp_path / "old.json"
    path.write_text(of_field(type="strnig"))
    with pytest.raises(ConfigError):
        make_bus().schema.load_local(path)


def test_any_file_that_is_read_can_be_compared(tmp_path: Path) -> None:
    path = tmp_path / "old.json"
    odd: dict[str, Any] = {
        "a": True,
        "b": False,
        "c": {"pattern": "(?<", "format": "phone"},
        "d": {"$ref": "#/$defs/A~1B%20C", "minimum": 3},
        "e": {"not": {"type": "string"}, "allOf": [{"type": ["string", "null"]}]},
        "f": {"enum": [[1], {"a": None}, 1.5], "multipleOf": 0.1},
        "g": nested(40),
    }
    definitions = {"A/B C": {"$ref": "#/$defs/A~1B%20C"}}
    document = {"properties": {"a.e": {"properties": odd, "required": ["a"]}, "a.f": {}}}
    path.write_text(json.dumps({**document, "$defs": definitions}))
    found = read_schema(path)
    assert list(breaking_changes(found, found)) == []
    for schema in (schema_of([]), schema_of([ShopApi])):
        assert all(change.event for change in breaking_changes(found, schema))
