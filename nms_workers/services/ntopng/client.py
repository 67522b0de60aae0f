"""The ntopng client: reads interfaces, hosts, flows, alerts and the health of ntopng. Usable without the fleet.

client = NtopngClient(NtopngTarget(url="https://ntopng.example.net:3001", token="env:NTOPNG_TOKEN"))
print([one.ifname for one in client.get_interfaces()])
client.close()
"""

import csv
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypeVar, get_origin
from urllib.parse import urlsplit

import msgspec

from nms_workers.errors import ParseError, Refused, TargetError, Unreachable
from nms_workers.services.ntopng import alerts, model
from nms_workers.services.ntopng.target import Family, NtopngTarget
from nms_workers.transport.http import HttpClient, Response
from nms_workers.transport.response import check

T = TypeVar("T")
Status = Literal["engaged", "historical"]
Asked: TypeAlias = dict[str, str | int]  # the query of a request

_API = "/lua/rest/v2/get"
_EXPLAINED = (302, 400, 401, 404, 409, 500)  # what may come with an envelope, and a redirect while it starts
_SYSTEM = -1  # the interface that alerts about ntopng itself belong to
_DAY = 86_400
_KINDS: dict[str, type[TargetError]] = {"refused": Refused, "parse": ParseError}

with Path(__file__).with_name("codes.csv").open(encoding="utf-8", newline="") as _lines:
    CODES = {int(row["rc"]): (_KINDS[row["outcome"]], row["hint"]) for row in csv.DictReader(_lines)}
"""What each code of ntopng's envelope means: the exception, and what to do."""

_NOT_FOUND = -1


class NotThere(Refused):
    """ntopng knows no such object."""


class _Envelope(msgspec.Struct):
    rc: int
    rsp: msgspec.Raw
    rc_str: str = ""
    rc_str_hr: str = ""
    recordsFiltered: int | None = None  # noqa: N815 - ntopng's name


