"""Recordings of snmpsim-data that the tests use, and what is kept of the long ones."""

_GROUPS = "1 2 4.20 4.22 4.34 4.35 10.7 14.10 15.3 17.1 17.4 17.7.1.2.2 17.7.1.4.3 25.1 25.2 25.3.3 31.1.1 33 47.1.1.1 99 105"
_MIB_2 = tuple(f"1.3.6.1.2.1.{group}" for group in _GROUPS.split())
_LLDP, _LAG, _CISCO = "1.0.8802.1.1.2.1", "1.2.840.10006.300.43.1", "1.3.6.1.4.1.9.9"

SWITCH, ROUTER = "network/switch/cisco-c3560", "network/router/juniper-mx960-16-1r6-7-a"

KEEP: dict[str, tuple[str, ...]] = {
    SWITCH: (_LLDP, _LAG, *_MIB_2, *(f"{_CISCO}.{group}" for group in ("13", "23", "46", "48", "91", "109.1.1.1"))),
    ROUTER: (_LLDP, _LAG, *_MIB_2, "1.3.6.1.4.1.2636.3.1.13"),
    "network/switch/cisco-c3750": (_LAG, *_MIB_2, *(f"{_CISCO}.{group}" for group in ("13", "23", "48", "91.1.1"))),
    "network/switch/hpe-procurve-516733-b21": (_LLDP, _LAG, *_MIB_2, "1.3.6.1.4.1.11.2.14.11"),
    "network/router/huawei-s5720": (*_MIB_2, "1.3.6.1.4.1.2011.5.25.31.1.1.1"),
    "network/firewall/fortinet-xcu": (*_MIB_2, "1.3.6.1.4.1.12356.101.4"),
    "network/firewall/paloalto-pa-5000": (*_MIB_2, "1.3.6.1.4.1.25461.2.1.2.3"),
    "cloud/arista-dcs-7150s-52-cl": (_LLDP, *_MIB_2, "1.3.6.1.4.1.2021"),
    "UPS/eaton-93e-80": _MIB_2,
    "os/linux/unknown-001": (*_MIB_2, "1.3.6.1.4.1.2021"),
}
RECORDINGS = tuple(KEEP)
