"""What events look like as JSON Schema, and which changes of it break a listener."""

from __future__ import annotations

import dataclasses
import enum
import json
import os
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import jsonschema
import pydantic
import pytest

from core.support import MakeBus
from lightbus import Api, Event, Parameter, event
from lightbus.exceptions import InvalidEventArguments, InvalidSchema
from lightbus.schema import breaking_changes, read_schema, schema_of

TIMEOUT = 30


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


class HouseApi(Api):
    @event
    def built(
        self,
        *,
        street: Street,
        house: House,
        at: datetime,
        colours: set[Colour] = frozenset(),  # type: ignore[assignment]
        kind: Literal["new", "old"] = "new",
        other: object = None,
    ) -> None:
        """A house stands."""

    sold = Event(parameters=("price", Parameter("buyer", str, default="nobody")))

    class Meta:
        name = "houses"


BUILT = {
    "street": {"name": "High Street", "next_one": {"name": "Low Street", "number": 3}},
    "house": {"rooms": [{"colour": "red"}]},
    "at": "2026-01-02T03:04:05Z",
    "colours": ["red"],
    "kind": "old",
}


def errors(fields: dict[str, Any]) -> list[str]:
    document = schema_of([HouseApi])
    jsonschema.Draft202012Validator.check_schema(document)
    validator = jsonschema.Draft202012Validator(document)
    return [error.json_path for error in validator.iter_errors({"houses.built": fields})]


def test_the_schema_takes_what_is_fired_and_nothing_else() -> None:
    assert errors(BUILT) == []
    assert len(errors({})) == 3
    assert errors({**BUILT, "kind": "older"})
    assert errors({**BUILT, "house": {"rooms": [{"colour": "green"}]}})
    assert errors({**BUILT, "street": {"name": "a", "next_one": {"name": 1}}})
    assert errors({**BUILT, "more": 1}) == []


def test_the_schema_of_an_event_has_its_docstring_its_defaults_and_what_is_required() -> None:
    events = schema_of([HouseApi])["properties"]
    built = events["houses.built"]
    assert built["description"] == "A house stands."
    assert built["required"] == ["street", "house", "at"]
    assert built["properties"]["kind"] == {"enum": ["new", "old"], "default": "new"}
    assert built["properties"]["colours"]["default"] == []
    assert events["houses.sold"] == {
        "type": "object",
        "properties": {"price": {}, "buyer": {"type": "string", "default": "nobody"}},
        "required": ["price"],
    }


# Changes


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
    return [f"{change.field}: {change.what}" for change in found]


@dataclasses.dataclass
class Pair:
    x: int
    y: int = 0


@dataclasses.dataclass
class PairOfText:
    x: str
    y: int = 0


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"x": int}, {"x": int}),
        ({"x": int}, {"x": int, "y": (int, 3)}),
        ({"x": int}, {"x": (int, 3)}),
        ({"x": Street}, {"x": Street}),
        ({"x": House}, {"x": House}),
        ({"x": int | None}, {"x": None | int}),
        ({"x": Any}, {"x": Any}),
        ({}, {}),
    ],
    ids=str,
)
def test_a_change_that_listeners_survive_is_none(
    before: dict[str, Any], after: dict[str, Any]
) -> None:
    assert changes(before, after) == []


WIDER, NARROWER = "it can be what it could not be: ", "it can not be what it could be: "


@pytest.mark.parametrize(
    ("before", "after", "found"),
    [
        ({"x": int}, {}, ["x: it is gone"]),
        ({}, {"x": int}, ["x: it is new and required"]),
        ({"x": (int, 3)}, {"x": int}, ["x: it was optional and is required"]),
        ({"x": int}, {"x": float}, [f"x: {WIDER}at $, number instead of integer"]),
        ({"x": float}, {"x": int}, [f"x: {NARROWER}at $, number instead of integer"]),
        (
            {"x": int},
            {"x": str},
            [
                f"x: {WIDER}at $, string instead of integer",
                f"x: {NARROWER}at $, integer instead of string",
            ],
        ),
        ({"x": str}, {"x": datetime}, [f"x: {NARROWER}at $, format none instead of date-time"]),
        (
            {"x": Literal["a", "b"]},
            {"x": Literal["a"]},
            [f"x: {NARROWER}at $, 'b' instead of 'a'"],
        ),
        ({"x": str}, {"x": Literal["a"]}, [f"x: {NARROWER}at $, string instead of 'a'"]),
        ({"x": int}, {"x": (int | None, 1)}, [f"x: {WIDER}at $, null instead of integer"]),
        ({"x": list[int]}, {"x": list[float]}, [f"x: {WIDER}at $[...], number instead of integer"]),
        (
            {"x": dict[str, float]},
            {"x": dict[str, int]},
            [f"x: {NARROWER}at $[...], number instead of integer"],
        ),
        ({"x": Any}, {"x": int}, [f"x: {NARROWER}at $, anything instead of integer"]),
        (
            {"x": Pair},
            {"x": PairOfText},
            [
                f"x: {WIDER}at $.x, string instead of integer",
                f"x: {NARROWER}at $.x, integer instead of string",
            ],
        ),
    ],
    ids=str,
)
def test_a_change_that_breaks_a_listener_is_told_with_its_place(
    before: dict[str, Any], after: dict[str, Any], found: list[str]
) -> None:
    assert changes(before, after) == found