class NtopngClient:
    """One ntopng. Connects when first used; safe to share between threads.

    Every method raises `Unreachable`, `Timeout`, `AuthError`, `ParseError` or `Refused`.
    """

    def __init__(self, target: NtopngTarget) -> None:
        self.target = target
        self._http = HttpClient(target, service="ntopng")
        self._lock = threading.Lock()
        self._rows: dict[tuple[str, int], int] = {}

    def close(self) -> None:
        """Let go of connections, and forget which alerts were told; the next use begins anew."""
        with self._lock:
            self._rows.clear()
        self._http.close()

    def last_row(self, family: str, ifid: int) -> int | None:
        """The greatest row id of past alerts that was remembered. It counts up as long as ntopng's database lives."""
        with self._lock:
            return self._rows.get((family, ifid))

    def remember_row(self, family: str, ifid: int, row: int) -> None:
        """Remember how far past alerts were told."""
        with self._lock:
            self._rows[family, ifid] = max(row, self._rows.get((family, ifid), row))

    def get_interfaces(self) -> list[model.Interface]:
        """The interfaces that ntopng watches, by id."""
        found = self._get("ntopng/interfaces", list[model.Interface])
        return sorted(found, key=lambda one: one.ifid)

    def get_interface_data(self, ifid: int) -> dict[str, Any]:
        """Counters, throughput, drops, hosts, flows and alerts of an interface, as ntopng names them."""
        return self._get("interface/data", dict[str, Any], ifid=ifid)

    def get_l4_counters(self, ifid: int) -> list[model.L4Count]:
        """Active flows by IP protocol."""
        return self._get("flow/l4/counters", list[model.L4Count], ifid=ifid)

    def get_l7_counters(self, ifid: int) -> list[model.L7Count]:
        """Active flows by application."""
        return self._get("flow/l7/counters", list[model.L7Count], ifid=ifid)

    def get_l7_bytes(self, ifid: int) -> list[model.L7Bytes]:
        """Bytes by application since ntopng began."""
        asked = {"ndpistats_mode": "sinceStartup", "all_values": "true", "collapse_stats": "false"}
        return self._get("interface/l7/stats", list[model.L7Bytes], ifid=ifid, **asked)

    def get_flows(self, ifid: int, limit: int | None = None) -> tuple[list[model.ActiveFlow], int]:
        """Active flows of an interface, those of the greatest throughput first, and how many there are.

        Args:
            limit: how many at most; None: `max_flows`.
        """
        wanted = self.target.max_flows if limit is None else limit
        asked: Asked = {"currentPage": 1, "perPage": wanted, "sortColumn": "thpt", "sortOrder": "desc"}
        found = self._get("flow/active", model.Flows, ifid=ifid, **asked)
        return list(found.data[:wanted]), max(found.totalRows, len(found.data))

    def get_hosts(self, ifid: int, limit: int | None = None) -> list[model.ActiveHost]:
        """Active hosts of an interface, those of the most traffic first.

        Args:
            limit: how many at most; None: `max_hosts`.
        """
        wanted = self.target.max_hosts if limit is None else limit
        asked: Asked = {"currentPage": 1, "perPage": wanted, "sortColumn": "traffic", "sortOrder": "desc"}
        found = self._get("host/active", model.Hosts, ifid=ifid, mode=self.target.hosts, **asked)
        return list(found.data[:wanted])

    def get_host_data(self, ifid: int, ip: str, vlan: int, fields: Sequence[str]) -> dict[str, Any]:
        """Chosen fields of a host, as ntopng names them.

        Raises:
            NotThere: ntopng has forgotten it meanwhile.
        """
        asked: Asked = {"host": ip, "vlan": vlan, "field_alias": ",".join(fields)}
        return self._get("host/custom_data", dict[str, Any], ifid=ifid, **asked)

    def get_alerts(
        self, ifid: int, family: Family, status: Status = "engaged", after_row: int | None = None
    ) -> tuple[list[model.Alert], int]:
        """Alerts of an interface, up to `max_alerts`, and how many there are.

        Args:
            ifid: does not matter for the family `system`, whose alerts belong to none.
            status: `engaged` ones last, `historical` ones are over; flows have only these.
            after_row: past ones only, and only those after this row, the oldest first. Without it, the newest of the
                last `alert_history` seconds.
        """
        now = int(time.time())
        asked: Asked = {"status": status, "start": 0, "length": self.target.max_alerts, "format": "json"}
        if status == "engaged":
            asked |= {"epoch_begin": 0, "epoch_end": now + _DAY}  # it leaves those out that begin after the end
        elif after_row is None:
            begin = now - self.target.alert_history
            asked |= {"epoch_begin": begin, "epoch_end": now + _DAY, "sort": "tstamp", "order": "desc"}
        else:
            asked |= {"epoch_begin": 0, "epoch_end": now + _DAY}
            asked |= {"row_id": f"{after_row};gt", "sort": "rowid", "order": "asc"}
        asked["ifid"] = _SYSTEM if family == "system" else ifid
        envelope = self._ask(f"{family}/alert/list", asked)
        records = _shaped(envelope.rsp, model.AlertRecords).records
        found = [alerts.of_record(family, one) for one in records[: self.target.max_alerts]]
        return found, max(envelope.recordsFiltered or 0, len(records))

    def get_system_health(self) -> dict[str, Any]:
        """CPU load, memory, alert queues and storage of ntopng and its host, as ntopng names them."""
        return self._get("system/health/stats", dict[str, Any])

    def get_redis_health(self) -> model.RedisHealth:
        """The Redis that ntopng keeps its state in."""
        return self._get("system/health/redis", model.RedisHealth)

    def get_system_status(self) -> model.SystemStatus:
        """Version and kind of licence."""
        return self._get("system/status", model.SystemStatus)

    def _get(self, path: str, shape: type[T], **asked: str | int) -> T:
        return _shaped(self._ask(path, asked).rsp, shape)

    def _ask(self, path: str, asked: Mapping[str, str | int]) -> _Envelope:
        response = self._http.get(f"{_API}/{path}.lua", params=asked, expect=_EXPLAINED)
        if "please_wait" in urlsplit(response.location).path:
            raise Unreachable(f"{response.url}: ntopng is starting", hint="it answers once it is ready")
        if response.location:
            check(response, "GET", (), ())
        try:
            envelope = response.json(_Envelope)
        except ParseError as exc:
            check(response, "GET", (), ())
            raise _no_envelope(response, exc) from None
        if envelope.rc != 0:
            raise _told(response, envelope)
        return envelope


def _told(response: Response, envelope: _Envelope) -> TargetError:
    """What a code of the envelope means."""
    words = envelope.rc_str_hr if envelope.rc_str_hr not in ("", "Unknown") else envelope.rc_str
    message = f"{response.url} was answered with code {envelope.rc}: {words[:200]}"
    kind, hint = CODES.get(envelope.rc, (Refused, "ntopng understood, and said no"))
    return (NotThere if envelope.rc == _NOT_FOUND else kind)(message, hint=hint)


def _no_envelope(response: Response, exc: ParseError) -> ParseError:
    """JSON that is not ntopng's comes from another product; anything else says itself what it is."""
    try:
        response.json()
    except ParseError:
        return exc
    message = f"{response.url} is no ntopng with the REST API v2: {exc.message}"
    return ParseError(message, hint="check host and port in the url, and that ntopng is of version 5 or later")


def _shaped(value: msgspec.Raw, shape: type[T]) -> T:
    """The payload in its shape.

    Raises:
        ParseError: it has another.
    """
    empty_table = bytes(value).strip() == b"[]" and get_origin(shape) is dict
    try:
        return msgspec.json.decode(b"{}" if empty_table else value, type=shape)
    except msgspec.DecodeError as exc:
        hint = "this version of ntopng may not be supported"
        raise ParseError(f"ntopng answered with JSON of another shape: {exc}", hint=hint) from None
