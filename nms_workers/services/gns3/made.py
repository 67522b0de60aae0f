"""What a create action made, found again by what it told of it: never another one of the same name."""

from collections.abc import Sequence
from typing import TypeVar
from uuid import UUID

from pydantic import BaseModel, ConfigDict

from nms_workers.services.gns3 import nodes, projects
from nms_workers.services.gns3.client import Gns3Client
from nms_workers.services.gns3.links import Cabling
from nms_workers.services.gns3.model import Link, Node, Project, Snapshot

T = TypeVar("T", Project, Node, Link, Snapshot)


class Made(BaseModel):
    """What the create actions tell as `after`, as far as it names what was made."""

    model_config = ConfigDict(frozen=True)

    project_id: UUID
    node_id: UUID | None = None
    link_id: UUID | None = None
    snapshot: str | None = None
    created_at: int | None = None


def delete(client: Gns3Client, made: Made) -> str:
    """Delete it.

    Returns:
        what was deleted, for people; empty: it is not there any more.

    Raises:
        Refused: its project is closed.
    """
    project = _only([one for one in client.get_projects() if one.project_id == made.project_id])
    if project is None:
        return ""
    if made.node_id is None and made.link_id is None and made.snapshot is None:
        projects.delete(client, project)
        return f"project {project.name}"
    project = projects.opened(client, str(project.project_id))
    if made.node_id is not None:
        return _delete_node(client, project, made.node_id)
    if made.link_id is not None:
        return _delete_link(client, project, made.link_id)
    return _delete_snapshot(client, project, made)


def _delete_node(client: Gns3Client, project: Project, node_id: UUID) -> str:
    node = _only([one for one in client.get_nodes(project.project_id) if one.node_id == node_id])
    if node is None:
        return ""
    nodes.delete(client, project, node)
    return f"node {node.name}"


def _delete_link(client: Gns3Client, project: Project, link_id: UUID) -> str:
    link = _only([one for one in client.get_links(project.project_id) if one.link_id == link_id])
    if link is None:
        return ""
    cabling = Cabling(client, project)
    what = cabling.describe(link)
    cabling.delete(link)
    return f"link {what}"


def _delete_snapshot(client: Gns3Client, project: Project, made: Made) -> str:
    """By its name and time of birth: version 3 gives snapshots new ids at each opening of their project."""
    its = (made.snapshot, made.created_at)
    snapshot = _only([one for one in client.get_snapshots(project.project_id) if (one.name, one.created_at) == its])
    if snapshot is None:
        return ""
    projects.delete_snapshot(client, project, snapshot)
    return f"snapshot {snapshot.name}"


def _only(found: Sequence[T]) -> T | None:
    return found[0] if found else None
