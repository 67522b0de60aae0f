"""The traffic control client: reads and changes the queueing of one network namespace. Usable without the fleet.

client = TrafficControlClient(TrafficControlTarget(netns="lab"))
print(client.get_qdiscs("eth0"))
client.apply("eth0", Part(default_class=Limits(rate="10mbit")))
"""

from collections.abc import Callable
from fnmatch import fnmatchcase
from socket import ntohs
from typing import TypeVar

from nms_workers.services.traffic_control import kernel, results, tables
from nms_workers.services.traffic_control.change import bring
from nms_workers.services.traffic_control.look import INGRESS_PARENT, Found, handle_text, look, match_of_filter
from nms_workers.services.traffic_control.tables import Row
from nms_workers.services.traffic_control.target import TrafficControlTarget
from nms_workers.services.traffic_control.tree import Part

T = TypeVar("T")

_UP = 1  # IFF_UP


class TrafficControlClient:
    """One network namespace of this host.

    Holds nothing open between calls, and is safe to share between threads. Every method raises `Refused`, `AuthError`,
    `Timeout`, `ParseError` or `Unreachable`.
    """

    def __init__(self, target: TrafficControlTarget) -> None:
        self.target = target

    def close(self) -> None:
        """Nothing is held."""

    def ask(self, work: Callable[[kernel.Socket], T]) -> T:
        """What `work` returns, given a netlink socket in the target's namespace."""
        return kernel.ask(self.target, work)

    def get_interfaces(self) -> tuple[results.Interface, ...]:
        """The interfaces that the target's patterns name, by index."""
        return self.ask(lambda socket: tuple(interface(row) for row in self.links(socket)))

    def get_qdiscs(self, name: str = "") -> tuple[results.Qdisc, ...]:
        """The qdiscs of one interface, or of all."""
        return self.ask(
            lambda socket: tuple(
                results.Qdisc(row.interface, row.kind, _handle(row), _parent(row), stats(row), _options(row))
                for row in tables.qdiscs(socket, self.links(socket, name))
            )
        )

    def get_classes(self, name: str = "") -> tuple[results.TrafficClass, ...]:
        """The classes of one interface, or of all."""
        return self.ask(
            lambda socket: tuple(
                results.TrafficClass(row.interface, row.kind, _handle(row), _parent(row), stats(row), _options(row))
                for row in tables.classes(socket, self.links(socket, name))
            )
        )

    def get_filters(self, name: str = "") -> tuple[results.Filter, ...]:
        """The filters of one interface, or of all."""
        return self.ask(
            lambda socket: tuple(
                _filter(row) for row in tables.filters(socket, tables.qdiscs(socket, self.links(socket, name)))
            )
        )

    def apply(self, name: str, wanted: Part) -> tuple[Part, Part]:
        """Bring about what `wanted` names at an interface and leave the rest alone.

        Returns:
            The same parts before and after; equal when there was nothing to do.
        """
        return self.ask(lambda socket: bring(socket, name, wanted))

    def look(self, name: str) -> Found:
        """What is there at an interface, ours and others'. `apply` of `found.nothing()` clears all that is ours."""
        return self.ask(lambda socket: look(socket, name))

    def links(self, socket: kernel.Socket, name: str = "") -> list[Row]:
        """Interfaces that the target's patterns name: all, or the one of this name.

        Raises:
            Refused: there is no interface of this name among them.
        """
        patterns = self.target.interfaces
        found = tables.links(
            socket, lambda one: name in ("", one) and any(fnmatchcase(one, pattern) for pattern in patterns)
        )
        if name and not found:
            raise kernel.no_interface(name)
        return found


def interface(row: Row) -> results.Interface:
    """An interface of the calling thread's namespace."""
    values = row.values
    return results.Interface(
        name=row.interface,
        index=values["index"],
        kind=row.kind,
        state=str(values.get("IFLA_OPERSTATE", "unknown")).lower(),
        up=bool(values["flags"] & _UP),
        carrier=bool(values.get("IFLA_CARRIER")),
        speed=tables.speed(row.interface),
        mtu=values.get("IFLA_MTU", 0),
        queue_length=values.get("IFLA_TXQLEN", 0),
        address=values.get("IFLA_ADDRESS", ""),
        alias=values.get("IFLA_IFALIAS", ""),
        counters=values.get("IFLA_STATS64", {}),
    )


def stats(row: Row) -> results.Stats:
    """The counters that every qdisc and class has."""
    found = row.values.get("TCA_STATS2", {})
    basic, queue = found.get("TCA_STATS_BASIC", {}), found.get("TCA_STATS_QUEUE", {})
    estimated = found.get("TCA_STATS_RATE_EST", {})
    return results.Stats(
        bytes=basic.get("bytes", 0),
        packets=basic.get("packets", 0),
        drops=queue.get("drops", 0),
        overlimits=queue.get("overlimits", 0),
        requeues=queue.get("requeues", 0),
        backlog=queue.get("backlog", 0),
        qlen=queue.get("qlen", 0),
        bytes_per_second=estimated.get("bps"),
        packets_per_second=estimated.get("pps"),
    )


def place(row: Row) -> dict[str, str]:
    """Where a qdisc or class stands, as the labels of its samples."""
    return {"interface": row.interface, "kind": row.kind, "handle": _handle(row), "parent": _parent(row)}


def _handle(row: Row) -> str:
    return handle_text(row.values["handle"]) if row.values["handle"] else ""


def _parent(row: Row) -> str:
    parent = row.values["parent"]
    return "ingress" if parent == INGRESS_PARENT else handle_text(parent)


def _options(row: Row) -> dict[str, object]:
    found = row.values.get("TCA_OPTIONS", {})
    return found if isinstance(found, dict) else {}


def _filter(row: Row) -> results.Filter:
    info, options = row.values["info"], _options(row)
    flowid = options.get("TCA_U32_CLASSID", 0)
    return results.Filter(
        interface=row.interface,
        kind=row.kind,
        parent=_parent(row),
        preference=info >> 16,
        ethertype=f"{ntohs(info & 0xFFFF):#06x}",
        handle=f"{row.values['handle']:08x}",
        flowid=handle_text(flowid) if isinstance(flowid, int) and flowid else "",
        match=str(match_of_filter(row.message) or ""),
        actions=tuple(kind for kind, _ in tables.actions(row)),
        options=options,
    )
