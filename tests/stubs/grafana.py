"""A Grafana of any version from 9 to 13 over real HTTP, as far as its API is used: it keeps state and knows rights.

What differs between versions is written where it does. What the vendor's description lacks stands in `unchecked`; what
it gets wrong is put right in `tests/services/grafana/described.py`.
"""

import base64
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from werkzeug.wrappers import Request, Response

from tests.contract.vendor import Contract
from tests.stubs.stub import Stub, route

_RANKS = {"Viewer": 1, "Editor": 2, "Admin": 3}
_SETTABLE = ("name", "type", "access", "url", "user", "database", "basicAuth", "basicAuthUser", "isDefault", "jsonData")
_USUAL = ({"role": "Viewer", "permission": 1}, {"role": "Editor", "permission": 2})  # of a new dashboard
VERSIONS = {9: "9.3.2", 10: "10.2.3", 11: "11.5.2", 12: "12.1.1", 13: "13.0.0"}


@dataclass
class Account:
    """Who asks: a user with a password, or a service account with a token, and its role in each organisation."""

    login: str
    password: str = ""
    token: str = ""
    roles: dict[int, str] = field(default_factory=lambda: {1: "Admin"})
    server_admin: bool = False
    last_seen: str = "2016-01-01T00:00:00Z"  # ten years before it was made: never
    disabled: bool = False


