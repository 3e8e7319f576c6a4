"""What a dead letter looks like, on a terminal and as JSON."""

from __future__ import annotations

import base64
from collections import defaultdict
from datetime import datetime
from typing import Any

import msgspec
from rich.table import Table
from rich.text import Text

from lightbus.cli.console import out, to_json
from lightbus.exceptions import UndecodableEvent
from lightbus.operations.dead_letters import SHORT_ID, LetterKey
from lightbus.transport.features import DeadLetter


def summary(letter: DeadLetter) -> dict[str, Any]:
    """Return what is shown of `letter` in a list."""
    message, failure = letter.message, letter.failure
    return {
        "id": message.id,
        "event": message.canonical_name,
        "listener": failure.listener,
        "attempt": failure.attempt,
        "error_type": failure.error_type,
        "error_message": failure.error_message,
        "first_failed_at": failure.first_failed_at.isoformat(),
        "failed_at": failure.failed_at.isoformat(),
    }


def whole(letter: DeadLetter) -> dict[str, Any]:
    """Return all that is known about `letter`, for `to_json`."""
    message, failure = letter.message, letter.failure
    try:
        message.kwargs  # noqa: B018 - reading them is what decodes them
    except UndecodableEvent:
        body: dict[str, Any] = {"body_base64": base64.b64encode(message.body).decode()}
    else:
        body = {"parameters": msgspec.Raw(message.body)}
    return {
        **summary(letter),
        "version": message.version,
        "fired_at": message.fired_at.isoformat(),
        "fired_by": message.service_name,
        "service": failure.service_name,
        "process": failure.process_name,
        "host": failure.hostname,
        "pid": failure.pid,
        "traceback": failure.traceback,
        **body,
    }


def key_of(exported: dict[str, Any]) -> LetterKey:
    """Return the key of the dead letter of which `whole` returned `exported`.

    Raises:
        KeyError: It is not from `whole`.
        TypeError: Likewise.
        ValueError: Likewise.
    """
    return LetterKey(
        event_id=str(exported["id"]),
        listener=str(exported["listener"]),
        failed_at=datetime.fromisoformat(exported["failed_at"]),
    )


def show_table(letters: list[DeadLetter], *, is_all: bool) -> None:
    """Print a line for each; `is_all` where they were not searched for."""
    if not letters:
        out.print_line("There are no dead letters." if is_all else "No dead letter matches.")
        return
    table = Table(box=None, expand=True)
    table.add_column("id", no_wrap=True, min_width=SHORT_ID)
    table.add_column("given up")
    table.add_column("listener", overflow="fold")
    table.add_column("event", overflow="fold")
    table.add_column("attempts", justify="right")
    table.add_column("error", overflow="fold", min_width=10, ratio=1)  # what the others leave
    for letter in letters:
        failure = letter.failure
        error = f"{failure.error_type.rpartition('.')[2]}: {failure.error_message}"
        table.add_row(
            letter.message.id[:SHORT_ID],
            f"{failure.failed_at.astimezone():%m-%d %H:%M}",
            failure.listener,
            letter.message.canonical_name,
            str(failure.attempt),
            " ".join(error.split()),
        )
    out.print(table)


def show_groups(letters: list[DeadLetter], group_by: str, form: str) -> None:
    """Print how many there are of each error, event or listener."""

    def group_of(letter: DeadLetter) -> str:
        return str(summary(letter)["error_type" if group_by == "error" else group_by])

    times_of: defaultdict[str, list[datetime]] = defaultdict(list)
    for letter in letters:
        times_of[group_of(letter)].append(letter.failure.failed_at)
    groups = sorted(times_of.items(), key=lambda group: len(group[1]), reverse=True)
    if form == "json":
        counts = [{group_by: name, "count": len(times)} for name, times in groups]
        out.write_json(counts)
        return
    table = Table("count", group_by, "first", "last", box=None)
    for name, times in groups:
        table.add_row(f"{len(times):,}", name, _local(min(times)), _local(max(times)))
    out.print(table)


def show_whole(letter: DeadLetter) -> None:
    """Print all that is known about `letter`."""
    known = whole(letter)
    traceback = known.pop("traceback")
    parameters = known.pop("parameters", None)
    table = Table(box=None, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in known.items():
        table.add_row(Text(name.replace("_", " "), "bold"), str(value))
    out.print(table)
    if parameters is not None:
        out.print()
        out.print_line(("parameters", "bold"))
        out.write(to_json(parameters, indent=2, is_ascii=False))
    if traceback:
        out.write(f"\n{traceback}")


def _local(time: datetime) -> str:
    return f"{time.astimezone():%Y-%m-%d %H:%M:%S}"
