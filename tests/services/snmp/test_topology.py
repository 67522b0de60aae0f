"""Who touches whom: lldpd behind a real agent, recorded switches, and the ends that are targets."""

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from nms_workers.child import end_with_parent
from nms_workers.errors import NmsError
from nms_workers.records import Entity, Link, Record, Sample
from nms_workers.services.snmp.client import SnmpClient
from nms_workers.services.snmp.neighbors import Neighbor
from nms_workers.services.snmp.service import Snmp
from tests.conftest import StartServer
from tests.servers import Server, ServerMissing
from tests.servers.snmpsim import SWITCH, SnmpsimServer
from tests.services.snmp.conftest import Connect
from tests.services.snmp.faulty import Agent
from tests.services.snmp.test_profiles import Device, client
from tests.services.snmp.vendors import rows

PROCURVE = "network/switch/hpe-procurve-516733-b21"
FDB = "1.3.6.1.2.1.17.7.1.2.2.1"
_LLDPD, _WAIT = Path("/usr/sbin/lldpd"), 60.0


def links(records: list[Record], kind: str) -> list[Link]:
    return [one for one in records if isinstance(one, Link) and one.kind == kind]


def run(*argv: str) -> None:
    subprocess.run(argv, check=True, capture_output=True, timeout=20)


@pytest.fixture
def wired(start_server: StartServer) -> Iterator[Server]:
    """An agent of a host that is wired to another host; both speak LLDP, and the far one is called `far-switch`."""
    if not _LLDPD.exists() or os.geteuid() != 0:
        raise ServerMissing("lldpd", "it is not installed, or we are not root", "apt-get install lldpd, as root")
    agent = start_server("snmpd")
    mark = str(os.getpid())
    namespaces = [f"nms-lldp-{side}-{mark}" for side in "ab"]
    with ExitStack() as undo:
        folder = Path(undo.enter_context(TemporaryDirectory(prefix="nms-lldp-")))
        folder.chmod(0o755)  # the daemon gives up its rights, and looks for its own socket then
        for namespace in namespaces:
            run("ip", "netns", "add", namespace)
            undo.callback(run, "ip", "netns", "del", namespace)
        a, b = namespaces
        run("ip", "-netns", a, "link", "add", "near0", "type", "veth", "peer", "name", "far0", "netns", b)
        run("ip", "-netns", a, "link", "set", "near0", "up")
        run("ip", "-netns", b, "link", "set", "far0", "up")
        Path("/run/lldpd").mkdir(exist_ok=True)
        sides: tuple[tuple[str, str, str, list[str]], ...] = (
            (a, "near-switch", "near0", ["-x", "-X", str(agent.folder / "agentx" / "master")]),
            (b, "far-switch", "far0", []),
        )
        for namespace, name, port, more in sides:
            socket = folder / f"{port}.sock"
            argv = ["ip", "netns", "exec", namespace, str(_LLDPD), "-d", "-u", str(socket), "-I", port, "-C", port]
            with (folder / f"{port}.log").open("wb") as log:
                daemon = subprocess.Popen(
                    [*argv, *more],
                    stdout=log,
                    stderr=log,
                    preexec_fn=end_with_parent(),  # noqa: PLW1509 - two system calls, so that none outlives a killed run
                )
            undo.callback(_end, daemon)
            for words in (("system", "hostname", name), ("lldp", "tx-interval", "1")):
                _retried("lldpcli", "-u", str(socket), "configure", *words)
            _retried("lldpcli", "-u", str(socket), "update")  # send now, not when the first interval of 30 s is over
        yield agent


def _end(daemon: "subprocess.Popen[bytes]") -> None:
    daemon.terminate()
    daemon.wait(10)


def _retried(*argv: str) -> None:
    """The daemon makes its socket a moment after it started."""
    end = time.monotonic() + _WAIT
    while (done := subprocess.run(argv, capture_output=True, timeout=20, check=False)).returncode:
        assert time.monotonic() < end, done.stderr
        time.sleep(0.1)


def test_a_neighbour_by_lldp(wired: Server, connect: Connect) -> None:
    end = time.monotonic() + _WAIT
    found: list[Neighbor] = []
    while not found and time.monotonic() < end:
        one = connect(port=wired.port)
        found = [told for told in one.discover_neighbors() if told.name == "far-switch" and told.chassis]
    (neighbour,) = found
    assert neighbour.protocol == "lldp"
    assert neighbour.port_description == "far0"
    records = list(one.topology())
    (link,) = links(records, "lldp")
    assert link.b == ("device", f"chassis {neighbour.chassis}")
    assert (link.attributes["name"], link.attributes["port_description"]) == ("far-switch", "far0")
    chassis = [one.key for one in records if isinstance(one, Entity) and one.key.startswith("chassis ")]
    assert len(chassis) == 1
    assert chassis != [link.b[1]]


def test_learned_addresses_of_a_recorded_switch(device: Device, snmpsim: SnmpsimServer) -> None:
    records = list(device(PROCURVE).topology())
    base = f"{FDB}.2."
    told = [name.removeprefix(base).split(".") for name, _, _ in snmpsim.rows(PROCURVE) if name.startswith(base)]
    status = {name: value for name, _, value in snmpsim.rows(PROCURVE) if name.startswith(f"{FDB}.3.")}
    learned = {bytes(map(int, arcs[1:])).hex(":") for arcs in told if status[f"{FDB}.3.{'.'.join(arcs)}"] == "3"}
    assert {link.b[1] for link in links(records, "fdb")} == learned != set()
    assert not [link for link in links(records, "fdb") if link.a[1].startswith(("bridge port", "ifIndex"))]
    assert links(records, "lldp")


