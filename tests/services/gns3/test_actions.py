"""Actions on real servers of both versions: done once, looked at by other means, and done again without effect."""

import time
from typing import Any

import pytest

from nms_workers.errors import Refused
from nms_workers.services.gns3 import nodes
from nms_workers.services.gns3.client import Gns3Client
from nms_workers.services.gns3.service import Gns3
from nms_workers.services.gns3.session import NotThere
from tests.conftest import StartServer
from tests.servers import GNS3
from tests.services.gns3.conftest import Connect
from tests.services.gns3.support import Plain, act, two_linked


def twice(client: Gns3Client, action: str, **arguments: Any) -> dict[str, Any]:
    """Run an action, and again, when there is nothing left to do; what the first said is there after it."""
    first = act(client, action, **arguments)
    assert first.changed, first.message
    again = act(client, action, **arguments)
    assert not again.changed, again.message
    return first.after


def test_the_life_of_a_project(client: Gns3Client, plain: Plain) -> None:
    made = twice(client, "create_project", project="campus (1.0)")
    assert plain.project("campus (1.0)")["project_id"] == made["project_id"]

    assert twice(client, "close_project", project="campus (1.0)")["status"] == "closed"
    assert plain.project("campus (1.0)")["status"] == "closed"
    assert twice(client, "open_project", project=made["project_id"])["status"] == "opened"
    assert plain.project("campus (1.0)")["status"] == "opened"

    assert twice(client, "delete_project", project="campus (1.0)") == {"exists": False}
    assert plain.ask("GET", "/projects") == []


def test_the_life_of_a_node(client: Gns3Client, plain: Plain) -> None:
    act(client, "create_project", project="lab")
    made = twice(client, "create_node", project="lab", node="PC1", node_type="vpcs", x=10, y=-20)
    (node,) = plain.of("lab", "nodes")
    assert (node["name"], node["node_type"], node["x"], node["y"]) == ("PC1", "vpcs", 10, -20)
    assert made["node_id"] == node["node_id"]

    assert twice(client, "start_node", project="lab", nodes=["PC1"]) == {"PC1": "started"}
    assert plain.states("lab") == {"PC1": "started"}
    process = plain.of("lab", "nodes")[0]["command_line"]
    assert act(client, "reload_node", project="lab", nodes=["PC1"]).after == {"PC1": "started"}
    assert process
    assert plain.states("lab") == {"PC1": "started"}
    assert twice(client, "stop_node", project="lab", nodes=["PC1"]) == {"PC1": "stopped"}
    assert plain.states("lab") == {"PC1": "stopped"}

    assert twice(client, "delete_node", project="lab", node="PC1") == {"exists": False}
    assert plain.of("lab", "nodes") == []


def test_a_node_from_a_template_has_the_name_that_was_asked_for(client: Gns3Client, plain: Plain) -> None:
    act(client, "create_project", project="lab")
    twice(client, "create_node", project="lab", node="edge-1", template="VPCS")
    twice(client, "create_node", project="lab", node="edge-2", template="VPCS")
    assert set(plain.states("lab")) == {"edge-1", "edge-2"}


def test_a_name_taken_by_another_kind_is_refused(client: Gns3Client, plain: Plain) -> None:
    act(client, "create_project", project="lab")
    act(client, "create_node", project="lab", node="PC1", node_type="vpcs")
    with pytest.raises(Refused, match=r"a node 'PC1' already, a vpcs"):
        act(client, "create_node", project="lab", node="PC1", template="Cloud")
    assert len(plain.of("lab", "nodes")) == 1


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ({}, "either from node_type or from template"),
        ({"node_type": "vpcs", "template": "VPCS"}, "either from node_type or from template"),
        ({"template": "VPCS", "properties": {"a": 1}}, "the template's properties"),
        ({"template": "no such"}, "no template 'no such'.*VPCS"),
        ({"node_type": "vpcs", "compute": "elsewhere"}, "elsewhere"),
    ],
)
def test_a_node_that_cannot_be_made(client: Gns3Client, plain: Plain, how: dict[str, Any], why: str) -> None:
    act(client, "create_project", project="lab")
    with pytest.raises(Refused, match=why):
        act(client, "create_node", project="lab", node="PC1", **how)
    assert plain.of("lab", "nodes") == []


