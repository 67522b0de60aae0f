"""What is emitted is what `metrics.csv` declares, and holds what the best collector gathers."""

from pathlib import Path

import requests

from nms_workers.fleet.harvest import Harvest
from nms_workers.records import Record
from nms_workers.services.kibana.client import KibanaClient
from nms_workers.services.kibana.service import Kibana
from tests.contract.vendor import description
from tests.metric_contract import emitted, never_emitted, undeclared
from tests.services.kibana.conftest import Connect, Start
from tests.services.kibana.support import read
from tests.stubs.kibana import API_KEY, KibanaStub, rule

# Telegraf's kibana input (plugins/inputs/kibana), field by field, and ours that hold the same facts.
TELEGRAF = {
    "status_code": {"kibana_status_code", "kibana_status_level"},
    "heap_total_bytes": {"kibana_heap_total_bytes"},
    "heap_max_bytes": {"kibana_heap_total_bytes"},
    "heap_used_bytes": {"kibana_heap_used_bytes"},
    "heap_size_limit": {"kibana_heap_limit_bytes"},
    "uptime_ms": {"kibana_uptime_seconds"},
    "response_time_avg_ms": {"kibana_response_time_mean_seconds"},
    "response_time_max_ms": {"kibana_response_time_max_seconds"},
    "concurrent_connections": {"kibana_connections"},
    "requests_per_sec": {"kibana_requests_per_second"},
}


def test_the_description_is_at_hand(start: Start, connect: Connect) -> None:
    """Skipped where it is not: the requests and answers of the other tests are checked against nothing then."""
    assert "/api/saved_objects/_find" in description("kibana/slice-2025-11.json")["paths"]
    kibana = start("9.4.1")
    connect(kibana, space="noc").get_visualizations()
    assert kibana.violations == []
    headers = {"Authorization": f"ApiKey {API_KEY}", "kbn-xsrf": "true"}
    requests.get(f"{kibana.url}/s/noc/api/saved_objects/_find", headers=headers, timeout=10)
    state = {"title": "x", "description": "", "panels": []}
    requests.put(f"{kibana.url}/api/dashboards/x", json=state, headers=headers, timeout=10)
    without_type, without_query = kibana.violations
    kibana.violations.clear()
    assert "type" in without_type
    assert "'query' is a required property" in without_query


def test_what_is_emitted_and_what_is_declared(kibana: KibanaStub, client: KibanaClient) -> None:
    kibana.rules = [rule("r1", "disk"), rule("r2", "cpu", "active")]
    kibana.put("dashboard", "d1", {"title": "One"})
    kibana.put("index-pattern", "v1", {"title": "logs-*"})
    records: list[Record] = []
    for name, poll in Kibana.polls().items():
        found = read(client, name)
        harvest = Harvest(poll.volatile, max_series=10_000)
        for record in found:
            harvest.add(record)
        assert (name, harvest.faults) == (name, "")  # no series comes twice
        records += found
    assert undeclared(Kibana, records) == []
    assert never_emitted(Kibana, records) == []
    names = {one.metric for one in emitted(records)}
    assert {field for field, ours in TELEGRAF.items() if not ours <= names} == set()


def test_every_table_names_declared_metrics_only() -> None:
    declared = set(Kibana.metrics())
    for name in ("status.csv", "stats.csv", "task_manager.csv"):
        lines = Path(Kibana.folder(), name).read_text(encoding="utf-8").splitlines()[1:]
        assert {line.split(",")[1] for line in lines} - {""} <= declared
