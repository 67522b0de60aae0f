"""Grafana: what is polled, and the actions."""

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import Field, PositiveInt, TypeAdapter

from nms_workers.change import Change
from nms_workers.errors import Refused
from nms_workers.records import Record
from nms_workers.service import Service, action, poll
from nms_workers.services.grafana import annotations, checks, dashboards, pausing, readings, sources
from nms_workers.services.grafana.annotations import Remark
from nms_workers.services.grafana.client import FIRING, GrafanaClient
from nms_workers.services.grafana.dashboards import Kept
from nms_workers.services.grafana.target import (
    FolderUid,
    GrafanaTarget,
    Key,
    Lines,
    Model,
    Options,
    Secrets,
    SourceName,
    SourceUrl,
    Tags,
    Text,
    Title,
    Uid,
    When,
    now,
)

Message = Annotated[str, Field(max_length=500, pattern=r"^[^\x00-\x1f\x7f-\x9f]*$")]
_UID = TypeAdapter[str](Uid)
WhenMade: Any = Field(default_factory=now)  # when the job is submitted: however often it runs, it is one annotation


class Grafana(Service):
    """Dashboards: reads Grafana 9 to 13, its data sources' health and its alerts, and changes what is in it.

    Dashboards, folders and alert rules are named by their uid, data sources by their name. With the token of a service
    account everything works but `statistics` and `license`, which only a server administrator may read: skip them.
    """

    kind = "grafana"
    Target = GrafanaTarget
    client = GrafanaClient
    port = 3000

    @poll(every="30s", enumerates=("server", "database_down"))
    def health(self, client: GrafanaClient) -> Iterator[Record]:
        """Version, edition, and whether the database answers."""
        yield from readings.of_health(client.get_health())

    @poll(every="120s", enumerates=("dashboard",))
    def dashboards(self, client: GrafanaClient) -> Iterator[Record]:
        """Dashboards, and how many each folder has."""
        found = client.get_dashboards()
        yield from readings.of_dashboards(found[: client.target.max_dashboards])
        _all_read("dashboards", found, client.target.max_dashboards)

    @poll(every="5m", enumerates=("folder",))
    def folders(self, client: GrafanaClient) -> Iterator[Record]:
        """Folders and what they are in."""
        found = client.get_folders()
        yield from readings.of_folders(found[: client.target.max_dashboards])
        _all_read("folders", found, client.target.max_dashboards, "max_dashboards")

    @poll(every="60s", enumerates=("datasource", "datasource_unhealthy"))
    def datasources(self, client: GrafanaClient) -> Iterator[Record]:
        """Data sources, and what each says of its health; an event while one is unhealthy."""
        found = client.get_datasources()
        yield from readings.of_sources(found)
        verdicts: Counter[str] = Counter()
        for source, checked in checks.checked(client, found[: client.target.max_datasources]):
            verdicts[checked.verdict] += 1
            if checked.verdict != "gone":
                yield from readings.of_source(source, checked)
        yield from readings.of_checks(verdicts)
        for source in found[client.target.max_datasources :]:
            yield from readings.of_source(source, None)
        if verdicts["forbidden"]:
            hint = "give the service account or user the right to query them (datasources:query)"
            raise Refused(f"we may not ask {verdicts['forbidden']} data sources for their health", hint=hint)
        _all_read("datasources", found, client.target.max_datasources)

    @poll(every="5m", enumerates=("user",))
    def users(self, client: GrafanaClient) -> Iterator[Record]:
        """Users of the organisation by role, and how many were seen lately."""
        found = client.get_users()
        yield from readings.of_users(found[: client.target.max_users], client.target.active_days)
        _all_read("users", found, client.target.max_users)

    @poll(every="30s", enumerates=("alert_rule", "alert", "rule_failing"))
    def alerts(self, client: GrafanaClient) -> Iterator[Record]:
        """Alert rules with their state, and an event for each alert while it fires."""
        found = client.get_alert_rules()
        rules, most = found[: client.target.max_rules], client.target.max_alerts
        yield from readings.of_rules(rules)
        told = 0
        for group, rule in rules:
            for alert in rule.alerts or ():
                if alert.plain_state in FIRING and told < most:
                    told += 1
                    yield readings.of_alert(group, rule, alert)
        if (all_ := readings.firing(rules)) > told:
            said = f"{all_} alerts fire, more than max_alerts ({most}): {told} are told"
            raise Refused(said, hint="raise max_alerts")
        _all_read("rules", found, client.target.max_rules)

    @poll(every="5m", enumerates=("statistics",))
    def statistics(self, client: GrafanaClient) -> Iterator[Record]:
        """Counts over all organisations: users, sessions, dashboards, data sources. For server administrators only."""
        yield from readings.of_statistics(client.get_stats())

    @poll(every="10m", enumerates=("organisation",))
    def organisation(self, client: GrafanaClient) -> Iterator[Record]:
        """The organisation that the credentials belong to."""
        yield from readings.of_org(client.get_org())

    @poll(every="1h", enumerates=("license", "license_expires"))
    def license(self, client: GrafanaClient) -> Iterator[Record]:
        """The edition and its licence, and an event when that ends soon. For server administrators only."""
        yield from readings.of_license(client.get_health(), client.get_license())

    @action(undo="restore_dashboard", serialize_by="uid")
    def create_dashboard(  # noqa: PLR0913 - the arguments of the job
        self,
        client: GrafanaClient,
        *,
        dashboard: Model | None = None,
        title: Title | None = None,
        uid: Uid | None = None,
        folder: FolderUid | None = None,
        message: Message = "",
        overwrite: bool = False,
    ) -> Change:
        """Save a dashboard from its JSON model, or an empty one of a title, in the folder of this uid."""
        model = dict(dashboard or {"panels": []})
        model |= {"title": title} if title is not None else {}
        name = model.get("title")
        if not isinstance(name, str) or not name.strip():
            raise Refused("a dashboard needs a title", hint="give title, or a dashboard that has one")
        key = uid or model.get("uid") or dashboards.uid_for(name, folder or "")
        before, after, saved = dashboards.save(
            client, _as_uid(key), model, folder=folder, message=message, overwrite=overwrite
        )
        done = "saved" if saved else "was so already"
        said = f"dashboard {after.title} ({before.uid}) {done}, version {after.meta.version}"
        return Change(saved, said, before.model_dump(mode="json"), dashboards.about(after, before.uid))

    @action(undo="restore_dashboard", serialize_by="uid", confirm=True)
    def delete_dashboard(self, client: GrafanaClient, uid: Uid) -> Change:
        """Delete a dashboard with its versions."""
        before, found = dashboards.delete(client, uid)
        said = f"dashboard {found.title} ({uid}) deleted" if found else f"there is no dashboard {uid}"
        if found and before.grants is None:
            said += "; we may not read its permissions, so undo will not bring them back"
        return Change(found is not None, said, before.model_dump(mode="json"), dashboards.about(None, uid))

    @action(undo="restore_dashboard", confirm=True)
    def restore_dashboard(self, client: GrafanaClient, before: Kept) -> Change:
        """Put a dashboard back to what an action kept as `before`: an earlier model, or none."""
        if before.model is None:
            return self.delete_dashboard(client, before.uid)
        was, after, saved = dashboards.restore(client, before, before.model)
        said = f"dashboard {after.title} ({before.uid}) " + ("is as it was" if saved else "was so already")
        return Change(saved, said, was.model_dump(mode="json"), dashboards.about(after, before.uid))

    @action(undo="delete_datasource", serialize_by="name")
    def create_datasource(  # noqa: PLR0913 - the arguments of the job
        self,
        client: GrafanaClient,
        *,
        name: SourceName,
        type: Key,
        url: SourceUrl | None = None,
        uid: Uid | None = None,
        access: Literal["proxy", "direct"] = "proxy",
        database: Text | None = None,
        user: Text | None = None,
        basic_auth_user: Text | None = None,
        is_default: bool | None = None,
        json_data: Options | None = None,
        secure_json_data: Secrets | None = None,
    ) -> Change:
        """Make a data source. Secrets are references, `env:NAME` or `file:PATH`, read where the job runs."""
        wanted = {
            "type": type,
            "access": access,
            "url": url,
            "database": database,
            "user": user,
            "basicAuth": None if basic_auth_user is None else True,
            "basicAuthUser": basic_auth_user,
            "isDefault": is_default,
            "jsonData": json_data,
        }
        after, made = sources.create(client, name, uid, wanted, secure_json_data or {})
        said = f"data source {name} made" if made else f"there is the data source {name} already"
        return Change(made, said, {"exists": not made}, after)

    @action(serialize_by="name", confirm=True)
    def delete_datasource(self, client: GrafanaClient, name: SourceName) -> Change:
        """Delete a data source. Nothing brings it back: its secrets cannot be read."""
        before = sources.delete(client, name)
        said = f"data source {name} deleted" if before else f"there is no data source {name}"
        return Change(before is not None, said, before or {}, {"exists": False})

    @action(undo="unpause_alert_rule", serialize_by="uid")
    def pause_alert_rule(self, client: GrafanaClient, uid: Uid) -> Change:
        """Stop evaluating an alert rule; its alerts are resolved then."""
        return _paused(client, uid, True)

    @action(undo="pause_alert_rule", serialize_by="uid")
    def unpause_alert_rule(self, client: GrafanaClient, uid: Uid) -> Change:
        """Evaluate a paused alert rule again."""
        return _paused(client, uid, False)

    @action(undo="delete_annotation")
    def create_annotation(  # noqa: PLR0913 - the arguments of the job
        self,
        client: GrafanaClient,
        *,
        text: Lines,
        time: When = WhenMade,
        end: When | None = None,
        tags: Tags = (),
        dashboard: Uid | None = None,
        panel: PositiveInt | None = None,
    ) -> Change:
        """Remark on a moment (now) or a span of time: in one dashboard, or in all that show the tags."""
        remark = _remark(text, time, end, tags, dashboard, panel)
        found, made = annotations.create(client, remark)
        said = f"annotation {found.id} made" if made else f"annotation {found.id} says so already"
        return Change(made, said, {"exists": not made}, {"id": found.id} | remark.body)

    @action(confirm=True)
    def delete_annotation(  # noqa: PLR0913 - the arguments of the job
        self,
        client: GrafanaClient,
        *,
        text: Lines,
        time: When,
        end: When | None = None,
        tags: Tags = (),
        dashboard: Uid | None = None,
        panel: PositiveInt | None = None,
    ) -> Change:
        """Delete the annotation that says just this."""
        remark = _remark(text, time, end, tags, dashboard, panel)
        ids = [one.id for one in annotations.delete(client, remark)]
        said = f"annotation {', '.join(map(str, ids))} deleted" if ids else "there is no such annotation"
        return Change(bool(ids), said, remark.body | {"ids": ids}, {"exists": False})


