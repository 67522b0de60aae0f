"""Who touches whom: neighbours by LLDP and CDP, learned MAC addresses, the ARP table, as links.

A device is called by everything that others may know of it: its chassis (LLDP), its name, its addresses. Each of these
is an entity `device` of its target, and the far end of a link is a `device`, too: where the two have the same key, they
are the same. So it does not matter which of the two was read first, or by which worker.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from ipaddress import ip_address
from typing import Any

from nms_workers.errors import NmsError
from nms_workers.records import Entity, Link, Record, Sample
from nms_workers.services.snmp import ports
from nms_workers.services.snmp.lines import Line, inet, mac, written
from nms_workers.services.snmp.oid import Value

_MAX_NAMES = 64  # identities of one device
_MAX_ADDRESSES = 100  # of one MAC address at one port
_LEARNED = (3, 5)  # dot1dTpFdbStatus: learned, mgmt
_MAC_CHASSIS, _ADDRESS_CHASSIS = 4, 5  # LldpChassisIdSubtype
_MAC_PORT, _ADDRESS_PORT = 3, 4  # LldpPortIdSubtype
_INVALID_ARP = 2  # ipNetToMediaType

Answers = Iterator[tuple[str, Record | NmsError]]


class Tables:
    """The rows of the topology's tables, and the ports of the device."""

    def __init__(self, lines: Sequence[Line]) -> None:
        self._rows: dict[str, dict[str, dict[str, Value]]] = {}
        for line in lines:
            cells = {name: value for name, (_, value) in line.cells.items()}
            self._rows.setdefault(line.table.object, {}).setdefault(line.index, {}).update(cells)
        facts: dict[str, dict[str, Any]] = {}
        for table, columns in _PORT_FACTS.items():
            for index, row in self.rows(table).items():
                told = {name: written(row.get(column), how) for name, column, how in columns}  # type: ignore[arg-type]
                facts.setdefault(index, {}).update(told)
        self._facts = facts
        self._called = ports.identities(facts)
        self._bridge = {
            port: str(row.get("dot1dBasePortIfIndex"))
            for port, row in self.rows("BRIDGE-MIB::dot1dBasePortEntry").items()
        }

    def rows(self, table: str) -> Mapping[str, Mapping[str, Value]]:
        """The rows of a table by index; none where the device does not have it."""
        return self._rows.get(table, {})

    def one(self, table: str, column: str) -> Value:
        """A single value."""
        return self.rows(table).get("", {}).get(column)

    def port(self, index: str) -> str:
        """What the port of an ifIndex is called."""
        return self._called.get(index, f"ifIndex {index}")

    def bridge_port(self, number: str) -> str:
        """What the port of a bridge's number is called."""
        index = self._bridge.get(number)
        return self.port(index) if index else f"bridge port {number}"

    def lldp_port(self, number: str) -> str:
        """What the port of an LLDP number is called: the one whose name, description or alias it tells, else the one of
        this ifIndex, as IEEE 802.1AB recommends to number them.
        """
        row = self.rows("LLDP-MIB::lldpLocPortEntry").get(number, {})
        for column in ("lldpLocPortId", "lldpLocPortDesc"):
            text = written(row.get(column), "text")
            for index, facts in self._facts.items():
                if text and text in (facts.get("name"), facts.get("description")):
                    return self.port(index)
        return self.port(number) if number in self._called else f"LLDP port {number}"


_PORT_FACTS = {
    "IF-MIB::ifEntry": (("description", "ifDescr", "text"), ("mac", "ifPhysAddress", "mac")),
    "IF-MIB::ifXEntry": (("name", "ifName", "text"),),
}


@dataclass(frozen=True)
class Neighbor:
    """What one port is told of the device at its other end."""

    protocol: str
    interface: str
    port: str
    name: str
    description: str
    addresses: tuple[str, ...]
    chassis: str

    @property
    def identities(self) -> tuple[str, ...]:
        """What it may be called by, the most certain first."""
        return tuple(_identities(self.chassis, self.name, self.addresses))

    def as_dict(self) -> dict[str, Any]:
        """As JSON, with `device`."""
        return asdict(self) | {"addresses": list(self.addresses), "device": next(iter(self.identities), "unknown")}


