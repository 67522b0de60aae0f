"""What each action changes, that twice is as once, and that its undoing brings back what was there."""

from typing import Any

import pytest

from nms_workers.errors import ConfigError, Refused
from nms_workers.jobs.wish import Wish, checked
from nms_workers.service import Change
from nms_workers.services.grafana.client import GrafanaClient
from nms_workers.services.grafana.refusals import Conflict, NotThere
from nms_workers.services.grafana.service import Grafana
from tests.services.grafana.conftest import Connect, Start
from tests.services.grafana.support import DEFINITION, act, fill, undo
from tests.stubs.grafana import GrafanaStub

SECRET = "s3cret-of-prometheus"
MODEL = {"title": "Routers", "panels": [{"id": 1, "type": "timeseries"}], "tags": ["net"], "schemaVersion": 39}


@pytest.fixture(params=[9, 13])
def filled(request: pytest.FixtureRequest, start: Start) -> GrafanaStub:
    """The oldest Grafana and the newest, with something of everything."""
    stub = start(request.param)
    fill(stub)
    return stub


@pytest.fixture
def client(filled: GrafanaStub, connect: Connect) -> GrafanaClient:
    """Our client of `filled`."""
    return connect(filled)


def twice(client: GrafanaClient, action: str, **arguments: Any) -> Change:
    """What it did; the second time it must do nothing."""
    change = act(client, action, **arguments)
    assert change.changed
    assert not act(client, action, **arguments).changed
    return change


def model(stub: GrafanaStub, uid: str) -> dict[str, Any]:
    """A dashboard as Grafana has it, without its numbers."""
    return {key: one for key, one in stub.dashboards[1, uid]["model"].items() if key not in ("id", "version")}


def test_a_new_dashboard_and_back(filled: GrafanaStub, client: GrafanaClient) -> None:
    asked = {"dashboard": MODEL | {"id": 99, "version": 7}, "uid": "routers", "folder": "ops", "message": "new routers"}
    change = twice(client, "create_dashboard", **asked)
    assert model(filled, "routers") == MODEL | {"uid": "routers"}
    assert filled.dashboards[1, "routers"]["message"] == "new routers"
    assert change.after == {
        "uid": "routers", "exists": True, "title": "Routers", "folder": "ops", "url": "/d/routers/x", "version": 1,
    }  # fmt: skip
    assert change.before["model"] is None
    assert undo(client, "create_dashboard", asked, change).changed
    assert (1, "routers") not in filled.dashboards
    assert not undo(client, "create_dashboard", asked, change).changed


def test_a_dashboard_nobody_named_a_uid_for_is_made_once(filled: GrafanaStub, client: GrafanaClient) -> None:
    twice(client, "create_dashboard", title="Empty one", folder="ops")
    assert [one["model"]["title"] for one in filled.dashboards.values()].count("Empty one") == 1
    other = act(client, "create_dashboard", title="Empty one", folder="lab")
    assert other.changed, "another folder, another dashboard"


def test_another_dashboard_is_replaced_only_if_asked(filled: GrafanaStub, client: GrafanaClient) -> None:
    asked: dict[str, Any] = {"dashboard": MODEL, "uid": "hosts"}
    was = model(filled, "hosts")
    with pytest.raises(Conflict, match=r"another dashboard has the uid hosts: 'Hosts', version 1 \(overwrite=true"):
        act(client, "create_dashboard", **asked)
    assert model(filled, "hosts") == was
    change = twice(client, "create_dashboard", **asked, overwrite=True)
    assert model(filled, "hosts") == MODEL | {"uid": "hosts"}
    assert filled.dashboards[1, "hosts"]["folder"] == "ops", "it stays where it is"
    undo(client, "create_dashboard", asked, change)
    assert model(filled, "hosts") == was
    assert filled.dashboards[1, "hosts"]["folder"] == "ops"


