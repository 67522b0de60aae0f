"""All that devices here tell is what metrics.csv declares, and nothing is declared that none of them tells."""

from pathlib import Path

import pytest

from nms_workers.records import Record
from nms_workers.services.snmp.client import SnmpClient
from nms_workers.services.snmp.profile import POLLS
from nms_workers.services.snmp.service import Snmp
from nms_workers.services.snmp.target import SnmpTarget
from tests.metric_contract import never_emitted, undeclared
from tests.servers import PASSWORD
from tests.servers.snmpsim import RECORDINGS, ROUTER, SWITCH, UPS
from tests.services.snmp.conftest import Connect
from tests.services.snmp.faulty import Agent
from tests.services.snmp.ios import Router
from tests.services.snmp.test_profiles import Device, client, peers, polled, vendor
from tests.services.snmp.vendors import VENDORS


@pytest.mark.timeout(400)  # a long one where others want the processor
def test_what_is_emitted_is_what_is_declared(device: Device, connect: Connect, tmp_path: Path) -> None:
    records: list[Record] = []
    for one in (device(SWITCH), device(ROUTER), connect()):
        for poll in POLLS:
            records += polled(one, poll)
    for recording in RECORDINGS.keys() - {SWITCH, ROUTER}:
        records += polled(device(recording), "health")
    records += polled(device(UPS), "interfaces")  # it has no 64-bit counters
    for name in VENDORS:
        with vendor(name) as agent:
            records += polled(client(agent), "health")
    with Agent(peers(("10.0.0.1", 6, 2))) as agent:
        records += polled(client(agent), "routing")
    with Router(["hostname edge-7", "end"], PASSWORD) as router:
        records += list(Snmp.polls()["configuration"].run(_of(router, tmp_path)))
    assert undeclared(Snmp, records) == []
    assert never_emitted(Snmp, records) == []


def _of(router: Router, folder: Path) -> SnmpClient:
    """A client whose target says how the configuration of the router is read."""
    access = {
        "driver": "cisco_ios", "username": "nms", "password": "env:TEST_PASS", "port": router.port,
        "archive": str(folder / "archive"), "known_hosts": str(router.known_hosts(folder / "known_hosts")),
    }  # fmt: skip
    settings = {"host": "127.0.0.1", "community": "env:TEST_PUBLIC", "configuration": access}
    return SnmpClient(SnmpTarget.model_validate(settings))
