"""What ntopng tells, in the words of its REST API v2.

Lua writes an empty table as `[]`, whatever it would have held, and numbers of 15 digits with an exponent: bytes are
floats here.

Source: https://www.ntop.org/guides/ntopng/api/rest/api_v2.html
"""

from datetime import datetime
from typing import Any

from msgspec import Struct


class Interface(Struct, frozen=True):
    """An interface that ntopng watches; `name` is what people call it."""

    ifid: int
    ifname: str
    name: str = ""


class Throughput(Struct, frozen=True):
    """Bits and packets a second."""

    bps: float = 0
    pps: float = 0


class End(Struct, frozen=True):
    """One end of a flow."""

    ip: str
    port: int = 0
    name: str = ""
    is_blacklisted: bool = False


class FlowProtocol(Struct, frozen=True):
    """`l4` such as `TCP`, `l7` such as `TLS.Google`."""

    l4: str = ""
    l7: str = ""


class ActiveFlow(Struct, frozen=True):
    """A flow that lasts: bytes so far, seconds of the epoch."""

    key: str
    client: End
    server: End
    protocol: FlowProtocol = FlowProtocol()
    vlan: int = 0
    first_seen: int = 0
    last_seen: int = 0
    duration: float = 0
    bytes: float = 0
    thpt: Throughput = Throughput()


class Flows(Struct, frozen=True):
    """One page of active flows, and how many there are."""

    data: tuple[ActiveFlow, ...]
    totalRows: int = 0  # noqa: N815 - ntopng's name


class HostBytes(Struct, frozen=True):
    """Bytes of a host."""

    total: float = 0
    sent: float = 0
    recvd: float = 0


class ActiveHost(Struct, frozen=True):
    """A host that was seen lately."""

    ip: str
    vlan: int = 0
    name: str = ""
    num_alerts: int = 0
    is_localhost: bool = False
    is_blacklisted: bool = False
    country: str = ""
    bytes: HostBytes = HostBytes()
    thpt: Throughput = Throughput()


class Hosts(Struct, frozen=True):
    """One page of hosts."""

    data: tuple[ActiveHost, ...]


class L4Count(Struct, frozen=True):
    """Active flows of an IP protocol by its number."""

    id: int
    count: int


class L7Count(Struct, frozen=True):
    """Active flows of an application."""

    name: str
    count: int


class L7Bytes(Struct, frozen=True):
    """Bytes of an application since ntopng began."""

    label: str
    value: float


class RedisHealth(Struct, frozen=True):
    """The Redis that ntopng keeps its state in: bytes, keys, and `green` or `red`."""

    health: str
    memory: float | None = None
    dbsize: float | None = None


class Licence(Struct, frozen=True):
    """Version and licence; the licence key itself is left where it is."""

    version: str = ""
    status: str = ""


class SystemStatus(Struct, frozen=True):
    """What ntopng is."""

    license_info: Licence


class AlertRecords(Struct, frozen=True):
    """Alerts as ntopng writes them."""

    records: tuple[dict[str, Any], ...]


class Alert(Struct, frozen=True):
    """An alert.

    Args:
        family: `host`, `flow`, `interface`, ...
        row_id: names a past alert; empty for one that is engaged.
        alert_id: what kind of alert; `name` says it in words.
        subject: whom it is about: an address, a flow, an interface.
        at: when it began.
        severity: 1 debug to 8 emergency, ntopng's own numbers.
        seconds: how long it lasted so far.
    """

    family: str
    row_id: str
    alert_id: str
    name: str
    subject: str
    description: str
    at: datetime
    severity: int = 0
    score: float = 0
    seconds: float = 0
    count: int = 1
