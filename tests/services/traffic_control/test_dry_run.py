"""A dry run of every action: it tells what is there now, and changes nothing in the kernel."""

from typing import Any

import pytest

from nms_workers.jobs.preview import tried
from nms_workers.services.traffic_control.service import TrafficControl
from tests.services.traffic_control.conftest import Act
from tests.services.traffic_control.lab import Lab

WOULD: dict[str, dict[str, Any]] = {
    "shape": {"rate": "5mbit", "protocol": "tcp", "port": 5201},
    "set_default_class": {"rate": "5mbit"},
    "police": {"rate": "5mbit"},
    "emulate": {"loss": 0.5},
    "clear": {},
    "restore": {"before": {"default_class": {"rate": 8_000_000}}},
}


def test_no_action_is_left_out() -> None:
    assert WOULD.keys() == TrafficControl.actions().keys()


@pytest.mark.parametrize("name", WOULD)
def test_every_action_changes_nothing(lab: Lab, act: Act, name: str) -> None:
    done = act("shape", rate="10mbit", protocol="tcp", port=5201)
    rules, declared = lab.rules(), TrafficControl.actions()[name]
    change = tried(declared, lab.client, declared.validate({"interface": "left"} | WOULD[name]))
    assert change is not None
    assert change.changed
    if name == "shape":
        assert change.before == done.after
    assert lab.rules() == rules


def test_what_is_so_already_is_told(lab: Lab, act: Act) -> None:
    act("shape", rate="10mbit", protocol="tcp", port=5201)
    shape = TrafficControl.actions()["shape"]
    change = tried(
        shape, lab.client, shape.validate({"interface": "left", "rate": "10mbit", "protocol": "tcp", "port": 5201})
    )
    assert change is not None
    assert (change.changed, "already was so" in change.message) == (False, True)
