"""Records of the event log: what each says, what is counted, and which are told as events.

Nothing but a JSON object is asked of a line: fields that are missing, new or of another type than 7.0 and 8.0 have are
left out. Of a record only what names the traffic is told, never payloads, bodies, headers or the query of a URL.
Source: https://docs.suricata.io/en/latest/output/eve/eve-json-format.html and the JSON Schema beside it.
"""

from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from hashlib import blake2b
from typing import Any

import msgspec

from nms_workers.records import Attributes, Event, Labels, Severity
from nms_workers.services.suricata.journal import Tally

_MAX_SERIES = 2000  # of counts; what would be more is counted as `other`
_MAX_LABEL = 100

_SEVERITIES: dict[int, Severity] = {1: "error", 2: "warning"}  # the others, and those we do not know: info
_TRAFFIC = ("flow_id", "in_iface", "vlan", "src_ip", "src_port", "dest_ip", "dest_port", "proto", "app_proto")
_TOLD = {  # of the objects in a record
    "alert": ("action", "gid", "signature_id", "rev", "signature", "category", "severity"),
    "anomaly": ("type", "event", "code", "layer", "app_proto"),
    "drop": ("reason", "len", "verdict"),
    "http": ("hostname", "http_method", "status", "protocol", "http_user_agent"),
    "tls": ("sni", "version", "subject", "issuerdn", "fingerprint"),
    "dns": ("type", "rrname", "rrtype", "rcode"),
}


class Record:
    """One line of the event log.

    Args:
        line: as it was written.
        fields: as JSON.
        at: when it happened.
    """

    def __init__(self, line: bytes, fields: dict[str, Any], at: datetime) -> None:
        self.line, self.fields, self.at = line, fields, at
        self.type = str(fields.get("event_type", ""))

    def part(self, name: str) -> dict[str, Any]:
        """An object in it; empty when it is missing or none."""
        found = self.fields.get(name)
        return found if isinstance(found, dict) else {}

    @property
    def fingerprint(self) -> str:
        """Names this record: a flow, a moment and a signature are not enough, one packet may raise two alerts."""
        return f"{self.type}:{blake2b(self.line, digest_size=16).hexdigest()}"


def parsed(line: bytes) -> Record | None:
    """The record of a line; None when it is no JSON object with a timestamp."""
    try:
        fields = msgspec.json.decode(line)
        at = datetime.fromisoformat(fields["timestamp"])
    except (msgspec.DecodeError, KeyError, TypeError, ValueError, RecursionError):
        return None
    return Record(line, fields, at) if at.tzinfo else None


def event(record: Record) -> Event | None:
    """The event that a record is told as: alerts, anomalies and drops. None for all others."""
    if record.type not in _MESSAGES or not record.part(record.type):
        return None
    part, attributes = record.part(record.type), told(record)
    severity = _SEVERITIES.get(part.get("severity", 0), "info") if record.type == "alert" else "info"
    message = f"{_MESSAGES[record.type](part)}: {_path(record.fields)}"
    return Event(
        record.type, _clean(message), severity, fingerprint=record.fingerprint, attributes=attributes, ts=record.at
    )


def told(record: Record) -> Attributes:
    """What of a record is told: the traffic, and what the engine says of it."""
    attributes: Attributes = _plain(record.fields, _TRAFFIC)
    for name, fields in _TOLD.items():
        if known := _plain(record.part(name), fields):
            attributes[name] = known
    if isinstance(url := record.part("http").get("url"), str):
        attributes.setdefault("http", {})["url"] = _clean(url.partition("?")[0])  # the query may hold what is secret
    return attributes


def count(record: Record, tally: Tally) -> None:
    """Add what a record counts to the tally."""
    for metric, labels, number in (
        ("suricata_eve_records_total", {"event_type": record.type}, 1.0),
        *_COUNTED.get(record.type, _nothing)(record),
    ):
        add(tally, metric, labels, number)


