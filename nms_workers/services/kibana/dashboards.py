"""Dashboards and visualizations in the words of Kibana: as saved objects, and as the API of 9.4 takes dashboards.

Sources: https://www.elastic.co/docs/api/doc/kibana/group/endpoint-dashboards and
https://www.elastic.co/docs/api/doc/kibana/operation/operation-post-saved-objects-import
"""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import msgspec
from pydantic import BaseModel, ConfigDict

from nms_workers.errors import Refused
from nms_workers.services.kibana import objects
from nms_workers.services.kibana.client import KibanaClient, NotThere
from nms_workers.services.kibana.model import Reference, SavedObject
from nms_workers.services.kibana.objects import Line
from nms_workers.services.kibana.target import Moment, Span, Text, Title

Kind = Literal["lens", "visualization"]

_COLUMNS = 48  # of a dashboard's grid
_NO_SEARCH = '{"query":{"query":"","language":"kuery"},"filter":[]}'
_PANEL_VERSION = "8.0.0"  # without one, Kibana takes a panel for one of before 6.1


class Panel(BaseModel):
    """A visualization on a dashboard, by its title or id, and how many columns (of 48) and rows it takes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    visualization: Title
    width: Span = 24
    height: Span = 15


class Plan(NamedTuple):
    """A dashboard that is wanted."""

    title: Title
    description: Text
    panels: Sequence[Panel]
    time_from: Moment
    time_to: Moment


class Placed(NamedTuple):
    """A visualization and its place in the grid."""

    kind: str
    id: str
    x: int
    y: int
    w: int
    h: int


def placed(client: KibanaClient, panels: Sequence[Panel]) -> list[Placed]:
    """The visualizations of the panels, side by side as far as they fit, then in the next row.

    Raises:
        NotThere: there is no such visualization.
    """
    found: list[Placed] = []
    x = y = row = 0
    for panel in panels:
        if x + panel.width > _COLUMNS:
            x, y, row = 0, y + row, 0
        one = _visualization(client, panel.visualization)
        found.append(Placed(one.type, one.id, x, y, panel.width, panel.height))
        x, row = x + panel.width, max(row, panel.height)
    return found


def fits_dashboards_api(panels: Sequence[Placed]) -> bool:
    """Whether the API of 9.4 can show them: it knows Lens, and not the older visualizations."""
    return all(panel.kind == "lens" for panel in panels)


def as_state(plan: Plan, panels: Sequence[Placed]) -> dict[str, Any]:
    """The whole state of a dashboard, as `PUT /api/dashboards/{id}` takes it."""
    return {
        "title": plan.title,
        "description": plan.description,
        "panels": [
            {"type": "vis", "grid": {"x": p.x, "y": p.y, "w": p.w, "h": p.h}, "config": {"ref_id": p.id}}
            for p in panels
        ],
        "time_range": {"from": plan.time_from, "to": plan.time_to},
        "refresh_interval": {"pause": True, "value": 60_000},
        "query": {"expression": "", "language": "kql"},
        "options": {},
    }


def as_saved_object(id: str, plan: Plan, panels: Sequence[Placed]) -> Line:
    """A dashboard as a saved object; each panel refers to its visualization by a name of its own."""
    shown = [
        {
            "version": _PANEL_VERSION,
            "gridData": {"x": p.x, "y": p.y, "w": p.w, "h": p.h, "i": str(number)},
            "panelIndex": str(number),
            "embeddableConfig": {},
            "panelRefName": f"panel_{number}",
        }
        for number, p in enumerate(panels)
    ]
    attributes = {
        "title": plan.title,
        "description": plan.description,
        "timeRestore": True,
        "timeFrom": plan.time_from,
        "timeTo": plan.time_to,
        "panelsJSON": _json(shown),
        "optionsJSON": _json({"useMargins": True, "hidePanelTitles": False}),
        "kibanaSavedObjectMeta": {"searchSourceJSON": _NO_SEARCH},
        "version": 1,
    }
    references = [Reference(p.kind, p.id, f"{number}:panel_{number}") for number, p in enumerate(panels)]
    return objects.line("dashboard", id, attributes, references)


def as_visualization(
    id: str, title: str, kind: Kind, attributes: dict[str, Any], references: Sequence[Reference]
) -> Line:
    """A visualization as a saved object.

    Raises:
        Refused: the attributes lack what this kind is made of.
    """
    needed = ("visualizationType", "state") if kind == "lens" else ("visState",)
    if missing := [name for name in needed if not attributes.get(name)]:
        raise Refused(f"a {kind} has no {' and no '.join(missing)}", hint="take the attributes of an exported one")
    if kind == "lens":
        return objects.line(kind, id, attributes | {"title": title}, references)
    state = attributes["visState"]
    whole = {
        "uiStateJSON": "{}",
        "version": 1,
        "kibanaSavedObjectMeta": {"searchSourceJSON": _NO_SEARCH},
        **attributes,
        "title": title,
        "visState": state if isinstance(state, str) else _json(state),
    }
    return objects.line(kind, id, whole, references)


def _visualization(client: KibanaClient, name: str) -> SavedObject:
    ways = (objects.by_id, objects.by_title)
    found = (way(client, kind, name) for way in ways for kind in ("lens", "visualization"))
    one = next((one for one in found if one is not None), None)
    if one is None:
        hint = "create_visualization first, or look for its title in Kibana's visualize library"
        raise NotThere(f"there is no visualization {name!r} in the space {client.target.space}", hint=hint)
    return one


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()
