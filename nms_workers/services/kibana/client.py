"""The Kibana client: reads its state and its objects, and sends what changes them. Usable without the fleet.

client = KibanaClient(KibanaTarget(url="https://kibana.example.net:5601", token="env:KIBANA_API_KEY"))
print([one.title for one in client.get_visualizations()])
client.close()
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar
from urllib.parse import quote

from urllib3 import encode_multipart_formdata

from nms_workers.errors import AuthError, ParseError, Refused, TargetError
from nms_workers.services.kibana import model
from nms_workers.services.kibana.target import KibanaTarget
from nms_workers.transport.http import HttpClient, Response
from nms_workers.transport.response import check

T = TypeVar("T")

_WRITE = {"kbn-xsrf": "true"}  # Kibana refuses writes without it
_DASHBOARDS_API = (9, 4)  # https://www.elastic.co/docs/api/doc/kibana/group/endpoint-dashboards
_PAGE = 500
_RULES_PAGE = 100  # a rule may be some kilobytes


class NotThere(Refused):
    """Kibana knows no such object."""


class KibanaClient:
    """One Kibana, 8 or 9. Connects when first used; safe to share between threads.

    Every method raises `Unreachable`, `Timeout`, `AuthError`, `ParseError` or `Refused`.
    """

    def __init__(self, target: KibanaTarget) -> None:
        self.target = target
        self._http = HttpClient(target, service="kibana")
        self._space = "" if target.space == "default" else f"/s/{target.space}"
        self._lock = threading.Lock()
        self._version: model.Version | None = None

    def close(self) -> None:
        """Let go of connections; the next use opens new ones, and asks for the version anew."""
        with self._lock:
            self._version = None
        self._http.close()

    def get_status(self) -> model.Status:
        """The level of Kibana, its core services and its plugins, and the metrics of the process.

        Raises:
            AuthError: it does not know us, and told the overall level only.
            ParseError: it is no Kibana 8 or 9.
        """
        # 503 with a status in it says what is wrong with Kibana; without one it is a proxy's, or Kibana is starting
        response = self._http.get("/api/status", params={"v8format": "true"}, expect=(503,))
        try:
            status = response.json(model.Status)
        except ParseError as exc:
            raise _no_status(response, exc) from None
        with self._lock:
            self._version = status.version
        return status

    def get_version(self) -> model.Version:
        """The version, asked for once."""
        with self._lock:
            known = self._version
        return known or self.get_status().version

    def get_stats(self) -> dict[str, Any]:
        """`/api/stats` with the cluster it serves: the metrics of the process once more, `kibana`, `cluster_uuid`."""
        return self._http.get("/api/stats", params={"extended": "true"}).json(dict[str, Any])

    def get_saved_objects(
        self, type: str, limit: int | None = None, fields: Sequence[str] = (), words: str = ""
    ) -> tuple[list[model.SavedObject], int]:
        """Saved objects of one type in the space, those changed long ago first, and how many there are.

        Args:
            limit: how many at most; None: `max_objects`. Read page by page.
            fields: the attributes that are wanted, such as `title`; none: all.
            words: only those whose title has these words in a row.
        """
        wanted = self.target.max_objects if limit is None else limit
        query: dict[str, Any] = {"type": type, "sort_field": "updated_at", "per_page": min(_PAGE, wanted)}
        if fields:
            query["fields"] = list(fields)
        if words:
            phrase = words.replace("\\", "\\\\").replace('"', '\\"')  # of Elasticsearch's simple query string
            query |= {"search": f'"{phrase}"', "search_fields": "title"}

        def ask(page: int) -> tuple[Sequence[model.SavedObject], int]:
            answer = self._read("/api/saved_objects/_find", query | {"page": page}).json(model.Found)
            return answer.saved_objects, answer.total

        return _up_to(wanted, ask)

    def get_visualizations(self) -> list[model.SavedObject]:
        """Visualizations of the space, those of Lens and the older ones, with titles and descriptions."""
        fields = ("title", "description")
        return [one for kind in ("lens", "visualization") for one in self.get_saved_objects(kind, fields=fields)[0]]

    def get_index_patterns(self) -> list[model.DataView]:
        """Data views of the space, which once were called index patterns."""
        return list(self._read("/api/data_views").json(model.DataViews).data_view)

    def get_data_view(self, id: str) -> model.DataView | None:
        """One data view with its time field; None when there is none of this id."""
        response = self._http.get(f"{self._space}/api/data_views/data_view/{_quoted(id)}", expect=(404,))
        return None if response.status == 404 else response.json(model.OneDataView).data_view

    def get_objects(self, named: Sequence[model.Reference]) -> list[model.SavedObject]:
        """Those of the named saved objects that are there, whole."""
        found: list[model.SavedObject] = []
        for start in range(0, len(named), _PAGE):
            body = [{"type": one.type, "id": one.id} for one in named[start : start + _PAGE]]
            answer = self._write("POST", "/api/saved_objects/_bulk_get", body, idempotent=True).json(model.Fetched)
            found += answer.saved_objects
        return [one for one in found if one.error is None]

    def export_dashboard(self, id: str) -> bytes:
        """A dashboard and everything it shows as lines of JSON, as `import_objects` takes them.

        Raises:
            NotThere: there is no such dashboard.
        """
        named = [model.Reference("dashboard", id)]
        if not self.get_objects(named):
            raise NotThere(f"there is no dashboard {id!r} in the space {self.target.space}")
        return self.export(named, deep=True)

    def export(self, named: Sequence[model.Reference], *, deep: bool = False) -> bytes:
        """Saved objects as lines of JSON; no more than the `max_body` of the settings.

        Args:
            deep: with all that they refer to, and what those refer to. A last line tells how many there are.
        """
        objects = [{"type": one.type, "id": one.id} for one in named]
        body = {"objects": objects, "includeReferencesDeep": deep, "excludeExportDetails": not deep}
        return self._write("POST", "/api/saved_objects/_export", body, idempotent=True).body

    def get_task_manager_health(self) -> model.TaskManagerHealth:
        """How the task manager of this Kibana is: configuration, runtime, workload and capacity."""
        return self._http.get("/api/task_manager/_health").json(model.TaskManagerHealth)

    def get_alerting_health(self) -> model.AlertingHealth:
        """How the alerting framework is."""
        return self._read("/api/alerting/_health").json(model.AlertingHealth)

    def get_rules(self, limit: int | None = None) -> tuple[list[model.Rule], int]:
        """Alerting rules of the space by name, and how many there are; up to `limit`, or `max_rules`."""
        wanted = self.target.max_rules if limit is None else limit

        def ask(page: int) -> tuple[Sequence[model.Rule], int]:
            query = {"sort_field": "name", "sort_order": "asc", "page": page, "per_page": min(_RULES_PAGE, wanted)}
            answer = self._read("/api/alerting/rules/_find", query).json(model.Rules)
            return answer.data, answer.total

        return _up_to(wanted, ask)

    @property
    def has_dashboards_api(self) -> bool:
        """Whether dashboards have an API of their own (9.4)."""
        return self.get_version().at_least(*_DASHBOARDS_API)

    def put_dashboard(self, id: str, state: dict[str, Any]) -> None:
        """Make a dashboard by the API of 9.4, or put it in the place of the one with this id."""
        self._write("PUT", f"/api/dashboards/{_quoted(id)}", state, idempotent=True)

    def post_data_view(self, data_view: dict[str, Any]) -> model.DataView:
        """Make a data view: `id`, `title`, `name`, `timeFieldName`."""
        answer = self._write("POST", "/api/data_views/data_view", {"data_view": data_view})
        return answer.json(model.OneDataView).data_view

    def post_import(self, lines: bytes, *, overwrite: bool) -> model.Imported:
        """Import saved objects, one JSON object a line. With resolvable errors among them Kibana makes none."""
        body, content_type = encode_multipart_formdata({"file": ("objects.ndjson", lines, "application/ndjson")})
        path = f"{self._space}/api/saved_objects/_import"
        params = {"overwrite": "true"} if overwrite else {}
        headers = _WRITE | {"Content-Type": content_type}
        return self._http.post(path, data=body, params=params, headers=headers).json(model.Imported)

    def delete_objects(self, named: Sequence[model.Reference]) -> model.Deletions:
        """Delete saved objects. An error with one of them stands in the answer."""
        body = [{"type": one.type, "id": one.id} for one in named]
        return self._write("POST", "/api/saved_objects/_bulk_delete", body).json(model.Deletions)

    def _read(self, path: str, query: Mapping[str, Any] | None = None) -> Response:
        return self._http.get(f"{self._space}{path}", params=query or {})

    def _write(self, method: str, path: str, body: object, *, idempotent: bool = False) -> Response:
        return self._http.request(method, f"{self._space}{path}", json=body, headers=_WRITE, idempotent=idempotent)


def _up_to(wanted: int, ask: Callable[[int], tuple[Sequence[T], int]]) -> tuple[list[T], int]:
    """The first `wanted` of what comes in pages, and how many there are; `ask` reads one page, from 1."""
    found: list[T] = []
    page = 0
    while True:
        page += 1
        items, total = ask(page)
        found += items
        if len(found) >= min(wanted, total) or not items:
            return found[:wanted], total


def _no_status(response: Response, exc: ParseError) -> TargetError:
    """What it means that an answer is no whole status."""
    if _fits(response, model.Redacted):
        hint = "set token (an API key) or username and password in the target's settings, or check them"
        message = f"{response.url} does not know us: it told no more than its overall level"
        return AuthError(message, hint=hint)
    check(response, "GET", (), ())
    if _fits(response, dict[str, Any]):
        message = f"{response.url} is no status of a Kibana 8 or 9: {exc.message}"
        return ParseError(message, hint="check host, port and base path in the url")
    return exc


def _fits(response: Response, shape: Any) -> bool:
    try:
        response.json(shape)
    except ParseError:
        return False
    return True


def _quoted(id: str) -> str:
    return quote(id, safe="")