def meddle(stub: GrafanaStub, times: int) -> None:
    """Somebody else saves `hosts` between our look and our save, so often."""

    def save() -> None:
        nonlocal times
        if times:
            times -= 1
            stub.dashboards[1, "hosts"]["model"] |= {"version": 10 - times, "title": f"theirs {times}"}

    stub.meddle = save


def test_somebody_else_was_quicker(filled: GrafanaStub, client: GrafanaClient) -> None:
    """412: what we tell as `before` is what we replaced, not what we saw at first."""
    meddle(filled, 2)
    change = act(client, "create_dashboard", dashboard=MODEL, uid="hosts", overwrite=True)
    assert change.before["model"]["title"] == "theirs 0"
    assert filled.dashboards[1, "hosts"]["model"]["title"] == "Routers"
    assert len(filled.paths("POST")) == 3


def test_others_save_all_the_time(filled: GrafanaStub, client: GrafanaClient) -> None:
    meddle(filled, 9)
    with pytest.raises(Conflict, match=r"412.*changed by someone else \(look at what was changed"):
        act(client, "create_dashboard", dashboard=MODEL, uid="hosts", overwrite=True)
    assert filled.dashboards[1, "hosts"]["model"]["title"] == "theirs 6"
    assert len(filled.paths("POST")) == 3


def test_a_name_that_is_taken_in_the_folder(start: Start, connect: Connect) -> None:
    stub = start(9)
    fill(stub)
    with pytest.raises(Conflict, match=r"same name in the folder already exists \(choose another title or folder"):
        act(connect(stub), "create_dashboard", title="Links", folder="ops")


def test_a_dashboard_of_a_plugin(filled: GrafanaStub, client: GrafanaClient) -> None:
    filled.dashboards[1, "hosts"]["plugin"] = "nginx"
    with pytest.raises(Conflict, match=r"belongs to plugin nginx\. \(a plugin keeps it"):
        act(client, "create_dashboard", dashboard=MODEL, uid="hosts", overwrite=True)


@pytest.mark.parametrize("action", ["create_dashboard", "delete_dashboard"])
def test_a_dashboard_from_a_file(filled: GrafanaStub, client: GrafanaClient, action: str) -> None:
    filled.dashboards[1, "hosts"]["provisioned"] = True
    more = {"title": "x", "overwrite": True} if action == "create_dashboard" else {}
    with pytest.raises(Refused, match=r"the dashboard hosts \(Hosts\) is provisioned \(change the file nms.json"):
        act(client, action, uid="hosts", **more)
    assert filled.paths("POST") == filled.paths("DELETE") == []


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ({}, "a dashboard needs a title"),
        ({"dashboard": {"panels": []}}, "a dashboard needs a title"),
        ({"dashboard": {"title": 7}}, "a dashboard needs a title"),
        ({"dashboard": {"title": "x", "uid": "../../admin"}}, "uid of the dashboard's model is none"),
        ({"dashboard": {"title": "x", "uid": 5}}, "uid of the dashboard's model is none"),
        ({"title": "x", "folder": "nowhere"}, r"folder not found \(name the uid of a folder that exists"),
    ],
)
def test_a_dashboard_that_cannot_be_made(
    filled: GrafanaStub, client: GrafanaClient, asked: dict[str, Any], why: str
) -> None:
    with pytest.raises(Refused, match=why):
        act(client, "create_dashboard", **asked)
    assert len(filled.dashboards) == 3


def test_a_dashboard_is_deleted_and_comes_back(filled: GrafanaStub, client: GrafanaClient) -> None:
    was = model(filled, "hosts")
    change = twice(client, "delete_dashboard", uid="hosts")
    assert (1, "hosts") not in filled.dashboards
    assert change.after == {"uid": "hosts", "exists": False}
    assert undo(client, "delete_dashboard", {"uid": "hosts"}, change).changed
    assert model(filled, "hosts") == was
    assert filled.dashboards[1, "hosts"]["folder"] == "ops"
    assert not undo(client, "delete_dashboard", {"uid": "hosts"}, change).changed