def neighbors(tables: Tables) -> list[Neighbor]:
    """What LLDP and CDP tell."""
    return [*_by_lldp(tables), *_by_cdp(tables)]


def records(tables: Tables, host: str, max_learned: int) -> Iterator[Record]:
    """The device by all it is called, its links, and how many there are of each kind."""
    for name in _own_identities(tables, host):
        yield Entity("device", name)
    found = neighbors(tables)
    yield from _joined(found)
    for protocol in ("lldp", "cdp"):
        count = sum(one.protocol == protocol for one in found)
        yield Sample("snmp_neighbors", count, {"protocol": protocol})
    for kind, links in (("fdb", _learned(tables)), ("arp", _arp(tables))):
        yield from links[:max_learned]
        yield Sample("snmp_learned_addresses", len(links), {"table": kind})
        yield Sample("snmp_left_out_addresses", max(0, len(links) - max_learned), {"table": kind})


def matched(answers: Answers) -> Answers:
    """The answers of many targets, the links to neighbours last: by then is known which of them are targets."""
    owners: dict[str, str] = {}
    waiting: list[tuple[str, Record | NmsError]] = []
    for target, one in answers:
        if isinstance(one, Entity) and one.kind == "device":
            owners.setdefault(one.key, target)
        if isinstance(one, NmsError) or (isinstance(one, Link) and one.kind in ("lldp", "cdp")):
            waiting.append((target, one))
        else:
            yield target, one
    for target, one in waiting:
        yield target, _with_target(one, owners) if isinstance(one, Link) else one


def _with_target(link: Link, owners: Mapping[str, str]) -> Link:
    owner = next((owners[name] for name in link.attributes["identities"] if name in owners), None)
    return link if owner is None else Link(link.kind, link.a, link.b, link.attributes | {"target": owner})


def _joined(found: Iterable[Neighbor]) -> Iterator[Link]:
    """A link for each port and device: a phone and a computer behind one port are two."""
    links: dict[tuple[str, str, str], Link] = {}
    for one in found:
        names = one.identities
        if names:
            about = {
                "port": one.port, "name": one.name, "description": one.description,
                "addresses": list(one.addresses), "identities": list(names),
            }  # fmt: skip
            links.setdefault(
                (one.protocol, one.interface, names[0]),
                Link(one.protocol, ("interface", one.interface), ("device", names[0]), about),
            )
    yield from links.values()


def _identities(chassis: str, name: str, addresses: Iterable[str]) -> Iterator[str]:
    """In one form, whichever protocol tells it. A name is taken without its domain: CDP gives it, LLDP often not."""
    if chassis:
        yield f"chassis {chassis}"
    short = name.strip().lower()
    if short:
        yield f"name {short if _is_address(short) else short.partition('.')[0]}"[:255]
    for address in addresses:
        yield f"address {address}"


def _own_identities(tables: Tables, host: str) -> list[str]:
    system, local = "SNMPv2-MIB::system", "LLDP-MIB::lldpLocalSystemData"
    chassis = _chassis(tables.one(local, "lldpLocChassisIdSubtype"), tables.one(local, "lldpLocChassisId"))
    addresses = [address for address in tables.rows("IP-MIB::ipAddrEntry") if _tells(address)]
    addresses += [inet(index.split(".")) for index in tables.rows("IP-MIB::ipAddressEntry")]
    own = [host] if _is_address(host) else []
    name = str(written(tables.one(system, "sysName"), "text"))
    names = _identities(chassis, name, filter(_tells, [*own, *addresses]))
    return list(dict.fromkeys(names))[:_MAX_NAMES]


def _by_lldp(tables: Tables) -> Iterator[Neighbor]:
    addresses: dict[str, list[str]] = {}
    for index in tables.rows("LLDP-MIB::lldpRemManAddrEntry"):
        arcs = index.split(".")
        if (address := inet(arcs[3:])) and address not in addresses.setdefault(".".join(arcs[:3]), []):
            addresses[".".join(arcs[:3])].append(address)
    for index, row in tables.rows("LLDP-MIB::lldpRemEntry").items():
        arcs = index.split(".")
        if len(arcs) != 3:
            continue
        told = tuple(addresses.get(index, ())[:_MAX_ADDRESSES])
        port = _port(row.get("lldpRemPortIdSubtype"), row.get("lldpRemPortId"))
        yield Neighbor(
            protocol="lldp",
            interface=tables.lldp_port(arcs[1]),
            port=port or str(written(row.get("lldpRemPortDesc"), "text")),
            name=str(written(row.get("lldpRemSysName"), "text")),
            description=str(written(row.get("lldpRemSysDesc"), "text"))[:1000],
            addresses=told,
            chassis=_chassis(row.get("lldpRemChassisIdSubtype"), row.get("lldpRemChassisId")),
        )


