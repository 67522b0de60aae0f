"""Pausing alert rules: nothing else changes, least of all who keeps them."""

import pytest

from nms_workers.errors import Refused
from nms_workers.services.grafana.refusals import NotThere
from tests.services.grafana.conftest import Connect, Start
from tests.services.grafana.support import DEFINITION, act, fill, twice, undo
from tests.stubs.grafana import GrafanaStub


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
