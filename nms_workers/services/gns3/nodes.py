"""Changes of nodes: making, removing, and bringing one or many into another state."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from nms_workers.change import about_to_ask, about_to_change
from nms_workers.errors import Refused, TargetError, Timeout
from nms_workers.services.gns3.client import Gns3Client, find, one_of
from nms_workers.services.gns3.model import Node, Project, Template
from nms_workers.services.gns3.waiting import change, wait
from nms_workers.transport.deadline import remaining

# https://docs.gns3.com/docs/using-gns3/design/: these have no power switch, and these can be frozen
_ALWAYS_ON = frozenset({"atm_switch", "cloud", "ethernet_hub", "ethernet_switch", "frame_relay_switch", "nat"})
_CAN_SUSPEND = frozenset({"docker", "dynamips", "qemu", "virtualbox", "vmware"})


@dataclass(frozen=True)
class Kind:
    """What a node is made as: a type with its properties, or a template. Where it stands, and on which compute."""

    node_type: str | None
    template: str | None
    compute: str
    x: int
    y: int
    properties: dict[str, Any]

    def __post_init__(self) -> None:
        if (self.node_type is None) == (self.template is None):
            raise Refused("a node is made either from node_type or from template", hint="give exactly one of them")
        if self.template is not None and self.properties:
            raise Refused("a node from a template has the template's properties", hint="leave properties out")


@dataclass(frozen=True)
class Command:
    """A change of state: `POST .../<verb>`, from which states, to which one."""

    verb: str
    past: str
    starts_from: frozenset[str]
    to: str


START = Command("start", "started", frozenset({"stopped", "suspended"}), "started")
STOP = Command("stop", "stopped", frozenset({"started", "suspended"}), "stopped")
SUSPEND = Command("suspend", "suspended", frozenset({"started"}), "suspended")
RELOAD = Command("reload", "reloaded", frozenset({"started"}), "started")
_WAYS = {"started": (START,), "stopped": (STOP,), "suspended": (START, SUSPEND)}


def create(client: Gns3Client, project: Project, name: str, kind: Kind) -> tuple[Node, bool]:
    """The node of this name, and whether it was made now.

    Raises:
        Refused: the name is taken by a node of another kind, or the server gives it another name.
    """
    template = client.get_template(kind.template) if kind.template is not None else None
    before = client.get_nodes(project.project_id)
    path, body = _request(project, name, kind, template)
    if existing := find(before, name):
        _check_same(existing, kind, template)
        return existing, False
    about_to_change({"exists": False})
    try:
        if not about_to_ask(f"POST {path}: {name}"):
            return wait(lambda: find(client.get_nodes(project.project_id), name), f"the node {name} exists"), True
        made = client.send("POST", path, body).json(Node)
    except Timeout:
        made = _late(client, project, name, template, {one.node_id for one in before})
    return (made if made.name == name else _renamed(client, project, made, name)), True


def _late(client: Gns3Client, project: Project, name: str, template: Template | None, before: set[UUID]) -> Node:
    """The node whose making was not answered in time. Version 3 calls one from a template as the template says."""

    def appeared() -> Node | None:
        new = [one for one in client.get_nodes(project.project_id) if one.node_id not in before]
        of_template = (one for one in new if template is not None and one.template_id == template.template_id)
        return find(new, name) or next(of_template, None)

    return wait(appeared, f"the node {name} exists")


def _request(project: Project, name: str, kind: Kind, template: Template | None) -> tuple[str, dict[str, object]]:
    place: dict[str, object] = {"name": name, "compute_id": kind.compute, "x": kind.x, "y": kind.y}
    if template is not None:
        return f"/projects/{project.project_id}/templates/{template.template_id}", place
    return f"/projects/{project.project_id}/nodes", place | {
        "node_type": kind.node_type,
        "properties": kind.properties,
    }


def _check_same(node: Node, kind: Kind, template: Template | None) -> None:
    wanted = template.template_type if template is not None else kind.node_type
    other_template = template is not None and node.template_id not in (None, template.template_id)
    if node.node_type != wanted or other_template:
        message = f"there is a node {node.name!r} already, a {node.node_type} and not made as asked"
        raise Refused(message, hint="choose another name, or delete_node first")


def _renamed(client: Gns3Client, project: Project, node: Node, name: str) -> Node:
    """The new node with the name it should have; it is removed again where it cannot have it."""
    path = f"/projects/{project.project_id}/nodes/{node.node_id}"
    try:
        named = client.send("PUT", path, {"name": name}).json(Node)
        if named.name == name:
            return named
        refusal = Refused(f"GNS3 gives a {node.node_type} the name {named.name!r} in place of {name!r}")
    except TargetError:
        client.send("DELETE", path)
        raise
    client.send("DELETE", path)
    raise refusal


def delete(client: Gns3Client, project: Project, node: Node) -> None:
    """Remove it, and its links with it."""
    about_to_change({"exists": True, "name": node.name, "node_id": str(node.node_id)})
    change(
        client,
        ("DELETE", f"/projects/{project.project_id}/nodes/{node.node_id}", None),
        lambda: None if find(client.get_nodes(project.project_id), str(node.node_id)) else True,
        f"{node.name} is gone",
    )


def due(client: Gns3Client, project: Project, names: Sequence[str], command: Command) -> list[Node]:
    """The nodes that the command would change.

    Args:
        names: names or ids; none of them means every node of the project that the command fits.

    Raises:
        NotThere: one is not there.
        Refused: the command does not fit one that was named.
    """
    nodes = client.get_nodes(project.project_id)
    if not names:
        return [one for one in nodes if one.status in command.starts_from and not _unfit(one, command)]
    chosen = {one.node_id: one for one in (one_of(nodes, name, "node") for name in names)}.values()
    for one in chosen:
        if one.status != command.to and (why := _unfit(one, command)):
            raise Refused(f"{one.name} cannot {command.verb}: {why}")
        if command is RELOAD and one.status != "started":
            raise Refused(f"{one.name} is {one.status}", hint="start_node starts it")
    return [one for one in chosen if one.status in command.starts_from and not _unfit(one, command)]


def _unfit(node: Node, command: Command) -> str:
    if node.node_type in _ALWAYS_ON:
        return f"a {node.node_type} is always on"
    if command is SUSPEND and node.node_type not in _CAN_SUSPEND:
        return f"a {node.node_type} cannot be frozen"
    return ""


def bring(
    client: Gns3Client, project: Project, nodes: Sequence[Node], command: Command, stagger: float
) -> Iterator[Node]:
    """Change one after the other, `stagger` seconds apart, and yield each when it is there.

    Raises:
        TargetError: one failed; the message says how many were done before.
    """
    for done, node in enumerate(nodes):
        try:
            if done and stagger:
                time.sleep(remaining(stagger))  # so that not all of them boot at once
            yield _brought(client, project, node, command)
        except TargetError as exc:
            if done:
                exc.message += f"; {done} of {len(nodes)} nodes were {command.past} before"
            raise


def put_back(client: Gns3Client, project: Project, wanted: Mapping[str, str]) -> dict[str, str]:
    """Bring each node that is named to its state; a node that is stopped runs for a moment before it is frozen.

    Returns:
        the states they have now, by name.

    Raises:
        NotThere: one is not there any more; those before it were brought back.
    """
    for name, state in wanted.items():
        for command in _WAYS[state]:
            for node in due(client, project, [name], command):
                _brought(client, project, node, command)
    states = {one.name: one.status or "" for one in client.get_nodes(project.project_id)}
    return {name: states[name] for name in wanted}


def _brought(client: Gns3Client, project: Project, node: Node, command: Command) -> Node:
    path = f"/projects/{project.project_id}/nodes/{node.node_id}"

    about_to_change({node.name: node.status})

    def arrived() -> Node | None:
        now = client.get_node(project.project_id, str(node.node_id))
        return now if now.status == command.to else None

    return change(client, ("POST", f"{path}/{command.verb}", {}), arrived, f"{node.name} is {command.to}")
