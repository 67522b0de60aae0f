"""What is polled and changed at SNMP agents."""

from collections.abc import Iterator, Mapping

from nms_workers.errors import NmsError
from nms_workers.records import Record
from nms_workers.service import Service, poll
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

    @poll(every="60s", shard=200, enumerates=("interface",))
    def interfaces(self, clients: Mapping[str, SnmpClient]) -> Answers:
        """Counters and states of every port, and since when the device runs."""
        yield from together(clients, lambda client: client.poll("interfaces"))
