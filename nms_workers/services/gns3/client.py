"""The GNS3 client: reads labs, and sends what changes them. Usable without the fleet.

client = Gns3Client(Gns3Target(url="http://gns3.example.net:3080", username="nms", password="env:GNS3_PASSWORD"))
print([node.name for node in client.get_nodes("campus")])
client.close()
"""

import threading
from collections.abc import Collection, Sequence
from typing import TypeVar
from uuid import UUID

from msgspec.structs import replace

from nms_workers.services.gns3 import model
from nms_workers.services.gns3.session import NotThere, Session
from nms_workers.services.gns3.target import Gns3Target
from nms_workers.transport.http import Response

T = TypeVar("T")
_Named = TypeVar("_Named", model.Project, model.Node, model.Template, model.Snapshot)


class Gns3Client:
    """One GNS3 server, 2.2 or 3. Connects when first used; safe to share between threads.

    Every method raises `Unreachable`, `Timeout`, `AuthError`, `ParseError` or `Refused`; `NotThere`, a `Refused`, when
    what was named does not exist. Projects, nodes, templates and snapshots are named by their name or their id.
    """

    def __init__(self, target: Gns3Target) -> None:
        self.target = target
        self._session = Session(target)
        self._lock = threading.Lock()
        self._states: dict[UUID, dict[UUID, str]] = {}

    def close(self) -> None:
        """Let go of connections; the next use opens new ones."""
        self._session.close()

    def remember_states(self, project: UUID, now: dict[UUID, str]) -> dict[UUID, str]:
        """The states of a project's nodes that were remembered before. Tells what changed between two reads."""
        with self._lock:
            before = self._states.get(project, {})
            self._states[project] = now
            return before

    def forget_states(self, except_of: Collection[UUID]) -> None:
        """Forget the projects that are gone."""
        with self._lock:
            self._states = {project: states for project, states in self._states.items() if project in except_of}

    def get_version(self) -> model.Version:
        """Version of the server and of the API."""
        return self._session.version()

    def get_computes(self) -> list[model.Compute]:
        """The servers that run nodes, the controller's own (`local`) among them, with `connected` known.

        Version 3 lists neither the local one nor who is connected: its statistics name those that are.
        """
        listed = self._read("/computes", list[model.Compute])
        if self.get_version().api == 2:
            return listed
        up = {one.compute_id: one.compute_name for one in self.get_statistics()}
        known = {one.compute_id for one in listed}
        rest = [model.Compute(key, name, connected=True) for key, name in up.items() if key not in known]
        return [*rest, *(replace(one, connected=one.compute_id in up) for one in listed)]

    def get_statistics(self) -> list[model.Statistics]:
        """The load of each compute that is connected. Version 2 refuses as a whole when one of them is away."""
        return self._read("/statistics", list[model.Statistics])

    def get_projects(self) -> list[model.Project]:
        """All projects, open and closed."""
        return self._read("/projects", list[model.Project])

    def get_project(self, project: str) -> model.Project:
        """The project of this name or id."""
        return one_of(self.get_projects(), project, "project")

    def get_project_stats(self, project: str | UUID) -> model.ProjectStats:
        """How much an open project holds."""
        return self._read(f"/projects/{self._project_id(project)}/stats", model.ProjectStats)

    def get_nodes(self, project: str | UUID) -> list[model.Node]:
        """The nodes of a project; without state and ports while it is closed."""
        return self._read(f"/projects/{self._project_id(project)}/nodes", list[model.Node])

    def get_node(self, project: str | UUID, node: str) -> model.Node:
        """The node of this name or id."""
        return one_of(self.get_nodes(project), node, "node")

    def get_node_interfaces(self, project: str | UUID, node: str) -> tuple[model.Port, ...]:
        """The ports of a node of an open project. GNS3 counts no packets."""
        return self.get_node(project, node).ports or ()

    def get_links(self, project: str | UUID) -> list[model.Link]:
        """The cables of a project."""
        return self._read(f"/projects/{self._project_id(project)}/links", list[model.Link])

    def get_templates(self) -> list[model.Template]:
        """What nodes can be made from."""
        return self._read("/templates", list[model.Template])

    def get_template(self, template: str) -> model.Template:
        """The template of this name or id."""
        return one_of(self.get_templates(), template, "template")

    def get_snapshots(self, project: str | UUID) -> list[model.Snapshot]:
        """The snapshots of a project."""
        return self._read(f"/projects/{self._project_id(project)}/snapshots", list[model.Snapshot])

    def send(self, method: str, path: str, body: object = None) -> Response:
        """Change something: one request, sent once.

        Args:
            method: `POST`, `PUT` or `DELETE`.
            path: below the API, with ids only.
            body: sent as JSON unless None.
        """
        return self._session.call(method, path, body)

    def _read(self, path: str, shape: type[T]) -> T:
        return self._session.call("GET", path).json(shape)

    def _project_id(self, project: str | UUID) -> UUID:
        return project if isinstance(project, UUID) else self.get_project(project).project_id


def find(objects: Sequence[_Named], name: str) -> _Named | None:
    """The object of this name, or else of this id."""
    named = next((one for one in objects if one.name == name), None)
    return named or next((one for one in objects if str(_id(one)) == name), None)


def one_of(objects: Sequence[_Named], name: str, kind: str) -> _Named:
    """The same, when it has to be there.

    Raises:
        NotThere: it is not; the hint lists some that are.
    """
    found = find(objects, name)
    if found is None:
        some = ", ".join(one.name for one in objects[:10])
        raise NotThere(f"there is no {kind} {name!r}", hint=f"there are: {some}" if some else f"there is no {kind} yet")
    return found


def _id(one: model.Project | model.Node | model.Template | model.Snapshot) -> UUID:
    match one:
        case model.Project():
            return one.project_id
        case model.Node():
            return one.node_id
        case model.Template():
            return one.template_id
        case model.Snapshot():
            return one.snapshot_id
