"""Looking back in the event log: queries, and the alerts that come out."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from nms_workers.errors import Refused
from nms_workers.services.suricata import eve

_MAX_TERMS = 20


@dataclass(frozen=True, slots=True)
class Alert:
    """One alert.

    Args:
        at: when.
        sid, gid, rev, signature, category: of the rule.
        severity: 1 is the highest; 0: it has none.
        action: `allowed` or `blocked`.
        src, dest: address and port; port 0: it has none.
        protocol: `TCP`, `UDP`, ...
        flow_id: names the flow; 0: it has none.
    """

    at: datetime
    sid: int
    gid: int
    rev: int
    signature: str
    category: str
    severity: int
    action: str
    src: tuple[str, int]
    dest: tuple[str, int]
    protocol: str
    flow_id: int


class Query:
    """Terms that must all hold: `field=value` for a field by its dotted name, any other word anywhere in the record.

    `alert.signature_id=1000001 src_ip=192.0.2.7 attack`. Case does not matter. No terms: every record.

    Raises:
        Refused: it has more than 20 terms.
    """

    def __init__(self, text: str) -> None:
        words = text.split()
        if len(words) > _MAX_TERMS:
            raise Refused(f"a query has at most {_MAX_TERMS} terms, not {len(words)}")
        self._fields = [word.lower().split("=", 1) for word in words if "=" in word]
        self._words = [word.lower().encode() for word in words if "=" not in word]

    def matches(self, record: eve.Record) -> bool:
        """Whether every term holds."""
        line = record.line.lower() if self._words else b""
        return all(word in line for word in self._words) and all(
            str(_field(record.fields, name)).lower() == value for name, value in self._fields
        )


def alert(record: eve.Record) -> Alert:
    """The alert that a record tells; what is missing is empty or 0."""
    part, fields = record.part("alert"), record.fields
    return Alert(
        at=record.at,
        sid=_int(part.get("signature_id")),
        gid=_int(part.get("gid")),
        rev=_int(part.get("rev")),
        signature=str(part.get("signature", "")),
        category=str(part.get("category", "")),
        severity=_int(part.get("severity")),
        action=str(part.get("action", "")),
        src=(str(fields.get("src_ip", "")), _int(fields.get("src_port"))),
        dest=(str(fields.get("dest_ip", "")), _int(fields.get("dest_port"))),
        protocol=str(fields.get("proto", "")),
        flow_id=_int(fields.get("flow_id")),
    )


def found(lines: Iterator[bytes], query: Query, start: datetime | None, end: datetime | None) -> Iterator[eve.Record]:
    """The records among these lines that match and happened in `[start, end)`."""
    for line in lines:
        record = eve.parsed(line)
        if record is None or (start and record.at < start) or (end and record.at >= end):
            continue
        if query.matches(record):
            yield record


def _field(fields: Mapping[str, Any], name: str) -> object:
    value: object = fields
    for part in name.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _int(value: object) -> int:
    return value if isinstance(value, int) else 0
