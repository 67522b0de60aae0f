"""Everything that a real kernel makes the service emit is declared in `metrics.csv`, and the other way round."""

import sys
from collections.abc import Iterable

import pytest

from nms_workers.errors import Refused
from nms_workers.records import Entity, Record, Sample
from nms_workers.services.traffic_control.service import TrafficControl
from tests.metric_contract import never_emitted, undeclared
from tests.services.traffic_control.conftest import Act
from tests.services.traffic_control.lab import Lab, await_true, run

_KINDS = ("fq_codel", "codel", "netem", "police")
NEEDS_OTHER_KERNEL = {  # that these are emitted is shown in `in_other_kernel.py`
    name for name in TrafficControl.metrics() if name.startswith(tuple(f"traffic_control_{kind}_" for kind in _KINDS))
}


def read(lab: Lab, poll: str, **settings: object) -> list[Record]:
    """Every record of one run of a poll."""
    return list(TrafficControl.polls()[poll].run(lab.client(**settings)))


def read_all(lab: Lab) -> list[Record]:
    """Every record of every poll."""
    return [record for poll in TrafficControl.polls() for record in read(lab, poll)]


def values(records: Iterable[Record], metric: str, **labels: str) -> list[float]:
    """The values of a metric, of the series with these labels."""
    found = [r for r in records if isinstance(r, Sample) and r.metric == metric]
    return [r.value for r in found if labels.items() <= dict(r.series.labels).items()]


def test_what_is_emitted_and_what_is_declared(lab: Lab, act: Act) -> None:
    act("shape", rate="10mbit", destination=lab.far_address)
    act("set_default_class", rate="20mbit")
    act("police", rate="6mbit")
    run("ip", "-netns", lab.near, "link", "add", "spare", "type", "ifb")
    estimated = ("estimator", "1sec", "4sec", "root", "handle", "1:", "htb", "default", "1")
    lab.tc("qdisc", "add", "dev", "spare", *estimated)
    limits = ("estimator", "1sec", "4sec", "parent", "1:", "classid", "1:1", "htb", "rate", "1mbit")
    lab.tc("class", "add", "dev", "spare", *limits)
    records = read_all(lab)
    assert undeclared(TrafficControl, records) == []
    # where the kernel has these kinds they may be somewhere; where it lacks them, nothing else is missing
    assert set(never_emitted(TrafficControl, records)) <= NEEDS_OTHER_KERNEL


def test_the_values_are_those_of_the_kernel(lab: Lab, act: Act) -> None:
    act("shape", rate="10mbit", ceil="20mbit", burst=25_000, destination=lab.far_address, priority=2)
    act("police", rate="6mbit")
    lab.send(lab.far_address, 7001, packets=50)
    await_true(lambda: lab.sent("4e4d:10") >= 50)
    records = read_all(lab)
    of_class = {"interface": "left", "handle": "4e4d:10", "kind": "htb", "parent": "4e4d:1"}
    expected = {
        "class_packets_total": 50,
        "class_bytes_total": 50 * 114,  # Ethernet, IPv4, UDP and 72 bytes
        "class_drops_total": 0,
        "htb_rate_bytes_per_second": 1_250_000,
        "htb_ceil_bytes_per_second": 2_500_000,
        "htb_burst_seconds": pytest.approx(0.02),
        "htb_priority": 2,
        "htb_level": 0,
    }
    read_ = {name: values(records, f"traffic_control_{name}", **of_class) for name in expected}
    assert read_ == {name: [number] for name, number in expected.items()}
    assert values(records, "traffic_control_tbf_rate_bytes_per_second") == [750_000]
    assert values(records, "traffic_control_interface_mtu_bytes", interface="left") == [1500]
    assert values(records, "traffic_control_interface_up", interface="left") == [1]
    assert values(records, "traffic_control_interface_speed_bits_per_second", interface="left") == [10_000_000_000]
    assert values(records, "traffic_control_interface_transmit_packets_total", interface="left")[0] >= 50
    assert values(records, "traffic_control_qdisc_filters", interface="left", handle="4e4d:") == [1]
    keys = {(r.kind, r.key) for r in records if isinstance(r, Entity) and "left" in r.key}
    assert keys == {
        ("interface", "left"),
        ("qdisc", "left 4e4d:"),
        ("qdisc", "left ffff:"),
        ("class", "left 4e4d:1"),
        ("class", "left 4e4d:10"),
    }


def test_only_the_interfaces_that_are_wanted(lab: Lab) -> None:
    records = read(lab, "interfaces", interfaces=("le*",))
    assert {r.key for r in records if isinstance(r, Entity)} == {"left"}


def test_too_many_objects_are_cut_off_and_said(lab: Lab) -> None:
    records: list[Record] = []
    with pytest.raises(Refused, match=r"there are 2 objects of the kind interface, more than max_objects \(1\)"):
        records.extend(TrafficControl.polls()["interfaces"].run(lab.client(max_objects=1)))
    assert read(lab, "interfaces", interfaces=("left",), max_objects=1)


_OTHERS_FIRST = """
import sys
from pyroute2.netlink.rtnl.tcmsg.common import stats2
stats2().compile_nla_table()  # as a qdisc of another kind does that is read first
from nms_workers.services.traffic_control.service import TrafficControl
client = TrafficControl.client(TrafficControl.Target(netns=sys.argv[1]))
print(*{one.metric for poll in TrafficControl.polls().values() for one in poll.run(client) if hasattr(one, "metric")})
"""


def test_the_counters_of_htb_are_read_whatever_was_read_before(lab: Lab, act: Act) -> None:
    act("shape", rate="10mbit", destination=lab.far_address)
    told = run(sys.executable, "-c", _OTHERS_FIRST, lab.near).split()
    assert "traffic_control_htb_borrows_total" in told
