"""An ntopng that keeps interfaces, hosts, flows and alerts, and tells them as the Lua scripts of ntopng do.

Behaves as its source does where its description is silent: who may not ask is sent to the login page, an empty table
is `[]`, errors come in the envelope with a status of their own, alerts are filtered by row, time and status.
"""

import copy
import re
from typing import Any

from werkzeug.wrappers import Request, Response

from tests.contract.vendor import Contract, description
from tests.stubs.stub import Stub, route

TOKEN = "0123456789abcdef0123456789abcdef"
USER, PASSWORD = "nms", "s3cr3t pass:word"
_GET = "/lua/rest/v2/get"
_ERRORS = {
    "NOT_FOUND": (404, -1), "INVALID_INTERFACE": (400, -2), "NOT_GRANTED": (401, -3), "INVALID_ARGUMENTS": (400, -5),
    "INTERNAL_ERROR": (500, -6),
}  # fmt: skip
_RECORDS = ("a", "aaaa", "any", "cname", "mx", "ns", "other", "ptr", "soa", "txt")
# required by the description, and never looked at, or only a filter, in the scripts themselves
_NOT_REQUIRED = {"alert_id", "host", "subtype", "format"}


def contract() -> Contract:
    """What ntop describes."""
    spec = copy.deepcopy(description("ntopng/slice-v2-oas3.json"))
    older = description("ntopng/rest-api-v2.json")["paths"]  # Swagger 2
    for family in ("mac", "network", "user"):
        path = f"{_GET}/{family}/alert/list.lua"
        spec["paths"][path] = {"get": _as_openapi_3(older[path]["get"])}
    for item in spec["paths"].values():
        for parameter in (one for operation in item.values() for one in operation.get("parameters", ())):
            parameter["required"] = parameter["required"] and parameter["name"] not in _NOT_REQUIRED
            if parameter["schema"].get("type") == "int16":  # which is a format
                parameter["schema"]["type"] = "integer"
    return Contract(spec)


def _as_openapi_3(operation: dict[str, Any]) -> dict[str, Any]:
    parameters = [
        {"name": one["name"], "in": one["in"], "required": one.get("required", False), "schema": {"type": one["type"]}}
        for one in operation["parameters"]
    ]
    return {"parameters": parameters, "responses": {"200": {"description": "OK"}}}


