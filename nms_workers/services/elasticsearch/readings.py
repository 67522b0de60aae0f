"""Records from what a cluster tells: samples in base units, entities, events that fire while something is wrong."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from nms_workers.mapping import MappingTable
from nms_workers.records import Entity, Event, Record, Sample, Severity
from nms_workers.services.elasticsearch import model

Json = Mapping[str, Any]

_FOLDER = Path(__file__).parent
_HEALTH, _DETAILS, _CLUSTER, _NODE, _INDEX, _ALL = (
    MappingTable(_FOLDER / f"{name}.csv")
    for name in ("cluster_health", "health_details", "cluster_stats", "node_stats", "index_stats", "all_indices")
)
_STATUS = {"green": 0, "yellow": 1, "red": 2, "unknown": 3}
_SEVERITY: dict[str, Severity] = {"green": "info", "yellow": "warning", "red": "critical", "unknown": "warning"}
_NAMED = 100  # unknown fields that are told by name
_ENTITIES = 5000  # indices that are known by name, whether they have series or not


def unknown(answer: str, table: MappingTable, answers: Sequence[Json]) -> Iterator[Record]:
    """How many numbers of these answers the table does not have, and their names."""
    names = sorted({name for one in answers for name in table.unknown(one)})
    yield Sample("elasticsearch_unknown_fields", len(names), {"answer": answer})
    yield Entity("answer", answer, {"unknown_fields": names[:_NAMED]})


def of_health(root: model.Root, health: Json) -> Iterator[Record]:
    """The cluster: its version, its status, its counts; an event that fires while it is not green."""
    about = {"cluster": root.cluster_name, "version": root.version.number, "flavor": root.version.build_flavor}
    yield Sample("elasticsearch_info", 1, about)
    yield Entity("cluster", root.cluster_uuid or root.cluster_name, about | {"status": health.get("status")})
    status = str(health.get("status"))
    for one in ("green", "yellow", "red"):
        yield Sample("elasticsearch_cluster_status", one == status, {"status": one})
    yield from _HEALTH.samples(health)
    yield from unknown("cluster_health", _HEALTH, [health])
    if status in ("yellow", "red"):
        away = health.get("unassigned_shards", 0)
        message = f"cluster {root.cluster_name} is {status}: {away} shards have no node"
        counts = {name: health.get(name) for name in ("unassigned_shards", "unassigned_primary_shards")}
        yield Event("cluster_status", message, _SEVERITY[status], "", "firing", {"status": status, **counts})


def of_report(report: model.HealthReport) -> Iterator[Record]:
    """Each indicator, and an event that fires while it is not green, with what it means and what to do."""
    for name, one in report.indicators.items():
        yield Sample("elasticsearch_health_status", _STATUS.get(one.status, _STATUS["unknown"]), {"indicator": name})
        if one.status != "green":
            yield _not_green(name, one)
    details = {name: one.details for name, one in report.indicators.items()}
    yield from _DETAILS.samples(details)
    yield from unknown("health_report", _DETAILS, [details])


def _not_green(name: str, one: model.Indicator) -> Event:
    attributes = {
        "indicator": name,
        "status": one.status,
        "symptom": one.symptom,
        "impacts": [impact.description for impact in one.impacts[:10]],
        "causes": [diagnosis.cause for diagnosis in one.diagnosis[:10]],
        "actions": [diagnosis.action for diagnosis in one.diagnosis[:10]],
        "help": [diagnosis.help_url for diagnosis in one.diagnosis[:10]],
    }
    message = f"{name} is {one.status}: {one.symptom[:2000]}"
    severity = _SEVERITY.get(one.status, "warning")
    return Event("health_indicator", message, severity, f"health_indicator:{name}", "firing", attributes)


def of_cluster(stats: Json) -> Iterator[Record]:
    """Sums over the cluster."""
    yield from _CLUSTER.samples(stats)
    yield from unknown("cluster_stats", _CLUSTER, [stats])


def of_nodes(stats: Json, nodes: Sequence[model.CatNode], most: int, most_pipelines: int) -> Iterator[Record]:
    """Each node by the table; the first `most` by name."""
    yield Sample("elasticsearch_nodes_failed", stats.get("_nodes", {}).get("failed", 0))
    known = {one.id: one for one in nodes}
    found: dict[str, Json] = stats.get("nodes", {})
    twice = Counter(str(one.get("name")) for one in found.values())
    every = sorted(found.items(), key=lambda item: (str(item[1].get("name")), item[0]))
    read, pipelines = [], 0
    for key, told in every:
        yield _node(key, told, known.get(key))
    for key, told in every[:most]:
        name = str(told.get("name") or key)
        node, dropped = _as_mapping(told, most_pipelines)
        pipelines += dropped
        read.append(node)
        yield from _of_node(name if twice[name] == 1 else f"{name}/{key}", node, known.get(key))
    yield Sample("elasticsearch_left_out", max(0, len(every) - most), {"what": "nodes"})
    yield Sample("elasticsearch_left_out", pipelines, {"what": "pipelines"})
    yield from unknown("node_stats", _NODE, read)


def _node(key: str, node: Json, cat: model.CatNode | None) -> Entity:
    about = {one: node.get(one) for one in ("name", "host", "ip", "transport_address", "roles", "attributes")}
    if cat is not None:
        about |= {"version": cat.version, "jdk": cat.jdk, "master": cat.master == "*"}
    return Entity("node", key, about)


def _of_node(name: str, node: Json, cat: model.CatNode | None) -> Iterator[Record]:
    if cat is not None:
        yield Sample("elasticsearch_node_info", 1, {"node": name, "version": cat.version, "jdk": cat.jdk})
        yield Sample("elasticsearch_node_master", cat.master == "*", {"node": name})
    yield from _NODE.samples(node, {"node": name})


def _as_mapping(node: Json, most_pipelines: int) -> tuple[dict[str, Any], int]:
    """A node's statistics with its lists by name, the busiest pipelines alone, and how many were left out."""
    made = dict(node)
    if "fs" in node:
        fs = dict(node["fs"])
        fs["data"] = {one.get("path", str(at)): one for at, one in enumerate(fs.get("data", ()))}
        if "io_stats" in fs:
            devices = fs["io_stats"].get("devices", ())
            named = {one.get("device_name", str(at)): one for at, one in enumerate(devices)}
            fs["io_stats"] = fs["io_stats"] | {"devices": named}
        made["fs"] = fs
    pipelines = node.get("ingest", {}).get("pipelines", {})
    busy = sorted(pipelines.items(), key=lambda item: (-item[1].get("count", 0), item[0]))
    if pipelines:
        made["ingest"] = node["ingest"] | {"pipelines": dict(busy[:most_pipelines])}
    return made, max(0, len(busy) - most_pipelines)


