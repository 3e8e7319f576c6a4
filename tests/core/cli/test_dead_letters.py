"""`lightbus dead-letters`, on an SQLite file, in processes of its own."""

from __future__ import annotations

import asyncio
import json
import signal
import stat
import sys
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import lightbus
from command import TIMEOUT, Command, ended, wait_until_reading
from core.apis import AuthApi
from lightbus import Bus, EventMessage
from lightbus.transport.failure import Failure
from lightbus.transport.records import Subscription
from lightbus_sqlite import SQLiteTransport

EDITOR = """
import pathlib, sys
file = pathlib.Path(sys.argv[1])
file.write_text(file.read_text().replace({old!r}, {new!r}))
"""

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
async def bus(tmp_path: Path, config: dict[str, Any]) -> AsyncIterator[Bus]:
    """A bus of the service, with two listeners whose queues exist."""
    (tmp_path / "bus.py").write_text("import lightbus\nbus = lightbus.create()\n")
    bus = lightbus.create(config)
    bus.client.register_api(AuthApi)
    for name in ("welcome", "count"):
        bus.auth.user_created.listen(lambda username: None, listener_name=name)
        transport = await transport_of(bus)
        await transport.declare(subscription_of(bus, name), timeout=TIMEOUT)
    yield bus
    await bus.client.close_async()


@pytest.fixture
def dead_letters(bus: Bus, command: Command) -> Run:
    """Runs `lightbus dead-letters ...`, in a terminal that is wide enough for its tables."""

    def run(*arguments: str, **options: str) -> tuple[int, str, str]:
        return command("dead-letters", *arguments, COLUMNS="200", **options)

    return run


async def transport_of(bus: Bus) -> SQLiteTransport:
    transport = await bus.client.transports.transport("auth").opened(timeout=TIMEOUT)
    assert isinstance(transport, SQLiteTransport)
    return transport


def subscription_of(bus: Bus, listener_name: str) -> Subscription:
    (listener,) = [one for one in bus.client.listeners if one.name == listener_name]
    return listener.subscription("shop")


async def add_dead_letter(
    bus: Bus,
    username: str = "ann",
    *,
    listener: str = "welcome",
    error: Exception | None = None,
    event_name: str = "user_created",
    minutes_ago: float = 1,
    body: bytes | None = None,
    message: EventMessage | None = None,
) -> EventMessage:
    """Add a dead letter."""
    message = message or EventMessage.create(
        "auth", event_name, {"username": username, "email": "e"}
    )
    if body is not None:
        message = EventMessage(api_name="auth", event_name=event_name, body=body)
    failed_at = datetime.now(UTC) - timedelta(minutes=minutes_ago)
    error = error or LookupError(f"no {username}")
    failure = Failure(
        error_type=f"builtins.{type(error).__name__}",
        error_message=str(error),
        traceback=f"Traceback of {username} [not markup]",
        failed_at=failed_at,
        first_failed_at=failed_at - timedelta(hours=1),
        listener=listener,
        attempt=3,
        service_name="shop",
        process_name="worker-1",
    )
    await (await transport_of(bus)).add_dead_letter("shop", message, failure, timeout=TIMEOUT)
    return message


async def left(bus: Bus) -> list[str]:
    """Return the ids of the dead letters."""
    transport = await transport_of(bus)
    assert isinstance(transport, SQLiteTransport)
    return [letter.message.id async for letter in transport.dead_letters("shop")]


async def waiting_for(bus: Bus, listener_name: str) -> list[tuple[Any, int]]:
    """Return the parameters and the attempt of each event that waits for a listener."""
    transport, subscription = await transport_of(bus), subscription_of(bus, listener_name)
    assert isinstance(transport, SQLiteTransport)
    count = (await transport.stats(subscription)).total
    stream = await transport.subscribe(subscription)
    taken = [await anext(stream) for _ in range(count)]
    return [(delivery.message.kwargs, delivery.attempt) for delivery in taken]


# Looking


async def test_the_list_shows_who_gave_up_what_when_and_why(bus: Bus, dead_letters: Run) -> None:
    message = await add_dead_letter(bus, error=KeyError("user\n [bold]name"))

    code, shown, _ = dead_letters("list")

    assert code == 0
    header, line = (line for line in shown.splitlines() if line.strip())
    assert header.split() == ["id", "failed", "at", "listener", "event", "attempts", "error"]
    for part in ("welcome", "auth.user_created", "3", "KeyError:", "[bold]name", message.id[:8]):
        assert part in line


