"""Traffic control of Linux: what is polled, and the actions."""

from collections import Counter
from collections.abc import Iterator
from typing import Annotated, Any, TypeVar

from pydantic import Field

from nms_workers.arguments import InterfaceToChange
from nms_workers.change import Change, about_to_change
from nms_workers.errors import Refused
from nms_workers.records import Entity, Record, Sample
from nms_workers.service import Service, action, poll
from nms_workers.services.traffic_control import fields, tables
from nms_workers.services.traffic_control.client import TrafficControlClient, interface, place
from nms_workers.services.traffic_control.kernel import Socket
from nms_workers.services.traffic_control.look import handle_text
from nms_workers.services.traffic_control.match import Dscp, Match, Network, Port, Protocol
from nms_workers.services.traffic_control.results import Interface
from nms_workers.services.traffic_control.tables import Row
from nms_workers.services.traffic_control.target import TrafficControlTarget
from nms_workers.services.traffic_control.tree import Emulation, Limits, Part, Policer, Shape
from nms_workers.services.traffic_control.values import Bytes, Delay, Rate, Share

T = TypeVar("T")
Priority = Annotated[int, Field(ge=0, le=7)]


class TrafficControl(Service):
    """Linux traffic control: interfaces, queueing disciplines, classes and filters of a network namespace, by netlink.

    The worker must run on the host itself: the actions go to the worker beside the target. Shaping uses htb, policing
    redirects what an interface receives to an ifb device with a tbf, emulation uses netem. What others have set up is
    left alone: ours is known by its place, the qdisc handles `4e4d:` and `4e4e:` and the devices `nms-in<index>`.
    """

    kind = "traffic_control"
    Target = TrafficControlTarget
    client = TrafficControlClient

    @poll(every="15s", enumerates=("interface",))
    def interfaces(self, client: TrafficControlClient) -> Iterator[Record]:
        """State, speed and counters of each interface."""
        read = client.ask(lambda socket: [(row, interface(row)) for row in client.links(socket)])
        for row, one in _within(client.target.max_objects, "interface", read):
            yield from _interface(row, one)

    @poll(every="15s", enumerates=("qdisc", "class"))
    def queueing(self, client: TrafficControlClient) -> Iterator[Record]:
        """Counters and parameters of each qdisc and class."""
        for what, rows in client.ask(lambda socket: _queueing(client, socket)).items():
            for row in _within(client.target.max_objects, what, rows):
                labels = place(row)
                name = labels["handle"] or labels["parent"]
                yield Entity(what, f"{row.interface} {name}", labels | {"options": row.values.get("TCA_OPTIONS", {})})
                yield from fields.samples(what, row.kind, row.values, labels)

    @poll(every="60s")
    def filters(self, client: TrafficControlClient) -> Iterator[Record]:
        """How many filters each qdisc has, and what their actions counted."""
        qdiscs, rows = client.ask(lambda socket: _filters(client, socket))
        on = Counter((row.interface, row.values["parent"]) for row in rows)
        for qdisc in qdiscs:
            if handle := qdisc.values["handle"]:
                yield Sample("traffic_control_qdisc_filters", on[qdisc.interface, handle], place(qdisc))
        for row in _within(client.target.max_objects, "filter", rows):
            parent, number = handle_text(row.values["parent"]), f"{row.values['info'] >> 16}/{row.values['handle']:x}"
            for kind, values in tables.actions(row):
                labels = {"interface": row.interface, "parent": parent, "filter": number, "kind": kind}
                yield from fields.samples("action", kind, values, labels)

    @action(undo="restore", runs_at="edge", serialize_by="interface", looks_first=True, deadline="30s")
    def shape(  # noqa: PLR0913 - its arguments are what people type
        self,
        client: TrafficControlClient,
        *,
        interface: InterfaceToChange,
        rate: Rate,
        source: Network | None = None,
        destination: Network | None = None,
        protocol: Protocol | None = None,
        source_port: Port | None = None,
        port: Port | None = None,
        dscp: Dscp | None = None,
        ceil: Rate | None = None,
        burst: Bytes | None = None,
        priority: Priority = 3,
    ) -> Change:
        """Give what an interface sends and the match names a rate of its own; of several matches the closest counts."""
        match = _made(
            Match,
            source=source,
            destination=destination,
            protocol=protocol,
            source_port=source_port,
            port=port,
            dscp=dscp,
        )
        limits = _made(Limits, rate=rate, ceil=ceil, burst=burst, priority=priority)
        wanted = Part(shapes=(Shape(match=match, limits=limits),))
        return _change(client, interface, f"{match} has {limits.rate} bit/s", wanted)

    @action(undo="restore", runs_at="edge", serialize_by="interface", looks_first=True, deadline="30s")
    def set_default_class(  # noqa: PLR0913 - its arguments are what people type
        self,
        client: TrafficControlClient,
        *,
        interface: InterfaceToChange,
        rate: Rate,
        ceil: Rate | None = None,
        burst: Bytes | None = None,
        priority: Priority = 7,
    ) -> Change:
        """Give what an interface sends and no shape matches a rate of its own."""
        limits = _made(Limits, rate=rate, ceil=ceil, burst=burst, priority=priority)
        return _change(client, interface, f"the rest has {limits.rate} bit/s", Part(default_class=limits))

    @action(undo="restore", runs_at="edge", serialize_by="interface", looks_first=True, deadline="30s")
    def police(
        self,
        client: TrafficControlClient,
        interface: InterfaceToChange,
        rate: Rate,
        burst: Bytes | None = None,
        queue: Bytes | None = None,
    ) -> Change:
        """Limit what an interface receives; a little may wait, the rest is dropped."""
        policer = _made(Policer, rate=rate, burst=burst, queue=queue)
        return _change(client, interface, f"receives {policer.rate} bit/s", Part(ingress=policer))

    @action(undo="restore", runs_at="edge", serialize_by="interface", looks_first=True, deadline="30s")
    def emulate(  # noqa: PLR0913 - its arguments are what people type
        self,
        client: TrafficControlClient,
        *,
        interface: InterfaceToChange,
        delay: Delay = 0.0,
        jitter: Delay = 0.0,
        loss: Share = 0.0,
        duplicate: Share = 0.0,
        reorder: Share = 0.0,
    ) -> Change:
        """Make what an interface sends late (seconds), or lost, doubled or out of order (shares, 0 to 1)."""
        wanted = _made(Emulation, delay=delay, jitter=jitter, loss=loss, duplicate=duplicate, reorder=reorder)
        return _change(client, interface, "sends as over a worse line", Part(emulation=wanted))

    @action(undo="restore", runs_at="edge", serialize_by="interface", looks_first=True, confirm=True, deadline="30s")
    def clear(self, client: TrafficControlClient, interface: InterfaceToChange) -> Change:
        """Take away all shapes, limits and emulation that were set here; what others set up stays."""
        return _change(client, interface, "has nothing of ours any more", client.look(interface).nothing())

    @action(undo="restore", runs_at="edge", serialize_by="interface", looks_first=True, deadline="30s")
    def restore(self, client: TrafficControlClient, interface: InterfaceToChange, before: Part) -> Change:
        """Bring back what an action kept as `before`; what it did not touch stays as it is now."""
        return _change(client, interface, "is as it was before", before)


