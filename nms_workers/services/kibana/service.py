"""Kibana: what is polled, and the actions that make dashboards and what they show."""

from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from nms_workers.change import Change
from nms_workers.errors import Refused
from nms_workers.records import Record
from nms_workers.service import Service, action, poll
from nms_workers.services.kibana import dashboards, objects, readings
from nms_workers.services.kibana.client import KibanaClient
from nms_workers.services.kibana.dashboards import Kind, Panel, Plan
from nms_workers.services.kibana.model import Reference, SavedObject
from nms_workers.services.kibana.target import Id, KibanaTarget, Moment, ObjectType, Text, Title

Panels = Annotated[tuple[Panel, ...], Field(max_length=100)]
Content = Annotated[str, StringConstraints(min_length=1, max_length=objects.MAX_BYTES)]
Pattern = Annotated[str, Field(pattern=r"^[^\s\x00-\x1f\x7f-\x9f/?\"<>|#]{1,1000}$")]  # of index names
FieldName = Annotated[str, Field(pattern=r"^[^\s\x00-\x1f\x7f-\x9f]{1,255}$")]


class SavedReference(BaseModel):
    """What a visualization refers to, most often its data view: `index-pattern`, an id, and a name for it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    type: ObjectType
    id: Id
    name: FieldName


class Kibana(Service):
    """Dashboards over Elasticsearch: how Kibana, its plugins, tasks and alerting rules are, and what it holds.

    Objects, data views and rules are those of one space (`space`); name another target for another space. An object
    that is made without an id gets one that follows from its space and title, so the same wish twice is one object.
    """

    kind = "kibana"
    Target = KibanaTarget
    client = KibanaClient
    port = 5601

    @poll(every="30s", enumerates=("instance", "service_unavailable"))
    def status(self, client: KibanaClient) -> Iterator[Record]:
        """The level of Kibana, its core services and its plugins; the metrics of its process and its host."""
        yield from readings.of_status(client.get_status())

    @poll(every="5m", enumerates=("cluster", "serves"))
    def stats(self, client: KibanaClient) -> Iterator[Record]:
        """The status as a colour, and which Elasticsearch cluster it serves."""
        yield from readings.of_stats(client.get_status(), client.get_stats())

    @poll(every="5m", enumerates=("saved_object",))
    def saved_objects(self, client: KibanaClient) -> Iterator[Record]:
        """Saved objects of the space: how many of each type, and which."""
        there = listed = 0
        refused: list[str] = []
        for kind in client.target.object_types:
            try:
                found, total = client.get_saved_objects(kind, fields=("title", "name", "description"))
            except Refused as exc:  # a type that this version has not, or hides, does not cost the others
                refused.append(f"{kind}: {exc.message}")
                continue
            yield from readings.of_objects(kind, found, total)
            there, listed = there + total, listed + len(found)
        if refused:
            hint = "take the type out of object_types, or give the user the right to read it"
            raise Refused(f"{len(refused)} types of saved objects are not listed; {refused[0]}", hint=hint)
        _all_or_told(there, listed, "saved objects", "max_objects")

    @poll(every="5m", enumerates=("data_view",))
    def data_views(self, client: KibanaClient) -> Iterator[Record]:
        """Data views (index patterns) of the space."""
        views, limit = client.get_index_patterns(), client.target.max_data_views
        yield from readings.of_data_views(views, limit)
        _all_or_told(len(views), min(limit, len(views)), "data views", "max_data_views")

    @poll(every="60s", enumerates=("task_manager", "task_manager_unhealthy"))
    def task_manager(self, client: KibanaClient) -> Iterator[Record]:
        """Background tasks: health, capacity, drift, load and workload."""
        yield from readings.of_task_manager(client.get_task_manager_health(), client.target.max_task_types)

    @poll(every="60s", enumerates=("alerting_unhealthy",))
    def alerting(self, client: KibanaClient) -> Iterator[Record]:
        """How the alerting framework is."""
        yield from readings.of_alerting(client.get_alerting_health())

    @poll(every="60s", enumerates=("rule", "rule_failing", "rule_active"))
    def rules(self, client: KibanaClient) -> Iterator[Record]:
        """Alerting rules of the space: their last run, those that failed, those with active alerts."""
        found, total = client.get_rules()
        yield from readings.of_rules(found, total)
        _all_or_told(total, len(found), "alerting rules", "max_rules")

    @action(undo="remove_made", serialize_by="title", deadline="120s")
    def create_dashboard(  # noqa: PLR0913, PLR0917 - the arguments of the job
        self,
        client: KibanaClient,
        title: Title,
        panels: Panels = (),
        description: Text = "",
        time_from: Moment = "now-15m",
        time_to: Moment = "now",
        dashboard_id: Id | None = None,
    ) -> Change:
        """Make a dashboard of visualizations that are there, by their titles or ids."""
        id = dashboard_id or objects.id_for(client.target.space, "dashboard", title)
        if (there := _there(client, "dashboard", title, id, given=dashboard_id is not None)) is not None:
            return _already(there)
        shown = dashboards.placed(client, panels)
        plan = Plan(title, description, panels, time_from, time_to)
        if client.has_dashboards_api and dashboards.fits_dashboards_api(shown):
            client.put_dashboard(id, dashboards.as_state(plan, shown))
        else:
            objects.import_lines(client, [dashboards.as_saved_object(id, plan, shown)], overwrite=False)
        return _made(client, "dashboard", title, id)

    @action(undo="remove_made", serialize_by="title", deadline="120s")
    def create_visualization(  # noqa: PLR0913, PLR0917 - the arguments of the job
        self,
        client: KibanaClient,
        title: Title,
        attributes: dict[str, Any],
        references: tuple[SavedReference, ...] = (),
        kind: Kind = "lens",
        visualization_id: Id | None = None,
    ) -> Change:
        """Make a visualization of Lens, or an older one, from its attributes as an export has them."""
        id = visualization_id or objects.id_for(client.target.space, kind, title)
        if (there := _there(client, kind, title, id, given=visualization_id is not None)) is not None:
            return _already(there)
        named = [Reference(one.type, one.id, one.name) for one in references]
        objects.import_lines(client, [dashboards.as_visualization(id, title, kind, attributes, named)], overwrite=False)
        return _made(client, kind, title, id)

    @action(undo="remove_made", serialize_by="title")
    def create_data_view(
        self,
        client: KibanaClient,
        title: Pattern,
        name: Title | None = None,
        time_field: FieldName | None = None,
        data_view_id: Id | None = None,
    ) -> Change:
        """Make a data view: `title` is the pattern of its indices, `logs-*`."""
        id = data_view_id or objects.id_for(client.target.space, "index-pattern", title)
        if (there := _there(client, "index-pattern", title, id, given=data_view_id is not None)) is not None:
            return _already(there)
        wanted = {"id": id, "title": title, "name": name, "timeFieldName": time_field}
        client.post_data_view({key: value for key, value in wanted.items() if value is not None})
        return _made(client, "index-pattern", title, id)

    @action(undo="remove_made", deadline="600s")
    def import_objects(self, client: KibanaClient, content: Content, overwrite: bool = False) -> Change:
        """Import saved objects, the lines of an export; what is there already stays unless `overwrite`."""
        lines = objects.lines_of(content)
        if objects.same(client, lines):
            return Change(changed=False, message=f"{len(lines)} saved objects are there already, as in the file")
        done = objects.import_lines(client, lines, overwrite=overwrite)
        message = f"{len(lines) - len(done.faults)} of {len(lines)} saved objects imported"
        if done.faults:
            message += "; not imported: " + "; ".join(done.faults[:10])
        after = {"imported": len(lines) - len(done.faults), "faults": done.faults[:1000]}
        return Change(changed=True, message=message, before=done.before, after=after)

    @action(deadline="600s", confirm=True)
    def remove_made(self, client: KibanaClient, before: dict[str, Any]) -> Change:
        """Take a change back: delete the saved objects that it made, put back those that it replaced."""
        deleted, restored = objects.take_back(client, before)
        message = f"{len(deleted)} saved objects deleted, {len(restored)} put back"
        done = {"deleted": deleted[:1000], "restored": restored[:1000]}
        return Change(changed=bool(deleted or restored), message=message, after=done)


def _all_or_told(there: int, listed: int, what: str, setting: str) -> None:
    """Raise when some were left out: nothing that was not listed counts as gone then.

    Raises:
        Refused: there are more than the limit.
    """
    if there > listed:
        raise Refused(f"{there - listed} of {there} {what} are over {setting} and not listed", hint=f"raise {setting}")


def _there(client: KibanaClient, kind: str, title: str, id: str, *, given: bool) -> SavedObject | None:
    """The object that is wanted, if it is there: by the id that was given, else by its title.

    Raises:
        Refused: another object has the id.
    """
    one = objects.by_id(client, kind, id)
    if one is not None and given and one.title != title:
        raise Refused(f"{kind} {id} is there, and is called {one.title!r}", hint="give another id, or none")
    return one if one is not None or given else objects.by_title(client, kind, title)


def _already(one: SavedObject) -> Change:
    about = {"type": one.type, "id": one.id, "title": one.title}
    return Change(changed=False, message=f"there is a {one.type} {one.title} already", before=about, after=about)


def _made(client: KibanaClient, kind: str, title: str, id: str) -> Change:
    """The change that made an object, once it is there.

    Raises:
        Refused: it is not.
    """
    if objects.by_id(client, kind, id) is None:
        raise Refused(f"{kind} {title} is not there after it was made", hint="look at the log of Kibana")
    about = {"type": kind, "id": id, "title": title}
    before = {"made": [{"type": kind, "id": id}]}
    return Change(changed=True, message=f"{kind} {title} made", before=before, after=about)
