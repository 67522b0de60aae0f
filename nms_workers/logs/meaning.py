"""What a line says of itself: its level, and when it was written."""

import re
from datetime import UTC, datetime, timedelta
from typing import Literal

from nms_workers.records import Severity

Level = Literal["trace", "debug", "info", "notice", "warn", "error", "critical"]

_LOOKED_AT = 512  # characters of a line
_FUTURE = timedelta(days=1)

# Capitals where they stand alone, or small letters where a name says that they are the level.
_LEVEL = re.compile(
    r"(?<![A-Za-z])(TRACE|DEBUG|INFO|NOTICE|WARN(?:ING)?|ERR(?:OR)?|CRIT(?:ICAL)?|FATAL|SEVERE|ALERT|EMERG|PANIC|LOG)(?![A-Za-z])"
    r"|\b(?:level|lvl|severity|loglevel)\\*[\"']?\s?[=:]\s?\\*[\"']?([A-Za-z]{3,9})"
)
_LEVELS: dict[str, Level] = {
    "trace": "trace",
    "debug": "debug",
    "info": "info",
    "log": "info",
    "notice": "notice",
    "warn": "warn",
    "warning": "warn",
    "err": "error",
    "error": "error",
    "severe": "error",
    "crit": "critical",
    "critical": "critical",
    "fatal": "critical",
    "alert": "critical",
    "emerg": "critical",
    "panic": "critical",
}
_SEVERITIES: dict[Level, Severity] = {
    "trace": "debug",
    "debug": "debug",
    "info": "info",
    "notice": "info",
    "warn": "warning",
    "error": "error",
    "critical": "critical",
}

# At the beginning of a line, perhaps in brackets; or as a field of a line of JSON. ISO 8601.
_CLOCK = r"([0-9]{2}:[0-9]{2}:[0-9]{2})(?:[.,]([0-9]{1,9}))?[0-9]*"
_MOMENT = rf"([0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}})[T ]{_CLOCK} ?(Z|UTC|GMT|[+-][0-9]{{2}}:?[0-9]{{2}})?"
_TIME = re.compile(rf"^\W{{0,3}}{_MOMENT}")
_TIME_FIELD = re.compile(rf'"(?:@?timestamp|time|ts)"\s*:\s*"{_MOMENT}')


def level_of(text: str) -> Level | None:
    """The level that a line names first; None: it names none."""
    found = _LEVEL.search(text, 0, _LOOKED_AT)
    return _LEVELS.get((found[1] or found[2]).lower()) if found else None


def severity_of(level: Level | None) -> Severity:
    """The severity of an event for a level."""
    return _SEVERITIES[level] if level else "info"


def time_of(text: str, now: datetime) -> str | None:
    """When a line says that it was written, RFC 3339 in UTC with as many digits as it had.

    A time without a zone is this host's. None: it names none, or one that cannot be: before 1971, or tomorrow.
    """
    found = _TIME_FIELD.search(text, 0, _LOOKED_AT) if text[:1] == "{" else _TIME.match(text)
    if found is None:
        return None
    day, clock, fraction, zone = found.groups()
    zone = {"Z": "+00:00", "UTC": "+00:00", "GMT": "+00:00"}.get(zone or "", zone or "")
    try:
        moment = datetime.fromisoformat(f"{day}T{clock}{zone}").astimezone(UTC)
    except (ValueError, OverflowError):
        return None
    if moment.year < 1971 or moment > now + _FUTURE:
        return None
    return f"{moment:%Y-%m-%dT%H:%M:%S}" + (f".{fraction}" if fraction else "") + "Z"


def moment_of(text: str) -> datetime:
    """A time as `time_of` or an engine of containers writes it, to microseconds.

    Raises:
        ValueError: it is no time.
    """
    return datetime.fromisoformat(re.sub(r"(\.[0-9]{6})[0-9]+", r"\1", text))