SOURCE: dict[str, Any] = {
    "name": "Prometheus EU",
    "type": "prometheus",
    "url": "http://prom.example:9090",
    "uid": "prom-eu",
    "basic_auth_user": "nms",
    "json_data": {"httpMethod": "POST", "timeInterval": "15s"},
    "secure_json_data": {"basicAuthPassword": "env:TEST_PROM_PASSWORD"},
}


@pytest.fixture(autouse=True)
def _password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_PROM_PASSWORD", SECRET)


def test_a_new_data_source_and_back(filled: GrafanaStub, client: GrafanaClient) -> None:
    change = twice(client, "create_datasource", **SOURCE)
    made = filled.sources["prom-eu"]
    assert (made["name"], made["url"], made["basicAuth"]) == ("Prometheus EU", "http://prom.example:9090", True)
    assert made["jsonData"] == SOURCE["json_data"]
    assert filled.secrets["prom-eu"] == {"basicAuthPassword": SECRET}
    assert change.after["secrets"] == ["basicAuthPassword"]
    assert SECRET not in repr(change)
    assert undo(client, "create_datasource", SOURCE, change).changed
    assert "prom-eu" not in filled.sources
    assert not undo(client, "create_datasource", SOURCE, change).changed


def test_what_is_kept_of_a_job_is_the_reference() -> None:
    wish = Wish("grafana", "create_datasource", "g", SOURCE, "ann")
    typed, kept = checked(wish, Grafana.actions()["create_datasource"])
    assert kept["secure_json_data"] == {"basicAuthPassword": "env:TEST_PROM_PASSWORD"}
    assert SECRET not in repr((typed, kept))


@pytest.mark.parametrize(
    ("other", "differs"),
    [
        ({"url": "http://elsewhere:9090"}, "url"),
        ({"json_data": {"httpMethod": "GET"}}, "jsonData.httpMethod"),
        ({"uid": "another"}, "uid"),
        ({"name": "Another"}, "name"),
        ({"is_default": True}, "isDefault"),
        ({"secure_json_data": {"httpHeaderValue1": "env:TEST_PROM_PASSWORD"}}, "secureJsonData.httpHeaderValue1"),
    ],
)
def test_a_data_source_that_differs_is_left_alone(
    grafana: GrafanaStub, connect: Connect, other: dict[str, Any], differs: str
) -> None:
    client = connect(grafana)
    act(client, "create_datasource", **SOURCE)
    was = dict(grafana.sources["prom-eu"])
    with pytest.raises(Refused, match=f"'Prometheus EU' is there, and differs in {differs}"):
        act(client, "create_datasource", **SOURCE | other)
    assert grafana.sources["prom-eu"] == was


def test_a_secret_that_grafana_repeats_is_not_shown(client: GrafanaClient) -> None:
    with pytest.raises(Refused, match=r"Validation error.*\*\*\*") as error:
        act(client, "create_datasource", **SOURCE | {"url": "http://refuse-me"})
    assert SECRET not in str(error.value)


def test_a_secret_that_cannot_be_read(filled: GrafanaStub, client: GrafanaClient) -> None:
    asked = SOURCE | {"secure_json_data": {"basicAuthPassword": "env:TEST_NOT_SET"}}
    with pytest.raises(ConfigError, match="TEST_NOT_SET is not set"):
        act(client, "create_datasource", **asked)
    assert "prom-eu" not in filled.sources


@pytest.mark.parametrize(
    ("other", "why"),
    [
        ({"json_data": {"basicAuthPassword": "x"}}, "readable by everybody: use secure_json_data"),
        ({"json_data": {"apiToken": "x"}}, "readable by everybody"),
        ({"secure_json_data": {"basicAuthPassword": "plain"}}, "secure_json_data"),
        ({"url": "http://nms:hush@prom:9090"}, "must not carry credentials"),
        ({"type": "../x"}, "type"),
        ({"name": ".."}, "name"),
        ({"access": "root"}, "access"),
    ],
)
def test_what_no_data_source_may_have(other: dict[str, Any], why: str) -> None:
    with pytest.raises(Refused, match=why) as error:
        Grafana.actions()["create_datasource"].validate(SOURCE | other)
    assert "hush" not in str(error.value)
    assert "plain" not in str(error.value)


