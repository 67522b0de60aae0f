"""What needs netem, fq_codel, codel or police: run by `test_other_kernel.py` on a kernel that has them."""

import sys
from subprocess import PIPE, Popen

import pytest

from nms_workers.errors import Refused
from nms_workers.services.traffic_control.service import TrafficControl
from tests.metric_contract import emitted, undeclared
from tests.services.traffic_control.conftest import Act
from tests.services.traffic_control.lab import Lab, inside, run
from tests.services.traffic_control.test_contract import NEEDS_OTHER_KERNEL, read_all, values

_ECHO = """
import socket
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("0.0.0.0", 7007))
print("ready", flush=True)
while True:
    server.sendto(*server.recvfrom(2000))
"""
_ASK = """
import socket, time
client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
client.settimeout(10)
times = []
for _ in range(5):
    start = time.perf_counter()
    client.sendto(b"x", ("10.99.0.2", 7007))
    client.recv(10)
    times.append(time.perf_counter() - start)
print(min(times))
"""


def test_a_delay_is_there_and_undone(lab: Lab, act: Act) -> None:
    rules = lab.rules()
    done = act("emulate", delay=0.2, jitter=0.01)
    assert done.changed
    assert _round_trip(lab) == pytest.approx(0.2, abs=0.05)
    act("restore", before=done.before)
    assert _round_trip(lab) < 0.1
    assert lab.rules() == rules


def test_packets_are_lost_and_doubled(lab: Lab, act: Act) -> None:
    act("emulate", loss=0.5)
    lab.send(lab.far_address, 7001, packets=1000)
    (qdisc,) = lab.client().get_qdiscs("left")
    assert qdisc.stats.drops / (qdisc.stats.drops + qdisc.stats.packets) == pytest.approx(0.5, abs=0.1)
    act("clear")
    act("emulate", duplicate=1.0)
    lab.send(lab.far_address, 7001, packets=100)
    (qdisc,) = lab.client().get_qdiscs("left")
    assert qdisc.stats.packets >= 200


@pytest.mark.parametrize(
    "arguments",
    [
        {"delay": 0.123456, "jitter": 0.000007},
        {"loss": 0.000001},
        {"delay": 60, "reorder": 0.333333, "duplicate": 0.999999, "loss": 0.1},
    ],
)
def test_the_second_time_touches_nothing(lab: Lab, act: Act, arguments: dict[str, float]) -> None:
    first = act("emulate", **arguments)
    once = lab.rules()
    second = act("emulate", **arguments)
    assert (first.changed, second.changed) == (True, False)
    assert lab.rules() == once
    assert first.after["emulation"] | arguments == first.after["emulation"]


def test_a_changed_emulation_and_its_undo(lab: Lab, act: Act) -> None:
    act("emulate", delay=0.1)
    rules = lab.rules()
    changed = act("emulate", loss=0.25)
    assert changed.before["emulation"]["delay"] == 0.1
    assert changed.after["emulation"]["delay"] == 0
    act("restore", before=changed.before)
    assert lab.rules() == rules


def test_an_emulation_and_shapes_exclude_each_other(lab: Lab, act: Act) -> None:
    done = act("emulate", delay=0.1)
    with pytest.raises(Refused, match="no room for shapes and an emulated line"):
        act("shape", rate="1mbit", port=80)
    act("restore", before=done.before)
    act("shape", rate="1mbit", port=80)
    rules = lab.rules()
    with pytest.raises(Refused, match="no room for shapes and an emulated line"):
        act("emulate", delay=0.1)
    assert lab.rules() == rules


def test_a_root_qdisc_of_somebody_else_is_left_alone(lab: Lab, act: Act) -> None:
    lab.tc("qdisc", "add", "dev", "left", "root", "handle", "1:", "netem", "delay", "5ms")
    rules = lab.rules()
    with pytest.raises(Refused, match="netem 1:, which is somebody else's"):
        act("emulate", delay=0.1)
    act("clear")
    assert lab.rules() == rules


def test_what_these_kinds_tell_is_declared(lab: Lab) -> None:
    run("ip", "-netns", lab.near, "link", "add", "one", "type", "ifb")
    run("ip", "-netns", lab.near, "link", "add", "two", "type", "ifb")
    fair = ("fq_codel", "limit", "100", "target", "7ms", "interval", "70ms", "memory_limit", "1mb", "ecn")
    lab.tc("qdisc", "add", "dev", "left", "root", "handle", "1:", *fair)
    lab.tc("qdisc", "add", "dev", "one", "root", "handle", "1:", "codel", "target", "6ms")
    worse = ("delay", "10ms", "2ms", "reorder", "25%", "corrupt", "1%", "loss", "3%", "duplicate", "4%")
    lab.tc("qdisc", "add", "dev", "two", "root", "handle", "1:", "netem", *worse)
    lab.tc("qdisc", "add", "dev", "left", "ingress")
    match = ("protocol", "ip", "u32", "match", "u32", "0", "0", "action", "police")
    lab.tc("filter", "add", "dev", "left", "ingress", *match, "rate", "8mbit", "burst", "10k", "drop")
    lab.send(lab.far_address, 7001, packets=10)
    records = read_all(lab)
    assert undeclared(TrafficControl, records) == []
    assert {one.metric for one in emitted(records)} >= NEEDS_OTHER_KERNEL
    known = {
        "fq_codel_target_seconds": 0.007,
        "fq_codel_interval_seconds": 0.07,
        "fq_codel_limit_packets": 100,
        "fq_codel_memory_limit_bytes": 1_000_000,
        "codel_target_seconds": 0.006,
        "netem_delay_seconds": 0.01,
        "netem_jitter_seconds": 0.002,
        "netem_reorder_ratio": 0.25,
        "netem_corrupt_ratio": 0.01,
        "netem_loss_ratio": 0.03,
        "netem_duplicate_ratio": 0.04,
        "police_rate_bytes_per_second": 1_000_000,
        "police_burst_seconds": 0.01024,
    }
    read = {name: values(records, f"traffic_control_{name}") for name in known}
    assert read == {name: [pytest.approx(number, rel=0.05)] for name, number in known.items()}


def _round_trip(lab: Lab) -> float:
    """Seconds there and back of a small packet, the least of five."""
    server = Popen(inside(lab.far, sys.executable, "-c", _ECHO), stdout=PIPE, text=True)
    assert server.stdout is not None
    try:
        assert server.stdout.readline() == "ready\n"
        return float(run(*inside(lab.near, sys.executable, "-c", _ASK)))
    finally:
        server.kill()
        server.communicate()
