"""The Netdata client: reads an agent and the nodes that stream to it, and silences alarms. Usable without the fleet.

client = NetdataClient(NetdataTarget(url="http://netdata.example.net:19999"))
print({name: chart.units for name, chart in client.get_charts().items()})
client.close()
"""

import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal, Protocol

import msgspec

from nms_workers.errors import Refused
from nms_workers.services.netdata import v1, v3
from nms_workers.services.netdata.model import (
    Alarm,
    Chart,
    ChartInfo,
    Context,
    Data,
    Info,
    Node,
    NodeInfo,
    Query,
    Silencer,
    Silencers,
    Transition,
)
from nms_workers.services.netdata.selection import chooser, simple_pattern
from nms_workers.services.netdata.series import ChartSeries
from nms_workers.services.netdata.session import NotThere, Session
from nms_workers.services.netdata.target import CHART, NetdataTarget


class _Api(Protocol):
    """What differs between the versions of the API: the modules `v1` and `v3`."""

    ALLMETRICS: str

    def info(self, session: Session, agent: Mapping[str, Any] | None, /) -> Info: ...
    def nodes(self, session: Session, /) -> list[Node]: ...
    def node_infos(self, session: Session, wanted: Iterable[Node], /) -> Iterator[NodeInfo]: ...
    def alarms(self, session: Session, wanted: Iterable[Node], raised: bool, /) -> Iterator[Alarm]: ...
    def transitions(
        self, session: Session, wanted: Iterable[Node], after: Mapping[str, int], limit: int, /
    ) -> tuple[list[Transition], int]: ...
    def contexts(self, session: Session, wanted: Iterable[Node], scope: str, /) -> dict[str, Context]: ...
    def data(self, session: Session, query: Query, /) -> Data: ...


class _Charts(msgspec.Struct):
    charts: dict[str, ChartInfo]


