"""What is emitted is what `metrics.csv` declares; what is sent is what the vendor describes."""

import requests
from openapi_core.contrib.requests import RequestsOpenAPIRequest
from werkzeug.test import EnvironBuilder
from werkzeug.wrappers import Request

from nms_workers.records import Record, Sample
from nms_workers.services.prometheus.service import Prometheus
from tests.conftest import StartServer
from tests.metric_contract import never_emitted, undeclared
from tests.servers import PROMETHEUS, PrometheusServer
from tests.services.prometheus.conftest import Connect, scraped
from tests.services.prometheus.stub import contract
from tests.services.prometheus.support import act, read

# Samples that others named pass through these polls; they carry no name of ours, which is what can be held against.
PASS_THROUGH = {"queries", "scrape"}

OF_PAGES = ["/-/ready", "/-/reload", "/metrics", "/federate"]  # not described: the management API, and pages


def everything(connect: Connect, url: str) -> dict[str, list[Record]]:
    """The records of every poll."""
    client = connect(url, queries=QUERIES, scrape=[{}, {"match": ["up"]}])
    return {poll: read(client, poll) for poll in Prometheus.polls()}


QUERIES = [{"name": "now", "query": "up"}, {"name": "then", "query": "up", "range": "1m", "step": "10s"}]


def test_what_is_emitted_and_what_is_declared(session_server: StartServer, connect: Connect) -> None:
    declared = Prometheus.metrics()
    own: list[Record] = []
    for name in PROMETHEUS:
        server = session_server(name, "prometheus")
        scraped(server)
        passed = 0
        for poll, records in everything(connect, server.url).items():
            foreign = [r for r in records if isinstance(r, Sample) and r.metric not in declared]
            assert foreign == [] or poll in PASS_THROUGH
            own += [record for record in records if poll not in PASS_THROUGH or record not in foreign]
            passed += len(foreign)
        assert passed > 300
    assert undeclared(Prometheus, own) == []
    assert never_emitted(Prometheus, own) == []


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
