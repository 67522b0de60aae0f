"""What the polls tell of a real agent that knows API 1, against what the agent says itself."""

from functools import partial
from typing import Any

import pytest

from nms_workers.errors import Refused
from nms_workers.records import Event, SampleBlock
from nms_workers.services.netdata.client import NetdataClient
from nms_workers.services.netdata.selection import chooser
from nms_workers.services.netdata.service import Netdata
from nms_workers.services.netdata.session import NotThere
from tests.servers import NetdataServer
from tests.services.netdata.conftest import Connect
from tests.services.netdata.support import charts, plain, read
from tests.services.records import await_true, entities, events, value

LEVEL = ("own host", "statsd_nms.level_gauge", "gauge")


def all_charts(agent: NetdataServer) -> dict[str, Any]:
    """Every chart as the agent tells it."""
    return dict(plain(agent.url, "/api/v1/allmetrics?format=json"))


def test_the_agent(client: NetdataClient, agent: NetdataServer) -> None:
    records = read(client, "info")
    told = plain(agent.url, "/api/v1/info")
    assert value(records, "netdata_info", version=told["version"], api="1", node="own host") == 1
    assert value(records, "netdata_unknown_fields", answer="info") == 0
    assert value(records, "netdata_feature_enabled", feature="web") == 1
    assert value(records, "netdata_feature_enabled", feature="cloud") == 0
    about = entities(records, "agent")[told["uid"]]
    assert (about["version"], about["kernel_name"], about["memory-mode"]) == (told["version"], "Linux", "alloc")
    assert "proc.plugin//proc/stat" in about["collectors"]


def test_every_dimension_of_every_chart(client: NetdataClient, agent: NetdataServer) -> None:
    def complete() -> bool:
        truth = all_charts(agent)
        told = charts(read(client, "charts"))
        wanted = {
            ("own host", name, one["name"]) for name, chart in truth.items() for one in chart["dimensions"].values()
        }
        return set(told) == wanted and len(told) > 400

    await_true(complete)  # new charts come now and then


def test_values_and_labels(client: NetdataClient, agent: NetdataServer) -> None:
    agent.level(42)
    await_true(lambda: charts(read(client, "charts"))[LEVEL] == 42)
    truth = all_charts(agent)[LEVEL[1]]
    series = [one for r in read(client, "charts") if isinstance(r, SampleBlock) for one in r.layout.members]
    (labels,) = [dict(one.labels) for one in series if dict(one.labels)["chart"] == LEVEL[1]]
    assert labels == {
        "node": "own host",
        "chart": LEVEL[1],
        "context": truth["context"],
        "family": truth["family"],
        "dimension": "gauge",
        "units": truth["units"],
    }


def test_a_layout_is_made_once(client: NetdataClient) -> None:
    def same() -> bool:
        (first,), (second,) = [[r for r in read(client, "charts") if isinstance(r, SampleBlock)] for _ in range(2)]
        return first.layout is second.layout and first.values is not second.values

    await_true(same)


@pytest.mark.parametrize(
    ("include", "exclude"),
    [
        (("system.*",), ()),
        (("system.*", "net*.lo"), ("*.cpu", "system.softnet_stat")),
        ((), ("*", "system.load")),
        (("*_gauge",), ("system*",)),
        (("statsd_nms.level_gauge",), ()),
    ],
)
def test_charts_are_chosen_at_the_agent(
    agent: NetdataServer, connect: Connect, include: tuple[str, ...], exclude: tuple[str, ...]
) -> None:
    client, chosen = connect(agent.url, charts=include, exclude_charts=exclude), chooser(include, exclude)
    await_true(lambda: set(client.get_allmetrics()) == {name for name in all_charts(agent) if chosen(name)})


def test_contexts_are_chosen_here(agent: NetdataServer, connect: Connect) -> None:
    told = charts(read(connect(agent.url, contexts=["system.load", "statsd*"], exclude_contexts=["*timer*"]), "charts"))
    assert {chart for _, chart, _ in told} == {"system.load", "statsd_nms.level_gauge"}


def test_series_beyond_the_budget_are_counted_and_told(agent: NetdataServer, connect: Connect) -> None:
    settings: dict[str, Any] = {"charts": ["system.load", "system.uptime", "statsd_nms.level_gauge"]}
    records = read(connect(agent.url, **settings), "charts")
    assert (len(charts(records)), value(records, "netdata_chart_series_left_out")) == (5, 0)
    assert events(records) == []

    records = read(connect(agent.url, **settings, max_chart_series=3), "charts")
    told = charts(records)
    assert len({chart for _, chart, _ in told}) == value(records, "netdata_charts", node="own host")
    assert 0 < len(told) <= 3
    assert value(records, "netdata_chart_series_left_out") == 5 - len(told)
    (event,) = events(records)
    assert (event.kind, event.state) == ("series_left_out", "firing")
    assert f"{5 - len(told)} series are beyond max_chart_series (3)" in event.message
    assert event.kind in Netdata.polls()["charts"].enumerates


def alarm(client: NetdataClient) -> Event | None:
    """The alarm of the level, when it fires."""
    found = [one for one in events(read(client, "alarms"), "alarm") if one.attributes["alarm"] == "nms_level"]
    return found[0] if found else None


def is_at(client: NetdataClient, level: int) -> bool:
    """Whether the agent looked at its alarm since the level was set."""
    now = alarm(client)
    return now is None if level == 0 else now is not None and now.attributes["value"] == level


