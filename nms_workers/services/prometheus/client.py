"""The Prometheus client: asks, reads pages of metrics, and commands. Usable without the fleet.

client = PrometheusClient(PrometheusTarget(url="http://prometheus.example.net:9090"))
print(client.query('sum by (job) (up)').rows)
client.close()
"""

import hashlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, NamedTuple

from nms_workers.errors import Refused
from nms_workers.services.prometheus import api, model
from nms_workers.services.prometheus.results import result
from nms_workers.services.prometheus.target import MAX_POINTS, PrometheusTarget
from nms_workers.transport.http import HttpClient, Response

Time = datetime | float
_GROUPS_AT_ONCE = 500  # of a page of rule groups, where the server knows pages
_PAGES = 1000
_TEXT_FIRST = (
    "text/plain;version=0.0.4,application/openmetrics-text;version=1.0.0;q=0.7,"
    "application/openmetrics-text;version=0.0.1;q=0.6,text/plain;q=0.5,*/*;q=0.1"
)


class Page(NamedTuple):
    """Rule groups up to a number of rules, and how many rules there are beyond."""

    groups: list[model.RuleGroup]
    left_out: int


class PrometheusClient:
    """One Prometheus server or exporter. Connects when first used; safe to share between threads.

    Every method raises `Unreachable`, `Timeout`, `AuthError`, `ParseError` or `Refused`. Times are aware datetimes or
    Unix seconds, durations seconds.
    """

    def __init__(self, target: PrometheusTarget) -> None:
        self.target = target
        self._http = HttpClient(target, service="prometheus")
        self._lock = threading.Lock()
        self._configuration = ""

    def close(self) -> None:
        """Let go of connections; the next use opens new ones."""
        self._http.close()

    def query(
        self, query: str, *, time: Time | None = None, timeout: float | None = None, limit: int | None = None
    ) -> model.Result:
        """The value of an expression at one moment.

        Args:
            time: default: the server's now.
            timeout: seconds the server may take; default: its own limit.
            limit: how many series at most; servers before 2.55 do not know it and give all.
        """
        form = {"query": query, "time": _time(time), "timeout": _duration(timeout), "limit": limit}
        return result(api.post(self._http, "/query", form))

    def query_range(  # noqa: PLR0913 - they are named
        self,
        query: str,
        *,
        start: Time,
        end: Time,
        step: float,
        timeout: float | None = None,
        limit: int | None = None,
    ) -> model.Result:
        """The values of an expression from `start` to `end`, both included, every `step` seconds.

        Raises:
            Refused: that is more points than the server gives; it is not asked then.
        """
        span = _unix(end) - _unix(start)
        if not step > 0 or not span >= 0:
            raise Refused("a range goes from an earlier start to a later end, in steps of more than 0 seconds")
        if span / step > MAX_POINTS:
            message = f"{span / step:.0f} points are more than the {MAX_POINTS} that Prometheus gives of one series"
            raise Refused(message, hint="raise step, or shorten the range")
        times = {"start": _time(start), "end": _time(end), "step": _duration(step)}
        return result(
            api.post(
                self._http, "/query_range", {"query": query, **times, "timeout": _duration(timeout), "limit": limit}
            )
        )

    def get_series(
        self, match: Sequence[str], *, start: Time | None = None, end: Time | None = None, limit: int | None = None
    ) -> list[model.Labels]:
        """The labels of the series that any of these selectors matches; `__name__` is the metric.

        Args:
            limit: how many at most; servers before 2.55 give all.
        """
        form = {"match[]": list(match), "start": _time(start), "end": _time(end), "limit": limit}
        return api.post(self._http, "/series", form).decoded(list[model.Labels])

    def get_metadata(self, metric: str = "", *, limit: int | None = None) -> dict[str, list[model.Metadata]]:
        """What the exporters say of each metric, or of one."""
        params = {"metric": metric or None, "limit": limit}
        return api.get(self._http, "/metadata", params).decoded(dict[str, list[model.Metadata]])

    def get_targets(self, state: Literal["active", "dropped", "any"] = "active", pool: str = "") -> model.Targets:
        """What is scraped, in all pools or in one."""
        params = {"state": state, "scrapePool": pool or None}
        return api.get(self._http, "/targets", params).decoded(model.Targets)

    def get_rules(self, most: int | None = None) -> Page:
        """All rule groups without their alerts, or those that hold the first `most` rules.

        Read page by page where the server knows pages (2.55 and newer); others give all at once.
        """
        groups: list[model.RuleGroup] = []
        kept = left_out = 0
        for group in self._groups():
            rules = group.rules or []
            room = len(rules) if most is None else max(0, most - kept)
            left_out += max(0, len(rules) - room)
            kept += min(len(rules), room)
            group.rules = rules[:room]
            if room or not rules:
                groups.append(group)
        return Page(groups, left_out)

    def get_alerts(self) -> list[model.Alert]:
        """Every alert that is pending or firing."""
        return api.get(self._http, "/alerts").decoded(model.Alerts).alerts or []

    def get_alertmanagers(self) -> model.Alertmanagers:
        """Where alerts are sent to."""
        return api.get(self._http, "/alertmanagers").decoded(model.Alertmanagers)

    def get_buildinfo(self) -> model.Build:
        """The version of the server."""
        return api.get(self._http, "/status/buildinfo").decoded(model.Build)

    def get_runtimeinfo(self) -> dict[str, Any]:
        """State of the process, by the server's own names; times are RFC 3339 text."""
        return api.get(self._http, "/status/runtimeinfo").decoded(dict[str, Any])

    def get_flags(self) -> dict[str, str]:
        """The options the server was started with."""
        return api.get(self._http, "/status/flags").decoded(dict[str, str])

    def get_config(self) -> str:
        """The configuration in force, as YAML; the server leaves secrets out."""
        return api.get(self._http, "/status/config").decoded(model.Configuration).yaml

    def get_config_hash(self) -> str:
        """SHA-256 of the configuration in force, 64 hexadecimal digits."""
        return hashlib.sha256(self.get_config().encode()).hexdigest()

    def get_walreplay(self) -> dict[str, Any]:
        """Segments of the write-ahead log: `min`, `max`, and the `current` one while they are read at the start."""
        return api.get(self._http, "/status/walreplay").decoded(dict[str, Any])

    def get_tsdb(self, limit: int | None = None) -> dict[str, Any]:
        """State of the head, by the server's own names, with the names that have the most series.

        Args:
            limit: how many of these; servers before 2.53 always give 10.
        """
        return api.get(self._http, "/status/tsdb", {"limit": limit}).decoded(dict[str, Any])

    def get_tops(self, limit: int) -> model.Tops:
        """The names with the most series, values and bytes in the head, `limit` of each."""
        return api.get(self._http, "/status/tsdb", {"limit": limit}).decoded(model.Tops)

    def is_ready(self) -> bool:
        """Whether it has read its data and serves queries."""
        return self._http.get("/-/ready", expect=(503,)).status == 200

    def get_metrics(
        self, path: str = "/metrics", params: Mapping[str, str | list[str] | None] | None = None
    ) -> Response:
        """A page of metrics, as it is. Text is asked for first, OpenMetrics next."""
        return self._http.get(path, params=params or {}, headers={"Accept": _TEXT_FIRST, "Accept-Encoding": "gzip"})

    def command(self, path: str, params: api.Params) -> api.Told:
        """Change something through `/api/v1/admin<path>`: sent once.

        Raises:
            Refused: the server runs without --web.enable-admin-api, among others.
        """
        return api.command(self._http, f"/admin{path}", params)

    def reload(self) -> Response:
        """Make it read its configuration again: its answer, 200, 403 (not allowed at all) or 500 (a faulty one)."""
        return self._http.post("/-/reload", expect=(403, 500))

    def remember_configuration(self, digest: str) -> str:
        """The digest that was remembered before; empty at first. Tells what changed between two reads."""
        with self._lock:
            before, self._configuration = self._configuration, digest
            return before

    def _groups(self) -> Iterator[model.RuleGroup]:
        params: dict[str, str | int | float | list[str] | None] = {
            "exclude_alerts": "true",
            "group_limit": _GROUPS_AT_ONCE,
        }
        for _ in range(_PAGES):
            page = api.get(self._http, "/rules", params).decoded(model.Rules)
            yield from page.groups or ()
            if not page.group_next_token:
                return
            params["group_next_token"] = page.group_next_token
        raise Refused(f"there are more than {_PAGES * _GROUPS_AT_ONCE} rule groups", hint="skip the poll rules")


def _unix(time: Time) -> float:
    return time.timestamp() if isinstance(time, datetime) else float(time)


def _time(time: Time | None) -> str | None:
    return None if time is None else f"{_unix(time):.3f}"


def _duration(seconds: float | None) -> str | None:
    """Whole milliseconds: what a server of any version reads."""
    return None if seconds is None else f"{max(1, round(seconds * 1000))}ms"
