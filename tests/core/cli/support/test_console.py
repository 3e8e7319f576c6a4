"""How commands print: as it is, safe for a terminal, and without a traceback where they cannot."""

from __future__ import annotations

import ast
import json
import os
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

import msgspec
import pytest
from rich.progress import Progress, TextColumn
from rich.table import Table
from rich.text import Text

import lightbus
import lightbus.cli
from command import TIMEOUT, Command
from core.apis import AuthApi
from core.support import BUS
from lightbus import Bus, EventMessage
from lightbus.cli.support.console import SafeConsole, to_json
from lightbus.transport.failure import Failure
from lightbus_sqlite import SQLiteTransport
from service import AUTH_API

MARKUP = ":skull: [red]lightbus:dead[/] :warning: https://x 'y' 3"
HOSTILE = "x[red]:skull:\n\x1b[2J\x07\x9b31m\x85\u2028\u202e"
CONTROLS = "\x1b[2J\x07\x9b31m\x85\u2028\u2029\u202e\u2066\u200f\r"


def test_no_text_is_rendered_as_markup_or_emoji(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    console = SafeConsole("stdout")
    console.print_line(MARKUP, (MARKUP, "bold"))
    console.print(MARKUP)
    table = Table(MARKUP, box=None)
    table.add_row(MARKUP)
    console.print(table)
    with Progress(TextColumn("{task.description}", markup=False), console=console) as progress:
        progress.add_task(MARKUP)

    assert capsys.readouterr().out.count(MARKUP) == 6


def test_control_characters_are_escaped_in_all_output(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    console = SafeConsole("stdout")
    console.print_line(f"a\n{CONTROLS}", (CONTROLS, "bold"))
    console.print(CONTROLS, Text(CONTROLS))
    table = Table(CONTROLS, box=None)
    table.add_row(Text(CONTROLS))
    console.print(table)
    console.write(CONTROLS)
    console.write_json({CONTROLS: CONTROLS})

    shown = capsys.readouterr().out
    assert shown.replace("\n", "").isprintable()
    assert "a\\n\\x1b[2J\\x07\\x9b31m\\x85\\u2028\\u2029\\u202e\\u2066\\u200f\\r" in shown
    assert json.loads(shown.splitlines()[-1]) == {CONTROLS: CONTROLS}


def test_no_command_prints_through_another_console() -> None:
    for file in Path(lightbus.cli.__file__).parent.rglob("*.py"):
        imported = [
            alias.name
            for node in ast.walk(ast.parse(file.read_text()))
            if isinstance(node, ast.ImportFrom) and node.module in ("rich.console", "rich")
            for alias in node.names
        ]
        assert file.name == "console.py" or not {"Console", "print"}.intersection(imported)


@pytest.mark.parametrize("depth", [1, 300, 5000])
def test_json_of_any_depth_is_printed_on_one_line(depth: int) -> None:
    body = b'{"a":\n ' + b"[" * depth + '"ü🚀\x7f\u2028"'.encode() + b"]" * depth + b"}"

    text = to_json({"parameters": msgspec.Raw(body)})

    assert text.isascii()
    assert text.isprintable()
    assert text.replace(" ", "") == (
        '{"parameters":{"a":'
        + "[" * depth
        + r'"\u00fc\ud83d\ude80\u007f\u2028"'
        + "]" * depth
        + "}}"
    )


@pytest.fixture
async def bus(tmp_path: Path, config: dict[str, Any]) -> AsyncIterator[Bus]:
    """A bus with a hostile dead letter, and an old schema in its folder."""
    (tmp_path / "bus.py").write_text(BUS)
    (tmp_path / "old.json").write_text('{"properties": {}}')
    bus = lightbus.create(config)
    bus.client.register_api(AuthApi)
    failure = Failure(
        error_type=HOSTILE,
        error_message=HOSTILE,
        traceback=HOSTILE,
        failed_at=datetime.now(UTC),
        first_failed_at=datetime.now(UTC),
        listener=HOSTILE,
        attempt=3,
        service_name="shop",
        process_name=HOSTILE,
    )
    body = json.dumps({HOSTILE: {HOSTILE: HOSTILE}}).encode()
    message = EventMessage(
        api_name="auth",
        event_name=HOSTILE,
        body=body,
        id=f"12345678{HOSTILE}",
        service_name=HOSTILE,
    )
    transport = await bus.client.transports.open("auth")
    assert isinstance(transport, SQLiteTransport)
    await transport.add_dead_letter("shop", message, failure, timeout=TIMEOUT)
    yield bus
    await bus.client.close_async()


@pytest.mark.parametrize(
    "arguments",
    [
        ["dead-letters", "list"],
        ["dead-letters", "list", "--format", "json"],
        ["dead-letters", "list", "--group-by", "error"],
        ["dead-letters", "list", "--group-by", "listener"],
        ["dead-letters", "show", "12345678"],
        ["dead-letters", "show", "12345678", "--format", "json"],
        ["dead-letters", "export"],
        ["dead-letters", "replay", "12345678"],
        ["inspect", "12345678"],
    ],
    ids=" ".join,
)
async def test_texts_of_a_sender_are_escaped_in_all_output(
    bus: Bus, command: Command, arguments: list[str]
) -> None:
    _, shown, said = command(*arguments, COLUMNS="2000")

    assert "[red]:skull:" in shown + said
    assert (shown + said).replace("\n", "").isprintable()


# Output that cannot be written

PRINTING = {
    "help": ["--help"],
    "version": ["--version"],
    "config check": ["config", "check"],
    "config schema": ["config", "schema"],
    "list": ["dead-letters", "list"],
    "list as JSON": ["dead-letters", "list", "--format", "json"],
    "list in groups": ["dead-letters", "list", "--group-by", "error"],
    "show": ["dead-letters", "show", "12345678"],
    "show as JSON": ["dead-letters", "show", "12345678", "--format", "json"],
    "export": ["dead-letters", "export"],
    "inspect": ["inspect", "12345678"],
    "status": ["status"],
    "status as JSON": ["status", "--format", "json", "--watch", "0.1"],
    "schema dump": ["schema", "dump"],
    "schema asyncapi": ["schema", "asyncapi"],
    "schema check": ["schema", "check", "old.json"],
    "topology": ["topology"],
    "topology as JSON": ["topology", "--format", "json"],
}


@pytest.fixture
def closed_pipe() -> Iterator[IO[str]]:
    """A pipe that nobody reads."""
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as pipe:
        yield pipe


commands = pytest.mark.parametrize("arguments", PRINTING.values(), ids=list(PRINTING))


@commands
def test_a_command_whose_output_is_closed_ends_silently(
    bus: Bus, command: Command, closed_pipe: IO[str], arguments: list[str]
) -> None:
    code, _, said = command.run_into(closed_pipe, None, *arguments)

    assert (code, said) == (1 if arguments[0].startswith("--") else 0, "")


def test_an_event_is_fired_silently_if_its_id_is_not_read(
    bus: Bus, command: Command, closed_pipe: IO[str], tmp_path: Path
) -> None:
    (tmp_path / "bus.py").write_text(AUTH_API)

    code, _, said = command.run_into(closed_pipe, None, "fire", "auth.user_deleted", "username=ann")

    assert (code, said) == (0, "")


@commands
def test_a_full_disk_is_reported_in_one_line(
    bus: Bus, command: Command, arguments: list[str]
) -> None:
    with Path("/dev/full").open("w") as full:
        code, _, said = command.run_into(full, None, *arguments)

    assert (code, said) == (
        1,
        "Error: Cannot write the output: No space left on device.\n",
    )


def test_a_command_finishes_if_its_messages_cannot_be_written(bus: Bus, command: Command) -> None:
    with Path("/dev/full").open("w") as full:
        assert command.run_into(None, full, "dead-letters", "discard", "--all", "--yes")[0] == 0


def test_a_file_that_cannot_be_written_is_reported_in_one_line(bus: Bus, command: Command) -> None:
    code, _, said = command("dead-letters", "export", "-o", "no/such/folder")

    assert code == 1
    assert said == "Error: Cannot write no/such/folder: No such file or directory.\n"
