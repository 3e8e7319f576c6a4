"""Computes the times of a cron expression, in a time zone with daylight saving time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any

from lightbus.exceptions import ApiError

_DAY = 86400.0

# For this many seconds after clocks are set forward, the skipped times are still due.
_SKIPPED_TIMES_DUE = 120.0


def zone_of(timezone: str | tzinfo, task_name: str) -> tzinfo:
    """Return the time zone of a task, as an object whose offset depends only on the time.

    Args:
        timezone: A name from the IANA database, such as ``"Europe/Berlin"``, or a time zone object.
        task_name: The name of the task, for error messages.

    Raises:
        ApiError: The name is unknown, or the object does not conform to Python's `tzinfo`.
    """
    from zoneinfo import ZoneInfo  # noqa: PLC0415 - few programs need it

    if isinstance(timezone, tzinfo) and _is_consistent(timezone):
        return timezone
    # An object of pytz has a fixed offset, and knows the name of its zone.
    name: Any = getattr(timezone, "zone", timezone)
    try:
        return ZoneInfo(name)
    except (AttributeError, KeyError, OSError, TypeError, ValueError) as error:
        raise ApiError(
            f"{task_name}() has the time zone {timezone!r}, which cannot be used. Give a name such "
            f"as 'Europe/Berlin', or a zoneinfo.ZoneInfo."
        ) from error


def _is_consistent(zone: tzinfo) -> bool:
    """Return whether local times in the next year convert back to the same moments in UTC."""
    now = time.time()
    try:
        moments = [datetime.fromtimestamp(now + day * _DAY, UTC) for day in range(0, 366, 7)]
        return all(
            moment.astimezone(zone).replace(tzinfo=zone).astimezone(UTC) == moment
            for moment in moments
        )
    except Exception:  # a user's class may raise any exception
        return False


def cron_times(cron: str, zone: tzinfo, now: float) -> Iterator[float]:
    """Yield the times of a cron expression from about `now` on, in seconds since the epoch.

    An expression with a fixed hour and minute occurs once a day, as in Debian's cron. If clocks
    show that time twice, it occurs the first time. If clocks skip that time, it occurs right after
    the change. Other expressions follow the local clock.

    Raises:
        CronSimError: `cron` is not a cron expression.
        Exception: `cron` is not text.
    """
    from cronsim import CronSim  # noqa: PLC0415 - few programs need it

    local = datetime.fromtimestamp(now, zone)
    if not _has_fixed_hour_and_minute(cron):
        yield from (at.timestamp() for at in CronSim(cron, local))
        return
    before = datetime.fromtimestamp(now - _SKIPPED_TIMES_DUE, zone)
    offset = min(_offset(local), _offset(before))
    for at in CronSim(cron, local.astimezone(UTC).replace(tzinfo=None) + offset):
        yield _first_moment(at, zone).timestamp()


def _has_fixed_hour_and_minute(cron: str) -> bool:
    fields: list[Any] = cron.split()
    # A field for seconds may come first.
    return not any(field.startswith("*") for field in fields[-5:-3])


def _offset(local: datetime) -> timedelta:
    return local.utcoffset() or timedelta()


def _first_moment(shown: datetime, zone: tzinfo) -> datetime:
    """Return the first moment at which clocks show a time; if they skip it, the next minute."""
    local = shown.replace(tzinfo=zone)
    while local.astimezone(UTC).astimezone(zone).replace(tzinfo=None) != shown:
        shown += timedelta(minutes=1)
        local = shown.replace(tzinfo=zone)
    return local