def of_indices(indices: Sequence[model.CatIndex], most: int) -> Iterator[Record]:
    """How many there are, and the `most` biggest each; red ones fire, whatever their size."""
    status = Counter(one.status for one in indices)
    for name in ("open", "close"):
        yield Sample("elasticsearch_indices", status[name], {"status": name})
    health = Counter(one.health for one in indices if one.status == "open")
    for name in ("green", "yellow", "red"):
        yield Sample("elasticsearch_indices_with_health", health[name], {"health": name})
    yield Sample("elasticsearch_left_out", max(0, len(indices) - most), {"what": "indices"})
    for one in indices[:_ENTITIES]:
        about = {"status": one.status, "health": one.health, "uuid": one.uuid}
        yield Entity("index", one.index, about | {"primaries": one.pri, "replicas": one.rep})
    for one in indices[:most]:
        if one.health in _STATUS:
            yield Sample("elasticsearch_index_health", _STATUS[one.health], {"index": one.index})
        yield Sample("elasticsearch_index_primaries", int(one.pri), {"index": one.index})
        yield Sample("elasticsearch_index_replicas", int(one.rep), {"index": one.index})


def of_red(indices: Sequence[model.CatIndex], most: int) -> Iterator[Record]:
    """An event for each index that is red."""
    red = sorted(one.index for one in indices if one.health == "red")
    for name in red[:most]:
        message = f"index {name} is red: some of its data cannot be reached"
        yield Event("index_red", message, "critical", f"index_red:{name}", "firing", {"index": name})
    yield Sample("elasticsearch_left_out", max(0, len(red) - most), {"what": "red_indices"})


def of_all_indices(stats: Json) -> Iterator[Record]:
    """Sums over all indices that are read."""
    yield from _ALL.samples(stats)
    yield from unknown("indices_stats", _ALL, [stats])


def of_index(name: str, stats: Json) -> Iterator[Record]:
    """The statistics of one index."""
    yield from _INDEX.samples(stats, {"index": name})
