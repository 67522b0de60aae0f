"""What is known of exporters and interfaces: asked of Redis and PostgreSQL once a minute, never in the hot path."""

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from sqlalchemy import Engine, text

from nms_workers.fleet.inventory import Target
from nms_workers.transport.datagrams import Address
from nms_workers.transport.senders import addresses_of

SNMP, FLOWS = "snmp", "flows"
MAX_INTERFACES = 200_000

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True)
class Known:
    """What is known at one moment.

    Args:
        devices: SNMP targets by their addresses.
        views: `flows` targets by the network of exporters they show, the narrowest networks first.
        interfaces: the lasting name of an interface by its SNMP target's id and its ifIndex.
    """

    devices: Mapping[Address, Target] = field(default_factory=dict)
    views: tuple[tuple[Network, Target], ...] = ()
    interfaces: Mapping[tuple[int, int], str] = field(default_factory=dict)

    def target_id(self, exporter: Address) -> int | None:
        """The id of the device's target."""
        device = self.devices.get(exporter)
        return device.id if device else None

    def view(self, exporter: Address) -> Target | None:
        """The `flows` target that shows this exporter."""
        address = ipaddress.ip_address(exporter)
        return next((target for network, target in self.views if address in network), None)

    def interface(self, exporter: Address, index: int) -> str:
        """What an interface is called: as SNMP calls it, else by its ifIndex."""
        device = self.devices.get(exporter)
        return (device and self.interfaces.get((device.id, index))) or f"ifIndex {index}"


def known(targets: Iterable[Target], engine: Engine) -> Known:
    """What targets and the history say now. Names are looked up and queries run, so it may take seconds.

    Raises:
        sqlalchemy.exc.SQLAlchemyError: PostgreSQL is away.
    """
    devices: dict[Address, Target] = {}
    views: list[tuple[Network, Target]] = []
    for target in targets:
        if target.service == SNMP:
            for address in addresses_of(str(target.settings.get("host", ""))):
                devices.setdefault(address, target)
        elif target.service == FLOWS:
            networks = target.settings.get("exporters") or ("0.0.0.0/0", "::/0")
            views += [(ipaddress.ip_network(network), target) for network in networks]
    views.sort(key=lambda view: (-view[0].prefixlen, view[1].name))
    return Known(devices, tuple(views), _interfaces(engine))


_INTERFACES = text(
    """
    SELECT target_id, attributes ->> 'index' AS index, key
    FROM entities JOIN targets ON targets.id = target_id
    WHERE kind = 'interface' AND service = 'snmp' AND gone_at IS NULL
    LIMIT :most
    """
)


def _interfaces(engine: Engine) -> dict[tuple[int, int], str]:
    with engine.connect() as connection:
        rows = connection.execute(_INTERFACES, {"most": MAX_INTERFACES}).all()
    return {(target, int(index)): key for target, index, key in rows if (index or "").isdecimal()}
