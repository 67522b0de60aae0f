"""Records from what Kibana tells: samples in base units, entities, and events that fire while something is wrong."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from nms_workers.mapping import MappingTable
from nms_workers.records import Entity, Event, Link, Record, Sample, Severity
from nms_workers.services.kibana import model

_STATUS = MappingTable(Path(__file__).with_name("status.csv"))
_STATS = MappingTable(Path(__file__).with_name("stats.csv"))
_TASK_MANAGER = MappingTable(Path(__file__).with_name("task_manager.csv"))

_LEVELS = {"available": 0, "degraded": 1, "unavailable": 2, "critical": 3}
_HEALTH = {"ok": 0, "warn": 1, "error": 2}
_RULE_STATUSES = {"ok": 0, "active": 1, "warning": 2, "error": 3, "pending": 4, "unknown": 5}
_SEVERITIES: dict[str, Severity] = {
    "degraded": "warning", "unavailable": "error", "critical": "critical",
    "warn": "warning", "warning": "warning", "error": "error", "uninitialized": "warning",
}  # fmt: skip
_NAMED = 100  # unknown fields named
_LONGEST = 2000  # characters of Kibana's own words


def of_status(status: model.Status) -> Iterator[Record]:
    """Levels, metrics of the process and its host, and an event for the whole and each part that is not available."""
    version, unknown = status.version, _STATUS.unknown(status.metrics)
    about = {"version": version.number, "name": status.name, "uuid": status.uuid, "build_flavor": version.build_flavor}
    yield Sample("kibana_info", 1, about)
    yield from _STATUS.samples(status.metrics)
    yield from _rate(status.metrics)
    yield Sample("kibana_unknown_fields", len(unknown), {"answer": "status"})
    yield Entity("instance", status.uuid, about | {"level": status.status.overall.level} | _unknown(unknown))
    levels = status.status
    yield Sample("kibana_status_level", _level(levels.overall))
    for name, one in levels.core.items():
        yield Sample("kibana_core_status_level", _level(one), {"service": name})
    for name, one in levels.plugins.items():
        yield Sample("kibana_plugin_status_level", _level(one), {"plugin": name})
    count = Counter(one.level for one in levels.plugins.values())
    for level in dict.fromkeys((*_LEVELS, *sorted(count))):
        yield Sample("kibana_plugins", count[level], {"level": level})
    yield from _not_available("Kibana", "overall", levels.overall)
    for name, one in levels.core.items():
        yield from _not_available(f"core service {name}", f"core:{name}", one)
    for name, one in levels.plugins.items():
        yield from _not_available(f"plugin {name}", f"plugin:{name}", one)


def of_stats(status: model.Status, stats: Mapping[str, Any]) -> Iterator[Record]:
    """The status as a colour, and which Elasticsearch cluster this Kibana serves."""
    unknown = _STATS.unknown(stats)
    yield from _STATS.samples(stats)
    yield Sample("kibana_unknown_fields", len(unknown), {"answer": "stats"})
    cluster = stats.get("cluster_uuid")
    if isinstance(cluster, str) and cluster:
        yield Sample("kibana_cluster_info", 1, {"cluster_uuid": cluster})
        yield Entity("cluster", cluster)
        yield Link("serves", ("instance", status.uuid), ("cluster", cluster))


def of_objects(kind: str, objects: Sequence[model.SavedObject], total: int) -> Iterator[Record]:
    """How many saved objects of a type there are, and those that were listed as entities."""
    yield Sample("kibana_saved_objects", total, {"type": kind})
    yield Sample("kibana_left_out", total - len(objects), {"what": kind})
    for one in objects:
        about = {"type": one.type, "title": one.title[:_LONGEST], "updated_at": one.updated_at, "managed": one.managed}
        description = one.attributes.get("description")
        yield Entity("saved_object", f"{one.type}/{one.id}", about | {"description": str(description or "")[:_LONGEST]})


def of_data_views(views: Sequence[model.DataView], limit: int) -> Iterator[Record]:
    """How many data views there are, and up to `limit` of them as entities."""
    yield Sample("kibana_data_views", len(views))
    yield Sample("kibana_left_out", max(0, len(views) - limit), {"what": "data_view"})
    for one in views[:limit]:
        about = {"title": one.title[:_LONGEST], "name": one.name[:_LONGEST], "namespaces": list(one.namespaces[:100])}
        yield Entity("data_view", one.id, about)


def of_task_manager(health: model.TaskManagerHealth, limit: int) -> Iterator[Record]:
    """Capacity, drift, load and workload; an event for each part and type of task that is not well.

    Args:
        limit: how many types of tasks get series.
    """
    stats = msgspec.to_builtins(health.stats)
    task_statuses = _task_statuses(stats)
    left_out = _bound_types(stats, limit)
    unknown = _TASK_MANAGER.unknown(stats)
    yield Sample("kibana_task_manager_health", _HEALTH.get(health.status.lower(), 3))
    yield from _TASK_MANAGER.samples(stats)
    yield Sample("kibana_unknown_fields", len(unknown), {"answer": "task_manager"})
    yield Sample("kibana_left_out", left_out, {"what": "task_type"})
    yield Entity("task_manager", "task_manager", {"status": health.status} | _unknown(unknown))
    yield from _unwell("task_manager_unhealthy", "the task manager", "task_manager", health.status, "")
    for name, part in health.stats.items():
        what = f"the {name.replace('_', ' ')} of the task manager"
        yield from _unwell("task_manager_unhealthy", what, f"task_manager:{name}", part.status, part.reason)
    for kind, status in task_statuses:
        yield from _unwell("task_manager_unhealthy", f"tasks of type {kind}", f"task_type:{kind}", status, "runs fail")


def of_alerting(health: model.AlertingHealth) -> Iterator[Record]:
    """The alerting framework: what it checks of itself, and an event for each check that fails."""
    yield Sample("kibana_alerting_sufficiently_secure", health.is_sufficiently_secure)
    yield Sample("kibana_alerting_permanent_encryption_key", health.has_permanent_encryption_key)
    for name, one in health.alerting_framework_health.items():
        check = name.removesuffix("_health")
        yield Sample("kibana_alerting_health", _HEALTH.get(one.status.lower(), 3), {"check": check})
        yield from _unwell("alerting_unhealthy", f"{check} of alerting rules", f"alerting:{check}", one.status, "")


def of_rules(rules: Sequence[model.Rule], total: int) -> Iterator[Record]:
    """Rules as entities, by the status of their last run, and an event for each that failed or has active alerts."""
    enabled = [one for one in rules if one.enabled]
    count = Counter(one.execution_status.status for one in enabled)
    for status in dict.fromkeys((*_RULE_STATUSES, *sorted(count))):
        yield Sample("kibana_rules", count[status], {"status": status})
    yield Sample("kibana_rules_enabled", len(enabled))
    yield Sample("kibana_rules_disabled", len(rules) - len(enabled))
    yield Sample("kibana_rules_muted", sum(one.mute_all for one in enabled))
    yield Sample("kibana_left_out", total - len(rules), {"what": "rule"})
    for one in rules:
        yield from _rule(one)


def _rule(rule: model.Rule) -> Iterator[Record]:
    run, labels = rule.execution_status, {"rule_id": rule.id}
    active = rule.last_run.alerts_count.active if rule.last_run else None
    about = {
        "name": rule.name[:_LONGEST], "rule_type": rule.rule_type_id, "consumer": rule.consumer,
        "enabled": rule.enabled, "muted": rule.mute_all, "interval": rule.schedule.interval,
        "tags": list(rule.tags[:100]), "status": run.status,
    }  # fmt: skip
    yield Entity("rule", rule.id, about)
    if not rule.enabled:
        return
    yield Sample("kibana_rule_status", _RULE_STATUSES.get(run.status, 5), labels)
    if run.last_duration is not None:
        yield Sample("kibana_rule_duration_seconds", run.last_duration / 1000, labels)
    if active is not None:
        yield Sample("kibana_rule_active_alerts", active, labels)
    told: dict[str, Any] = {"rule_id": rule.id, "rule": rule.name[:_LONGEST], "rule_type": rule.rule_type_id}
    trouble = run.error or run.warning
    if run.status in ("error", "warning"):
        why = f": {trouble.reason}: {trouble.message}" if trouble else ""
        words = f"rule {rule.name} ended with {'an error' if run.status == 'error' else 'a warning'}{why}"
        attributes = told | {"reason": trouble.reason if trouble else ""}
        severity = _SEVERITIES[run.status]
        yield Event("rule_failing", words[:_LONGEST], severity, f"rule_failing:{rule.id}", "firing", attributes)
    if run.status == "active" or active:
        words = f"rule {rule.name} has active alerts"
        attributes = told | {"active": active, "muted": rule.mute_all}
        yield Event("rule_active", words[:_LONGEST], "warning", f"rule_active:{rule.id}", "firing", attributes)


def _not_available(what: str, fingerprint: str, one: model.ServiceStatus) -> Iterator[Event]:
    if one.level == "available":
        return
    message = f"{what} is {one.level}: {one.summary}"[:_LONGEST]
    severity = _SEVERITIES.get(one.level, "error")
    about = {"level": one.level, "summary": one.summary[:_LONGEST], "detail": (one.detail or "")[:_LONGEST]}
    yield Event("service_unavailable", message, severity, fingerprint, "firing", about)


def _unwell(kind: str, what: str, fingerprint: str, status: str, reason: str) -> Iterator[Event]:
    if status.lower() == "ok":
        return
    message = f"{what}: {status}" + (f", {reason}" if reason else "")
    severity = _SEVERITIES.get(status.lower(), "warning")
    yield Event(kind, message[:_LONGEST], severity, fingerprint, "firing", {"status": status})


def _level(one: model.ServiceStatus) -> int:
    return _LEVELS.get(one.level, 4)


def _rate(metrics: Mapping[str, Any]) -> Iterator[Sample]:
    """Requests a second: Kibana counts those of the last collection only."""
    requests = metrics.get("requests")
    total = requests.get("total") if isinstance(requests, Mapping) else None
    interval = metrics.get("collection_interval_in_millis")
    if isinstance(total, int | float) and isinstance(interval, int | float) and interval > 0:
        yield Sample("kibana_requests_per_second", total / interval * 1000)


_RESULTS = ("runtime", "value", "execution", "result_frequency_percent_as_number")
_BY_TYPE = (
    ("runtime", "value", "drift_by_type"),
    ("runtime", "value", "execution", "duration"),
    _RESULTS,
    ("workload", "value", "task_types"),
)


def _task_statuses(stats: dict[str, Any]) -> list[tuple[str, str]]:
    """Types of tasks and how their runs went."""
    runs = (_at(stats, _RESULTS) or {}).items()
    return [(kind, str(one["status"])) for kind, one in runs if isinstance(one, dict) and "status" in one]


def _bound_types(stats: dict[str, Any], limit: int) -> int:
    """Leave the types of tasks out that are over the limit, by name; how many."""
    found = [place for way in _BY_TYPE if (place := _at(stats, way)) is not None]
    types = sorted({kind for place in found for kind in place})
    for place in found:
        for kind in place.keys() & set(types[limit:]):
            del place[kind]
    return max(0, len(types) - limit)


def _at(stats: dict[str, Any], way: Sequence[str]) -> dict[str, Any] | None:
    """A mapping deep inside, as far as it is there."""
    place: Any = stats
    for name in way:
        place = place.get(name) if isinstance(place, dict) else None
    return place if isinstance(place, dict) else None


def _unknown(fields: Sequence[str]) -> dict[str, Any]:
    return {"unknown_fields": list(fields[:_NAMED])}