async def test_80_columns_show_all_of_an_error_and_fewer_the_id(bus: Bus, command: Command) -> None:
    message = await add_dead_letter(bus, error=KeyError("user"))

    code, shown, _ = command("dead-letters", "list", COLUMNS="80")
    assert code == 0
    assert message.id[:8] in shown
    assert "KeyError: 'user'" in shown

    code, shown, _ = command("dead-letters", "list", COLUMNS="40")
    assert code == 0
    assert message.id[:8] in shown
    assert max(map(len, shown.splitlines())) <= 40


async def test_what_a_terminal_can_not_show_ends_no_command(bus: Bus, command: Command) -> None:
    await add_dead_letter(bus, error=KeyError("ü" * 200))

    code, shown, _ = ended(command.start("dead-letters", "list", PYTHONIOENCODING="ascii"))

    assert code == 0
    assert "\\xfc" in shown


async def test_programs_are_shown_all_of_a_dead_letter_as_json(bus: Bus, dead_letters: Run) -> None:
    message = await add_dead_letter(bus, error=KeyError("user"))

    code, shown, _ = dead_letters("show", message.id[:8], "--format", "json")

    (letter,) = json.loads(shown)
    assert code == 0
    assert (letter["id"], letter["parameters"]) == (message.id, message.kwargs)
    assert letter["error_type"] == "builtins.KeyError"
    assert letter["traceback"].startswith("Traceback")


async def test_nothing_of_a_dead_letter_steers_the_terminal(bus: Bus, dead_letters: Run) -> None:
    message = await add_dead_letter(
        bus, "\x1b[2J", error=KeyError("\x1b]0;title\x07"), event_name="user\x1b[31m"
    )

    for arguments in (["list"], ["list", "--group-by", "event"], ["show", message.id]):
        code, shown, _ = dead_letters(*arguments)
        assert code == 0
        assert "\\x1b" in shown
        assert shown.replace("\n", "").isprintable()


def test_an_empty_list_says_so(dead_letters: Run) -> None:
    assert dead_letters("list")[:2] == (0, "No dead letters.\n")
    assert dead_letters("list", "--format", "json")[:2] == (0, "[]\n")


async def test_the_list_can_be_read_by_programs(bus: Bus, dead_letters: Run) -> None:
    message = await add_dead_letter(bus)

    code, shown, _ = dead_letters("list", "--format", "json")

    (letter,) = json.loads(shown)
    assert code == 0
    assert letter.pop("first_failed_at") < letter.pop("failed_at")
    assert letter == {
        "id": message.id,
        "event": "auth.user_created",
        "listener": "welcome",
        "attempt": 3,
        "error_type": "builtins.LookupError",
        "error_message": "no ann",
    }


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        (["--listener", "count"], ["b"]),
        (["--event", "auth.user_deleted"], ["c"]),
        (["--event", "auth.*_created"], ["a", "b", "d"]),
        (["--error", "KeyError"], ["d"]),
        (["--error", "builtins.KeyError"], ["d"]),
        (["--error", "*Error"], ["a", "b", "c", "d"]),
        (["--since", "{30 minutes ago}"], ["a", "b", "c"]),
        (["--until", "{30 minutes ago}"], ["d"]),
        (["--listener", "welcome", "--error", "LookupError"], ["a", "c"]),
        (["--listener", "nobody"], []),
    ],
)
async def test_the_list_can_be_narrowed(
    bus: Bus, dead_letters: Run, filters: list[str], found: list[str]
) -> None:
    await add_dead_letter(bus, "a")
    await add_dead_letter(bus, "b", listener="count")
    await add_dead_letter(bus, "c", event_name="user_deleted")
    await add_dead_letter(bus, "d", error=KeyError("d"), minutes_ago=60)
    then = (datetime.now(UTC) - timedelta(minutes=30)).isoformat()
    arguments = [part.replace("{30 minutes ago}", then) for part in filters]

    _, shown, _ = dead_letters("export", *arguments)

    assert [json.loads(line)["parameters"]["username"] for line in shown.splitlines()] == found


