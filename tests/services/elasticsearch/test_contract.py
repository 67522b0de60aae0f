"""What is emitted against `metrics.csv`, both ways; the tables against the vendor's description; Netdata's contexts."""

import time
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import requests

from nms_workers.mapping import MappingTable
from nms_workers.records import Record
from nms_workers.services.elasticsearch.service import Elasticsearch
from tests.contract.elasticsearch import SPEC, Vendor
from tests.contract.vendor import description
from tests.metric_contract import emitted, never_emitted, undeclared
from tests.services.elasticsearch.conftest import Connect, StartStub
from tests.services.elasticsearch.support import read
from tests.stubs.elasticsearch import NODES, ElasticsearchStub, task_info

FOLDER = Elasticsearch.folder()

# Gone from Elasticsearch before version 8; Netdata still draws them.
GONE = {"node_thread_pool_queue pool=listener", "node_thread_pool_rejected_total pool=listener",
        "node_breaker_tripped_total breaker=accounting"}  # fmt: skip

# Numbers that clusters tell and the description of 8.17 does not have: what came later, and what it forgets.
LATER = {
    "indices.indexing.index_failed_due_to_version_conflict", "indices.indexing.recent_write_load",
    "indices.indexing.peak_write_load", "indices.search.recent_search_load", "indices.search.query_failure",
    "indices.search.fetch_failure", "indices.flush.total_time_excluding_waiting_on_lock_in_millis",
    "indices.fielddata.global_ordinals.build_time_in_millis", "indices.dense_vector.value_count",
    "indices.sparse_vector.value_count", "fs.io_stats.devices.*.io_time_in_millis", "nodes.count.index",
    "nodes.count.search",
    *(f"fs.data.*.{name}_free_space_in_bytes"
      for name in ("low_watermark", "high_watermark", "flood_stage", "frozen_flood_stage")),
}  # fmt: skip

# Parts that no request of ours asks for, or that are lists of things with a name of their own; the shapes of a single
# shard, and those of a machine, which the description lends to its parts and to processes, whole.
NOT_ASKED = (
    "http.clients", "http.routes", "script.contexts", "script_cache", "ingest.pipelines.*.processors",
    "indices.indices",
    "indices.shards.*", "indices.versions", "nodes.jvm.versions", "nodes.os.", "nodes.packaging_types", "nodes.plugins",
    "nodes.versions", "_nodes", "indices.mappings.field_types", "indices.mappings.runtime_field_types",
    "discovery.cluster_applier_stats", "transport.inbound_handling", "transport.outbound_handling", "indices.analysis",
    "indices.retention_leases", "indices.routing", "indices.seq_no", "indices.shard_path", "shards", "total.shards",
    "total.indices", "primaries", "os.cpu.", "os.mem.", "os.swap.", "process.cpu.", "process.mem.",
    "indices.completion.fields", "indices.fielddata.fields", "indices.segments.stored_memory",
    "indices.segments.term_vectory_memory", "total.segments.stored_memory", "total.segments.term_vectory_memory",
)  # fmt: skip


def everything(stub: ElasticsearchStub, connect: Connect) -> list[Record]:
    """What all polls yield of a cluster that has everything."""
    stub.make_index("logs-1", docs=3)
    stub.make_stream("app", lifecycle={"enabled": True})
    stub.tasks = [task_info(next(iter(NODES)), 1, "indices:data/read/search", 1, "")]
    shard = {"index": "logs-1", "shard": "0", "prirep": "r", "state": "UNASSIGNED", "unassigned.reason": "NODE_LEFT"}
    stub.unassigned = [shard | {"unassigned.at": "2026-11-22T10:00:00.000Z", "unassigned.details": ""}]
    now = int(time.time() * 1000)
    snapshot = {
        "snapshot": "s1",
        "uuid": "u",
        "state": "SUCCESS",
        "start_time_in_millis": now,
        "end_time_in_millis": now,
    }
    shards = {"total": 1, "failed": 0, "successful": 1}
    stub.repositories = {"backup": {"snapshots": [snapshot | {"indices": [], "data_streams": [], "shards": shards}]}}
    client = connect(stub.url)
    return [record for poll in Elasticsearch.polls() for record in read(client, poll)]


def test_all_that_is_emitted_is_declared_and_all_that_is_declared_is_emitted(
    stub: ElasticsearchStub, connect: Connect
) -> None:
    records = everything(stub, connect)
    assert undeclared(Elasticsearch, records) == []
    assert never_emitted(Elasticsearch, records) == []


