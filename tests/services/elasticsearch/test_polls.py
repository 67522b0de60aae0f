"""What polls read of clusters of both versions, and the events that fire while something is wrong."""

import time
from typing import Any

import pytest

from nms_workers.errors import Outcome, Refused
from nms_workers.services.elasticsearch.client import ElasticsearchClient
from nms_workers.services.elasticsearch.service import Elasticsearch
from tests.services.elasticsearch.conftest import Connect, StartStub
from tests.services.elasticsearch.support import events, read, samples, value, values
from tests.services.records import entities
from tests.stubs.elasticsearch import NODES, ElasticsearchStub, task_info


def test_health_of_a_green_cluster(stub: ElasticsearchStub, client: ElasticsearchClient) -> None:
    records = read(client, "health")
    assert value(records, "info", cluster="logs", version=stub.version, flavor="default") == 1
    assert values(records, "cluster_status", status="green") == [1]
    assert values(records, "cluster_status", status="red") == [0]
    assert value(records, "cluster_nodes") == 2
    assert value(records, "cluster_active_shards_ratio") == 0.875
    assert value(records, "cluster_pending_task_oldest_seconds") == 1.5
    assert events(records, "cluster_status") == []
    assert list(entities(records, "cluster")) == ["cLuStErUuId0000000000"]


@pytest.mark.parametrize(("copy", "status", "severity"), [("r", "yellow", "warning"), ("p", "red", "critical")])
def test_a_cluster_that_is_not_green_fires_at_every_poll(
    stub: ElasticsearchStub, client: ElasticsearchClient, copy: str, status: str, severity: str
) -> None:
    stub.unassigned = [_shard("logs-1", copy)]
    (first,), (again,) = (events(read(client, "health"), "cluster_status") for _ in range(2))
    assert (first.severity, first.fingerprint) == (severity, again.fingerprint)
    assert f"is {status}: 1 shards" in first.message
    assert "cluster_status" in Elasticsearch.polls()["health"].enumerates
    stub.unassigned = []
    assert events(read(client, "health"), "cluster_status") == []


def test_an_indicator_that_is_not_green_fires_with_what_to_do(
    stub: ElasticsearchStub, client: ElasticsearchClient
) -> None:
    stub.indicators["disk"] = {
        "status": "yellow",
        "symptom": "1 node is over the high watermark.",
        "impacts": [{"id": "x", "severity": 1, "description": "No new shards.", "impact_areas": ["ingest"]}],
        "diagnosis": [{"id": "y", "cause": "The disk is full.", "action": "Add disk.", "help_url": "https://ela.st/d",
                       "affected_resources": {"nodes": [{"name": "es-1", "node_id": "nX"}]}}],
    }  # fmt: skip
    records = read(client, "health_report")
    (event,) = events(records, "health_indicator")
    assert event.fingerprint == "health_indicator:disk"
    assert event.message == "disk is yellow: 1 node is over the high watermark."
    told = event.attributes
    assert (told["impacts"], told["causes"], told["actions"]) == (
        ["No new shards."],
        ["The disk is full."],
        ["Add disk."],
    )
    assert value(records, "health_status", indicator="disk") == 1
    assert value(records, "health_status", indicator="ilm") == 0
    assert value(records, "unknown_fields", answer="health_report") == 0


def test_nodes_by_the_table(stub: ElasticsearchStub, client: ElasticsearchClient) -> None:
    records = read(client, "nodes")
    node = stub.node
    for name in NODES.values():
        one = {"node": name}
        assert value(records, "node_jvm_heap_used_ratio", **one) == 0.43
        young = node["jvm"]["gc"]["collectors"]["young"]
        assert value(records, "node_jvm_gc_seconds_total", collector="young", **one) == pytest.approx(
            young["collection_time_in_millis"] / 1000
        )
        assert (
            value(records, "node_thread_pool_rejected_total", pool="write", **one)
            == node["thread_pool"]["write"]["rejected"]
        )
        assert value(records, "node_cgroup_memory_limit_bytes", **one) == 8 << 30  # written as text
        assert value(records, "node_fs_data_available_bytes", path="/usr/share/elasticsearch/data", **one) > 0
        kilobytes = node["fs"]["io_stats"]["devices"][0]["write_kilobytes"]
        assert value(records, "node_fs_device_written_bytes_total", device="nvme0n1", **one) == kilobytes * 1024
        assert value(records, "node_cgroup_cpu_quota_seconds", **one) == pytest.approx(0.2)
    assert values(records, "node_master") == [1, 0]
    found = entities(records, "node")
    assert found[next(iter(NODES))]["version"] == stub.version
    assert value(records, "unknown_fields", answer="node_stats") == 0
    assert entities(records, "answer")["node_stats"] == {"unknown_fields": []}