async def test_the_list_can_be_grouped(bus: Bus, dead_letters: Run) -> None:
    for number in range(3):
        await add_dead_letter(bus, str(number))
    await add_dead_letter(bus, error=KeyError("x"), listener="count")

    code, shown, _ = dead_letters("list", "--group-by", "error")
    _, as_json, _ = dead_letters("list", "--group-by", "listener", "--format", "json")

    assert code == 0
    lines = [line.split() for line in shown.splitlines() if line.strip()]
    assert [line[:2] for line in lines] == [
        ["count", "error"],
        ["3", "builtins.LookupError"],
        ["1", "builtins.KeyError"],
    ]
    assert json.loads(as_json) == [
        {"listener": "welcome", "count": 3},
        {"listener": "count", "count": 1},
    ]


async def test_one_is_shown_with_all_that_is_known_about_it(bus: Bus, dead_letters: Run) -> None:
    message = await add_dead_letter(bus)

    code, shown, _ = dead_letters("show", message.id)

    assert code == 0
    for part in ('"username": "ann"', "Traceback of ann [not markup]", "worker-1", "no ann"):
        assert part in shown


async def test_bytes_that_are_no_json_are_shown_too(bus: Bus, dead_letters: Run) -> None:
    message = await add_dead_letter(bus, body=b"\xff\xfe")

    assert "//4=" in dead_letters("show", message.id)[1]
    assert json.loads(dead_letters("export")[1])["body_base64"] == "//4="


def test_one_that_is_not_there_is_told(dead_letters: Run) -> None:
    code, _, told = dead_letters("show", "no-such-id")

    assert (code, "No dead letter has the ID no-such-id." in told) == (1, True)


@pytest.mark.parametrize("arguments", [["replay"], ["discard", "--yes"]], ids=" ".join)
async def test_an_id_that_is_not_there_is_named_by_what_would_change_it(
    bus: Bus, dead_letters: Run, arguments: list[str]
) -> None:
    message = await add_dead_letter(bus)

    code, _, said = dead_letters(*arguments, message.id, "deadbeef")

    assert code == 1
    assert "No dead letter has the ID deadbeef." in said
    assert await left(bus) == []


async def test_a_search_that_finds_nothing_says_so(bus: Bus, dead_letters: Run) -> None:
    await add_dead_letter(bus)
    assert dead_letters("list", "--error", "KeyEror")[1] == "No dead letters match.\n"


async def test_ctrl_c_ends_a_question(bus: Bus, command: Command) -> None:
    message = await add_dead_letter(bus)

    process = command.start("dead-letters", "discard", "--all")
    assert process.stderr is not None
    asked = ""
    while not asked.endswith("[y/N]: "):
        asked += await asyncio.to_thread(process.stderr.read, 1)
    await wait_until_reading(process)
    process.send_signal(signal.SIGINT)

    assert await asyncio.to_thread(process.wait, 10) == 1
    assert await left(bus) == [message.id]


async def test_an_export_holds_everything(bus: Bus, dead_letters: Run, tmp_path: Path) -> None:
    message = await add_dead_letter(bus)

    assert dead_letters("export", "-o", "letters.jsonl")[0] == 0

    letter = json.loads((tmp_path / "letters.jsonl").read_text())
    assert letter["parameters"] == {"username": "ann", "email": "e"}
    assert letter["traceback"] == "Traceback of ann [not markup]"
    assert (letter["id"], letter["process"], letter["service"]) == (message.id, "worker-1", "shop")


async def test_nobody_else_may_read_the_file_that_an_export_makes(
    bus: Bus, dead_letters: Run, tmp_path: Path
) -> None:
    await add_dead_letter(bus)
    existing = tmp_path / "existing.jsonl"
    existing.touch()
    existing.chmod(0o644)

    assert dead_letters("export", "-o", "letters.jsonl")[0] == 0
    assert dead_letters("export", "-o", "existing.jsonl")[0] == 0

    assert stat.S_IMODE((tmp_path / "letters.jsonl").stat().st_mode) == 0o600
    assert stat.S_IMODE(existing.stat().st_mode) == 0o644


# Sending again


async def test_only_what_was_exported_is_forgotten_where_that_is_meant(
    bus: Bus, dead_letters: Run, tmp_path: Path
) -> None:
    exported = await add_dead_letter(bus)
    file = tmp_path / "old.jsonl"
    assert dead_letters("export", "-o", str(file))[0] == 0
    # Of the same time as those that were exported, and of one of the same events.
    later = await add_dead_letter(bus)
    other_listener = await add_dead_letter(bus, message=exported, listener="audit")

    code, _, said = dead_letters("discard", "--exported", str(file), "--yes")

    assert (code, said.splitlines()[-1]) == (0, "Discarded 1 dead letter.")
    assert await left(bus) == [later.id, other_listener.id]


