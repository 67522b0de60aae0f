"""What is emitted is what `metrics.csv` declares; what is sent is what the vendor describes."""

import requests
from openapi_core.contrib.requests import RequestsOpenAPIRequest
from werkzeug.test import EnvironBuilder
from werkzeug.wrappers import Request

from nms_workers.records import Record, Sample
from nms_workers.services.prometheus.service import Prometheus
from tests.metric_contract import never_emitted, undeclared
from tests.servers import PrometheusServer, Server
from tests.services.prometheus.conftest import Connect
from tests.services.prometheus.stub import contract
from tests.services.prometheus.support import act, read

# Told by servers from 3.0 on; shown by `test_a_server_of_version_3`.
ONLY_NEWER = {"prometheus_server_gc_target_ratio", "prometheus_server_memory_limit_bytes"}

# Samples that others named pass through these polls; they carry no name of ours, which is what can be held against.
PASS_THROUGH = {"queries", "scrape"}

OF_PAGES = ["/-/ready", "/-/reload", "/metrics", "/federate"]  # not described: the management API, and pages


def everything(connect: Connect, url: str) -> dict[str, list[Record]]:
    """The records of every poll."""
    client = connect(url, queries=QUERIES, scrape=[{}, {"match": ["up"]}])
    return {poll: read(client, poll) for poll in Prometheus.polls()}


QUERIES = [{"name": "now", "query": "up"}, {"name": "then", "query": "up", "range": "1m", "step": "10s"}]


def test_what_is_emitted_and_what_is_declared(server: Server, connect: Connect) -> None:
    by_poll = everything(connect, server.url)
    declared = Prometheus.metrics()
    passed = [
        record
        for poll, records in by_poll.items()
        for record in records
        if poll in PASS_THROUGH and isinstance(record, Sample) and record.metric not in declared
    ]
    own = [record for records in by_poll.values() for record in records if record not in passed]
    assert len(passed) > 300
    assert undeclared(Prometheus, own) == []
    assert set(never_emitted(Prometheus, own)) == ONLY_NEWER


def test_every_request_is_as_the_vendor_describes(
    changed_server: PrometheusServer, connect: Connect, sent: list[requests.PreparedRequest]
) -> None:
    server = changed_server
    everything(connect, server.url)
    client = connect(server.url)
    client.get_series(["up"], start=1.0, end=2e9, limit=5)
    client.get_metadata("up", limit=5)
    client.get_targets("any", pool="dead")
    act(client, "reload")
    act(client, "create_snapshot", skip_head=True)
    act(client, "delete_series", match=['up{job="dead"}', "gone"], start="2020-01-01T00:00:00Z", clean_tombstones=True)

    described = contract()
    paths = set()
    for request in sent:
        path = str(request.path_url).partition("?")[0]
        if path not in OF_PAGES:
            assert described.faults(as_werkzeug(request), None) == []
            paths.add(path.removeprefix("/api/v1"))
    assert {"/query", "/query_range", "/series", "/targets", "/rules", "/alerts", "/status/tsdb"} < paths
    assert {"/admin/tsdb/snapshot", "/admin/tsdb/delete_series", "/admin/tsdb/clean_tombstones"} < paths


def as_werkzeug(request: requests.PreparedRequest) -> Request:
    """A request as it would arrive."""
    asked = RequestsOpenAPIRequest(request)
    path, _, query = str(request.path_url).partition("?")
    body = request.body if isinstance(request.body, bytes) else None
    return EnvironBuilder(
        path, method=str(request.method), query_string=query, data=body, content_type=asked.content_type
    ).get_request()
