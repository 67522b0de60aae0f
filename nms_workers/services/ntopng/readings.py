"""Records from what ntopng tells: samples in base units, entities, and events that fire while something is wrong."""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from nms_workers.mapping import MappingTable
from nms_workers.records import Entity, Event, Record, Sample
from nms_workers.services.ntopng import model

_INTERFACE = MappingTable(Path(__file__).with_name("interface.csv"))
_HOST = MappingTable(Path(__file__).with_name("host.csv"))
_SYSTEM = MappingTable(Path(__file__).with_name("system.csv"))
_NAMED = 100  # unknown fields named
_BITS = 8

HOST_FIELDS = (*dict.fromkeys(re.split(r"(?<!\\)\.", row)[0].replace("\\.", ".") for row in _HOST.rows), "mac")
"""The fields of a host that the table wants, as ntopng is asked for them."""

# https://www.iana.org/assignments/protocol-numbers
_PROTOCOLS = {
    1: "icmp", 2: "igmp", 6: "tcp", 17: "udp", 41: "ipv6", 47: "gre", 50: "esp", 51: "ah", 58: "icmpv6", 89: "ospf",
    103: "pim", 112: "vrrp", 132: "sctp",
}  # fmt: skip

# "1 year, 2 Days, 03:04:05", "04:05", "05 sec", the words in the language of the user
_UPTIME = re.compile(
    r"(?:(?:(?P<years>[0-9]+) [^,0-9]+, )?(?P<days>[0-9]+) [^,0-9]+, )?(?:(?P<h>[0-9]+):)?(?P<m>[0-9]+):(?P<s>[0-9]+)"
)


def of_interface(interface: model.Interface, data: Mapping[str, Any]) -> Iterator[Record]:
    """Counters, throughput, drops, hosts, flows and alerts of an interface."""
    yield from _INTERFACE.samples(data, {"interface": interface.ifname})
    about = {"ifid": interface.ifid, "name": interface.name, "view": bool(data.get("is_view"))}
    yield Entity("interface", interface.ifname, about)


def of_ntopng(interfaces: Sequence[tuple[model.Interface, Mapping[str, Any]]]) -> Iterator[Record]:
    """What each interface tells of ntopng as a whole, once; an event while the licence is out of maintenance."""
    unknown = sorted({name for _, data in interfaces for name in _INTERFACE.unknown(data)})
    yield Sample("ntopng_unknown_fields", len(unknown), {"answer": "interface"})
    yield Entity("ntopng", "ntopng", {"unknown_fields": unknown[:_NAMED]})
    if not interfaces:
        return
    _, data = interfaces[0]
    if (uptime := seconds_of(str(data.get("uptime", "")))) is not None:
        yield Sample("ntopng_uptime_seconds", uptime)
    yield Sample("ntopng_degraded_performance", bool(data.get("degraded_performance")))
    expired = bool(data.get("out_of_maintenance"))
    yield Sample("ntopng_licence_in_maintenance", not expired)
    if expired:
        message = "the licence of ntopng is out of maintenance: no updates any more"
        yield Event("licence", message, "warning", "licence", "firing")


def of_protocols(
    interface: model.Interface,
    l4: Sequence[model.L4Count],
    l7: Sequence[model.L7Count],
    volumes: Sequence[model.L7Bytes],
    limit: int,
) -> Iterator[Record]:
    """Flows by IP protocol, flows and bytes by application, the `limit` greatest of each."""
    where = {"interface": interface.ifname}
    for one in sorted(l4, key=lambda one: -one.count)[:limit]:
        yield Sample("ntopng_l4_flows", one.count, where | {"protocol": _PROTOCOLS.get(one.id, str(one.id))})
    for app in sorted(l7, key=lambda one: -one.count)[:limit]:
        yield Sample("ntopng_l7_flows", app.count, where | {"application": app.name})
    for volume in sorted(volumes, key=lambda one: -one.value)[:limit]:
        yield Sample("ntopng_l7_bytes_total", volume.value, where | {"application": volume.label})
    left_out = sum(max(0, len(found) - limit) for found in (l4, l7, volumes))
    yield Sample("ntopng_left_out", left_out, where | {"what": "protocol"})


