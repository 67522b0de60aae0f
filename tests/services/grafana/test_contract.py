"""What is emitted is what `metrics.csv` declares; what is sent exists where the vendor says so."""

import csv
import re

import pytest

from nms_workers.mapping import MappingTable
from nms_workers.services.grafana.client import GrafanaClient
from nms_workers.services.grafana.service import Grafana
from tests.contract.vendor import SPECS, description
from tests.metric_contract import never_emitted, undeclared
from tests.services.grafana.conftest import Connect, Start
from tests.services.grafana.described import DESCRIPTION, described
from tests.services.grafana.support import LICENSE, act, fill, read
from tests.services.records import entities, value
from tests.stubs.grafana import VERSIONS, GrafanaStub

ENDPOINTS = SPECS / "grafana" / "endpoints-13.0.0.tsv"


def everything(client: GrafanaClient, stub: GrafanaStub) -> None:
    """Every poll and every action once."""
    for poll in Grafana.polls():
        read(client, poll)
    made = act(client, "create_dashboard", title="New", uid="new", folder="ops")
    act(client, "create_dashboard", title="Newer", uid="new", overwrite=True)
    act(client, "restore_dashboard", before=made.before)
    stub.dashboards[1, "hosts"]["acl"] = ({"permission": 1, "teamId": 3},)
    gone = act(client, "delete_dashboard", uid="hosts")
    act(client, "restore_dashboard", before=gone.before)
    act(client, "create_datasource", name="Tempo", type="tempo", url="http://tempo:3200", json_data={"a": 1})
    act(client, "delete_datasource", name="Tempo")
    if stub.major >= 10:
        act(client, "pause_alert_rule", uid="r1")
        act(client, "unpause_alert_rule", uid="r1")
    remark = {"text": "deployed", "time": "2026-01-02T03:04:05Z", "tags": ["a", "b"], "dashboard": "links", "panel": 2}
    act(client, "create_annotation", **remark)
    act(client, "delete_annotation", **remark)


@pytest.mark.parametrize("major", VERSIONS)
def test_every_request_and_answer_is_as_the_vendor_describes(major: int, start: Start, connect_admin: Connect) -> None:
    stub = start(major, enterprise=True, contract=described())
    fill(stub)
    stub.license = LICENSE
    everything(connect_admin(stub), stub)
    assert stub.violations == []
    assert {one.method for one in stub.seen} >= {"GET", "POST", "DELETE"} | ({"PUT"} if major >= 10 else set())


def test_all_that_is_used_of_13_is_there(start: Start, connect_admin: Connect) -> None:
    if not ENDPOINTS.exists():
        pytest.skip(f"the vendor's list of endpoints is not at {ENDPOINTS} (NMS_SPECS_DIR)")
    with ENDPOINTS.open(encoding="utf-8", newline="") as lines:
        rows = [(row["method"], row["path"]) for row in csv.DictReader(lines, delimiter="\t")]
    there = [(method, re.compile("/api" + re.sub(r"\{\w+\}", "[^/]+", path))) for method, path in rows]
    stub = start(13, enterprise=True)
    fill(stub)
    stub.license = LICENSE
    everything(connect_admin(stub), stub)
    used = {(one.method, one.path) for one in stub.seen if not one.path.startswith("/api/prometheus/")}
    unknown = [one for one in used if not any(one[0] == method and path.fullmatch(one[1]) for method, path in there)]
    assert unknown == []
    assert len(used) > 15


@pytest.mark.parametrize("major", VERSIONS)
def test_what_is_emitted_and_what_is_declared(major: int, start: Start, connect_admin: Connect) -> None:
    stub = start(major, enterprise=True)
    fill(stub)
    stub.license = LICENSE
    client = connect_admin(stub)
    records = [record for poll in Grafana.polls() for record in read(client, poll)]
    assert undeclared(Grafana, records) == []
    old = [] if major >= 12 else ["grafana_alert_rules_paused"]  # Grafana 12 tells of each rule whether it is paused
    old += [] if major >= 10 else ["grafana_server_devices_active"]  # anonymous devices are counted since Grafana 10
    assert never_emitted(Grafana, records) == sorted(old)


@pytest.mark.parametrize(("schema", "file"), [("AdminStats", "statistics.csv"), ("Token", "license.csv")])
def test_every_number_of_the_vendors_is_in_the_table(schema: str, file: str) -> None:
    fields = description(DESCRIPTION)["components"]["schemas"][schema]["properties"]
    numbers = {name for name, told in fields.items() if told.get("type") in ("integer", "number", "boolean")}
    assert numbers <= set(MappingTable(Grafana.folder() / file).rows)


def test_a_newer_statistic_is_counted_and_named(grafana: GrafanaStub, connect_admin: Connect) -> None:
    fill(grafana)
    grafana.stats |= {"robots": 3, "nested": {"more": 4}, "word": "x"}
    records = read(connect_admin(grafana), "statistics")
    assert value(records, "grafana_unknown_fields", answer="statistics") == 2
    assert entities(records, "statistics") == {"grafana": {"unknown_fields": ["nested.more", "robots"]}}


def test_what_undoes_an_action_exists() -> None:
    actions = Grafana.actions()
    assert {name: one.undo for name, one in actions.items() if one.undo} == {
        "create_dashboard": "restore_dashboard",
        "delete_dashboard": "restore_dashboard",
        "restore_dashboard": "restore_dashboard",
        "create_datasource": "delete_datasource",
        "pause_alert_rule": "unpause_alert_rule",
        "unpause_alert_rule": "pause_alert_rule",
        "create_annotation": "delete_annotation",
    }
    confirmed = {name for name, one in actions.items() if one.confirm}
    assert confirmed == {"delete_dashboard", "restore_dashboard", "delete_datasource", "delete_annotation"}


def test_a_stub_that_lies_is_found(grafana: GrafanaStub, connect_admin: Connect) -> None:
    """The check itself: an answer of another shape than the vendor's fails the test that got it."""
    described()
    grafana.stats = {"orgs": "many"}
    read(connect_admin(grafana), "statistics")
    (violation,) = grafana.violations
    grafana.violations.clear()
    assert "orgs" in violation
