"""What is emitted is what `metrics.csv` declares, the other way round, and all that others collect."""

import csv
import re
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests
from prometheus_client.parser import text_string_to_metric_families

from nms_workers.records import Sample, series
from nms_workers.services.haproxy import internals, readings
from nms_workers.services.haproxy.service import Haproxy
from nms_workers.services.haproxy.stats import from_csv
from tests.metric_contract import never_emitted, undeclared
from tests.servers import HaproxyServer
from tests.services.haproxy.conftest import App, Connect, load, settled
from tests.services.haproxy.support import read
from tests.services.records import await_true

COMPARED = re.compile(
    r"haproxy_(server|backend)_(loadbalanced|sessions|http_responses|connection_errors|retry_warnings|weight|uweight|"
    r"active_servers|backup_servers|status|max_queue)(_total)?\Z"
)
HERE = Path(__file__).parent
KINDS = ("frontend", "listener", "backend", "server")
NO_ZLIB = "Debian builds HAProxy with slz in place of zlib"
LATER = "of a version of HAProxy after this one"
NOWHERE = {
    "haproxy_process_current_zlib_memory_bytes": NO_ZLIB,
    "haproxy_process_max_zlib_memory_bytes": NO_ZLIB,
    "haproxy_server_private_idle_connections_current": LATER,
    **{f"haproxy_{kind}_ssl_ocsp_staples_total": LATER for kind in KINDS},
    **{f"haproxy_{kind}_ssl_failed_ocsp_staples_total": LATER for kind in KINDS},
    **{
        f"haproxy_{kind}_http_{what}_{way}_bytes_total": LATER
        for kind in KINDS
        for what in ("request", "response")
        for way in ("in", "out")
    },
}
NOT_IN_2_6 = {
    f"haproxy_{name}": LATER
    for name in (
        "thread_current_run_queue",
        "thread_cpu_ratio",
        "thread_checks_adopted_total",
        "thread_checks_started_total",
        "thread_checks_active",
        "thread_checks_running",
        "process_maxconn_reached_total",
        "process_boot_time_seconds",
        "process_niced_tasks",
        "process_warnings_total",
        "process_blocked_traffic_warnings_total",
        "process_current_streams",
        "process_streams_total",
        "listener_connections_total",
        "frontend_sessions_by_protocol_total",
        "frontend_http_requests_by_protocol_total",
        "frontend_h3_received_frames_total",
        "frontend_h3_errors_total",
        "frontend_quic_transport_errors_total",
        "frontend_quic_sent_packets_total",
        "frontend_quic_lost_packets_total",
        "frontend_quic_half_open_connections",
        "frontend_quic_dropped_packets_total",
        "frontend_quic_events_total",
    )
}
ELSEWHERE = {"haproxy": NOWHERE | NOT_IN_2_6, "haproxy-3": NOWHERE}


@pytest.fixture
def agent() -> Iterator[int]:
    """The port of an agent that says it is well, as `agent-check` asks for."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:  # shut down: the test is over
                    return
                with connection:
                    connection.sendall(b"up 100%\n")

        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


@pytest.fixture
def everything(
    start: Callable[..., HaproxyServer], apps: list[App], agent: int, certificate: Path, free_port: Callable[[], int]
) -> HaproxyServer:
    """A HAProxy with a sticky table, a certificate, and the server m1, of which everything is told."""
    escaped = str(certificate).replace(" ", "\\ ")
    table = "  stick-table type ip size 100 expire 60s store http_req_cnt\n  http-request track-sc0 src\n"
    checks = f"check agent-check agent-port {agent} agent-inter 100ms"
    limits = "maxconn 10 maxqueue 5 slowstart 60s pool-max-conn 5 weight 100"
    place = f"127.0.0.1:{apps[0].site.port}"
    more = f"backend be_more\n  default-server inter 100ms\n  server m1 {place} {checks} {limits}\n"
    return start(web=f"{table}  bind 127.0.0.1:{free_port()} ssl crt {escaped}", sections=more)


def test_what_is_emitted_and_what_is_declared(everything: HaproxyServer, connect: Connect) -> None:
    client = connect(everything, table_entries=5, certificate_days=1)
    settled(client)
    everything.ask("set server be_more/m1 state maint")
    everything.ask("set server be_more/m1 state ready")  # its slow start begins
    load(everything)
    await_true(lambda: [row for row in client.get_servers("be_more") if row.text("agent_status") == "L7OK"])
    records = [record for poll in Haproxy.polls() for record in read(client, poll)]
    assert undeclared(Haproxy, records) == []
    assert set(never_emitted(Haproxy, records)) == set(ELSEWHERE[everything.name])


def test_every_family_that_others_collect_has_a_metric() -> None:
    with (HERE / "families.csv").open(encoding="utf-8", newline="") as lines:
        families = {row["family"]: row["metric"] for row in csv.DictReader(lines)}
    assert len(families) >= 186
    assert sorted(set(families.values()) - Haproxy.metrics().keys()) == []


def test_every_metric_of_the_tables_is_declared() -> None:
    named = {
        row.metric
        for table in (readings.STATS, readings.INFO, internals.TABLE)
        for row in table.rows.values()
        if row.metric
    }
    assert sorted(named - Haproxy.metrics().keys()) == []


def test_fields_of_later_versions_are_told_and_those_of_no_version_named() -> None:
    later = "reqbin,h1sess,priv_idle_cur,srid,made_up"
    text = f"# pxname,svname,status,type,{later},\nfe,FRONTEND,OPEN,0,5,6,,,7,\nbe,s1,UP,2,8,,9,3,,\n"
    records = list(readings.of_stats(from_csv(text), 10, "here"))
    assert undeclared(Haproxy, records) == []
    told = {(r.metric, r.value) for r in records if hasattr(r, "metric")}
    assert ("haproxy_frontend_http_request_in_bytes_total", 5.0) in told
    assert ("haproxy_frontend_sessions_by_protocol_total", 6.0) in told
    assert ("haproxy_server_private_idle_connections_current", 9.0) in told
    assert ("haproxy_unknown_fields", 1.0) in told
    (about,) = [r.attributes for r in records if getattr(r, "kind", "") == "statistics"]
    assert about["unknown_fields"] == ["frontend.made_up"]


def test_haproxys_own_exporter_gives_the_same_numbers(
    start: Callable[..., HaproxyServer], connect: Connect, free_port: Callable[[], int]
) -> None:
    """For servers and backends, as far as units are the same and nothing goes on in between."""
    port = free_port()
    exporter = f"frontend prometheus\n  bind 127.0.0.1:{port}\n  http-request use-service prometheus-exporter\n"
    server = start(sections=exporter)
    client = connect(server)
    settled(client)
    load(server, 30)
    numbers = [r for r in read(client) if isinstance(r, Sample) and COMPARED.match(r.metric)]
    ours = {(str(r.series), r.value) for r in numbers if r.labels.get("state") != "no check"}  # which it does not have
    text = requests.get(f"http://127.0.0.1:{port}/metrics", timeout=10).text
    theirs = {
        (str(series(sample.name, tuple(sample.labels.items()))), sample.value)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if COMPARED.match(sample.name)
    }
    assert len(ours) >= 40
    assert ours == theirs
