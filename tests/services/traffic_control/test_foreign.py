"""What others have set up stays as it is, and what a change left behind that died is taken up."""

import pytest

from nms_workers.errors import Refused
from tests.services.traffic_control.conftest import Act
from tests.services.traffic_control.lab import Lab, run


def test_a_root_qdisc_of_somebody_else_is_left_alone(lab: Lab, act: Act) -> None:
    lab.tc("qdisc", "add", "dev", "left", "root", "handle", "1:", "htb", "default", "10")
    lab.tc("class", "add", "dev", "left", "parent", "1:", "classid", "1:10", "htb", "rate", "5mbit")
    rules = lab.rules()
    for action, arguments in (("shape", {"rate": "1mbit", "port": 80}), ("set_default_class", {"rate": "1mbit"})):
        with pytest.raises(Refused, match="htb 1:, which is somebody else's"):
            act(action, **arguments)
    assert not act("clear").changed
    assert lab.rules() == rules


def test_policing_beside_a_root_qdisc_of_somebody_else(lab: Lab, act: Act) -> None:
    lab.tc("qdisc", "add", "dev", "left", "root", "handle", "1:", "tbf", "rate", "5mbit", "burst", "9k", "limit", "9k")
    rules = lab.rules()
    done = act("police", rate="6mbit")
    assert lab.tc("qdisc", "show", "dev", "left", "root").startswith("qdisc tbf 1:")
    act("restore", before=done.before)
    assert lab.rules() == rules


def test_an_ingress_qdisc_of_somebody_else_is_left_alone(lab: Lab, act: Act) -> None:
    lab.tc("qdisc", "add", "dev", "left", "ingress")
    rules = lab.rules()
    with pytest.raises(Refused, match="ingress qdisc of somebody else"):
        act("police", rate="6mbit")
    assert lab.rules() == rules


def test_a_filter_somebody_put_on_our_ingress_survives(lab: Lab, act: Act) -> None:
    done = act("police", rate="6mbit")
    lab.tc("filter", "add", "dev", "left", "ingress", "pref", "9", "protocol", "ip", "u32", *_NO_PACKET)
    act("restore", before=done.before)
    rules = lab.rules()
    assert "pref 9 " in rules
    assert "nms-in" not in rules


def test_what_hangs_on_our_tree_is_not_torn_away(lab: Lab, act: Act) -> None:
    done = act("shape", rate="4mbit", dscp=1)
    other = act("shape", rate="4mbit", dscp=2)
    lab.tc("qdisc", "add", "dev", "left", "parent", "4e4d:11", "handle", "77:", "pfifo", "limit", "5")
    lab.tc("filter", "add", "dev", "left", "parent", "4e4d:", "pref", "9", "protocol", "ip", "u32", *_NO_PACKET)
    with pytest.raises(Refused, match="hangs on the class 4e4d:11 of left"):
        act("restore", before=done.before)
    assert act("restore", before=other.before).changed
    lab.tc("qdisc", "del", "dev", "left", "parent", "4e4d:11")
    assert act("clear").changed
    assert "pref 9 " in lab.rules()
    assert not act("clear").changed


def test_a_device_that_has_our_name_is_left_alone(lab: Lab, act: Act) -> None:
    index = next(one.index for one in lab.client().get_interfaces() if one.name == "left")
    run("ip", "-netns", lab.near, "link", "add", f"nms-in{index}", "type", "veth", "peer", "name", "other")
    rules = lab.rules()
    with pytest.raises(Refused, match="taken by a device that is no ifb"):
        act("police", rate="6mbit")
    assert lab.rules() == rules


def test_what_a_dead_change_left_is_taken_up(lab: Lab, act: Act) -> None:
    rules = lab.rules()
    index = next(one.index for one in lab.client().get_interfaces() if one.name == "left")
    lab.tc("qdisc", "add", "dev", "left", "root", "handle", "4e4d:", "htb", "default", "fff0")
    assert lab.rules() != rules
    act("clear")
    assert lab.rules() == rules

    done = act("shape", rate="1mbit", port=80)  # four filters
    six = next(f.preference for f in lab.client().get_filters("left") if f.ethertype == "0x86dd")
    lab.tc("filter", "del", "dev", "left", "parent", "4e4d:", "pref", str(six))
    assert len(lab.client().get_filters("left")) == 2
    again = act("shape", rate="1mbit", port=80)
    assert again.changed
    assert len(lab.client().get_filters("left")) == 4
    act("restore", before=done.before)
    assert lab.rules() == rules

    run("ip", "-netns", lab.near, "link", "add", f"nms-in{index}", "type", "ifb")
    lab.tc("qdisc", "add", "dev", "left", "ingress")
    assert act("police", rate="6mbit").changed
    assert not act("police", rate="6mbit").changed
    act("clear")
    assert lab.rules() == rules


_NO_PACKET = ("match", "ip", "dst", "192.0.2.1/32", "flowid", "1:1")