def add(tally: Tally, metric: str, labels: Mapping[str, object] | None = None, number: float = 1) -> None:
    """Add a number to one count, or to its `other` when there are too many already."""
    key: tuple[str, Labels] = (metric, tuple(sorted((name, _label(value)) for name, value in (labels or {}).items())))
    if key not in tally and len(tally) >= _MAX_SERIES:
        key = (metric, tuple((name, "other") for name, _ in key[1]))
    tally[key] += number  # type: ignore[assignment]  # a Counter of floats counts as well


_Counts = Iterator[tuple[str, Mapping[str, object], float]]


def _nothing(_: Record) -> _Counts:
    return iter(())


def _alert(record: Record) -> _Counts:
    alert = record.part("alert")
    yield "suricata_alerts_total", {"action": alert.get("action"), "severity": alert.get("severity")}, 1
    yield "suricata_alerts_by_category_total", {"category": alert.get("category")}, 1


def _anomaly(record: Record) -> _Counts:
    yield "suricata_anomalies_total", {"type": record.part("anomaly").get("type")}, 1


def _drop(record: Record) -> _Counts:
    yield "suricata_drops_total", {"reason": record.part("drop").get("reason")}, 1


def _flow(record: Record) -> _Counts:
    flow, protocol = record.part("flow"), record.fields.get("proto")
    yield "suricata_flow_records_total", {"protocol": protocol, "app_protocol": record.fields.get("app_proto")}, 1
    for direction in ("toserver", "toclient"):
        labels = {"protocol": protocol, "direction": direction}
        yield "suricata_flow_record_bytes_total", labels, _number(flow.get(f"bytes_{direction}"))
        yield "suricata_flow_record_packets_total", labels, _number(flow.get(f"pkts_{direction}"))


def _dns(record: Record) -> _Counts:
    dns = record.part("dns")
    yield "suricata_dns_records_total", {"type": dns.get("type"), "rcode": dns.get("rcode")}, 1


def _tls(record: Record) -> _Counts:
    yield "suricata_tls_sessions_total", {"version": record.part("tls").get("version")}, 1


def _http(record: Record) -> _Counts:
    http = record.part("http")
    yield "suricata_http_requests_total", {"method": http.get("http_method"), "status": http.get("status")}, 1


_COUNTED: dict[str, Callable[[Record], _Counts]] = {
    "alert": _alert,
    "anomaly": _anomaly,
    "drop": _drop,
    "flow": _flow,
    "dns": _dns,
    "tls": _tls,
    "http": _http,
}
_MESSAGES: dict[str, Callable[[dict[str, Any]], str]] = {
    "alert": lambda alert: f"{alert.get('signature') or 'alert'} [{alert.get('gid')}:{alert.get('signature_id')}]",
    "anomaly": lambda anomaly: f"anomaly {anomaly.get('event') or anomaly.get('code') or anomaly.get('type')}",
    "drop": lambda drop: f"dropped by {drop.get('reason') or 'a rule'}",
}


def _path(fields: Mapping[str, Any]) -> str:
    ends = (f"{fields.get(f'{end}_ip', '?')} {fields.get(f'{end}_port', '')}".strip() for end in ("src", "dest"))
    return f"{fields.get('proto', '?')} {' -> '.join(ends)}"


def _plain(part: Mapping[str, Any], names: tuple[str, ...]) -> Attributes:
    """The named fields that are numbers, short texts or lists of numbers (vlan)."""
    found = {name: part[name] for name in names if isinstance(part.get(name), str | int | list)}
    return {name: _clean(value) if isinstance(value, str) else value for name, value in found.items()}


def _clean(text: str) -> str:
    """A text from the network as people may see it: one line, printable, not too long."""
    return "".join(character if character.isprintable() else "?" for character in text[:500])


def _label(value: object) -> str:
    return _clean(str(value))[:_MAX_LABEL] if isinstance(value, str | int) and str(value) else "none"


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0