def test_big_lists_do_not_leave_the_server(stub: ElasticsearchStub, client: ElasticsearchClient) -> None:
    told = client.get_node_stats()["nodes"][next(iter(NODES))]
    assert "clients" in stub.node["http"]
    assert "clients" not in told["http"]
    assert "processors" not in told["ingest"]["pipelines"]["geoip"]
    assert "field_types" not in client.get_cluster_stats()["indices"]["mappings"]


def test_fields_of_a_newer_version_are_counted_and_named(stub: ElasticsearchStub, client: ElasticsearchClient) -> None:
    stub.node["jvm"]["threads"]["virtual_count"] = 3
    stub.node["new_section"] = {f"f{at}": at for at in range(150)}
    records = read(client, "nodes")
    assert value(records, "unknown_fields", answer="node_stats") == 1  # sections are asked for by name
    assert entities(records, "answer")["node_stats"]["unknown_fields"] == ["jvm.threads.virtual_count"]


def test_a_number_that_stands_for_none_is_left_out(stub: ElasticsearchStub, client: ElasticsearchClient) -> None:
    stub.node["process"]["max_file_descriptors"] = -1
    stub.node["os"]["cgroup"]["memory"]["limit_in_bytes"] = "max"
    records = read(client, "nodes")
    assert values(records, "node_process_max_file_descriptors") == []
    assert values(records, "node_cgroup_memory_limit_bytes") == []


def test_nodes_and_pipelines_over_the_bound_are_counted(stub: ElasticsearchStub, connect: Connect) -> None:
    records = read(connect(stub.url, max_nodes=1, max_pipelines=1), "nodes")
    assert list(entities(records, "node")) == list(NODES)
    assert {dict(one.series.labels)["node"] for one in samples(records, "node_jvm_threads")} == {"es-1"}
    assert value(records, "left_out", what="nodes") == 1
    assert value(records, "left_out", what="pipelines") == 1
    assert len(values(records, "node_ingest_pipeline_docs_total")) == 1


