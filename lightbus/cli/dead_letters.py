"""``lightbus dead-letters``: what a service gave up, to look at, to send again, or to forget."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator
from datetime import UTC, datetime
from typing import IO, Any, TextIO, TypeVar

import attrs
import click
from rich.progress import Progress

from lightbus.cli import letter_view
from lightbus.cli.console import err, out, to_json
from lightbus.cli.letter_edit import edited, interruptible
from lightbus.cli.loading import ASKED_TO_STOP, FAILED, bus_options, load_client, report
from lightbus.cli.output import set_up_logging
from lightbus.client import BusClient
from lightbus.exceptions import TransportError
from lightbus.operations.dead_letters import DeadLetters, Filter, LetterKey
from lightbus.transport.features import DeadLetter

Command = TypeVar("Command", bound=Callable[..., Any])


@click.group(short_help="Look at what was given up, and send it again.")
def dead_letters() -> None:
    """Look at the events that a service gave up, send them again, or forget them."""


def _time(_: click.Context, __: click.Parameter, value: str | None) -> datetime | None:
    if value is None:
        return None
    try:
        return datetime.fromisoformat(value).astimezone(UTC)
    except ValueError:
        raise click.BadParameter(
            f"{value!r} is not an ISO 8601 time, such as 2026-01-31T12:00 (local) or "
            "2026-01-31T12:00Z."
        ) from None


_FILTERS = (
    click.option("--listener", help="Given up by this listener."),
    click.option("--event", help="Of this event; * stands for anything: 'auth.*'."),
    click.option("--error", help="With this exception type, such as KeyError."),
    click.option("--since", callback=_time, metavar="TIME", help="Given up at this time or later."),
    click.option("--until", callback=_time, metavar="TIME", help="Given up before this time."),
)


_format_option = click.option(
    "--format", "form", type=click.Choice(["table", "json"]), default="table", show_default=True
)


def _filter_options(command: Command) -> Command:
    for option in reversed(_FILTERS):
        command = option(command)
    return bus_options(command)


def _filter(options: dict[str, Any], ids: tuple[str, ...] = ()) -> Filter:
    """Return what the filters among `options` say, and take them out."""
    names = ("listener", "event", "error", "since", "until")
    return Filter(ids=frozenset(ids), **{name: options.pop(name) for name in names})


@dead_letters.command("list")
@click.option(
    "--group-by",
    type=click.Choice(["error", "event", "listener"]),
    help="Count them, rather than showing each.",
)
@_format_option
@_filter_options
def list_(*, group_by: str | None, form: str, **options: Any) -> None:
    """Show the dead letters of the service, oldest first."""
    wanted = _filter(options)

    async def work(client: BusClient) -> int:
        letters = await _all(client, wanted)
        if group_by is not None:
            letter_view.show_groups(letters, group_by, form)
        elif form == "json":
            out.write_json([letter_view.summary(letter) for letter in letters], indent=2)
        else:
            letter_view.show_table(letters, is_all=wanted.is_empty)
        return ASKED_TO_STOP

    _run(options, work)


@dead_letters.command(short_help="Show what is known about them.")
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
@_format_option
@bus_options
def show(*, ids: tuple[str, ...], form: str, **options: Any) -> None:
    """Show everything that is known about dead letters: parameters, error, traceback, times."""

    async def work(client: BusClient) -> int:
        letters = await _all(client, Filter(ids=frozenset(ids)))
        if form == "json":
            out.write_json([letter_view.whole(letter) for letter in letters], indent=2)
        else:
            for letter in letters:
                letter_view.show_whole(letter)
        return FAILED if _tell_missing(ids, letters) else ASKED_TO_STOP

    _run(options, work)


@dead_letters.command(short_help="Send them to the listener that gave them up.")
@click.argument("ids", nargs=-1, metavar="[ID...]")
@click.option("--all", "is_all", is_flag=True, help="All of them.")
@click.option("--edit", is_flag=True, help="Correct the parameters of each in an editor first.")
@_filter_options
def replay(*, ids: tuple[str, ...], is_all: bool, edit: bool, **options: Any) -> None:
    """Send dead letters back to the listener that gave them up, and to no other.

    Those that are given by id, or that pass the filters, or all. Can be interrupted and started
    again: what was on its way then may come twice.
    """
    wanted = _meant(options, ids, is_all=is_all)

    async def work(client: BusClient) -> int:
        dead = DeadLetters(client)

        async def send_again(letter: DeadLetter) -> bool:
            message = letter.message
            if edit:
                body = await edited(letter)
                if body is None:
                    return False
                message = attrs.evolve(message, body=body)
            await dead.replay(letter, message=message)
            return True

        return await _for_each(client, wanted, send_again, "replayed", is_drawn=not edit)

    _run(options, work)


@dead_letters.command(short_help="Forget them for ever.")
@click.argument("ids", nargs=-1, metavar="[ID...]")
@click.option("--all", "is_all", is_flag=True, help="All of them.")
@click.option(
    "--exported",
    type=click.File(),
    metavar="FILE",
    help="Exactly those that `export` wrote to this file.",
)
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@_filter_options
def discard(
    *, ids: tuple[str, ...], is_all: bool, exported: TextIO | None, yes: bool, **options: Any
) -> None:
    """Permanently remove dead letters: by id, from a file, by filters, or all."""
    keys = None if exported is None else _keys_in(exported)
    wanted = _meant(options, ids, is_all=is_all or keys is not None)

    async def work(client: BusClient) -> int:
        def ask(count: int) -> None:
            if not yes and count:
                click.confirm(f"Forget {count:,} dead letters for ever?", abort=True, err=True)

        async def forget(letter: DeadLetter) -> bool:
            await letter.discard()
            return True

        def is_meant(letter: DeadLetter) -> bool:
            return keys is None or LetterKey.of(letter) in keys

        return await _for_each(client, wanted, forget, "discarded", is_meant=is_meant, ask=ask)

    _run(options, work)


@dead_letters.command(short_help="Write them, one JSON object a line.")
@click.option(
    "-o", "--output", type=click.Path(allow_dash=True), default="-", help="A file.  [default: -]"
)
@_filter_options
def export(*, output: str, **options: Any) -> None:
    """Write dead letters with all that is known about them, one JSON object a line."""
    wanted = _filter(options)

    async def work(client: BusClient) -> int:
        letters = DeadLetters(client).matching(wanted)
        # The reader of the output may be slow, and other clients may wait for the dead letters.
        with tempfile.TemporaryFile("w+", encoding="utf-8") as found:
            async with contextlib.aclosing(letters):
                async for letter in letters:
                    found.write(to_json(letter_view.whole(letter)) + "\n")
            found.seek(0)
            with _opened(output) as file:
                shutil.copyfileobj(found, file)
        return ASKED_TO_STOP

    _run(options, work)


@contextlib.contextmanager
def _opened(output: str) -> Iterator[IO[str]]:
    if output == "-":
        yield out.file
        out.file.flush()
        return
    try:
        # For its user alone, because events may hold secrets.
        with open(output, "w", encoding="utf-8", opener=_private) as file:
            yield file
    except OSError as error:
        reason = error.strerror or error
        raise click.ClickException(f"{output} cannot be written: {reason}.") from error


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _keys_in(exported: TextIO) -> set[LetterKey]:
    """Return the keys of the dead letters that `export` wrote to a file.

    Raises:
        click.BadParameter: A line is not one of its.
    """
    keys = set()
    for number, line in enumerate(exported, start=1):
        try:
            keys.add(letter_view.key_of(json.loads(line)))
        except (ValueError, KeyError, TypeError) as error:
            raise click.BadParameter(
                f"line {number} of {exported.name} is not one that `export` wrote.",
                param_hint="--exported",
            ) from error
    return keys


def _meant(options: dict[str, Any], ids: tuple[str, ...], *, is_all: bool) -> Filter:
    wanted = _filter(options, ids)
    if wanted.is_empty and not is_all:
        raise click.UsageError("Say which: give ids, filters, or --all.")
    # What is given up from now on is not meant: an event that fails again would come round again.
    now = datetime.now(UTC)
    return attrs.evolve(wanted, until=min(wanted.until or now, now))


def _run(options: dict[str, Any], work: Callable[[BusClient], Coroutine[Any, Any, int]]) -> None:
    set_up_logging("console", "warning")

    async def with_client(client: BusClient) -> int:
        try:
            return await work(client)
        finally:
            await client.close_async()

    try:
        code = asyncio.run(with_client(load_client(**options)))
    except (click.Abort, click.ClickException):
        raise
    except Exception as error:  # a hook may raise any
        code = report(error)
    except KeyboardInterrupt:
        err.print_line("Stopped. The remaining dead letters are unchanged.")
        code = FAILED
    sys.exit(code)


def _tell_missing(ids: Iterable[str], letters: Iterable[DeadLetter]) -> bool:
    """Name those of `ids` that no letter has; return whether there are any."""
    found = [letter.message.id for letter in letters]
    missing = [given for given in ids if not any(one.startswith(given) for one in found)]
    for event_id in missing:
        err.print_line((f"There is no dead letter {event_id}.", "red"))
    return bool(missing)


async def _all(client: BusClient, wanted: Filter) -> list[DeadLetter]:
    letters = DeadLetters(client).matching(wanted)
    async with contextlib.aclosing(letters):
        return [letter async for letter in letters]


async def _for_each(
    client: BusClient,
    wanted: Filter,
    work: Callable[[DeadLetter], Awaitable[bool]],
    done: str,
    *,
    is_drawn: bool = True,
    is_meant: Callable[[DeadLetter], bool] = lambda _: True,
    ask: Callable[[int], None] = lambda _: None,
) -> int:
    """Do `work`, which says whether it did anything, with each that `is_meant`, once `ask` was
    given their number; print how many were `done`.
    """
    meant = [letter for letter in await _all(client, wanted) if is_meant(letter)]
    total = len(meant)
    is_incomplete = _tell_missing(sorted(wanted.ids), meant)
    with interruptible():
        ask(total)
    count = failed = 0
    # No others: some may have come since `ask` was given the number.
    keys = {LetterKey.of(letter) for letter in meant}
    letters = DeadLetters(client).matching(wanted)
    with Progress(console=err, disable=not is_drawn) as progress:
        task = progress.add_task(done.capitalize(), total=total)
        async with contextlib.aclosing(letters):
            async for letter in letters:
                if LetterKey.of(letter) not in keys:
                    continue
                try:
                    count += await work(letter)
                except TransportError as error:
                    failed += 1
                    err.print_line((f"{letter.message.id}:", "red"), f" {error}")
                progress.advance(task)
    err.print_line(f"{count:,} of {total:,} were {done}.")
    return FAILED if failed or is_incomplete else ASKED_TO_STOP
