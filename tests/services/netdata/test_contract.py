"""What is emitted is what `metrics.csv` declares; what is sent to an agent of 2.x is what Netdata describes."""

from nms_workers.records import Record
from nms_workers.services.netdata.client import NetdataClient
from nms_workers.services.netdata.readings import table
from nms_workers.services.netdata.service import Netdata
from tests.conftest import StartServer
from tests.metric_contract import never_emitted, undeclared
from tests.services.netdata.conftest import Connect
from tests.services.netdata.support import act, contract, read
from tests.services.records import await_true
from tests.stubs.netdata import NetdataStub

# What an agent of 1.37 does not have, and why. A stub of 2.9 gives most of it.
NEVER_BY_1 = {
    "netdata_contexts": "2.x counts what it knows of all nodes",
    "netdata_dimensions": "2.x counts what it knows of all nodes",
    "netdata_instances": "2.x counts what it knows of all nodes",
    "netdata_nodes": "2.x counts what it knows of all nodes",
    "netdata_db_expected_retention_seconds": "2.x plans its tiers by time",
    "netdata_db_requested_retention_seconds": "2.x plans its tiers by time",
    "netdata_db_first_time_seconds": "an agent that just started has written nothing to disk",
    "netdata_db_last_time_seconds": "an agent that just started has written nothing to disk",
    "netdata_memory_available_bytes": "a chart of 2.x",
    "netdata_memory_buffers_bytes": "a chart of 2.x",
    "netdata_memory_bytes": "a chart of 2.x",
    "netdata_points_returned_per_second": "a chart of 2.x",
    "netdata_node_collected": "2.x tells how a node is collected",
    "netdata_node_collection_age_seconds": "2.x tells how a node is collected",
    "netdata_node_hops": "2.x tells how a node is collected",
    "netdata_node_first_time_seconds": "2.x tells what it stores of a node",
    "netdata_node_last_time_seconds": "2.x tells what it stores of a node",
    "netdata_node_stored": "2.x tells what it stores of a node",
    "netdata_node_ml_dimensions": "2.x tells what it learns of a node",
    "netdata_node_replicating_instances": "2.x tells how a node is streamed",
    "netdata_node_replication_ratio": "2.x tells how a node is streamed",
    "netdata_node_stream_age_seconds": "2.x tells how a node is streamed",
    "netdata_node_streamed_bytes_total": "2.x tells how a node is streamed",
}


def everything(client: NetdataClient) -> list[Record]:
    """Every record of every poll."""
    return [record for poll in Netdata.polls() for record in read(client, poll)]


def test_what_is_emitted_and_what_is_declared(start_server: StartServer, stub: NetdataStub, connect: Connect) -> None:
    client = connect(start_server("netdata", conf={"db.mode": "dbengine"}).url)

    def complete() -> bool:  # some of its own charts come some seconds after the start
        records = everything(client)
        assert undeclared(Netdata, records) == []
        return set(never_emitted(Netdata, records)) == set(NEVER_BY_1)

    await_true(complete)
    newer = everything(connect(stub.url))
    assert undeclared(Netdata, newer) == []
    assert {name for name in never_emitted(Netdata, newer) if name in NEVER_BY_1} == {
        "netdata_memory_available_bytes",
        "netdata_memory_buffers_bytes",
        "netdata_points_returned_per_second",
    }, "charts that the stub does not have"


def test_every_number_of_a_real_agent_is_known(start_server: StartServer, connect: Connect) -> None:
    client = connect(start_server("netdata", conf={"db.mode": "dbengine"}).url)
    info = client.get_info()
    assert set(info.databases) == {"tier0", "tier1", "tier2"}
    assert table("agent_v1").unknown(info.numbers) == []
    assert table("database_v1").unknown(info.databases) == []


def test_every_request_is_as_netdata_describes(connect: Connect) -> None:
    with NetdataStub(contract()) as stub:
        stub.turn(stub.nodes[0], "system.load", "load_high", "WARNING")
        client = connect(stub.url, stub.key)
        assert everything(client)
        assert client.get_charts()
        assert client.get_data("system.load", group="max").rows
        assert list(client.get_alarms(raised=False))
        act(client, "silence_alarms", alarm="a*", chart="b", context="c", hosts="d")
        act(client, "reset_alarms")
        asked = {one.path for one in stub.seen if not one.path.startswith("/host/")}
    assert asked == {
        "/api/v3/info",
        "/api/v3/nodes",
        "/api/v3/node_instances",
        "/api/v3/allmetrics",
        "/api/v3/contexts",
        "/api/v3/alerts",
        "/api/v3/alert_transitions",
        "/api/v3/data",
        "/api/v1/charts",
        "/api/v1/manage/health",
    }