class NetdataClient:
    """One agent, 1.x or 2.x. Connects when first used; safe to share between threads.

    Every method raises `Unreachable`, `Timeout`, `AuthError`, `ParseError` or `Refused`; `NotThere`, a `Refused`, when
    the agent does not know what was named. Nodes are those that the settings choose; one is named by its host name or
    machine GUID, and without a name it is the agent's own host.
    """

    def __init__(self, target: NetdataTarget) -> None:
        self.target = target
        self.series = ChartSeries(chooser(target.contexts, target.exclude_contexts), target.stale_after)
        self._session = Session(target)
        self._chosen = chooser(target.nodes, target.exclude_nodes)
        self._lock = threading.Lock()
        self._told: dict[str, set[int]] = {}

    def close(self) -> None:
        """Let go of connections; the next use opens new ones."""
        self._session.close()

    def get_info(self) -> Info:
        """What the agent says of itself. Finds out anew which API it has."""
        agent = self._session.agent()
        return v1.info(self._session, None) if agent is None else v3.info(self._session, agent)

    def get_nodes(self) -> list[Node]:
        """The agent's own host and those that stream to it."""
        nodes = [node for node in self._api().nodes(self._session) if self._chosen(node.name)]
        count = Counter(node.name for node in nodes)
        return [node if count[node.name] == 1 else _told_apart(node) for node in nodes]

    def get_node_infos(self, nodes: Iterable[Node]) -> Iterator[NodeInfo]:
        """What is known of each of these nodes."""
        return self._api().node_infos(self._session, nodes)

    def get_contexts(self, nodes: Iterable[Node] | None = None) -> dict[str, Context]:
        """The contexts of these nodes, of all by default. In 2.x of all, whichever nodes are given."""
        scope = simple_pattern(self.target.nodes, self.target.exclude_nodes)
        return self._api().contexts(self._session, self.get_nodes() if nodes is None else nodes, scope)

    def get_charts(self, node: str = "") -> dict[str, ChartInfo]:
        """What the charts of a node are, by their ids."""
        return self._session.read(f"{self._node(node).path}/api/v1/charts", _Charts).charts  # 2.x has it there as well

    def get_allmetrics(self, node: Node | str = "") -> dict[str, Chart]:
        """The charts of a node that the settings choose, with their last values, by their ids."""
        chosen = simple_pattern(self.target.charts, self.target.exclude_charts)
        return self._allmetrics(self._node(node) if isinstance(node, str) else node, chosen)

    def get_own_charts(self, charts: Iterable[str]) -> dict[str, Chart]:
        """These charts of the agent's own host, whatever the settings choose; without those that it does not have."""
        return self._allmetrics(Node("", "", reachable=True, own=True), simple_pattern(tuple(charts), ()))

    def get_data(  # noqa: PLR0913 - what a query has
        self,
        chart: str,
        node: str = "",
        *,
        after: int = -60,
        before: int = 0,
        points: int = 60,
        group: Literal["average", "min", "max", "sum", "median"] = "average",
    ) -> Data:
        """Values of one chart over time.

        Args:
            chart: its id or its name.
            after, before: times in seconds since 1970, or, not above 0, seconds before `before` and before now.
            points: how many at most; 0 is all there are.
            group: how several values become a point.
        """
        if not CHART.match(chart):
            raise Refused(f"{chart!r:.100} is no name of a chart", hint="it has no spaces and none of ! * | ,")
        return self._api().data(self._session, Query(self._node(node), chart, after, before, points, group))

    def get_alarms(self, nodes: Iterable[Node] | None = None, *, raised: bool = True) -> Iterator[Alarm]:
        """Alarms of these nodes, of all by default: those in `WARNING` or `CRITICAL`, or with `raised=False` all."""
        wanted = self.get_nodes() if nodes is None else nodes
        return self._api().alarms(self._session, wanted, raised)

    def get_transitions(self, nodes: Iterable[Node]) -> tuple[list[Transition], int]:
        """What alarms did since the transitions that were given to `told`, oldest first, and how many are left out.

        The first time it is as many as the agent has, up to `max_transitions`.
        """
        told = self._told
        after = {guid: max(ids) for guid, ids in told.items() if ids}
        found, left_out = self._api().transitions(self._session, nodes, after, self.target.max_transitions)
        new = [one for one in found if one.id not in told.get(one.node.guid, ())]
        return new, left_out if after else 0

    def told(self, transitions: Iterable[Transition]) -> None:
        """Remember that these need not be told again."""
        newest: dict[str, set[int]] = {}
        for one in transitions:
            newest.setdefault(one.node.guid, set()).add(one.id)
        with self._lock:
            for guid, ids in newest.items():
                kept = sorted(self._told.get(guid, set()) | ids)[-2 * self.target.max_transitions :]
                self._told = self._told | {guid: set(kept)}

    def get_silencers(self) -> Silencers:
        """What is silenced or disabled. Needs `api_key`."""
        return self._session.manage("LIST").json(Silencers)

    def silence(self, command: str, silencer: Silencer = Silencer()) -> None:  # noqa: B008 - frozen
        """One command of the health management API, without looking what it does. Needs `api_key`.

        Args:
            command: `SILENCE ALL`, `SILENCE`, `DISABLE ALL`, `DISABLE`, `RESET`, or nothing, to add a silencer only.
        """
        self._session.manage(command, **msgspec.to_builtins(silencer))

    def _api(self) -> _Api:
        if self._session.api() == 3:
            return v3
        return v1

    def _allmetrics(self, node: Node, chosen: str) -> dict[str, Chart]:
        path = f"{node.path}{self._api().ALLMETRICS}"
        return self._session.read(path, dict[str, Chart], format="json", filter=chosen)

    def _node(self, name: str) -> Node:
        nodes = self.get_nodes()
        for node in nodes:
            if (name in (node.name, node.guid)) if name else node.own:
                return node
        some = ", ".join(node.name for node in nodes[:10])
        why = f"the agent has no node {name!r:.100}" if name else "the settings leave the agent's own host out"
        raise NotThere(why, hint=f"there are: {some}")


def _told_apart(node: Node) -> Node:
    return msgspec.structs.replace(node, name=f"{node.name} ({node.guid})")
