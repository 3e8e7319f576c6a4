"""`lightbus schema`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from command import Command
from lightbus.schema.events import read_schema

BUS = """
import lightbus
from lightbus import Api, Event

bus = lightbus.create({}, service_name="shop")


class ShopApi(Api):
    sold = Event(("price",))

    class Meta:
        name = "shop"


bus.client.register_api(ShopApi)
"""


@pytest.mark.parametrize(
    "text", ['{"properties": {"shop.sold": {"required": 3}}}', "{", "[]", None]
)
def test_a_wrong_file_is_reported_in_one_line(
    command: Command, tmp_path: Path, text: str | None
) -> None:
    (tmp_path / "bus.py").write_text(BUS)
    if text is not None:
        (tmp_path / "old.json").write_text(text)

    code, printed, said = command("schema", "check", "old.json", COLUMNS="500")

    assert (code, printed) == (2, "")
    assert said.startswith("Error: old.json: ")
    assert said.count("\n") == 1


BROKEN = """
import dataclasses


class Undescribed:
    def __bool__(self):
        raise LookupError("no docs")


Broken = dataclasses.make_dataclass("Broken", [("a", int)])
Broken.__doc__ = Undescribed()
BusApi = type("BusApi", (Api,), {
    "e": Event([lightbus.Parameter("x", Broken)]),
    "Meta": type("Meta", (), {"name": "broken"}),
})
bus.client.register_api(BusApi)
"""


def test_an_event_without_a_schema_is_named(command: Command, tmp_path: Path) -> None:
    (tmp_path / "bus.py").write_text(BUS)
    (tmp_path / "old.json").write_text(command("schema", "dump")[1])
    (tmp_path / "bus.py").write_text(BUS + BROKEN)

    code, printed, said = command("schema", "check", "old.json", COLUMNS="500")

    assert (code, printed) == (2, "")
    assert said.startswith("Error: Event broken.e has no JSON Schema")


AUTH_BUS = """
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


def test_a_schema_is_printed_and_compared(command: Command, tmp_path: Path) -> None:
    (tmp_path / "bus.py").write_text(AUTH_BUS.format(more="age: int"))
    code, printed, _ = command("schema", "dump")
    assert code == 0
    (tmp_path / "old.json").write_text(printed)
    assert list(read_schema(tmp_path / "old.json")["properties"]) == ["auth.user_created"]

    code, said, _ = command("schema", "check", "old.json")
    assert (code, said) == (0, "No breaking changes in 1 event.\n")

    (tmp_path / "bus.py").write_text(AUTH_BUS.format(more="age: int | str"))
    code, said, _ = command("schema", "check", "old.json")
    assert code == 1
    assert (
        "auth.user_created, field 'age': it accepts more values than before: at $, string" in said
    )
    assert "Listeners of the old version may receive values" in said


MAIL_BUS = """
import lightbus

bus = lightbus.create(service_name="mail")


@bus.client.on_start()
def on_start():
    bus.auth.user_created.listen(print, listener_name="welcome")
"""


def test_the_asyncapi_document_contains_listeners_that_hooks_add(
    command: Command, tmp_path: Path
) -> None:
    (tmp_path / "bus.py").write_text(MAIL_BUS)
    code, printed, said = command("schema", "asyncapi", "--api-version", "2")
    assert (code, said) == (0, "")
    document = json.loads(printed)
    assert document["info"] == {"title": "mail", "version": "2"}
    assert list(document["operations"]) == ["receive.welcome.auth.user_created"]
