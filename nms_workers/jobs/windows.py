"""Maintenance windows: whether one is open, and when it opens next."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from cronsim import CronSim

from nms_workers.settings import Window


def is_open(window: Window, at: datetime) -> bool:
    """Whether the window is open at this moment, which is aware of its time zone."""
    opened = next_opening(window, at - timedelta(seconds=window.lasts or 0))
    if window.since and window.until:
        return window.since <= at < window.until
    return opened is not None and opened <= at


def next_opening(window: Window, after: datetime) -> datetime | None:
    """When it opens for the first time after this moment, in its time zone; None: never again.

    A time that daylight saving leaves out comes when the clocks have been put forward; one that comes twice opens
    the window the first time, unless the hour is a `*`.
    """
    if window.cron is None:
        return window.since if window.since and window.since > after else None
    # From one second on, and compared in UTC: within one zone Python compares wall clocks, and those go back in autumn.
    local = after.astimezone(ZoneInfo(window.zone))
    return next((one for one in CronSim(window.cron, local) if one.astimezone(UTC) > after), None)