def test_a_data_source_from_a_file_is_not_deleted(filled: GrafanaStub, client: GrafanaClient) -> None:
    filled.sources["prom"]["readOnly"] = True
    with pytest.raises(Refused, match=r"read-only \(it comes from a file"):
        act(client, "delete_datasource", name="prom")
    assert "prom" in filled.sources


def rules_of(stub: GrafanaStub) -> None:
    """Rules as people, programs, a file and another tool keep them."""
    for keeper in ("", "api", "file", "converted_prometheus"):
        told = {"uid": keeper or "people", "isPaused": False} | ({"provenance": keeper} if keeper else {})
        stub.rules[keeper or "people"] = DEFINITION | told


@pytest.mark.parametrize("major", [10, 11, 12, 13])
@pytest.mark.parametrize("keeper", ["", "api"])
def test_a_rule_is_paused_and_goes_on(major: int, keeper: str, start: Start, connect: Connect) -> None:
    stub = start(major)
    rules_of(stub)
    client, uid = connect(stub), keeper or "people"
    was = stub.rules[uid]
    change = twice(client, "pause_alert_rule", uid=uid)
    told = {"title": "Host down", "folder": "ops", "group": "hosts", "provenance": keeper}
    assert (change.before, change.after) == (told | {"paused": False}, told | {"paused": True})
    assert stub.rules[uid] == was | {"isPaused": True, "updated": stub.rules[uid]["updated"]}, "nothing else changed"
    undo(client, "pause_alert_rule", {"uid": uid}, change)
    assert stub.rules[uid] == was | {"updated": stub.rules[uid]["updated"]}


@pytest.mark.parametrize(
    ("keeper", "why"),
    [("file", "set isPaused in the file"), ("converted_prometheus", "pause it with the tool that keeps it")],
)
def test_a_rule_that_others_keep(grafana: GrafanaStub, connect: Connect, keeper: str, why: str) -> None:
    rules_of(grafana)
    with pytest.raises(Refused, match=rf"the rule {keeper} \(Host down\) is kept by '{keeper}' \({why}"):
        act(connect(grafana), "pause_alert_rule", uid=keeper)
    assert grafana.paths("PUT") == []


def test_a_grafana_that_cannot_pause(start: Start, connect: Connect) -> None:
    stub = start(9)
    fill(stub)
    with pytest.raises(Refused, match="this Grafana cannot pause rules over its API"):
        act(connect(stub), "pause_alert_rule", uid="r1")


def test_no_such_rule(grafana: GrafanaStub, connect: Connect) -> None:
    with pytest.raises(NotThere, match=r"404 \(check the uid, the organisation"):
        act(connect(grafana), "pause_alert_rule", uid="r9")


REMARK: dict[str, Any] = {"text": "deployed 2.3\non all", "time": "2026-01-02T03:04:05.678Z", "tags": ["b", "a"]}


@pytest.mark.parametrize(
    "more",
    [{}, {"end": "2026-01-02T05:00:00+01:00"}, {"dashboard": "hosts"}, {"dashboard": "hosts", "panel": 3}],
    ids=["moment", "span", "dashboard", "panel"],
)
def test_a_remark_and_back(filled: GrafanaStub, client: GrafanaClient, more: dict[str, Any]) -> None:
    asked = REMARK | more
    change = twice(client, "create_annotation", **asked)
    (made,) = filled.annotations.values()
    assert (made["text"], made["time"], made["tags"]) == ("deployed 2.3\non all", 1767323045678, ["a", "b"])
    assert change.after["id"] == made["id"]
    other = act(client, "create_annotation", **asked | {"text": "something else"})
    assert other.changed
    assert undo(client, "create_annotation", asked, change).changed
    assert [one["text"] for one in filled.annotations.values()] == ["something else"]
    assert not undo(client, "create_annotation", asked, change).changed


