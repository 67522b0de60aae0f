"""A Kibana that keeps saved objects by space, and says of itself what the test sets.

Behaves as Kibana's source does where its description is silent: an import with a resolvable error makes nothing, a
write wants `kbn-xsrf`, an unknown parameter is refused, `/api/status` tells strangers the overall level only.
"""

import copy
import json
import re
from collections.abc import Iterable
from typing import Any, ClassVar

from werkzeug.wrappers import Request, Response

from tests.contract.vendor import Contract, description
from tests.stubs.stub import Stub, route

API_KEY = "aWQ6a2V5"
USER, PASSWORD = "elastic", "s3cr3t pass:word"
_FIND = {
    "default_search_operator", "fields", "filter", "has_reference", "page", "per_page", "search", "search_fields",
    "sort_field", "type", "aggs",
}  # fmt: skip
_TYPES = {
    "config", "dashboard", "index-pattern", "lens", "map", "query", "search", "tag", "url", "visualization",
}  # fmt: skip
_RESOLVABLE = {"conflict", "ambiguous_conflict", "missing_references"}
_CHECKED_REFERENCES = {"index-pattern", "search"}


def contract() -> Contract:
    """What Elastic describes, with its dashboards of 9.4; every path in any space."""
    spec = copy.deepcopy(description("kibana/slice-2025-11.json"))
    spec.pop("security", None)  # the stub looks at credentials itself, on both sides of right
    whole = description("kibana/kibana-oas-2025-11-filtered.yaml")
    spec["paths"]["/api/saved_objects/_bulk_delete"] = whole["paths"]["/api/saved_objects/_bulk_delete"]
    spec["paths"] |= description("kibana/dashboard-paths-2026-08.json")["paths"]
    for name in _named_schemas(spec["paths"]):  # the file of the dashboards' paths comes without its schemas
        spec["components"]["schemas"].setdefault(name, {})
    metrics = spec["components"]["schemas"]["Kibana_HTTP_APIs_core_status_response"]["properties"]["metrics"]
    metrics["additionalProperties"] = True  # the server sends those of process and host too
    found = spec["paths"]["/api/alerting/rules/_find"]["get"]["responses"]["200"]["content"]["application/json"]
    found["schema"] = _page_of(found["schema"])  # it describes one rule where the server sends a page of them
    form = spec["paths"]["/api/saved_objects/_import"]["post"]["requestBody"]["content"]["multipart/form-data"]
    form["schema"]["properties"]["file"] = {"type": "string", "format": "binary"}  # "object" is how Kibana holds it
    for path, item in list(spec["paths"].items()):
        own = {"name": "spaceId", "in": "path", "required": True, "schema": {"type": "string"}}
        if path.startswith("/s/{spaceId}"):
            without = copy.deepcopy(item)
            for operation in without.values():
                operation["parameters"] = [one for one in operation["parameters"] if "spaceId" not in str(one)]
            spec["paths"][path.removeprefix("/s/{spaceId}")] = without
        else:
            spec["paths"][f"/s/{{spaceId}}{path}"] = item | {"parameters": [own]}
    return Contract(spec)


def _page_of(item: dict[str, Any]) -> dict[str, Any]:
    numbers = {name: {"type": "number"} for name in ("page", "per_page", "total")}
    properties = numbers | {"data": {"type": "array", "items": item}}
    return {"type": "object", "properties": properties, "required": [*properties], "additionalProperties": False}


def _named_schemas(value: Any) -> set[str]:
    return set(re.findall(r"#/components/schemas/([A-Za-z0-9_.-]+)", json.dumps(value)))