def test_many_nodes_start_one_after_the_other(client: Gns3Client, plain: Plain) -> None:
    three = [{"name": f"PC{i}", "node_type": "vpcs"} for i in range(3)]
    act(client, "build_topology", project="lab", nodes=three)
    act(client, "start_node", project="lab", nodes=["PC1"])

    began = time.monotonic()
    change = act(client, "start_node", project="lab", stagger=0.7)
    assert time.monotonic() - began > 0.7
    assert change.before == {"PC0": "stopped", "PC2": "stopped"}
    assert change.after == {"PC0": "started", "PC2": "started"}
    assert set(plain.states("lab").values()) == {"started"}

    assert len(act(client, "stop_node", project="lab").after) == 3
    assert set(plain.states("lab").values()) == {"stopped"}


def test_a_command_that_has_no_effect_is_no_success(connect: Connect, client: Gns3Client, plain: Plain) -> None:
    """GNS3 itself says yes when a VPCS is to be suspended, and does nothing."""
    two_linked(client)
    act(client, "start_node", project="lab", nodes=["PC1"])
    hasty = connect(**client.target.model_dump() | {"settle": 0.5})
    with pytest.raises(Refused, match=r"0\.5 s later it is not so that PC1 is suspended"):
        list(nodes.bring(hasty, hasty.get_project("lab"), [hasty.get_node("lab", "PC1")], nodes.SUSPEND, 0))
    assert plain.states("lab")["PC1"] == "started"


def test_a_start_that_fails_names_what_was_done_before(client: Gns3Client, plain: Plain) -> None:
    crash = {"name": "PC2", "node_type": "vpcs", "properties": {"startup_script": "# broken\n"}}
    act(client, "build_topology", project="lab", nodes=[{"name": "PC1", "node_type": "vpcs"}, crash])
    with pytest.raises(Refused, match=r"VPCS.*; 1 of 2 nodes were started before"):
        act(client, "start_node", project="lab", nodes=["PC1", "PC2"], stagger=0)
    assert plain.states("lab") == {"PC1": "started", "PC2": "stopped"}


def test_what_a_node_cannot_do_is_refused_when_named_and_left_out_otherwise(client: Gns3Client, plain: Plain) -> None:
    two_linked(client)
    act(client, "start_node", project="lab", stagger=0)
    with pytest.raises(Refused, match="PC1 cannot suspend: a vpcs cannot be frozen"):
        act(client, "suspend_node", project="lab", nodes=["PC1"])
    assert not act(client, "suspend_node", project="lab").changed
    assert plain.states("lab") == {"PC1": "started", "PC2": "started"}

    act(client, "stop_node", project="lab", nodes=["PC1"])
    with pytest.raises(Refused, match=r"PC1 is stopped \(start_node"):
        act(client, "reload_node", project="lab", nodes=["PC1"])
    assert act(client, "reload_node", project="lab", stagger=0).after == {"PC2": "started"}


def test_the_life_of_a_link(client: Gns3Client, plain: Plain) -> None:
    two_linked(client)
    act(client, "delete_link", project="lab", a="PC1", b="PC2")
    port = client.get_node_interfaces("lab", "PC2")[0]

    assert twice(client, "create_link", project="lab", a="PC1:0/0", b=f"PC2:{port.name}")["linked"]
    (link,) = plain.of("lab", "links")
    assert {end["node_id"] for end in link["nodes"]} == {one["node_id"] for one in plain.of("lab", "nodes")}
    assert not act(client, "create_link", project="lab", a="PC2", b="PC1").changed

    assert twice(client, "delete_link", project="lab", a="PC2", b="PC1") == {"linked": False}
    assert plain.of("lab", "links") == []


@pytest.mark.parametrize(
    ("a", "b", "why"),
    [
        ("PC1", "PC3", "port Ethernet0 of PC1 is taken|every port of PC1 is taken"),
        ("PC3", "PC1:0/0", "of PC1 is taken"),
        ("PC1", "PC1", "cannot be linked with itself"),
        ("PC1:9/9", "PC3", "PC1 has no port '9/9'.*Ethernet0"),
        ("PC1", "PC9", "no node 'PC9'.*PC1, PC2, PC3"),
    ],
)
def test_a_link_that_cannot_be(client: Gns3Client, plain: Plain, a: str, b: str, why: str) -> None:
    two_linked(client)
    act(client, "create_node", project="lab", node="PC3", node_type="vpcs")
    with pytest.raises(Refused, match=why):
        act(client, "create_link", project="lab", a=a, b=b)
    assert len(plain.of("lab", "links")) == 1


def test_a_capture(client: Gns3Client, plain: Plain) -> None:
    two_linked(client)
    act(client, "start_node", project="lab", stagger=0)
    where = {"project": "lab", "a": "PC1", "b": "PC2"}
    after = twice(client, "start_capture", **where)
    (link,) = plain.of("lab", "links")
    assert link["capturing"] is True
    assert after["file"] == link["capture_file_name"] == "PC1-e0_to_PC2-e0.pcap"
    twice(client, "stop_capture", **where)
    assert plain.of("lab", "links")[0]["capturing"] is False
    assert act(client, "start_capture", **where, file="mine.pcap").after["file"] == "mine.pcap"


