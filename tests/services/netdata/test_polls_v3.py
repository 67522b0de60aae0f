"""What the polls tell of a parent of 2.9: one question for all nodes, and each as Netdata describes it."""

from urllib.parse import parse_qs, urlsplit

from nms_workers.records import SampleBlock
from nms_workers.services.netdata.service import Netdata
from tests.services.netdata.conftest import Connect
from tests.services.netdata.support import charts, read
from tests.services.records import entities, events, value
from tests.stubs.netdata import CHILD, OWN, NetdataStub


def test_which_api_it_has_is_asked_once(stub: NetdataStub, connect: Connect) -> None:
    client = connect(stub.url)
    for poll in ("nodes", "charts", "alarms", "transitions", "contexts", "own"):
        read(client, poll)
    assert stub.paths().count("/api/v3/info") == 1
    assert not [path for path in stub.paths() if "/api/v1/" in path or "/api/v2/" in path]


def test_the_agent(stub: NetdataStub, connect: Connect) -> None:
    records = read(connect(stub.url), "info")
    assert value(records, "netdata_info", version="v2.9.0", api="3", node="parent") == 1
    assert value(records, "netdata_unknown_fields", answer="info") == 0
    assert value(records, "netdata_nodes", state="receiving") == 1
    assert value(records, "netdata_dimensions", state="collected") == 7
    assert value(records, "netdata_feature_enabled", feature="bearer_protection") == 0
    assert value(records, "netdata_feature_enabled", feature="cloud_connected") == 0
    assert value(records, "netdata_db_disk_bytes", tier="tier0") == 4096
    assert value(records, "netdata_db_expected_retention_seconds", tier="tier0") == 2 * 86_400
    about = entities(records, "agent")[OWN]
    assert (about["os_name"], about["kernel_version"], about["cloud"]) == ("Debian GNU/Linux", "6.1", "available")


def test_a_field_of_a_newer_version_is_counted_and_named(stub: NetdataStub, connect: Connect) -> None:
    info = stub.info
    stub.info = lambda request: {"agents": [info(request)["agents"][0] | {"moons": {"full": 3}}]}  # type: ignore[method-assign]
    records = read(connect(stub.url), "info")
    assert value(records, "netdata_unknown_fields", answer="info") == 1
    assert entities(records, "agent")[OWN]["unknown_fields"] == ["moons.full"]


def test_nodes(stub: NetdataStub, connect: Connect) -> None:
    client = connect(stub.url)
    stub.turn(stub.nodes[1], "system.load", "load_high", "CRITICAL")
    records = read(client, "nodes")
    told = entities(records, "node")
    assert {key: (one["name"], one["own"]) for key, one in told.items()} == {
        OWN: ("parent", True),
        CHILD: ("child", False),
    }
    assert told[CHILD]["ingest_status"] == "online"
    assert told[OWN]["os"]["nm"] == "Debian GNU/Linux"
    assert value(records, "netdata_node_alarms", node="child", status="critical") == 1
    assert value(records, "netdata_node_memory_bytes", node="child") == 4096
    assert value(records, "netdata_node_hops", node="child") == 1
    assert value(records, "netdata_node_collected", node="parent", what="dimensions") == 4
    assert value(records, "netdata_node_replication_ratio", node="child", direction="received") == 0.4
    assert value(records, "netdata_node_streamed_bytes_total", node="parent", traffic="data") == 1000
    assert value(records, "netdata_node_ml_dimensions", node="child", state="anomalous") == 1
    assert value(records, "netdata_unknown_fields", answer="nodes") == 0
    assert events(records) == []

    stub.nodes[1].reachable = False
    (event,) = events(read(client, "nodes"))
    assert (event.kind, event.state, event.fingerprint) == ("node_down", "firing", f"node_down:{CHILD}")


def test_charts_of_all_nodes(stub: NetdataStub, connect: Connect) -> None:
    client = connect(stub.url, charts=["disk*", "system.*"], exclude_charts=["*.sdb"])
    stub.nodes[1].values["disk_ops.sda"] = 7.25
    told = charts(read(client, "charts"))
    assert told == {
        ("parent", "system.load", "load1"): 1.5,
        ("parent", "disk_ops.sda", "reads"): 1.5,
        ("child", "system.load", "load1"): 1.5,
        ("child", "disk_ops.sda", "reads"): 7.25,
    }
    stub.nodes[1].values["disk_ops.sda"] = None
    (_, block) = [one for one in read(client, "charts") if isinstance(one, SampleBlock)]
    assert str(block.values.tolist()) == "[1.5, nan]", "a dimension without a value keeps its place"

    stub.nodes[1].reachable = False
    assert {node for node, _, _ in charts(read(client, "charts"))} == {"parent"}


