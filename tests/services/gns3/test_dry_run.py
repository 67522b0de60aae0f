"""A dry run of every action: it tells what is there now, and changes nothing at a real server."""

from typing import Any

from nms_workers.jobs.preview import tried
from nms_workers.services.gns3.client import Gns3Client
from nms_workers.services.gns3.service import Gns3
from tests.services.gns3.support import Plain, act, two_linked

LAB = {"project": "lab"}


def would(client: Gns3Client, name: str, **arguments: Any) -> dict[str, Any]:
    """What is there now, as a dry run tells."""
    declared = Gns3.actions()[name]
    change = tried(declared, lambda: client, declared.validate(arguments))
    assert change is not None, name
    assert change.changed, f"{name}: {change.message}"
    return dict(change.before)


def test_every_action_changes_nothing(client: Gns3Client, plain: Plain) -> None:
    two_linked(client)
    act(client, "create_snapshot", **LAB, snapshot="then")
    made = act(client, "create_node", **LAB, node="PC3", node_type="vpcs").after
    act(client, "create_project", project="closed")
    act(client, "close_project", project="closed")
    ends = {"a": "PC1", "b": "PC2"}
    begun = {  # while nothing runs
        "create_project": ({"project": "new"}, {"exists": False}),
        "open_project": ({"project": "closed"}, {"status": "closed"}),
        "close_project": (LAB, {"status": "opened"}),
        "delete_project": (LAB, {"exists": True}),
        "duplicate_project": ({"source": "closed", "project": "new"}, {"exists": False}),
        "create_node": (LAB | {"node": "PC4", "node_type": "vpcs"}, {"exists": False}),
        "delete_node": (LAB | {"node": "PC1"}, {"exists": True}),
        "start_node": (LAB | {"nodes": ["PC1"]}, {"PC1": "stopped"}),
        "restore_nodes": (LAB | {"before": {"PC1": "started"}}, {"PC1": "stopped"}),
        "create_link": (LAB | {"a": "PC1", "b": "PC3"}, None),  # no port is free: another lab, below
        "delete_link": (LAB | ends, {"linked": True}),
        "create_snapshot": (LAB | {"snapshot": "now"}, {"exists": False}),
        "restore_snapshot": (LAB | {"snapshot": "then"}, {"nodes": 3, "links": 1}),
        "delete_made": (LAB | {"after": made}, {"exists": True}),
        "build_topology": (LAB | {"nodes": [{"name": "PC9", "node_type": "vpcs"}]}, {"exists": False}),
    }
    run = {
        "stop_node": (LAB, {"PC1": "started", "PC2": "started"}),
        "suspend_node": (LAB, None),  # no VPCS can be frozen
        "reload_node": (LAB, {"PC1": "started", "PC2": "started"}),
        "start_capture": (LAB | ends, {"capturing": False}),
        "stop_capture": (LAB | ends, None),  # below, when one is written
    }
    assert begun.keys() | run.keys() == Gns3.actions().keys()
    _each(client, plain, begun)
    act(client, "start_node", **LAB, nodes=["PC1", "PC2"], stagger=0)
    _each(client, plain, run)

    act(client, "start_capture", **LAB, **ends)
    _each(client, plain, {"stop_capture": (LAB | ends, {"capturing": True})})
    act(client, "stop_capture", **LAB, **ends)
    act(client, "delete_link", **LAB, **ends)
    _each(client, plain, {"create_link": (LAB | ends, {"linked": False})})


def _each(client: Gns3Client, plain: Plain, actions: dict[str, tuple[dict[str, Any], dict[str, Any] | None]]) -> None:
    before = _everything(plain)
    for name, (arguments, there) in actions.items():
        if there is not None:
            assert would(client, name, **arguments).items() >= there.items(), name
            assert _everything(plain) == before, name


def _everything(plain: Plain) -> dict[str, Any]:
    projects = {one["name"]: one["status"] for one in plain.ask("GET", "/projects")}
    links = [(one["link_id"], one["capturing"]) for one in plain.of("lab", "links")]
    snapshots = [one["name"] for one in plain.of("lab", "snapshots")]
    return {"projects": projects, "nodes": plain.states("lab"), "links": links, "snapshots": snapshots}
