"""The times of a cron expression, in time zones whose clocks change."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone, tzinfo
from zoneinfo import ZoneInfo

import pytest

from lightbus.exceptions import ApiError
from lightbus.handling.tasks import at_times


def next_times(cron: str, start: str, count: int, zone: str = "UTC") -> list[str]:
    task = at_times(lambda: None, cron, timezone=zone)
    now = datetime.fromisoformat(start).replace(tzinfo=ZoneInfo(zone)).timestamp()
    found = []
    for _ in range(count):
        now = task.next_time(0, now)
        found.append(datetime.fromtimestamp(now, ZoneInfo(zone)).isoformat())
    return found


def test_a_schedule_follows_the_clocks_of_its_time_zone() -> None:
    assert next_times("30 2 * * *", "2026-03-28T00:00", 3, "Europe/Berlin") == [
        "2026-03-28T02:30:00+01:00",
        "2026-03-29T03:00:00+02:00",
        "2026-03-30T02:30:00+02:00",
    ]


def calls_on(day: str, cron: str, zone: str | tzinfo) -> list[str]:
    """Return when a schedule in Berlin is called on a day, by the clocks there and their offset."""
    berlin = ZoneInfo("Europe/Berlin")
    begin = datetime.fromisoformat(day).replace(tzinfo=berlin)
    end = (begin + timedelta(days=1)).timestamp()
    task = at_times(lambda: None, cron, timezone=zone)
    found, now = [], begin.timestamp() - 1
    while (now := task.next_time(0, now)) < end:
        found.append(f"{datetime.fromtimestamp(now, berlin):%H:%M:%S%z}")
    return found


SPRING, AUTUMN = "2026-03-29", "2026-10-25"


@pytest.mark.parametrize(
    ("cron", "spring", "autumn"),
    [
        ("30 2 * * *", ["03:00:00+0200"], ["02:30:00+0200"]),
        ("0 30 2 * * *", ["03:00:00+0200"], ["02:30:00+0200"]),
        ("15 30 2 * * *", ["03:00:15+0200"], ["02:30:15+0200"]),
        (
            "5,15 30 2 * * *",
            ["03:00:05+0200", "03:00:15+0200"],
            ["02:30:05+0200", "02:30:15+0200"],
        ),
        ("0 15 2,3 * * *", ["03:00:00+0200", "03:15:00+0200"], ["02:15:00+0200", "03:15:00+0100"]),
        ("0 0 2-3 * * *", ["03:00:00+0200"], ["02:00:00+0200", "03:00:00+0100"]),
        ("10 */30 2 * * *", [], [f"02:{m}:10+0{o}00" for o in (2, 1) for m in ("00", "30")]),
        ("0 30 12 * * *", ["12:30:00+0200"], ["12:30:00+0100"]),
    ],
)
def test_a_time_with_seconds_is_due_as_often_as_one_without_when_clocks_change(
    cron: str, spring: list[str], autumn: list[str]
) -> None:
    assert calls_on(SPRING, cron, "Europe/Berlin") == spring
    assert calls_on(AUTUMN, cron, "Europe/Berlin") == autumn


class LikePytz(tzinfo):
    """Has the offset of a zone's first years until `fromutc` makes another object, as pytz does."""

    def __init__(self, zone: str, offset: timedelta = timedelta(minutes=53)) -> None:
        self.zone = zone
        self._offset = offset

    def utcoffset(self, at: datetime | None) -> timedelta:
        return self._offset

    def dst(self, at: datetime | None) -> timedelta:
        return timedelta()

    def tzname(self, at: datetime | None) -> str:
        return self.zone

    def fromutc(self, at: datetime) -> datetime:
        utc = at.replace(tzinfo=UTC)
        offset = utc.astimezone(ZoneInfo(self.zone)).utcoffset() or timedelta()
        return (at + offset).replace(tzinfo=LikePytz(self.zone, offset))


class Failing(LikePytz):
    """Has no offset."""

    def utcoffset(self, at: datetime | None) -> timedelta:
        raise LookupError


@pytest.mark.parametrize(
    "zone", ["Europe/Berlin", ZoneInfo("Europe/Berlin"), LikePytz("Europe/Berlin")], ids=type
)
def test_a_time_zone_of_any_kind_is_followed(zone: str | tzinfo) -> None:
    assert calls_on(SPRING, "30 2 * * *", zone) == ["03:00:00+0200"]
    assert calls_on("2026-07-01", "30 2 * * *", zone) == ["02:30:00+0200"]
    assert calls_on("2026-07-01", "*/30 2 * * *", zone) == ["02:00:00+0200", "02:30:00+0200"]
    assert calls_on(AUTUMN, "0 30 2 * * *", zone) == ["02:30:00+0200"]


def test_a_time_zone_with_one_offset_is_used_as_it_is() -> None:
    zone = timezone(timedelta(hours=-3))
    assert calls_on("2026-07-01", "0 4 * * *", zone) == ["09:00:00+0200"]


@pytest.mark.parametrize(
    "zone", [Failing(""), LikePytz("Mars/Base"), type("Alone", (tzinfo,), {})()], ids=repr
)
def test_a_time_zone_without_offsets_is_refused(zone: tzinfo) -> None:
    with pytest.raises(ApiError, match="which cannot be used"):
        at_times(lambda: None, "30 2 * * *", timezone=zone)


def test_the_next_time_is_never_in_the_past() -> None:
    task = at_times(lambda: None, "30 2 * * *", timezone="Europe/Berlin")
    # In the hour that clocks show twice, the second time
    now = datetime.fromisoformat("2026-10-25T02:10:00+01:00").timestamp()
    assert datetime.fromtimestamp(
        task.next_time(0, now), ZoneInfo("Europe/Berlin")
    ).isoformat() in (
        "2026-10-25T02:30:00+01:00",
        "2026-10-26T02:30:00+01:00",
    )