def test_alarms(stub: NetdataStub, connect: Connect) -> None:
    client = connect(stub.url)
    own, child = stub.nodes
    stub.turn(own, "system.load", "load_high", "WARNING")
    stub.turn(child, "disk_ops.sda", "busy", "CRITICAL")
    stub.turn(child, "disk_ops.sdb", "busy", "CLEAR")
    told = {one.fingerprint: one for one in events(read(client, "alarms"))}
    assert {key: one.severity for key, one in told.items()} == {
        f"alarm:{OWN}:system.load:load_high": "warning",
        f"alarm:{CHILD}:disk_ops.sda:busy": "critical",
    }
    event = told[f"alarm:{CHILD}:disk_ops.sda:busy"]
    assert event.message == "child: busy of disk_ops.sda is CRITICAL at 1.5 operations/s: of the tests"
    assert (event.attributes["context"], event.attributes["silenced"]) == ("disk.ops", None)
    assert len(list(client.get_alarms(raised=False))) == 3

    stub.turn(child, "disk_ops.sda", "busy", "CLEAR")
    assert [one.severity for one in events(read(client, "alarms"))] == ["warning"]
    assert [one.severity for one in events(read(connect(stub.url, nodes=["child"]), "alarms"))] == []


def test_transitions_are_told_once_also_those_that_come_late(stub: NetdataStub, connect: Connect) -> None:
    client, (own, child) = connect(stub.url), stub.nodes
    stub.turn(own, "system.load", "load_high", "WARNING")
    stub.turn(child, "disk_ops.sda", "busy", "CRITICAL")
    told = events(read(client, "transitions"))
    assert [(one.attributes["node"], one.severity) for one in told] == [("parent", "warning"), ("child", "critical")]
    assert events(read(client, "transitions")) == []

    stub.turn(own, "system.load", "load_high", "CLEAR", gi=stub.transitions_[-1]["gi"] - 5_000_000)
    (late,) = events(read(client, "transitions"))
    assert late.message == "parent: load_high of system.load went from WARNING to CLEAR"
    assert events(read(client, "transitions")) == []
    assert len(events(read(connect(stub.url), "transitions"))) == 3, "after a restart, for the store to recognize"


def test_more_transitions_than_the_limit(stub: NetdataStub, connect: Connect) -> None:
    client = connect(stub.url, max_transitions=2)
    for status in ("WARNING", "CRITICAL", "CLEAR"):
        stub.turn(stub.nodes[0], "system.load", "load_high", status)
    assert [one.kind for one in events(read(client, "transitions"))] == ["alarm_transition"] * 2
    for status in ("WARNING", "CRITICAL", "CLEAR", "WARNING"):
        stub.turn(stub.nodes[0], "system.load", "load_high", status)
    told = events(read(client, "transitions"))
    assert [one.kind for one in told] == ["alarm_transition"] * 2 + ["transitions_left_out"]


def test_contexts_of_the_chosen_nodes(stub: NetdataStub, connect: Connect) -> None:
    told = entities(read(connect(stub.url), "contexts"), "context")
    assert set(told) == {"system.load", "disk.ops", "netdata.memory"}
    assert told["disk.ops"] == {"title": "a title", "units": "operations/s", "family": "f"}
    chosen = read(connect(stub.url, exclude_nodes=["parent"]), "contexts")
    assert set(entities(chosen, "context")) == {"system.load", "disk.ops"}


def test_what_the_agent_measures_of_itself(stub: NetdataStub, connect: Connect) -> None:
    records = read(connect(stub.url, charts=["system.*"]), "own")
    assert value(records, "netdata_memory_bytes", part="dbengine") == 4096
    (asked,) = [path for path in stub.paths() if "allmetrics" in path]
    words = parse_qs(urlsplit(asked).query)["filter"][0].split()
    assert {"netdata.memory", "netdata.server_cpu", "netdata.dictionaries.other.memory"} <= set(words)


def test_the_methods_of_the_client(stub: NetdataStub, connect: Connect) -> None:
    client = connect(stub.url)
    assert client.get_charts()["disk_ops.sda"].context == "disk.ops"
    data = client.get_data("disk_ops.sda", "child", after=-60, points=4)
    assert data.dimensions == ("reads",)
    assert data.rows[0] == (1_700_000_003, (None,))
    assert data.rows[1] == (1_700_000_002, (1.5,))


def test_every_poll_says_what_it_names_in_full() -> None:
    named = {name: set(poll.enumerates) for name, poll in Netdata.polls().items() if poll.enumerates}
    assert named == {
        "info": {"agent"},
        "nodes": {"node", "node_down"},
        "charts": {"series_left_out"},
        "contexts": {"context"},
        "alarms": {"alarm"},
    }
