"""GNS3: what is polled, and the actions."""

from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import Field

from nms_workers.change import Change, about_to_change
from nms_workers.errors import Refused
from nms_workers.records import Event, Record
from nms_workers.service import Service, action, poll
from nms_workers.services.gns3 import lab, made, nodes, projects, readings
from nms_workers.services.gns3.client import Gns3Client, find
from nms_workers.services.gns3.links import Cabling
from nms_workers.services.gns3.made import Made
from nms_workers.services.gns3.model import Node, Project
from nms_workers.services.gns3.nodes import RELOAD, START, STOP, SUSPEND, Command, Kind
from nms_workers.services.gns3.session import NotThere
from nms_workers.services.gns3.target import (
    End,
    FileName,
    Gns3Target,
    Name,
    NodeName,
    NodeType,
    Reference,
    Stagger,
)

Nodes = Annotated[tuple[Reference, ...], Field(max_length=1000)]
Place = Annotated[int, Field(ge=-100_000, le=100_000)]
Properties = Annotated[dict[str, Any], Field(max_length=100)]
DataLink = Literal["DLT_EN10MB", "DLT_ATM_RFC1483", "DLT_FRELAY", "DLT_C_HDLC", "DLT_PPP_SERIAL"]


class Gns3(Service):
    """Network labs: reads GNS3 servers, 2.2 and 3, and builds, starts and stops what is in them.

    A project, node, template or snapshot is named by its name or its id. An end of a link is `NODE` or `NODE:PORT`,
    the port by its name or as `0/1` (adapter/port).
    """

    kind = "gns3"
    Target = Gns3Target
    client = Gns3Client
    port = 3080

    @poll(every="30s", enumerates=("compute", "compute_down"))
    def computes(self, client: Gns3Client) -> Iterator[Record]:
        """The server's version, and the computes that run nodes: which are connected."""
        yield from readings.of_server(client.get_version())
        for compute in client.get_computes():
            yield from readings.of_compute(compute)

    @poll(every="30s")
    def statistics(self, client: Gns3Client) -> Iterator[Record]:
        """CPU, memory, swap, disk and load of each compute."""
        try:
            loads = client.get_statistics()
        except Refused:  # version 2 refuses as a whole when a compute is away; the list has the last of the others
            for compute in client.get_computes():
                yield from readings.of_usage(compute)
            raise
        for load in loads:
            yield from readings.of_load(load)

    @poll(every="60s", enumerates=("project",))
    def projects(self, client: Gns3Client) -> Iterator[Record]:
        """Projects, open and closed, and how much the open ones hold."""
        all_ = client.get_projects()
        yield from readings.of_projects(all_)
        for project in _at_most(client, all_):
            if project.status == "opened":
                yield from _if_there(_stats, client, project)

    @poll(every="30s", enumerates=("node",))
    def nodes(self, client: Gns3Client) -> Iterator[Record]:
        """Nodes and their states; a change of state since the last read is an event."""
        all_ = client.get_projects()
        client.forget_states(except_of={project.project_id for project in all_})
        for project in _at_most(client, all_):
            yield from _if_there(_nodes, client, project)

    @poll(every="60s", enumerates=("node_port", "wired"))
    def links(self, client: Gns3Client) -> Iterator[Record]:
        """Cables between the ports of nodes: the topology."""
        for project in _at_most(client, client.get_projects()):
            yield from _if_there(_links, client, project)

    @poll(every="10m", enumerates=("template",))
    def templates(self, client: Gns3Client) -> Iterator[Record]:
        """What nodes can be made from."""
        yield from readings.of_templates(client.get_templates())

    @action(looks_first=True, serialize_by="project", deadline="120s", undo="delete_made")
    def create_project(self, client: Gns3Client, project: Name) -> Change:
        """Make a project; it is open then."""
        found, new = projects.create(client, project)
        message = f"project {project} made" if new else f"there is a project {project} already"
        return Change(changed=new, message=message, before={"exists": not new}, after=_project(found))

    @action(looks_first=True, serialize_by="project", deadline="600s", undo="close_project")
    def open_project(self, client: Gns3Client, project: Reference) -> Change:
        """Open a project, which may start its nodes."""
        return _set_open(client, project, True)

    @action(looks_first=True, serialize_by="project", deadline="600s")
    def close_project(self, client: Gns3Client, project: Reference) -> Change:
        """Close a project, which ends its nodes."""
        return _set_open(client, project, False)

    @action(looks_first=True, serialize_by="project", deadline="600s", confirm=True)
    def delete_project(self, client: Gns3Client, project: Reference) -> Change:
        """Delete a project with its nodes, disks and snapshots."""
        found = find(client.get_projects(), project)
        if found is None:
            return Change(changed=False, message=f"there is no project {project}", before={"exists": False})
        projects.delete(client, found)
        before = _project(found) | {"exists": True}
        return Change(changed=True, message=f"project {found.name} deleted", before=before, after={"exists": False})

    @action(looks_first=True, deadline="1800s", undo="delete_made")  # of two projects: it waits for the changes of both
    def duplicate_project(
        self, client: Gns3Client, source: Reference, project: Name, fresh_macs: bool = False
    ) -> Change:
        """Copy the project `source` as `project`, whose nodes may get MAC addresses of their own."""
        origin = client.get_project(source)
        copy, new = projects.duplicate(client, origin, project, fresh_macs)
        message = f"{origin.name} copied to {project}" if new else f"there is a project {project} already"
        return Change(changed=new, message=message, before={"exists": not new}, after=_project(copy))

    @action(looks_first=True, serialize_by="project", deadline="120s", undo="delete_made")
    def create_node(  # noqa: PLR0913, PLR0917 - the arguments of the job
        self,
        client: Gns3Client,
        project: Reference,
        node: NodeName,
        node_type: NodeType | None = None,
        template: Reference | None = None,
        compute: Reference = "local",
        x: Place = 0,
        y: Place = 0,
        properties: Properties | None = None,
    ) -> Change:
        """Make a node of a type or from a template."""
        kind = Kind(node_type, template, compute, x, y, properties or {})
        where = projects.opened(client, project)
        found, new = nodes.create(client, where, node, kind)
        message = f"{node} made" if new else f"there is a {found.node_type} {node} already"
        after = readings.about_node(found) | {"project_id": str(where.project_id)}
        return Change(changed=new, message=message, before={"exists": not new}, after=after)

    @action(looks_first=True, serialize_by="project", deadline="120s", confirm=True)
    def delete_node(self, client: Gns3Client, project: Reference, node: Reference) -> Change:
        """Delete a node with its disks and its links."""
        where = projects.opened(client, project)
        found = find(client.get_nodes(where.project_id), node)
        if found is None:
            return Change(changed=False, message=f"there is no node {node}", before={"exists": False})
        nodes.delete(client, where, found)
        before = readings.about_node(found) | {"exists": True}
        return Change(changed=True, message=f"{found.name} deleted", before=before, after={"exists": False})

    @action(looks_first=True, serialize_by="project", deadline="1800s", undo="restore_nodes")
    def start_node(self, client: Gns3Client, project: Reference, nodes: Nodes = (), stagger: Stagger = 1.0) -> Change:
        """Start nodes, or resume suspended ones, `stagger` seconds apart; without names all of the project."""
        return _command(client, project, nodes, START, stagger)

    @action(looks_first=True, serialize_by="project", deadline="1800s", undo="restore_nodes")
    def stop_node(self, client: Gns3Client, project: Reference, nodes: Nodes = (), stagger: Stagger = 0.0) -> Change:
        """Stop nodes, `stagger` seconds apart; without names all of the project."""
        return _command(client, project, nodes, STOP, stagger)

    @action(looks_first=True, serialize_by="project", deadline="1800s", undo="restore_nodes")
    def suspend_node(
        self,
        client: Gns3Client,
        project: Reference,
        nodes: Nodes = (),
        stagger: Stagger = 0.0,
    ) -> Change:
        """Freeze nodes of the types that can be; without names all of the project."""
        return _command(client, project, nodes, SUSPEND, stagger)

    @action(
        looks_first=True, serialize_by="project", deadline="1800s", idempotent=False
    )  # a second reload is a second reload
    def reload_node(self, client: Gns3Client, project: Reference, nodes: Nodes = (), stagger: Stagger = 1.0) -> Change:
        """Stop and start running nodes, `stagger` seconds apart; without names all of the project."""
        return _command(client, project, nodes, RELOAD, stagger)

    @action(looks_first=True, serialize_by="project", deadline="1800s")
    def restore_nodes(
        self, client: Gns3Client, project: Reference, before: dict[str, Literal["started", "stopped", "suspended"]]
    ) -> Change:
        """Bring nodes back to the states they had before `start_node`, `stop_node` or `suspend_node`."""
        where = projects.opened(client, project)
        now = {one.name: one.status for one in client.get_nodes(where.project_id)}
        differ = {name: now.get(name, "deleted") for name, state in before.items() if now.get(name) != state}
        if not differ:
            return Change(changed=False, message="the nodes are as they were", before=before, after=before)
        about_to_change(differ)
        after = nodes.put_back(client, where, {name: before[name] for name in differ})
        message = f"{len(after)} nodes of {where.name} are as they were"
        return Change(changed=True, message=message, before=differ, after=after)

    @action(looks_first=True, serialize_by="project", deadline="120s", undo="delete_made")
    def create_link(self, client: Gns3Client, project: Reference, a: End, b: End) -> Change:
        """Connect two nodes, at the first free ports where none are named."""
        where = projects.opened(client, project)
        cabling = Cabling(client, where)
        link, new = cabling.create(a, b)
        what = cabling.describe(link)
        message = f"{what} linked" if new else f"{what} is linked already"
        ids = {"project_id": str(where.project_id), "link_id": str(link.link_id)}
        after = {"linked": True, "link": what} | ids
        return Change(changed=new, message=message, before={"linked": not new}, after=after)

    @action(looks_first=True, serialize_by="project", deadline="120s", confirm=True)
    def delete_link(self, client: Gns3Client, project: Reference, a: End, b: End) -> Change:
        """Pull the cable between two nodes out."""
        cabling = Cabling(client, projects.opened(client, project))
        if not cabling.exists(a, b):
            return Change(changed=False, message=f"{a} and {b} are not linked", before={"linked": False})
        link = cabling.link(a, b)
        what = cabling.describe(link)
        cabling.delete(link)
        before = {"linked": True, "link": what}
        return Change(changed=True, message=f"{what} unlinked", before=before, after={"linked": False})

    @action(looks_first=True, serialize_by="project", deadline="120s", undo="stop_capture")
    def start_capture(  # noqa: PLR0913, PLR0917 - the arguments of the job
        self,
        client: Gns3Client,
        project: Reference,
        a: End,
        b: End,
        file: FileName | None = None,
        data_link_type: DataLink = "DLT_EN10MB",
    ) -> Change:
        """Write the packets of the link between two nodes to a file in the project."""
        cabling = Cabling(client, projects.opened(client, project))
        link = cabling.link(a, b)
        before = {"capturing": bool(link.capturing), "file": link.capture_file_name}
        if link.capturing:
            message = f"{cabling.describe(link)} is captured already"
            return Change(changed=False, message=message, before=before, after=before)
        now = cabling.capture(link, file or "", data_link_type)
        message = f"{cabling.describe(link)} is captured to {now.capture_file_name}"
        after = {"capturing": True, "file": now.capture_file_name}
        return Change(changed=True, message=message, before=before, after=after)

    @action(looks_first=True, serialize_by="project", deadline="120s")
    def stop_capture(self, client: Gns3Client, project: Reference, a: End, b: End) -> Change:
        """End the capture of a link; the file stays."""
        cabling = Cabling(client, projects.opened(client, project))
        link = cabling.link(a, b)
        before = {"capturing": bool(link.capturing), "file": link.capture_file_name}
        if not link.capturing:
            message = f"{cabling.describe(link)} is not captured"
            return Change(changed=False, message=message, before=before, after=before)
        cabling.end_capture(link)
        message = f"{cabling.describe(link)} is captured no more"
        return Change(changed=True, message=message, before=before, after={"capturing": False})

    @action(looks_first=True, serialize_by="project", deadline="1800s", undo="delete_made")
    def create_snapshot(self, client: Gns3Client, project: Reference, snapshot: Name) -> Change:
        """Keep the state of a project whose nodes are stopped."""
        where = projects.opened(client, project)
        kept, new = projects.snapshot(client, where, snapshot)
        message = f"snapshot {snapshot} taken" if new else f"there is a snapshot {snapshot} already"
        ids = {"project_id": str(where.project_id), "snapshot": kept.name, "created_at": kept.created_at}
        after = {"exists": True} | ids
        return Change(changed=new, message=message, before={"exists": not new}, after=after)

    @action(
        looks_first=True, serialize_by="project", deadline="1800s", confirm=True, idempotent=False
    )  # what was changed since is lost
    def restore_snapshot(self, client: Gns3Client, project: Reference, snapshot: Reference) -> Change:
        """Put a project back to a snapshot: what was changed since is lost."""
        where = projects.opened(client, project)
        before = client.get_project_stats(where.project_id)
        restored = projects.restore(client, where, snapshot)
        after = client.get_project_stats(where.project_id)
        return Change(
            changed=True,
            message=f"{where.name} is back at {restored.name}",
            before={"nodes": before.nodes, "links": before.links},
            after={"nodes": after.nodes, "links": after.links},
        )

    @action(looks_first=True, serialize_by="project", deadline="600s", confirm=True)
    def delete_made(self, client: Gns3Client, project: Reference, after: Made) -> Change:
        """Delete what a create action made, by what that told as `after`: not another one of the same name."""
        what = made.delete(client, after)
        if not what:
            message = f"what was made in {project} is not there any more"
            return Change(changed=False, message=message, before={"exists": False}, after={"exists": False})
        return Change(changed=True, message=f"{what} deleted", before={"exists": True}, after={"exists": False})

    @action(looks_first=True, serialize_by="project", deadline="3600s")
    def build_topology(  # noqa: PLR0913, PLR0917 - the arguments of the job
        self,
        client: Gns3Client,
        project: Name,
        nodes: lab.Nodes,
        links: lab.Links = (),
        start: bool = False,
        stagger: Stagger = 1.0,
    ) -> Change:
        """Bring a declared lab about: project, nodes, links, running. Run again, it goes on where it stopped."""
        return lab.build(client, lab.Lab(project, nodes, links, stagger if start else None))


