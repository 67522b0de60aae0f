"""API 1, of agents before 2.0: each node of a parent is asked by itself.

Source: https://github.com/netdata/netdata/tree/v1.37.1/web/api.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from nms_workers.errors import ParseError
from nms_workers.services.netdata.model import Alarm, Context, Data, Info, Node, NodeInfo, Query, Transition
from nms_workers.services.netdata.session import NotThere, Session

T = TypeVar("T")

ALLMETRICS = "/api/v1/allmetrics"

_ABOUT = (
    *("release_channel", "os_name", "os_version", "container_os_name", "container_os_version", "kernel_name"),
    *("kernel_version", "architecture", "virtualization", "container", "is_k8s_node", "memory-mode"),
)


class _Mirror(Struct):
    guid: str
    hostname: str
    reachable: bool
    hops: int = 0


class _Identity(Struct):
    uid: str
    version: str
    mirrored_hosts_status: list[_Mirror]


class _Alarm(Struct):
    name: str
    chart: str
    status: str
    value: float | None
    units: str = ""
    info: str = ""
    family: str = ""
    component: str = ""
    recipient: str = ""
    last_status_change: int = 0
    silenced: bool = False


class _Alarms(Struct):
    alarms: dict[str, _Alarm]


class _Entry(Struct):
    unique_id: int
    name: str
    chart: str
    status: str
    old_status: str
    when: int
    value: float | None = None
    old_value: float | None = None
    context: str = ""
    units: str = ""
    info: str = ""


class _Context(Struct):
    title: str = ""
    units: str = ""
    family: str = ""
    first_time_t: int = 0
    last_time_t: int = 0


class _Contexts(Struct):
    contexts: dict[str, _Context]


class _Data(Struct):
    labels: tuple[str, ...]
    data: list[list[float | None]]


def info(session: Session, _: Mapping[str, Any] | None) -> Info:
    """What the agent says of itself, and the tiers of its database where it has one on disk."""
    answer = session.read("/api/v1/info", dict[str, Any])
    identity = _identity(answer)
    try:
        databases = session.read("/api/v1/dbengine_stats", dict[str, dict[str, Any]])
    except NotThere:  # "dbengine is not enabled"
        databases = {}
    return Info(
        api=1,
        guid=identity.uid,
        name=next((one.hostname for one in identity.mirrored_hosts_status if one.guid == identity.uid), ""),
        version=identity.version,
        about=_about(answer),
        numbers=answer,
        databases=databases,
    )


def nodes(session: Session) -> list[Node]:
    """The agent's own host and those it mirrors."""
    identity = _identity(session.read("/api/v1/info", dict[str, Any]))
    return [
        Node(one.guid, one.hostname, one.reachable, one.guid == identity.uid) for one in identity.mirrored_hosts_status
    ]


def node_infos(session: Session, wanted: Iterable[Node]) -> Iterator[NodeInfo]:
    """What is known of each of these nodes; one that went meanwhile is left out."""
    for node, answer in _each(session, wanted, lambda _: "/api/v1/info", dict[str, Any]):
        labels = answer.get("host_labels", {})
        yield NodeInfo(1, node, {"version": answer.get("version"), **_about(answer), "labels": labels}, answer)


def alarms(session: Session, wanted: Iterable[Node], raised: bool) -> Iterator[Alarm]:
    """The alarms of these nodes: the raised ones, or all. A node that is away has none: nobody evaluates them."""
    which = "active" if raised else "all"
    for node, answer in _each(session, wanted, lambda _: f"/api/v1/alarms?{which}", _Alarms):
        for one in answer.alarms.values():
            yield Alarm(
                node=node,
                chart=one.chart,
                name=one.name,
                status=one.status,
                value=one.value,
                units=one.units,
                info=one.info,
                context="",
                family=one.family,
                component=one.component,
                recipient=one.recipient,
                since=one.last_status_change,
                silenced=one.silenced,
            )


def transitions(
    session: Session, wanted: Iterable[Node], after: Mapping[str, int], limit: int
) -> tuple[list[Transition], int]:
    """What happened since, oldest first for each node, and how many more there were."""
    found: list[Transition] = []
    left_out = 0
    for node, entries in _each(
        session, wanted, lambda node: f"/api/v1/alarm_log?after={after.get(node.guid, 0)}", list[_Entry]
    ):
        left_out += max(0, len(entries) - limit)
        found += [_transition(node, one) for one in reversed(entries[:limit])]  # they come newest first
    return found, left_out


def contexts(session: Session, wanted: Iterable[Node], _: str) -> dict[str, Context]:
    """The contexts of these nodes."""
    found: dict[str, Context] = {}
    for _node, answer in _each(session, wanted, lambda _: "/api/v1/contexts", _Contexts):
        for name, one in answer.contexts.items():
            first = min(one.first_time_t, found[name].first) if name in found else one.first_time_t
            last = max(one.last_time_t, found[name].last) if name in found else one.last_time_t
            found[name] = Context(one.title, one.units, one.family, first, last)
    return found


def data(session: Session, query: Query) -> Data:
    """Values of a chart over time."""
    answer = session.read(
        f"{query.node.path}/api/v1/data",
        _Data,
        chart=query.chart,
        after=query.after,
        before=query.before,
        points=query.points,
        group=query.group,
        format="json",
    )
    return Data(answer.labels[1:], _rows(answer.data))


def _each(
    session: Session, wanted: Iterable[Node], path: Callable[[Node], str], shape: type[T]
) -> Iterator[tuple[Node, T]]:
    """The answers of these nodes, without those that went meanwhile."""
    for node in wanted:
        try:
            answer = session.read(f"{node.path}{path(node)}", shape)
        except NotThere:
            if node.own:
                raise
            continue
        yield node, answer


def _rows(rows: Sequence[Sequence[float | None]]) -> tuple[tuple[int, tuple[float | None, ...]], ...]:
    return tuple((int(row[0]), tuple(row[1:])) for row in rows if row and row[0] is not None)


def _identity(answer: dict[str, Any]) -> _Identity:
    try:
        return msgspec.convert(answer, _Identity)
    except msgspec.ValidationError as exc:
        raise ParseError(f"/api/v1/info is of another shape: {exc}", hint="agents before 1.36 are too old") from None


def _about(answer: Mapping[str, Any]) -> dict[str, Any]:
    collectors = [f"{one.get('plugin', '')}/{one.get('module', '')}" for one in answer.get("collectors") or ()]
    return {name: answer[name] for name in _ABOUT if answer.get(name)} | {"collectors": collectors}


def _transition(node: Node, one: _Entry) -> Transition:
    return Transition(
        node=node,
        id=one.unique_id,
        chart=one.chart,
        name=one.name,
        context=one.context,
        old=one.old_status,
        new=one.status,
        old_value=one.old_value,
        value=one.value,
        units=one.units,
        info=one.info,
        at=one.when,
    )
