"""Pages of metrics: of real exporters, of `/federate`, and of every bad kind."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import prometheus_client
import pytest
import requests
from prometheus_client.parser import text_string_to_metric_families

from nms_workers.errors import AuthError, ParseError, Refused, TargetError, Timeout
from nms_workers.fleet.harvest import Harvest
from nms_workers.records import Record
from nms_workers.services.prometheus.service import Prometheus
from nms_workers.transport.deadline import deadline
from tests.servers import Server
from tests.services.prometheus.conftest import Connect
from tests.services.prometheus.support import read, read_until, samples
from tests.services.records import value
from tests.transport.sites import Call, Site

TEXT, OPEN = "text/plain; version=0.0.4", "application/openmetrics-text; version=1.0.0; charset=utf-8"


def page(body: str | bytes, content_type: str = TEXT) -> Site:
    raw = body.encode() if isinstance(body, str) else body
    return Site({"*": lambda call: call.answer(body=raw, Content_Type=content_type)})


def scraped(connect: Connect, site: Site, **scrape: Any) -> list[Record]:
    return read(connect(site.url, scrape=[{"name": "s"} | scrape]), "scrape")


def named(records: list[Record]) -> dict[str, float]:
    return {str(sample.series): sample.value for sample in samples(records)}


@pytest.fixture
def exporter() -> Iterator[str]:
    """The URL of a real exporter, of Prometheus' own library."""
    registry = prometheus_client.CollectorRegistry()
    prometheus_client.Counter("jobs", "Jobs done.", ["queue"], registry=registry).labels("mail").inc(3)
    prometheus_client.Gauge("temperature_celsius", "Of the room.", registry=registry).set(21.5)
    histogram = prometheus_client.Histogram("size_bytes", "Of answers.", buckets=(10, 100), registry=registry)
    for size in (5, 50, 500):
        histogram.observe(size)
    server, thread = prometheus_client.start_http_server(0, "127.0.0.1", registry)
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_an_exporter_that_is_no_prometheus(
    exporter: str, connect: Connect, sent: list[requests.PreparedRequest]
) -> None:
    client = connect(exporter, api=False)
    records = [record for poll in Prometheus.polls() for record in read(client, poll)]
    assert [one.path_url for one in sent] == ["/metrics"], "its API is not asked for"
    found = named(records)
    assert found['jobs_total{queue="mail"}'] == 3
    assert found["temperature_celsius"] == 21.5
    assert [found[f'size_bytes_bucket{{le="{le}"}}'] for le in ("10.0", "100.0", "+Inf")] == [1, 2, 3]
    assert (found["size_bytes_count"], found["size_bytes_sum"]) == (3, 555)
    assert value(records, "prometheus_scrape_samples", scrape="/metrics") == len(found)
    assert value(records, "prometheus_scrape_samples_left_out", scrape="/metrics") == 0
    assert value(records, "prometheus_scrape_body_bytes", scrape="/metrics") > 100


def test_a_server_is_scraped_only_where_that_is_set(server: Server, connect: Connect) -> None:
    assert read(connect(server.url), "scrape") == []


def test_every_sample_of_a_real_page(server: Server, connect: Connect) -> None:
    records = read(connect(server.url, scrape=[{}]), "scrape")
    text = requests.get(f"{server.url}/metrics", timeout=30).text
    theirs = {
        (one.name, *sorted(one.labels.items())) for m in text_string_to_metric_families(text) for one in m.samples
    }
    ours = {(sample.metric, *sample.series.labels) for sample in samples(records)}
    assert len(ours) > 300
    assert len(ours & theirs) >= len(theirs) * 0.95, "some come and go between two reads"
    declared = Prometheus.metrics()
    assert not {one[0] for one in theirs} & declared.keys(), "no metric of ours is called as one of Prometheus'"


def test_federation_keeps_times_and_takes_several_selectors(server: Server, connect: Connect) -> None:
    scrape = {"match": ['up{job="dead"}', '{__name__="job:up:sum"}'], "labels": {"instance": "north"}}
    records = read(connect(server.url, scrape=[scrape]), "scrape")
    found = {(one.metric, one.labels["job"]): one for one in samples(records)}
    assert {name for name, _ in found} == {"up", "job:up:sum"}
    up = found["up", "dead"]
    assert up.labels == {"job": "dead", "instance": "north", "exported_instance": "127.0.0.1:1"}
    assert up.ts is not None
    assert abs((up.ts - datetime.now(UTC)).total_seconds()) < 60
    assert value(records, "prometheus_scrape_samples", scrape="/federate") == len(found)
    without = read(connect(server.url, scrape=[scrape | {"timestamps": False}]), "scrape")
    assert {sample.ts for sample in samples(without)} == {None}