def _at_most(client: Gns3Client, all_: list[Project]) -> Iterator[Project]:
    """The projects, up to the limit.

    Raises:
        Refused: there are more, when those up to the limit were taken; so nothing beyond it counts as gone.
    """
    limit = client.target.max_projects
    yield from all_[:limit]
    if len(all_) > limit:
        raise Refused(f"{len(all_)} projects are more than max_projects ({limit})", hint="raise max_projects")


def _if_there(
    read: Callable[[Gns3Client, Project], Iterator[Record]], client: Gns3Client, project: Project
) -> Iterator[Record]:
    """Records of a project, none when it was deleted meanwhile."""
    try:
        yield from read(client, project)
    except NotThere:
        return


def _stats(client: Gns3Client, project: Project) -> Iterator[Record]:
    yield from readings.of_stats(project, client.get_project_stats(project.project_id))


def _nodes(client: Gns3Client, project: Project) -> Iterator[Record]:
    found = client.get_nodes(project.project_id)
    yield from readings.of_nodes(project, found)
    now: dict[UUID, str] = {one.node_id: one.status for one in found if one.status is not None}
    before = client.remember_states(project.project_id, now)
    for node in found:
        was, state = before.get(node.node_id), now.get(node.node_id)
        if was is not None and state is not None and was != state:
            yield _changed(project, node, was, state)