def test_a_file_that_no_export_wrote_discards_nothing(dead_letters: Run, tmp_path: Path) -> None:
    file = tmp_path / "old.jsonl"
    file.write_text('{"id": "3fb31261"}\n')

    code, _, said = dead_letters("discard", "--exported", str(file), "--yes")

    assert code == 2
    assert "is not an exported dead letter." in said


async def test_what_comes_while_a_question_is_asked_is_not_forgotten(
    bus: Bus, command: Command
) -> None:
    await add_dead_letter(bus)
    process = command.start("dead-letters", "discard", "--until", "2030-01-01")
    assert process.stderr is not None
    asked = ""
    while not asked.endswith("[y/N]: "):
        asked += await asyncio.to_thread(process.stderr.read, 1)
    later = await add_dead_letter(bus)

    code, _, said = ended(process, given="y\n")

    assert code == 0
    assert said.splitlines()[-1] == "Discarded 1 dead letter."
    assert await left(bus) == [later.id]


async def test_one_is_sent_to_the_listener_that_gave_it_up_and_to_no_other(
    bus: Bus, dead_letters: Run
) -> None:
    message = await add_dead_letter(bus)
    other = await add_dead_letter(bus, "bob")

    # The id as the list shows it.
    code, _, told = dead_letters("replay", message.id[:8])

    assert (code, "Replayed 1 dead letter." in told) == (0, True)
    assert await waiting_for(bus, "welcome") == [({"username": "ann", "email": "e"}, 1)]
    assert await waiting_for(bus, "count") == []
    assert await left(bus) == [other.id]


async def test_an_id_that_is_too_short_means_none(bus: Bus, dead_letters: Run) -> None:
    message = await add_dead_letter(bus)

    assert "Discarded 0 dead letters." in dead_letters("discard", "--yes", message.id[:7])[2]
    assert await left(bus) == [message.id]


async def test_those_that_pass_a_filter_are_sent_in_their_order(
    bus: Bus, dead_letters: Run
) -> None:
    for number in range(150):
        await add_dead_letter(bus, str(number))
    kept = await add_dead_letter(bus, error=KeyError("x"))

    code, _, told = dead_letters("replay", "--error", "LookupError")

    assert (code, "Replayed 150 dead letters." in told) == (0, True)
    names = [kwargs["username"] for kwargs, _ in await waiting_for(bus, "welcome")]
    assert names == [str(number) for number in range(150)]
    assert await left(bus) == [kept.id]


async def test_all_are_sent_where_all_are_meant(bus: Bus, dead_letters: Run) -> None:
    await add_dead_letter(bus)
    await add_dead_letter(bus, listener="count")

    assert dead_letters("replay")[0] == 2
    assert len(await left(bus)) == 2
    assert dead_letters("replay", "--all")[0] == 0
    assert await left(bus) == []


async def test_one_whose_listener_is_gone_stays_and_the_others_are_sent(
    bus: Bus, dead_letters: Run
) -> None:
    gone = await add_dead_letter(bus, listener="gone")
    await add_dead_letter(bus)

    code, _, told = dead_letters("replay", "--all")

    assert code == 1
    assert "Listener 'gone' of service 'shop' has no queue" in " ".join(told.split())
    assert "Replayed 1 of 2 dead letters." in told
    assert await left(bus) == [gone.id]


async def test_its_parameters_can_be_corrected_first(
    bus: Bus, dead_letters: Run, tmp_path: Path
) -> None:
    message = await add_dead_letter(bus)
    (tmp_path / "editor.py").write_text(EDITOR.format(old='"ann"', new='"Ann"'))

    code, _, _ = dead_letters(
        "replay", "--edit", message.id, EDITOR=f"{sys.executable} {tmp_path / 'editor.py'}"
    )

    assert code == 0
    assert await waiting_for(bus, "welcome") == [({"username": "Ann", "email": "e"}, 1)]
    assert await left(bus) == []


async def test_one_whose_correction_is_no_json_stays(
    bus: Bus, dead_letters: Run, tmp_path: Path
) -> None:
    message = await add_dead_letter(bus)
    (tmp_path / "editor.py").write_text(EDITOR.format(old="{", new=""))

    _, _, told = dead_letters(
        "replay",
        "--edit",
        message.id,
        given="n\n",
        EDITOR=f"{sys.executable} {tmp_path / 'editor.py'}",
    )

    assert "Replayed 0 of 1 dead letter." in told
    assert await left(bus) == [message.id]