def of_host(interface: model.Interface, host: model.ActiveHost, data: Mapping[str, Any]) -> Iterator[Record]:
    """One of the hosts with the most traffic."""
    labels = {"interface": interface.ifname, "host": host.ip, "vlan": str(host.vlan)}
    about = {
        "name": host.name,
        "mac": str(data.get("mac") or ""),
        "country": host.country,
        "local": str(host.is_localhost).lower(),
        "blacklisted": str(host.is_blacklisted).lower(),
    }
    yield Sample("ntopng_host_info", 1, labels | about)
    yield Sample("ntopng_host_bytes_per_second", host.thpt.bps / _BITS, labels)
    yield Sample("ntopng_host_packets_per_second", host.thpt.pps, labels)
    yield from _HOST.samples(data, labels)


class _Conversation(NamedTuple):
    client: str
    server: str
    server_port: int
    l4: str
    l7: str
    vlan: int


def of_flows(interface: model.Interface, flows: Sequence[model.ActiveFlow], total: int) -> Iterator[Record]:
    """Active flows summed up to conversations: the client's port is another one each time, and no series."""
    groups: dict[_Conversation, list[model.ActiveFlow]] = defaultdict(list)
    for one in flows:
        between = _Conversation(
            one.client.ip, one.server.ip, one.server.port, one.protocol.l4, one.protocol.l7, one.vlan
        )
        groups[between].append(one)
    where = {"interface": interface.ifname}
    for between, members in groups.items():
        labels = where | {name: str(value) for name, value in between._asdict().items()}
        rate = sum(one.thpt.bps for one in members) / _BITS
        yield Sample("ntopng_conversation_bytes_per_second", rate, labels)
        yield Sample("ntopng_conversation_packets_per_second", sum(one.thpt.pps for one in members), labels)
        yield Sample("ntopng_conversation_bytes", sum(one.bytes for one in members), labels)
        yield Sample("ntopng_conversation_flows", len(members), labels)
    yield Sample("ntopng_left_out", total - len(flows), where | {"what": "flow"})


def of_system(health: Mapping[str, Any]) -> Iterator[Record]:
    """CPU, memory, queues of alerts and storage."""
    unknown = _SYSTEM.unknown(health)
    yield from _SYSTEM.samples(health)
    yield Sample("ntopng_unknown_fields", len(unknown), {"answer": "system"})
    yield Entity("host_of_ntopng", "host", {"unknown_fields": unknown[:_NAMED]})


def of_redis(health: model.RedisHealth) -> Iterator[Record]:
    """The Redis of ntopng; an event while it does not save its data."""
    yield Sample("ntopng_redis_healthy", health.health == "green")
    if health.memory is not None:
        yield Sample("ntopng_redis_memory_bytes", health.memory)
    if health.dbsize is not None:
        yield Sample("ntopng_redis_keys", health.dbsize)
    if health.health != "green":
        message = "the Redis of ntopng does not save its data: look at its log and its disk"
        yield Event("redis_unhealthy", message, "error", "redis", "firing", {"health": health.health})


def of_status(status: model.SystemStatus) -> Iterator[Record]:
    """Version and kind of licence."""
    about = {"version": status.license_info.version, "licence": status.license_info.status}
    yield Sample("ntopng_info", 1, about)


def seconds_of(uptime: str) -> float | None:
    """Seconds of how ntopng writes a time span; None when it is none."""
    match = _UPTIME.search(uptime)
    if match is None:
        alone = re.match(r"(?:< )?([0-9]+) sec", uptime)
        return float(alone[1]) if alone else None
    years, days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return float((years * 365 + days) * 86_400 + hours * 3600 + minutes * 60 + seconds)
