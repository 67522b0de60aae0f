"""How the tests of this service read, act, and find out what is true."""

import time
from collections.abc import Callable, Iterable
from typing import Any

import pytest
import requests

from nms_workers.errors import TargetError
from nms_workers.records import Entity, Event, Record, Sample
from nms_workers.service import Change
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


def values(records: Iterable[Record], metric: str) -> dict[tuple[tuple[str, str], ...], float]:
    """Values by labels of the samples of a metric."""
    return {r.series.labels: r.value for r in records if isinstance(r, Sample) and r.metric == metric}


def value(records: Iterable[Record], metric: str, **labels: str) -> float:
    """The value of one series; fails when it is not there once."""
    wanted = tuple(sorted(labels.items()))
    (found,) = [r.value for r in records if isinstance(r, Sample) and r.metric == metric and r.series.labels == wanted]
    return found


def entities(records: Iterable[Record], kind: str) -> dict[str, dict[str, Any]]:
    """Attributes by key of the entities of a kind."""
    return {r.key: r.attributes for r in records if isinstance(r, Entity) and r.kind == kind}


def events(records: Iterable[Record]) -> list[Event]:
    """The events."""
    return [r for r in records if isinstance(r, Event)]


def samples(records: Iterable[Record]) -> list[Sample]:
    """The samples that others named."""
    declared = Prometheus.metrics()
    return [r for r in records if isinstance(r, Sample) and r.metric not in declared]


def await_true(condition: Callable[[], Any], seconds: float = _SECONDS) -> Any:
    """What the condition returns when it first is true."""
    end = time.monotonic() + seconds
    while not (result := condition()):
        assert time.monotonic() < end, "the condition did not come true in time"
        time.sleep(0.1)
    return result
