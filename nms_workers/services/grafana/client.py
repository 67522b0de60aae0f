"""The Grafana client: reads, and sends what changes. Usable without the fleet.

client = GrafanaClient(GrafanaTarget(url="https://grafana.example.net", token="env:GRAFANA_TOKEN"))
print([dashboard.title for dashboard in client.get_dashboards()])
client.close()

Everything is named by its uid, never by a number: Grafana 13 has taken the numbers out of its API.
"""

from collections.abc import Collection, Mapping
from typing import Any, TypeVar
from urllib.parse import quote

import msgspec

from nms_workers.errors import ParseError
from nms_workers.services.grafana import model
from nms_workers.services.grafana.refusals import EXPLAINED, Forbidden, NotThere, refusal
from nms_workers.services.grafana.target import GrafanaTarget
from nms_workers.transport.http import HttpClient, Response
from nms_workers.transport.response import check

T = TypeVar("T")
Query = Mapping[str, str | int | float | list[str] | None]

PAGE = 1000  # dashboards or folders in one answer; Grafana gives 5000 at most
GROUPS = 200  # groups of rules in one answer, from Grafana 12 on; older ones give all at once
_ANNOTATIONS = 1000  # of one moment

FIRING = frozenset({"alerting", "recovering", "nodata", "error"})  # as Grafana itself tells it to Prometheus