def _by_cdp(tables: Tables) -> Iterator[Neighbor]:
    for index, row in tables.rows("CISCO-CDP-MIB::cdpCacheEntry").items():
        address = written(row.get("cdpCacheAddress"), "address")
        name = written(row.get("cdpCacheSysName"), "text") or written(row.get("cdpCacheDeviceId"), "text")
        yield Neighbor(
            protocol="cdp",
            interface=tables.port(index.partition(".")[0]),
            port=str(written(row.get("cdpCacheDevicePort"), "text")),
            name=str(name),
            description=str(written(row.get("cdpCachePlatform"), "text"))[:1000],
            addresses=(str(address),) if _tells(str(address)) else (),
            chassis="",
        )


def _learned(tables: Tables) -> list[Link]:
    """MAC addresses that ports learned. Q-BRIDGE tells the VLAN too; BRIDGE counts where there is no other."""
    found: dict[tuple[str, str], set[int]] = {}
    for index, row in tables.rows("Q-BRIDGE-MIB::dot1qTpFdbEntry").items():
        vlan, *arcs = index.split(".")
        if row.get("dot1qTpFdbStatus") in _LEARNED and (address := mac(arcs)):
            found.setdefault((tables.bridge_port(str(row.get("dot1qTpFdbPort"))), address), set()).add(int(vlan))
    for index, row in () if found else tables.rows("BRIDGE-MIB::dot1dTpFdbEntry").items():
        if row.get("dot1dTpFdbStatus") in _LEARNED and (address := mac(index.split("."))):
            found.setdefault((tables.bridge_port(str(row.get("dot1dTpFdbPort"))), address), set())
    return [
        Link("fdb", ("interface", port), ("mac", address), {"fdbs": sorted(fdbs)} if fdbs else {})
        for (port, address), fdbs in found.items()
    ]


def _arp(tables: Tables) -> list[Link]:
    """Which addresses the device knows by which MAC address, at which port."""
    found: dict[tuple[str, str], list[str]] = {}
    for table, prefix in (
        ("IP-MIB::ipNetToPhysicalEntry", "ipNetToPhysical"),
        ("IP-MIB::ipNetToMediaEntry", "ipNetToMedia"),
    ):
        for index, row in tables.rows(table).items():
            port, *arcs = index.split(".")
            address = inet(arcs) if prefix == "ipNetToPhysical" else ".".join(arcs)
            known = row.get(f"{prefix}PhysAddress")
            if (
                not address
                or not isinstance(known, bytes)
                or len(known) != 6
                or row.get(f"{prefix}Type") == _INVALID_ARP
            ):
                continue
            addresses = found.setdefault((tables.port(port), known.hex(":")), [])
            if address not in addresses and len(addresses) < _MAX_ADDRESSES:
                addresses.append(address)
    return [
        Link("arp", ("interface", port), ("mac", address), {"addresses": addresses})
        for (port, address), addresses in found.items()
    ]


def _chassis(kind: Value, value: Value) -> str:
    if not isinstance(value, bytes) or not value:
        return ""
    if kind == _MAC_CHASSIS:
        return value.hex(":")
    if kind == _ADDRESS_CHASSIS:
        return str(written(value[1:], "address"))  # the first octet is the family
    return str(written(value, "text"))[:200]


def _port(kind: Value, value: Value) -> str:
    if not isinstance(value, bytes):
        return ""
    if kind == _MAC_PORT:
        return value.hex(":")
    if kind == _ADDRESS_PORT:
        return str(written(value[1:], "address"))
    return str(written(value, "text"))[:255]


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _tells(address: str) -> bool:
    """Whether an address says which device it is: not that of every host."""
    if not _is_address(address):
        return False
    one = ip_address(address)
    return not (one.is_loopback or one.is_unspecified or one.is_link_local or one.is_multicast)
