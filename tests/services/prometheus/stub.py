"""A Prometheus as newer ones are (3.x), with pages of rules, native histograms and remarks; or one that is not ready.

What 2.42 does as well is tested against the real one.
"""

from functools import cache
from typing import Any

from werkzeug.wrappers import Request, Response

from tests.contract.vendor import SPECS, Contract, description
from tests.stubs.stub import Stub, route

AT = 1_700_000_000.0
SECOND = "2026-01-01T00:00:00.123456789Z"
HISTOGRAM = {"count": "6", "sum": "12.5", "buckets": [[0, "1", "2", "2"], [0, "2", "4", "4"]]}
AGENT = {"status": "error", "errorType": "execution", "error": "unavailable with Prometheus Agent"}


FILE = "prometheus/openapi_3.1.yaml"


@cache
def contract() -> Contract:
    """The vendor's description, with texts for parameters that may be numbers or texts: the checker knows no casts."""
    return Contract(_plain(description(FILE)), "/api/v1")


def _plain(node: Any) -> Any:
    if isinstance(node, list):
        return [_plain(one) for one in node]
    if not isinstance(node, dict):
        return node
    if node.get("in") == "query" and any(name in node["schema"] for name in ("anyOf", "oneOf")):
        return node | {"schema": {"type": "string"}}
    return {name: _plain(below) for name, below in node.items() if name not in ("example", "examples")}


class PrometheusStub(Stub):
    """Holds `groups` of rules, one answer to every query, and a state.

    `refusal` is what is answered to everything: `(JSON or text, status)`.
    """

    def __init__(self) -> None:
        self.ready = True
        self.refusal: tuple[Any, int] | None = None
        self.config, self.reload_well = "global: {}\n", True
        self.groups: list[dict[str, Any]] = []
        self.answer: dict[str, Any] = {"resultType": "vector", "result": []}
        self.remarks: dict[str, list[str]] = {}
        super().__init__(contract() if (SPECS / FILE).exists() else None)

    def refuse(self, request: Request) -> Any:
        if self.refusal is None:
            return None
        body, status = self.refusal
        return Response(body, status, content_type="text/plain") if isinstance(body, str) else self.refusal

    def add_group(self, name: str, *rules: str) -> None:
        """A group of recording rules that have not been evaluated yet."""
        never = {"lastEvaluation": "0001-01-01T00:00:00Z", "evaluationTime": 0}
        about = {"name": name, "file": "f.yml", "interval": 60, "limit": 0} | never
        rule = {"query": "1", "type": "recording", "health": "unknown"} | never
        self.groups.append(about | {"rules": [{"name": one} | rule for one in rules]})

    @route("/api/v1/rules")
    def rules(self, request: Request) -> Any:
        most, after = int(request.args["group_limit"]), request.args.get("group_next_token")
        names = [group["name"] for group in self.groups]
        begin = names.index(after) + 1 if after else 0
        page = self.groups[begin : begin + min(most, 2)]
        more = page and page[-1] is not self.groups[-1]
        return good({"groups": page} | ({"groupNextToken": page[-1]["name"]} if more else {}))

    @route("/api/v1/query", "POST")
    def query(self, _: Request) -> Any:
        return good(self.answer) | self.remarks

    @route("/api/v1/query_range", "POST")
    def query_range(self, _: Request) -> Any:
        return good(self.answer) | self.remarks

    @route("/api/v1/status/walreplay")
    def walreplay(self, _: Request) -> Any:
        return good({"min": 3, "max": 12, "current": 7})

    @route("/api/v1/status/buildinfo")
    def buildinfo(self, _: Request) -> Any:
        about = {"revision": "r", "branch": "HEAD", "buildUser": "u", "buildDate": "d", "goVersion": "go1.26"}
        return good({"version": "3.14.0"} | about)

    @route("/api/v1/status/runtimeinfo")
    def runtimeinfo(self, _: Request) -> Any:
        process = {"CWD": "/", "hostname": "h", "goroutineCount": 40, "GOMAXPROCS": 8, "GODEBUG": ""}
        times = {"startTime": SECOND, "serverTime": SECOND, "lastConfigTime": SECOND}
        settings = {"GOMEMLIMIT": 1_000_000, "GOGC": "75", "storageRetention": "15d", "corruptionCount": 2}
        return good({**process, **times, **settings, "reloadConfigSuccess": self.reload_well})

    @route("/api/v1/status/flags")
    def flags(self, _: Request) -> Any:
        return good({"web.enable-lifecycle": "false", "web.cors.origin": ".*"})

    @route("/api/v1/status/config")
    def status_config(self, _: Request) -> Any:
        return good({"yaml": self.config})

    @route("/api/v1/status/tsdb")
    def tsdb(self, _: Request) -> Any:
        lists = (
            "seriesCountByMetricName labelValueCountByLabelName memoryInBytesByLabelName seriesCountByLabelValuePair"
        )
        never = {"minTime": 2**63 - 1, "maxTime": -(2**63)}
        head = {"numSeries": 0, "numLabelPairs": 0, "chunkCount": 0} | never
        return good({"headStats": head} | {name: [{"name": "x", "value": 1}] for name in lists.split()})

    @route("/-/ready")
    def is_ready(self, _: Request) -> Any:
        return Response("", 200 if self.ready else 503, content_type="text/plain")

    unchecked = {"/-/": "the management API is not described"}  # noqa: RUF012


def good(data: Any) -> dict[str, Any]:
    """The envelope of a good answer."""
    return {"status": "success", "data": data}
