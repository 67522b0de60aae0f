"""What is read of a real server: targets, rules, alerts, the server itself, its head."""

import hashlib
import threading
from datetime import UTC, datetime

from nms_workers.errors import Refused
from nms_workers.services.prometheus.client import PrometheusClient
from tests.servers import Server
from tests.services.prometheus.conftest import Connect, StartPrometheus
from tests.services.prometheus.support import Plain, read, read_until
from tests.services.records import await_true, entities, events, value, values
from tests.transport.sites import Site


def labels(pool: str, instance: str, more: str = "") -> dict[str, str]:
    return {"scrape_pool": pool, "job": pool, "instance": instance, "labels": more}


def test_targets_their_health_and_why(client: PrometheusClient, server: Server) -> None:
    records = read(client, "targets")
    own = f"127.0.0.1:{server.port}"
    assert value(records, "prometheus_targets", health="up") == 1
    assert value(records, "prometheus_targets", health="down") == 1
    assert value(records, "prometheus_target_up", **labels("prometheus", own)) == 1
    assert value(records, "prometheus_target_up", **labels("dead", "127.0.0.1:1")) == 0
    assert 0 < value(records, "prometheus_target_last_scrape_seconds", **labels("prometheus", own)) < 1
    at = value(records, "prometheus_target_last_scrape_timestamp_seconds", **labels("prometheus", own))
    assert abs(at - datetime.now(UTC).timestamp()) < 30

    found = entities(records, "scrape_target")
    assert found[f'prometheus/instance="{own}",job="prometheus"']["last_error"] == ""
    dead = found['dead/instance="127.0.0.1:1",job="dead"']
    assert "connection refused" in dead["last_error"]
    assert dead["url"] == "http://127.0.0.1:1/metrics"

    (event,) = events(records)
    assert (event.kind, event.state) == ("target_down", "firing")
    assert event.fingerprint == 'target_down:dead/instance="127.0.0.1:1",job="dead"'
    assert "connection refused" in event.message


def test_a_target_that_comes_up_is_not_told_any_more(start_prometheus: StartPrometheus, connect: Connect) -> None:
    up = threading.Event()
    body = b"up_and_well 1\n"
    with Site({"*": lambda call: call.answer(200 if up.is_set() else 500, body, Content_Type="text/plain")}) as site:
        target = {"targets": [f"127.0.0.1:{site.port}"], "labels": {"site": "north"}}
        job = {"job_name": "late", "static_configs": [target], "params": {"key": ["s3cr3t"]}}
        client = connect(start_prometheus(jobs=[job]).url)
        key = f'late/instance="127.0.0.1:{site.port}",job="late",site="north"'
        name = f"target_down:{key}"
        down = await_true(lambda: [e for e in events(read(client, "targets")) if e.fingerprint == name])
        assert "server returned HTTP status 500" in down[0].message
        assert "s3cr3t" not in str(down)
        up.set()
        await_true(lambda: entities(read(client, "targets"), "scrape_target")[key]["health"] == "up")
        records = read(client, "targets")
    assert [event.attributes["scrape_pool"] for event in events(records)] == ["dead"]
    assert value(records, "prometheus_target_up", **labels("late", f"127.0.0.1:{site.port}", 'site="north"')) == 1


def test_more_targets_than_are_wanted(server: Server, connect: Connect) -> None:
    records, message = read_until(connect(server.url, max_targets=1), "targets", Refused)
    assert "2 targets are more than max_targets (1) (raise max_targets)" in message
    assert len(entities(records, "scrape_target")) == 1
    assert sum(values(records, "prometheus_targets").values()) == 2


def test_rules_and_their_groups(client: PrometheusClient, plain: Plain) -> None:
    records = read(client, "rules")
    (group,) = plain.ask("/rules")["groups"]
    where = {"file": group["file"], "group": "nms"}
    assert value(records, "prometheus_group_rules", **where) == 4
    assert value(records, "prometheus_group_interval_seconds", **where) == 1
    healthy = {
        (dict(one)["rule"], dict(one)["type"]): number
        for one, number in values(records, "prometheus_rule_healthy").items()
    }
    assert healthy == {
        ("job:up:sum", "recording"): 1,
        ("TargetDown", "alerting"): 1,
        ("Soon", "alerting"): 1,
        ("bad:rule", "recording"): 0,
    }
    assert all(0 < took < 5 for took in values(records, "prometheus_rule_last_evaluation_seconds").values())
    assert values(records, "prometheus_rules") == {
        (("health", "ok"),): 3,
        (("health", "err"),): 1,
        (("health", "unknown"),): 0,
    }
    found = entities(records, "rule")
    assert found[f"{group['file']}/nms/TargetDown/0"]["labels"] == {"severity": "critical"}
    assert found[f"{group['file']}/nms/Soon/0"]["for_seconds"] == 3600
    (event,) = events(records)
    assert (event.kind, event.state) == ("rule_failing", "firing")
    assert event.fingerprint == f"rule_failing:{group['file']}/nms/bad:rule/0"
    assert "many-to-many matching not allowed" in event.message


