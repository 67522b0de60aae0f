"""How the tests of this service read and act, and what they put into a Grafana."""

from typing import Any

from nms_workers.change import Change
from nms_workers.records import Record
from nms_workers.services.grafana.client import GrafanaClient
from nms_workers.services.grafana.service import Grafana
from tests.stubs.grafana import GrafanaStub

STATS = {
    "orgs": 2, "dashboards": 41, "snapshots": 3, "tags": 7, "datasources": 5, "playlists": 1, "stars": 9, "alerts": 12,
    "users": 20, "admins": 2, "editors": 6, "viewers": 12, "activeUsers": 11, "activeAdmins": 1, "activeEditors": 4,
    "activeViewers": 6, "activeSessions": 15, "dailyActiveUsers": 8, "dailyActiveAdmins": 1, "dailyActiveEditors": 3,
    "dailyActiveViewers": 4, "dailyActiveSessions": 10, "monthlyActiveUsers": 13,
}  # fmt: skip
LICENSE = {
    "jti": "2", "iss": "https://grafana.com", "sub": "x", "iat": 1_700_000_000, "exp": 1_900_000_000, "nbf": 1,
    "lexp": 4_000_000_000, "lid": "70000", "included_users": 15, "prod": ["grafana-enterprise"], "company": "Example",
    "status": 1, "lic_exp_warn_days": 30, "tok_exp_warn_days": 2, "update_days": 1, "trial": False, "trial_exp": 5,
    "usage_billing": False, "max_concurrent_user_sessions": 3, "account": "1", "slug": "example",
    "limit_by": "users", "details_url": "", "url": "",
}  # fmt: skip
DEFINITION = {
    "id": 1, "orgID": 1, "folderUID": "ops", "ruleGroup": "hosts", "title": "Host down", "condition": "A", "for": "5m",
    "noDataState": "NoData", "execErrState": "Error", "labels": {"team": "net"}, "updated": "2026-01-02T03:04:05Z",
    "data": [{"refId": "A", "datasourceUid": "prom", "model": {"expr": "up == 0"},
              "relativeTimeRange": {"from": 600, "to": 0}}],
    "notification_settings": {"receiver": "on call"}, "keep_firing_for": "1m",
}  # fmt: skip
SECRET = "s3cret-of-prometheus"  # what TEST_PROM_PASSWORD holds
SOURCE: dict[str, Any] = {
    "name": "Prometheus EU",
    "type": "prometheus",
    "url": "http://prom.example:9090",
    "uid": "prom-eu",
    "basic_auth_user": "nms",
    "json_data": {"httpMethod": "POST", "timeInterval": "15s"},
    "secure_json_data": {"basicAuthPassword": "env:TEST_PROM_PASSWORD"},
}
REMARK: dict[str, Any] = {"text": "deployed 2.3\non all", "time": "2026-01-02T03:04:05.678Z", "tags": ["b", "a"]}


def alert(state: str, **labels: str) -> dict[str, Any]:
    """An instance of a rule as Grafana tells it."""
    known = {"alertname": "Host down", "grafana_folder": "Ops"}
    told = {
        "labels": known | labels,
        "annotations": {"summary": f"{labels.get('host', 'all')} is away"},
        "state": state,
    }
    return told | {"activeAt": "2026-01-02T03:04:05.123456789Z", "value": "1e+00"}


def rule(uid: str, name: str, *alerts: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A rule with its state as Grafana tells it."""
    firing = any(one["state"].startswith("Alerting") for one in alerts)
    told: dict[str, Any] = {
        "uid": uid,
        "name": name,
        "state": "firing" if firing else "inactive",
        "health": "ok",
        "type": "alerting",
    }
    told |= {"query": "up == 0", "duration": 300, "labels": {"team": "net"}, "isPaused": False, "provenance": ""}
    told |= {"lastEvaluation": "2026-01-02T03:04:05.5Z", "evaluationTime": 0.25, "alerts": list(alerts)}
    return told | more


def group(name: str, *rules: dict[str, Any], folder: str = "Ops") -> dict[str, Any]:
    """A group of rules."""
    return {"name": name, "file": folder, "folderUid": folder.lower(), "interval": 60, "rules": list(rules)}


def fill(stub: GrafanaStub) -> None:
    """Something of everything."""
    stub.folders |= {"ops": {"title": "Ops", "folder": ""}, "lab": {"title": "Lab", "folder": "ops"}}
    stub.add_dashboard("hosts", "Hosts", "ops", model={"tags": ["net", "prod"]})
    stub.add_dashboard("links", "Links", "ops")
    stub.add_dashboard("loose", "Loose")
    stub.add_source("prom", url="http://user:hush@prom.example:9090/x?token=hush", isDefault=True)
    stub.add_source("loki", "loki", ("ERROR", "connection refused"))
    stub.add_source("sheet", "csv", "none")
    stub.groups = [
        group(
            "hosts",
            rule("r1", "Host down", alert("Alerting", host="a", severity="critical"), alert("Normal", host="b")),
        ),
        group("links", rule("r2", "Link slow", health="error", lastError="no such metric", isPaused=True)),
    ]
    stub.rules["r1"] = DEFINITION | {"uid": "r1"} | ({"isPaused": False} if stub.major >= 10 else {})
    stub.stats = STATS | ({"activeDevices": 4} if stub.major >= 10 else {})


def read(client: GrafanaClient, poll: str) -> list[Record]:
    """Every record of one run of a poll."""
    return list(Grafana.polls()[poll].run(client))


def read_until_error(client: GrafanaClient, poll: str) -> tuple[list[Record], Exception]:
    """What a poll yields before it fails, and the error; fails when it does not."""
    records: list[Record] = []
    try:
        records.extend(Grafana.polls()[poll].run(client))
    except Exception as exc:  # noqa: BLE001 - handed to the test
        return records, exc
    raise AssertionError(f"{poll} did not fail")


def act(client: GrafanaClient, action: str, **arguments: Any) -> Change:
    """Run an action as a job does: its arguments come as JSON and are validated."""
    declared = Grafana.actions()[action]
    return declared.run(client, **declared.validate(arguments))


def undo(client: GrafanaClient, action: str, arguments: dict[str, Any], change: Change) -> Change:
    """Take a change back as a job does: with those of its arguments that the undoing takes, and what was before."""
    back = str(Grafana.actions()[action].undo)
    takes = Grafana.actions()[back].arguments.model_fields
    kept = {name: value for name, value in arguments.items() if name in takes}
    return act(client, back, **kept, **({"before": change.before} if "before" in takes else {}))


def twice(client: GrafanaClient, action: str, **arguments: Any) -> Change:
    """What it did; the second time it must do nothing."""
    change = act(client, action, **arguments)
    assert change.changed
    assert not act(client, action, **arguments).changed
    return change