class NtopngStub(Stub):
    """One ntopng with the interfaces `eth0` (1) and `view:all` (4)."""

    def __init__(self, contract: Contract | None = None) -> None:
        self.interfaces: dict[int, dict[str, Any]] = {1: _data(1, "eth0"), 4: _data(4, "view:all") | {"is_view": True}}
        self.hosts: dict[int, list[dict[str, Any]]] = {}
        self.host_data: dict[tuple[int, str], dict[str, Any]] = {}
        self.flows: dict[int, list[dict[str, Any]]] = {}
        self.l4: list[dict[str, Any]] = [{"id": 6, "count": 20}, {"id": 17, "count": 9}, {"id": 200, "count": 1}]
        self.l7: list[dict[str, Any]] = [{"name": "TLS", "count": 12}, {"name": "DNS", "count": 9}]
        self.volumes: list[dict[str, Any]] = [{"label": "TLS", "value": 1.5e15}, {"label": "DNS", "value": 3000}]
        self.alerts: list[dict[str, Any]] = []
        self.system: dict[str, Any] = _system()
        self.redis: dict[str, Any] = {"health": "green", "memory": 9_000_000, "dbsize": 1200}
        self.errors: dict[str, str] = {}  # by script
        self.starting = False
        super().__init__(contract)

    def refuse(self, request: Request) -> Any | None:
        if self.starting:
            return Response("", 302, {"Location": "/please_wait.html?referer=x"})
        given = request.authorization
        basic = given is not None and (given.username, given.password) == (USER, PASSWORD)
        if not basic and request.headers.get("Authorization") != f"Token {TOKEN}":
            return Response("", 302, {"Location": "/lua/login.lua?referer=%2Flua%2Frest"})
        script = request.path.removeprefix(f"{_GET}/")
        if script in self.errors:
            return _error(self.errors[script])
        if "ifid" in request.args and int(request.args["ifid"]) not in (*self.interfaces, -1):
            return _error("INVALID_INTERFACE")
        return None

    @route(f"{_GET}/ntopng/interfaces.lua")
    def interfaces_(self, _: Request) -> Any:
        return _ok(
            [{"ifid": id, "ifname": one["ifname"], "name": one["ifname"]} for id, one in self.interfaces.items()]
        )

    @route(f"{_GET}/interface/data.lua")
    def data(self, request: Request) -> Any:
        return _ok(self.interfaces[int(request.args["ifid"])])

    @route(f"{_GET}/flow/l4/counters.lua")
    def l4_counters(self, _: Request) -> Any:
        return _ok(self.l4)

    @route(f"{_GET}/flow/l7/counters.lua")
    def l7_counters(self, _: Request) -> Any:
        return _ok(self.l7)

    @route(f"{_GET}/interface/l7/stats.lua")
    def l7_stats(self, request: Request) -> Any:
        if request.args["ndpistats_mode"] != "sinceStartup":
            return _error("INVALID_ARGUMENTS")
        return _ok(self.volumes)

    @route(f"{_GET}/flow/active.lua")
    def active_flows(self, request: Request) -> Any:
        all_ = sorted(self.flows.get(int(request.args["ifid"]), ()), key=lambda one: -float(one["thpt"]["bps"]))
        return _ok(_page(request, all_) | {"totalRows": len(all_)})

    @route(f"{_GET}/host/active.lua")
    def active_hosts(self, request: Request) -> Any:
        all_ = sorted(self.hosts.get(int(request.args["ifid"]), ()), key=lambda one: -int(one["bytes"]["total"]))
        mode = request.args.get("mode", "all")
        return _ok(_page(request, [one for one in all_ if mode == "all" or one["is_localhost"] == (mode == "local")]))

    @route(f"{_GET}/host/custom_data.lua")
    def custom_data(self, request: Request) -> Any:
        found = self.host_data.get((int(request.args["ifid"]), request.args["host"]))
        if found is None:
            return _error("NOT_FOUND")
        return _ok({name: found[name] for name in request.args["field_alias"].split(",") if name in found})

    @route(f"{_GET}/<family>/alert/list.lua")
    def alert_list(self, request: Request, family: str) -> Any:
        asked = request.args
        begin, end = int(asked["epoch_begin"]), int(asked["epoch_end"])
        here = [one for one in self.alerts if (one["family"], one["ifid"]) == (family, int(asked["ifid"]))]
        if asked.get("status") == "engaged":
            here = [one for one in here if one["engaged"] and one["tstamp"] <= end]
        else:
            here = [one for one in here if not one["engaged"] and begin <= one["tstamp"] <= end]
        if after := re.fullmatch(r"([0-9]+);gt", asked.get("row_id", "")):
            here = [one for one in here if int(one["row_id"]) > int(after[1])]
        column = {"rowid": "row_id", "tstamp": "tstamp"}[asked.get("sort", "tstamp")]
        here.sort(key=lambda one: str(one[column]).zfill(20), reverse=asked.get("order", "desc") == "desc")
        start = int(asked.get("start", 0))
        records = [one["record"] for one in here[start : start + int(asked.get("length", 10))]]
        return _ok({"records": records, "stats": []}) | {"recordsFiltered": len(here), "recordsTotal": len(here)}

    @route(f"{_GET}/system/health/stats.lua")
    def system_health(self, _: Request) -> Any:
        return _ok(self.system)

    @route(f"{_GET}/system/health/redis.lua")
    def redis_health(self, _: Request) -> Any:
        return _ok(self.redis)

    @route(f"{_GET}/system/status.lua")
    def system_status(self, _: Request) -> Any:
        licence = {"version": "6.3.241024", "status": "Community", "system_id": "L0", "license": "secret-licence-key"}
        return _ok({"license_info": licence, "resources_used": {"ntopng": {"ram": {"bytes_used": 1}}}})

    def add_alert(self, family: str, *, ifid: int = 1, row: str = "", at: int, engaged: bool = False) -> dict[str, Any]:
        """Have an alert; its record, to be changed."""
        record: dict[str, Any] = {
            "family": family,
            "row_id": row,
            "tstamp": {"value": at, "label": "12:00:00", "highlight": "#f00"},
            "alert_id": {"value": "9", "label": "<b>Flood</b>"},
            "alert_category": {"value": "1", "label": "Network", "icon": "fa"},
            "score": {"value": 120, "label": "120", "color": "#f00"},
            "severity": {"value": 5, "label": "<i class='fas' title='Error'></i> ", "color": "#f00"},
            "duration": 30,
            "count": 1,
            "msg": {"name": "Flood", "value": 9, "description": "Too much <a href='/x'>from &lt;there&gt;</a>"},
        }
        record |= copy.deepcopy(_ABOUT[family])
        one = {"family": family, "ifid": ifid, "row_id": row, "tstamp": at, "engaged": engaged, "record": record}
        self.alerts.append(one)
        return record