def test_more_rules_than_are_wanted(server: Server, connect: Connect) -> None:
    records, message = read_until(connect(server.url, max_rules=3), "rules", Refused)
    assert "4 rules are more than max_rules (3)" in message
    assert len(entities(records, "rule")) == 3


def test_alerts_that_fire_are_events_and_those_to_come_are_counted(client: PrometheusClient) -> None:
    records = read(client, "alerts")
    assert values(records, "prometheus_alerts") == {(("state", "pending"),): 1, (("state", "firing"),): 1}
    assert value(records, "prometheus_alert_instances", alertname="Soon", state="pending") == 1
    assert value(records, "prometheus_alertmanagers", state="active") == 0
    (event,) = events(records)
    assert (event.kind, event.state, event.severity) == ("alert", "firing", "critical")
    assert event.message == "TargetDown: 127.0.0.1:1 is down"
    text = 'alertname="TargetDown",instance="127.0.0.1:1",job="dead",severity="critical"'
    assert event.fingerprint == f"alert:{text}"
    assert event.attributes["labels"]["instance"] == "127.0.0.1:1"
    assert read(client, "alerts")[-1] == records[-1], "the same alert is named alike at every read"


def test_more_alerts_than_are_wanted(server: Server, connect: Connect) -> None:
    records, message = read_until(connect(server.url, max_alerts=1), "alerts", Refused)
    assert "2 alerts are more than max_alerts (1)" in message
    assert [event.kind for event in events(records)] == ["alert"], "those that fire come first"


def test_the_server_itself(client: PrometheusClient, plain: Plain) -> None:
    records = read(client, "server")
    build, runtime = plain.ask("/status/buildinfo"), plain.ask("/status/runtimeinfo")
    names = {"version": "version", "revision": "revision", "branch": "branch", "go_version": "goVersion"}
    assert value(records, "prometheus_server_info", **{ours: build[theirs] for ours, theirs in names.items()}) == 1
    assert value(records, "prometheus_server_ready") == 1
    assert value(records, "prometheus_server_config_reload_successful") == 1
    assert value(records, "prometheus_server_gomaxprocs") == runtime["GOMAXPROCS"]
    assert value(records, "prometheus_server_wal_corruptions_total") == 0
    started = datetime.fromisoformat(runtime["startTime"][:26] + "+00:00").timestamp()
    assert abs(value(records, "prometheus_server_start_timestamp_seconds") - started) < 0.001
    assert value(records, "prometheus_unknown_fields", answer="runtimeinfo") == 0
    about = entities(records, "server")["prometheus"]
    yaml = plain.ask("/status/config")["yaml"]
    assert about["configuration_sha256"] == hashlib.sha256(yaml.encode()).hexdigest()
    assert about["flags"]["web.enable-lifecycle"] == "true"
    assert events(records) == []


def test_the_head_and_where_its_series_come_from(server: Server, connect: Connect, plain: Plain) -> None:
    client = connect(server.url, max_top=3)
    before = plain.ask("/status/tsdb")["headStats"]
    records = read(client, "tsdb")
    after = plain.ask("/status/tsdb")["headStats"]
    for metric, field in (("series", "numSeries"), ("chunks", "chunkCount"), ("label_pairs", "numLabelPairs")):
        assert before[field] <= value(records, f"prometheus_head_{metric}") <= after[field]
    assert value(records, "prometheus_head_oldest_timestamp_seconds") * 1000 == before["minTime"]
    assert value(records, "prometheus_unknown_fields", answer="tsdb") == 0
    tops = read(client, "cardinality")
    for metric in ("metric_series", "label_values", "label_memory_bytes", "label_pair_series"):
        assert len(values(tops, f"prometheus_{metric}")) == 3
    assert value(tops, "prometheus_label_values", label="__name__") > 100


def test_two_targets_and_rules_of_one_name(start_prometheus: StartPrometheus, connect: Connect) -> None:
    """Rules may share their name, and targets of one job may differ in other labels only."""
    static = [{"targets": ["127.0.0.1:1"], "labels": {"probe": probe}} for probe in ("icmp", "tcp")]
    server = start_prometheus(jobs=[{"job_name": "twins", "static_configs": static}])
    text = server.rules.read_text()
    twin = "  - {alert: Soon, expr: vector(2), for: 2h}\n"
    server.rules.write_text(text + twin)
    client = connect(server.url)
    assert client.reload().status == 200
    await_true(lambda: len(values(read(client, "rules"), "prometheus_rule_healthy")) == 5)
    soon = [dict(one) for one in values(read(client, "rules"), "prometheus_rule_healthy") if ("rule", "Soon") in one]
    assert [one["index"] for one in soon] == ["0", "1"]
    twins = [dict(one) for one in values(read(client, "targets"), "prometheus_target_up") if ("job", "twins") in one]
    assert sorted(one["labels"] for one in twins) == ['probe="icmp"', 'probe="tcp"']
