"""An agent of Netdata 2.x that is a parent: API 3, and what it keeps of API 1.

Its shapes are those of version 2.9 (https://github.com/netdata/netdata/tree/v2.9.0/src/database/contexts).
"""

import time
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from itertools import count
from typing import Any
from uuid import UUID

from werkzeug.wrappers import Request, Response

from tests.contract.vendor import Contract
from tests.stubs.stub import Stub, route

OWN, CHILD = str(UUID(int=0xA11CE)), str(UUID(int=0xB0B))
_DAY = 86_400


@dataclass
class StubNode:
    """A node: `charts` are (context, units, dimension) by id, `values` the last value of each chart."""

    guid: str
    name: str
    reachable: bool = True
    charts: dict[str, tuple[str, str, str]] = field(default_factory=dict)
    values: dict[str, float | None] = field(default_factory=dict)
    alerts: dict[tuple[str, str], str] = field(default_factory=dict)  # chart and name to status


class NetdataStub(Stub):
    """A parent with one child. Thread-safe: one request at a time.

    Args:
        key: of the management API.
        bearer: with this token only; empty: no bearer token protection.
    """

    unchecked = {"/host/": "the description knows each path once, without the node before it"}  # noqa: RUF012

    def __init__(self, contract: Contract | None = None, *, key: str = "key", bearer: str = "") -> None:
        self.key, self.bearer, self.forbidden = key, bearer, False
        self.version = "v2.9.0"
        self.nodes = [StubNode(OWN, "parent"), StubNode(CHILD, "child")]
        for node in self.nodes:
            for chart, context, units, dimension in (
                ("system.load", "system.load", "load", "load1"),
                ("disk_ops.sda", "disk.ops", "operations/s", "reads"),
                ("disk_ops.sdb", "disk.ops", "operations/s", "reads"),
            ):
                node.charts[chart], node.values[chart] = (context, units, dimension), 1.5
        self.nodes[0].charts["netdata.memory"] = ("netdata.memory", "bytes", "dbengine")
        self.nodes[0].values["netdata.memory"] = 4096.0
        self.silencers: dict[str, Any] = {"all": False, "type": "None", "silencers": []}
        self.transitions_: list[dict[str, Any]] = []
        self._ids = count(int(time.time() * 1e6))
        super().__init__(contract)

    def turn(self, node: StubNode, chart: str, alert: str, status: str, *, gi: int = 0) -> None:
        """An alert comes into a status, which is written down as a transition."""
        old = node.alerts.get((chart, alert), "UNINITIALIZED")
        node.alerts[chart, alert] = status
        change = {
            "gi": gi or next(self._ids),
            "alert": alert,
            "machine_guid": node.guid,
            "hostname": node.name,
            "instance": chart,
            "context": node.charts[chart][0],
            "when": int(time.time()),
            "info": "of the tests",
            "units": node.charts[chart][1],
            "new": {"status": status, "value": node.values[chart]},
            "old": {"status": old, "value": None, "duration": 5, "raised_duration": 0},
        }
        self.transitions_.append(change)

    def refuse(self, request: Request) -> Any | None:
        if self.forbidden:
            return Response("You need to be authorized to access this resource", 451)
        open_to_all = request.path in ("/api/v3/info", "/api/v1/manage/health")
        if self.bearer and not open_to_all and request.headers.get("Authorization") != f"Bearer {self.bearer}":
            return Response("You need to be authorized to access this resource", 412)
        return None

    @route("/api/v3/info")
    def info(self, _: Request) -> Any:
        tier = {"tier": 0, "granularity": "1s", "metrics": 8, "samples": 100, "disk_used": 4096, "disk_max": 8192}
        times = {"from": 1_700_000_000, "to": 1_700_000_600, "retention": 600, "retention_human": "10m"}
        planned = {"requested_retention": _DAY, "expected_retention": 2 * _DAY, "currently_collected_metrics": 7}
        agent = {
            **self._agent(),
            "application": {
                "package": {"version": self.version, "type": "static", "arch": "x86_64", "distro": ""},
                "os": {"kernel": "Linux", "kernel_version": "6.1", "os": "Debian GNU/Linux", "version": "12"},
                "features": {"built-for": "Linux", "cloud": True},
                "runtime": {"profile": "parent", "parent": True},
            },
            "cloud": {"id": 0, "status": "available", "since": 1_700_000_000, "age": 5},
            "nodes": {"total": 2, "receiving": 1, "sending": 0, "archived": 0},
            "metrics": {"collected": 7, "available": 8},
            "instances": {"collected": 7, "available": 7},
            "contexts": {"collected": 3, "available": 3, "unique": 3},
            "capabilities": [{"name": "proto", "version": 1, "enabled": True}],
            "api": {"version": 7, "bearer_protection": bool(self.bearer)},
            "db_size": [tier | times | planned],
            "timings": {"prep_ms": 0.1, "total_ms": 0.2},
        }
        return {"api": 2, "agents": [agent]}

    @route("/api/v3/nodes")
    def nodes_(self, _: Request) -> Any:
        return {"api": 2, "nodes": [self._node(i, one) | self._system(one) for i, one in enumerate(self.nodes)]}

    @route("/api/v3/node_instances")
    def node_instances(self, _: Request) -> Any:
        nodes = [self._node(i, one) | {"instances": [self._instance(i, one)]} for i, one in enumerate(self.nodes)]
        return {"api": 2, "nodes": nodes, "agents": [self._agent()]}

    @route("/api/v3/contexts")
    def contexts(self, request: Request) -> Any:
        scope = request.args.get("scope_nodes", "*")
        nodes = [node for node in self.nodes if simple_pattern_matches(scope, node.name)]
        chosen = [one for node in nodes for one in node.charts.values()]
        about = {"title": "a title", "priority": 1, "first_entry": 1_700_000_000, "last_entry": 1_700_000_600}
        contexts = {name: about | {"family": "f", "units": units, "live": True} for name, units, _ in chosen}
        return {"api": 2, "contexts": contexts, "nodes": [self._node(i, one) for i, one in enumerate(self.nodes)]}

    @route("/api/v3/alerts")
    def alerts(self, request: Request) -> Any:
        wanted = request.args.get("status", "").split(",")  # only small letters count: others choose nothing
        wanted = [word for word in wanted if word in ("warning", "critical", "clear", "undefined")]
        found = [
            {
                "ni": i,
                "gi": 1,
                "nm": name,
                "ctx": node.charts[chart][0],
                "ch": chart,
                "ch_n": chart,
                "st": status,
                "fami": "f",
                "info": "of the tests",
                "sum": "",
                "units": node.charts[chart][1],
                "tr_v": 1.0,
                "tr_t": 1_700_000_000,
                "src": "line=1",
                "to": "sysadmin",
                "tp": "System",
                "cm": "Load",
                "cl": "Workload",
                "v": node.values[chart],
                "t": 1_700_000_005,
            }
            for i, node in enumerate(self.nodes)
            for (chart, name), status in node.alerts.items()
            if not wanted or status.lower() in wanted
        ]
        nodes = [self._node(i, one) for i, one in enumerate(self.nodes)]
        return {"api": 2, "nodes": nodes, "alert_instances": found}

    @route("/api/v3/alert_transitions")
    def alert_transitions(self, request: Request) -> Any:
        anchor, last = int(request.args.get("anchor_gi", 0)), int(request.args["last"])
        since = time.time() + int(request.args.get("after", 0))  # without it the window is empty
        in_window = [one for one in self.transitions_ if one["gi"] / 1e6 >= since]
        newer = sorted((one for one in in_window if one["gi"] > anchor), key=lambda one: -one["gi"])
        items = {"evaluated": len(in_window), "matched": len(in_window), "returned": len(newer[:last])}
        return {
            "api": 2,
            "nodes": [self._node(i, one) for i, one in enumerate(self.nodes)],
            "facets": [],
            "transitions": newer[:last],
            "items": items | {"before": len(in_window) - len(newer), "after": len(newer[last:])},
        }

    @route("/api/v3/allmetrics")
    def own_metrics(self, request: Request) -> Any:
        return self._charts(self.nodes[0], request.args.get("filter", "*"))

    @route("/host/<guid>/api/v3/allmetrics")
    def metrics(self, request: Request, guid: str) -> Any:
        node = next((one for one in self.nodes if one.guid == guid), None)
        if node is None:
            return Response(f"This netdata does not maintain a database for host: {guid}", 404)
        return self._charts(node, request.args.get("filter", "*"))

    @route("/api/v3/data")
    def data(self, request: Request) -> Any:
        for node in self.nodes:
            chart = request.args["scope_instances"]
            if request.args["scope_nodes"] == node.guid and chart in node.charts:
                labels = ["time", node.charts[chart][2]]
                rows = [[1_700_000_000 + i, [node.values[chart], 0, 0]] for i in range(3)]
                rows.append([1_700_000_003, [None, 0, 1]])
                result = {"labels": labels, "point": {"value": 0, "arp": 1, "pa": 2}, "data": rows}
                return {"api": 2, "result": result}
        return Response("No metrics where matched to query.", 404)

    @route("/api/v1/charts")
    def charts_(self, _: Request) -> Any:
        own = self.nodes[0]
        charts = {
            name: {
                "id": name,
                "name": name,
                "type": name.partition(".")[0],
                "family": "f",
                "context": context,
                "title": "a title",
                "units": units,
                "update_every": 1,
                "dimensions": {dimension: {"name": dimension}},
                "chart_labels": {"_collect_plugin": "proc.plugin"},
            }
            for name, (context, units, dimension) in own.charts.items()
        }
        return {"hostname": own.name, "version": self.version, "os": "linux", "charts": charts}

    @route("/api/v1/manage/health")
    def manage(self, request: Request) -> Any:
        if request.headers.get("X-Auth-Token") != self.key:
            return Response("Auth Error\n", 403)
        command = request.args.get("cmd", "")
        if command == "LIST":
            return self.silencers
        if command == "RESET":
            self.silencers = {"all": False, "type": "None", "silencers": []}
        elif command:
            self.silencers["type"] = command.split()[0]
            self.silencers["all"] |= command.endswith(" ALL")
        silencer = {name: request.args[name] for name in ("alarm", "chart", "context", "hosts") if name in request.args}
        if silencer:
            self.silencers["silencers"].insert(0, silencer)
        return Response("done\n", content_type="text/plain")

    def _agent(self) -> dict[str, Any]:
        return {"mg": OWN, "nm": self.nodes[0].name, "now": int(time.time()), "ai": 0}

    def _node(self, index: int, one: StubNode) -> dict[str, Any]:
        return {"mg": one.guid, "nm": one.name, "ni": index, "st": {"ai": 0, "code": 200, "msg": ""}}

    def _system(self, one: StubNode) -> dict[str, Any]:
        counts = {
            status: sum(now.lower() == status for now in one.alerts.values()) for status in ("critical", "warning")
        }
        return {
            "v": self.version,
            "labels": {"_os_name": "Debian GNU/Linux"},
            "hw": {"architecture": "x86_64", "cpu_frequency": "2800000000", "cpus": "2", "memory": "4096",
                   "disk_space": "8192", "virtualization": "kvm", "container": "none"},
            "os": {"id": "debian", "nm": "Debian GNU/Linux", "v": "12", "kernel": {"nm": "Linux", "v": "6.1"}},
            "state": "reachable" if one.reachable else "stale",
            "health": {"status": "running", "alerts": counts | {"clear": 3, "undefined": 0, "uninitialized": 0}},
            "capabilities": [{"name": "proto", "version": 1, "enabled": True}],
        }  # fmt: skip

    def _instance(self, index: int, one: StubNode) -> dict[str, Any]:
        size = {"metrics": len(one.charts), "instances": len(one.charts), "contexts": 2}
        times = {"first_time": 1_700_000_000, "last_time": 1_700_000_600}
        replication = {"in_progress": True, "completion": 40.0, "instances": 1}
        found: dict[str, Any] = {
            "st": {"ai": 0, "code": 200, "msg": ""},
            "db": {"status": "online", "liveness": "live", "mode": "dbengine", **times, **size},
            "ingest": {"id": 1, "hops": index, "type": "child" if index else "localhost", "status": "online",
                       "since": 1_700_000_000, "age": 60, **size, "replication": replication},
            "ml": {"status": "running", "type": "self", "metrics": {"anomalous": 1, "normal": 5, "trained": 6,
                                                                    "pending": 0, "silenced": 0}},
            "health": {"status": "running"},
            "functions": {},
        }  # fmt: skip
        if index == 0:
            traffic = {"compression": True, "data": 1000, "metadata": 10, "functions": 0, "replication": 5}
            destination = {"local": "[::1]:1", "remote": "[::1]:2", "traffic": traffic, "parents": []}
            stream = {"id": 1, "hops": 1, "status": "online", "since": 1_700_000_000, "age": 30}
            found["stream"] = stream | {"replication": replication, "destination": destination}
        return found

    def _charts(self, node: StubNode, chosen: str) -> Any:
        return {
            name: {
                "name": name,
                "family": "f",
                "context": context,
                "units": units,
                "last_updated": 1_700_000_600,
                "dimensions": {dimension: {"name": dimension, "value": node.values[name]}},
            }
            for name, (context, units, dimension) in node.charts.items()
            if simple_pattern_matches(chosen, name)
        }


def simple_pattern_matches(pattern: str, name: str) -> bool:
    """Netdata's simple patterns: the first word that matches decides."""
    for word in pattern.split():
        if fnmatchcase(name, word.removeprefix("!")):
            return not word.startswith("!")
    return False
