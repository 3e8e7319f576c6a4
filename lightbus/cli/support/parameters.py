"""Arguments and options that several commands take."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])


def format_option(*formats: str) -> Callable[[Command], Command]:
    """Return the option ``--format``, whose default is the first of `formats`."""
    return click.option(
        "--format",
        "form",
        type=click.Choice(formats),
        default=formats[0],
        show_default=True,
        help="Output format.",
    )


class EventNameType(click.ParamType[tuple[str, str]]):
    """The name of an event, such as ``auth.user_created``, as a pair: its API and its event."""

    name = "API.EVENT"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, str]:
        api_name, _, event_name = value.rpartition(".")
        if not (api_name and event_name):
            self.fail(f"{value!r} is not of the form API.EVENT.", param, ctx)
        return api_name, event_name


class TimeType(click.ParamType[datetime]):
    """A time in ISO 8601 format, as a `datetime` in UTC. Without an offset, it is local time."""

    name = "TIME"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> datetime:
        try:
            return datetime.fromisoformat(value).astimezone(UTC)
        except ValueError:
            self.fail(
                f"{value!r} is not an ISO 8601 time, such as 2026-01-31T12:00 (local time) or "
                "2026-01-31T12:00Z.",
                param,
                ctx,
            )