class KibanaStub(Stub):
    """One Kibana.

    Args:
        version: `9.4` and later have the dashboards API.
        secured: whether it wants `API_KEY`, or `USER` and `PASSWORD`.
    """

    unchecked: ClassVar[dict[str, str]] = {"/api/stats": "Elastic does not describe it"}

    def __init__(self, contract: Contract | None = None, version: str = "8.19.4", *, secured: bool = True) -> None:
        self.version, self.secured = version, secured
        self.objects: dict[tuple[str, str, str], dict[str, Any]] = {}  # by space, type and id
        self.status_code = 200
        self.overall: dict[str, Any] = {"level": "available", "summary": "All services are available", "meta": {}}
        self.core = {
            "elasticsearch": {"level": "available", "summary": "Elasticsearch is available", "meta": {}},
            "savedObjects": {"level": "available", "summary": "migrations are done", "meta": {"migratedIndices": {}}},
        }
        self.plugins: dict[str, dict[str, Any]] = {
            name: {"level": "available", "summary": "All services are available", "meta": {}}
            for name in ("alerting", "dashboard", "taskManager")
        }
        self.metrics: dict[str, Any] = _metrics()
        self.task_manager: dict[str, Any] = _task_manager()
        self.alerting = {"decryption_health": "ok", "execution_health": "ok", "read_health": "ok"}
        self.secure = True
        self.rules: list[dict[str, Any]] = []
        self.refused_deletions: set[str] = set()
        self._clock = 0
        super().__init__(contract)

    def put(self, type: str, id: str, attributes: dict[str, Any], references: Any = (), space: str = "default") -> None:
        """Have a saved object."""
        self._clock += 1
        self.objects[space, type, id] = {
            "type": type,
            "id": id,
            "attributes": copy.deepcopy(attributes),
            "references": list(references),
            "updated_at": f"2026-01-01T00:{self._clock // 60 % 60:02}:{self._clock % 60:02}.000Z",
            "version": f"WzEs{self._clock}",
            "managed": False,
        }

    def held(self, type: str, space: str = "default") -> dict[str, dict[str, Any]]:
        """The objects of a type by id."""
        return {key[2]: one for key, one in self.objects.items() if key[:2] == (space, type)}

    def refuse(self, request: Request) -> Any | None:
        if request.method != "GET" and "kbn-xsrf" not in request.headers:
            return _fault(400, "Request must contain a kbn-xsrf header.")
        if self.known(request) or request.path == "/api/status":
            return None
        return _fault(401, "[security_exception] unable to authenticate")

    def known(self, request: Request) -> bool:
        """Whether it knows who asks."""
        given = request.authorization
        basic = given is not None and (given.username, given.password) == (USER, PASSWORD)
        return not self.secured or basic or request.headers.get("Authorization") == f"ApiKey {API_KEY}"

    @route("/api/status")
    def status(self, request: Request) -> Any:
        if not self.known(request):
            return {"status": {"overall": {"level": self.overall["level"]}}}, self.status_code
        body = {
            "name": "kibana-1",
            "uuid": "5b2de169-2785-441b-ae8c-186a1936b17d",
            "version": {
                "number": self.version, "build_hash": "abc", "build_number": 1, "build_snapshot": False,
                "build_flavor": "traditional", "build_date": "2026-01-01T00:00:00.000Z",
            },
            "status": {"overall": self.overall, "core": self.core, "plugins": self.plugins},
            "metrics": self.metrics,
        }  # fmt: skip
        return body, self.status_code

    @route("/api/stats")
    def stats(self, request: Request) -> Any:
        about = {"uuid": "5b2de169", "name": "kibana-1", "status": "green", "snapshot": False, "version": self.version}
        extended = {"usage": {}, "cluster_uuid": "RpUdRmlJTDeHXyYj1qFVLQ"} if request.args.get("extended") else {}
        return _as_stats(self.metrics) | {"kibana": about} | extended

    @route("/api/task_manager/_health")
    def task_manager_health(self, _: Request) -> Any:
        return self.task_manager

    @route("/api/alerting/_health")
    @route("/s/<space>/api/alerting/_health")
    def alerting_health(self, _: Request, space: str = "default") -> Any:
        health = {name: {"status": one, "timestamp": "2026-01-01T00:00:00.000Z"} for name, one in self.alerting.items()}
        return {
            "is_sufficiently_secure": self.secure,
            "has_permanent_encryption_key": True,
            "alerting_framework_health": health,
        }

    @route("/api/alerting/rules/_find")
    @route("/s/<space>/api/alerting/rules/_find")
    def find_rules(self, request: Request, space: str = "default") -> Any:
        page, size = int(request.args["page"]), int(request.args["per_page"])
        here = sorted((one for one in self.rules if one["space"] == space), key=lambda one: str(one["name"]))
        shown = [{k: v for k, v in one.items() if k != "space"} for one in here[(page - 1) * size : page * size]]
        return {"page": page, "per_page": size, "total": len(here), "data": shown}

    @route("/api/saved_objects/_find")
    @route("/s/<space>/api/saved_objects/_find")
    def find(self, request: Request, space: str = "default") -> Any:
        if unknown := set(request.args) - _FIND:
            return _fault(400, f"[request query.{unknown.pop()}]: definition for this key is missing")
        page, size = int(request.args.get("page", 1)), int(request.args.get("per_page", 20))
        if page * size > 10_000:
            return _fault(400, "Result window is too large")
        kinds, fields = request.args.getlist("type"), request.args.getlist("fields")
        if unsupported := set(kinds) - _TYPES:
            return _fault(400, f"Unsupported saved object type(s): {unsupported.pop()}")
        here = [one for (where, kind, _), one in self.objects.items() if where == space and kind in kinds]
        if phrase := request.args.get("search", "")[1:-1].replace('\\"', '"').lower():
            name = request.args["search_fields"]
            here = [one for one in here if phrase in str(one["attributes"].get(name, "")).lower()]
        here.sort(key=lambda one: str(one.get(request.args.get("sort_field", "id"))))
        shown = [_only(one, fields) for one in here[(page - 1) * size : page * size]]
        return {"page": page, "per_page": size, "total": len(here), "saved_objects": shown}

    @route("/api/saved_objects/_bulk_get", "POST")
    @route("/s/<space>/api/saved_objects/_bulk_get", "POST")
    def bulk_get(self, request: Request, space: str = "default") -> Any:
        return {"saved_objects": [self._one(space, one["type"], one["id"]) for one in request.get_json()]}

    @route("/api/saved_objects/_bulk_delete", "POST")
    @route("/s/<space>/api/saved_objects/_bulk_delete", "POST")
    def bulk_delete(self, request: Request, space: str = "default") -> Any:
        statuses = []
        for one in request.get_json():
            told = {"type": one["type"], "id": one["id"], "success": one["id"] not in self.refused_deletions}
            if told["success"]:
                self.objects.pop((space, one["type"], one["id"]))
            else:
                told["error"] = {"statusCode": 400, "error": "Bad Request", "message": "exists in multiple namespaces"}
            statuses.append(told)
        return {"statuses": statuses}

    @route("/api/saved_objects/_export", "POST")
    @route("/s/<space>/api/saved_objects/_export", "POST")
    def export(self, request: Request, space: str = "default") -> Any:
        body = request.get_json()
        due = [(one["type"], one["id"]) for one in body["objects"]]
        lines: dict[tuple[str, str], dict[str, Any]] = {}
        while due:
            name = due.pop(0)
            one = self.objects.get((space, *name))
            if one is None:
                return _fault(400, "Error fetching objects to export")
            lines[name] = one
            if body.get("includeReferencesDeep"):
                due += [(r["type"], r["id"]) for r in one["references"] if (r["type"], r["id"]) not in lines]
        text = [json.dumps(one) for one in lines.values()]
        if not body.get("excludeExportDetails"):
            text.append(json.dumps({"exportedCount": len(lines), "missingRefCount": 0, "missingReferences": []}))
        return Response("\n".join(text), content_type="application/x-ndjson")

    @route("/api/saved_objects/_import", "POST")
    @route("/s/<space>/api/saved_objects/_import", "POST")
    def import_(self, request: Request, space: str = "default") -> Any:
        with request.files["file"].stream as file:
            lines = [json.loads(line) for line in file.read().decode().split("\n") if line.strip()]
        objects = [one for one in lines if "exportedCount" not in one]
        errors = list(self._import_errors(space, objects, overwrite=request.args.get("overwrite") == "true"))
        bad = {(one["type"], one["id"]) for one in errors}
        good = [one for one in objects if (one["type"], one["id"]) not in bad]
        if not _RESOLVABLE & {one["error"]["type"] for one in errors}:
            for one in good:
                self.put(one["type"], one["id"], one["attributes"], one.get("references", ()), space)
        results = [{"type": one["type"], "id": one["id"], "meta": {}} for one in good]
        return {"success": not errors, "successCount": len(good), "errors": errors, "successResults": results}

    @route("/api/data_views")
    @route("/s/<space>/api/data_views")
    def data_views(self, _: Request, space: str = "default") -> Any:
        names = ("title", "name")
        views = self.held("index-pattern", space).items()
        told = [{k: one["attributes"][k] for k in names if k in one["attributes"]} | {"id": id} for id, one in views]
        return {"data_view": [one | {"namespaces": [space]} for one in told]}

    @route("/api/data_views/data_view", "POST")
    @route("/s/<space>/api/data_views/data_view", "POST")
    def add_data_view(self, request: Request, space: str = "default") -> Any:
        view = request.get_json()["data_view"]
        name = view.get("name") or view["title"]
        views = [one["attributes"] for one in self.held("index-pattern", space).values()]
        if name in {one.get("name") or one["title"] for one in views}:
            return _fault(400, f"Duplicate data view: {name}")
        id = view.pop("id", None) or f"made-{len(views)}"
        self.put("index-pattern", id, view, space=space)
        return {"data_view": view | {"id": id}}

    @route("/api/data_views/data_view/<id>")
    @route("/s/<space>/api/data_views/data_view/<id>")
    def data_view(self, _: Request, id: str, space: str = "default") -> Any:
        found = self.held("index-pattern", space).get(id)
        if found is None:
            return _fault(404, f"Saved object [index-pattern/{id}] not found")
        return {"data_view": found["attributes"] | {"id": id}}

    @route("/api/dashboards/<id>", "PUT")
    @route("/s/<space>/api/dashboards/<id>", "PUT")
    def put_dashboard(self, request: Request, id: str, space: str = "default") -> Any:
        if tuple(map(int, self.version.split(".")[:2])) < (9, 4):
            return _fault(404, "Not Found")
        state, new = request.get_json(), (space, "dashboard", id) not in self.objects
        if bad := [one for one in state["panels"] if one["type"] != "vis" or not one["config"].get("ref_id")]:
            return _fault(400, f"[request body.panels]: {bad[0]}")
        references = [
            {"type": "lens", "id": one["config"]["ref_id"], "name": f"{number}:panel_{number}"}
            for number, one in enumerate(state["panels"])
        ]
        self.put("dashboard", id, {key: state[key] for key in ("title", "description")}, references, space)
        return {"id": id, "data": state, "meta": {}}, 201 if new else 200

    def _one(self, space: str, type: str, id: str) -> dict[str, Any]:
        missing = {"statusCode": 404, "error": "Not Found", "message": f"Saved object [{type}/{id}] not found"}
        return self.objects.get((space, type, id)) or {"type": type, "id": id, "error": missing}

    def _import_errors(self, space: str, objects: list[dict[str, Any]], *, overwrite: bool) -> Iterable[dict[str, Any]]:
        inside = {(one["type"], one["id"]) for one in objects}
        for one in objects:
            error: dict[str, Any] | None = None
            missing = [
                {"type": r["type"], "id": r["id"]}
                for r in one.get("references", ())
                if r["type"] in _CHECKED_REFERENCES
                and (r["type"], r["id"]) not in inside
                and (space, r["type"], r["id"]) not in self.objects
            ]
            if one["type"] not in _TYPES:
                error = {"type": "unsupported_type"}
            elif missing:
                error = {"type": "missing_references", "references": missing}
            elif (space, one["type"], one["id"]) in self.objects and not overwrite:
                error = {"type": "conflict"}
            if error:
                title = one["attributes"].get("title", "")
                yield {"type": one["type"], "id": one["id"], "title": title, "meta": {"title": title}, "error": error}