def test_two_nodes_of_one_name_are_told_apart(
    stub: ElasticsearchStub, client: ElasticsearchClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = NODES
    monkeypatch.setitem(NODES, second, NODES[first])
    records = read(client, "nodes")
    named = {dict(one.series.labels)["node"] for one in samples(records, "node_jvm_threads")}
    assert named == {f"es-1/{first}", f"es-1/{second}"}


def test_the_biggest_indices_have_series_and_the_rest_is_counted(stub: ElasticsearchStub, connect: Connect) -> None:
    for at in range(5):
        stub.make_index(f"logs-{at}", docs=at)
    stub.make_index("other", docs=50)
    records = read(connect(stub.url, max_indices=2, indices=["logs-*", "-logs-3"]), "indices")
    assert list(entities(records, "index")) == ["logs-4", "logs-2", "logs-1", "logs-0"]
    named = {dict(one.series.labels)["index"] for one in samples(records, "index_docs")}
    assert named == {"logs-4", "logs-2"}
    assert value(records, "left_out", what="indices") == 2
    assert value(records, "indices", status="open") == 4
    assert value(records, "index_primaries", index="logs-4") == 1
    assert len(values(records, "index_search_queries_total")) == 2
    assert len(values(records, "indices_search_queries_total")) == 1


def test_many_long_names_are_asked_for_in_parts(stub: ElasticsearchStub, client: ElasticsearchClient) -> None:
    names = [f"logs-{'x' * 230}-{at:03}" for at in range(40)]
    for name in names:
        stub.make_index(name, docs=1)
    records = read(client, "indices")
    assert len(values(records, "index_docs")) == 40
    asked = [one for one in stub.paths("GET") if "_stats" in one and "level=indices" in one]
    assert 1 < len(asked) < 10
    assert max(map(len, asked)) < 4000


def test_an_index_that_goes_between_two_requests_costs_nothing_else(
    stub: ElasticsearchStub, client: ElasticsearchClient
) -> None:
    for at in range(5):
        stub.make_index(f"logs-{at}")
    names = [one.index for one in client.get_indices()]
    del stub.indices["logs-3"]
    assert sorted(name for name, _ in client.get_index_stats(names)) == ["logs-0", "logs-1", "logs-2", "logs-4"]


def test_red_and_closed_indices(stub: ElasticsearchStub, client: ElasticsearchClient) -> None:
    stub.make_index("dark", health="red")
    stub.make_index("shut", status="close")
    records = read(client, "indices")
    (event,) = events(records, "index_red")
    assert (event.fingerprint, event.severity) == ("index_red:dark", "critical")
    assert value(records, "indices", status="close") == 1
    assert value(records, "indices_with_health", health="red") == 1
    assert value(records, "index_health", index="dark") == 2


def test_shards_without_a_node_fire_by_index_with_an_explanation(
    stub: ElasticsearchStub, client: ElasticsearchClient
) -> None:
    stub.make_index("logs-1")
    stub.unassigned = [_shard("logs-1", "r"), _shard("logs-1", "p"), _shard("logs-2", "r", "1")]
    records = read(client, "shards")
    one, two = events(records, "shards_unassigned")
    assert (one.fingerprint, one.severity) == ("shards_unassigned:logs-1", "critical")
    assert (two.fingerprint, two.severity) == ("shards_unassigned:logs-2", "warning")
    assert "2 shards of logs-1 have no node, 1 of them primaries (NODE_LEFT)" in one.message
    assert one.attributes["explanation"].startswith("Elasticsearch isn't allowed")
    assert value(records, "shards_unassigned", reason="NODE_LEFT", copy="replica") == 2


def test_no_list_of_shards_is_asked_for_while_all_have_a_node(
    stub: ElasticsearchStub, client: ElasticsearchClient
) -> None:
    assert read(client, "shards") == []
    assert not [one for one in stub.paths() if "_cat/shards" in one]


def test_tasks_are_counted_and_long_ones_fire(stub: ElasticsearchStub, connect: Connect) -> None:
    node = next(iter(NODES))
    stub.tasks = [
        task_info(node, 1, "indices:data/read/search", 1, "indices[logs-*]"),
        task_info(node, 2, "indices:data/read/search", 400, "indices[logs-*], search_type[QUERY_THEN_FETCH]"),
        task_info(node, 3, "indices:data/read/search[phase/query]", 399, "shardId", parent_task_id=f"{node}:2"),
        task_info(node, 4, "data_frame/transforms[c]", 99_999, "transform", type="persistent"),
    ]
    records = read(connect(stub.url), "tasks")
    (event,) = events(records, "long_task")
    assert event.fingerprint == f"long_task:{node}:2"
    assert "indices:data/read/search has run for more than 300 s: indices[logs-*]" in event.message
    assert value(records, "tasks", action="indices:data/read/search") == 2
    assert value(records, "tasks_oldest_seconds", action="indices:data/read/search") == 400
    assert values(records, "tasks_oldest_seconds", action="data_frame/transforms[c]") == []
    assert len(events(read(connect(stub.url, long_task=0.5), "tasks"), "long_task")) == 2
    bounded = read(connect(stub.url, long_task=0.5, max_events=1), "tasks")
    assert value(bounded, "left_out", what="long_tasks") == 1


def test_indices_whose_lifecycle_fails_fire(stub: ElasticsearchStub, client: ElasticsearchClient) -> None:
    stub.ilm_errors["logs-1"] = {
        "index": "logs-1", "managed": True, "policy": "weekly", "phase": "hot", "action": "rollover", "step": "ERROR",
        "failed_step": "check-rollover-ready", "failed_step_retry_count": 3, "index_creation_date_millis": 1,
        "time_since_index_creation": "9d", "lifecycle_date_millis": 1, "age": "9d", "phase_time_millis": 1,
        "action_time_millis": 1, "step_time_millis": 1, "is_auto_retryable_error": True,
        "step_info": {"type": "illegal_argument_exception", "reason": "rollover alias is not set"},
    }  # fmt: skip
    stream = stub.make_stream("app", lifecycle={"enabled": True})
    backing = stream["indices"][0]["index_name"]
    stub.lifecycle_errors[backing] = '{"type":"x","reason":"no room"}'
    stub.make_stream("fine", lifecycle={"enabled": True})
    records = read(client, "lifecycle")
    by_policy, by_stream = events(records, "lifecycle_error")
    assert by_policy.message == "policy weekly cannot do check-rollover-ready of logs-1: rollover alias is not set"
    assert by_stream.fingerprint == f"lifecycle_error:{backing}"
    assert "no room" in by_stream.message
    assert value(records, "ilm_running") == 1
    assert value(records, "ilm_indices_in_error") == 1
    assert value(records, "lifecycle_indices_in_error") == 1
    assert value(records, "lifecycle_data_streams") == 2


def test_a_version_before_the_data_stream_lifecycle_tells_of_policies_alone(
    start_stub: StartStub, connect: Connect
) -> None:
    stub = start_stub("8.6.2")
    records = read(connect(stub.url), "lifecycle")
    assert value(records, "ilm_running") == 1
    assert values(records, "lifecycle_data_streams") == []
    assert "/_lifecycle/stats" not in stub.paths()


def test_snapshots_by_repository(stub: ElasticsearchStub, client: ElasticsearchClient) -> None:
    now = int(time.time() * 1000)
    good, bad = _snapshot("s1", now - 7_200_000, "SUCCESS"), _snapshot("s2", now - 60_000, "PARTIAL", "Indices gone")
    stub.repositories = {
        "backup": {"snapshots": [good, bad, _snapshot("s3", now, "IN_PROGRESS")]},
        "broken": {"broken": "could not read repository data"},
        "fresh": {"snapshots": []},
    }
    records = read(client, "snapshots")
    assert value(records, "snapshot_repositories") == 3
    assert value(records, "snapshots", repository="backup") == 3
    assert value(records, "snapshots_running", repository="backup") == 1
    age = value(records, "snapshot_last_success_age_seconds", repository="backup")
    assert 7190 <= age < 7400
    assert values(records, "snapshot_last_success_age_seconds", repository="fresh") == []
    assert value(records, "snapshot_last_failed_shards", repository="backup") == 1
    (failed,), (broken,) = events(records, "snapshot_failed"), events(records, "repository_broken")
    assert failed.message == "snapshot s2 in backup is partial: Indices gone"
    assert broken.fingerprint == "repository_broken:broken"
    assert "could not read repository data" in broken.message
    assert value(records, "slm_retention_seconds_total") == pytest.approx(1.404)
    stub.repositories["backup"]["snapshots"].append(_snapshot("s4", now + 1, "SUCCESS"))
    assert events(read(client, "snapshots"), "snapshot_failed") == []


def test_settings_of_repositories_are_not_read(stub: ElasticsearchStub, client: ElasticsearchClient) -> None:
    stub.repositories = {"backup": {"snapshots": []}}
    records = read(client, "snapshots")
    assert entities(records, "repository") == {"backup": {"type": "fs"}}
    assert "/backup" not in str(records)


def test_serverless_refuses_what_it_has_not(start_stub: StartStub, connect: Connect) -> None:
    stub = start_stub("8.11.0", flavor="serverless")
    client = connect(stub.url)
    stub.make_index("logs-1", docs=2)
    for poll in ("health", "nodes", "cluster_stats", "tasks", "lifecycle", "snapshots"):
        with pytest.raises(Refused) as caught:
            read(client, poll)
        assert caught.value.outcome == Outcome.REFUSED
        assert "Elasticsearch Serverless has no such API: name the poll in `skip`" in caught.value.hint
    assert [one.index for one in client.get_indices()] == ["logs-1"]
    assert len(list(client.search("logs-1"))) == 2


def _shard(index: str, kind: str, number: str = "0") -> dict[str, Any]:
    return {
        "index": index,
        "shard": number,
        "prirep": kind,
        "state": "UNASSIGNED",
        "unassigned.reason": "NODE_LEFT",
        "unassigned.at": "2026-11-22T10:00:00.000Z",
        "unassigned.details": "node_left [nX]",
    }


def _snapshot(name: str, start: int, state: str, reason: str | None = None) -> dict[str, Any]:
    failed = int(state != "SUCCESS")
    told: dict[str, Any] = {
        "snapshot": name,
        "uuid": f"uuid-{name}",
        "repository": "backup",
        "state": state,
        "start_time_in_millis": start,
        "end_time_in_millis": start + 3000,
        "duration_in_millis": 3000,
        "shards": {"total": 4, "failed": failed, "successful": 4 - failed},
        "indices": [],
        "data_streams": [],
    }
    return told | ({"reason": reason} if reason else {})