def _made(kind: type[Any], **values: object) -> Any:
    """A value of several arguments that were each valid alone.

    Raises:
        Refused: they do not fit together.
    """
    try:
        return kind(**values)
    except ValueError as exc:
        faults = exc.errors(include_input=False) if hasattr(exc, "errors") else ()
        said = "; ".join(fault["msg"].removeprefix("Value error, ") for fault in faults)
        raise Refused(said or "the arguments do not fit together") from None


def _change(client: TrafficControlClient, name: str, done: str, wanted: Part) -> Change:
    found = client.look(name)
    if found.part(wanted) != wanted or not found.settled:
        about_to_change(found.part(wanted).as_json())
    before, after = client.apply(name, wanted)
    message = f"{name}: {done}" if before != after else f"{name} already was so: {done}"
    return Change(changed=before != after, message=message, before=before.as_json(), after=after.as_json())


def _interface(row: Row, one: Interface) -> Iterator[Record]:
    labels = {"interface": one.name}
    attributes = ("index", "kind", "state", "mtu", "address", "alias", "speed")
    yield Entity("interface", one.name, {name: getattr(one, name) for name in attributes})
    yield Sample("traffic_control_interface_up", one.up, labels)
    yield Sample("traffic_control_interface_carrier", one.carrier, labels)
    yield Sample("traffic_control_interface_operational", one.state in ("up", "unknown"), labels)
    if one.speed is not None:
        yield Sample("traffic_control_interface_speed_bits_per_second", one.speed, labels)
    yield from fields.samples("interface", row.kind, row.values, labels)


def _queueing(client: TrafficControlClient, socket: Socket) -> dict[str, list[Row]]:
    links = client.links(socket)
    return {"qdisc": tables.qdiscs(socket, links), "class": list(tables.classes(socket, links))}


def _filters(client: TrafficControlClient, socket: Socket) -> tuple[list[Row], list[Row]]:
    qdiscs = tables.qdiscs(socket, client.links(socket))
    return qdiscs, list(tables.filters(socket, qdiscs))


def _within(limit: int, what: str, rows: list[T]) -> Iterator[T]:
    """The first rows; whoever reads on must know that the rest is left out, or it would take it for gone.

    Raises:
        Refused: there are more.
    """
    yield from rows[:limit]
    if len(rows) > limit:
        raise Refused(
            f"there are {len(rows)} objects of the kind {what}, more than max_objects ({limit}): the rest is not read",
            hint="raise max_objects, or name fewer interfaces",
        )
