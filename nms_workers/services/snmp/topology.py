"""Who touches whom: neighbours by LLDP and CDP, learned MAC addresses, the ARP table, as links.

A device is called by everything that others may know of it: its chassis (LLDP), its name, its addresses. Each of these
is an entity `device` of its target, and the far end of a link is a `device`, too: where the two have the same key, they
are the same. So it does not matter which of the two was read first, or by which worker.
"""

from collections.abc import Iterable, Iterator, Mapping

from nms_workers.errors import NmsError
from nms_workers.records import Entity, Link, Record, Sample
from nms_workers.services.snmp.lines import inet, mac, written
from nms_workers.services.snmp.neighbors import Neighbor, chassis, identities, is_address, neighbors
from nms_workers.services.snmp.tables import Tables

_MAX_NAMES = 64  # identities of one device
_MAX_ADDRESSES = 100  # of one MAC address at one port
_LEARNED = (3, 5)  # dot1dTpFdbStatus: learned, mgmt
_INVALID_ARP = 2  # ipNetToMediaType

Answers = Iterator[tuple[str, Record | NmsError]]


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
        if names := one.identities:
            about = {
                "port": one.port, "port_description": one.port_description,
                "name": one.name, "identities": list(names),
                "description": one.description, "platform": one.platform, "addresses": list(one.addresses),
            }  # fmt: skip
            links.setdefault(
                (one.protocol, one.interface, names[0]),
                Link(one.protocol, ("interface", one.interface), ("device", names[0]), about),
            )
    yield from links.values()


def _own_identities(tables: Tables, host: str) -> list[str]:
    system, local = "SNMPv2-MIB::system", "LLDP-MIB::lldpLocalSystemData"
    own = chassis(tables.one(local, "lldpLocChassisIdSubtype"), tables.one(local, "lldpLocChassisId"))
    name = str(written(tables.one(system, "sysName"), "text"))
    addresses = [host] if is_address(host) else []
    addresses += tables.rows("IP-MIB::ipAddrEntry")
    addresses += [inet(index.split(".")) for index in tables.rows("IP-MIB::ipAddressEntry")]
    return list(dict.fromkeys(identities(own, name, addresses)))[:_MAX_NAMES]


def _learned(tables: Tables) -> list[Link]:
    """MAC addresses that ports learned. Q-BRIDGE tells the VLAN too; BRIDGE counts where there is no other."""
    found: dict[tuple[str, str], set[int]] = {}
    for index, row in tables.rows("Q-BRIDGE-MIB::dot1qTpFdbEntry").items():
        vlan, *arcs = index.split(".")
        port = tables.bridge_port(row.get("dot1qTpFdbPort"))
        if port and row.get("dot1qTpFdbStatus") in _LEARNED and (address := mac(arcs)):
            found.setdefault((port, address), set()).add(int(vlan))
    for index, row in () if found else tables.rows("BRIDGE-MIB::dot1dTpFdbEntry").items():
        port = tables.bridge_port(row.get("dot1dTpFdbPort"))
        if port and row.get("dot1dTpFdbStatus") in _LEARNED and (address := mac(index.split("."))):
            found.setdefault((port, address), set())
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