def _paused(client: GrafanaClient, uid: str, paused: bool) -> Change:
    before, after = pausing.set_paused(client, uid, paused)
    word = "is paused" if paused else "is evaluated"
    said = f"alert rule {before['title']} ({uid}) {word}" + ("" if before != after else " already")
    return Change(before != after, said, before, after)


def _remark(  # noqa: PLR0913, PLR0917 - as the actions have them
    text: str, time: datetime, end: datetime | None, tags: tuple[str, ...], dashboard: str | None, panel: int | None
) -> Remark:
    if end is not None and end < time:
        raise Refused("the annotation ends before it begins", hint="swap time and end")
    if panel is not None and dashboard is None:
        raise Refused("a panel belongs to a dashboard", hint="name the uid of the dashboard too")
    return Remark(text, time, end, tags, dashboard, panel)


def _as_uid(value: object) -> str:
    """The uid of a model, which nobody has checked yet.

    Raises:
        Refused: Grafana would not take it, or a path could not hold it.
    """
    try:
        return _UID.validate_python(value, strict=True)
    except ValueError:
        raise Refused("the uid of the dashboard's model is none", hint="1 to 40 of A-Z a-z 0-9 _ -") from None


def _all_read(what: str, found: Sequence[object], most: int, setting: str = "") -> None:
    """Whoever reads on must know that something was left out, or would take it for gone.

    Raises:
        Refused: there is more than was read.
    """
    if len(found) > most:
        name = setting or f"max_{what}"
        raise Refused(f"there are at least {len(found)} {what}, more than {name} ({most})", hint=f"raise {name}")
