"""When a cron expression is due, in a time zone whose clocks may change."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any

from lightbus.exceptions import ApiError

_DAY = 86400.0

# Within so many seconds after clocks are put forward, the times that they skip are due.
_SKIPPED_TIMES_ARE_DUE = 120.0


def zone_of(timezone: str | tzinfo, task_name: str) -> tzinfo:
    """Return the time zone that a task is given, as one whose offset depends on the time alone.

    Args:
        timezone: A name of the IANA database such as ``"Europe/Berlin"``, or an object.
        task_name: For errors.

    Raises:
        ApiError: There is no such zone, or the object does not behave as Python's `tzinfo`
            should.
    """
    from zoneinfo import ZoneInfo  # noqa: PLC0415 - few programs need it

    if isinstance(timezone, tzinfo) and _is_consistent(timezone):
        return timezone
    # An object of pytz has an offset of its own, and the name of its zone.
    name: Any = getattr(timezone, "zone", timezone)
    try:
        return ZoneInfo(name)
    except (AttributeError, KeyError, OSError, TypeError, ValueError) as error:
        raise ApiError(
            f"{task_name}() has the time zone {timezone!r}, which cannot be used. Give a name such "
            f"as 'Europe/Berlin', or a zoneinfo.ZoneInfo."
        ) from error


def _is_consistent(zone: tzinfo) -> bool:
    """Return whether a local time of the next year means the moment that it was made of."""
    now = time.time()
    try:
        moments = [datetime.fromtimestamp(now + day * _DAY, UTC) for day in range(0, 366, 7)]
        return all(
            moment.astimezone(zone).replace(tzinfo=zone).astimezone(UTC) == moment
            for moment in moments
        )
    except Exception:  # somebody else's class may raise any
        return False


def cron_times(cron: str, zone: tzinfo, now: float) -> Iterator[float]:
    """Yield the times of a cron expression from about `now` on, in seconds since the epoch.

    A time that names its hour and its minute comes once on each day, as in Debian's cron: the first
    time where clocks show it twice, and right after the change where they skip it. Other
    expressions follow what clocks show.

    Raises:
        CronSimError: It is not a cron expression.
        Exception: It is not text.
    """
    from cronsim import CronSim  # noqa: PLC0415 - few programs need it

    local = datetime.fromtimestamp(now, zone)
    if not _names_its_hour_and_minute(cron):
        yield from (at.timestamp() for at in CronSim(cron, local))
        return
    before = datetime.fromtimestamp(now - _SKIPPED_TIMES_ARE_DUE, zone)
    offset = min(_offset(local), _offset(before))
    for at in CronSim(cron, local.astimezone(UTC).replace(tzinfo=None) + offset):
        yield _first_moment(at, zone).timestamp()


def _names_its_hour_and_minute(cron: str) -> bool:
    fields: list[Any] = cron.split()
    # A field of seconds may precede them.
    return not any(field.startswith("*") for field in fields[-5:-3])


def _offset(local: datetime) -> timedelta:
    return local.utcoffset() or timedelta()


def _first_moment(shown: datetime, zone: tzinfo) -> datetime:
    """Return the first moment at which clocks show a time, or the next minute that they do show."""
    local = shown.replace(tzinfo=zone)
    while local.astimezone(UTC).astimezone(zone).replace(tzinfo=None) != shown:
        shown += timedelta(minutes=1)
        local = shown.replace(tzinfo=zone)
    return local
