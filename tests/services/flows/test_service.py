"""Polls and the action, on flows that are in a real history."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import Engine, make_url, text

from nms_workers.errors import AuthError, ConfigError, Outcome, Refused, Unreachable
from nms_workers.records import Entity, Event, Layout, Record, Sample, SampleBlock, series
from nms_workers.services.flows import readings
from nms_workers.services.flows.client import SETTLED, FlowsClient
from nms_workers.services.flows.service import Flows
from nms_workers.store.slot import Block, SlotResult
from nms_workers.store.spool import Spool
from nms_workers.store.writer import Writer
from tests.metric_contract import undeclared
from tests.services.flows.conftest import SWITCH, Told, now

View = Callable[..., FlowsClient]

HTTPS = {"source_address": "10.0.0.1", "destination_address": "10.0.0.2", "protocol": 6, "destination_port": 443}
LAST_MINUTE = timedelta(minutes=1)


@pytest.fixture(autouse=True)
def _steady(monkeypatch: pytest.MonkeyPatch) -> None:
    """A poll looks at whole minutes: one must not end between what a test puts in and what it reads."""
    moment = datetime.now(UTC)

    class Clock(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return moment

    monkeypatch.setattr(readings, "datetime", Clock)


def whole_minute() -> datetime:
    """In the middle of the last whole minute that a poll looks at."""
    settled = readings.datetime.now(UTC) - SETTLED
    return settled.replace(second=0, microsecond=0) - timedelta(seconds=30)


def samples(records: list[Record], **labels: str) -> dict[str, float]:
    return {r.metric: r.value for r in records if isinstance(r, Sample) and dict(r.labels) == labels}


def test_an_exporter_has_rates_and_losses_and_is_named_as_a_target(told: Told, view: View, device: int) -> None:
    told(whole_minute(), HTTPS | {"octets": 6000, "packets": 60}, HTTPS | {"octets": 600}, lost=5, target_id=device)

    records = list(Flows().exporters(view()))

    assert samples(records) == {"flows_exporters": 1, "flows_exporters_left_out": 0}
    assert samples(records, exporter="192.0.2.1") | {"flows_exporter_last_seen_timestamp_seconds": 0} == {
        "flows_exporter_bytes_per_second": 110,
        "flows_exporter_packets_per_second": 1,
        "flows_exporter_flows_per_second": 2 / 60,
        "flows_exporter_flows_total": 2,
        "flows_exporter_datagrams_total": 1,
        "flows_exporter_lost_total": 5,
        "flows_exporter_templates": 3,
        "flows_exporter_last_seen_timestamp_seconds": 0,
    }
    (entity,) = [r for r in records if isinstance(r, Entity)]
    assert (entity.key, entity.attributes["target"], entity.attributes["versions"]) == ("192.0.2.1", "snmp/router", [9])
    assert not [r for r in records if isinstance(r, Event)]
    assert undeclared(Flows, records) == []


def test_a_view_shows_its_own_exporters_only(told: Told, view: View) -> None:
    told(whole_minute(), HTTPS)
    told(whole_minute(), HTTPS, exporter=SWITCH)

    records = list(Flows().exporters(view(exporters=["192.0.2.2/32"])))

    assert [r.key for r in records if isinstance(r, Entity)] == ["192.0.2.2"]


def test_exporters_beyond_the_bound_are_counted(told: Told, view: View) -> None:
    told(whole_minute(), HTTPS)
    told(whole_minute(), HTTPS, HTTPS, exporter=SWITCH)

    records = list(Flows().exporters(view(max_exporters=1)))

    assert samples(records) == {"flows_exporters": 2, "flows_exporters_left_out": 1}
    assert [r.key for r in records if isinstance(r, Entity)] == ["192.0.2.2"]  # that with more


def test_an_exporter_that_is_silent_is_an_event_while_it_is(told: Told, view: View, engine: Engine) -> None:
    told(now(), HTTPS)
    with engine.begin() as connection:
        connection.execute(text("UPDATE flow_exporters SET last_seen = now() - interval '400 s'"))

    fired = [r for r in Flows().exporters(view()) if isinstance(r, Event)]

    assert [(e.kind, e.state, e.fingerprint) for e in fired] == [
        ("exporter_silent", "firing", "exporter_silent 192.0.2.1")
    ]
    assert not [r for r in Flows().exporters(view(silent_after=4000)) if isinstance(r, Event)]
    told(now(), HTTPS)
    assert not [r for r in Flows().exporters(view()) if isinstance(r, Event)]


def test_interfaces_have_the_names_and_speeds_that_snmp_tells(
    told: Told, view: View, device: int, database_url: str, tmp_path: Path
) -> None:
    layout = Layout([series("snmp_interface_speed_bits_per_second", (("interface", "Gi0/7"),))])
    block = Block.of(SampleBlock(layout, np.array([1e9])), now())
    speed = SlotResult(
        target_id=device, service="snmp", target="router", poll="interfaces", due=now(), finished=now(),
        outcome=Outcome.OK, blocks=(block,),
    )  # fmt: skip
    writer = Writer(Spool(tmp_path / "samples"), database_url)
    writer.start()
    writer.put(speed, (layout,))
    assert writer.close(30)
    through = HTTPS | {"octets": 60_000_000, "packets": 60, "ingress_interface": 7, "egress_interface": 9}
    told(whole_minute(), through, target_id=device)

    records = list(Flows().interfaces(view()))

    assert samples(records, exporter="192.0.2.1", interface="Gi0/7") == {
        "flows_interface_in_bytes_per_second": 1e6,
        "flows_interface_in_packets_per_second": 1,
        "flows_interface_in_usage_ratio": 0.008,
        "flows_interface_out_bytes_per_second": 0,
        "flows_interface_out_packets_per_second": 0,
        "flows_interface_out_usage_ratio": 0,
    }
    assert samples(records, exporter="192.0.2.1", interface="ifIndex 9")["flows_interface_out_bytes_per_second"] == 1e6
    assert undeclared(Flows, records) == []


def test_interfaces_of_a_device_that_snmp_does_not_read_have_the_names_that_it_tells(told: Told, view: View) -> None:
    through = HTTPS | {"octets": 60_000_000, "ingress_interface": 7, "egress_interface": 9}
    told(whole_minute(), through, through | {"ingress_interface": 8}, interfaces={7: "eth0", 8: "eth0"})

    records = list(Flows().interfaces(view()))

    rates = {
        one.labels["interface"]: one.value
        for one in records
        if isinstance(one, Sample) and one.metric == "flows_interface_in_bytes_per_second"
    }
    assert sorted(rates) in (["eth0", "ifIndex 7", "ifIndex 9"], ["eth0", "ifIndex 8", "ifIndex 9"]), "two are not one"
    assert sum(rates.values()) == 2e6


def test_the_largest_have_the_names_of_ports_and_interfaces(told: Told, view: View) -> None:
    https = HTTPS | {"octets": 3000, "packets": 3, "ingress_interface": 7, "destination_port": 443, "protocol": 6}
    told(
        whole_minute(), https, https | {"octets": 1000, "destination_port": 53, "protocol": 17}, interfaces={7: "eth0"}
    )
    since = whole_minute() - timedelta(minutes=1)

    ports = view().top(["port", "protocol"], since=since)
    assert [(row["port"], row["service"], row["octets"]) for row in ports.rows] == [
        (443, "https", 3000),
        (53, "domain", 1000),
    ]
    (through,) = [row for row in view().top(["interface"], since=since).rows if row["interface"] == 7]
    assert (through["name"], through["octets_scaled"]) == ("eth0", 4000)
    (pair,) = view().matrix(since=since).rows
    assert pair["octets"] == 4000
    with pytest.raises(Refused, match="names none of them"):
        view(exporters=["198.51.100.0/24"]).top(["port"], since=since)


def test_interfaces_beyond_the_bound_are_counted(told: Told, view: View) -> None:
    told(whole_minute(), *({"ingress_interface": n, "egress_interface": n, "octets": n} for n in range(1, 6)))

    records = list(Flows().interfaces(view(max_interfaces=2)))

    assert samples(records) == {"flows_interfaces_left_out": 3}
    assert {r.labels["interface"] for r in records if isinstance(r, Sample) and r.labels} == {"ifIndex 5", "ifIndex 4"}


def _past(engine: Engine, hours: int, octets: int) -> None:
    """What the roll-ups of the last hours say of the router and of one conversation."""
    with engine.begin() as connection:
        for table in ("flow_rollup_blocks_1h",):
            this = readings.datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
            for hour in range(1, hours + 1):
                month = (this - timedelta(hours=hour)).replace(day=1, hour=0)
                later = (month + timedelta(days=32)).replace(day=1)
                connection.exec_driver_sql(
                    f"CREATE TABLE IF NOT EXISTS {table}_p{month:%Y%m} PARTITION OF {table} "
                    f"FOR VALUES FROM ('{month.isoformat()}') TO ('{later.isoformat()}')"
                )
                for kind, keys in (("ingress", "interface"), ("conversation", "source_address, destination_address")):
                    values = "'{7}'" if kind == "ingress" else "'{10.0.0.1}', '{10.0.0.2}'"
                    connection.exec_driver_sql(
                        f"INSERT INTO {table} (ts, exporter, kind, {keys}, octets, packets, flows, octets_scaled, "
                        f"packets_scaled) VALUES (%s, '192.0.2.1', '{kind}', {values}, "
                        f"'{{{octets}}}', '{{1}}', '{{1}}', '{{{octets}}}', '{{1}}')",
                        (this - timedelta(hours=hour),),
                    )


def test_a_volume_far_above_the_hours_before_is_an_event_of_exporter_and_conversation(
    told: Told, view: View, engine: Engine
) -> None:
    _past(engine, hours=8, octets=3600 * 1_000_000)  # a megabyte a second
    told(whole_minute(), HTTPS | {"octets": 300 * 5_000_000, "ingress_interface": 7})

    fired = list(Flows().anomalies(view()))

    assert [e.fingerprint for e in fired if isinstance(e, Event)] == [
        "volume_anomaly 192.0.2.1",
        "volume_anomaly 192.0.2.1 10.0.0.1 10.0.0.2",
    ]
    assert all(isinstance(e, Event) and e.state == "firing" for e in fired)
    assert fired[0].attributes == {
        "exporter": "192.0.2.1", "bytes_per_second": 5e6, "usual_bytes_per_second": 1e6,
    }  # fmt: skip
    assert list(Flows().anomalies(view(anomaly_factor=6))) == []


def test_without_a_past_nothing_is_an_anomaly(told: Told, view: View, engine: Engine) -> None:
    _past(engine, hours=5, octets=1)
    told(whole_minute(), HTTPS | {"octets": 10**12})

    assert list(Flows().anomalies(view())) == []


def test_the_source_of_flows_is_banned_with_what_was_seen_of_it(told: Told, view: View) -> None:
    told(now(), *(HTTPS | {"destination_port": port, "packets": 1, "octets": 60} for port in range(1, 101)))

    change = Flows().block_source(view(), "bans", "recidive", ip_network("10.0.0.1/32"), seconds=600)

    (wanted,) = change.follow_ups
    assert (wanted.service, wanted.action, wanted.target) == ("fail2ban", "ban_ip", "bans")
    assert wanted.arguments == {"jail": "recidive", "address": "10.0.0.1", "seconds": 600}
    assert wanted.evidence["source"] == "10.0.0.1"
    assert len(wanted.evidence["flows"]) == 50
    assert wanted.evidence["flows"][0] | {"first": "", "last": ""} == {
        "exporter": "192.0.2.1", "destination": "10.0.0.2", "protocol": 6, "port": 1, "flows": 1, "packets": 1,
        "octets": 60, "first": "", "last": "",
    }  # fmt: skip


def test_who_was_never_seen_is_not_banned(told: Told, view: View) -> None:
    told(now(), HTTPS)
    told(now() - timedelta(seconds=500), HTTPS | {"source_address": "10.0.0.99"})

    with pytest.raises(Refused, match=r"no flow of 10\.0\.0\.99 was seen in the last 300 s"):
        Flows().block_source(view(), "bans", "recidive", ip_network("10.0.0.99/32"), within=300)


def test_what_was_found_of_it_is_evidence_too(view: View, engine: Engine, database_url: str, tmp_path: Path) -> None:
    with engine.begin() as connection:
        number = connection.execute(
            text(
                "INSERT INTO targets (service, name, source, state) "
                "VALUES ('flows', 'all', 'test', 'active') RETURNING id"
            )
        ).scalar_one()
    scan = Event(
        "port_scan", "it tried", fingerprint="f", state="firing", attributes={"source": "10.0.0.1", "ports": 9}
    )
    writer = Writer(Spool(tmp_path / "events"), database_url)
    writer.start()
    writer.put(
        SlotResult(
            target_id=number, service="flows", target="all", poll="detection-1", due=now(), finished=now(),
            outcome=Outcome.OK, events=(scan,),
        )
    )  # fmt: skip
    assert writer.close(30)

    change = Flows().block_source(view(), "bans", "recidive", ip_network("10.0.0.1/32"))

    (found,) = change.follow_ups[0].evidence["found"]
    assert (found["kind"], found["attributes"]["ports"]) == ("port_scan", 9)


@pytest.mark.parametrize(
    ("change", "ending"),
    [
        ({"password": "wrong-secret"}, AuthError),
        ({"port": 1}, Unreachable),
        ({"database": "postgres"}, Refused),
    ],
    ids=["password", "port", "database"],
)
def test_a_history_that_cannot_be_read_is_said_and_no_secret_with_it(
    database_url: str, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], ending: type[Exception]
) -> None:
    url = make_url(database_url).set(**change).render_as_string(hide_password=False)
    monkeypatch.setenv("TEST_OTHER", url)
    client = FlowsClient(Flows.Target(url="env:TEST_OTHER"))

    with pytest.raises(ending) as raised:
        list(Flows().exporters(client))

    assert "wrong-secret" not in str(raised.value)
    client.close()


def test_without_a_url_it_reads_the_history_of_the_fleet(
    told: Told, database_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    told(now(), HTTPS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NMS_DATABASE_URL", database_url)
    client = FlowsClient(Flows.Target())

    assert [row["exporter"] for row in client.exporters()] == ["192.0.2.1"]
    client.close()


def test_a_url_that_is_none_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_OTHER", "mysql://me:secret@host/db")
    with pytest.raises(ConfigError, match="kept in PostgreSQL"):
        FlowsClient(Flows.Target(url="env:TEST_OTHER")).exporters()
