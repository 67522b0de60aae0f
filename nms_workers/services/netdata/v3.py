"""API 3, of agents from 2.0 on: one question is answered for all nodes of a parent.

Source: https://learn.netdata.cloud/api. Short names are Netdata's: `mg` machine GUID, `nm` name, `ni` index of a node
in the answer, `ch` chart, `st` status, `gi` a number that grows with time.
"""

from collections.abc import Iterable, Iterator, Mapping
from operator import attrgetter, itemgetter
from typing import Any

from msgspec import Struct, field

from nms_workers.errors import ParseError
from nms_workers.services.netdata.model import Alarm, Context, Data, Info, Node, NodeInfo, Query, Transition
from nms_workers.services.netdata.session import Session

ALLMETRICS = "/api/v3/allmetrics"

_KEPT = 5 * 86_400  # seconds that agents keep transitions, unless told otherwise; without times they give none
_LATE = 60_000_000  # microseconds: a transition may be written down after a later one


class _Node(Struct):
    mg: str
    nm: str
    ni: int = 0
    state: str = ""


class _Nodes(Struct):
    nodes: list[_Node] = []


class _RawNodes(Struct):
    nodes: list[dict[str, Any]]


class _Instance(Struct):
    ni: int
    nm: str
    ch: str
    st: str
    ctx: str = ""
    fami: str = ""
    info: str | None = ""
    units: str | None = ""
    value: float | None = field(name="v", default=None)
    since: int = field(name="tr_t", default=0)
    recipient: str | None = field(name="to", default="")
    component: str | None = field(name="cm", default="")


class _Alerts(Struct):
    nodes: list[_Node]
    alert_instances: list[_Instance] = []


class _End(Struct):
    status: str
    value: float | None = None


class _Change(Struct):
    gi: int
    machine_guid: str
    when: int
    new: _End
    old: _End
    alert: str | None = None
    instance: str | None = None
    context: str | None = None
    units: str | None = None
    info: str | None = None


class _Items(Struct):
    after: int = 0  # how many older ones were not given


class _Changes(Struct):
    transitions: list[_Change]
    items: _Items


class _Context(Struct):
    title: str = ""
    units: str = ""
    family: str = ""
    first_entry: int = 0
    last_entry: int = 0


class _Contexts(Struct):
    contexts: dict[str, _Context]


class _Point(Struct, frozen=True):
    value: int = 0


class _Result(Struct):
    labels: tuple[str, ...]
    data: list[list[Any]]
    point: _Point = _Point()


class _Data(Struct):
    result: _Result


def info(session: Session, agent: Mapping[str, Any] | None) -> Info:
    """What the agent says of itself, and the tiers of its database."""
    agent = agent or session.agent() or {}
    application = _mapping(agent.get("application"))
    package, system = _mapping(application.get("package")), _mapping(application.get("os"))
    about = {f"package_{name}": package.get(name) for name in ("type", "arch", "distro")}
    about |= {"os_name": system.get("os"), "os_version": system.get("version"), "kernel_name": system.get("kernel")}
    about |= {"kernel_version": system.get("kernel_version"), "cloud": _mapping(agent.get("cloud")).get("status")}
    return Info(
        api=3,
        guid=str(agent.get("mg", "")),
        name=str(agent.get("nm", "")),
        version=str(package.get("version", "")),
        about={name: text for name, text in about.items() if text},
        numbers={name: value for name, value in agent.items() if name != "db_size"},
        databases={f"tier{tier.get('tier')}": tier for tier in agent.get("db_size", ()) if isinstance(tier, dict)},
    )


def nodes(session: Session) -> list[Node]:
    """The agent's own host and those that stream to it, or did."""
    return [_node(one, session.own_guid()) for one in session.read("/api/v3/nodes", _Nodes).nodes]


