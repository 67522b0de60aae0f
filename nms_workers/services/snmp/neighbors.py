"""Who is at the other end of each port, as LLDP (IEEE 802.1AB, LLDP-MIB) and CDP (CISCO-CDP-MIB) tell it."""

from collections.abc import Iterable, Iterator, Mapping
from ipaddress import ip_address
from typing import Literal

import msgspec

from nms_workers.services.snmp.lines import inet, written
from nms_workers.services.snmp.oid import Value
from nms_workers.services.snmp.tables import Cells, Tables

TABLES = (
    "IF-MIB::ifEntry",
    "IF-MIB::ifXEntry",
    "LLDP-MIB::lldpLocPortEntry",
    "LLDP-MIB::lldpRemEntry",
    "LLDP-MIB::lldpRemManAddrEntry",
    "CISCO-CDP-MIB::cdpCacheEntry",
)
"""Those of the profile `topology` that neighbours are found in."""

_MAX_ADDRESSES = 100  # of one neighbour
_MAX_TEXT = 1000
_MAC_CHASSIS, _ADDRESS_CHASSIS = 4, 5  # LldpChassisIdSubtype
_MAC_PORT, _ADDRESS_PORT = 3, 4  # LldpPortIdSubtype
_IP = ("1", "2")  # AddressFamilyNumbers: IPv4, IPv6
_CDP_IP = (1, 20)  # CiscoNetworkProtocol: ip, ipv6


class Neighbor(msgspec.Struct, frozen=True):
    """A device at the other end of a port, as it says of itself; what it does not say is empty.

    Args:
        interface: our port, by its lasting name.
        chassis: names the device, by LLDP: a MAC address with colons, or text.
        port: its port; a MAC address with colons, an address, or text.
        name: its sysName; by CDP its device id where it does not tell that.
        description: what it is: sysDescr, or the version of its software.
        port_description: of its port.
        platform: its hardware, by CDP.
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

    @property
    def identities(self) -> tuple[str, ...]:
        """What the device may be called by, the most certain first."""
        return tuple(identities(self.chassis, self.name, self.addresses))


def neighbors(tables: Tables) -> list[Neighbor]:
    """The neighbours of a device, LLDP's before CDP's, in the order of its tables."""
    return [*_by_lldp(tables), *_by_cdp(tables)]


def identities(chassis: str, name: str, addresses: Iterable[str]) -> Iterator[str]:
    """What a device is called by, in one form, whichever protocol tells it.

    A name is taken without its domain: CDP gives it, LLDP often not. Addresses that every host has are left out.
    """
    if chassis:
        yield f"chassis {chassis}"
    short = name.strip().lower()
    if short:
        yield f"name {short if is_address(short) else short.partition('.')[0]}"[:255]
    for address in addresses:
        if is_address(address) and not _is_everywhere(address):
            yield f"address {address}"


def chassis(kind: Value, value: Value) -> str:
    """The id of a chassis as text (LldpChassisId)."""
    return _id(value, mac=kind == _MAC_CHASSIS, address=kind == _ADDRESS_CHASSIS)


def is_address(text: str) -> bool:
    """Whether it is an address of IPv4 or IPv6."""
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _by_lldp(tables: Tables) -> Iterator[Neighbor]:
    addresses = _addresses(tables)
    for index, row in _remote(tables).items():
        yield Neighbor(
            protocol="lldp",
            interface=_lldp_port(tables, index.partition(".")[0]),
            chassis=chassis(row.get("lldpRemChassisIdSubtype"), row.get("lldpRemChassisId")),
            port=_port(row.get("lldpRemPortIdSubtype"), row.get("lldpRemPortId")),
            name=_text(row, "lldpRemSysName"),
            description=_text(row, "lldpRemSysDesc"),
            port_description=_text(row, "lldpRemPortDesc"),
            addresses=tuple(addresses.get(index, ())),
        )


def _remote(tables: Tables) -> Mapping[str, Cells]:
    """Our port and a number to what a neighbour says.

    Before these two the index has a time mark (lldpRemTimeMark), which is another one after each change: a neighbour
    that changes while its columns are read comes in two rows.
    """
    found: dict[str, dict[str, Value]] = {}
    for index, row in tables.rows("LLDP-MIB::lldpRemEntry").items():
        if index.count(".") == 2:
            found.setdefault(index.partition(".")[2], {}).update(row)
    return {index: row for index, row in found.items() if "lldpRemChassisIdSubtype" in row}  # else it has just come


def _by_cdp(tables: Tables) -> Iterator[Neighbor]:
    for index, row in tables.rows("CISCO-CDP-MIB::cdpCacheEntry").items():
        address = _address(row.get("cdpCacheAddress")) if row.get("cdpCacheAddressType") in _CDP_IP else ""
        yield Neighbor(
            protocol="cdp",
            interface=tables.port(index.partition(".")[0]),
            chassis="",
            port=_text(row, "cdpCacheDevicePort"),
            name=_text(row, "cdpCacheSysName") or _text(row, "cdpCacheDeviceId"),
            description=_text(row, "cdpCacheVersion"),
            platform=_text(row, "cdpCachePlatform"),
            addresses=(address,) if address else (),
        )


def _lldp_port(tables: Tables, number: str) -> str:
    """What our port of an LLDP number is called. LLDP numbers ports in its own way, and tells a name, a description, an
    alias or a MAC address of each; else it is the one of this ifIndex, as IEEE 802.1AB recommends to number them.
    """
    row = tables.rows("LLDP-MIB::lldpLocPortEntry").get(number, {})
    told = [_port(row.get("lldpLocPortIdSubtype"), row.get("lldpLocPortId")), _text(row, "lldpLocPortDesc")]
    if known := tables.port_of(told):
        return known
    return tables.port(number) if tables.is_port(number) else told[0] or f"LLDP port {number}"


def _addresses(tables: Tables) -> Mapping[str, list[str]]:
    """Our port and the number of a neighbour to its addresses, each once."""
    found: dict[str, list[str]] = {}
    for index in tables.rows("LLDP-MIB::lldpRemManAddrEntry"):
        arcs = index.split(".")  # the neighbour's, then the kind of the address, its length and its octets
        address = inet(arcs[3:]) if arcs[3:4] and arcs[3] in _IP else ""
        known = found.setdefault(".".join(arcs[1:3]), [])
        if address and address not in known and len(known) < _MAX_ADDRESSES:
            known.append(address)
    return found


def _port(kind: Value, value: Value) -> str:
    return _id(value, mac=kind == _MAC_PORT, address=kind == _ADDRESS_PORT)


def _id(value: Value, *, mac: bool, address: bool) -> str:
    if not isinstance(value, bytes):
        return ""
    if mac:
        return value.hex(":")
    return (_address(value[1:]) if address else "") or str(written(value, "text"))[:255]  # it begins with its family


def _text(row: Cells, column: str) -> str:
    return str(written(row.get(column), "text"))[:_MAX_TEXT]


def _address(value: Value) -> str:
    return str(ip_address(value)) if isinstance(value, bytes) and len(value) in (4, 16) else ""


def _is_everywhere(address: str) -> bool:
    one = ip_address(address)
    return one.is_loopback or one.is_unspecified or one.is_link_local or one.is_multicast
