"""What is polled and changed at SNMP agents."""

from collections.abc import Iterator, Mapping

from nms_workers.errors import NmsError
from nms_workers.records import Record
from nms_workers.service import Service, poll
from nms_workers.services.snmp import topology as links
from nms_workers.services.snmp.client import SnmpClient
from nms_workers.services.snmp.target import SnmpTarget
from nms_workers.services.snmp.together import together

Answers = Iterator[tuple[str, Record | NmsError]]


class Snmp(Service):
    """Routers, switches, servers and everything else with an SNMP agent, of versions 1, 2c and 3."""

    kind = "snmp"
    Target = SnmpTarget
    client = SnmpClient
    port = 161

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