OPEN_METRICS = """# TYPE requests counter
# UNIT requests_seconds seconds
# HELP requests Answered.
requests_total{code="200"} 7 1700000000.5 # {trace_id="a"} 1.0
requests_created{code="200"} 1.7e9 1700000000.5
# TYPE build info
build_info{version="1"} 1
# TYPE size histogram
size_bucket{le="1.0"} 1
size_bucket{le="+Inf"} 2
size_count 2
size_sum 3.5
# TYPE native histogram
native {count:4,sum:10.0,schema:1,zero_threshold:1e-4,zero_count:0,positive_spans:[0:2],positive_deltas:[1,2]}
# EOF
"""


def test_openmetrics(connect: Connect) -> None:
    text = OPEN_METRICS.replace("# UNIT requests_seconds seconds\n", "")
    with page(text, OPEN) as site:
        records = scraped(connect, site)
        accepted = site.seen[0].headers["Accept"]
    found = named(records)
    assert found['requests_total{code="200"}'] == 7
    assert found['build_info{version="1"}'] == 1
    assert found['size_bucket{le="+Inf"}'] == 2
    assert [one.ts for one in samples(records) if one.metric == "requests_total"] == [
        datetime.fromtimestamp(1700000000.5, UTC)
    ]
    assert value(records, "prometheus_scrape_native_histograms", scrape="s") == 1
    assert "text/plain;version=0.0.4" in accepted
    assert "application/openmetrics-text;version=1.0.0" in accepted


def test_what_is_kept_by_name(connect: Connect) -> None:
    text = "node_cpu 1\nnode_memory 2\nnode_cpu_guest 3\ngo_threads 4\n"
    with page(text) as site:
        records = scraped(connect, site, only=["node_*"], without=["*_guest"])
    assert named(records) == {"node_cpu": 1, "node_memory": 2}
    assert value(records, "prometheus_scrape_samples_left_out", scrape="s") == 0, "nobody wanted them"


@pytest.mark.parametrize("typed", [True, False], ids=["typed", "untyped"])
def test_samples_beyond_the_limit_are_counted_exactly(connect: Connect, typed: bool) -> None:
    head = "# TYPE a gauge\n" if typed else ""
    text = head + "".join(f'a{{n="{n}"}} {n}\n' for n in range(6)) + "# a remark\n\nb 1\nc 2\nc_guest 3\n"
    with page(text) as site:
        client = connect(site.url, scrape=[{"name": "s", "limit": 4, "without": ["*_guest"]}])
        records, message = read_until(client, "scrape", Refused)
    assert len(samples(records)) == 4
    assert value(records, "prometheus_scrape_samples", scrape="s") == 4
    assert value(records, "prometheus_scrape_samples_left_out", scrape="s") == 4
    assert "4 samples beyond limit (4)" in message


def test_as_many_as_the_limit_are_no_fault(connect: Connect) -> None:
    with page("a 1\nb 2\n") as site:
        assert len(samples(scraped(connect, site, limit=2))) == 2


def test_names_that_only_prometheus_3_knows(connect: Connect) -> None:
    with page('{"http.duration", "server.name"="a"} 1\n{"1st"} 2\n') as site:
        assert named(scraped(connect, site)) == {'http_duration{server_name="a"}': 1, "_1st": 2}


def test_names_and_labels_that_are_ours(connect: Connect) -> None:
    with page('prometheus_targets{site="far",empty=""} 9\n') as site:
        records = scraped(connect, site, labels={"site": "near"})
    assert named(records) == {'exported_prometheus_targets{exported_site="far",site="near"}': 9}


def test_the_same_series_twice_in_one_page(connect: Connect) -> None:
    """The first is kept, and the fleet says so."""
    with page('a{n="1"} 1\na{n="1"} 2\nb 3\n') as site:
        records = scraped(connect, site)
    harvest = Harvest(volatile=False, max_series=1000)
    for record in records:
        harvest.add(record)
    blocks, layouts = harvest.blocks(datetime.now(UTC))
    assert harvest.faults == "1 samples came twice in one read, the first was kept"
    assert len(blocks) == 1
    assert {one.metric for one in layouts[0].members} >= {"a", "b"}


def test_unfit_samples_are_left_out_and_told(connect: Connect) -> None:
    text = 'good 1\nlong{text="' + "x" * 2000 + '"} 2\nstrange 3 1e300\n'
    with page(text) as site:
        records, message = read_until(connect(site.url, scrape=[{"name": "s"}]), "scrape", ParseError)
    assert named(records) == {"good": 1}
    assert "s: 2 samples were left out, the first since label text of long must be text of at most" in message


def test_a_line_that_is_no_metric_ends_the_page(connect: Connect) -> None:
    with page("a 1\nb 2\nthis is no metric at all\nc 3\n") as site:
        records, message = read_until(connect(site.url, scrape=[{"name": "s"}]), "scrape", ParseError)
    assert named(records) == {"a": 1, "b": 2}
    assert "near the line 'this is no metric at all'" in message


