"""Maintenance windows over midnight, over the ends of months, and over the days when clocks are changed."""

from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nms_workers.jobs.windows import is_open, next_opening
from nms_workers.settings import Window

BERLIN = "Europe/Berlin"


def window(cron: str, lasts: str, zone: str = BERLIN) -> Window:
    return Window.model_validate({"rule": "only", "cron": cron, "lasts": lasts, "zone": zone})


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


CASES = [
    # over midnight, and from one month and year to the next
    ("0 22 * * *", "4h", "2026-06-10T19:59:59", False),
    ("0 22 * * *", "4h", "2026-06-10T20:00:00", True),
    ("0 22 * * *", "4h", "2026-06-10T23:59:59", True),
    ("0 22 * * *", "4h", "2026-06-11T00:00:00", False),
    ("0 23 31 12 *", "2h", "2026-12-31T22:00:00", True),
    ("0 23 31 12 *", "2h", "2026-12-31T23:59:59.999999", True),
    ("0 23 31 12 *", "2h", "2027-01-01T00:00:00", False),
    # a window of days: Saturday 08:00 until Monday 08:00
    ("0 8 * * sat", "2d", "2026-06-14T12:00:00", True),
    ("0 8 * * sat", "2d", "2026-06-15T05:59:59", True),
    ("0 8 * * sat", "2d", "2026-06-15T06:00:00", False),
    # the last night of March that has 23 hours: 02:30 never comes, so it opens at 03:00, which is 01:00 UTC
    ("30 2 * * *", "1h", "2026-03-29T00:59:59", False),
    ("30 2 * * *", "1h", "2026-03-29T01:00:00", True),
    ("30 2 * * *", "1h", "2026-03-29T01:59:59", True),
    ("30 2 * * *", "1h", "2026-03-29T02:00:00", False),
    # a window across the missing hour lasts as long as any other: 01:00 CET until 04:00 CEST
    ("0 1 * * *", "2h", "2026-03-29T01:59:59", True),
    ("0 1 * * *", "2h", "2026-03-29T02:00:00", False),
    # the night of October that has 25 hours: 02:30 comes twice, and opens it the first time only
    ("30 2 * * *", "1h", "2026-10-25T00:29:59", False),
    ("30 2 * * *", "1h", "2026-10-25T00:30:00", True),
    ("30 2 * * *", "1h", "2026-10-25T01:10:00", True),  # 02:10 for the second time, 40 minutes after it opened
    ("30 2 * * *", "1h", "2026-10-25T01:30:00", False),
    ("30 2 * * *", "1h", "2026-10-25T01:45:00", False),
    ("0 1 * * *", "2h", "2026-10-25T00:59:59", True),
    ("0 1 * * *", "2h", "2026-10-25T01:00:00", False),
    # where every hour counts, so does the one that comes twice
    ("50 * * * *", "5m", "2026-10-25T00:52:00", True),
    ("50 * * * *", "5m", "2026-10-25T01:52:00", True),
    ("50 * * * *", "5m", "2026-10-25T01:56:00", False),
]


@pytest.mark.parametrize(("cron", "lasts", "at", "open_"), CASES)
def test_a_window_is_open_from_its_time_until_it_ends(cron: str, lasts: str, at: str, open_: bool) -> None:
    assert is_open(window(cron, lasts), utc(at)) is open_


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "America/Los_Angeles", "Pacific/Apia"])
def test_the_zone_of_the_question_does_not_matter(zone: str) -> None:
    asked = utc("2026-10-25T01:10:00").astimezone(ZoneInfo(zone))
    assert is_open(window("30 2 * * *", "1h"), asked)
    assert not is_open(window("30 2 * * *", "30m"), asked)


@pytest.mark.parametrize(
    ("zone", "opens"), [("UTC", "02:00"), ("Asia/Kathmandu", "20:15"), ("America/New_York", "06:00")]
)
def test_a_window_has_a_zone_of_its_own(zone: str, opens: str) -> None:
    opening = utc(f"2026-06-10T{opens}:00")
    assert is_open(window("0 2 * * *", "1h", zone), opening)
    assert not is_open(window("0 2 * * *", "1h", zone), opening - timedelta(seconds=1))
    assert next_opening(window("0 2 * * *", "1h", zone), opening - timedelta(hours=3)) == opening


def test_one_window_from_then_until_then() -> None:
    berlin = datetime(2026, 12, 24, tzinfo=timezone(timedelta(hours=1)))
    once = Window(rule="never", since=berlin, until=datetime(2026, 12, 27, tzinfo=UTC))
    assert [is_open(once, utc(at)) for at in ("2026-12-23T22:59:59", "2026-12-23T23:00", "2026-12-26T23:59:59.9")] == [
        False,
        True,
        True,
    ]
    assert not is_open(once, utc("2026-12-27T00:00"))
    assert next_opening(once, utc("2026-12-01T00:00")) == once.since
    assert next_opening(once, utc("2026-12-24T00:00")) is None


moments = st.datetimes(datetime(2024, 1, 1), datetime(2030, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - UTC


@given(
    at=moments,
    hour=st.integers(0, 23),
    minute=st.integers(0, 59),
    lasts=st.integers(1, 48 * 60),
    zone=st.sampled_from([BERLIN, "America/St_Johns", "Australia/Lord_Howe", "Asia/Tokyo", "UTC"]),
)
def test_it_is_open_exactly_if_it_opened_in_the_time_it_lasts(
    *, at: datetime, hour: int, minute: int, lasts: int, zone: str
) -> None:
    """Against every minute's wall clock, read one by one: no arithmetic of ours."""
    place = ZoneInfo(zone)
    open_ = is_open(window(f"{minute} {hour} * * *", f"{lasts}m", zone), at)
    if _changes_clocks(at, lasts, place):
        return  # these are written out above
    whole = at.replace(second=0, microsecond=0)
    minutes = (whole - timedelta(minutes=back) for back in range(lasts + 1))
    opened = [m for m in minutes if (local := m.astimezone(place)).hour == hour and local.minute == minute]
    assert open_ == any(one <= at < one + timedelta(minutes=lasts) for one in opened)


def _changes_clocks(at: datetime, lasts: int, place: ZoneInfo) -> bool:
    return (
        len({(at - timedelta(minutes=back)).astimezone(place).utcoffset() for back in range(-60, lasts + 120, 30)}) > 1
    )
