"""Records from what Prometheus tells of itself: targets, rules, alerts, the server and its head."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from hashlib import blake2b
from pathlib import Path
from typing import Any, get_args
from urllib.parse import urlsplit

import msgspec

from nms_workers.mapping import MappingTable
from nms_workers.records import MAX_LABEL_VALUE, Entity, Event, Record, Sample, Severity
from nms_workers.services.prometheus import model
from nms_workers.services.prometheus.api import words

_STATUS = MappingTable(Path(__file__).with_name("status.csv"))
_HEALTHS = ("up", "down", "unknown")
_RULE_HEALTHS = ("ok", "err", "unknown")
_STATES = ("pending", "firing")
_MOST_NAMED = 100  # unknown fields
_LONG = 20_000  # characters of an expression
_LABELS, _ANNOTATIONS = (50, 500), (20, 2000)  # how many are told of one thing, and how much of each

# what people call severities in their alerts' label, beside our own words
_SEVERITIES: dict[str, Severity] = {
    **{word: word for word in get_args(Severity)},
    "page": "critical", "emergency": "critical", "fatal": "critical", "disaster": "critical", "high": "error",
    "major": "error", "minor": "warning", "warn": "warning", "medium": "warning", "low": "info", "none": "debug",
}  # fmt: skip

# of the many options those that change what a person may expect of the server
_FLAGS = (
    "agent", "config.file", "enable-feature", "query.lookback-delta", "query.max-concurrency", "query.max-samples",
    "query.timeout", "storage.tsdb.path", "storage.tsdb.retention.size", "storage.tsdb.retention.time",
    "web.enable-admin-api", "web.enable-lifecycle", "web.enable-otlp-receiver", "web.enable-remote-write-receiver",
    "web.listen-address", "web.max-connections",
)  # fmt: skip


def of_targets(targets: Sequence[model.Target], most: int) -> Iterator[Record]:
    """How many there are by health, and the first `most` of them; an event while one is down."""
    count = Counter(one.health for one in targets)
    for health in _HEALTHS:
        yield Sample("prometheus_targets", count[health], {"health": health})
    for one in targets[:most]:
        yield from _of_target(one)


def of_rules(groups: Sequence[model.RuleGroup]) -> Iterator[Record]:
    """Groups and rules: health, times; an event while a rule cannot be evaluated."""
    count: Counter[str] = Counter()
    for group in groups:
        rules = group.rules or []
        count.update(rule.health for rule in rules)
        where = {"file": _label(group.file), "group": _label(group.name)}
        yield Sample("prometheus_group_rules", len(rules), where)
        yield Sample("prometheus_group_interval_seconds", group.interval, where)
        if (at := _unix(group.last_evaluation)) is not None:
            yield Sample("prometheus_group_last_evaluation_seconds", group.evaluation_time, where)
            yield Sample("prometheus_group_last_evaluation_timestamp_seconds", at, where)
        seen: Counter[str] = Counter()
        for rule in rules:
            yield from _of_rule(where, rule, seen[rule.name])
            seen[rule.name] += 1
    for health in _RULE_HEALTHS:
        yield Sample("prometheus_rules", count[health], {"health": health})


def of_alerts(alerts: Sequence[model.Alert], most: int) -> Iterator[Record]:
    """How many are pending and firing, in all and by name; an event for each of the first `most` that fire."""
    count = Counter(one.state for one in alerts)
    for state in _STATES:
        yield Sample("prometheus_alerts", count[state], {"state": state})
    by_name = Counter((_label(one.labels.get("alertname", "")), one.state) for one in alerts[:most])
    for (name, state), number in sorted(by_name.items()):
        yield Sample("prometheus_alert_instances", number, {"alertname": name, "state": state})
    for one in alerts[:most]:
        if one.state == "firing":
            yield _event(one)


def of_alertmanagers(known: model.Alertmanagers) -> Iterator[Record]:
    """How many there are."""
    yield Sample("prometheus_alertmanagers", len(known.active_alertmanagers or ()), {"state": "active"})
    yield Sample("prometheus_alertmanagers", len(known.dropped_alertmanagers or ()), {"state": "dropped"})


def of_server(
    build: model.Build, runtime: Mapping[str, Any], replay: Mapping[str, Any], flags: Mapping[str, str], digest: str
) -> Iterator[Record]:
    """Version, state of the process, how its configuration was loaded; an event while the last reload has failed."""
    about = {"version": build.version, "revision": build.revision, "branch": build.branch}
    yield Sample("prometheus_server_info", 1, about | {"go_version": build.go_version})
    answer = {"runtimeinfo": runtime, "walreplay": replay}
    yield from _STATUS.samples(answer)
    for field, metric in (
        ("startTime", "prometheus_server_start_timestamp_seconds"),
        ("lastConfigTime", "prometheus_server_config_loaded_timestamp_seconds"),
    ):
        if (at := _unix(moment(runtime.get(field)))) is not None:
            yield Sample(metric, at)
    unknown = _STATUS.unknown(answer)
    yield Sample("prometheus_unknown_fields", len(unknown), {"answer": "runtimeinfo"})
    known = {
        "started_at": runtime.get("startTime"),
        "storage_retention": runtime.get("storageRetention"),
        "configuration_sha256": digest,
        "flags": {name: words(flags[name]) for name in _FLAGS if name in flags},
        "unknown_fields": unknown[:_MOST_NAMED],
    }
    yield Entity("server", "prometheus", about | known)
    if runtime.get("reloadConfigSuccess") is False:
        message = "the last reload of the configuration failed: the server goes on with the one before"
        yield Event(
            "config_reload_failed", message, "error", state="firing", attributes={"configuration_sha256": digest}
        )


def of_replay(replay: Mapping[str, Any]) -> Iterator[Record]:
    """How far a server that is starting has read its write-ahead log."""
    yield from _STATUS.samples({"walreplay": replay})


def of_head(status: Mapping[str, Any]) -> Iterator[Record]:
    """What the head block holds."""
    answer = {"tsdb": status}
    yield from _STATUS.samples(answer)
    unknown = _STATUS.unknown(answer)
    yield Sample("prometheus_unknown_fields", len(unknown), {"answer": "tsdb"})
    yield Entity("tsdb", "head", {"head_stats": status.get("headStats"), "unknown_fields": unknown[:_MOST_NAMED]})


def of_tops(tops: model.Tops, most: int) -> Iterator[Record]:
    """Where the series come from: the metrics, labels and pairs with the most."""
    for metric, label, counted in (
        ("prometheus_metric_series", "metric", tops.series_count_by_metric_name),
        ("prometheus_label_values", "label", tops.label_value_count_by_label_name),
        ("prometheus_label_memory_bytes", "label", tops.memory_in_bytes_by_label_name),
        ("prometheus_label_pair_series", "pair", tops.series_count_by_label_value_pair),
    ):
        for one in counted[:most]:
            yield Sample(metric, one.value, {label: _label(one.name)})


def moment(text: object) -> datetime | None:
    """A time as the server writes it; None: there is none."""
    try:
        return msgspec.convert(text, datetime)
    except msgspec.ValidationError:
        return None


def _of_target(one: model.Target) -> Iterator[Record]:
    job, instance = one.labels.get("job", ""), one.labels.get("instance", "")
    others = _written({name: text for name, text in one.labels.items() if name not in ("job", "instance")})
    labels = {"scrape_pool": one.scrape_pool, "job": job, "instance": instance, "labels": others}
    labels = {name: _label(text) for name, text in labels.items()}
    key = _bounded(f"{one.scrape_pool}/{_written(one.labels)}", 4096)
    about = {
        "scrape_pool": one.scrape_pool,
        "labels": _some(one.labels, *_LABELS),
        "url": _plain_url(one.scrape_url),
        "health": one.health,
        "last_error": words(one.last_error),
        "last_scrape": one.last_scrape.isoformat() if _unix(one.last_scrape) is not None and one.last_scrape else None,
        "scrape_interval": one.scrape_interval,
        "scrape_timeout": one.scrape_timeout,
    }
    yield Entity("scrape_target", key, about)
    if one.health in ("up", "down"):
        yield Sample("prometheus_target_up", one.health == "up", labels)
    if (at := _unix(one.last_scrape)) is not None:
        yield Sample("prometheus_target_last_scrape_seconds", one.last_scrape_duration, labels)
        yield Sample("prometheus_target_last_scrape_timestamp_seconds", at, labels)
    if one.health == "down":
        message = f"Prometheus cannot scrape {instance or key} of {one.scrape_pool}: {words(one.last_error)}"
        yield Event("target_down", message[:2000], "error", f"target_down:{key}", "firing", about)


def _of_rule(where: Mapping[str, str], rule: model.Rule, index: int) -> Iterator[Record]:
    labels = {**where, "rule": _label(rule.name), "type": rule.type, "index": str(index)}
    key = _bounded(f"{where['file']}/{where['group']}/{rule.name}/{index}", 4096)
    about: dict[str, Any] = {
        "file": where["file"],
        "group": where["group"],
        "name": rule.name,
        "type": rule.type,
        "query": rule.query[:_LONG],
        "labels": _some(rule.labels or {}, *_LABELS),
        "health": rule.health,
        "last_error": words(rule.last_error),
    }
    if rule.type == "alerting":
        about |= {"state": rule.state, "for_seconds": rule.duration, "keep_firing_for_seconds": rule.keep_firing_for}
    yield Entity("rule", key, about)
    if rule.health in ("ok", "err"):
        yield Sample("prometheus_rule_healthy", rule.health == "ok", labels)
    if (at := _unix(rule.last_evaluation)) is not None:
        yield Sample("prometheus_rule_last_evaluation_seconds", rule.evaluation_time, labels)
        yield Sample("prometheus_rule_last_evaluation_timestamp_seconds", at, labels)
    if rule.health == "err":
        message = f"the rule {rule.name} of {where['group']} cannot be evaluated: {words(rule.last_error)}"
        yield Event("rule_failing", message[:2000], "error", f"rule_failing:{key}", "firing", about)


def _event(alert: model.Alert) -> Event:
    name, said = alert.labels.get("alertname", "alert"), alert.annotations
    text = next((said[one] for one in ("summary", "message", "description") if said.get(one)), "")
    about = {
        "labels": _some(alert.labels, *_LABELS),
        "annotations": _some(said, *_ANNOTATIONS),
        "value": alert.value,
        "active_at": alert.active_at.isoformat() if alert.active_at else None,
    }
    severity = _SEVERITIES.get(alert.labels.get("severity", "").lower(), "warning")
    fingerprint = _bounded(f"alert:{_written(alert.labels)}", 4096)
    return Event("alert", f"{name}: {words(text)}" if text else name, severity, fingerprint, "firing", about)


def _written(labels: Mapping[str, str]) -> str:
    """Labels as PromQL writes them, in one order."""
    return ",".join(f"{name}={msgspec.json.encode(text).decode()}" for name, text in sorted(labels.items()))


def _some(texts: Mapping[str, str], most: int, longest: int) -> dict[str, str]:
    return {name: text[:longest] for name, text in list(texts.items())[:most]}


def _label(text: str) -> str:
    return _bounded(text, MAX_LABEL_VALUE)


def _bounded(text: str, most: int) -> str:
    """The text; a longer one ends in its digest, so that it still tells itself apart."""
    if len(text) <= most:
        return text
    return f"{text[: most - 17]}…{blake2b(text.encode(), digest_size=8).hexdigest()}"


def _plain_url(url: str) -> str:
    """Without user and query, which may hold secrets."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _unix(at: datetime | None) -> float | None:
    """Unix seconds; None for Go's zero time, which means never."""
    return at.timestamp() if at is not None and at.year > 1 else None
