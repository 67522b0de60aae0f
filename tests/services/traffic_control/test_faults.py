"""What goes wrong is told in words: no such interface or namespace, no right, no time, no such kind."""

import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from nms_workers.errors import AuthError, Refused, Timeout
from nms_workers.services.traffic_control.client import TrafficControlClient
from nms_workers.services.traffic_control.kernel import ask
from nms_workers.services.traffic_control.service import TrafficControl
from nms_workers.services.traffic_control.target import TrafficControlTarget
from nms_workers.services.traffic_control.tree import Emulation, Limits, Part, Policer
from nms_workers.transport.deadline import deadline
from tests.services.traffic_control.conftest import Act
from tests.services.traffic_control.lab import Lab, inside, run

# what a worker without a capability meets; the outcome as JSON
_ATTEMPT = """
import json, sys
from nms_workers.errors import TargetError
from nms_workers.services.traffic_control.client import TrafficControlClient
from nms_workers.services.traffic_control.target import TrafficControlTarget
from nms_workers.services.traffic_control.tree import Limits, Part
client = TrafficControlClient(TrafficControlTarget(netns=sys.argv[1]))
try:
    names = [one.interface for one in client.get_qdiscs()]
    client.apply("left", Part(default_class=Limits(rate="1mbit")))
except TargetError as exc:
    print(json.dumps({"read": "names" in globals(), "outcome": exc.outcome, "said": str(exc)}))
"""


@pytest.mark.parametrize(("action", "arguments"), [("shape", {"rate": "1mbit", "port": 80}), ("clear", {})])
def test_no_such_interface(lab: Lab, act: Act, action: str, arguments: dict[str, Any]) -> None:
    with pytest.raises(Refused, match="there is no interface ghost0"):
        act(action, interface="ghost0", **arguments)
    with pytest.raises(Refused, match="there is no interface ghost0"):
        lab.client().get_qdiscs("ghost0")


def test_no_such_namespace() -> None:
    with pytest.raises(Refused, match=r"there is no network namespace nms-none \(list them with"):
        TrafficControlClient(TrafficControlTarget(netns="nms-none")).get_interfaces()


