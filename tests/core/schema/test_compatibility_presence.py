"""Changes of whether a field is present break listeners, at any depth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import field
from typing import Any, NotRequired, Optional, TypedDict

import attrs
import msgspec
import pydantic
import pytest

from core.schema.examples import WIDER, changes, make

PLACE = make("Place", [("street", str), ("city", str)])


STREET = make("Place", [("street", str)])


class Named(TypedDict):
    street: str
    city: str


class OnlyStreetNamed(TypedDict):
    street: str


class PerhapsCityNamed(TypedDict):
    street: str
    city: NotRequired[str]


class InModel(pydantic.BaseModel):
    street: str
    city: str


class OnlyStreetInModel(pydantic.BaseModel):
    street: str


class InStruct(msgspec.Struct):
    street: str
    city: str


@attrs.define
class InAttrs:
    street: str
    city: str


@attrs.define
class OnlyStreetInAttrs:
    street: str


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (PLACE, STREET),
        (PLACE, make("Place", [("street", str), ("town", str)])),
        (PLACE, make("Place", [("other", int, 3)])),
        (PLACE, dict[str, Any]),
        (PLACE, dict[str, str]),
        (InModel, OnlyStreetInModel),
        (InStruct, msgspec.defstruct("InStruct", [("street", str)])),
        (InAttrs, OnlyStreetInAttrs),
        (Named, OnlyStreetNamed),
        (Named, PerhapsCityNamed),
        (
            InStruct,
            msgspec.defstruct("InStruct", [("street", str), ("city", str, "")], omit_defaults=True),
        ),
        (
            InStruct,
            msgspec.defstruct(
                "InStruct", [("street", str), ("city", str | msgspec.UnsetType, msgspec.UNSET)]
            ),
        ),
    ],
    ids=lambda type_: getattr(type_, "__name__", str(type_)),
)
@pytest.mark.parametrize(
    "within",
    [
        lambda type_: type_,
        list.__class_getitem__,
        lambda type_: dict.__class_getitem__((str, type_)),
        Optional.__getitem__,
        lambda type_: tuple.__class_getitem__((int, type_)),
        lambda type_: make("Outer", [("of", list.__class_getitem__(type_))]),
    ],
    ids=["itself", "list", "dict", "union", "tuple", "dataclass"],
)
def test_a_required_field_that_becomes_optional_is_reported_at_any_depth(
    before: Any, after: Any, within: Callable[[Any], Any]
) -> None:
    found = changes({"x": within(before)}, {"x": within(after)})

    assert any(WIDER in change and "it may be missing" in change for change in found)


def tags() -> list[str]:
    return ["new"]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (STREET, make("Place", [("street", str, "High Street")])),
        (
            make("T", [("tags", list[str])]),
            make("T", [("tags", list[str], field(default_factory=tags))]),
        ),
        (STREET, pydantic.create_model("Place", street=(str, "High Street"))),
        (
            make("T", [("tags", list[str])]),
            pydantic.create_model("T", tags=(list[str], pydantic.Field(default_factory=tags))),
        ),
        (STREET, msgspec.defstruct("Place", [("street", str, "High Street")])),
        (STREET, attrs.make_class("Place", {"street": attrs.field(type=str, default="")})),
    ],
)
def test_a_field_with_a_new_default_is_not_reported_because_it_is_always_sent(
    before: Any, after: Any
) -> None:
    assert changes({"x": before}, {"x": after}) == []
    assert changes({"x": list[before]}, {"x": list[after]}) == []