def test_what_the_vendor_does_not_describe_is_found(start_stub: StartStub, vendor: Vendor | None) -> None:
    if vendor is None:
        pytest.skip("the vendor's description is not at hand (NMS_SPECS_DIR)")
    stub = start_stub()
    requests.get(f"{stub.url}/_cluster/health?no_such=1&level=galaxy", timeout=10)
    stub.node["os"]["cpu"]["percent"] = "much"
    requests.get(f"{stub.url}/_nodes/stats/os", timeout=10)
    told = " ".join(stub.violations)
    assert "no parameter no_such" in told
    assert "'galaxy' is not" in told
    assert "os.cpu.percent: 'much' is not" in told
    stub.violations.clear()


def test_the_declared_names_follow_the_conventions() -> None:
    declared = Elasticsearch.metrics().values()
    assert [m.name for m in declared if m.name.endswith("_total") != (m.type == "counter")] == []
    assert [m.name for m in declared if m.unit not in m.name or not m.description] == []


def test_every_dimension_of_netdatas_collector_is_covered(start_stub: StartStub, connect: Connect) -> None:
    contexts = tomllib.loads(Path(__file__).with_name("netdata_contexts.toml").read_text(encoding="utf-8"))
    assert len(contexts) == 46
    assert sum(map(len, contexts.values())) == 124
    given = emitted(everything(start_stub(), connect))
    ours = {one.metric.removeprefix("elasticsearch_") for one in given}
    ours |= {f"{one.metric.removeprefix('elasticsearch_')} {name}={text}" for one in given for name, text in one.labels}
    wanted = {text for dimensions in contexts.values() for text in dimensions.values()}
    assert wanted - ours == GONE
    assert {text.partition(" ")[0] for text in GONE} <= ours


@pytest.mark.parametrize(
    ("table", "path", "inside"),
    [
        ("node_stats", "/_nodes/stats", ("nodes", "*")),
        ("cluster_stats", "/_cluster/stats", ()),
        ("cluster_health", "/_cluster/health", ()),
        ("all_indices", "/_stats", ("_all",)),
        ("slm_stats", "/_slm/stats", ()),
    ],
)
def test_a_table_has_the_numbers_of_the_vendors_description(table: str, path: str, inside: tuple[str, ...]) -> None:
    rows = MappingTable(FOLDER / f"{table}.csv")
    told = {".".join(way[len(inside) :]) for way in numbers(path) if way[: len(inside)] == inside}
    asked = {name for name in told if not name.startswith(NOT_ASKED)}
    # A size is told twice: as a number of bytes, and in words for people, which may be a number in the description.
    asked = {name for name in asked if not {f"{name}_in_bytes", f"{name}_memory_in_bytes"} & told}
    if table == "cluster_health":
        asked = {name for name in asked if not name.startswith("indices.")}  # of level=indices
    assert len(told) > 5
    assert sorted(name for name in asked if not knows(rows, name)) == []
    texts = {"os.cgroup.memory.limit_in_bytes", "os.cgroup.memory.usage_in_bytes"}  # numbers written as text
    mapped = {name for name, row in rows.rows.items() if row.metric and "load_average" not in name}
    beyond = (
        mapped - told - texts - {name.replace("indices.", f"{at}.", 1) for name in LATER for at in ("indices", "total")}
    )
    assert sorted(beyond - LATER) == []


def knows(table: MappingTable, name: str) -> bool:
    """Whether a table has a row for a field, by asking it with an answer that holds nothing else."""
    answer: Any = 1
    for part in reversed(name.split(".")):
        answer = {part: answer}
    return table.unknown(answer) == []


def numbers(path: str) -> Iterator[tuple[str, ...]]:
    """The names on the way to each number that an answer may hold; `*` where names are free and in lists."""
    told = description(SPEC)
    response = _resolved(told, told["paths"][path]["get"]["responses"]["200"])
    yield from _numbers(told, response["content"]["application/json"]["schema"], (), ())


def _numbers(
    told: Mapping[str, Any], shape: Mapping[str, Any], way: tuple[str, ...], seen: tuple[str, ...]
) -> Iterator[tuple[str, ...]]:
    if "$ref" in shape:
        if shape["$ref"] in seen:
            return
        seen = (*seen, shape["$ref"])
        shape = _resolved(told, shape)
    if shape.get("type") in ("number", "integer", "boolean"):
        yield way
    for part in (*shape.get("allOf", ()), *shape.get("oneOf", ()), *shape.get("anyOf", ())):
        yield from _numbers(told, part, way, seen)
    for name, below in shape.get("properties", {}).items():
        yield from _numbers(told, below, (*way, name), seen)
    for more in ("additionalProperties", "items"):
        if isinstance(below := shape.get(more), Mapping):
            yield from _numbers(told, below, (*way, "*"), seen)


def _resolved(told: Mapping[str, Any], shape: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Any = told
    if "$ref" not in shape:
        return shape
    for name in shape["$ref"].removeprefix("#/").split("/"):
        found = found[name.replace("~1", "/")]
    return _resolved(told, found)
