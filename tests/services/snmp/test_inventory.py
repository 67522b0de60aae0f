"""What exists at a device: recorded devices against their recordings."""

import pytest

from nms_workers.records import Entity
from nms_workers.services.snmp.service import Snmp
from tests.servers.snmpsim import ROUTER, SWITCH, SnmpsimServer
from tests.services.snmp.test_profiles import Device


@pytest.mark.parametrize("recording", [SWITCH, ROUTER], ids=["switch", "router"])
def test_everything_of_a_recorded_device(device: Device, snmpsim: SnmpsimServer, recording: str) -> None:
    told = {
        name: bytes.fromhex(value).decode("latin-1") if tag == "4x" else value
        for name, tag, value in snmpsim.rows(recording)
    }

    def column(base: str) -> dict[str, str]:
        return {name.removeprefix(f"{base}."): value for name, value in told.items() if name.startswith(f"{base}.")}

    found: dict[str, dict[str, dict[str, object]]] = {}
    for one in device(recording).poll("inventory"):
        assert isinstance(one, Entity)
        found.setdefault(one.kind, {})[one.key] = one.attributes
    assert found.keys() <= Snmp.polls()["inventory"].enumerates

    assert found["system"]["system"]["name"] == told["1.3.6.1.2.1.1.5.0"]
    names, descriptions = column("1.3.6.1.2.1.31.1.1.1.1"), column("1.3.6.1.2.1.2.2.1.2")
    assert {key: (one["index"], one["description"]) for key, one in found["interface"].items()} == {
        name: (index, descriptions[index]) for index, name in names.items()
    }
    addresses = column("1.3.6.1.2.1.4.20.1.2")
    assert {key: one["interface"] for key, one in found.get("address", {}).items() if key in addresses} == {
        address: names[index] for address, index in addresses.items()
    }
    serials = {serial for serial in column("1.3.6.1.2.1.47.1.1.1.1.11").values() if serial.strip("\x00 ")}
    assert serials or recording == ROUTER  # it was recorded without its parts and addresses
    assert {str(one["serial"]) for one in found.get("part", {}).values()} >= {
        serial.strip("\x00") for serial in serials
    }
    assert len(found.get("part", {})) == len(column("1.3.6.1.2.1.47.1.1.1.1.2")), "each has a key of its own"
    by_cisco, by_bridge = column("1.3.6.1.4.1.9.9.46.1.3.1.1.4"), column("1.3.6.1.2.1.17.7.1.4.3.1.1")
    vlans = {index.partition(".")[2]: name for index, name in by_cisco.items()} | by_bridge
    assert {key: one["name"] for key, one in found["vlan"].items()} == vlans != {}