def _changed(project: Project, node: Node, was: str, now: str) -> Event:
    return Event(
        "node_state",
        f"{node.name} in {project.name} went from {was} to {now}",
        severity="warning" if was == "started" else "info",
        fingerprint=f"node_state:{node.node_id}",
        attributes={"project": project.name, "node": node.name, "from": was, "to": now},
    )


def _links(client: Gns3Client, project: Project) -> Iterator[Record]:
    names = {one.node_id: one for one in client.get_nodes(project.project_id)}
    yield from readings.of_links(project, names, client.get_links(project.project_id))


def _project(project: Project) -> dict[str, Any]:
    return {"project": project.name, "project_id": str(project.project_id), "status": project.status}


def _set_open(client: Gns3Client, name: str, wanted: bool) -> Change:
    project = client.get_project(name)
    now = projects.set_open(client, project, wanted)
    changed = now.status != project.status
    message = f"{now.name} is {now.status}" + ("" if changed else " already")
    return Change(changed=changed, message=message, before=_project(project), after=_project(now))


def _command(client: Gns3Client, name: str, names: Sequence[str], command: Command, stagger: float) -> Change:
    project = projects.opened(client, name)
    due = nodes.due(client, project, names, command)
    if not due:
        what = ", ".join(names[:10]) if names else "no node of the project"
        message = f"nothing to {command.verb}: {what}" + (f" already {command.to}" if names else " needs it")
        return Change(changed=False, message=message)
    before = {one.name: one.status for one in due}
    about_to_change(before)
    after = {one.name: one.status for one in nodes.bring(client, project, due, command, stagger)}
    message = f"{len(after)} nodes of {project.name} {command.past}"
    return Change(changed=True, message=message, before=before, after=after)