def test_a_remark_without_a_time_is_of_when_it_was_wished(filled: GrafanaStub, client: GrafanaClient) -> None:
    """The time stands in the job, so that a job that runs twice makes one annotation."""
    declared = Grafana.actions()["create_annotation"]
    _, kept = checked(Wish("grafana", "create_annotation", "g", {"text": "now"}, "ann"), declared)
    for _ in range(2):
        change = declared.run(client, **declared.validate(kept))
    assert not change.changed
    (made,) = filled.annotations.values()
    undo(client, "create_annotation", kept, change)
    assert filled.annotations == {}
    assert made["text"] == "now"


@pytest.mark.parametrize(
    ("other", "why"),
    [
        ({"end": "2026-01-02T03:00:00Z"}, "ends before it begins"),
        ({"panel": 3}, "a panel belongs to a dashboard"),
        ({"time": "2026-01-02T03:04:05"}, "time"),
        ({"time": "0001-01-01T00:00:00Z"}, "time"),
        ({"text": ""}, "text"),
        ({"text": "a\x00b"}, "text"),
        ({"tags": ["x"] * 51}, "tags"),
    ],
)
def test_a_remark_that_cannot_be_made(
    filled: GrafanaStub, client: GrafanaClient, other: dict[str, Any], why: str
) -> None:
    with pytest.raises(Refused, match=why):
        act(client, "create_annotation", **REMARK | other)
    assert filled.annotations == {}


@pytest.mark.parametrize(
    ("action", "arguments"),
    [
        ("create_dashboard", {"title": "New"}),
        ("create_dashboard", {"title": "New", "uid": "hosts", "overwrite": True}),
        ("delete_dashboard", {"uid": "hosts"}),
        ("create_datasource", SOURCE),
        ("delete_datasource", {"name": "prom"}),
        ("pause_alert_rule", {"uid": "r1"}),
        ("create_annotation", REMARK),
    ],
)
def test_a_change_that_has_no_effect_is_no_success(
    grafana: GrafanaStub, connect: Connect, action: str, arguments: dict[str, Any]
) -> None:
    fill(grafana)
    grafana.forgetful = True
    with pytest.raises(Refused, match=r"still shows it|does not show|shows it as"):
        act(connect(grafana), action, **arguments)


@pytest.mark.parametrize(
    ("action", "arguments"),
    [("create_dashboard", {"title": "New"}), ("create_datasource", SOURCE), ("create_annotation", REMARK)],
)
def test_a_role_that_may_not(grafana: GrafanaStub, connect: Connect, action: str, arguments: dict[str, Any]) -> None:
    fill(grafana)
    grafana.accounts[1].roles = {1: "Viewer"}
    with pytest.raises(Refused, match=r"Permissions needed.*a role that has it"):
        act(connect(grafana), action, **arguments)


HOSTILE = ["", "../admin", "a/b", "a b", "a%2Fb", "a\nb", "a\x00", "\u0661", "x" * 41, "a?b", "a#b", ".."]


@pytest.mark.parametrize("uid", HOSTILE, ids=range(len(HOSTILE)))
def test_uids_that_are_none(uid: str) -> None:
    for action in ("create_dashboard", "delete_dashboard", "pause_alert_rule", "unpause_alert_rule"):
        with pytest.raises(Refused, match="uid"):
            Grafana.actions()[action].validate({"uid": uid} | ({"title": "x"} if action.startswith("create") else {}))
    with pytest.raises(Refused, match="before"):
        Grafana.actions()["restore_dashboard"].validate({"before": {"uid": uid}})


def test_a_dashboard_larger_than_any() -> None:
    big = {"title": "x", "panels": ["y" * 1000] * 4300}
    with pytest.raises(Refused, match=r"bytes of JSON are more than 4194304"):
        Grafana.actions()["create_dashboard"].validate({"dashboard": big})
