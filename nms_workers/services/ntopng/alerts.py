"""Alerts of ntopng: what a record says, and the events it becomes."""

import html
import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from nms_workers.errors import ParseError
from nms_workers.records import Event, Severity
from nms_workers.services.ntopng.model import Alert, Interface

_TAG = re.compile(r"<[^<>]{0,2000}>")
_LAST = 253_402_300_800  # the year 10000, in seconds of the epoch
_LONGEST = 2000  # characters of ntopng's own words

# ntopng's numbers, scripts/lua/modules/alert_severities.lua
_SEVERITIES: dict[int, Severity] = {
    1: "debug", 2: "info", 3: "info", 4: "warning", 5: "error", 6: "critical", 8: "critical",
}  # fmt: skip

# Which fields of a record say whom an alert of a family is about.
_SUBJECT = {
    "flow": ("cli_ip", "cli_port", "srv_ip", "srv_port"),
    "host": ("ip", "vlan_id"),
    "interface": ("subtype",),
    "mac": ("address",),
    "network": ("name",),
    "system": (),
    "user": ("user",),
}


def of_record(family: str, record: Mapping[str, Any]) -> Alert:
    """An alert from a record of any family. ntopng writes a field as text, as a number, or as `{value, label}`.

    Raises:
        ParseError: it does not say when it began, or what it is.
    """
    message = record.get("msg")
    told = message if isinstance(message, Mapping) else {}
    alert_id, began = _text(record.get("alert_id")), _number(record.get("tstamp"))
    if not alert_id or began is None or not 0 <= began < _LAST:
        raise ParseError("an alert of ntopng does not say what it is and when it began")
    where = record.get("flow")
    places: Mapping[str, Any] = {**(where if isinstance(where, Mapping) else {}), **record}
    subject = " ".join(filter(None, (_text(places.get(name)) for name in _SUBJECT.get(family, ()))))
    return Alert(
        family=family,
        row_id=_text(record.get("row_id")),
        alert_id=alert_id,
        name=_plain(told.get("name") or _label(record.get("alert_id")) or alert_id),
        subject=subject[:_LONGEST],
        description=_plain(told.get("description") or record.get("description") or ""),
        at=datetime.fromtimestamp(began, UTC),
        severity=int(_number(record.get("severity")) or 0),
        score=_number(record.get("score")) or 0,
        seconds=_number(record.get("duration")) or 0,
        count=int(_number(record.get("count")) or 1),
    )


def engaged(interface: Interface | None, alert: Alert) -> Event:
    """The event that fires while an alert lasts. Its beginning is part of its name: engaged anew it is another one."""
    where = interface.ifname if interface else "system"
    parts = (alert.family, where, alert.alert_id, alert.subject, str(int(alert.at.timestamp())))
    return Event(
        "alert",
        _message(alert),
        _SEVERITIES.get(alert.severity, "warning"),
        fingerprint=":".join(parts),
        state="firing",
        attributes=_about(where, alert),
    )


def past(interface: Interface | None, alert: Alert) -> Event:
    """The event of an alert that is over, named by its row, at the time when it began."""
    where = interface.ifname if interface else "system"
    row = alert.row_id or f"{alert.alert_id}:{alert.subject}:{int(alert.at.timestamp())}"
    return Event(
        "past_alert",
        _message(alert),
        _SEVERITIES.get(alert.severity, "warning"),
        fingerprint=f"{alert.family}:{where}:{row}",
        attributes=_about(where, alert),
        ts=alert.at,
    )


def row_number(alert: Alert) -> int | None:
    """The row as a number; None where ntopng keeps alerts in ClickHouse, whose rows have no order."""
    return int(alert.row_id) if alert.row_id.isascii() and alert.row_id.isdigit() else None


def _message(alert: Alert) -> str:
    parts = (alert.name, f"on {alert.subject}" if alert.subject else "")
    head = " ".join(filter(None, parts))
    return (f"{head}: {alert.description}" if alert.description else head)[:_LONGEST]


def _about(where: str, alert: Alert) -> dict[str, Any]:
    return {
        "interface": where,
        "family": alert.family,
        "alert_id": alert.alert_id,
        "alert": alert.name,
        "subject": alert.subject,
        "score": alert.score,
        "severity": alert.severity,
        "since": alert.at.isoformat(),
        "count": alert.count,
    }


def _text(field: Any) -> str:
    value = field.get("value") if isinstance(field, Mapping) else field
    return "" if value is None or isinstance(value, list | dict) else str(value)


def _label(field: Any) -> str:
    return str(field.get("label") or "") if isinstance(field, Mapping) else ""


def _number(field: Any) -> float | None:
    try:
        number = float(_text(field))
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _plain(text: Any) -> str:
    """Text without the markup that is meant for ntopng's own pages."""
    return " ".join(html.unescape(_TAG.sub(" ", str(text))).split())[:_LONGEST]
