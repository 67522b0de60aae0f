"""What the polls tell of real servers of both versions, against what the servers say themselves."""

from collections.abc import Callable

import psutil
import pytest

from nms_workers.errors import Refused
from nms_workers.records import Record
from nms_workers.services.gns3.client import Gns3Client
from nms_workers.services.gns3.service import Gns3
from tests.servers import Server
from tests.services.gns3.conftest import Connect
from tests.services.gns3.support import Plain, act, links, read, two_linked
from tests.services.records import await_true, entities, events, value


def test_computes(client: Gns3Client, server: Server) -> None:
    two_linked(client)  # version 2 connects its own compute when it is first needed
    records = read(client, "computes")
    assert value(records, "gns3_compute_connected", compute="local") == 1
    full = {"gns3-2.2": "2.2.61", "gns3-3.0": "3.0.6"}[server.name]
    assert value(records, "gns3_server_info", version=full, api=full[0]) == 1
    assert list(entities(records, "compute")) == ["local"]
    assert not events(records)


def test_a_compute_that_is_away_fires(
    client: Gns3Client, plain: Plain, server: Server, free_port: Callable[[], int]
) -> None:
    two_linked(client)
    key = "11111111-2222-4333-8444-555555555555"
    port = free_port()
    away = {"compute_id": key, "name": "away", "protocol": "http", "host": "127.0.0.1", "port": port}
    plain.ask("POST", "/computes", away | {"user": "nms", "password": "secret words"})
    records = read(client, "computes")
    assert value(records, "gns3_compute_connected", compute=key) == 0
    assert value(records, "gns3_compute_connected", compute="local") == 1
    (event,) = events(records)
    assert (event.kind, event.state, event.fingerprint) == ("compute_down", "firing", f"compute_down:{key}")
    assert "secret words" not in str(records)

    if server.name == "gns3-2.2":
        await_true(lambda: client.get_computes()[0].memory_usage_percent is not None)
        told: list[Record] = []
        with pytest.raises(Refused, match=r"Cannot connect to compute 'away'.*bring the compute back"):
            told.extend(Gns3.polls()["statistics"].run(client))
        assert value(told, "gns3_compute_memory_usage_ratio", compute="local") > 0
    else:
        assert value(read(client, "statistics"), "gns3_compute_cpu_usage_ratio", compute="local") >= 0

    plain.ask("DELETE", f"/computes/{key}")
    assert not events(read(client, "computes"))


def test_statistics_are_those_of_the_machine(client: Gns3Client) -> None:
    records = read(client, "statistics")
    labels = {"compute": "local"}
    machine = psutil.virtual_memory()
    assert value(records, "gns3_compute_memory_total_bytes", **labels) == machine.total
    assert 0 < value(records, "gns3_compute_memory_used_bytes", **labels) < machine.total
    assert abs(value(records, "gns3_compute_memory_usage_ratio", **labels) - machine.percent / 100) < 0.2
    load = psutil.getloadavg()[2] / psutil.cpu_count()
    assert abs(value(records, "gns3_compute_load_average_ratio", **labels, window="15m") - load) < 0.2


def test_projects(client: Gns3Client, plain: Plain) -> None:
    two_linked(client)
    act(client, "create_project", project="second")
    act(client, "close_project", project="second")
    records = read(client, "projects")
    assert value(records, "gns3_projects", status="opened") == 1
    assert value(records, "gns3_projects", status="closed") == 1
    assert value(records, "gns3_project_nodes", project="lab") == 2
    assert value(records, "gns3_project_links", project="lab") == 1
    told = entities(records, "project")
    assert told[plain.project("second")["project_id"]]["status"] == "closed"
    assert told[plain.project("lab")["project_id"]]["name"] == "lab"


def test_nodes_and_their_changes(client: Gns3Client, plain: Plain) -> None:
    two_linked(client)
    assert not events(read(client, "nodes"))
    act(client, "start_node", project="lab", nodes=["PC1"])

    records = read(client, "nodes")
    assert value(records, "gns3_node_started", project="lab", node="PC1", node_type="vpcs") == 1
    assert value(records, "gns3_node_started", project="lab", node="PC2", node_type="vpcs") == 0
    assert value(records, "gns3_project_nodes_in_state", project="lab", state="started") == 1
    assert value(records, "gns3_project_nodes_in_state", project="lab", state="suspended") == 0
    ids = {one["name"]: one["node_id"] for one in plain.of("lab", "nodes")}
    told = entities(records, "node")
    assert (told[ids["PC1"]]["status"], told[ids["PC1"]]["project"]) == ("started", "lab")
    (event,) = events(records)
    assert (event.kind, event.state, event.severity) == ("node_state", "occurred", "info")
    assert event.message == "PC1 in lab went from stopped to started"
    assert not events(read(client, "nodes")), "a change is told once"

    act(client, "stop_node", project="lab", nodes=["PC1"])
    (event,) = events(read(client, "nodes"))
    assert (event.severity, event.attributes["to"]) == ("warning", "stopped")
    assert event.fingerprint == f"node_state:{ids['PC1']}"


