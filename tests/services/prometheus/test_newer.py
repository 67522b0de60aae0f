"""What newer servers answer, and servers in states that a test cannot bring a real one into."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from nms_workers.errors import ParseError, Refused, TargetError, Timeout, Unreachable
from nms_workers.services.prometheus.service import Prometheus
from tests.metric_contract import undeclared
from tests.services.prometheus.conftest import Connect
from tests.services.prometheus.stub import AGENT, AT, HISTOGRAM, SECOND, PrometheusStub, good
from tests.services.prometheus.support import read, read_until, samples
from tests.services.records import entities, events, value, values
from tests.transport.sites import Route, Site


@pytest.fixture
def stub() -> Iterator[PrometheusStub]:
    with PrometheusStub() as one:
        yield one


def test_rules_come_in_pages(stub: PrometheusStub, connect: Connect) -> None:
    for number in range(5):
        stub.add_group(f"g{number}", "a", "b")
    records = read(connect(stub.url), "rules")
    assert len(entities(records, "rule")) == 10
    assert value(records, "prometheus_rules", health="unknown") == 10
    assert values(records, "prometheus_rule_healthy") == {}, "none was evaluated yet"
    assert values(records, "prometheus_rule_last_evaluation_timestamp_seconds") == {}
    asked = [path.partition("group_next_token=")[2] for path in stub.paths()]
    assert asked == ["", "g1", "g3"]
    records, message = read_until(connect(stub.url, max_rules=3), "rules", Refused)
    assert "10 rules are more than max_rules (3)" in message
    assert sorted(entities(records, "rule")) == ["f.yml/g0/a/0", "f.yml/g0/b/0", "f.yml/g1/a/0"]


def test_native_histograms_are_told_as_classic_ones_and_counted(stub: PrometheusStub, connect: Connect) -> None:
    labels = {"__name__": "latency_seconds", "job": "a"}
    stub.answer = {
        "resultType": "vector",
        "result": [
            {"metric": labels, "histogram": [AT, HISTOGRAM]},
            {"metric": {"__name__": "up", "job": "a"}, "value": [AT, "1"]},
        ],
    }
    records = read(connect(stub.url, queries=[{"name": "q", "query": "x"}]), "queries")
    assert {str(one.series): one.value for one in samples(records)} == {
        'latency_seconds_bucket{job="a",le="2.0"}': 2,
        'latency_seconds_bucket{job="a",le="4.0"}': 6,
        'latency_seconds_bucket{job="a",le="+Inf"}': 6,
        'latency_seconds_count{job="a"}': 6,
        'latency_seconds_sum{job="a"}': 12.5,
        'up{job="a"}': 1,
    }
    assert {one.ts.timestamp() for one in samples(records) if one.ts} == {AT}
    assert value(records, "prometheus_query_native_histograms", query="q") == 1


def test_native_histograms_over_time(stub: PrometheusStub, connect: Connect) -> None:
    row = {"metric": {"__name__": "h"}, "histograms": [[AT, HISTOGRAM], [AT + 60, {"count": "0", "sum": "0"}]]}
    stub.answer = {"resultType": "matrix", "result": [row]}
    query = {"name": "q", "query": "h", "range": "1m", "step": "1m"}
    records = read(connect(stub.url, queries=[query]), "queries")
    assert value(records, "prometheus_query_native_histograms", query="q") == 2
    assert sorted(one.value for one in samples(records) if one.metric == "h_count") == [0, 6]


def test_remarks_are_kept_and_counted(stub: PrometheusStub, connect: Connect) -> None:
    stub.remarks = {"warnings": ["a store is away"], "infos": ["metric might not be a counter"]}
    client = connect(stub.url, queries=[{"name": "q", "query": "x"}])
    assert client.query("x").warnings == ("a store is away",)
    assert client.query("x").infos == ("metric might not be a counter",)
    records = read(client, "queries")
    assert value(records, "prometheus_query_warnings", query="q") == 2
    (event,) = events(records)
    assert (event.kind, event.state, event.fingerprint) == ("query_warning", "firing", "query_warning:q")
    assert event.message.endswith("a store is away")


def test_a_server_of_version_3(stub: PrometheusStub, connect: Connect) -> None:
    client = connect(stub.url)
    records = read(client, "server")
    assert value(records, "prometheus_server_memory_limit_bytes") == 1_000_000
    assert value(records, "prometheus_server_gc_target_ratio") == 0.75
    assert value(records, "prometheus_server_wal_corruptions_total") == 2
    assert entities(records, "server")["prometheus"]["flags"] == {"web.enable-lifecycle": "false"}
    assert undeclared(Prometheus, records) == []
    assert events(records) == []
    stub.config, stub.reload_well = "global: {scrape_interval: 5s}\n", False
    failed, changed = events(read(client, "server"))
    assert (failed.kind, failed.state, failed.severity) == ("config_reload_failed", "firing", "error")
    assert (changed.kind, changed.state) == ("config_changed", "occurred")
    assert changed.attributes["before"] != changed.attributes["after"] == failed.attributes["configuration_sha256"]


def test_a_head_without_samples(stub: PrometheusStub, connect: Connect) -> None:
    records = read(connect(stub.url), "tsdb")
    assert value(records, "prometheus_head_series") == 0
    assert values(records, "prometheus_head_oldest_timestamp_seconds") == {}
    assert values(records, "prometheus_head_newest_timestamp_seconds") == {}


def test_a_server_that_reads_its_log(stub: PrometheusStub, connect: Connect) -> None:
    stub.ready = False
    records, message = read_until(connect(stub.url), "server", Unreachable)
    assert value(records, "prometheus_server_ready") == 0
    assert value(records, "prometheus_server_wal_replay_segment", position="current") == 7
    assert "it reads its write-ahead log: segment 7 of 3 to 12" in message


def error(kind: str, words: str) -> dict[str, Any]:
    return {"status": "error", "errorType": kind, "error": words}


@pytest.mark.parametrize(
    ("body", "status", "kind", "words"),
    [
        (AGENT, 422, Refused, "this is an agent, which only forwards: skip this poll"),
        (error("timeout", "query timed out in expression evaluation"), 503, Timeout, "raise --query.timeout"),
        (error("canceled", "query was canceled"), 499, Timeout, "is it overloaded"),
        (error("unavailable", "TSDB not ready"), 503, Unreachable, "starting, stopping or overloaded"),
        (error("execution", "query processing would load too many samples"), 422, Refused, "narrow the selector"),
        (error("internal", "disk is broken"), 500, Refused, "look at the log of the server"),
        (error("brand_new", "who knows"), 400, Refused, "who knows"),
        ("Service Unavailable", 503, Unreachable, "starting, stopping or overloaded"),
        ("404 page not found", 404, ParseError, "as no Prometheus server does"),
        ({"status": "fine"}, 200, ParseError, "JSON that is not of Prometheus' API"),
        ({"status": "success", "data": {"groups": [7]}}, 200, ParseError, "data of another shape"),
        ([], 200, ParseError, "an exporter that is no Prometheus server wants api = false"),
    ],
    ids=lambda one: one if isinstance(one, str) else None,
)
def test_refusals(  # noqa: PLR0917 - the columns of the table
    stub: PrometheusStub, connect: Connect, body: Any, status: int, kind: type[TargetError], words: str
) -> None:
    stub.refusal = (body, status)
    _, message = read_until(connect(stub.url, retry={"attempts": 1}), "rules", kind)
    assert words in message
    stub.violations.clear()  # not all of these are of Prometheus


def test_values_that_are_no_numbers(stub: PrometheusStub, connect: Connect) -> None:
    stub.answer = {"resultType": "vector", "result": [{"metric": {}, "value": [AT, "many"]}]}
    with pytest.raises(ParseError, match="a value that is no number"):
        connect(stub.url).query("x")


def test_alerts_with_more_words_than_can_be_kept(connect: Connect) -> None:
    """One of them must not cost all the others."""
    long = {f"label_{number}": "é" * 5000 for number in range(100)}
    labels = {"alertname": "Wordy", "severity": "page"} | long
    alert = {"labels": labels, "annotations": long, "state": "firing", "value": "1e+00", "activeAt": SECOND}
    answers = {
        "/api/v1/alerts": {"alerts": [alert, alert | {"labels": {"alertname": "Brief"}}]},
        "/api/v1/alertmanagers": {"activeAlertmanagers": [], "droppedAlertmanagers": []},
    }
    routes = {path: _json(data) for path, data in answers.items()}
    with Site(routes) as site:
        wordy, brief = events(read(connect(site.url), "alerts"))
    assert (wordy.severity, wordy.attributes["labels"]["alertname"]) == ("critical", "Wordy")
    assert len(wordy.fingerprint) <= 4096
    assert (brief.severity, brief.message, brief.fingerprint) == ("warning", "Brief", 'alert:alertname="Brief"')


def _json(data: Any) -> Route:
    return lambda call: call.answer(body=json.dumps(good(data)).encode(), Content_Type="application/json")
