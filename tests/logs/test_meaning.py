"""Levels and times that lines name."""

from datetime import UTC, datetime

import pytest

from nms_workers.logs.meaning import Level, level_of, moment_of, severity_of, time_of
from nms_workers.logs.streams import StreamName, stream_of, streams
from nms_workers.service import services

NOW = datetime(2026, 11, 22, 20, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("line", "level"),
    [
        ("2026-11-22 20:30:00,123 ERROR nms: it failed", "error"),
        ("[WARNING] (1234) : backend has no server", "warn"),
        ("level=warn msg=x", "warn"),
        ('{"level":"fatal","msg":"ERROR"}', "critical"),
        ('{"log":"{\\"level\\":\\"debug\\"}"}', "debug"),
        ("2026-11-22 20:30:00 UTC [1] LOG:  ready", "info"),
        ("2026-11-22 20:30:00 UTC [1] FATAL:  no", "critical"),
        ("<Error> - no", None),
        ("errors were seen, INFORMATION follows", None),
        ("NOTICE: x", "notice"),
        ("x" * 600 + " ERROR", None),
    ],
)
def test_level(line: str, level: Level | None) -> None:
    assert level_of(line) == level


def test_every_level_has_a_severity() -> None:
    assert [severity_of(one) for one in (None, "trace", "warn", "critical")] == ["info", "debug", "warning", "critical"]


@pytest.mark.parametrize(
    ("line", "time"),
    [
        ("2026-11-22T20:30:00Z x", "2026-11-22T20:30:00Z"),
        ("2026-11-22T20:30:00.123456789Z x", "2026-11-22T20:30:00.123456789Z"),
        ("[2026-11-22 21:30:00,5+01:00] x", "2026-11-22T20:30:00.5Z"),
        ("2026-11-22 20:30:00.25 UTC [1] LOG: x", "2026-11-22T20:30:00.25Z"),
        ('{"timestamp":"2026-11-22T15:00:00.000001-0530","event_type":"alert"}', "2026-11-22T20:30:00.000001Z"),
        ('{"msg":"x","ts":"2026-11-22T20:30:00Z"}', "2026-11-22T20:30:00Z"),
        ("2026-13-22T20:30:00Z x", None),
        ("2026-12-24T20:30:00Z is tomorrow", None),
        ("1969-12-31T23:59:59Z x", None),
        ("since 2026-11-22T20:30:00Z", None),
        ("no time", None),
    ],
)
def test_time(line: str, time: str | None) -> None:
    assert time_of(line, NOW) == time


def test_a_moment_has_microseconds() -> None:
    assert moment_of("2026-11-22T20:30:00.123456789Z") == datetime(2026, 11, 22, 20, 30, 0, 123456, UTC)


@pytest.mark.parametrize(
    ("kind", "label", "stream"),
    [
        ("suricata", "", "security"),
        ("fail2ban", "", "security"),
        ("snmp", "", "network"),
        ("gns3", "", "network"),
        ("grafana", "", "monitoring"),
        ("something", "", "monitoring"),
        ("", "", "monitoring"),
        ("grafana", "security", "security"),
        ("", "nms-network-logs", "network"),
        ("suricata", "nonsense", "security"),
    ],
)
def test_stream(kind: str, label: str, stream: StreamName) -> None:
    assert stream_of(kind, label) == stream


def test_the_table_of_streams() -> None:
    kept = {row.stream: row.retention for row in streams().values()}
    assert kept == {"nms-monitoring-logs": "30d", "nms-network-logs": "90d", "nms-security-logs": "180d"}
    kinds = [kind for row in streams().values() for kind in row.kinds]
    assert len(kinds) == len(set(kinds))
    assert set(services()) <= set(kinds)  # a new service has a place
