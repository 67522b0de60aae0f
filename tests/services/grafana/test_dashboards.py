"""Saving, replacing and deleting dashboards: twice is as once, nobody is overwritten unasked, and it can be undone."""

from typing import Any

import pytest

from nms_workers.errors import Refused
from nms_workers.services.grafana.client import GrafanaClient
from nms_workers.services.grafana.refusals import Conflict
from nms_workers.services.grafana.service import Grafana
from tests.services.grafana.conftest import Connect, Start
from tests.services.grafana.support import act, fill, twice, undo
from tests.stubs.grafana import GrafanaStub

MODEL = {"title": "Routers", "panels": [{"id": 1, "type": "timeseries"}], "tags": ["net"], "schemaVersion": 39}


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


OWN = ({"permission": 4, "userId": 7}, {"permission": 1, "teamId": 3}, {"permission": 2, "role": "Editor"})


def test_a_dashboard_comes_back_with_its_permissions(filled: GrafanaStub, client: GrafanaClient) -> None:
    """A new one is for everybody: what few were allowed to see must not come back for all."""
    filled.dashboards[1, "hosts"]["acl"] = OWN
    change = act(client, "delete_dashboard", uid="hosts")
    assert undo(client, "delete_dashboard", {"uid": "hosts"}, change).changed
    assert sorted(map(str, filled.dashboards[1, "hosts"]["acl"])) == sorted(map(str, OWN))
    assert not undo(client, "delete_dashboard", {"uid": "hosts"}, change).changed


def test_a_restoring_that_was_interrupted_is_ended(filled: GrafanaStub, client: GrafanaClient) -> None:
    """It was back, and its permissions were not yet."""
    filled.dashboards[1, "hosts"]["acl"] = OWN
    change = act(client, "delete_dashboard", uid="hosts")
    act(client, "create_dashboard", dashboard=change.before["model"], uid="hosts", folder="ops")
    assert undo(client, "delete_dashboard", {"uid": "hosts"}, change).changed
    assert len(filled.dashboards[1, "hosts"]["acl"]) == len(OWN)


def test_permissions_that_we_may_not_read(filled: GrafanaStub, client: GrafanaClient) -> None:
    filled.accounts[1].roles = {1: "Editor"}
    change = act(client, "delete_dashboard", uid="hosts")
    assert "we may not read its permissions, so undo will not bring them back" in change.message
    assert undo(client, "delete_dashboard", {"uid": "hosts"}, change).changed


def test_a_dashboard_larger_than_any() -> None:
    big = {"title": "x", "panels": ["y" * 1000] * 4300}
    with pytest.raises(Refused, match=r"bytes of JSON are more than 4194304"):
        Grafana.actions()["create_dashboard"].validate({"dashboard": big})