def rule(id: str, name: str, status: str = "ok", *, space: str = "default", **more: Any) -> dict[str, Any]:
    """An alerting rule as Kibana tells it."""
    run = {"status": status, "last_execution_date": "2026-01-01T00:00:00.000Z", "last_duration": 1500}
    counts = {"active": 2 if status == "active" else 0, "new": 0, "recovered": 0, "ignored": 0}
    return {
        "space": space, "id": id, "name": name, "enabled": True, "tags": ["ops"], "rule_type_id": ".index-threshold",
        "consumer": "alerts", "schedule": {"interval": "1m"}, "actions": [], "params": {}, "created_by": "elastic",
        "updated_by": "elastic", "created_at": "2026-01-01T00:00:00.000Z", "updated_at": "2026-01-01T00:00:00.000Z",
        "api_key_owner": "elastic", "mute_all": False, "muted_alert_ids": [], "revision": 1, "execution_status": run,
        "last_run": {"outcome": "succeeded", "alerts_count": counts},
    } | more  # fmt: skip


def _fault(status: int, message: str) -> tuple[dict[str, Any], int]:
    names = {400: "Bad Request", 401: "Unauthorized", 404: "Not Found"}
    return {"statusCode": status, "error": names[status], "message": message}, status


def _only(one: dict[str, Any], fields: list[str]) -> dict[str, Any]:
    if not fields:
        return one
    return one | {"attributes": {name: one["attributes"][name] for name in fields if name in one["attributes"]}}