def node_infos(session: Session, wanted: Iterable[Node]) -> Iterator[NodeInfo]:
    """What is known of each of these nodes."""
    system = {one.get("mg"): one for one in session.read("/api/v3/nodes", _RawNodes).nodes}
    instances = {one.get("mg"): one for one in session.read("/api/v3/node_instances", _RawNodes).nodes}
    for node in wanted:
        own = system.get(node.guid, {})
        instance: dict[str, Any] = next(iter(instances.get(node.guid, {}).get("instances", ())), {})
        about = {name: own.get(name) for name in ("state", "os", "hw", "labels")}
        about |= {"version": own.get("v")}
        for part in ("db", "ingest", "stream", "ml", "health"):
            about[f"{part}_status"] = _mapping(instance.get(part)).get("status")
        yield NodeInfo(3, node, {name: one for name, one in about.items() if one}, {**own, "instance": instance})


def alarms(session: Session, wanted: Iterable[Node], raised: bool) -> Iterator[Alarm]:
    """The alarms of these nodes: the raised ones, or all."""
    status = {"status": "warning,critical"} if raised else {}
    answer = session.read("/api/v3/alerts", _Alerts, options="instances,values", **status)
    chosen, guids = {node.guid: node for node in wanted}, {one.ni: one.mg for one in answer.nodes}
    for one in answer.alert_instances:
        node = chosen.get(guids.get(one.ni, ""))
        if node is not None:
            yield Alarm(
                node=node,
                chart=one.ch,
                name=one.nm,
                status=one.st,
                value=one.value,
                units=one.units or "",
                info=one.info or "",
                context=one.ctx,
                family=one.fami,
                component=one.component or "",
                recipient=one.recipient or "",
                since=one.since,
                silenced=None,
            )


def transitions(
    session: Session, wanted: Iterable[Node], after: Mapping[str, int], limit: int
) -> tuple[list[Transition], int]:
    """What happened since, oldest first, and how many more there were. What was late is there twice."""
    anchor = max(0, max(after.values(), default=0) - _LATE)
    answer = session.read("/api/v3/alert_transitions", _Changes, last=limit, anchor_gi=anchor, after=-_KEPT, before=0)
    chosen = {node.guid: node for node in wanted}
    found = [_transition(chosen[one.machine_guid], one) for one in answer.transitions if one.machine_guid in chosen]
    return sorted(found, key=attrgetter("id")), answer.items.after


def contexts(session: Session, _: Iterable[Node], scope: str) -> dict[str, Context]:
    """The contexts of the nodes whose name the pattern `scope` matches."""
    answer = session.read("/api/v3/contexts", _Contexts, scope_nodes=scope, options="titles")
    return {
        name: Context(one.title, one.units, one.family, one.first_entry, one.last_entry)
        for name, one in answer.contexts.items()
    }


def data(session: Session, query: Query) -> Data:
    """Values of a chart over time."""
    answer = session.read(
        "/api/v3/data",
        _Data,
        scope_nodes=query.node.guid,
        scope_instances=query.chart,
        group_by="dimension",
        time_group=query.group,
        after=query.after,
        before=query.before,
        points=query.points,
        format="json2",
    ).result
    at = answer.point.value
    try:
        rows = [(int(row[0]), tuple(point[at] for point in row[1:])) for row in answer.data]
    except (IndexError, TypeError, ValueError) as exc:
        raise ParseError(f"/api/v3/data answered with points of another shape: {exc}") from None
    return Data(answer.labels[1:], tuple(sorted(rows, key=itemgetter(0), reverse=True)))


def _mapping(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _node(one: _Node, own: str) -> Node:
    return Node(one.mg, one.nm, one.state == "reachable", one.mg == own)


def _transition(node: Node, one: _Change) -> Transition:
    return Transition(
        node=node,
        id=one.gi,
        chart=one.instance or "",
        name=one.alert or "",
        context=one.context or "",
        old=one.old.status,
        new=one.new.status,
        old_value=one.old.value,
        value=one.new.value,
        units=one.units or "",
        info=one.info or "",
        at=one.when,
    )
