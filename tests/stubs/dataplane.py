"""HAProxy's Data Plane API, versions 2 and 3: a configuration with transactions and reloads, and what runs.

What a reload would have to refuse and what somebody else changes meanwhile is told to it by attributes.
"""

import copy
import itertools
from collections.abc import Mapping
from functools import cache
from typing import Any, ClassVar

from werkzeug.exceptions import NotFound
from werkzeug.wrappers import Request, Response

from tests.contract.swagger2 import as_openapi3
from tests.contract.vendor import SPECS, Contract, description
from tests.stubs.stub import Stub, as_response, route

USER, PASSWORD = "nms", "pa:ss word"
FILES = {2: "haproxy/haproxy_spec-v2-dpa2.9.yaml", 3: "haproxy/haproxy_spec-v3-dpa3.2.yaml"}
_ROOT = "/v<int:v>/services/haproxy"
_CONFIGURED = f"{_ROOT}/configuration"
_V3_SERVERS = f"{_CONFIGURED}/backends/<backend>/servers"
_V3_RUNNING = f"{_ROOT}/runtime/backends/<backend>/servers"
_V2_RUNNING = f"{_ROOT}/runtime/servers"

Servers = dict[str, dict[str, Any]]


class DataPlaneStub(Stub):
    """One of the versions 2 and 3, with the backend `be_app` of the servers app1 and app2.

    Checks what it gets and gives where the vendor's description is to be had.

    Attributes:
        configured, running: by backend and server: settings in the file, and in the process.
        meddlers: so many of the next commits find that somebody else changed the file.
        outdated: the same is told with 406, as some versions of the API do.
        refusal: words a reload fails with, if any; `refuses_all` says whether also that which puts things back.
        looks: how often a reload is asked for until it has ended.
        busy: how often a server that is deleted has connections still.
    """

    unchecked: ClassVar[Mapping[str, str]] = {}

    def __init__(self, version: int) -> None:
        servers: Servers = {
            name: {"name": name, "address": "192.0.2.10", "port": port, "weight": 10, "check": "enabled"}
            for name, port in (("app1", 8001), ("app2", 8002))
        }
        self.version = version
        self.configured: dict[str, Servers] = {"be_app": servers}
        self.running: dict[str, Servers] = {}
        self.meddlers = self.looks = self.busy = 0
        self.outdated = self.refuses_all = False
        self.refusal = ""
        self.file_version = 7
        self.open: dict[str, tuple[int, dict[str, Servers]]] = {}  # transactions: since which version, and what
        self.reloads: dict[str, dict[str, Any]] = {}
        self._numbers = itertools.count(1)
        other, states = 5 - version, f"/v{version}/services/haproxy/stats/native"
        self.unchecked = {  # type: ignore[misc]
            f"/v{other}": "the version it does not have",
            states: "the description's list of states knows no OPEN and no DRAIN",
        }
        self._reload()
        super().__init__(_contract(version) if (SPECS / FILES[version]).exists() else None)

    def refuse(self, request: Request) -> Any:
        login = request.authorization
        if login is None or (login.username, login.password) != (USER, PASSWORD):
            return {"code": 401, "message": "unauthenticated for invalid credentials"}, 401
        if not request.path.startswith(f"/v{self.version}/"):
            return {"code": 404, "message": f"path {request.path} was not found"}, 404
        return None

    @route("/v<int:v>/info")
    def info(self, _: Request, v: int) -> Any:
        return {"api": {"version": f"v{v}.2.0 0123456"}, "system": {}}

    @route(f"{_ROOT}/runtime/info")
    def process(self, _: Request, v: int) -> Any:
        one = {"info": {"version": "3.2.4", "pid": 7, "uptime": 60, "idle_pct": 97, "mem_max_mb": 2, "curr_conns": 3}}
        return [one] if v == 2 else one

    @route(f"{_ROOT}/stats/native")
    def native(self, _: Request, v: int) -> Any:
        rows = [{"type": "frontend", "name": "fe_web", "stats": {"status": "OPEN", "scur": 4, "bin": 1000}}]
        for backend, servers in self.running.items():
            rows += [self._statistics(backend, one) for one in servers.values()]
            rows.append({"type": "backend", "name": backend, "stats": {"status": "UP", "act": len(servers)}})
        whole = {"runtimeAPI": "/run/haproxy.sock", "stats": rows}
        return [whole] if v == 2 else whole

    @route(f"{_ROOT}/runtime/stick_tables")
    def tables(self, _: Request, v: int) -> Any:
        return [{"name": "fe_web", "type": "ip", "size": 100, "used": 2}]

    @route(f"{_ROOT}/runtime/stick_table_entries")
    @route(f"{_ROOT}/runtime/stick_tables/<table>/entries")
    def entries(self, request: Request, v: int, table: str = "") -> Any:
        table = table or request.args["stick_table"]
        held = [{"key": f"192.0.2.{n}", "id": f"0x{n}", "exp": 1, "conn_cnt": n} for n in (1, 2)]
        return held[: int(request.args["count"])] if table == "fe_web" else []

    @route(f"{_ROOT}/runtime/ssl_certs")
    def certificates(self, _: Request, v: int) -> Any:
        return [{"storage_name": "site one.pem"}]

    @route(f"{_ROOT}/runtime/ssl_certs/<name>")
    def certificate(self, _: Request, v: int, name: str) -> Any:
        dates = {"not_before": "2025-01-01T00:00:00.000Z", "not_after": "2025-04-01T00:00:00.000Z"}
        return {"storage_name": name, "subject": "/CN=www.example", **dates}

    @route(_V2_RUNNING)
    @route(_V3_RUNNING)
    def servers(self, request: Request, v: int, backend: str = "") -> Any:
        return [_shown(one) for one in self._running(request, backend).values()]

    @route(_V2_RUNNING, "POST")
    @route(_V3_RUNNING, "POST")
    def add(self, request: Request, v: int, backend: str = "") -> Any:
        servers, new = self._running(request, backend), request.get_json()
        if new["name"] in servers:
            return _error(409, "server already exists")
        servers[new["name"]] = {**new, "admin_state": "maint"}
        return new, 201

    @route(f"{_V2_RUNNING}/<name>", "PUT")
    @route(f"{_V3_RUNNING}/<name>", "PUT")
    def set_state(self, request: Request, v: int, name: str, backend: str = "") -> Any:
        one = _of(self._running(request, backend), name)
        one["admin_state"] = request.get_json()["admin_state"]
        return _shown(one)

    @route(f"{_V2_RUNNING}/<name>", "DELETE")
    @route(f"{_V3_RUNNING}/<name>", "DELETE")
    def delete(self, request: Request, v: int, name: str, backend: str = "") -> Any:
        servers = self._running(request, backend)
        if _of(servers, name)["admin_state"] != "maint":
            return _error(400, "Only servers in maintenance mode can be deleted.")
        if self.busy:
            self.busy -= 1
            return _error(400, "Server still has connections attached to it, cannot remove it.")
        del servers[name]
        return "", 204

    @route(f"{_CONFIGURED}/version")
    def configuration_version(self, _: Request, v: int) -> Any:
        return self.file_version

    @route(f"{_CONFIGURED}/servers")
    @route(_V3_SERVERS)
    def configured_servers(self, request: Request, v: int, backend: str = "") -> Any:
        return self._wrapped(list(self._file(request, backend).values()))

    @route(f"{_CONFIGURED}/servers/<name>")
    @route(f"{_V3_SERVERS}/<name>")
    def configured_server(self, request: Request, v: int, name: str, backend: str = "") -> Any:
        return self._wrapped(_of(self._file(request, backend), name))

    @route(f"{_CONFIGURED}/servers", "POST")
    @route(_V3_SERVERS, "POST")
    def configure(self, request: Request, v: int, backend: str = "") -> Any:
        servers, new = self._file(request, backend), request.get_json()
        if new["name"] in servers:
            return _error(409, f"object {new['name']} already exists")
        servers[new["name"]] = new
        return new, 202 if "transaction_id" in request.args else 201

    @route(f"{_CONFIGURED}/servers/<name>", "PUT")
    @route(f"{_V3_SERVERS}/<name>", "PUT")
    def replace(self, request: Request, v: int, name: str, backend: str = "") -> Any:
        servers = self._file(request, backend)
        _of(servers, name)
        servers[name] = request.get_json()
        return servers[name], 202

    @route(f"{_CONFIGURED}/servers/<name>", "DELETE")
    @route(f"{_V3_SERVERS}/<name>", "DELETE")
    def unconfigure(self, request: Request, v: int, name: str, backend: str = "") -> Any:
        servers = self._file(request, backend)
        _of(servers, name)
        del servers[name]
        return "", 204

    @route(f"{_ROOT}/transactions", "POST")
    def begin(self, request: Request, v: int) -> Any:
        if int(request.args["version"]) != self.file_version:
            return self._conflict()
        if len(self.open) >= 20:
            return _error(429, "cannot start a new transaction, reached the maximum amount of 20")
        name = f"00000000-0000-4000-8000-{next(self._numbers):012}"
        self.open[name] = (self.file_version, copy.deepcopy(self.configured))
        return {"_version": self.file_version, "id": name, "status": "in_progress"}, 201

    @route(f"{_ROOT}/transactions/<name>")
    def transaction(self, _: Request, v: int, name: str) -> Any:
        since, _servers = self._transaction(name)
        status = "in_progress" if since == self.file_version else "outdated"
        return {"_version": since, "id": name, "status": status}

    @route(f"{_ROOT}/transactions/<name>", "DELETE")
    def drop(self, _: Request, v: int, name: str) -> Any:
        self._transaction(name)
        del self.open[name]
        return "", 204

    @route(f"{_ROOT}/transactions/<name>", "PUT")
    def commit(self, _: Request, v: int, name: str) -> Any:
        since, servers = self._transaction(name)
        if self.meddlers:
            self.meddlers -= 1
            self.file_version += 1
        if since != self.file_version:
            return _error(406, f"transaction {name} is outdated") if self.outdated else self._conflict()
        del self.open[name]
        self.configured, self.file_version = servers, self.file_version + 1
        done = {"_version": self.file_version, "id": name, "status": "success"}
        answer = as_response((done, 202))
        answer.headers["Reload-ID"] = self._asked_to_reload()
        return answer

    @route(f"{_ROOT}/reloads/<name>")
    def reload(self, _: Request, v: int, name: str) -> Any:
        one = self.reloads.get(name)
        if one is None:
            raise NotFound
        if one["looks"]:
            one["looks"] -= 1
            return {"id": name, "status": "in_progress"}
        return {"id": name, "status": one["status"], "response": one["response"]}

    def _asked_to_reload(self) -> str:
        name, refusal = f"2026-01-01-{next(self._numbers)}", self.refusal
        status = "failed" if refusal else "succeeded"
        self.reloads[name] = {"looks": self.looks, "status": status, "response": refusal or "ok"}
        if not refusal:
            self._reload()
        if not self.refuses_all:
            self.refusal = ""
        return name

    def _reload(self) -> None:
        self.running = {
            backend: {
                name: {**one, "admin_state": "maint" if one.get("maintenance") == "enabled" else "ready"}
                for name, one in servers.items()
            }
            for backend, servers in self.configured.items()
        }

    def _conflict(self) -> Response:
        answer = as_response(_error(409, f"version mismatch, the file has {self.file_version}"))
        answer.headers["Configuration-Version"] = str(self.file_version)
        return answer

    def _wrapped(self, data: Any) -> Any:
        return {"_version": self.file_version, "data": data} if self.version == 2 else data

    def _running(self, request: Request, backend: str) -> Servers:
        return _of(self.running, backend or request.args["backend"])

    def _file(self, request: Request, backend: str) -> Servers:
        transaction = request.args.get("transaction_id")
        held = self._transaction(transaction)[1] if transaction else self.configured
        return _of(held, backend or request.args["parent_name"])

    def _transaction(self, name: str) -> tuple[int, dict[str, Servers]]:
        return _of(self.open, name)

    def _statistics(self, backend: str, one: Mapping[str, Any]) -> dict[str, Any]:
        status = {"ready": "UP", "drain": "DRAIN", "maint": "MAINT"}[one["admin_state"]]
        fields = {"status": status, "weight": one.get("weight", 1), "scur": 2, "check_status": "L7OK", "lastsess": -1}
        return {"type": "server", "name": one["name"], "backend_name": backend, "stats": fields}


@cache
def _contract(version: int) -> Contract:
    described = as_openapi3(description(FILES[version]))
    for one in described["components"]["schemas"]["runtime_add_server"]["properties"].values():
        one.pop("readOnly", None)  # a slip: nobody could add a server whose name and address are not to be written
    return Contract(described, f"/v{version}")


def _shown(one: Mapping[str, Any]) -> dict[str, Any]:
    up = "up" if one["admin_state"] == "ready" else "stopping"
    told = {name: one[name] for name in ("name", "address", "port", "admin_state")}
    return told | {"operational_state": up}


def _of(held: Mapping[str, Any], name: str) -> Any:
    if name not in held:
        raise NotFound
    return held[name]


def _error(code: int, message: str) -> tuple[dict[str, Any], int]:
    return {"code": code, "message": message}, code