def test_neighbours_of_a_recorded_switch(device: Device, snmpsim: SnmpsimServer) -> None:
    base = "1.3.6.1.4.1.9.9.23.1.2.1.1.6."
    told = {name.removeprefix(base).split(".")[0] for name, _, _ in snmpsim.rows(SWITCH) if name.startswith(base)}
    names = {name: value for name, _, value in snmpsim.rows(SWITCH) if name.startswith("1.3.6.1.2.1.31.1.1.1.1.")}
    ports = {bytes.fromhex(names[f"1.3.6.1.2.1.31.1.1.1.1.{index}"]).decode() for index in told}
    found = device(SWITCH).discover_neighbors()
    assert {one.interface for one in found if one.protocol == "cdp"} == ports
    polled = links(list(device(SWITCH).topology()), "cdp")
    assert {(one.interface, one.identities[0]) for one in found} == {(link.a[1], link.b[1]) for link in polled}


LOCAL, REMOTE = "1.0.8802.1.1.2.1.3", "1.0.8802.1.1.2.1.4.1.1"


def switch(own: int, other: int) -> dict[tuple[int, ...], int | bytes]:
    """A switch with one port, at whose other end is another."""
    mac = bytes([2, 0, 0, 0, 0, own])
    told: dict[str, int | bytes] = {
        "1.3.6.1.2.1.1.5.0": f"sw{own}.example.net".encode(),
        "1.3.6.1.2.1.2.2.1.2.5": b"port 5",
        "1.3.6.1.2.1.31.1.1.1.1.5": b"Gi0/5",
        f"{LOCAL}.1.0": 4, f"{LOCAL}.2.0": mac, f"{LOCAL}.7.1.2.5": 5, f"{LOCAL}.7.1.3.5": b"Gi0/5",
        f"{REMOTE}.4.0.5.1": 4, f"{REMOTE}.5.0.5.1": bytes([2, 0, 0, 0, 0, other]), f"{REMOTE}.6.0.5.1": 5,
        f"{REMOTE}.7.0.5.1": b"Gi0/5", f"{REMOTE}.9.0.5.1": f"sw{other}".encode(),
    }  # fmt: skip
    return rows(told)


def test_both_ends_are_matched_to_targets() -> None:
    with Agent(switch(1, 2)) as first, Agent(switch(2, 1)) as second, Agent(switch(3, 9)) as third:
        clients: dict[str, SnmpClient] = {
            name: client(agent) for name, agent in (("one", first), ("two", second), ("three", third))
        }
        told: dict[str, list[Record | NmsError]] = {name: [] for name in clients}
        for name, record in Snmp.polls()["topology"].run(clients):
            told[name].append(record)
    ends = {}
    for name, records in told.items():
        assert not [one for one in records if isinstance(one, NmsError)]
        (link,) = links([one for one in records if not isinstance(one, NmsError)], "lldp")
        ends[name] = (link.a, link.b, link.attributes.get("target"))
    assert ends == {
        "one": (("interface", "Gi0/5"), ("device", "chassis 02:00:00:00:00:02"), "two"),
        "two": (("interface", "Gi0/5"), ("device", "chassis 02:00:00:00:00:01"), "one"),
        "three": (("interface", "Gi0/5"), ("device", "chassis 02:00:00:00:00:09"), None),
    }
    own = {name: {one.key for one in records if isinstance(one, Entity)} for name, records in told.items()}
    assert ends["one"][1][1] in own["two"], "the far end is the other's own entity: it is found by key in any order"
    assert "name sw2" in own["two"]


def test_a_neighbour_that_changes_while_it_is_read_is_one() -> None:
    """Its time mark, the first part of the index, is another one in the columns that are read later."""
    told = switch(1, 2)
    name = next(arcs for arcs, value in told.items() if value == b"sw2")
    told[*name[:-3], 7, *name[-2:]] = told.pop(name)
    with Agent(told) as agent:
        (neighbour,) = client(agent).discover_neighbors()
    assert (neighbour.chassis, neighbour.name) == ("02:00:00:00:00:02", "sw2")


def test_over_the_bound_is_counted() -> None:
    fdb = "1.3.6.1.2.1.17.4.3.1"
    told: dict[str, int | bytes] = {"1.3.6.1.2.1.17.1.4.1.2.1": 5, "1.3.6.1.2.1.31.1.1.1.1.5": b"Gi0/5"}
    for at in range(10):
        told |= {f"{fdb}.2.2.0.0.0.0.{at}": 1, f"{fdb}.3.2.0.0.0.0.{at}": 3}
    with Agent(rows(told)) as agent:
        records = list(client(agent, max_learned=4).topology())
    assert [link.a for link in links(records, "fdb")] == [("interface", "Gi0/5")] * 4
    counted = {
        (one.metric, one.labels["table"]): one.value
        for one in records
        if isinstance(one, Sample) and "table" in one.labels
    }
    assert counted["snmp_learned_addresses", "fdb"] == 10
    assert counted["snmp_left_out_addresses", "fdb"] == 6
