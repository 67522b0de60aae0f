"""How the tests of this service read, act, and find out what is true."""

from collections.abc import Iterable
from typing import Any

import pytest
import requests

from nms_workers.change import Change
from nms_workers.errors import TargetError
from nms_workers.records import Record, Sample
from nms_workers.services.prometheus.client import PrometheusClient
from nms_workers.services.prometheus.service import Prometheus
from tests.servers import Server

_SECONDS = 60.0


class Plain:
    """The server's own API without our code."""

    def __init__(self, server: Server) -> None:
        self.url = server.url

    def ask(self, path: str, **params: Any) -> Any:
        """The `data` of an answer of the API; fails on anything but success."""
        answer = requests.get(f"{self.url}/api/v1{path}", params=params, timeout=30)
        assert answer.ok, f"{path}: {answer.status_code} {answer.text[:500]}"
        return answer.json()["data"]

    def value(self, query: str) -> float | None:
        """The one value of an expression now, None when it has none."""
        result = self.ask("/query", query=query)["result"]
        return float(result[0]["value"][1]) if result else None


def read(client: PrometheusClient, poll: str) -> list[Record]:
    """Every record of one run of a poll."""
    return list(Prometheus.polls()[poll].run(client))


def read_until(client: PrometheusClient, poll: str, kind: type[TargetError]) -> tuple[list[Record], str]:
    """What a run of a poll gives before it fails in this way, and the message."""
    records: list[Record] = []

    def run() -> None:
        for record in Prometheus.polls()[poll].run(client):
            records.append(record)  # noqa: PERF402 - they are wanted although it fails

    with pytest.raises(kind) as caught:
        run()
    return records, str(caught.value)


def act(client: PrometheusClient, action: str, **arguments: Any) -> Change:
    """Run an action as a job does: its arguments come as JSON and are validated."""
    declared = Prometheus.actions()[action]
    return declared.run(client, **declared.validate(arguments))


def samples(records: Iterable[Record]) -> list[Sample]:
    """The samples that others named."""
    declared = Prometheus.metrics()
    return [r for r in records if isinstance(r, Sample) and r.metric not in declared]
