"""What actions on a real server declare as their undo takes back what they did, and nothing else."""

from typing import Any

import pytest

from nms_workers.change import Change, kept_by
from nms_workers.errors import Refused
from nms_workers.services.gns3.client import Gns3Client
from nms_workers.services.gns3.service import Gns3
from tests.services.gns3.support import Plain, act, two_linked


def take_back(client: Gns3Client, action: str, change: Change, **arguments: Any) -> Change:
    """The undo of an action as the fleet calls it: with those of its arguments it takes, `before` and `after`."""
    undo = Gns3.actions()[action].undo
    assert undo is not None
    takes = Gns3.actions()[undo].arguments.model_fields
    known = arguments | {"before": change.before, "after": change.after}
    return act(client, undo, **{name: value for name, value in known.items() if name in takes})


MADE = [
    ("create_node", {"node": "PC3", "node_type": "vpcs"}, "nodes"),
    ("create_link", {"a": "PC1", "b": "PC3"}, "links"),
    ("create_snapshot", {"snapshot": "then"}, "snapshots"),
]


@pytest.mark.parametrize(("action", "how", "what"), MADE, ids=[action for action, _, _ in MADE])
def test_what_was_made_in_a_project_is_deleted(
    client: Gns3Client, plain: Plain, action: str, how: dict[str, Any], what: str
) -> None:
    two_linked(client)
    if action == "create_link":
        act(client, "delete_link", project="lab", a="PC1", b="PC2")
        act(client, "create_node", project="lab", node="PC3", node_type="vpcs")
    before = plain.of("lab", what)
    arguments = {"project": "lab"} | how
    change = act(client, action, **arguments)
    assert len(plain.of("lab", what)) == len(before) + 1
    assert take_back(client, action, change, **arguments).changed
    assert plain.of("lab", what) == before
    assert not take_back(client, action, change, **arguments).changed


@pytest.mark.parametrize("action", ["create_project", "duplicate_project"])
def test_a_project_that_was_made_is_deleted_and_another_one_of_its_name_is_not(
    client: Gns3Client, plain: Plain, action: str
) -> None:
    act(client, "create_project", project="origin")
    arguments = {"project": "lab"} | ({"source": "origin"} if action == "duplicate_project" else {})
    first = act(client, action, **arguments)
    act(client, "delete_project", project="lab")
    second = act(client, action, **arguments)
    assert not take_back(client, action, first, **arguments).changed
    assert plain.project("lab")["project_id"] == second.after["project_id"]
    assert take_back(client, action, second, **arguments).changed
    assert [one["name"] for one in plain.ask("GET", "/projects")] == ["origin"]


def test_nodes_are_put_back_each_to_its_own_state(client: Gns3Client, plain: Plain) -> None:
    two_linked(client)
    act(client, "start_node", project="lab", nodes=["PC1"])

    started = act(client, "start_node", project="lab", stagger=0)
    assert started.before == {"PC2": "stopped"}
    undone = take_back(client, "start_node", started, project="lab")
    assert (undone.changed, undone.after) == (True, {"PC2": "stopped"})
    assert plain.states("lab") == {"PC1": "started", "PC2": "stopped"}, "PC1 ran before"
    assert not take_back(client, "start_node", started, project="lab").changed

    stopped = act(client, "stop_node", project="lab")
    assert take_back(client, "stop_node", stopped, project="lab").after == {"PC1": "started"}
    assert plain.states("lab") == {"PC1": "started", "PC2": "stopped"}


def test_what_was_there_is_kept_before_the_first_node_starts(client: Gns3Client, plain: Plain) -> None:
    """An attempt that dies in the middle leaves behind what a later one cannot see any more."""
    two_linked(client)
    kept: list[tuple[dict[str, Any], dict[str, str]]] = []
    with kept_by(lambda before: kept.append((before, plain.states("lab")))):
        act(client, "start_node", project="lab", stagger=0)
    both = {"PC1": "stopped", "PC2": "stopped"}
    assert kept[0] == (both, both), "all of them, before the first is touched; what comes later is not kept by a job"


def test_a_node_that_is_gone_cannot_be_put_back(client: Gns3Client, plain: Plain) -> None:
    two_linked(client)
    started = act(client, "start_node", project="lab", stagger=0)
    act(client, "delete_node", project="lab", node="PC2")
    with pytest.raises(Refused, match="no node 'PC2'"):
        take_back(client, "start_node", started, project="lab")
    assert plain.states("lab") == {"PC1": "stopped"}