def test_a_snapshot_brings_back_what_was_there(client: Gns3Client, plain: Plain) -> None:
    two_linked(client)
    act(client, "start_node", project="lab", stagger=0)
    with pytest.raises(Refused, match=r"must be stopped.*stop_node first"):
        act(client, "create_snapshot", project="lab", snapshot="before change")
    act(client, "stop_node", project="lab")
    twice(client, "create_snapshot", project="lab", snapshot="before change")
    assert [one["name"] for one in plain.of("lab", "snapshots")] == ["before change"]

    act(client, "delete_node", project="lab", node="PC2")
    change = act(client, "restore_snapshot", project="lab", snapshot="before change")
    assert (change.before, change.after) == ({"nodes": 1, "links": 0}, {"nodes": 2, "links": 1})
    assert set(plain.states("lab")) == {"PC1", "PC2"}
    with pytest.raises(NotThere, match=r"no snapshot 'other'.*before change"):
        act(client, "restore_snapshot", project="lab", snapshot="other")


def test_a_copy_of_a_project(client: Gns3Client, plain: Plain) -> None:
    two_linked(client)
    twice(client, "duplicate_project", source="lab", project="lab 2")
    assert {one["name"] for one in plain.of("lab 2", "nodes")} == {"PC1", "PC2"}
    theirs, ours = ({one["node_id"] for one in plain.of(name, "nodes")} for name in ("lab 2", "lab"))
    assert not theirs & ours


def test_a_closed_project_takes_no_change(client: Gns3Client) -> None:
    two_linked(client)
    act(client, "close_project", project="lab")
    with pytest.raises(Refused, match=r"'lab' is closed \(open_project first\)"):
        act(client, "start_node", project="lab")
    with pytest.raises(NotThere, match="no project 'no such'"):
        act(client, "open_project", project="no such")


@pytest.mark.parametrize("name", GNS3)
@pytest.mark.parametrize(
    ("there", "why"),
    [((), r"VPCS program.*not accessible \(install VPCS"), (("vpcs",), r"uBridge is not available.*\(install uBridge")],
)
def test_a_missing_program_is_explained(
    name: str, there: tuple[str, ...], why: str, start_server: StartServer, connect: Connect
) -> None:
    client = connect(start_server(name, standins=there))
    act(client, "create_project", project="lab")
    with pytest.raises(Refused, match=r"Could not find Dynamips \(install Dynamips"):
        act(client, "create_node", project="lab", node="SW1", node_type="ethernet_switch")
    act(client, "create_node", project="lab", node="PC1", node_type="vpcs")
    with pytest.raises(Refused, match=why):
        act(client, "start_node", project="lab", nodes=["PC1"])
    assert client.get_node("lab", "PC1").status == "stopped"


HOSTILE = ["", " lab", "-lab", "../lab", "a/b", "a\nb", "lab\x00", "l\u0430b", "lab\u0661", "x" * 101, 'a"b', "a;b"]


@pytest.mark.parametrize("name", HOSTILE)
def test_names_that_are_not_given(name: str) -> None:
    for action, argument in (("create_project", "project"), ("create_snapshot", "snapshot"), ("create_node", "node")):
        others = {"project": "lab"} if argument != "project" else {}
        with pytest.raises(Refused, match=argument):
            Gns3.actions()[action].validate({argument: name} | others)
    with pytest.raises(Refused, match="file"):
        Gns3.actions()["start_capture"].validate({"project": "lab", "a": "A", "b": "B", "file": name})


@pytest.mark.parametrize("name", ["", "a\nb", "a\x00", "x" * 256, "a\x7f"])
def test_references_that_cannot_be_names(name: str) -> None:
    with pytest.raises(Refused, match="project"):
        Gns3.actions()["open_project"].validate({"project": name})
    with pytest.raises(Refused, match="nodes"):
        Gns3.actions()["start_node"].validate({"project": "lab", "nodes": [name]})


def test_what_destroys_wants_to_be_confirmed() -> None:
    confirmed = {name for name, one in Gns3.actions().items() if one.confirm}
    assert confirmed == {"delete_project", "delete_node", "delete_link", "delete_made", "restore_snapshot"}


def test_what_undoes_an_action_exists() -> None:
    actions = Gns3.actions()
    for name, one in actions.items():
        assert one.undo is None or one.undo in actions, name
