"""Records from what an agent tells: samples in base units, entities, events."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

from nms_workers.errors import ParseError
from nms_workers.mapping import MappingTable
from nms_workers.records import Entity, Event, Record, Sample, Severity
from nms_workers.services.netdata.model import Alarm, Chart, Context, Info, NodeInfo, Transition

SEVERITIES: Mapping[str, Severity] = {"WARNING": "warning", "CRITICAL": "critical"}

_NAMED = 100  # of the fields that no table knows
_LONGEST = 1000  # characters of a text that somebody configured


@cache
def table(name: str) -> MappingTable:
    """One of the tables beside this file: `agent_v1`, `own`."""
    return MappingTable(Path(__file__).with_name("tables") / f"{name}.csv")


def of_info(info: Info) -> Iterator[Record]:
    """The agent as an entity, its version and features, the tiers of its database."""
    agent, database = table(f"agent_v{info.api}"), table(f"database_v{info.api}")
    yield Sample("netdata_info", 1, {"version": info.version, "api": str(info.api), "node": info.name})
    yield from agent.samples(info.numbers)
    yield from database.samples(info.databases)
    unknown = agent.unknown(info.numbers) + database.unknown(info.databases)
    yield Sample("netdata_unknown_fields", len(unknown), {"answer": "info"})
    about = {"name": info.name, "version": info.version, "api": info.api, "unknown_fields": unknown[:_NAMED]}
    yield Entity("agent", info.guid, about | info.about)


def of_node(info: NodeInfo) -> Iterator[Record]:
    """A node as an entity, whether it is collected, what it has; an event that fires while it is not."""
    node, mapping = info.node, table(f"node_v{info.api}")
    labels = {"node": node.name}
    yield Sample("netdata_node_reachable", node.reachable, labels)
    yield from mapping.samples(info.numbers, labels)
    about = {"name": node.name, "own": node.own, "reachable": node.reachable} | info.about
    yield Entity("node", node.guid, about)
    if not node.reachable:
        message = f"{node.name} does not stream to its Netdata parent any more"
        yield Event("node_down", message, "error", f"node_down:{node.guid}", "firing", labels)


def unknown_of_nodes(infos: list[NodeInfo]) -> Sample:
    """How many numbers of nodes the table does not have. API 1 tells of nodes what it does of the agent: `of_info`."""
    unknown = {name for info in infos if info.api == 3 for name in table("node_v3").unknown(info.numbers)}
    return Sample("netdata_unknown_fields", len(unknown), {"answer": "nodes"})


def of_own(charts: Mapping[str, Chart]) -> Iterator[Sample]:
    """What the agent measures of itself, in base units."""
    values = {name: {id_: one.value for id_, one in chart.dimensions.items()} for name, chart in charts.items()}
    return table("own").samples(values)


def own_charts() -> list[str]:
    """The charts that `of_own` reads."""
    return sorted({row.rpartition(".")[0].replace("\\.", ".") for row in table("own").rows})


def of_contexts(contexts: Mapping[str, Context]) -> Iterator[Record]:
    """Each context as an entity."""
    yield Sample("netdata_known_contexts", len(contexts))
    for name, one in contexts.items():
        yield Entity("context", name, {"title": one.title, "units": one.units, "family": one.family})


def of_alarm(alarm: Alarm) -> Event:
    """A raised alarm, firing as long as it is read."""
    value = _value(alarm.value, alarm.units)
    about = f": {alarm.info}" if alarm.info else ""
    return Event(
        "alarm",
        _text(f"{alarm.node.name}: {alarm.name} of {alarm.chart} is {alarm.status} at {value}{about}"),
        SEVERITIES[alarm.status],
        f"alarm:{alarm.node.guid}:{alarm.chart}:{alarm.name}",
        "firing",
        {
            "node": alarm.node.name,
            "chart": alarm.chart,
            "alarm": alarm.name,
            "status": alarm.status,
            "value": alarm.value,
            "units": alarm.units,
            "context": alarm.context,
            "family": alarm.family,
            "component": alarm.component,
            "recipient": alarm.recipient,
            "since": _time(alarm.since).isoformat(),
            "silenced": alarm.silenced,
        },
    )


def of_transition(one: Transition) -> Event:
    """A change of an alarm, at the time it happened: told again, it is recognized by that and its fingerprint."""
    return Event(
        "alarm_transition",
        _text(f"{one.node.name}: {one.name} of {one.chart} went from {one.old} to {one.new}"),
        SEVERITIES.get(one.new, "info"),
        f"alarm_transition:{one.node.guid}:{one.id}",
        attributes={
            "node": one.node.name,
            "chart": one.chart,
            "alarm": one.name,
            "context": one.context,
            "from": one.old,
            "to": one.new,
            "old_value": one.old_value,
            "value": one.value,
            "units": one.units,
            "info": _text(one.info),
        },
        ts=_time(one.at),
    )


def _value(value: float | None, units: str) -> str:
    return "no value" if value is None else f"{value:.6g} {units}".rstrip()


def _text(text: str) -> str:
    """In one line, and not endless: these are words that people configured."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:_LONGEST]


def _time(seconds: int) -> datetime:
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, ValueError, OSError):
        raise ParseError(f"the agent tells the time {seconds}, which is none") from None
