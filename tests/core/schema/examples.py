"""Types whose schemas the core's tests compare, and how they compare them."""

from __future__ import annotations

import dataclasses
import enum
from typing import Any

import pydantic

from lightbus import Api, Event, Parameter
from lightbus.schema.events import breaking_changes, schema_of


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


@dataclasses.dataclass
class Street:
    """Where a house is."""

    name: str
    number: int | None = None
    next_one: Street | None = None


class Room(pydantic.BaseModel):
    colour: Colour


class House(pydantic.BaseModel):
    rooms: list[Room]


def api(**hints: Any) -> type[Api]:
    """Return an API whose only event has parameters of these types, or with these defaults."""
    parameters = [
        Parameter(name, *(hint if isinstance(hint, tuple) else (hint,)))
        for name, hint in hints.items()
    ]
    return type(
        "SomeApi", (Api,), {"e": Event(parameters), "Meta": type("Meta", (), {"name": "a"})}
    )


def changes(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    found = breaking_changes(schema_of([api(**before)]), schema_of([api(**after)]))
    return [f"{change.field}: {change.difference}" for change in found]


WIDER, NARROWER = "it accepts more values than before: ", "it accepts fewer values than before: "


make: Any = dataclasses.make_dataclass