def _as_stats(value: Any) -> Any:
    """As `/api/stats` writes names: `_bytes` for `_in_bytes`, `_ms` for `_in_millis`, no capitals."""
    if not isinstance(value, dict):
        return value
    snake = {re.sub(r"(?<=[a-z])([A-Z])", r"_\1", name).lower(): inner for name, inner in value.items()}
    short = {name.replace("_in_bytes", "_bytes").replace("_in_millis", "_ms"): inner for name, inner in snake.items()}
    return {name: _as_stats(inner) for name, inner in short.items()}


def _metrics() -> dict[str, Any]:
    process = {
        "pid": 7,
        "memory": {
            "heap": {"total_in_bytes": 600_000_000, "used_in_bytes": 400_000_000, "size_limit": 2_197_815_296},
            "resident_set_size_in_bytes": 800_000_000, "external_in_bytes": 9_000_000, "array_buffers_in_bytes": 5_000,
        },
        "event_loop_delay": 10.5,
        "event_loop_delay_histogram": {
            "min": 9.1, "max": 55.0, "mean": 10.5, "exceeds": 0, "stddev": 1.5,
            "fromTimestamp": "2026-01-01T00:00:00.000Z", "lastUpdatedAt": "2026-01-01T00:00:05.000Z",
            "percentiles": {"50": 10, "75": 11, "90": 12, "95": 13, "99": 20},
        },
        "event_loop_utilization": {"idle": 4500.0, "active": 500.0, "utilization": 0.1},
        "uptime_in_millis": 3_600_500,
    }  # fmt: skip
    return {
        "last_updated": "2026-01-01T00:00:05.000Z",
        "collection_interval_in_millis": 5000,
        "os": {
            "platform": "linux", "platformRelease": "linux-6.1", "distro": "Debian", "distroRelease": "Debian-12",
            "load": {"1m": 0.5, "5m": 0.25, "15m": 0.125},
            "memory": {"total_in_bytes": 8_000, "free_in_bytes": 3_000, "used_in_bytes": 5_000},
            "uptime_in_millis": 7_200_000,
            "cpuacct": {"control_group": "/", "usage_nanos": 2_500_000_000},
            "cpu": {
                "control_group": "/", "cfs_period_micros": 100_000, "cfs_quota_micros": 200_000,
                "stat": {
                    "number_of_elapsed_periods": 9, "number_of_times_throttled": 2, "time_throttled_nanos": 500_000_000,
                },
            },
            "cgroup_memory": {"current_in_bytes": 900, "swap_current_in_bytes": 10},
        },
        "process": process,
        "processes": [process],
        "response_times": {"avg_in_millis": 12.5, "max_in_millis": 250},
        "concurrent_connections": 4,
        "requests": {
            "disconnects": 1, "total": 25, "statusCodes": {"200": 24, "404": 1}, "status_codes": {"200": 24, "404": 1},
        },
        "elasticsearch_client": {"totalActiveSockets": 3, "totalIdleSockets": 2, "totalQueuedRequests": 1},
    }  # fmt: skip


