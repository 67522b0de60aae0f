"""What is polled and changed at SNMP agents."""

from collections.abc import Iterator, Mapping

from nms_workers.errors import NmsError
from nms_workers.records import Record, Witnesses
from nms_workers.service import Service, poll
from nms_workers.services.snmp.client import SnmpClient
from nms_workers.services.snmp.profile import narrow
from nms_workers.services.snmp.target import SnmpTarget
from nms_workers.services.snmp.together import together

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

    @poll(every="60s", shard=200, enumerates=("interface",))
    def interfaces(self, clients: Mapping[str, SnmpClient]) -> Answers:
        """Counters and states of every port, and since when the device runs."""
        yield from together(clients, lambda client: client.poll("interfaces"))
