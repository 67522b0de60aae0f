"""A parent and its child, both real agents: all nodes are read, and it is told when one is away."""

from typing import Any, NamedTuple

import pytest

from nms_workers.errors import Refused
from nms_workers.records import Record
from nms_workers.services.netdata.client import NetdataClient
from nms_workers.services.netdata.service import Netdata
from tests.conftest import StartServer
from tests.servers import NetdataServer
from tests.services.netdata.conftest import Connect
from tests.services.netdata.support import charts, plain, read
from tests.services.records import await_true, entities, events, value


class Family(NamedTuple):
    parent: NetdataServer
    child: NetdataServer

    @property
    def guids(self) -> tuple[str, str]:
        """The machine GUIDs of both."""
        first, second = (str(plain(one.url, "/api/v1/info")["uid"]) for one in self)
        return first, second


@pytest.fixture
def family(start_server: StartServer) -> Family:
    """Both are up, and the child's charts have arrived."""
    parent = start_server("netdata", hostname="the parent")
    child = start_server("netdata", hostname="the child", streams_to=parent)
    assert isinstance(parent, NetdataServer)
    assert isinstance(child, NetdataServer)
    both = Family(parent, child)
    guid = both.guids[1]
    await_true(lambda: guid in str(plain(parent.url, "/api/v1/info")["mirrored_hosts_status"]))
    await_true(lambda: "statsd_nms" in str(plain(parent.url, f"/host/{guid}/api/v1/allmetrics?format=json")))
    return both


def nodes_of(client: NetdataClient) -> set[str]:
    """The nodes whose charts are told."""
    return {node for node, _, _ in charts(read(client, "charts"))}


def test_all_nodes_are_read(family: Family, connect: Connect) -> None:
    client, (own, guid) = connect(family.parent.url), family.guids
    records = read(client, "nodes")
    told = entities(records, "node")
    assert {key: (one["name"], one["own"], one["reachable"]) for key, one in told.items()} == {
        own: ("the parent", True, True),
        guid: ("the child", False, True),
    }
    assert events(records) == []
    assert value(records, "netdata_node_cpu_cores", node="the child") > 0
    assert nodes_of(client) == {"the parent", "the child"}

    family.child.level(60)
    (event,) = await_true(lambda: events(read(client, "alarms"), "alarm"), 60)
    assert event.fingerprint == f"alarm:{guid}:statsd_nms.level_gauge:nms_level"
    assert value(read(client, "nodes"), "netdata_node_alarms", node="the child", status="warning") == 1
    (change,) = [one for one in events(read(client, "transitions")) if one.attributes["to"] == "WARNING"]
    assert change.attributes["node"] == "the child"

    charts_of_child = client.get_charts("the child")
    assert "statsd_nms.level_gauge" in charts_of_child
    assert client.get_data("statsd_nms.level_gauge", guid).dimensions == ("gauge",)


def test_a_child_that_goes_and_comes_back(family: Family, connect: Connect) -> None:
    client, (_, guid) = connect(family.parent.url), family.guids
    assert nodes_of(client) == {"the parent", "the child"}
    family.child.stop()
    (event,) = await_true(lambda: events(read(client, "nodes"), "node_down"))
    assert (event.state, event.severity, event.fingerprint) == ("firing", "error", f"node_down:{guid}")
    assert value(read(client, "nodes"), "netdata_node_reachable", node="the child") == 0
    assert nodes_of(client) == {"the parent"}, "what the parent remembers of it is not told as if it were now"
    assert "statsd_nms.level_gauge" in plain(family.parent.url, f"/host/{guid}/api/v1/allmetrics?format=json")

    family.child.start()
    await_true(lambda: not events(read(client, "nodes")))
    await_true(lambda: nodes_of(client) == {"the parent", "the child"})
    assert {"node", "node_down"} <= Netdata.polls()["nodes"].enumerates


def test_nodes_are_chosen_and_bounded(family: Family, connect: Connect) -> None:
    choices: tuple[tuple[dict[str, Any], set[str]], ...] = (
        ({"nodes": ["*child"]}, {"the child"}),
        ({"exclude_nodes": ["*child"]}, {"the parent"}),
    )
    for settings, left in choices:
        client = connect(family.parent.url, **settings)
        assert nodes_of(client) == left
        assert {one["name"] for one in entities(read(client, "nodes"), "node").values()} == left

    limited = connect(family.parent.url, max_nodes=1)
    for poll in ("nodes", "charts", "contexts", "alarms", "transitions"):
        told: list[Record] = []
        with pytest.raises(Refused, match=r"2 nodes are more than max_nodes \(1\)"):
            told.extend(Netdata.polls()[poll].run(limited))
        assert told or poll in ("alarms", "transitions"), poll


def test_nodes_of_one_name_are_told_apart(start_server: StartServer, connect: Connect) -> None:
    parent = start_server("netdata", hostname="web")
    start_server("netdata", hostname="web", streams_to=parent)
    client = connect(parent.url)
    nodes = await_true(lambda: len(found := client.get_nodes()) == 2 and found)
    assert {node.name for node in nodes} == {f"web ({node.guid})" for node in nodes}
    await_true(lambda: nodes_of(client) == {node.name for node in nodes})
