"""Recorded devices row by row: what the profiles make of them against tables written down here once more."""

from collections import Counter
from collections.abc import Mapping

import pytest

from tests.servers.snmpsim import ROUTER, SWITCH, SnmpsimServer
from tests.services.snmp.test_profiles import Device, measured, polled

IF, IFX, ETHER = "1.3.6.1.2.1.2.2.1", "1.3.6.1.2.1.31.1.1.1", "1.3.6.1.2.1.10.7.2.1"
YES_NO = {1: 1, 2: 0}
Factor = float | Mapping[int, int]

# from RFC 2863 and RFC 3635: column, metric, factor
INTERFACES: Mapping[str, tuple[str, Factor]] = {
    f"{IF}.7": ("admin_status", 1),
    f"{IF}.8": ("oper_status", 1),
    f"{IF}.9": ("last_change_seconds", 0.01),
    f"{IF}.13": ("in_discards_total", 1),
    f"{IF}.14": ("in_errors_total", 1),
    f"{IF}.15": ("in_unknown_protocols_total", 1),
    f"{IF}.19": ("out_discards_total", 1),
    f"{IF}.20": ("out_errors_total", 1),
    f"{IF}.21": ("out_queue_packets", 1),
    f"{IFX}.6": ("in_octets_total", 1),
    f"{IFX}.7": ("in_unicast_packets_total", 1),
    f"{IFX}.8": ("in_multicast_packets_total", 1),
    f"{IFX}.9": ("in_broadcast_packets_total", 1),
    f"{IFX}.10": ("out_octets_total", 1),
    f"{IFX}.11": ("out_unicast_packets_total", 1),
    f"{IFX}.12": ("out_multicast_packets_total", 1),
    f"{IFX}.13": ("out_broadcast_packets_total", 1),
    f"{IFX}.14": ("link_trap_enabled", YES_NO),
    f"{IFX}.15": ("speed_bits_per_second", 1e6),
    f"{IFX}.16": ("promiscuous", YES_NO),
    f"{IFX}.17": ("connector_present", YES_NO),
    f"{IFX}.19": ("counter_discontinuity_seconds", 0.01),
    f"{ETHER}.3": ("checksum_errors_total", 1),
}

CISCO, JUNIPER = "1.3.6.1.4.1.9.9", "1.3.6.1.4.1.2636.3.1.13.1"
# column of values, column of names (empty: called by the index), metric, factor; 0 is none of Juniper's values
HEALTH = {
    SWITCH: [
        (f"{CISCO}.13.1.3.1.3", f"{CISCO}.13.1.3.1.2", "snmp_sensor_celsius", 1.0),
        (f"{CISCO}.48.1.1.1.5", f"{CISCO}.48.1.1.1.2", "snmp_memory_used_bytes", 1.0),
        (f"{CISCO}.48.1.1.1.6", f"{CISCO}.48.1.1.1.2", "snmp_memory_free_bytes", 1.0),
        (f"{CISCO}.109.1.1.1.1.8", "", "snmp_cpu_utilization_ratio", 0.01),
    ],
    ROUTER: [
        (f"{JUNIPER}.7", f"{JUNIPER}.5", "snmp_sensor_celsius", 1.0),
        (f"{JUNIPER}.8", f"{JUNIPER}.5", "snmp_cpu_utilization_ratio", 0.01),
        (f"{JUNIPER}.11", f"{JUNIPER}.5", "snmp_memory_utilization_ratio", 0.01),
    ],
}


class Recording:
    """The rows of a recording by column and index, octets as text."""

    def __init__(self, server: SnmpsimServer, name: str) -> None:
        self._rows = [
            (oid, bytes.fromhex(value).decode(errors="replace") if tag.endswith("x") else value)
            for oid, tag, value in server.rows(name)
        ]

    def column(self, base: str) -> dict[str, str]:
        return {oid.removeprefix(f"{base}."): text for oid, text in self._rows if oid.startswith(f"{base}.")}


@pytest.mark.parametrize("recording", [SWITCH, ROUTER], ids=["switch", "router"])
def test_interfaces(device: Device, snmpsim: SnmpsimServer, recording: str) -> None:
    found = measured(polled(device(recording), "interfaces"))
    recorded = Recording(snmpsim, recording)
    names = recorded.column(f"{IFX}.1")
    assert len(names) >= 30
    compared = Counter[str]()
    for column, (metric, factor) in INTERFACES.items():
        for index, value in recorded.column(column).items():
            expected = int(value) * factor if isinstance(factor, float | int) else factor[int(value)]
            assert found[f"snmp_interface_{metric}", names[index]] == pytest.approx(expected), (column, index)
            compared[column] += 1
    assert {column for column in INTERFACES if not compared[column]} <= {f"{IF}.15", f"{IF}.21", f"{ETHER}.3"}
    ports = {name for metric, name in found if metric == "snmp_interface_oper_status"}
    assert ports == set(names.values()), "every row of the recording is a port, and nothing else is"


@pytest.mark.parametrize("recording", HEALTH, ids=["switch", "router"])
def test_health(device: Device, snmpsim: SnmpsimServer, recording: str) -> None:
    found = measured(polled(device(recording), "health"))
    recorded = Recording(snmpsim, recording)
    for values, named, metric, factor in HEALTH[recording]:
        names = recorded.column(named) if named else {}
        times = Counter(names.values())
        compared = 0
        for index, value in recorded.column(values).items():
            name = names.get(index, index)
            called = f"{name}#{index}" if times[name] > 1 else name
            if int(value) or recording != ROUTER:
                assert found[metric, called] == pytest.approx(int(value) * factor), (values, index)
                compared += 1
        assert compared, values
