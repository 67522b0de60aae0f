"""What goes for all actions: they look after they leap, say who may, and take no names that are none."""

from typing import Any

import pytest

from nms_workers.errors import Refused
from nms_workers.services.grafana.service import Grafana
from tests.services.grafana.conftest import Connect
from tests.services.grafana.support import REMARK, SOURCE, act, fill
from tests.stubs.grafana import GrafanaStub


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