EDITS = {
    "a missing editor": ("no-such-editor", "no-such-editor: Editing failed"),
    "an editor that fails": ("false", "false: Editing failed"),
    "no name of an editor": ("'", "Cannot parse the name of the editor"),
}


@pytest.mark.parametrize(("editor", "problem"), EDITS.values(), ids=list(EDITS))
async def test_one_stays_where_the_editor_cannot_be_run(
    bus: Bus, dead_letters: Run, editor: str, problem: str
) -> None:
    message = await add_dead_letter(bus)

    code, _, said = dead_letters("replay", "--edit", message.id, EDITOR=editor)

    assert code == 1
    assert problem in said
    assert "The dead letter is unchanged." in said
    assert await left(bus) == [message.id]


@pytest.mark.parametrize(
    ("edit", "problem"),
    [
        (b'{"username": "\xfcnn"}', "The edited text is not UTF-8"),
        (b'{"username": 1, "username": 2}', "The key 'username' is a duplicate."),
    ],
)
async def test_one_whose_correction_is_wrong_can_be_edited_again(
    bus: Bus, dead_letters: Run, tmp_path: Path, edit: bytes, problem: str
) -> None:
    message = await add_dead_letter(bus)
    # The second time, the editor has what was written the first time.
    (tmp_path / "editor.py").write_text(
        "import pathlib, sys\n"
        "file = pathlib.Path(sys.argv[1])\n"
        f"right = file.read_bytes() == {edit!r}\n"
        f"""file.write_bytes(b'{{"username": "Ann"}}' if right else {edit!r})\n"""
    )

    code, _, said = dead_letters(
        "replay",
        "--edit",
        message.id,
        given="y\n",
        EDITOR=f"{sys.executable} {tmp_path / 'editor.py'}",
    )

    assert (code, problem in said) == (0, True)
    assert await waiting_for(bus, "welcome") == [({"username": "Ann"}, 1)]


# Forgetting


async def test_one_is_forgotten_when_that_is_confirmed(bus: Bus, dead_letters: Run) -> None:
    message = await add_dead_letter(bus)
    other = await add_dead_letter(bus)

    refused, _, asked = dead_letters("discard", message.id, given="n\n")
    assert (refused, "Permanently delete 1 dead letter?" in asked) == (1, True)
    assert len(await left(bus)) == 2

    assert dead_letters("discard", message.id, given="y\n")[0] == 0
    assert await left(bus) == [other.id]
    assert dead_letters("discard", "--all", "--yes")[0] == 0
    assert await left(bus) == []


# Mistakes


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["list", "--since", "yesterday"], "is not an ISO 8601 time"),
        (["discard"], "Select dead letters: give IDs, filter options or --all."),
        (["list", "-b", "no_such_module"], "was not found"),
        (["list", "--config", "no-such.yaml"], "cannot be read"),
    ],
)
def test_a_mistake_is_told_in_a_line(dead_letters: Run, arguments: list[str], told: str) -> None:
    code, _, said = dead_letters(*arguments)

    assert (code, told in said) == (2, True), said


async def test_a_body_as_deep_as_can_be_decoded_is_shown_and_exported(
    bus: Bus, dead_letters: Run
) -> None:
    message = await add_dead_letter(bus, body=b'{"deep":' + b"[" * 940 + b"]" * 940 + b"}")

    for arguments in (["show", message.id], ["export"]):
        code, shown, error = dead_letters(*arguments)
        assert (code, error) == (0, "")
        assert message.id in shown


@pytest.mark.parametrize("depth", [300, 900, 980])
async def test_values_of_any_depth_are_shown_exported_and_edited(
    bus: Bus, dead_letters: Run, tmp_path: Path, depth: int
) -> None:
    body = b'{"deep":' + b"[" * depth + b"]" * depth + b"}"
    message = await add_dead_letter(bus, body=body)
    (tmp_path / "editor.py").write_text(EDITOR.format(old="deep", new="deeper"))

    for arguments in (["show", message.id], ["show", message.id, "--format", "json"], ["export"]):
        code, shown, error = dead_letters(*arguments)
        assert (code, error) == (0, "")
        assert message.id in shown
    code, _, said = dead_letters(
        "replay", "--edit", message.id, given="n\n", EDITOR=f"{sys.executable} {tmp_path}/editor.py"
    )
    assert code == 0, said