_ABOUT: dict[str, dict[str, Any]] = {
    "host": {"ip": {"value": "192.0.2.7", "label": "web <i></i>"}, "vlan_id": ""},
    "interface": {"subtype": {"value": "eth0", "name": "eth0"}},
    "flow": {
        "flow": {
            "cli_ip": {"value": "192.0.2.7"}, "srv_ip": {"value": "198.51.100.3"}, "cli_port": "50000",
            "srv_port": "443",
        },
    },
    "mac": {"address": {"value": "00:00:5E:00:53:01"}},
    "network": {"name": "192.0.2.0/24"},
    "system": {},
    "user": {"user": "nms"},
}  # fmt: skip


def host(ip: str, total: int, *, local: bool = True, vlan: int = 0) -> dict[str, Any]:
    """A host as ntopng lists it."""
    return {
        "key": ip, "ip": ip, "vlan": vlan, "name": f"name of {ip}", "os": "", "num_alerts": 0, "first_seen": 1,
        "last_seen": 2, "is_localhost": local, "is_blacklisted": False, "country": "DE",
        "bytes": {"total": total, "sent": total // 2, "recvd": total - total // 2}, "thpt": {"bps": 800.0, "pps": 2.5},
        "num_flows": {"total": 3, "as_client": 2, "as_server": 1}, "score": {"total": 10},
    }  # fmt: skip


def host_data(ip: str) -> dict[str, Any]:
    """Everything of a host that the test of the exporter's families looks for, and more."""
    dns = {
        "num_queries": 7, "num_replies_ok": 6, "num_replies_error": 1,
        "queries": {f"num_{kind}": 1 for kind in _RECORDS},
    }  # fmt: skip
    return {
        "ip": ip, "mac": "00:00:5E:00:53:01", "vlan": 0, "name": "web", "ifid": 1, "bytes.sent": 500, "bytes.rcvd": 700,
        "packets.sent": 5, "packets.rcvd": 7, "active_flows.as_client": 2, "active_flows.as_server": 1,
        "total_flows.as_client": 20, "total_flows.as_server": 10, "num_alerts": 1, "total_alerts": 4, "score": 30,
        "dns": {"sent": dns, "rcvd": dns}, "seen.first": 1,
    }  # fmt: skip


def flow(client: str, port: int, server: str = "198.51.100.3", *, bps: float = 800.0) -> dict[str, Any]:
    """An active flow as ntopng lists it."""
    return {
        "key": f"{client}:{port}", "hash_id": "1", "first_seen": 1, "last_seen": 2, "vlan": 0, "duration": 1,
        "client": {"ip": client, "port": port, "name": client}, "server": {"ip": server, "port": 443, "name": server},
        "protocol": {"l4": "TCP", "l7": "TLS"}, "bytes": 1000, "thpt": {"bps": bps, "pps": 1.5},
        "breakdown": {"cli2srv": 40, "srv2cli": 60}, "score": "10",
    }  # fmt: skip


def _page(request: Request, all_: list[dict[str, Any]]) -> dict[str, Any]:
    page, size = int(request.args["currentPage"]), int(request.args["perPage"])
    return {"perPage": size, "currentPage": page, "data": all_[(page - 1) * size : page * size], "sort": [[]]}


def _ok(payload: Any) -> dict[str, Any]:
    return {"rc": 0, "rc_str": "OK", "rc_str_hr": "Success", "rsp": payload or []}  # Lua's empty table


def _error(name: str) -> tuple[dict[str, Any], int]:
    status, rc = _ERRORS[name]
    return {"rc": rc, "rc_str": name, "rc_str_hr": name.replace("_", " ").capitalize(), "rsp": []}, status


def _data(ifid: int, ifname: str) -> dict[str, Any]:
    way = {"bps": 1000.0, "pps": 10.0, "bps_trend": 1, "pps_trend": 2}
    zmq = {"flows": 9, "dropped_flows": 1, "events": 2, "counters": 3, "zmq_msg_rcvd": 4, "zmq_msg_drops": 0}
    syslog = ("tot_events", "malformed", "dispatched", "unhandled", "alerts", "host_correlations", "flows")
    severities = ("notice", "warning", "error")
    return {
        "ifid": str(ifid), "ifname": ifname, "speed": 1000, "periodic_stats_update_frequency_secs": 5,
        "packets": 3000, "bytes": 4_000_000, "drops": 7, "tot_nprobe_pkts": 1, "tot_pkt_drops": 0,
        "discarded_probing_packets": 1, "discarded_probing_bytes": 60, "throughput_bps": 2000.0, "throughput_pps": 20.0,
        "flow_export_drops": 1, "flow_export_rate": 2.5, "flow_export_count": 90, "engaged_alerts": 2,
        "dropped_alerts": 3, "host_dropped_alerts": 1, "flow_dropped_alerts": 1, "other_dropped_alerts": 1,
        "alerted_flows": 6, "num_flows": 30, "num_hosts": 12, "num_local_hosts": 5, "num_devices": 4,
        "num_rcvd_only_hosts": 2, "num_local_rcvd_only_hosts": 1, "epoch": 1_780_000_000, "localtime": "12:00:00 +0000",
        "uptime": "2 Days, 03:04:05", "hosts_pctg": 2, "flows_pctg": 1, "macs_pctg": 1, "remote_pps": 0,
        "remote_bps": 0, "is_view": False, "num_live_captures": 0, "local2remote": 1100, "remote2local": 2200,
        "bytes_upload": 1_500_000, "bytes_download": 2_500_000, "packets_upload": 1200, "packets_download": 1800,
        "bytes_upload_since_reset": 1, "bytes_download_since_reset": 1, "packets_upload_since_reset": 1,
        "packets_download_since_reset": 1, "num_local_hosts_anomalies": 1, "num_remote_hosts_anomalies": 0,
        "throughput": {"download": way, "upload": way}, "download_upload_chart": {"download": [1, 2], "upload": [1]},
        "tcpPacketStats": {"retransmissions": 4, "out_of_order": 5, "lost": 6}, "active_discovery_active": False,
        "system_host_stats": {"cpu_load": 3.0}, "traffic_extraction_num_tasks": 0, "zmqRecvStats": zmq,
        "zmq.num_flow_exports": 9, "zmq.num_exporters": 2, "zmq.drops.export_queue_full": 1,
        "zmq.drops.flow_collection_drops": 2, "zmq.drops.flow_collection_udp_socket_drops": 3,
        "syslog": dict.fromkeys(syslog, 1),
    } | {f"{what}_{one}": 2 for what in ("alerted_flows", "engaged_alerts") for one in severities}  # fmt: skip


def _system() -> dict[str, Any]:
    states = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal", "guest", "guest_nice")
    memory = {"total": 8000, "free": 3000, "buffers": 100, "cached": 900, "sreclaimable": 50, "shmem": 20, "used": 4000}
    return {
        "cpu_load": 25.0, "mem_ntopng_resident": 500, "mem_ntopng_virtual": 900, "dropped_alerts": 1,
        "written_alerts": 50, "alerts_queries": 9, "alerts_stats": {"alert_queues": {"internal": {"pct_not_empty": 1}}},
        "cpu_states": dict.fromkeys(states, 10.0), "epoch": 1_780_000_000, "pid": 7,
        "storage": {
            "total": 1000, "pcap_total": 0, "other": 5000, "volume_size": 9000, "volume_dev": "/dev/vda1",
            "interfaces": {"1": {"rrd": 500, "total": 500, "name": "eth0"}},
        },
    } | {f"mem_{name}": size for name, size in memory.items()}  # fmt: skip
