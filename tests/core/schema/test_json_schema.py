"""Parts of JSON Schemas: keys, references, and the schemas within one."""

from __future__ import annotations

import re
from datetime import date
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightbus.schema.json_schema import definition_name, escape_key, subschemas, without_non_json

names = st.text(st.sampled_from("aZ0._-x2e/@+,é字 ~%#"))


@given(st.lists(names, unique=True))
def test_different_names_have_different_keys_that_asyncapi_accepts(several: list[str]) -> None:
    keys = [escape_key(name) for name in several]
    assert len({*keys}) == len(several)
    assert all(re.fullmatch(r"[a-zA-Z0-9._-]*", key) for key in keys)


@given(st.from_regex(r"[a-zA-Z_][a-zA-Z0-9_.]*", fullmatch=True))
def test_the_key_of_a_plain_name_is_the_name(name: str) -> None:
    assert escape_key(name) == name


@given(names)
def test_a_reference_leads_to_the_definition_that_it_was_made_of(name: str) -> None:
    pointer = name.replace("~", "~0").replace("/", "~1")
    assert definition_name(f"#/$defs/{quote(pointer)}") == name


@pytest.mark.parametrize("reference", ["#", "#/properties/x", "https://example.com/#/$defs/x", 3])
def test_a_reference_to_another_place_leads_to_no_definition(reference: Any) -> None:
    assert definition_name(reference) is None


def test_only_subschemas_are_found() -> None:
    schema = {
        "properties": {"$ref": {"title": "a"}, "items": {"title": "b"}},
        "default": {"$ref": "no schema"},
        "enum": [{"title": "no schema"}],
        "prefixItems": [{"title": "c"}, True],
        "additionalProperties": False,
        "anyOf": [{"propertyNames": {"title": "d"}}],
    }
    found = [one.get("title") for one in subschemas(schema) if isinstance(one, dict)]
    assert sorted(title for title in found if title) == ["a", "b", "c", "d"]


def test_values_that_cannot_be_encoded_are_omitted() -> None:
    schema = {
        "maximum": float("inf"),
        "properties": {"a": {"default": date(2026, 1, 1), "title": "kept"}},
        "anyOf": [{"enum": [float("nan")], "type": "number"}],
    }
    assert without_non_json(schema) == {
        "properties": {"a": {"title": "kept"}},
        "anyOf": [{"type": "number"}],
    }