def test_an_alarm_fires_as_long_as_it_is_raised(client: NetdataClient, agent: NetdataServer) -> None:
    agent.level(60)
    event = await_true(lambda: alarm(client))
    guid = plain(agent.url, "/api/v1/info")["uid"]
    assert (event.state, event.severity) == ("firing", "warning")
    assert event.fingerprint == f"alarm:{guid}:statsd_nms.level_gauge:nms_level"
    assert "nms_level of statsd_nms.level_gauge is WARNING at 60 things: the level that the tests set" in event.message
    assert event.attributes["silenced"] is False
    assert alarm(client) == event

    agent.level(95)
    raised = await_true(lambda: (now := alarm(client)) and now.severity == "critical" and now)
    assert raised.fingerprint == event.fingerprint
    every = {one.name: one.status for one in client.get_alarms(raised=False)}
    assert every["nms_level"] == "CRITICAL"

    agent.level(0)
    await_true(lambda: alarm(client) is None)
    assert "alarm" in Netdata.polls()["alarms"].enumerates
    assert next(one for one in client.get_alarms(raised=False) if one.name == "nms_level").status == "CLEAR"


def test_each_change_of_an_alarm_is_told_once(client: NetdataClient, agent: NetdataServer, connect: Connect) -> None:
    read(client, "transitions")
    assert events(read(client, "transitions")) == []

    agent.level(70)
    await_true(lambda: alarm(client))
    (event,) = await_true(lambda: events(read(client, "transitions")))
    assert (event.kind, event.state, event.severity) == ("alarm_transition", "occurred", "warning")
    assert event.message == "own host: nms_level of statsd_nms.level_gauge went from CLEAR to WARNING"
    assert (event.attributes["value"], event.attributes["units"]) == (70, "things")
    assert event.ts is not None

    agent.level(0)
    (end,) = await_true(lambda: events(read(client, "transitions")))
    assert (end.attributes["to"], end.severity) == ("CLEAR", "info")
    assert events(read(client, "transitions")) == []

    after_a_restart = events(read(connect(agent.url), "transitions"))
    assert after_a_restart[-2:] == [event, end], "what is told again is the same, to be recognized by the store"


def test_more_changes_than_the_limit_are_told(agent: NetdataServer, client: NetdataClient, connect: Connect) -> None:
    limited = connect(agent.url, max_transitions=1)
    assert len(events(read(limited, "transitions"))) <= 1, "of the past that we did not see nothing is lost"
    for level in (60, 95, 0):
        agent.level(level)
        await_true(partial(is_at, client, level))
    told = events(read(limited, "transitions"))
    assert [one.kind for one in told] == ["alarm_transition", "transitions_left_out"]
    assert told[0].attributes["to"] == "CLEAR"
    assert "2 changes of alarms are beyond max_transitions (1)" in told[1].message


def test_a_run_that_was_not_finished_tells_again(client: NetdataClient, agent: NetdataServer) -> None:
    run = Netdata.polls()["transitions"].run(client)
    first = next(run)
    run.close()
    assert next(iter(Netdata.polls()["transitions"].run(client))) == first


def test_what_the_agent_measures_of_itself(client: NetdataClient, agent: NetdataServer) -> None:
    records = read(client, "own")
    assert value(records, "netdata_uptime_seconds") > 0
    assert value(records, "netdata_web_response_seconds", stat="max") >= value(
        records, "netdata_web_response_seconds", stat="average"
    )
    truth = all_charts(agent)["netdata.server_cpu"]["dimensions"]
    assert value(records, "netdata_cpu_usage_ratio", mode="user") < 10
    assert set(truth) == {"user", "system"}
    assert value(records, "netdata_strings_memory_bytes") > 10_000


def test_contexts(client: NetdataClient, agent: NetdataServer) -> None:
    told = await_true(
        lambda: (
            set(now := entities(read(client, "contexts"), "context"))
            == set(plain(agent.url, "/api/v1/contexts")["contexts"])
            and now
        )
    )
    assert told["system.load"] == {"title": "System Load Average", "units": "load", "family": "load"}


def test_the_methods_of_the_client(client: NetdataClient, agent: NetdataServer) -> None:
    assert client.get_charts()["system.load"].units == "load"
    await_true(lambda: len(client.get_data("system.load", after=-30).rows) >= 2)
    data = client.get_data("system.load", after=-30)
    times = [at for at, _ in data.rows]
    assert data.dimensions == ("load1", "load5", "load15")
    assert times == sorted(times, reverse=True)

    def extremes() -> list[float]:
        both = [client.get_data("system.load", "own host", after=-10, points=1, group=how) for how in ("max", "min")]
        return [number for one in both for _, values in one.rows for number in values[:1] if number is not None]

    highest, lowest = await_true(lambda: len(found := extremes()) == 2 and found)
    assert highest >= lowest > 0


@pytest.mark.parametrize("chart", ["system.*", "!system.load", "system.load|system.cpu", "system load", "", "a\nb"])
def test_a_chart_is_named_and_not_described(client: NetdataClient, chart: str) -> None:
    with pytest.raises(Refused, match="is no name of a chart"):
        client.get_data(chart)


def test_what_is_not_there(client: NetdataClient) -> None:
    with pytest.raises(NotThere):
        client.get_data("no.such")
    with pytest.raises(NotThere, match=r"no node 'elsewhere' \(there are: own host"):
        client.get_charts("elsewhere")
