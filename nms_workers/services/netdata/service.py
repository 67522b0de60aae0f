"""Netdata: what is polled, and the actions on its alarms."""

from collections.abc import Iterator
from typing import Any

from nms_workers.change import Change
from nms_workers.errors import Refused
from nms_workers.records import Event, Record, Sample
from nms_workers.service import Service, action, poll
from nms_workers.services.netdata import readings, silencing
from nms_workers.services.netdata.client import NetdataClient
from nms_workers.services.netdata.model import Node, Silencer
from nms_workers.services.netdata.session import NotThere
from nms_workers.services.netdata.target import NetdataTarget, Pattern


class Netdata(Service):
    """Netdata agents and parents: every chart as samples, alarms as events, nodes, silencing.

    Agents of 2.x are asked by API 3, all nodes of a parent at once where it can; older ones (1.36 and later) by API 1,
    node by node. Which it is, the agent is asked, and asked again when it was away.

    A dimension of a chart is a series of `netdata_chart_value`, in the unit that Netdata gives it, as on its dashboards
    and in its alarms; counters are rates there already. What agents measure of themselves is told in base units too.
    """

    kind = "netdata"
    Target = NetdataTarget
    client = NetdataClient
    port = 19999

    @poll(every="5m", enumerates=("agent",))
    def info(self, client: NetdataClient) -> Iterator[Record]:
        """The agent: version, operating system, collectors, features, and the tiers of its database."""
        yield from readings.of_info(client.get_info())

    @poll(every="60s", enumerates=("node", "node_down"))
    def nodes(self, client: NetdataClient) -> Iterator[Record]:
        """The agent's own host and those that stream to it: whether they are collected, what they have."""
        all_ = client.get_nodes()
        infos = list(client.get_node_infos(_at_most(client, all_)))
        for info in infos:
            yield from readings.of_node(info)
        yield readings.unknown_of_nodes(infos)
        _refuse_the_rest(client, all_)

    @poll(every="30s", enumerates=("series_left_out",))
    def charts(self, client: NetdataClient) -> Iterator[Record]:
        """The last value of every dimension of every chart that the settings choose, of all nodes."""
        all_, left_out, limit = client.get_nodes(), 0, client.target.max_chart_series
        client.series.forget(except_of={node.guid for node in all_})
        for node in _collected(client, all_):
            try:
                reading = client.series.read(node, client.get_allmetrics(node), limit)
            except NotThere:  # it went meanwhile
                continue
            if reading.block is not None:
                limit -= len(reading.block.layout)
                yield reading.block
            left_out += reading.left_out
            labels = {"node": node.name}
            yield Sample("netdata_charts", reading.charts, labels)
            yield Sample("netdata_charts_stale", reading.stale, labels)
        yield Sample("netdata_chart_series_left_out", left_out)
        if left_out:
            message = f"{left_out} series are beyond max_chart_series ({client.target.max_chart_series})"
            hint = "raise it, and max_series of the target, or choose charts or contexts"
            yield Event("series_left_out", f"{message}: {hint}", "warning", state="firing")
        _refuse_the_rest(client, all_)

    @poll(every="10m", enumerates=("context",))
    def contexts(self, client: NetdataClient) -> Iterator[Record]:
        """The kinds of charts there are, over all nodes."""
        all_ = client.get_nodes()
        yield from readings.of_contexts(client.get_contexts(_collected(client, all_)))
        _refuse_the_rest(client, all_)

    @poll(every="30s", enumerates=("alarm",))
    def alarms(self, client: NetdataClient) -> Iterator[Record]:
        """Alarms in WARNING or CRITICAL, of all nodes that are collected: each fires until it is so no more."""
        all_ = client.get_nodes()
        for alarm in client.get_alarms(_collected(client, all_)):
            if alarm.status in readings.SEVERITIES:
                yield readings.of_alarm(alarm)
        _refuse_the_rest(client, all_)

    @poll(every="30s")
    def transitions(self, client: NetdataClient) -> Iterator[Record]:
        """Every change of an alarm, once, with the time it happened; also those from before we first asked."""
        all_ = client.get_nodes()
        found, left_out = client.get_transitions(_at_most(client, all_))
        for one in found:
            if one.old != one.new:
                yield readings.of_transition(one)
        if left_out:
            message = f"{left_out} changes of alarms are beyond max_transitions ({client.target.max_transitions})"
            yield Event("transitions_left_out", f"{message}: raise it, or read them more often", "warning")
        client.told(found)
        _refuse_the_rest(client, all_)

    @poll(every="30s")
    def own(self, client: NetdataClient) -> Iterator[Record]:
        """What the agent measures of itself: CPU, memory, database, queries, web server."""
        yield from readings.of_own(client.get_own_charts(readings.own_charts()))

    @action(undo="restore_silencers")
    def silence_alarms(
        self,
        client: NetdataClient,
        alarm: Pattern | None = None,
        chart: Pattern | None = None,
        context: Pattern | None = None,
        hosts: Pattern | None = None,
    ) -> Change:
        """Have nobody notified of the alarms that match all patterns given, or of any: they are evaluated still."""
        return silencing.silence(client, Silencer(alarm or "", chart or "", context or "", hosts or ""))

    @action(undo="restore_silencers")
    def reset_alarms(self, client: NetdataClient) -> Change:
        """Let go of everything that is silenced or disabled at the agent."""
        return silencing.reset(client)

    @action(undo="restore_silencers")
    def restore_silencers(self, client: NetdataClient, before: dict[str, Any]) -> Change:
        """Silence or disable what was so before a change, and nothing else."""
        return silencing.restore(client, before)


def _at_most(client: NetdataClient, nodes: list[Node]) -> list[Node]:
    return nodes[: client.target.max_nodes]


def _collected(client: NetdataClient, nodes: list[Node]) -> list[Node]:
    """Those that are collected now: of others an agent goes on telling what it last knew."""
    return [node for node in _at_most(client, nodes) if node.reachable]


def _refuse_the_rest(client: NetdataClient, nodes: list[Node]) -> None:
    """Say that there are more nodes than the limit.

    Raises:
        Refused: when those up to the limit were read, so that nothing beyond it counts as gone.
    """
    if len(nodes) > client.target.max_nodes:
        message = f"{len(nodes)} nodes are more than max_nodes ({client.target.max_nodes})"
        raise Refused(message, hint="raise max_nodes, or choose nodes")