def _quantiles(p50: float) -> dict[str, float]:
    return {"p50": p50, "p90": p50 * 2, "p95": p50 * 3, "p99": p50 * 4}


def _task_manager() -> dict[str, Any]:
    at = "2026-01-01T00:00:00.000Z"
    kind = "alerting:.index-threshold"
    results = {"Success": 90, "RetryScheduled": 5, "Failed": 5, "status": "OK"}
    runtime = {
        "polling": {
            "last_successful_poll": at, "last_polling_delay": at, "duration": _quantiles(4),
            "claim_duration": _quantiles(3), "claim_conflicts": _quantiles(0), "claim_mismatches": _quantiles(0),
            "claim_stale_tasks": _quantiles(0),
            "result_frequency_percent_as_number": {"NoTasksClaimed": 80, "PoolFilled": 20},
            "persistence": {"recurring": 90, "non_recurring": 10},
        },
        "drift": _quantiles(1500),
        "drift_by_type": {kind: _quantiles(1000)},
        "load": _quantiles(10),
        "execution": {
            "duration": {kind: _quantiles(200)},
            "duration_by_persistence": {"recurring": _quantiles(150), "non_recurring": _quantiles(50)},
            "persistence": {"recurring": 95, "non_recurring": 5},
            "result_frequency_percent_as_number": {kind: results},
        },
    }  # fmt: skip
    workload = {
        "count": 30, "cost": 60, "non_recurring": 4, "non_recurring_cost": 8, "overdue": 2, "overdue_cost": 4,
        "overdue_non_recurring": 1, "schedule": [["1m", 3]], "estimated_schedule_density": [0, 1],
        "capacity_requirements": {"per_minute": 3, "per_hour": 12, "per_day": 5},
        "task_types": {kind: {"count": 3, "cost": 6, "status": {"idle": 2, "running": 1}}},
    }  # fmt: skip
    throughput = ("max_throughput", "avg_required_throughput", "avg_recurring_required_throughput")
    observed = {f"{name}_per_minute{of}": 9 for name in throughput for of in ("", "_per_kibana")}
    capacity = {
        "observed": observed | {"observed_kibana_instances": 1, "minutes_to_drain_overdue": 2},
        "proposed": {
            "provisioned_kibana": 1, "min_required_kibana": 1,
            "avg_recurring_required_throughput_per_minute_per_kibana": 4,
            "avg_required_throughput_per_minute_per_kibana": 5,
        },
    }  # fmt: skip
    configuration = {
        "request_capacity": 1000, "monitored_aggregated_stats_refresh_rate": 60_000, "claim_strategy": "mget",
        "monitored_stats_running_average_window": 50, "poll_interval": 3000, "max_workers": 10,
        "monitored_task_execution_thresholds": {"default": {"error_threshold": 90, "warn_threshold": 80}, "custom": {}},
        "capacity": {"config": 10, "as_workers": 10, "as_cost": 20},
    }  # fmt: skip
    parts = {
        "configuration": configuration, "runtime": runtime, "workload": workload, "capacity_estimation": capacity,
    }  # fmt: skip
    return {
        "id": "5b2de169-2785-441b-ae8c-186a1936b17d",
        "timestamp": at,
        "status": "OK",
        "last_update": at,
        "stats": {name: {"timestamp": at, "status": "OK", "value": value} for name, value in parts.items()},
    }
