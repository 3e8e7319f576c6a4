"""Prints dead letters on the terminal."""

from __future__ import annotations

from collections import defaultdict
from datetime import datetime

from rich.table import Table
from rich.text import Text

from lightbus.cli.support.console import out, to_json
from lightbus.operations.dead_letter_export import export, summarize
from lightbus.operations.dead_letters import SHORT_ID
from lightbus.transport.features import DeadLetter


def print_table(letters: list[DeadLetter]) -> None:
    """Print one row for each dead letter."""
    table = Table(box=None, pad_edge=False, expand=True)
    table.add_column("id", no_wrap=True, min_width=SHORT_ID)
    table.add_column("failed at")
    table.add_column("listener", overflow="fold")
    table.add_column("event", overflow="fold")
    table.add_column("attempts", justify="right")
    table.add_column("error", overflow="fold", min_width=16, ratio=1)
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


def print_groups(letters: list[DeadLetter], group_by: str, form: str) -> None:
    """Print the number of dead letters for each error, event or listener."""

    def group_of(letter: DeadLetter) -> str:
        return str(summarize(letter)["error_type" if group_by == "error" else group_by])

    times_of: defaultdict[str, list[datetime]] = defaultdict(list)
    for letter in letters:
        times_of[group_of(letter)].append(letter.failure.failed_at)
    groups = sorted(times_of.items(), key=lambda group: len(group[1]), reverse=True)
    if form == "json":
        counts = [{group_by: name, "count": len(times)} for name, times in groups]
        out.write_json(counts)
        return
    table = Table("count", group_by, "first", "last", box=None, pad_edge=False)
    for name, times in groups:
        table.add_row(f"{len(times):,}", name, _local(min(times)), _local(max(times)))
    out.print(table)


def print_details(letter: DeadLetter) -> None:
    """Print everything that is known about `letter`."""
    details = export(letter)
    traceback = details.pop("traceback")
    parameters = details.pop("parameters", None)
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in details.items():
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