@pytest.mark.parametrize("content_type", [TEXT, OPEN])
@pytest.mark.parametrize(
    "text",
    [
        "a{",
        'a{b="c} 1',
        "a 1 2 3 x",
        "a{b} 1",
        "{} 1",
        "# TYPE",
        "# TYPE a nonsense\na 1",
        "a 0x1",
        'a{b="c",b="d"} 1',
        "é 1",
    ],
)
def test_nothing_crashes_on_nonsense(connect: Connect, text: str, content_type: str) -> None:
    with page(f"{text}\n", content_type) as site:
        try:
            found = scraped(connect, site)
        except ParseError as exc:
            assert "check the path" in str(exc)  # noqa: PT017 - lenient parsers take some of it
        else:
            assert all(sample.metric.isascii() for sample in samples(found))


def test_a_line_without_end(connect: Connect) -> None:
    """The parsers would take hours for it."""
    with page("a 1\nb{" + 'x="1",' * 500_000 + "} 1\n") as site:
        records, message = read_until(connect(site.url, scrape=[{"name": "s"}]), "scrape", ParseError)
    assert named(records) == {"a": 1}
    assert "it has 3000006 characters" in message


def answered(body: bytes, content_type: str) -> Callable[[Call], None]:
    return lambda call: call.answer(body=body, Content_Type=content_type)


@pytest.mark.parametrize(
    ("body", "content_type", "kind", "words"),
    [
        (b"<html>hello</html>", "text/html", ParseError, "a web page instead of metrics"),
        (b'<form><input type="password"></form>', "text/html", AuthError, "login page"),
        (b'{"a": 1}', "application/json", ParseError, "application/json instead of metrics"),
        (b"\x0a\x05\x80", "application/vnd.google.protobuf", ParseError, "protobuf instead of metrics"),
        (b"a 1\n\xff\xfe\n", TEXT, ParseError, "no UTF-8"),
        (b"a 1\n", OPEN, ParseError, "Missing # EOF"),
    ],
    ids=["page", "login", "json", "protobuf", "bytes", "openmetrics-cut-off"],
)
def test_what_is_no_page_of_metrics(
    connect: Connect, body: bytes, content_type: str, kind: type[TargetError], words: str
) -> None:
    with Site({"*": answered(body, content_type)}) as site:
        _, message = read_until(connect(site.url, api=False), "scrape", kind)
    assert words in message


def test_a_page_whose_header_says_something_else(connect: Connect) -> None:
    with page("# TYPE a counter\na_total 1\n# EOF\n", "application/octet-stream") as site:
        assert named(scraped(connect, site, format="openmetrics")) == {"a_total": 1}
    with page("a 1\n", "application/octet-stream") as site:
        assert named(scraped(connect, site, format="text")) == {"a": 1}


def endless(line: bytes) -> Callable[[Call], None]:
    def route(call: Call) -> None:
        call.send_response(200)
        call.send_header("Content-Type", TEXT)
        call.end_headers()
        while not call.server.over.is_set():
            call.wfile.write(line)

    return route


def test_a_page_that_never_ends(connect: Connect) -> None:
    with Site({"*": endless(b"a 1\n" * 10_000)}) as site:
        client = connect(site.url, api=False, max_body=1_000_000, retry={"attempts": 1})
        _, message = read_until(client, "scrape", ParseError)
    assert "more than 1000000 bytes (raise max_body, or ask for less)" in message


def test_a_page_that_drips(connect: Connect) -> None:
    with Site({"*": lambda call: (call.send_response(200), call.end_headers(), call.drip(b"a" * 1000))}) as site:
        client = connect(site.url, api=False, timeout={"total": 0.5}, retry={"attempts": 1})
        with pytest.raises(Timeout):
            read(client, "scrape")


def test_a_page_that_takes_longer_to_read_than_there_is_time(connect: Connect) -> None:
    text = "".join(f'a{{n="{n}"}} {n}\n' for n in range(200_000))
    with page(text) as site:
        client = connect(site.url, scrape=[{"limit": 200_000}])
        with deadline(0.5), pytest.raises(Timeout, match="used up"):
            read(client, "scrape")


def test_one_bad_page_costs_only_itself(connect: Connect) -> None:
    routes = {
        "/a": answered(b"a 1\n", TEXT),
        "/b": lambda call: call.answer(404, b"gone"),
        "/c": answered(b"c 1", TEXT),
    }
    with Site(routes) as site:
        client = connect(site.url, scrape=[{"path": path} for path in routes])
        records, message = read_until(client, "scrape", Refused)
    assert named(records) == {"a": 1, "c": 1}
    assert "/b: GET " in message


def test_an_exporter_of_many_devices(connect: Connect) -> None:
    with page("a 1\n") as site:
        scraped(connect, site, path="/snmp", params={"module": ["if_mib", "system"], "target": "192.0.2.1"})
        assert site.seen[0].path == "/snmp?module=if_mib&module=system&target=192.0.2.1"