class GrafanaClient:
    """One Grafana, as one organisation. Connects when first used; safe to share between threads.

    Every method raises `Unreachable`, `Timeout`, `AuthError`, `ParseError` or `Refused`; `NotThere`, a `Refused`, when
    what was named does not exist, and `Conflict` when somebody else was quicker.
    """

    def __init__(self, target: GrafanaTarget) -> None:
        self.target = target
        org = {} if target.org_id is None else {"X-Grafana-Org-Id": str(target.org_id)}
        self._http = HttpClient(target.model_copy(update={"headers": target.headers | org}), service="grafana")

    def close(self) -> None:
        """Let go of connections; the next use opens new ones."""
        self._http.close()

    def get_health(self) -> model.Health:
        """Version, commit, and whether the database answers. Needs no credentials.

        Raises:
            ParseError: it is no Grafana.
        """
        response = self._http.get("/api/health", expect=(404, 503))  # 503 with words of its own: the database fails
        hint = "check host, port and path of the url: a Grafana under a sub-path has that path in its url"
        if response.status == 404:
            raise ParseError(f"{response.url} is no Grafana: the path is unknown there", hint=hint)
        try:
            return msgspec.convert(response.json(), model.Health)
        except msgspec.ValidationError as exc:
            check(response, "GET", (), ())
            raise ParseError(f"{response.url} is no Grafana: {exc}", hint=hint) from None

    def get_dashboards(self) -> list[model.Hit]:
        """The dashboards we may see, `max_dashboards` and one page more at most."""
        return self._search("dash-db")

    def get_folders(self) -> list[model.Hit]:
        """The folders we may see, nested ones too: `folder_uid` is the folder around. As many as dashboards."""
        return self._search("dash-folder")

    def get_dashboard(self, uid: str) -> model.Dashboard:
        """A dashboard with its model."""
        return self._read(f"/api/dashboards/uid/{quote(uid, safe='')}", model.Dashboard)

    def get_permissions(self, uid: str) -> list[model.Permission]:
        """Who may do what with a dashboard, those of its folder (`inherited`) among them."""
        return self._read(f"/api/dashboards/uid/{quote(uid, safe='')}/permissions", list[model.Permission])

    def get_datasources(self) -> list[model.Datasource]:
        """All data sources of the organisation; Grafana itself bounds them, to 5000 unless told otherwise."""
        return self._read("/api/datasources", list[model.Datasource])

    def get_datasource(self, name: str) -> dict[str, Any]:
        """A data source by its name, as JSON: with `jsonData`, and which secrets are set."""
        return self._read(f"/api/datasources/name/{quote(name, safe='')}", dict[str, Any])

    def ask_health(self, uid: str) -> Response:
        """What a data source says of its health, whatever the status; the plugin may take its time.

        The statuses are told apart in `checks.judged`.
        """
        return self._http.get(f"/api/datasources/uid/{quote(uid, safe='')}/health", expect=(*EXPLAINED, 501, 503))

    def get_users(self) -> list[model.User]:
        """The members of the organisation, `max_users` and one more at most. Service accounts are not among them."""
        return self._read("/api/org/users", list[model.User], {"limit": self.target.max_users + 1})

    def get_alert_rules(self) -> list[tuple[model.Group, model.Rule]]:
        """The rules with their state and alerts, each with its group, `max_rules` and one page more at most.

        Of each rule the `max_alerts` alerts that matter most; older Grafana gives all.
        """
        found: list[tuple[model.Group, model.Rule]] = []
        query: dict[str, str | int] = {"limit_alerts": self.target.max_alerts, "group_limit": GROUPS}
        while True:
            page = self._rules(query)
            found += [(group, rule) for group in page.groups for rule in group.rules or ()]
            if not page.group_next_token or not page.groups or len(found) > self.target.max_rules:
                return found
            query["group_next_token"] = page.group_next_token

    def get_alerts(self) -> list[model.Alert]:
        """The alerts that fire, are about to recover, or have no data or an error."""
        rules = self.get_alert_rules()
        return [alert for _, rule in rules for alert in rule.alerts or () if alert.plain_state in FIRING]

    def get_stats(self) -> dict[str, Any]:
        """Counts over all organisations, as JSON.

        Raises:
            Forbidden: we are no server administrator; a service account cannot be one.
        """
        return self._as_administrator("/api/admin/stats")

    def get_org(self) -> model.Org:
        """The organisation we are in."""
        return self._read("/api/org", model.Org)

    def get_license(self) -> dict[str, Any] | None:
        """The licence as JSON; None: there is none, or this is the open-source edition, which knows no licences."""
        try:
            return self._as_administrator("/api/licensing/token")
        except NotThere:
            return None

    def get_alert_rule(self, uid: str) -> dict[str, Any]:
        """The definition of a rule as JSON, with `isPaused` and `provenance`."""
        return self._read(f"/api/v1/provisioning/alert-rules/{quote(uid, safe='')}", dict[str, Any])

    def get_annotations(self, query: Query) -> list[model.Annotation]:
        """The annotations that people and programs made, 1000 at most.

        Args:
            query: `from`, `to` (milliseconds), `tags`, `dashboardUID`, `panelId`.
        """
        bounded = {**query, "type": "annotation", "limit": _ANNOTATIONS}
        return self._read("/api/annotations", list[model.Annotation], bounded)

    def send(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        headers: Mapping[str, str] | None = None,
        hidden: Collection[str] = (),
    ) -> Response:
        """Change something: one request, sent once.

        Args:
            method: `POST`, `PUT` or `DELETE`.
            path: below the URL; names in it are quoted.
            body: sent as JSON unless None.
            hidden: what must not be shown if the server repeats it.
        """
        if body is None:
            response = self._http.request(method, path, headers=headers or {}, expect=EXPLAINED)
        else:
            response = self._http.request(method, path, headers=headers or {}, expect=EXPLAINED, json=body)
        if response.status in EXPLAINED:
            raise refusal(method, response, hidden)
        return response

    def _read(self, path: str, shape: type[T], query: Query | None = None) -> T:
        response = self._http.get(path, params=query or {}, expect=EXPLAINED)
        if response.status in EXPLAINED:
            raise refusal("GET", response)
        return response.json(shape)

    def _rules(self, query: Query) -> model.Groups:
        try:
            return self._read("/api/prometheus/grafana/api/v1/rules", model.Rules, query).data
        except NotThere as exc:
            raise NotThere(
                exc.message, hint="its alerting is off: switch it on, or skip this poll at the target"
            ) from None

    def _search(self, kind: str) -> list[model.Hit]:
        """Page after page until one brings nothing new: a server may give fewer than we ask for."""
        found: dict[str, model.Hit] = {}
        page = 1
        while len(found) <= self.target.max_dashboards:
            hits = self._read("/api/search", list[model.Hit], {"type": kind, "limit": PAGE, "page": page})
            fresh = {hit.uid: hit for hit in hits if hit.uid not in found}
            if not fresh:
                break
            found |= fresh
            page += 1
        return [hit for hit in found.values() if not hit.is_deleted]

    def _as_administrator(self, path: str) -> dict[str, Any]:
        try:
            return self._read(path, dict[str, Any])
        except Forbidden as exc:
            hint = (
                "only a server administrator may read it, which a service account cannot be: give username and password"
            )
            raise Forbidden(exc.message, hint=f"{hint} of one, or skip this poll at the target") from None
