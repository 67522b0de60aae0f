"""`build_topology`: a declared lab comes about, again does nothing, and goes on where a fault stopped it."""

from typing import Any

import pytest

from nms_workers.errors import Refused
from nms_workers.services.gns3.client import Gns3Client
from nms_workers.services.gns3.service import Gns3
from tests.services.gns3.support import Plain, act

STAR: dict[str, Any] = {
    "project": "star",
    "nodes": [{"name": f"PC{i}", "node_type": "vpcs"} for i in range(1, 4)] + [{"name": "T1", "template": "VPCS"}],
    "links": [{"a": "PC1", "b": "PC2:0/0"}, {"a": "PC3:Ethernet0", "b": "T1"}],
    "start": True,
    "stagger": 0,
}


def test_a_lab_comes_about_and_stays(client: Gns3Client, plain: Plain) -> None:
    change = act(client, "build_topology", **STAR)
    assert (change.changed, change.before) == (True, {"exists": False})
    assert (change.after["nodes"], change.after["links"]) == (4, 2)
    assert plain.states("star") == dict.fromkeys(("PC1", "PC2", "PC3", "T1"), "started")
    assert len(plain.of("star", "links")) == 2

    again = act(client, "build_topology", **STAR)
    assert (again.changed, again.message) == (False, "star already is as declared")
    assert len(plain.of("star", "nodes")) == 4
    assert len(plain.of("star", "links")) == 2


def test_only_what_is_missing_is_made(client: Gns3Client, plain: Plain) -> None:
    act(client, "build_topology", **STAR)
    act(client, "delete_node", project="star", node="PC2")
    act(client, "stop_node", project="star", nodes=["T1"])
    act(client, "close_project", project="star")
    kept = {one["node_id"] for one in plain.of("star", "nodes")}

    steps = act(client, "build_topology", **STAR).after["steps"]
    assert steps[0] == "project star opened"
    assert {"PC2 made", "PC1:e0 - PC2:e0 linked"} < set(steps)
    assert kept < {one["node_id"] for one in plain.of("star", "nodes")}
    assert set(plain.states("star").values()) == {"started"}


def test_it_goes_on_where_it_was_stopped(client: Gns3Client, plain: Plain) -> None:
    broken = STAR | {"nodes": [*STAR["nodes"][:2], {"name": "SW", "node_type": "ethernet_switch"}, *STAR["nodes"][2:]]}
    with pytest.raises(Refused, match=r"Dynamips.*project star made, PC1 made, PC2 made before\. Run this again"):
        act(client, "build_topology", **broken)
    assert set(plain.states("star")) == {"PC1", "PC2"}
    assert "PC3 made" in act(client, "build_topology", **STAR).after["steps"]
    assert set(plain.states("star")) == {"PC1", "PC2", "PC3", "T1"}


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"nodes": [{"name": "A", "node_type": "vpcs"}] * 2, "links": []}, "names a node twice: A"),
        ({"links": [{"a": "PC1", "b": "PC9"}]}, "nodes that it does not have: PC9"),
        ({"links": [{"a": "PC1", "b": "PC2"}, {"a": "PC2", "b": "PC1"}]}, "has a link twice"),
    ],
)
def test_a_lab_that_contradicts_itself_is_not_begun(
    client: Gns3Client, plain: Plain, change: dict[str, Any], why: str
) -> None:
    with pytest.raises(Refused, match=why):
        act(client, "build_topology", **STAR | change)
    assert plain.ask("GET", "/projects") == []


@pytest.mark.parametrize(
    "nodes",
    [
        [],
        [{"name": "PC1"}],
        [{"name": "PC 1", "node_type": "vpcs"}],
        [{"name": "PC1", "node_type": "vpcs", "template": "VPCS"}],
        [{"name": "PC1", "template": "VPCS", "properties": {"a": 1}}],
        [{"name": "PC1", "node_type": "toaster"}],
        [{"name": "PC1", "node_type": "vpcs", "colour": "red"}],
        [{"name": f"PC{i}", "node_type": "vpcs"} for i in range(501)],
    ],
)
def test_a_lab_that_is_not_well_formed(nodes: list[dict[str, Any]]) -> None:
    with pytest.raises(Refused, match="nodes"):
        Gns3.actions()["build_topology"].validate({"project": "lab", "nodes": nodes})