def test_a_node_that_dies_by_itself_is_told(client: Gns3Client, plain: Plain, server: Server) -> None:
    two_linked(client)
    act(client, "start_node", project="lab", nodes=["PC2"])
    read(client, "nodes")
    (vpcs,) = [one for one in psutil.Process(server.pid).children() if any("vpcs" in part for part in one.cmdline())]
    vpcs.kill()
    await_true(lambda: plain.states("lab")["PC2"] == "stopped")
    (event,) = events(read(client, "nodes"))
    assert event.message == "PC2 in lab went from started to stopped"


def test_nodes_of_a_closed_project_stay_known(client: Gns3Client, plain: Plain) -> None:
    two_linked(client)
    act(client, "start_node", project="lab", stagger=0)
    read(client, "nodes")
    act(client, "close_project", project="lab")
    records = read(client, "nodes")
    told = entities(records, "node")
    assert {one["name"]: one["status"] for one in told.values()} == {"PC1": "closed", "PC2": "closed"}
    assert not events(records), "that the project was closed is no fault of its nodes"


def test_links_are_the_topology(client: Gns3Client, plain: Plain) -> None:
    two_linked(client)
    records = read(client, "links")
    (link,) = links(records)
    (true,) = plain.of("lab", "links")
    ends = {f"{one['node_id']}/{one['adapter_number']}/{one['port_number']}" for one in true["nodes"]}
    assert {link.a[1], link.b[1]} == ends == set(entities(records, "node_port"))
    assert {one["node"] for one in entities(records, "node_port").values()} == {"PC1", "PC2"}
    assert value(records, "gns3_project_links_capturing", project="lab") == 0

    path = f"/projects/{plain.project('lab')['project_id']}/links/{true['link_id']}"
    plain.ask("PUT", path, {"suspend": True, "filters": {"delay": [10, 1]}})
    records = read(client, "links")
    assert value(records, "gns3_project_links_suspended", project="lab") == 1
    assert value(records, "gns3_project_links_filtered", project="lab") == 1
    assert links(records)[0].attributes["filters"] == ["delay"]

    act(client, "close_project", project="lab")
    assert len(links(read(client, "links"))) == 1, "a closed lab keeps its cables"


def test_templates(client: Gns3Client, plain: Plain) -> None:
    records = read(client, "templates")
    assert value(records, "gns3_templates", template_type="vpcs") == 1
    assert set(entities(records, "template")) == {one["template_id"] for one in plain.ask("GET", "/templates")}


def test_more_projects_than_the_limit_end_as_partial(client: Gns3Client, connect: Connect) -> None:
    for name in ("one", "two"):
        two_linked(client, name)
    limited = connect(**client.target.model_dump() | {"max_projects": 1})
    told: list[Record] = []
    with pytest.raises(Refused, match=r"2 projects are more than max_projects \(1\)"):
        told.extend(Gns3.polls()["nodes"].run(limited))
    assert len(entities(told, "node")) == 2


def test_the_methods_of_the_client(client: Gns3Client, server: Server) -> None:
    two_linked(client)
    act(client, "create_snapshot", project="lab", snapshot="one")
    assert f"gns3-{client.get_version().version}".startswith(server.name)
    assert [one.name for one in client.get_projects()] == ["lab"]
    assert sorted(one.name for one in client.get_nodes("lab")) == ["PC1", "PC2"]
    (port,) = client.get_node_interfaces("lab", "PC1")
    assert (port.name, port.adapter_number, port.port_number, port.link_type) == ("Ethernet0", 0, 0, "ethernet")
    assert len(client.get_links("lab")) == 1
    assert "VPCS" in {one.name for one in client.get_templates()}
    assert [one.name for one in client.get_snapshots("lab")] == ["one"]
