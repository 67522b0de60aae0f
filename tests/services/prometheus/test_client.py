"""The client as a library, against a real server."""

import math
import time

import pytest

from nms_workers.errors import Refused
from nms_workers.services.prometheus.client import PrometheusClient
from tests.servers import Server
from tests.services.prometheus.conftest import Connect
from tests.services.prometheus.support import Plain
from tests.transport.sites import Site


def test_a_vector_with_its_labels_and_time(client: PrometheusClient) -> None:
    found = client.query('up{job="dead"}')
    (row,) = found.rows
    assert found.kind == "vector"
    assert row.labels == {"__name__": "up", "instance": "127.0.0.1:1", "job": "dead"}
    ((at, number),) = row.points
    assert number == 0
    assert abs(at - time.time()) < 30


def test_a_moment_of_the_past(client: PrometheusClient) -> None:
    assert client.query("up", time=1000.0).rows == []
    assert client.query("time()", time=1000.5).rows[0].points == [(1000.5, 1000.5)]


@pytest.mark.parametrize(
    ("query", "expected"), [("1 / 0", math.inf), ("-1 / 0", -math.inf), ("0 / 0", math.nan), ("2.5", 2.5)]
)
def test_numbers_that_are_none_and_scalars(client: PrometheusClient, query: str, expected: float) -> None:
    found = client.query(query)
    assert found.kind == "scalar"
    ((_, number),) = found.rows[0].points
    assert number == expected or (math.isnan(number) and math.isnan(expected))


def test_a_text(client: PrometheusClient) -> None:
    found = client.query('"words"')
    assert (found.kind, found.text, found.rows) == ("string", "words", [])


def test_a_range(client: PrometheusClient) -> None:
    found = client.query_range("vector(7)", start=1000, end=1004, step=2)
    assert found.kind == "matrix"
    assert found.rows[0].points == [(1000.0, 7.0), (1002.0, 7.0), (1004.0, 7.0)]


def test_a_long_query_fits(client: PrometheusClient) -> None:
    """As a form: in a URL it would be too long for many a proxy."""
    query = " + ".join(["vector(1)"] * 2000)
    assert client.query(query).rows[0].points[0][1] == 2000


def test_too_many_points_are_refused_before_asking(connect: Connect) -> None:
    with Site({}) as site:
        client = connect(site.url)
        with pytest.raises(Refused, match=r"11001 points are more than the 11000 .*raise step"):
            client.query_range("up", start=0, end=11_001, step=1)
        with pytest.raises(Refused, match="earlier start"):
            client.query_range("up", start=10, end=1, step=1)
        assert site.seen == []


def test_as_many_points_as_the_server_gives(client: PrometheusClient) -> None:
    assert len(client.query_range("vector(1)", start=0, end=11_000, step=1).rows[0].points) == 11_001


@pytest.mark.parametrize(
    ("query", "words"),
    [("bad((", "parse error.*correct the query"), ("up * on(x) up", "many-to-many.*try it in Prometheus' own console")],
)
def test_a_query_that_cannot_be(client: PrometheusClient, query: str, words: str) -> None:
    with pytest.raises(Refused, match=f"(?s){words}"):
        client.query(query)


def test_series_and_metadata(client: PrometheusClient, plain: Plain) -> None:
    found = client.get_series(['up{job="dead"}', 'up{job="prometheus"}'])
    assert len(found) == 2
    assert all(one in plain.ask("/series", **{"match[]": "up"}) for one in found)
    (about,) = client.get_metadata("prometheus_build_info")["prometheus_build_info"]
    assert about.type == "gauge"
    assert about.help.startswith("A metric with a constant '1' value")
    assert len(client.get_metadata(limit=2)) == 2


def test_what_else_it_tells(client: PrometheusClient, plain: Plain, server: Server) -> None:
    assert client.get_buildinfo().version == plain.ask("/status/buildinfo")["version"]
    assert client.get_flags()["web.listen-address"] == f"127.0.0.1:{server.port}"
    assert client.get_config() == plain.ask("/status/config")["yaml"]
    assert client.get_walreplay() == plain.ask("/status/walreplay")
    assert client.is_ready() is True
    assert [one.scrape_pool for one in client.get_targets(pool="dead").active_targets or []] == ["dead"]
    assert {one.labels["alertname"] for one in client.get_alerts()} == {"TargetDown", "Soon"}
    assert client.get_rules(most=1).left_out == 3
    assert [one.name for one in client.get_rules().groups] == ["nms"]
