"""What is found on a host: real routes, interfaces, name servers, in namespaces of the test's own (`unshare`)."""

import json
import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from tests.servers import ServerMissing

TREE = Path(__file__).parents[2]
ROUTES = """
ip link set lo up
ip link add d0 type veth peer name d1
ip link set d0 up && ip link set d1 up
ip addr add 198.51.100.2/24 dev d0
ip addr add 203.0.113.2/24 dev d1
ip -6 addr add 2001:db8:5::2/64 dev d0 nodad
"""
GATEWAYS = """
ip route add default nexthop via 198.51.100.1 nexthop via 203.0.113.1
ip route add default via inet6 2001:db8:5::7 dev d0 metric 9
ip route add default via 198.51.100.66 table 77
ip -6 route add default via 2001:db8:5::9
ip route add 192.0.2.0/24 via 198.51.100.88
"""
FIND = """
import json
from nms_workers.jobs.protected import protected
from nms_workers.settings import Guards, Settings
settings = Settings(guards=Guards(find=("interfaces", "gateways", "resolvers")))
print(json.dumps([[str(one.network), one.whose] for one in protected(None, settings)]))
"""
WAYS = """
ip link add e0 type veth peer name e1
ip link set e0 up && ip link set e1 up
ip link add m0 link e0 type macvlan
ip link set m0 up
ip addr add 192.0.2.2/24 dev m0
ip link add f0 type veth peer name f1
ip link add br0 type bridge
ip link set f0 master br0
ip link set br0 up && ip link set f0 up && ip link set f1 up
ip addr add 10.77.0.2/24 dev br0
ip link add x0 type veth peer name x1
ip link set x0 up
ip route add default via 10.77.0.1
ip -6 route add unreachable default metric 4000
"""
NEEDED = """
import json, os
from nms_workers.jobs.interfaces import needed
from nms_workers.settings import Guards, Settings
os.environ["NMS_DATABASE_URL"] = "postgresql://nms@192.0.2.50/nms"
os.environ["NMS_REDIS_URL"] = "redis://127.0.0.1:6379/0"
os.environ["NMS_BROKER__URL"] = "env:BROKER"
os.environ["BROKER"] = "amqp://guest@[2001:db8:5::9]//"
found = [needed(Settings(guards=Guards(find=find))) for find in (("fleet", "gateways"), ("gateways",), ())]
print(json.dumps(found))
"""
SLOW = """
import json, socket, time
from nms_workers.jobs.names import Names
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("127.0.0.9", 53))  # it swallows every question
names, told = Names(), []
for limit in (1.5, 1.5):
    began = time.monotonic()
    found = names.addresses(["mail.example.org", *(f"n{n}.example.org" for n in range(100)), "localhost"], limit)
    told.append([time.monotonic() - began, found["mail.example.org"], sorted(map(str, found["localhost"] or ()))])
print(json.dumps(told))
"""


def _in_namespaces(script: str) -> "subprocess.CompletedProcess[str]":
    command = [shutil.which("unshare") or "unshare", "--mount", "--net", "sh", "-e", "-c", ROUTES + script]
    environment = os.environ | {"PYTHONPATH": str(TREE)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


@cache
def _why_not() -> str:
    """Why no namespace can be had here; empty: it can."""
    if missing := [name for name in ("unshare", "ip", "mount") if shutil.which(name) is None]:
        return f"{', '.join(missing)} missing: install util-linux, iproute2 and mount"
    tried = _in_namespaces("")
    return f"no network namespace can be made: {tried.stderr.strip()}" if tried.returncode else ""


@pytest.fixture(autouse=True)
def _namespaces() -> None:
    if why := _why_not():
        raise ServerMissing("network namespaces", why, "sudo make test")


def elsewhere(tmp_path: Path, routes: str, program: str, resolv_conf: str) -> object:
    """What the program prints as JSON on a host with these routes and name servers."""
    (tmp_path / "resolv.conf").write_text(resolv_conf)
    (tmp_path / "program.py").write_text(program)
    mount = f"mount --bind {tmp_path}/resolv.conf /etc/resolv.conf"
    done = _in_namespaces(f"{routes}\n{mount}\n{sys.executable} {tmp_path}/program.py")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_every_default_gateway_interface_and_name_server_is_found(tmp_path: Path) -> None:
    """Gateways of several paths, of a table of policy routing, and an IPv6 one for IPv4 (RFC 5549) among them."""
    servers = (
        "# nameserver 192.0.2.1\nsearch example.org\nnameserver 192.0.2.53\nnameserver 2001:db8:53::1%d0\nnameserver\n"
    )
    found = elsewhere(tmp_path, GATEWAYS, FIND, servers)
    assert isinstance(found, list)
    by_whom: dict[str, set[str]] = {}
    for network, whose in found:
        by_whom.setdefault(whose, set()).add(network)
    assert by_whom["a default gateway of this host"] == {
        "198.51.100.1/32",
        "203.0.113.1/32",
        "198.51.100.66/32",
        "2001:db8:5::7/128",
        "2001:db8:5::9/128",
    }
    assert by_whom["a name server of this host"] == {"192.0.2.53/32", "2001:db8:53::1/128"}
    assert {"198.51.100.2/32", "2001:db8:5::2/128"} <= by_whom["this host's own (d0)"]
    assert "203.0.113.2/32" in by_whom["this host's own (d1)"]


def test_a_host_without_routes_has_no_gateway(tmp_path: Path) -> None:
    found = elsewhere(tmp_path, "", FIND, "")
    assert isinstance(found, list)
    assert not [whose for _, whose in found if "gateway" in whose or "name server" in whose]


def test_the_interfaces_the_fleet_is_reached_through_are_found_by_real_routes(tmp_path: Path) -> None:
    """With what they stand on: the parent of a macvlan, the ports of a bridge, the other end of a veth."""
    found = elsewhere(tmp_path, WAYS, NEEDED, "")
    assert isinstance(found, list)
    everything, gateways, nothing = found
    database = "PostgreSQL of the fleet (192.0.2.50)"
    gateway = "a default gateway of this host"
    broker = "the broker of the fleet (2001:db8:5::9)"
    assert everything == {
        "lo": "Redis of the fleet (127.0.0.1)",
        **dict.fromkeys(("m0", "e0", "e1"), database),
        **dict.fromkeys(("d0", "d1"), broker),
        **dict.fromkeys(("br0", "f0", "f1"), gateway),
    }, "x0 leads nowhere"
    assert gateways == dict.fromkeys(("br0", "f0", "f1"), gateway)
    assert nothing == {}


def test_a_name_server_that_does_not_answer_holds_up_nobody(tmp_path: Path) -> None:
    """100 names take no longer than one, stand in nobody's way, and are not asked for again at once."""
    told = elsewhere(tmp_path, "", SLOW, "nameserver 127.0.0.9\n")
    assert isinstance(told, list)
    (first, unknown, local), (second, still_unknown, _) = told
    assert 1.4 <= first < 3.0
    assert second < 0.5
    assert unknown is still_unknown is None
    assert "127.0.0.1" in local