def test_a_file_is_no_namespace(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.touch()
    with pytest.raises(Refused, match="is no network namespace"):
        TrafficControlClient(TrafficControlTarget(netns=str(plain))).get_interfaces()


def test_a_namespace_by_its_path(lab: Lab) -> None:
    client = TrafficControlClient(TrafficControlTarget(netns=f"/var/run/netns/{lab.near}"))
    assert [i.address for i in client.get_interfaces()] == [i.address for i in lab.client().get_interfaces()]


def test_the_calling_thread_stays_where_it_is(lab: Lab) -> None:
    own = Path("/proc/thread-self/ns/net")
    before = own.readlink()
    assert {one.name for one in lab.client().get_interfaces()} == {"lo", "left"}
    assert own.readlink() == before


@pytest.mark.parametrize(
    ("capability", "read", "said"),
    [
        ("-net_admin", True, "the kernel permits no change (run the worker as root or with CAP_NET_ADMIN)"),
        ("-sys_admin", False, "must not be entered (run the worker as root or with CAP_SYS_ADMIN)"),
    ],
)
def test_without_a_capability(lab: Lab, capability: str, read: bool, said: str) -> None:
    attempt = ["setpriv", "--bounding-set", capability, sys.executable, "-c", _ATTEMPT]
    told = run(*inside(lab.near, *attempt, "")) if read else run(*attempt, lab.near)
    found = json.loads(told)
    assert (found["read"], found["outcome"]) == (read, AuthError.outcome)
    assert said in found["said"]


def test_the_deadline_of_the_run_counts(lab: Lab) -> None:
    with deadline(0.0), pytest.raises(Timeout):
        lab.client().get_interfaces()
    answered = threading.Event()
    target = TrafficControlTarget(netns=lab.near, timeout=0.1)
    with pytest.raises(Timeout, match="did not answer in"):
        ask(target, lambda _: answered.wait(10))
    answered.set()


def test_a_kernel_without_netem_says_so_and_takes_back_what_was_begun(lab: Lab) -> None:
    client = lab.client()
    rules = lab.rules()
    wanted = Part(ingress=Policer(rate="6mbit"), emulation=Emulation(delay=0.1))
    if _has_netem(lab):  # then `in_other_kernel.py` says the rest
        client.apply("left", wanted)
        assert client.get_qdiscs("left")[0].kind == "netem"
        return
    with pytest.raises(Refused) as refusal:
        client.apply("left", wanted)
    assert str(refusal.value) == "this kernel has no netem, which emulating a line needs (modprobe sch_netem)"
    assert lab.rules() == rules


def _has_netem(lab: Lab) -> bool:
    """By tc itself, on the loopback device."""
    command = ["tc", "-netns", lab.near, "qdisc", "add", "dev", "lo", "root", "netem", "delay", "1ms"]
    return subprocess.run(command, check=False, capture_output=True).returncode == 0


def test_only_linux_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(Refused, match="which only Linux has"):
        TrafficControlClient(TrafficControlTarget()).get_interfaces()


def test_the_library_is_loaded_when_first_used() -> None:
    loaded = "import sys, nms_workers.services.traffic_control.service; print('pyroute2' in sys.modules)"
    assert run(sys.executable, "-c", loaded) == "False\n"


def test_a_device_that_goes_away_takes_its_rules_along(lab: Lab, act: Act) -> None:
    act("shape", rate="1mbit", port=80)
    run("ip", "-netns", lab.near, "link", "del", "left")
    with pytest.raises(Refused, match="there is no interface left"):
        act("clear")


def test_a_class_changed_by_hand_is_not_taken_for_ours(lab: Lab, act: Act) -> None:
    act("shape", rate="1mbit", dscp=8)
    lab.tc("class", "change", "dev", "left", "parent", "4e4d:1", "classid", "4e4d:11", "htb", "rate", "1kbit")
    with pytest.raises(Refused, match="4e4d:11 has values that were not given here"):
        act("clear")


@pytest.mark.parametrize(
    "name",
    [
        "-left",
        "--help",
        "a/b",
        "le ft",
        "left\n",
        "",
        ".",
        "..",
        "sixteen-letters-",
        "l\x00",
        "左",
        "eth\u0660",
        "a;b",
        "$(id)",
    ],
)
def test_hostile_interface_names(name: str) -> None:
    for action in TrafficControl.actions().values():
        with pytest.raises(Refused, match="interface: "):
            action.validate({"interface": name, "rate": "1mbit", "before": {}})


@pytest.mark.parametrize(
    "netns", ["..", ".", "../x", "/../x", "/a/../b", "a/b", "-x", "a b", "a\n", "/proc//x", "\u0661"]
)
def test_hostile_namespaces(netns: str) -> None:
    with pytest.raises(ValueError, match="netns"):
        TrafficControlTarget(netns=netns)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"rate": "10"}, "write a rate as a number and a unit"),
        ({"rate": "10mbit; id"}, "write a rate"),
        ({"rate": "\u0661\u0660mbit"}, "write a rate"),
        ({"rate": "1e9bit"}, "write a rate"),
        ({"rate": "7kbit"}, "greater than or equal to 8000"),
        ({"rate": "33gbit"}, "less than or equal to"),
        ({"rate": float("inf")}, "rate: "),
        ({"rate": "1mbit", "port": 0}, "port: "),
        ({"rate": "1mbit", "dscp": 64}, "dscp: "),
        ({"rate": "1mbit", "source": "10.1.2.3/8"}, "source"),
        ({"rate": "1mbit", "protocol": "icmp"}, "protocol: "),
        ({"rate": "1mbit", "port": 80, "priority": 8}, "priority: "),
        ({"rate": "1mbit", "port": 80, "burst": 10}, "burst: "),
    ],
)
def test_arguments_that_cannot_be(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(Refused, match=said):
        TrafficControl.actions()["shape"].validate({"interface": "left"} | arguments)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({}, "a match names a source, destination, protocol, port or dscp"),
        ({"source": "0.0.0.0/0"}, "leave it out"),
        ({"source": "10.0.0.0/8", "destination": "fd00::/8"}, "different IP versions"),
        ({"port": 80, "ceil": "500kbit"}, "ceil is below rate"),
        ({"port": 80, "burst": 900_000_000}, "takes longer than 100 s"),
    ],
)
def test_arguments_that_do_not_fit_together(lab: Lab, act: Act, arguments: dict[str, Any], said: str) -> None:
    rules = lab.rules()
    with pytest.raises(Refused, match=said):
        act("shape", rate="1mbit", **arguments)
    assert lab.rules() == rules


def test_limits_need_no_namespace_to_be_wrong() -> None:
    with pytest.raises(ValueError, match="jitter and reorder need a delay"):
        Emulation(loss=0.1, jitter=0.1)
    with pytest.raises(ValueError, match="name a delay, loss or duplicate"):
        Emulation()
    assert Part.model_validate_json('{"default_class": null}').as_json() == {"default_class": None}
    assert Limits(rate="1.5mbit").rate == 1_500_000
