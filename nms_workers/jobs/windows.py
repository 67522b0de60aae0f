"""Maintenance windows: whether one is open, and when it opens next."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from cronsim import CronSim

from nms_workers.settings import Window


def is_open(window: Window, at: datetime) -> bool:
    """Whether the window is open at this moment, which is aware of its time zone."""
    at = at.astimezone(UTC)  # between times of one zone Python compares wall clocks, and those go back in autumn
    if window.since and window.until:
        return window.since.astimezone(UTC) <= at < window.until.astimezone(UTC)
    opened = next_opening(window, at - timedelta(seconds=window.lasts or 0))
    return opened is not None and opened.astimezone(UTC) <= at


def next_opening(window: Window, after: datetime) -> datetime | None:
    """When it opens for the first time after this moment, in its time zone; None: never again.

    A time that daylight saving leaves out comes when the clocks have been put forward; one that comes twice opens
    the window the first time, unless the hour is a `*`.
    """
    after = after.astimezone(UTC)
    if window.cron is None:
        return window.since if window.since and window.since.astimezone(UTC) > after else None
    times = CronSim(window.cron, after.astimezone(ZoneInfo(window.zone)))
    return next((one for one in times if one.astimezone(UTC) > after), None)
