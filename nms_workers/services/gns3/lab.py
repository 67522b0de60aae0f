"""A declared lab: which nodes, which cables. It is brought about step by step, and again from where it stopped."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Annotated, Any, Self

from pydantic import BaseModel, Field, model_validator

from nms_workers.change import Change
from nms_workers.errors import Refused, TargetError
from nms_workers.records import Attributes
from nms_workers.service import TargetSettings
from nms_workers.services.gns3 import nodes as node_changes
from nms_workers.services.gns3 import projects
from nms_workers.services.gns3.client import Gns3Client, find
from nms_workers.services.gns3.links import Cabling
from nms_workers.services.gns3.model import Project
from nms_workers.services.gns3.nodes import START, Kind
from nms_workers.services.gns3.target import NodeName, NodeType, Reference

_COLUMNS, _SPACING = 8, 150  # of the grid that nodes without a place are put on, in pixels

LabEnd = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9-]{0,62}(:[^\x00-\x1f\x7f-\x9f]{1,100})?$")]


class _Declared(BaseModel):
    model_config = TargetSettings.model_config


class LabNode(_Declared):
    """A node of a declared lab.

    Args:
        name: its host name.
        node_type, template: what it is made as; one of them.
        compute: the server it runs on.
        x, y: where it is drawn, in pixels from the middle.
        properties: of the node type, in GNS3's own words.
    """

    name: NodeName
    node_type: NodeType | None = None
    template: Reference | None = None
    compute: Reference = "local"
    x: int | None = None
    y: int | None = None
    properties: dict[str, Any] = Field(default={}, max_length=100)

    @model_validator(mode="after")
    def _made_one_way(self) -> Self:
        if (self.node_type is None) == (self.template is None):
            raise ValueError("give either node_type or template")
        if self.template is not None and self.properties:
            raise ValueError("a node from a template has the template's properties")
        return self


class LabLink(_Declared):
    """A cable of a declared lab: its ends as `NODE` or `NODE:PORT`."""

    a: LabEnd
    b: LabEnd


Nodes = Annotated[tuple[LabNode, ...], Field(min_length=1, max_length=500)]
Links = Annotated[tuple[LabLink, ...], Field(max_length=2000)]


@dataclass(frozen=True)
class Lab:
    """What there shall be: a project with these nodes and links. With `stagger` it shall run too.

    Args:
        stagger: seconds between the starts of two nodes; None: nothing is started.

    Raises:
        Refused: the declaration contradicts itself.
    """

    project: str
    nodes: Sequence[LabNode]
    links: Sequence[LabLink]
    stagger: float | None

    def __post_init__(self) -> None:
        _check(self.nodes, self.links)


def build(client: Gns3Client, lab: Lab) -> Change:
    """Bring the lab about: the project, its nodes, its links, and that it runs. What is there already stays.

    Raises:
        TargetError: a step failed; the message says what was done before it.
    """
    done: list[str] = []
    before: Attributes = {"exists": find(client.get_projects(), lab.project) is not None}
    try:
        for step in _steps(client, lab):
            done.append(step)  # noqa: PERF402 - kept when a step fails
    except TargetError as exc:
        exc.message += f"; {_told(done)} before. Run this again to go on"
        raise
    stats = client.get_project_stats(lab.project)
    after: Attributes = {"nodes": stats.nodes, "links": stats.links, "steps": done}
    message = f"{lab.project}: {_told(done)}" if done else f"{lab.project} already is as declared"
    return Change(changed=bool(done), message=message, before=before, after=after)


def _steps(client: Gns3Client, lab: Lab) -> Iterator[str]:
    project, made = projects.create(client, lab.project)
    if made:
        yield f"project {lab.project} made"
    if project.status != "opened":
        project = projects.set_open(client, project, True)
        yield f"project {lab.project} opened"
    yield from _make_nodes(client, project, lab.nodes)
    yield from _make_links(client, project, lab.links)
    if lab.stagger is not None:
        due = node_changes.due(client, project, [one.name for one in lab.nodes], START)
        for node in node_changes.bring(client, project, due, START, lab.stagger):
            yield f"{node.name} started"


def _make_nodes(client: Gns3Client, project: Project, nodes: Sequence[LabNode]) -> Iterator[str]:
    for i, one in enumerate(nodes):
        row, column = divmod(i, _COLUMNS)
        x = column * _SPACING if one.x is None else one.x
        y = row * _SPACING if one.y is None else one.y
        kind = Kind(one.node_type, one.template, one.compute, x, y, one.properties)
        if node_changes.create(client, project, one.name, kind)[1]:
            yield f"{one.name} made"


def _make_links(client: Gns3Client, project: Project, links: Sequence[LabLink]) -> Iterator[str]:
    if not links:
        return
    cabling = Cabling(client, project)
    unnamed = [(":" not in one.a) + (":" not in one.b) for one in links]
    for _, one in sorted(zip(unnamed, links, strict=True), key=itemgetter(0)):  # who names no port takes what is left
        link, made = cabling.create(one.a, one.b)
        if made:
            yield f"{cabling.describe(link)} linked"


def _check(nodes: Sequence[LabNode], links: Sequence[LabLink]) -> None:
    names = [one.name for one in nodes]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise Refused(f"the lab names a node twice: {', '.join(twice)}")
    unknown = {end.partition(":")[0] for link in links for end in (link.a, link.b)} - set(names)
    if unknown:
        raise Refused(f"the lab links nodes that it does not have: {', '.join(sorted(unknown)[:10])}")
    ends = [frozenset((link.a, link.b)) for link in links]
    if any(ends.count(one) > 1 for one in ends):
        raise Refused("the lab has a link twice", hint="several links between two nodes need ports: NODE:PORT")


def _told(done: Sequence[str]) -> str:
    if not done:
        return "nothing was done"
    return ", ".join(done) if len(done) <= 10 else f"{', '.join(done[:10])} and {len(done) - 10} steps more"