class GrafanaStub(Stub):
    """Grafana.

    Args:
        major: 9 to 13.
        path: where it is served below the root: `/grafana`.
        enterprise: the other edition.
    """

    unchecked = {  # noqa: RUF012
        "/api/health": "in the description only since 2024",
        "/api/prometheus/": "in no description of the vendor's",
    }

    def __init__(
        self, major: int = 12, *, contract: Contract | None = None, path: str = "", enterprise: bool = False
    ) -> None:
        self.major, self.enterprise, self.path = major, enterprise, path
        self.database = "ok"
        self.orgs = {1: "Main Org."}
        self.accounts = [
            Account("admin", password="s3cret pass", server_admin=True, last_seen=datetime.now(UTC).isoformat()),
            Account("sa-nms", token="glsa_abc"),
        ]
        self.folders: dict[str, dict[str, Any]] = {}
        self.dashboards: dict[tuple[int, str], dict[str, Any]] = {}
        self.sources: dict[str, dict[str, Any]] = {}
        self.secrets: dict[str, dict[str, str]] = {}
        self.groups: list[dict[str, Any]] = []
        self.rules: dict[str, dict[str, Any]] = {}
        self.annotations: dict[int, dict[str, Any]] = {}
        self.stats: dict[str, Any] = {}
        self.license: dict[str, Any] | None = None
        self.meddle: Callable[[], None] | None = None  # somebody else, just before a dashboard is saved
        self.alerting = True
        self.most_hits = 5000  # of one page of a search
        self.forgetful = False  # it says yes to changes, and changes nothing
        self.held = threading.Event()  # health checks wait for it, outside of the lock
        self.held.set()
        self.waiting, self.most_waiting = 0, 0
        self._count, self._doors = 0, threading.Lock()
        super().__init__(contract)
        self.url += path

    def close(self) -> None:
        self.held.set()
        super().close()

    def _answer(self, environ: Any, start_response: Any) -> Any:
        if self.path and not environ["PATH_INFO"].startswith(self.path + "/"):
            moved = Response(b"", 301, headers={"Location": self.path + environ["PATH_INFO"]})
            return moved(environ, start_response)
        environ["SCRIPT_NAME"], environ["PATH_INFO"] = self.path, environ["PATH_INFO"].removeprefix(self.path)
        if environ["PATH_INFO"].endswith("/health") and "datasources" in environ["PATH_INFO"]:
            with self._doors:
                self.waiting += 1
                self.most_waiting = max(self.most_waiting, self.waiting)
            self.held.wait(60)
            with self._doors:
                self.waiting -= 1
        return super()._answer(environ, start_response)

    def _route(self, request: Request) -> Response:
        try:
            return super()._route(request)
        except Exception as exc:
            self.violations.append(f"the stub itself is at fault: {request.method} {request.path}: {exc!r}")
            raise

    def refuse(self, request: Request) -> Any:
        """The answer to who is not known."""
        if request.path == "/api/health":
            return None
        if self._who(request) is None:
            told = (
                "Invalid username or password"
                if "Basic" in request.headers.get("Authorization", "")
                else "Unauthorized"
            )
            return {"message": told, "messageId": "", "statusCode": 401, "traceID": ""}, 401
        return None

    def add_dashboard(self, uid: str, title: str, folder: str = "", org: int = 1, **more: Any) -> dict[str, Any]:
        """A dashboard as somebody made it by hand."""
        self._count += 1
        model = {"id": self._count, "uid": uid, "title": title, "version": 1, "tags": [], "panels": []}
        made = {"model": model | more.pop("model", {}), "folder": folder, "provisioned": False, "acl": _USUAL} | more
        self.dashboards[org, uid] = made
        return made

    def add_source(self, uid: str, type: str = "prometheus", health: Any = ("OK", "works"), **more: Any) -> None:
        """A data source; its health is what the plugin says, or the name of another answer in `source_health`."""
        self._count += 1
        known = {"id": self._count, "uid": uid, "orgId": 1, "name": uid, "type": type, "typeName": type.title()}
        known |= {"typeLogoUrl": "", "access": "proxy", "url": "", "user": "", "database": "", "basicAuth": False}
        self.sources[uid] = known | {"isDefault": False, "jsonData": {}, "readOnly": False, "health": health} | more

    @route("/api/health")
    def health(self, _: Request) -> Any:
        about = {"database": self.database, "version": VERSIONS[self.major], "commit": "a1b2c3d4e5"}
        about |= {"enterpriseCommit": "f00dfeed"} if self.enterprise else {}
        return about, 200 if self.database == "ok" else 503

    @route("/api/org")
    def org(self, request: Request) -> Any:
        return {"id": self._org(request), "name": self.orgs[self._org(request)], "address": {"city": ""}}

    @route("/api/search")
    def search(self, request: Request) -> Any:
        limit, page = int(request.args.get("limit", 1000)), int(request.args.get("page", 1))
        if limit > 5000:
            return {
                "message": "Limit is above maximum allowed (5000), use page parameter to access hits beyond limit"
            }, 422
        org = self._org(request)
        if request.args.get("type") == "dash-folder":
            hits = [self._hit("dash-folder", uid, **one) for uid, one in self.folders.items()]
        else:
            hits = [
                self._hit("dash-db", uid, one["model"]["title"], one["folder"], one["model"]["tags"])
                for (owner, uid), one in self.dashboards.items()
                if owner == org
            ]
        hits.sort(key=lambda hit: str(hit["title"]))
        limit = min(limit, self.most_hits)
        return hits[(page - 1) * limit : page * limit]

    @route("/api/dashboards/uid/<uid>")
    def dashboard(self, request: Request, uid: str) -> Any:
        found = self.dashboards.get((self._org(request), uid))
        if found is None:
            return {"message": "Dashboard not found", "traceID": ""}, 404
        folder = found["folder"]
        meta = {"slug": uid, "url": f"/d/{uid}/x", "version": found["model"]["version"], "folderUid": folder}
        meta |= {"folderTitle": self.folders[folder]["title"] if folder else "General", "updatedBy": "admin"}
        meta |= {
            "provisioned": found["provisioned"],
            "provisionedExternalId": "nms.json" if found["provisioned"] else "",
        }
        return {"dashboard": found["model"], "meta": meta | {"created": _now(), "updated": _now(), "canSave": True}}

    @route("/api/dashboards/uid/<uid>", "DELETE")
    def delete_dashboard(self, request: Request, uid: str) -> Any:
        if denied := self._needs(request, "Editor", "dashboards:delete"):
            return denied
        found = self.dashboards.get((self._org(request), uid))
        if found is None:
            return {"message": "Dashboard not found"}, 404
        if found["provisioned"]:
            return {"message": "provisioned dashboard cannot be deleted"}, 400
        if not self.forgetful:
            del self.dashboards[self._org(request), uid]
        title = found["model"]["title"]
        numbers = {} if self.major >= 13 else {"id": found["model"]["id"]}
        return {"title": title, "message": f"Dashboard {title} deleted", "uid": uid} | numbers

    @route("/api/dashboards/uid/<uid>/permissions")
    def permissions(self, request: Request, uid: str) -> Any:
        if denied := self._needs(request, "Admin", "dashboards.permissions:read"):
            return denied
        own = self.dashboards[self._org(request), uid]["acl"]
        inherited = {"role": "Admin", "permission": 4, "inherited": True}
        return [{"uid": uid, "userId": 0, "teamId": 0, "inherited": False} | one for one in (*own, inherited)]

    @route("/api/dashboards/uid/<uid>/permissions", "POST")
    def set_permissions(self, request: Request, uid: str) -> Any:
        if not self.forgetful:
            self.dashboards[self._org(request), uid]["acl"] = tuple(request.get_json()["items"])
        return {"message": "Dashboard permissions updated"}

    @route("/api/dashboards/db", "POST")
    def save_dashboard(self, request: Request) -> Any:
        if denied := self._needs(request, "Editor", "dashboards:create"):
            return denied
        if self.meddle is not None:
            self.meddle()
        asked = request.get_json()
        model, org = dict(asked["dashboard"]), self._org(request)
        found = self.dashboards.get((org, model["uid"]))
        if refusal := self._not_saved(asked, found, org):
            return refusal
        self._count += 1
        version = found["model"]["version"] + 1 if found else 1
        model |= {"id": found["model"]["id"] if found else self._count, "version": version}
        if not self.forgetful:
            kept = {"model": model, "folder": asked.get("folderUid", ""), "provisioned": False}
            kept["acl"] = found["acl"] if found else _USUAL
            self.dashboards[org, model["uid"]] = kept | {"message": asked.get("message", "")}
        url = f"/d/{model['uid']}/x"
        return {
            "status": "success",
            "uid": model["uid"],
            "id": model["id"],
            "url": url,
            "version": version,
            "slug": "x",
        }

    def _not_saved(self, asked: dict[str, Any], found: dict[str, Any] | None, org: int) -> Any:
        model, folder, overwrite = asked["dashboard"], asked.get("folderUid", ""), asked.get("overwrite")
        if not model.get("title"):
            return {"message": "Dashboard title cannot be empty", "status": "empty-name"}, 400
        if folder and folder not in self.folders:
            return {"message": "folder not found"}, 400
        if found and found["provisioned"]:
            return {"message": "Cannot save provisioned dashboard"}, 400
        others = [one for (owner, uid), one in self.dashboards.items() if owner == org and uid != model["uid"]]
        names = {one["model"]["title"] for one in others if one["folder"] == folder}
        conflict = None
        if found and model.get("version", 0) != found["model"]["version"] and not overwrite:
            conflict = "version-mismatch", "The dashboard has been changed by someone else"
        elif found and found.get("plugin") and not overwrite:
            conflict = "plugin-dashboard", f"The dashboard belongs to plugin {found['plugin']}."
        elif self.major < 11 and model["title"] in names:  # later versions let two have one name
            conflict = "name-exists", "A dashboard with the same name in the folder already exists"
        return ({"status": conflict[0], "message": conflict[1]}, 412) if conflict else None

    @route("/api/datasources")
    def list_sources(self, request: Request) -> Any:
        if denied := self._needs(request, "Admin", "datasources:read"):
            return denied
        return [{k: v for k, v in one.items() if k not in ("health", "version")} for one in self.sources.values()]

    @route("/api/datasources/name/<name>")
    def source_by_name(self, request: Request, name: str) -> Any:
        if denied := self._needs(request, "Admin", "datasources:read"):
            return denied
        found = next((one for one in self.sources.values() if one["name"] == name), None)
        return self._source(found) if found else ({"message": "Data source not found"}, 404)

    @route("/api/datasources", "POST")
    def add(self, request: Request) -> Any:
        if denied := self._needs(request, "Admin", "datasources:create"):
            return denied
        asked = request.get_json()
        uid = asked.get("uid") or f"made-{self._count}"
        for what, taken in (("name", {one["name"] for one in self.sources.values()}), ("uid", set(self.sources))):
            if (asked["name"] if what == "name" else uid) in taken:
                return {"message": f"data source with the same {what} already exists"}, 409
        if "refuse-me" in asked.get("url", ""):
            return {
                "message": f"Validation error: {asked.get('secureJsonData')}"
            }, 400  # a plugin that repeats too much
        self.add_source(uid, **{key: asked[key] for key in _SETTABLE if key in asked})
        self.secrets[uid] = asked.get("secureJsonData", {})
        made = self._source(self.sources[uid])
        if self.forgetful:
            del self.sources[uid]
        return {"id": made["id"], "name": asked["name"], "message": "Datasource added", "datasource": made}

    @route("/api/datasources/uid/<uid>", "DELETE")
    def delete_source(self, request: Request, uid: str) -> Any:
        if denied := self._needs(request, "Admin", "datasources:delete"):
            return denied
        if not self.forgetful:
            del self.sources[uid]
        return {"message": "Data source deleted", "id": 1}

    @route("/api/datasources/uid/<uid>/health")
    def source_health(self, _: Request, uid: str) -> Any:
        health = self.sources[uid]["health"]
        if health == "forbidden":
            return _denied("datasources:query")
        if isinstance(health, tuple):
            status, message = health
            return {"status": status, "message": message, "details": {}}, 200 if status == "OK" else 400
        new = self.major >= 11  # names its errors
        answers: dict[str, tuple[int, str, str]] = {
            "none": (501, "plugin.notImplemented", "Not implemented") if new else (404, "", "Not found"),
            "not installed": (404, "plugin.notRegistered", "Not found") if new else (404, "", "Plugin not found"),
            "deleted": (404, "", "Data source not found"),
            "broken": (500, "plugin.unavailable", "Internal server error") if new else (503, "", "Plugin unavailable"),
        }
        status, name, message = answers[health]
        return {"message": message, "messageId": name, "statusCode": status, "traceID": ""}, status

    @route("/api/org/users")
    def users(self, request: Request) -> Any:
        if denied := self._needs(request, "Admin", "org.users:read"):
            return denied
        org = self._org(request)
        found = [
            {
                "orgId": org,
                "userId": number,
                "email": f"{one.login}@example.net",
                "name": one.login.title(),
                "login": one.login,
                "role": one.roles[org],
                "lastSeenAt": one.last_seen,
                "lastSeenAtAge": "1m",
                "isDisabled": one.disabled,
                "avatarUrl": "",
            }
            for number, one in enumerate(self.accounts, 1)
            if one.password and org in one.roles
        ]
        return found[: int(request.args.get("limit") or len(found))]

    @route("/api/admin/stats")
    def admin_stats(self, request: Request) -> Any:
        return self._server_admins(request, "server:stats:read") or self.stats

    @route("/api/licensing/token")
    def license_token(self, request: Request) -> Any:
        if not self.enterprise or self.license is None:
            return {"message": "Not found"}, 404
        return self._server_admins(request, "licensing:read") or self.license

    @route("/api/prometheus/grafana/api/v1/rules")
    def rule_states(self, request: Request) -> Any:
        if not self.alerting:
            return {"message": "Not found"}, 404
        most_alerts = int(request.args.get("limit_alerts", -1)) if self.major >= 10 else -1
        groups = [self._group(one, most_alerts) for one in sorted(self.groups, key=lambda one: str(one["name"]))]
        if self.major < 12 or "group_limit" not in request.args:
            return {"status": "success", "data": {"groups": groups}}
        begin, size = int(request.args.get("group_next_token", 0)), int(request.args["group_limit"])
        token = {"groupNextToken": str(begin + size)} if begin + size < len(groups) else {}
        return {"status": "success", "data": {"groups": groups[begin : begin + size]} | token}

    @route("/api/v1/provisioning/alert-rules/<uid>")
    def rule(self, request: Request, uid: str) -> Any:
        if denied := self._needs(request, "Admin", "alert.provisioning:read"):
            return denied
        return self.rules[uid] if uid in self.rules else Response(b"", 404)

    @route("/api/v1/provisioning/alert-rules/<uid>", "PUT")
    def put_rule(self, request: Request, uid: str) -> Any:
        if denied := self._needs(request, "Admin", "alert.provisioning:write"):
            return denied
        stored = self.rules[uid].get("provenance", "")
        given = "" if "X-Disable-Provenance" in request.headers else "api"
        if stored not in ("", given):
            return {"message": f"cannot change provenance from '{stored}' to '{given}'"}, 500
        asked = {key: value for key, value in request.get_json().items() if key != "provenance"}
        if not self.forgetful:
            self.rules[uid] = asked | ({"provenance": given} if given else {}) | {"updated": _now()}
        return self.rules[uid]

    @route("/api/annotations")
    def list_annotations(self, request: Request) -> Any:
        wanted = request.args
        begin, end = int(wanted.get("from", 0)), int(wanted.get("to", 1 << 60))
        found = [
            one
            for one in self.annotations.values()
            if one["time"] <= end
            and one["timeEnd"] >= begin
            and set(wanted.getlist("tags")) <= set(one["tags"])
            and wanted.get("dashboardUID", one["dashboardUID"]) == one["dashboardUID"]
            and int(wanted.get("panelId", one["panelId"])) == one["panelId"]
        ]
        return found[: int(wanted.get("limit", 100))]

    @route("/api/annotations", "POST")
    def annotate(self, request: Request) -> Any:
        if denied := self._needs(request, "Editor", "annotations:create"):
            return denied
        asked, self._count = request.get_json(), self._count + 1
        kept = {"id": self._count, "timeEnd": asked["time"], "dashboardUID": "", "panelId": 0, "userId": 1} | asked
        if not self.forgetful:
            self.annotations[self._count] = kept | {"tags": sorted(asked.get("tags", []))}
        return {"message": "Annotation added", "id": self._count}

    @route("/api/annotations/<int:number>", "DELETE")
    def delete_annotation(self, request: Request, number: int) -> Any:
        if denied := self._needs(request, "Editor", "annotations:delete"):
            return denied
        if not self.forgetful:
            del self.annotations[number]
        return {"message": "Annotation deleted"}

    def _who(self, request: Request) -> Account | None:
        scheme, _, value = request.headers.get("Authorization", "").partition(" ")
        if scheme == "Bearer":
            return next((one for one in self.accounts if one.token and one.token == value), None)
        if scheme != "Basic":
            return None
        login, _, password = base64.b64decode(value).decode().partition(":")
        return next((one for one in self.accounts if (one.login, one.password) == (login, password)), None)

    def _org(self, request: Request) -> int:
        who = self._who(request)
        assert who is not None
        return int(request.headers.get("X-Grafana-Org-Id") or min(who.roles))

    def _needs(self, request: Request, role: str, right: str) -> Any:
        who = self._who(request)
        if who and _RANKS[who.roles[self._org(request)]] >= _RANKS[role]:
            return None
        return _denied(right)

    def _server_admins(self, request: Request, right: str) -> Any:
        who = self._who(request)
        return None if who and who.server_admin else _denied(right)

    def _hit(self, kind: str, uid: str, title: str, folder: str, tags: Any = ()) -> dict[str, Any]:
        where = {"folderUid": folder, "folderTitle": self.folders[folder]["title"]} if folder else {}
        about = {"uid": uid, "title": title, "type": kind, "tags": list(tags), "url": f"/d/{uid}/x", "isStarred": False}
        return about | where | ({"isDeleted": False} if self.major >= 11 else {})

    def _source(self, source: dict[str, Any]) -> dict[str, Any]:
        shown = {key: value for key, value in source.items() if key not in ("health", "typeName")}
        return shown | {"version": 1, "secureJsonFields": dict.fromkeys(self.secrets.get(source["uid"], {}), True)}

    def _group(self, group: dict[str, Any], most_alerts: int) -> dict[str, Any]:
        told = {key: value for key, value in group.items() if key != "folderUid" or self.major >= 11}
        return told | {"rules": [self._rule_state(one, most_alerts) for one in group["rules"]]}

    def _rule_state(self, rule: dict[str, Any], most_alerts: int) -> dict[str, Any]:
        hidden: tuple[str, ...] = () if self.major >= 12 else ("isPaused", "provenance")
        hidden += () if self.major >= 11 else ("uid",)
        told = {key: value for key, value in rule.items() if key not in hidden}
        alerts = rule.get("alerts", [])
        if self.major >= 10:
            totals: dict[str, int] = {}
            for one in alerts:
                state = one["state"].partition(" ")[0].lower()
                totals[state] = totals.get(state, 0) + 1
            told["totals"] = totals
        return told | ({"alerts": alerts[: most_alerts if most_alerts >= 0 else None]} if alerts else {})


def _denied(right: str) -> Any:
    said = f"You'll need additional permissions to perform this action. Permissions needed: {right}"
    return {"accessErrorId": "ACE0123456789", "message": said, "title": "Access denied"}, 403


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f") + "789Z"  # Go writes nanoseconds
