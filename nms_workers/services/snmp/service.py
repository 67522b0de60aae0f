"""What is polled and changed at SNMP agents."""

from collections.abc import Iterator, Mapping
from typing import Annotated

import msgspec
from pydantic import Field

from nms_workers.arguments import Address
from nms_workers.change import PROPOSED, Change
from nms_workers.errors import NmsError
from nms_workers.records import Attributes, Record, Witnesses
from nms_workers.service import Service, action, poll
from nms_workers.services.snmp import actions
from nms_workers.services.snmp import topology as links
from nms_workers.services.snmp.actions import InterfaceName, Literally, State, SystemName, Text
from nms_workers.services.snmp.client import SnmpClient
from nms_workers.services.snmp.configuration import Configuration
from nms_workers.services.snmp.discovery import discover
from nms_workers.services.snmp.exact import Kind
from nms_workers.services.snmp.oid import Oid
from nms_workers.services.snmp.profile import narrow
from nms_workers.services.snmp.target import SnmpTarget
from nms_workers.services.snmp.together import together

Networks = Annotated[tuple[Address, ...], Field(max_length=1000)]
VersionName = Annotated[str, Field(pattern=r"^[0-9]{8}T[0-9]{12}Z$")]
Answers = Iterator[tuple[str, Record | NmsError]]


class Snmp(Service):
    """Routers, switches, servers and everything else with an SNMP agent, of versions 1, 2c and 3."""

    kind = "snmp"
    Target = SnmpTarget
    client = SnmpClient
    port = 161
    witnesses = Witnesses(
        uptime="snmp_system_uptime_seconds",
        moved="snmp_interface_counter_discontinuity_seconds",
        speed="snmp_interface_speed_bits_per_second",
        bits="snmp_interface_counter_bits",
        narrow=narrow(),
        sizes=(("_octets_total", 8.0), ("_total", 160.0)),  # no packet is shorter than an IPv4 header, 20 octets
    )

    @poll(every="60s", shard=200)
    def interfaces(self, clients: Mapping[str, SnmpClient]) -> Answers:
        """Counters and states of every port, and since when the device runs."""
        yield from together(clients, lambda client: client.poll("interfaces"))

    @poll(every="60s", shard=200, enumerates=("hardware_alarm",))
    def health(self, clients: Mapping[str, SnmpClient]) -> Answers:
        """CPU, memory, storage, sensors, power; an event while a part is not well."""
        yield from together(clients, lambda client: client.poll("health"))

    @poll(every="60s", shard=200, enumerates=("peer_down",))
    def routing(self, clients: Mapping[str, SnmpClient]) -> Answers:
        """BGP and OSPF peers; an event while one that is configured is not there."""
        yield from together(clients, lambda client: client.poll("routing"))

    @poll(every="15m", deadline="5m", shard=200, enumerates=("system", "interface", "part", "address", "vlan"))
    def inventory(self, clients: Mapping[str, SnmpClient]) -> Answers:
        """The system, its interfaces, parts, addresses and VLANs."""
        yield from together(clients, lambda client: client.poll("inventory"))

    @poll(every="15m", deadline="5m", shard=200, enumerates=("device", "lldp", "cdp", "fdb", "arp"))
    def topology(self, clients: Mapping[str, SnmpClient]) -> Answers:
        """Links to neighbours that LLDP and CDP tell, to the MAC addresses that ports learned, and of the ARP table."""
        yield from links.matched(together(clients, SnmpClient.topology))

    @poll(every="6h", deadline="10m", enumerates=("configuration",))
    def configuration(self, client: SnmpClient) -> Iterator[Record]:
        """The running configuration of devices whose settings say how it is read; a change of it is an event."""
        if client.target.configuration is not None:
            yield from Configuration(client.target).poll()

    @action(undo="restore_values", serialize_by="oid")
    def set_value(self, client: SnmpClient, oid: Oid, kind: Kind, value: Literally, dry_run: bool = False) -> Change:
        """Set one instance, below what the target's `writable` names."""
        return actions.set_value(client, actions.Setting(oid, kind, value), dry_run=dry_run)

    @action(undo="restore_values")
    def set_contact(self, client: SnmpClient, text: Text, dry_run: bool = False) -> Change:
        """Set whom to call about the device (sysContact)."""
        return actions.set_system(client, actions.CONTACT, text, dry_run=dry_run)

    @action(undo="restore_values")
    def set_location(self, client: SnmpClient, text: Text, dry_run: bool = False) -> Change:
        """Set where the device is (sysLocation)."""
        return actions.set_system(client, actions.LOCATION, text, dry_run=dry_run)

    @action(undo="restore_values")
    def set_name(self, client: SnmpClient, name: SystemName, dry_run: bool = False) -> Change:
        """Set the device's name (sysName)."""
        return actions.set_system(client, actions.NAME, name, dry_run=dry_run)

    @action()
    def restore_values(self, client: SnmpClient, before: Attributes) -> Change:
        """Set again what one of these actions found before it changed it: their undo."""
        return actions.restore_values(client, before)

    @action(undo="restore_interface_admin_state", serialize_by="interface")
    def set_interface_admin_state(
        self, client: SnmpClient, interface: InterfaceName, state: State, dry_run: bool = False
    ) -> Change:
        """Put an interface up or down; never down the one through which the device is managed."""
        return actions.set_admin_state(client, interface, state, dry_run=dry_run)

    @action(serialize_by="interface")
    def restore_interface_admin_state(self, client: SnmpClient, interface: InterfaceName, before: Attributes) -> Change:
        """Put an interface as it was before: the undo."""
        return actions.restore_admin_state(client, interface, before)

    @action(deadline="300s")
    def show_configuration(
        self, client: SnmpClient, version: VersionName | None = None, against: VersionName | None = None
    ) -> Change:
        """Show a version of the configuration without secrets (default: the running one), or how another differs."""
        return Configuration(client.target).show(version or "", against or "")

    @action(deadline="1800s", confirm=True, undo="undo_restore_configuration")
    def restore_configuration(self, client: SnmpClient, version: VersionName, dry_run: bool = False) -> Change:
        """Put a version in place of the running configuration, as a whole."""
        return Configuration(client.target).restore(version, dry_run=dry_run)

    @action(deadline="1800s", confirm=True)
    def undo_restore_configuration(self, client: SnmpClient, before: Attributes) -> Change:
        """Put back the version that a restored one replaced: its undo."""
        return Configuration(client.target).restore(str(before.get("version")), dry_run=False)

    @action(deadline="3600s")
    def discover(self, client: SnmpClient, networks: Networks = ()) -> Change:
        """Sweep networks for agents, those that the target's `discovery` names or a part; propose them as targets."""
        swept, proposals = discover(client.target, networks)
        after = {PROPOSED: msgspec.to_builtins(proposals), "asked": swept.asked}
        return Change(changed=bool(proposals), message=str(swept), after=after)
