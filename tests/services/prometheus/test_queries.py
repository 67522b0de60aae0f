"""Configured PromQL queries as samples."""

import math
import time
import tomllib
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import pytest
from pydantic import ValidationError

from nms_workers.errors import ParseError, Refused
from nms_workers.fleet.harvest import Harvest
from nms_workers.services.prometheus.service import Prometheus
from nms_workers.services.prometheus.target import PrometheusTarget
from nms_workers.settings import Settings
from tests.servers import Server
from tests.services.prometheus.conftest import Connect
from tests.services.prometheus.support import Plain, read, read_until, samples
from tests.services.records import value, values


def one(**settings: Any) -> dict[str, Any]:
    return {"queries": [{"name": "q"} | settings]}


def test_results_keep_their_names_labels_and_times(server: Server, connect: Connect, plain: Plain) -> None:
    records = read(connect(server.url, **one(query="up", labels={"site": "north", "job": "ours"})), "queries")
    found = samples(records)
    assert {sample.metric for sample in found} == {"up"}
    assert {(sample.labels["instance"], sample.labels["exported_job"]): sample.value for sample in found} == {
        ("127.0.0.1:1", "dead"): 0,
        (f"127.0.0.1:{server.port}", "prometheus"): 1,
    }
    assert {(sample.labels["site"], sample.labels["job"]) for sample in found} == {("north", "ours")}
    (at,) = {sample.ts for sample in found}
    assert at is not None
    assert abs((at - datetime.now(UTC)).total_seconds()) < 30
    assert value(records, "prometheus_query_samples", query="q") == 2
    assert value(records, "prometheus_query_samples_left_out", query="q") == 0
    assert value(records, "prometheus_query_warnings", query="q") == 0
    assert 0 < value(records, "prometheus_query_seconds", query="q") < 10


def test_a_name_of_our_own_for_what_has_none(server: Server, connect: Connect) -> None:
    found = samples(read(connect(server.url, **one(query="sum by (job) (up)", metric="job_up")), "queries"))
    assert {(sample.metric, sample.labels["job"]): sample.value for sample in found} == {
        ("job_up", "dead"): 0,
        ("job_up", "prometheus"): 1,
    }
    _, message = read_until(connect(server.url, **one(query="sum(up)")), "queries", ParseError)
    assert "q: 1 samples were left out" in message
    assert "set metric in the query's settings" in message


@pytest.mark.parametrize(("query", "expected"), [("1/0", math.inf), ("0/0", math.nan), ("vector(3)", 3.0)])
def test_numbers_of_every_kind(server: Server, connect: Connect, query: str, expected: float) -> None:
    (sample,) = samples(read(connect(server.url, **one(query=query, metric="number")), "queries"))
    assert sample.value == expected or (math.isnan(sample.value) and math.isnan(expected))


def test_a_text_is_no_sample(server: Server, connect: Connect) -> None:
    records, message = read_until(connect(server.url, **one(query='"x"', metric="text")), "queries", Refused)
    assert samples(records) == []
    assert "the result is a text" in message


def test_a_range_gives_its_points_at_whole_steps(server: Server, connect: Connect) -> None:
    client = connect(server.url, **one(query="vector(1)", metric="number", range="10m", step="1m"))
    began = time.time()
    found = samples(read(client, "queries"))
    times = [sample.ts.timestamp() for sample in found if sample.ts]
    assert len(times) == 11
    assert all(at % 60 == 0 for at in times)
    assert began - 60 < max(times) <= time.time()
    assert {b - a for a, b in pairwise(times)} == {60.0}


def test_series_beyond_the_limit_are_counted_and_told(server: Server, connect: Connect, plain: Plain) -> None:
    query = "prometheus_tsdb_compaction_duration_seconds_bucket"
    there = len(plain.ask("/query", query=query)["result"])
    records, message = read_until(connect(server.url, **one(query=query, limit=3)), "queries", Refused)
    assert len(samples(records)) == 3
    newer = server.name != "prometheus"  # it gives as many as it is asked for
    assert value(records, "prometheus_query_samples_left_out", query="q") == (1 if newer else there - 3)
    assert value(records, "prometheus_query_warnings", query="q") == (1 if newer else 0)
    assert "q: the result has more than limit (3) series (raise its limit, or aggregate)" in message


def test_one_bad_query_costs_only_itself(server: Server, connect: Connect) -> None:
    queries = [
        {"name": "bad", "query": "up("},
        {"name": "good", "query": "up"},
        {"name": "worse", "query": "up * on(x) up"},
    ]
    records, message = read_until(connect(server.url, queries=queries), "queries", Refused)
    assert len(samples(records)) == 2
    assert set(values(records, "prometheus_query_samples")) == {(("query", "good"),)}
    assert "bad: POST " in message
    assert "; worse: POST " in message


def test_a_query_that_takes_too_long_costs_only_itself(server: Server, connect: Connect) -> None:
    heavy = "sum(" + " + ".join(["rate(prometheus_http_requests_total[5m:1s])"] * 200) + ")"
    queries = [
        {"name": "heavy", "query": heavy, "metric": "x", "range": "9000s", "step": "1s", "timeout": "50ms"},
        {"name": "good", "query": "up"},
    ]
    records, message = read_until(connect(server.url, queries=queries), "queries", Refused)
    assert len(samples(records)) == 2
    assert "heavy: POST " in message
    assert "raise --query.timeout of the server" in message


def test_a_foreign_name_that_is_one_of_ours(server: Server, connect: Connect) -> None:
    records = read(connect(server.url, **one(query="vector(5)", metric="prometheus_head_series")), "queries")
    (sample,) = samples(records)
    assert (sample.metric, sample.value) == ("exported_prometheus_head_series", 5)


def test_two_queries_with_the_same_series_are_told_apart_by_time_or_told(server: Server, connect: Connect) -> None:
    """The fleet keeps one of each series and moment, and says so."""
    ranges = {"query": "vector(1)", "metric": "number", "range": "1m", "step": "1m"}
    client = connect(server.url, queries=[{"name": name, **ranges} for name in ("a", "b")])
    harvest = Harvest(volatile=False, max_series=1000)
    for record in read(client, "queries"):
        harvest.add(record)
    assert "samples came twice in one read" in harvest.faults


def test_the_example_of_the_page_is_one() -> None:
    text = (Prometheus.__doc__ or "").partition("```toml")[2].partition("```")[0]
    config = Settings.model_validate(tomllib.loads(text))
    main, exporter = [one.validated() for one in config.targets]
    assert isinstance(main, PrometheusTarget)
    assert isinstance(exporter, PrometheusTarget)
    assert (len(main.queries), main.scrapes[0].where, exporter.scrapes[0].where) == (1, "/federate", "/metrics")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (one(query="up", range="1d", step="1s"), "more than 11000 points"),
        (one(query="up", metric="no name"), "metric"),
        (one(query="up", labels={"__name__": "x"}), "Prometheus' own"),
        ({"queries": [{"name": "a", "query": "up"}] * 2}, "'a' twice"),
        (one(query="up") | {"api": False}, "queries need the API"),
        ({"scrape": [{}, {}]}, "'/metrics' twice"),
        ({"scrape": [{"match": ["{}"]}]}, "a selector is written"),
        ({"scrape": [{"path": "metrics"}]}, "path"),
        ({"scrape": [{"path": "/metrics?key=secret"}]}, "path"),
        (one(query="up", range="soon"), "not a duration"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        PrometheusTarget.model_validate({"url": "http://127.0.0.1:9090"} | settings)
