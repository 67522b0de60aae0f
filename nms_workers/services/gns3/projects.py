"""Changes of projects and their snapshots. Each looks first, and waits until it sees what it asked for."""

from nms_workers.change import about_to_change
from nms_workers.errors import Refused
from nms_workers.services.gns3.client import Gns3Client, find, one_of
from nms_workers.services.gns3.model import Project, Snapshot
from nms_workers.services.gns3.waiting import change


def opened(client: Gns3Client, project: str) -> Project:
    """The project, which has to be open.

    Raises:
        NotThere: it does not exist.
        Refused: it is closed.
    """
    found = client.get_project(project)
    if found.status != "opened":
        raise Refused(f"the project {found.name!r} is {found.status}", hint="open_project first")
    return found


def create(client: Gns3Client, name: str) -> tuple[Project, bool]:
    """The project of this name, and whether it was made now. A new one is open."""
    if existing := find(client.get_projects(), name):
        return existing, False
    about_to_change({"exists": False})
    made = change(
        client,
        ("POST", "/projects", {"name": name}),
        lambda: find(client.get_projects(), name),
        f"the project {name!r} exists",
    )
    return made, True


def set_open(client: Gns3Client, project: Project, wanted: bool) -> Project:
    """Open or close it, if it is not so already."""
    status = "opened" if wanted else "closed"
    if project.status == status:
        return project
    about_to_change({"status": project.status})
    return change(
        client,
        ("POST", f"/projects/{project.project_id}/{'open' if wanted else 'close'}", {}),
        lambda: _as(client, project, status),
        f"the project {project.name!r} is {status}",
    )


def delete(client: Gns3Client, project: Project) -> None:
    """Delete it with all that is in it."""
    about_to_change({"exists": True, "project": project.name, "project_id": str(project.project_id)})
    change(
        client,
        ("DELETE", f"/projects/{project.project_id}", None),
        lambda: None if find(client.get_projects(), str(project.project_id)) else True,
        f"the project {project.name!r} is gone",
    )


def duplicate(client: Gns3Client, project: Project, name: str, fresh_macs: bool) -> tuple[Project, bool]:
    """The copy of this name, and whether it was made now. `fresh_macs` gives its nodes MAC addresses of their own."""
    if existing := find(client.get_projects(), name):
        return existing, False
    about_to_change({"exists": False})
    made = change(
        client,
        ("POST", f"/projects/{project.project_id}/duplicate", {"name": name, "reset_mac_addresses": fresh_macs}),
        lambda: find(client.get_projects(), name),
        f"the project {name!r} exists",
    )
    return made, True


def snapshot(client: Gns3Client, project: Project, name: str) -> tuple[Snapshot, bool]:
    """The snapshot of this name, and whether it was taken now."""
    if existing := find(client.get_snapshots(project.project_id), name):
        return existing, False
    about_to_change({"exists": False})
    made = change(
        client,
        ("POST", f"/projects/{project.project_id}/snapshots", {"name": name}),
        lambda: find(client.get_snapshots(project.project_id), name),
        f"the snapshot {name!r} exists",
    )
    return made, True


def delete_snapshot(client: Gns3Client, project: Project, snapshot: Snapshot) -> None:
    """Forget a snapshot; the project stays as it is."""
    about_to_change({"exists": True, "snapshot": snapshot.name})
    change(
        client,
        ("DELETE", f"/projects/{project.project_id}/snapshots/{snapshot.snapshot_id}", None),
        lambda: None if find(client.get_snapshots(project.project_id), snapshot.name) else True,
        f"the snapshot {snapshot.name!r} is gone",
    )


def restore(client: Gns3Client, project: Project, name: str) -> Snapshot:
    """Put the project back to a snapshot. Version 3 gives all nodes and links new ids."""
    wanted = one_of(client.get_snapshots(project.project_id), name, "snapshot")
    stats = client.get_project_stats(project.project_id)
    about_to_change({"nodes": stats.nodes, "links": stats.links})
    change(
        client,
        ("POST", f"/projects/{project.project_id}/snapshots/{wanted.snapshot_id}/restore", {}),
        lambda: _as(client, project, "opened"),
        f"the project {project.name!r} is open again",
    )
    return wanted


def _as(client: Gns3Client, project: Project, status: str) -> Project | None:
    """The project as it is now, if it has this status."""
    now = client.get_project(str(project.project_id))
    return now if now.status == status else None