def test_an_event_that_is_gone_is_told() -> None:
    (change,) = breaking_changes(schema_of([api(x=int)]), schema_of([]))
    assert (change.event, change.field, change.what) == ("a.e", "", "it is gone")
    assert "hear of nothing" in change.why


# Files


@pytest.fixture
def schema_file(tmp_path: Path) -> Path:
    path = tmp_path / "old.json"
    path.write_text(json.dumps(schema_of([api(x=int, y=(list[str], []))])))
    return path


async def test_what_is_fired_has_to_fit_a_file_that_is_loaded(
    make_bus: MakeBus, schema_file: Path
) -> None:
    bus = make_bus(api(x=Any, y=(Any, [])), HouseApi)
    bus.schema.load_local(schema_file)
    assert (await bus.a.e.fire_async(x=1)).kwargs == {"x": 1, "y": []}
    await bus.houses.sold.fire_async(price="not in the file")
    with pytest.raises(InvalidEventArguments) as raised:
        await bus.a.e.fire_async(x=1, y=["fine", {"password": "hunter2"}])
    reason = f"Expected `string`, got `dict` - at `$.y[1]`, by {schema_file}"
    assert raised.value.reason == reason
    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "can not be read: No such file"),
        ("{", "is no JSON"),
        ("[]", "has no events in it"),
        ("{}", "has no events in it"),
        ('{"properties": {"a.e": 3}}', "has no events in it"),
        ('{"properties": {"a.e": {"type": "strnig"}}}', "is no JSON Schema"),
    ],
)
def test_a_file_that_is_no_schema_says_so(
    make_bus: MakeBus, tmp_path: Path, text: str | None, said: str
) -> None:
    path = tmp_path / "old.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InvalidSchema) as raised:
        make_bus().schema.load_local(path)
    assert said in str(raised.value)


# The command

BUS = """
import lightbus
from lightbus import Api, event

bus = lightbus.create()


class AuthApi(Api):
    @event
    def user_created(self, *, username: str, {more}) -> None:
        "Someone has an account now."

    class Meta:
        name = "auth"


bus.client.register_api(AuthApi)
"""


def lightbus_schema(folder: Path, *args: str, more: str = "age: int") -> tuple[int, str, str]:
    (folder / "bus.py").write_text(BUS.format(more=more))
    ended = subprocess.run(
        [sys.executable, "-m", "lightbus.cli", "schema", *args],
        cwd=folder,
        env={"PATH": os.environ["PATH"], "HOME": str(folder), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    return ended.returncode, ended.stdout, ended.stderr


def test_the_command_prints_a_schema_and_checks_against_it(tmp_path: Path) -> None:
    code, printed, _ = lightbus_schema(tmp_path, "dump")
    assert code == 0
    (tmp_path / "old.json").write_text(printed)
    assert list(read_schema(tmp_path / "old.json")["properties"]) == ["auth.user_created"]

    code, said, _ = lightbus_schema(tmp_path, "check", "old.json")
    assert (code, said) == (0, "No listener breaks: 1 events compared.\n")

    code, said, _ = lightbus_schema(tmp_path, "check", "old.json", more="age: str")
    assert code == 1
    assert "auth.user_created, field 'age': it can be what it could not be: at $, string" in said
    assert "Listeners that were written for what it was get what they do not take." in said


def test_the_command_says_what_is_wrong_with_a_file(tmp_path: Path) -> None:
    code, _, said = lightbus_schema(tmp_path, "check", "old.json")
    assert (code, "old.json can not be read" in said) == (2, True)
