"""Who is at the other end of each port, as LLDP (IEEE 802.1AB, LLDP-MIB) and CDP (CISCO-CDP-MIB) tell it."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from ipaddress import ip_address
from typing import Any, Literal

import msgspec

from nms_workers.services.snmp.lines import written
from nms_workers.services.snmp.oid import Value

LLDP_REMOTE = "1.0.8802.1.1.2.1.4.1.1"  # lldpRemEntry: index time mark, local port, number
LLDP_ADDRESS = "1.0.8802.1.1.2.1.4.2.1"  # lldpRemManAddrEntry: the same, then kind, length and octets of the address
LLDP_PORT = "1.0.8802.1.1.2.1.3.7.1"  # lldpLocPortEntry: index local port
CDP_CACHE = "1.3.6.1.4.1.9.9.23.1.2.1.1"  # cdpCacheEntry: index ifIndex, number
TABLES = (LLDP_REMOTE, LLDP_ADDRESS, LLDP_PORT, CDP_CACHE)

_MAC = 3  # LldpPortIdSubtype
_CHASSIS_MAC, _CHASSIS_ADDRESS = 4, 5  # LldpChassisIdSubtype
_FAMILY_OCTETS = {1: 4, 2: 16}  # AddressFamilyNumbers: IPv4, IPv6
_CDP_IP = 1

Rows = Iterable[tuple[str, Value]]
Cells = dict[tuple[str, ...], dict[str, Value]]


class Neighbor(msgspec.Struct, frozen=True):
    """A device at the other end of a port, as it says of itself; what it does not say is empty.

    Args:
        interface: our port, by its lasting name.
        chassis: names the device: a MAC address with colons, or text.
        port: its port; a MAC address with colons, or text.
        port_description: of its port.
        addresses: where it can be managed.
    """

    protocol: Literal["lldp", "cdp"]
    interface: str
    chassis: str
    port: str
    name: str = ""
    description: str = ""
    port_description: str = ""
    platform: str = ""
    addresses: tuple[str, ...] = ()


def neighbors(tables: Mapping[str, Rows], interfaces: Sequence[Mapping[str, Any]]) -> Iterator[Neighbor]:
    """The neighbours of a device, LLDP's before CDP's, in the order of its tables.

    Args:
        tables: what is below each of `TABLES`; one that the device does not have may be missing.
        interfaces: as `SnmpClient.get_interface_list` gives them.
    """
    ports = _Ports(interfaces, _cells(LLDP_PORT, tables.get(LLDP_PORT, ())))
    addresses = _addresses(tables.get(LLDP_ADDRESS, ()))
    for index, cells in _cells(LLDP_REMOTE, tables.get(LLDP_REMOTE, ())).items():
        if len(index) == 3:
            yield Neighbor(
                protocol="lldp",
                interface=ports.of_lldp(index[1]),
                chassis=_chassis(cells),
                port=_port(cells.get("6"), cells.get("7")),
                port_description=_text(cells.get("8")),
                name=_text(cells.get("9")),
                description=_text(cells.get("10")),
                addresses=tuple(addresses.get(index, ())),
            )
    for index, cells in _cells(CDP_CACHE, tables.get(CDP_CACHE, ())).items():
        address = _address(cells.get("4")) if cells.get("3") == _CDP_IP else ""
        yield Neighbor(
            protocol="cdp",
            interface=ports.of_index(index[0]),
            chassis=_text(cells.get("6")),
            port=_text(cells.get("7")),
            name=_text(cells.get("6")),
            description=_text(cells.get("5")),
            platform=_text(cells.get("8")),
            addresses=(address,) if address else (),
        )


class _Ports:
    """LLDP numbers ports in its own way: which of our interfaces one is, its name or MAC address tells."""

    def __init__(self, interfaces: Sequence[Mapping[str, Any]], local: Cells) -> None:
        self._local = local
        self._by_index = {str(one["index"]): str(one["interface"]) for one in interfaces}
        self._by_text: dict[str, str] = {}
        for field in ("alias", "mac", "description", "name"):  # the last is the surest
            named = [str(one.get(field) or "") for one in interfaces]
            once = {text for text in named if text and named.count(text) == 1}
            self._by_text |= {
                text: str(one["interface"]) for text, one in zip(named, interfaces, strict=True) if text in once
            }

    def of_index(self, index: str) -> str:
        return self._by_index.get(index, f"ifIndex {index}")

    def of_lldp(self, number: str) -> str:
        cells = self._local.get((number,), {})
        told = [_port(cells.get("2"), cells.get("3")), _text(cells.get("4"))]
        known = [self._by_text[text] for text in told if text in self._by_text]
        return known[0] if known else self._by_index.get(number) or told[0] or f"port {number}"


def _cells(table: str, rows: Rows) -> Cells:
    """Index to column to value."""
    found: Cells = {}
    for oid, value in rows:
        column, *index = oid.removeprefix(f"{table}.").split(".")
        if index:
            found.setdefault(tuple(index), {})[column] = value
    return found


def _addresses(rows: Rows) -> dict[tuple[str, ...], list[str]]:
    """Index of a neighbour to its addresses, each once."""
    found: dict[tuple[str, ...], list[str]] = {}
    for oid, _ in rows:
        _, *index = oid.removeprefix(f"{LLDP_ADDRESS}.").split(".")
        family, octets = (int(index[3]), index[5:]) if len(index) > 5 else (0, [])
        if len(octets) != _FAMILY_OCTETS.get(family) or max(map(int, octets)) > 255:
            continue
        text, known = _address(bytes(map(int, octets))), found.setdefault(tuple(index[:3]), [])
        if text not in known:
            known.append(text)
    return found


def _chassis(cells: Mapping[str, Value]) -> str:
    value, kind = cells.get("5"), cells.get("4")
    if kind == _CHASSIS_ADDRESS and isinstance(value, bytes) and value[:1] in (b"\x01", b"\x02"):
        return _address(value[1:])
    return _text(value, mac=kind == _CHASSIS_MAC)


def _port(kind: Value, value: Value) -> str:
    return _text(value, mac=kind == _MAC)


def _text(value: Value, *, mac: bool = False) -> str:
    return str(written(value, "mac" if mac else "text"))


def _address(value: Value) -> str:
    return str(ip_address(value)) if isinstance(value, bytes) and len(value) in (4, 16) else ""
