"""Records from what Grafana tells: samples in base units, entities, and events for what is wrong."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

from nms_workers.mapping import MappingTable
from nms_workers.records import Entity, Event, Record, Sample, Severity
from nms_workers.services.grafana import model
from nms_workers.services.grafana.checks import Checked
from nms_workers.services.grafana.client import FIRING

_STATISTICS = MappingTable(Path(__file__).with_name("statistics.csv"))
_LICENSE = MappingTable(Path(__file__).with_name("license.csv"))
_MOST_UNKNOWN = 100  # names of fields that an entity tells
_LONGEST = 500  # characters of a text that others wrote

_ROLES = ("Admin", "Editor", "Viewer", "None")
_RULE_STATES = ("firing", "pending", "recovering", "inactive")
_RULE_HEALTH = ("ok", "error", "nodata", "unknown")
_ALERT_STATES = ("alerting", "pending", "recovering", "nodata", "error", "normal")
_BEGINNING = datetime(1971, 1, 1, tzinfo=UTC)  # Go tells "never" as the year 1

# What people call how bad it is, in the label `severity` of their rules.
_SEVERITIES: dict[str, Severity] = {
    "critical": "critical", "crit": "critical", "emergency": "critical", "page": "critical", "disaster": "critical",
    "error": "error", "high": "error", "major": "error",
    "info": "info", "informational": "info", "low": "info", "none": "info",
    "debug": "debug",
}  # fmt: skip


def of_health(health: model.Health) -> Iterator[Record]:
    """Version and edition, and an event that fires while the database does not answer."""
    about = {"version": health.version, "commit": health.commit, "edition": health.edition}
    yield Entity("server", "grafana", about | {"database": health.database})
    yield Sample("grafana_info", 1, {"version": health.version, "edition": health.edition})
    yield Sample("grafana_database_up", health.database == "ok")
    if health.database != "ok":
        message = f"Grafana says that its database is {health.database[:_LONGEST]!r}"
        yield Event("database_down", message, "critical", "database_down", "firing")


def of_dashboards(dashboards: Sequence[model.Hit]) -> Iterator[Record]:
    """How many there are in each folder, and each as an entity."""
    yield Sample("grafana_dashboards", len(dashboards))
    names = {one.folder_uid: one.folder_title or "General" for one in dashboards}
    for uid, count in sorted(Counter(one.folder_uid for one in dashboards).items()):
        yield Sample("grafana_folder_dashboards", count, {"folder_uid": uid, "folder": _short(names[uid])})
    for one in dashboards:
        yield Entity("dashboard", one.uid, _about_hit(one))


def of_folders(folders: Sequence[model.Hit]) -> Iterator[Record]:
    """How many there are, and each as an entity that names the folder around it."""
    yield Sample("grafana_folders", len(folders))
    for one in folders:
        yield Entity("folder", one.uid, _about_hit(one))


def of_sources(sources: Sequence[model.Datasource]) -> Iterator[Record]:
    """How many there are of each type."""
    yield Sample("grafana_datasources", len(sources))
    for kind, count in sorted(Counter(one.type for one in sources).items()):
        yield Sample("grafana_datasources_of_type", count, {"type": kind})


def of_source(source: model.Datasource, checked: Checked | None) -> Iterator[Record]:
    """A data source as an entity, how it is, and an event that fires while it is unhealthy. None: it was not asked."""
    names = ("name", "type", "type_name", "access", "database", "is_default", "read_only", "basic_auth")
    about = {name: getattr(source, name) for name in names} | {"url": _without_secrets(source.url)}
    told = {"health": checked.verdict, "message": checked.words} if checked else {"health": "unchecked"}
    yield Entity("datasource", source.uid, about | told)
    if checked is None or checked.verdict not in ("healthy", "unhealthy"):
        return
    labels = {"uid": source.uid, "name": _short(source.name), "type": source.type}
    yield Sample("grafana_datasource_healthy", checked.verdict == "healthy", labels)
    yield Sample("grafana_datasource_check_seconds", checked.seconds, labels)
    if checked.verdict == "unhealthy":
        why = checked.words or "it says no more"
        message = f"data source {_short(source.name)} ({source.type}) is unhealthy: {why}"
        attributes = {"uid": source.uid, "name": source.name, "type": source.type, "message": checked.words}
        fingerprint = f"datasource_unhealthy:{source.uid}"
        yield Event("datasource_unhealthy", message, "error", fingerprint, "firing", attributes)


def of_checks(verdicts: Counter[str]) -> Iterator[Record]:
    """How many data sources are how."""
    for verdict in ("healthy", "unhealthy", "unchecked"):
        yield Sample("grafana_datasources_in_health", verdicts[verdict], {"health": verdict})


def of_users(users: Sequence[model.User], active_days: float) -> Iterator[Record]:
    """How many there are with each role, active and disabled, and each as an entity without its e-mail address."""
    since = datetime.now(UTC) - timedelta(days=active_days)
    active = [one for one in users if one.last_seen_at and one.last_seen_at >= since and not one.is_disabled]
    roles = Counter(one.role for one in users)
    for role in (*_ROLES, *sorted(set(roles) - set(_ROLES))):
        yield Sample("grafana_org_users", roles[role], {"role": role})
    yield Sample("grafana_org_users_active", len(active))
    yield Sample("grafana_org_users_disabled", sum(one.is_disabled for one in users))
    for one in users:
        about = {"login": _no_address(one.login), "name": _no_address(one.name), "role": one.role}
        seen = one.last_seen_at.isoformat() if one.last_seen_at and one.last_seen_at > _BEGINNING else None
        more = {"disabled": one.is_disabled, "last_seen": seen, "signs_in_by": list(one.auth_labels or ())}
        yield Entity("user", str(one.user_id), about | more)


def of_org(org: model.Org) -> Iterator[Record]:
    """The organisation, as an entity."""
    yield Sample("grafana_org_info", 1, {"org_id": str(org.id), "org": _short(org.name)})
    yield Entity("organisation", str(org.id), {"name": org.name})


def of_statistics(statistics: Mapping[str, Any]) -> Iterator[Record]:
    """Counts over all organisations."""
    yield from _STATISTICS.samples(statistics)
    yield from _unknown("statistics", _STATISTICS.unknown(statistics), {})


def of_license(health: model.Health, license_: Mapping[str, Any] | None) -> Iterator[Record]:
    """Whether there is a licence, when it ends, and an event that fires when that is soon."""
    yield Sample("grafana_licensed", license_ is not None, {"edition": health.edition})
    if license_ is None:
        return
    yield from _LICENSE.samples(license_)
    about = {name: license_[name] for name in ("lid", "company", "prod", "limit_by", "slug") if name in license_}
    yield from _unknown("license", _LICENSE.unknown(license_), about)
    ends, warn = license_.get("lexp"), license_.get("lic_exp_warn_days")
    if isinstance(ends, int) and ends > 0:
        left = ends - datetime.now(UTC).timestamp()
        if left < 86_400 * (warn if isinstance(warn, int) else 0):
            word = "has ended" if left < 0 else "ends"
            message = f"the licence of Grafana {word} {datetime.fromtimestamp(ends, UTC):%Y-%m-%d %H:%M} UTC"
            severity: Severity = "critical" if left < 0 else "warning"
            yield Event("license_expires", message, severity, "license_expires", "firing", {"ends": ends})


def of_rules(rules: Sequence[tuple[model.Group, model.Rule]]) -> Iterator[Record]:
    """How many rules and alerts are in each state; each rule as an entity, and an event if it cannot be evaluated."""
    yield from _counts("grafana_alert_rules", "state", _RULE_STATES, Counter(rule.state for _, rule in rules))
    yield from _counts("grafana_alert_rules_in_health", "health", _RULE_HEALTH, Counter(r.health for _, r in rules))
    yield from _counts("grafana_alerts", "state", _ALERT_STATES, _alert_states(rules))
    if any(rule.is_paused is not None for _, rule in rules):
        yield Sample("grafana_alert_rules_paused", sum(bool(rule.is_paused) for _, rule in rules))
    for group, rule in rules:
        yield from _of_rule(group, rule)


def of_alert(group: model.Group, rule: model.Rule, alert: model.Alert) -> Event:
    """A firing alert. It is the same one as long as it has the same folder, rule and labels."""
    labels, notes = alert.labels, alert.annotations or {}
    summary = notes.get("summary") or notes.get("description") or rule.name
    message = f"{_short(rule.name)}: {summary}"[:_LONGEST]
    severity = _SEVERITIES.get(labels.get("severity", "").lower(), "warning")
    attributes = {
        "rule": rule.name,
        "rule_uid": rule.uid,
        "group": group.name,
        "folder": group.file,
        "state": alert.state,
        "labels": labels,
        "annotations": {name: text[:_LONGEST] for name, text in notes.items()},
        "value": alert.value[:_LONGEST],
        "active_at": alert.active_at.isoformat() if alert.active_at else None,
    }
    return Event("alert", message, severity, f"alert:{_fingerprint(group, rule, labels)}", "firing", attributes)


def _of_rule(group: model.Group, rule: model.Rule) -> Iterator[Record]:
    key = _rule_key(group, rule)
    about = {
        "name": rule.name,
        "uid": rule.uid,
        "group": group.name,
        "folder": group.file,
        "folder_uid": group.folder_uid,
        "type": rule.type,
        "state": rule.state,
        "health": rule.health,
        "paused": rule.is_paused,
        "provenance": rule.provenance,
        "labels": rule.labels or {},
        "for_seconds": rule.duration,
        "interval_seconds": group.interval,
        "last_error": rule.last_error[:_LONGEST],
    }
    yield Entity("alert_rule", key, about)
    labels = {"rule": key[:1000], "name": _short(rule.name)}
    yield Sample("grafana_alert_rule_evaluation_seconds", rule.evaluation_time, labels)
    if rule.last_evaluation and rule.last_evaluation > _BEGINNING:
        when = rule.last_evaluation.timestamp()
        yield Sample("grafana_alert_rule_last_evaluation_timestamp_seconds", when, labels)
    if rule.health == "error":
        message = f"alert rule {_short(rule.name)} cannot be evaluated: {rule.last_error or 'Grafana says no more'}"
        attributes = {"rule": rule.name, "rule_uid": rule.uid, "group": group.name, "folder": group.file}
        yield Event("rule_failing", message[:_LONGEST], "error", f"rule_failing:{key}", "firing", attributes)


def _alert_states(rules: Sequence[tuple[model.Group, model.Rule]]) -> Counter[str]:
    """From the totals, where Grafana tells them: the alerts themselves may be cut short."""
    found: Counter[str] = Counter()
    for _, rule in rules:
        found.update(rule.totals or Counter(alert.plain_state for alert in rule.alerts or ()))
    return found


def firing(rules: Sequence[tuple[model.Group, model.Rule]]) -> int:
    """How many alerts fire, told or not."""
    return sum(count for state, count in _alert_states(rules).items() if state in FIRING)


def _counts(metric: str, label: str, known: Sequence[str], found: Counter[str]) -> Iterator[Sample]:
    """One sample for each known word, and for those a newer Grafana has."""
    for word in (*known, *sorted(set(found) - set(known) - {""})):
        yield Sample(metric, found[word], {label: word})


def _unknown(answer: str, names: Sequence[str], about: Mapping[str, Any]) -> Iterator[Record]:
    yield Sample("grafana_unknown_fields", len(names), {"answer": answer})
    yield Entity(answer, "grafana", {**about, "unknown_fields": list(names[:_MOST_UNKNOWN])})


def _about_hit(hit: model.Hit) -> dict[str, Any]:
    about = {"title": hit.title, "url": hit.url, "tags": list(hit.tags or ())}
    return about | {"folder_uid": hit.folder_uid, "folder": hit.folder_title}


def _rule_key(group: model.Group, rule: model.Rule) -> str:
    """The uid; before Grafana told it, the folder and the title, which is there once in a folder."""
    return rule.uid or f"{group.folder_uid or group.file}/{rule.name}"


def _fingerprint(group: model.Group, rule: model.Rule, labels: Mapping[str, str]) -> str:
    """Not of the uid, which older versions do not tell: an alert is the same before and after an upgrade."""
    named = msgspec.json.encode([group.file, rule.name, sorted(labels.items())])
    return blake2b(named, digest_size=16).hexdigest()


def _short(text: str) -> str:
    return text[:_LONGEST]


def _no_address(text: str) -> str:
    """Without the domain of an e-mail address: who signs in by OAuth has one as login."""
    name, at, _ = text.partition("@")
    return f"{name}@..." if at else text


def _without_secrets(url: str) -> str:
    """A URL without credentials and query; what is no URL, such as a DSN, without what may be a password."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], path=parts.path.rpartition("@")[2], query="").geturl()
