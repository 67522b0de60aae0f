"""Records from what HAProxy tells. `stats.csv` and `info.csv` say which field is which metric."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from nms_workers.mapping import MappingTable
from nms_workers.records import Entity, Event, Record, Sample, Severity
from nms_workers.services.haproxy.answers import Certificate, Info, StickTable, TableEntry
from nms_workers.services.haproxy.stats import STATES, Kind, Row

_HERE = Path(__file__).parent
STATS, INFO = MappingTable(_HERE / "stats.csv"), MappingTable(_HERE / "info.csv")

_MOST_NAMED = 100  # unknown fields
_UNUSED = "MAINT (resolution)"  # a slot of a server-template that no address was found for
_TEXTS = ("addr", "mode", "algo", "cookie", "tracked")


class _Alarm(NamedTuple):
    event: str
    severity: Severity


_ALARMS: dict[tuple[Kind, str], _Alarm] = {  # states that last until they are over
    ("server", "DOWN"): _Alarm("server_down", "error"),
    ("server", "NOLB"): _Alarm("server_nolb", "warning"),
    ("server", "DRAIN"): _Alarm("server_drain", "info"),
    ("server", "MAINT"): _Alarm("server_maintenance", "info"),
    ("backend", "DOWN"): _Alarm("backend_down", "critical"),
    ("frontend", "PAUSED"): _Alarm("frontend_stopped", "warning"),
    ("frontend", "STOP"): _Alarm("frontend_stopped", "warning"),
    ("frontend", "FULL"): _Alarm("frontend_full", "warning"),
    ("listener", "FULL"): _Alarm("listener_full", "warning"),
}
ALARMS = tuple(sorted({alarm.event for alarm in _ALARMS.values()}))


def of_stats(rows: Sequence[Row], limit: int, where: str) -> Iterator[Record]:
    """Entities and states of all objects, the numbers of the first `limit` of them.

    Args:
        rows: frontends and backends first.
        where: names the target among others.
    """
    unknown: set[str] = set()
    for row in rows:
        yield Entity(row.kind, _key(row), _about(row))
        if (alarm := _ALARMS.get((row.kind, row.state))) and row.text("status") != _UNUSED:
            yield _firing(row, alarm)
    for row in rows[:limit]:
        yield from _numbers(row)
        unknown.update(STATS.unknown({row.kind: row.fields}))
    yield from _servers_by_state(rows)
    yield Sample("haproxy_objects_left_out", max(0, len(rows) - limit))
    yield Sample("haproxy_unknown_fields", len(unknown), {"of": "stats"})
    counted = Counter(row.kind for row in rows)
    about = {"objects": dict(sorted(counted.items())), "unknown_fields": sorted(unknown)[:_MOST_NAMED]}
    yield Entity("statistics", where, about)


def of_info(info: Info, where: str) -> Iterator[Record]:
    """The process. Where it tells memory in bytes and in MB, the bytes count."""
    exact = {name: value for name, value in info.items() if f"{name.removesuffix('_MB')}_bytes" not in info}
    yield from INFO.samples(exact)
    unknown = INFO.unknown(info)
    yield Sample("haproxy_unknown_fields", len(unknown), {"of": "info"})
    version = str(info.get("Version", info.get("version", "")))
    released = str(info.get("Release_date", info.get("release_date", "")))
    yield Sample("haproxy_process_build_info", 1, {"version": version, "release_date": released})
    about = {
        "version": version,
        "release_date": released,
        "node": str(info.get("node", "")),
        "pid": info.get("Pid", info.get("pid")),
        "unknown_fields": unknown[:_MOST_NAMED],
    }
    yield Entity("process", where, about)


def of_tables(tables: Sequence[StickTable], limit: int) -> Iterator[Record]:
    """How full the first `limit` sticky tables are."""
    for table in tables[:limit]:
        labels = {"table": table.name, "type": table.type}
        yield Sample("haproxy_sticktable_size", table.size, labels)
        yield Sample("haproxy_sticktable_used", table.used, labels)
    yield Sample("haproxy_sticktables_left_out", max(0, len(tables) - limit))


def of_entries(table: str, entries: Iterable[TableEntry]) -> Iterator[Record]:
    """What a table stores of each key. A key is text of the client's: what is too long for a label is cut."""
    for key, data in {entry.key[:1000]: entry.data for entry in entries}.items():
        for name, number in data.items():
            yield Sample("haproxy_sticktable_entry", number, {"table": table, "key": key, "data": name})


def of_certificate(one: Certificate, days: int) -> Iterator[Record]:
    """When it begins and ends; an event that fires when that is in less than so many days."""
    labels = {"certificate": one.file}
    yield Sample("haproxy_certificate_not_before_timestamp_seconds", one.not_before.timestamp(), labels)
    yield Sample("haproxy_certificate_not_after_timestamp_seconds", one.not_after.timestamp(), labels)
    ends = f"{one.not_after:%Y-%m-%d %H:%M} UTC"
    yield Entity("certificate", one.file, {"subject": one.subject, "issuer": one.issuer, "not_after": ends})
    left = one.not_after - datetime.now(UTC)
    if left < timedelta(days=days):
        over = left < timedelta(0)
        message = f"the certificate {one.file} ({one.subject}) {'ended' if over else 'ends'} {ends}"
        attributes = {"certificate": one.file, "subject": one.subject, "not_after": ends, "days_left": left.days}
        fingerprint = f"certificate_expiry:{one.file}"
        severity: Severity = "error" if over else "warning"
        yield Event("certificate_expiry", message, severity, fingerprint, "firing", attributes)


def _numbers(row: Row) -> Iterator[Sample]:
    labels = _labels(row)
    yield from STATS.samples({row.kind: row.fields | _last_checks(row)}, labels)
    for state in STATES[row.kind]:
        yield Sample(f"haproxy_{row.kind}_status", row.state == state, labels | {"state": state})


def _last_checks(row: Row) -> dict[str, str]:
    """The results of checks; while one is under way, the last is told as `* L7OK`."""
    return {name: row.text(name).removeprefix("* ") for name in ("check_status", "agent_status") if name in row.fields}


def _servers_by_state(rows: Sequence[Row]) -> Iterator[Sample]:
    counted: dict[str, Counter[str]] = {row.proxy: Counter() for row in rows if row.kind == "backend"}
    for row in rows:
        if row.kind == "server" and row.proxy in counted:
            counted[row.proxy][row.state] += 1
    for proxy, states in counted.items():
        for state in STATES["server"]:
            yield Sample("haproxy_backend_servers", states[state], {"proxy": proxy, "state": state})


def _labels(row: Row) -> dict[str, str]:
    labels = {"proxy": row.proxy}
    return labels | {row.kind: row.name} if row.kind in ("server", "listener") else labels


def _key(row: Row) -> str:
    return f"{row.proxy}/{row.name}" if row.kind in ("server", "listener") else row.proxy


def _about(row: Row) -> dict[str, object]:
    texts = {name: row.text(name)[:1000] for name in _TEXTS if row.text(name)}
    return {"proxy": row.proxy, "name": row.name, "state": row.state, **texts}


def _firing(row: Row, alarm: _Alarm) -> Event:
    check = " ".join(filter(None, (row.text("check_status"), row.text("last_chk") or row.text("check_desc"))))
    why = f": {check:.500}" if row.kind == "server" and row.state == "DOWN" and check else ""
    message = f"{row.kind} {_key(row)} is {row.text('status')}{why}"
    attributes = _about(row) | {"status": row.text("status"), "check": check[:500]}
    return Event(alarm.event, message, alarm.severity, f"{alarm.event}:{_key(row)}", "firing", attributes)
